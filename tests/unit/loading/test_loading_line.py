"""The line of a training script: written over on a terminal, now and then in a file."""

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from latewood import progress
from latewood.loading import LoaderStats
from latewood.loading.line import ProgressLine
from latewood.progress import Line


class Steps:
    """Ten steps of a second each, by a clock that only they move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.given = 100.0, 0
        monkeypatch.setattr(progress, "perf_counter", lambda: self.now)

    def __iter__(self) -> Iterator[int]:
        for i in range(10):
            self.given += 1
            yield i
            self.now += 1

    def steps_left(self) -> int:
        return 10 - self.given

    def stats(self) -> LoaderStats:
        n = self.given
        return LoaderStats(n, 50 * n, 0, 0, 0.0, float(n), 0.25 * n, 0.0, {})


def lines(loader: Steps, console: Console, stop: int = 10) -> None:
    line = ProgressLine(loader, every_s=4, console=console)
    for i in line:
        line.note = f"loss {1 / (i + 1):.2f}"
        loader.now += 0  # a trainer's step
        if i + 1 == stop:
            break


def test_in_a_file_there_is_one_now_and_then_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    lines(Steps(monkeypatch), Console(file=file, width=40))
    assert file.getvalue().splitlines() == [
        "5 of 10 batches, 50 examples/s, 0:05 left, starved 25.0%; loss 0.20",
        "9 of 10 batches, 50 examples/s, 0:01 left, starved 25.0%; loss 0.11",
        "10 of 10 batches, 50 examples/s, 0:00 left, starved 25.0%; loss 0.10",
    ]


def test_an_epoch_that_is_left_early_ends_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    lines(Steps(monkeypatch), Console(file=file), stop=2)
    assert file.getvalue() == "2 of 10 batches, 50 examples/s, 0:08 left, starved 25.0%; loss 0.50\n"


def test_on_a_terminal_it_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    lines(Steps(monkeypatch), Console(file=file, force_terminal=True, width=100))
    shown = file.getvalue()
    assert "3 of 10 batches" in shown
    assert "\x1b[2K" in shown  # the line before is wiped out
    assert shown.rstrip().endswith("10 of 10 batches, 50 examples/s, 0:00 left, starved 25.0%; loss 0.10")


def test_nothing_is_shown_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    lines(Steps(monkeypatch), Console(file=file, force_terminal=True, quiet=True))
    assert file.getvalue() == ""


def test_a_text_is_asked_for_only_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, asked = Steps(monkeypatch), list[float]()

    def text() -> str:
        asked.append(steps.now)
        return "text"

    with Line(Console(file=io.StringIO()), every_s=3) as line:
        for _ in range(10):
            line.show(text)
            steps.now += 1
    assert asked == [103, 106, 109]
