"""The bar: seen only on a terminal, and only by those who wait."""

import io
import time

import pytest
from rich.console import Console

from latewood.progress import progress_bar


def shown(console: Console, file: io.StringIO, after_s: float, wait_for: str = "") -> str:
    with progress_bar(console, "working", total=3, after_s=after_s) as bar:
        bar.advance(1)
        bar.step("still working")
        bar.update(2, 3, "writing")
        deadline = time.monotonic() + 20
        while wait_for not in file.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    return file.getvalue()


def test_a_bar_is_shown_to_those_who_wait() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100)
    assert "2/3" in shown(console, file, after_s=0.01, wait_for="writing")


def test_nothing_is_shown_for_a_moments_work() -> None:
    file = io.StringIO()
    assert shown(Console(file=file, force_terminal=True), file, after_s=3600) == ""


def test_where_nobody_looks_phases_can_be_announced() -> None:
    file = io.StringIO()
    with progress_bar(Console(file=file), "one", total=3, announce=True) as bar:
        bar.advance(1)
        bar.step("two")
        bar.step("two")
        bar.update(3, 3, "two")
    assert file.getvalue() == "one ...\ntwo ...\n"


@pytest.mark.parametrize("options", [{"force_terminal": False}, {"force_terminal": True, "quiet": True}])
def test_nothing_is_shown_where_nobody_looks(options: dict[str, bool]) -> None:
    file = io.StringIO()
    assert shown(Console(file=file, **options), file, after_s=0) == ""
