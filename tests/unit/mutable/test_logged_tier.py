"""Commits that break off before, within or just after the log made them durable: readers see them whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.immutable import Scrubs
from latewood.mutable.log import Log, LogFullError, LogState, LogTransaction
from latewood.mutable.logged_tier import LoggedTier
from latewood.mutable.memory_tier import _MemoryLog
from latewood.mutable.segmented_log import SegmentedLog
from latewood.storage import open_storage
from latewood.testing.recent_events import (
    NOW,
    SETTINGS,
    append_ids,
    deletions_of,
    make_events,
    of_ids,
    recent_of,
    scanned,
)
from latewood.users import user_keys


class FaultyLog:
    """Another log, whose next commit breaks off at the point named."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.fault: tuple[str, BaseException] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    @contextmanager
    def begin(self) -> Iterator["FaultyTransaction"]:
        with self._log.begin() as transaction:
            yield FaultyTransaction(self, transaction)


class FaultyTransaction:
    def __init__(self, log: FaultyLog, transaction: LogTransaction) -> None:
        self._log, self._transaction, self.state = log, transaction, transaction.state

    def _break_off(self, point: str) -> None:
        if self._log.fault is not None and self._log.fault[0] == point:
            fault, self._log.fault = self._log.fault[1], None
            raise fault

    def put(self, number: int, batch: Any) -> None:
        self._break_off("put")
        self._transaction.put(number, batch)

    def commit(self, state: LogState) -> None:
        self._break_off("before")
        self._transaction.commit(state)
        self._break_off("after")


@pytest.fixture(params=["memory", "lmdb"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> FaultyLog:
    return FaultyLog(_MemoryLog() if request.param == "memory" else SegmentedLog(tmp_path / "mutable", create=True))


@pytest.fixture
def tier(log: FaultyLog) -> Iterator[LoggedTier]:
    tier = LoggedTier(log, pa.int64(), SETTINGS)
    append_ids(tier, ["first"], make_events([1], [5]))
    yield tier
    tier.close()


@pytest.mark.parametrize("point", ["put", "before", "after"])
@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()], ids=["OSError", "KeyboardInterrupt"])
def test_a_commit_that_breaks_off_is_there_whole_or_not_at_all(
    log: FaultyLog, tier: LoggedTier, point: str, fault: BaseException
) -> None:
    log.fault = point, fault
    with pytest.raises(type(fault)):
        append_ids(tier, ["second", "third"], make_events([1, 2], [4, 6]))
    landed = point == "after"
    assert [row[1] for row in recent_of(tier, [1])[0]] == ([4, 5] if landed else [5])
    assert len(scanned(tier)) == (3 if landed else 1)
    again = append_ids(tier, ["second", "third"], make_events([1, 2], [4, 6]))
    assert (again.count, again.duplicates) == ((0, 2) if landed else (2, 0))
    assert [row[1:3] for row in recent_of(tier, [1])[0]] == [(4, NOW + 1), (5, NOW)]
    tie = tier.append(make_events([1], [4], [NOW + 1]), explicit=True, now=NOW)
    assert tie.ordinal.tolist() == [1]


@pytest.mark.parametrize("point", ["put", "before", "after"])
def test_what_a_broken_commit_superseded_counts_whole_or_not_at_all(
    log: FaultyLog, tier: LoggedTier, point: str
) -> None:
    log.fault = point, OSError("disk full")
    events, supersedes = make_events([1, 1], [4, 0], item=[7, None]), of_ids([None, "first"], [False, True])
    with pytest.raises(OSError):
        append_ids(tier, ["second", "gone"], events, supersedes)
    landed = point == "after"
    assert [row[1] for row in recent_of(tier, [1])[0]] == ([4] if landed else [5])
    assert len(tier.suppressions(NOW, 2 * NOW)) == landed
    again = append_ids(tier, ["second", "gone"], events, supersedes)
    assert (again.count, again.duplicates) == ((0, 2) if landed else (2, 0))
    assert [row[1] for row in recent_of(tier, [1])[0]] == [4]


def test_what_is_superseded_shows_only_when_it_is_durable(
    log: FaultyLog, tier: LoggedTier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    commit = FaultyTransaction.commit

    def watch(transaction: FaultyTransaction, state: LogState) -> None:
        with tier._replica.reading:
            arena, ends = tier._replica.arena, np.array([9])
            keys, times = user_keys(pa.array([1])), (np.array([0]), np.array([2 * NOW]))
            seen.append(
                (len(arena.gather(keys, ends, *times, None, None)[1]), len(arena.superseded_between(0, 2 * NOW)))
            )
        commit(transaction, state)

    monkeypatch.setattr(FaultyTransaction, "commit", watch)
    append_ids(tier, None, deletions_of([1]), of_ids(["first"], [True]))
    assert seen == [(1, 0)]
    assert recent_of(tier, [1]) == [[]]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_scrub_that_breaks_off_at_either_commit_is_finished(log: FaultyLog, tmp_path: Path, point: str) -> None:
    book = Scrubs(open_storage(str(tmp_path / "book")), bytes(range(16)))
    tier = LoggedTier(log, pa.int64(), SETTINGS, scrubs=book)
    tier.append(make_events([1, 2], [5, 6]), now=NOW)
    body = book.body(user_keys(pa.array([1])))
    log.fault = point, OSError("disk full")
    with pytest.raises(OSError):
        tier.scrub(body, now=NOW)
    begun = point == "after"
    assert [len(rows) for rows in recent_of(tier, [1, 2])] == ([0, 1] if begun else [1, 1])
    assert tier.state().scrubs == len(book) == begun
    number, _ = tier.scrub(body, now=NOW)
    assert (number, tier.state().scrubs) == (begun, begun + 1)
    tier.close()


@pytest.mark.parametrize("point", ["put", "before"])
def test_a_full_log_is_tried_again(log: FaultyLog, tier: LoggedTier, point: str) -> None:
    log.fault = point, LogFullError()
    assert append_ids(tier, ["second"], make_events([1], [5])).ingest_ts.tolist() == [NOW + 1]
    assert [row[2] for row in scanned(tier)] == [NOW, NOW + 1]


def test_a_cut_that_breaks_off_can_be_repeated(log: FaultyLog, tier: LoggedTier) -> None:
    for point in ("before", "after"):
        log.fault = point, OSError()
        with pytest.raises(OSError):
            tier.cut()
        assert len(scanned(tier)) == 1
    assert tier.cut() == NOW + 1
    assert append_ids(tier, ["first", "next"], make_events([1, 1], [5, 9])).duplicates == 1
    tier.evict(NOW + 1)
    assert [row[1] for row in recent_of(tier, [1])[0]] == [9]
