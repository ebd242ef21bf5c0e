"""Commits that break off before, within or just after the log made them durable: readers see them whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from latewood.mutable.log import Log, LogFullError, LogState, LogTransaction
from latewood.mutable.logged_tier import LoggedTier
from latewood.mutable.memory_tier import _MemoryLog
from latewood.mutable.segmented_log import SegmentedLog
from latewood.testing.recent_events import NOW, SETTINGS, append_ids, make_events, recent_of, scanned


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
