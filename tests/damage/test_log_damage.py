"""Damage to an example log: its files are Parquet, with checksums of ours for the footer and for every column chunk.

Only the bytes that say what a file is can be changed unseen, which is harmless: Parquet's first four, which readers pass
over, and the word before our checksums, without which the rest, whole as it is, goes unchecked.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import whole_store
from parquet_pages import page_headers

import latewood as lw
from damage import Case, Tally, additions, changes, flips, holes, truncations, try_all
from latewood.errors import CorruptionError
from latewood.examples.footer import WORD
from latewood.examples.source import open_examples


class Log:
    """A log of one file, and the store that it points to."""

    def __init__(self, folder: Path) -> None:
        whole_store.make(folder / "store", folder / "log")
        self.folder, (self.file,) = folder / "log", whole_store.files(folder / "log")
        self.store = lw.Store.open(folder / "store", read_only=True)
        data = self.file.read_bytes()
        word = data.rindex(WORD)
        self.harmless = {*range(4), *range(word, word + len(WORD))}

    def read(self) -> str:
        return whole_store.read_log(self.store, self.folder)

    def look(self) -> None:
        """Read the file, and make nothing of it."""
        source = open_examples(str(self.file))
        for group in range(len(source.offsets) - 1):
            source.read(group)

    def damaged(self, damage: Callable[[bytes], Iterator[Case]]) -> Tally:
        return try_all(self.file, damage(self.file.read_bytes()), self.read, probe=self.look)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    log = Log(tmp_path_factory.mktemp("log-damage"))
    yield log
    log.store.close()


def test_the_headers_of_all_pages_are_found(log: Log) -> None:
    headers = page_headers(log.file.read_bytes())
    assert len(headers) > 20
    assert all(10 < len(header) < 100 for header in headers)


@pytest.mark.parametrize("pattern", [0x01, 0x80])
def test_flipped_bytes_are_refused_or_harmless(log: Log, pattern: int) -> None:
    """Some; exhaustive.py takes all, and every way to change a page's header."""
    tally = log.damaged(partial(flips, patterns=[pattern], every=5 if pattern == 1 else 7))
    assert [str(finding) for finding in tally.findings] == []
    places = {int(re.search(r"\d+", what)[0]) for what in tally.harmless}
    assert places <= log.harmless, sorted(places - log.harmless)


def test_headers_of_pages_are_covered_too(log: Log) -> None:
    """By Parquet's own checksums they are not: another encoding, one byte, gave other request times without an error."""
    places = [place for header in page_headers(log.file.read_bytes()) for place in header][::3]
    tally = log.damaged(lambda data: (case for place in places for case in changes(data, place, [0x0A])))
    assert [str(finding) for finding in tally.findings] == []
    assert (tally.refused, tally.harmless) == (len(places), [])


def test_what_was_cut_short_or_overwritten_is_refused(log: Log) -> None:
    for damage in (partial(truncations, every=11), holes):
        tally = log.damaged(damage)
        assert [str(finding) for finding in tally.findings] == []
        assert tally.harmless == []


def test_appended_bytes_are_refused_unless_they_are_a_whole_file(log: Log) -> None:
    """A file that stands twice in a row is read from its end, where its offsets lead into the first, which is the same."""
    tally = log.damaged(additions)
    assert [str(finding) for finding in tally.findings] == []
    assert tally.harmless in ([], [f"{log.file.stat().st_size} bytes more"])


@pytest.mark.parametrize("size", [0, 1, 4, 8, 12])
def test_the_first_bytes_of_a_file_are_a_damaged_file(log: Log, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(log.file.read_bytes()[:size])
    with pytest.raises(CorruptionError, match=r"cut\.parquet"):
        lw.Loader(log.store, str(cut), whole_store.EVERYTHING, batch_size=4)
