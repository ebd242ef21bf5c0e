"""Runs of event ids: sorted, searched, merged, forgotten, and bytes that are checked."""

import numpy as np
import pytest

from latewood.errors import CorruptionError
from latewood.mutable.event_ids import RUNS, IdRun, remember


def run_of(pairs: list[tuple[int, int]], latest: int = 0) -> IdRun:
    high, low = (
        (np.array(column, np.uint64) for column in zip(*pairs, strict=True)) if pairs else (np.zeros(0, np.uint64),) * 2
    )
    n = np.arange(len(pairs))
    columns = {"high": high, "low": low, "content": n.astype(np.uint64), "ingest_ts": n + 100}
    columns |= {"ordinal": n.astype(np.int32), "event_ts": n + 200, "user_hash": low, "user_check": high}
    return IdRun.sort(columns, latest=latest)


def found(run: IdRun, pairs: list[tuple[int, int]]) -> list[int | None]:
    """The ingest time of each id."""
    high, low = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
    return [None if place < 0 else int(run.ingest_ts[place]) for place in run.newest(high, low)]


def test_ids_are_found_even_where_their_first_halves_collide() -> None:
    run = run_of([(7, 3), (7, 1), (2**64 - 1, 0), (7, 2), (0, 9)])
    asked = [(7, 1), (7, 2), (7, 3), (7, 4), (0, 9), (0, 0), (2**64 - 1, 0), (2**64 - 1, 1), (8, 0)]
    assert found(run, asked) == [101, 103, 100, None, 104, None, 102, None, None]
    assert found(run_of([]), [(1, 1)]) == [None]


def test_a_run_survives_as_bytes() -> None:
    run = run_of([(7, 3), (7, 1)], latest=-5)
    again = IdRun.from_bytes(run.to_bytes(), "here")
    assert (again.earliest, again.latest, len(again)) == (-5, -5, 2)
    assert found(again, [(7, 3), (7, 1)]) == [100, 101]
    assert len(IdRun.from_bytes(run_of([]).to_bytes(), "here")) == 0


def test_every_flipped_byte_is_noticed() -> None:
    data = run_of([(7, 3), (7, 1)]).to_bytes()
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= 4
        with pytest.raises(CorruptionError, match="here"):
            IdRun.from_bytes(bytes(broken), "here")
    with pytest.raises(CorruptionError):
        IdRun.from_bytes(b"", "here")


def test_runs_are_merged_and_forgotten() -> None:
    window = 8_000
    runs: list[IdRun] = []
    for day in range(200):
        latest = day * 100
        runs = remember(runs, run_of([(day, 0)], latest), latest, window)
        known = {int(high) for run in runs for high in run.high}
        assert known >= {other for other in range(day + 1) if latest - other * 100 <= window}
        assert len(runs) <= RUNS + 2
    assert 0 not in known


def test_an_id_that_comes_twice_is_kept_once() -> None:
    runs = remember([run_of([(1, 1)])], run_of([(1, 1), (2, 2)]), 0, 100)
    assert [len(run) for run in runs] == [2]
    assert remember(runs, run_of([]), 0, 100) == runs
