"""The histories of MLPerf Training's DLRMv4, expressed as streams: three pools, each the newest so many of its kind.

The benchmark's loader goes through one user's events as arrays: of the last `scan_window` events before the anchor it
takes the newest `history_length // 3` plays of at least half a track, likes, and shorter plays (those of unknown length
among them), puts them in the order of time, notes in bits 1, 2 and 4 which kind each is, and keeps the newest that fit.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.testing import ManualClock

LISTEN, LIKE, DISLIKE = 0, 1, 2
HALF = 50  # per cent of a track
USERS, EVENTS = 5, 900
listen = lw.col("event_type") == LISTEN
PLAYED, LIKED, SKIPPED = (
    listen & (lw.col("played_ratio_pct") >= HALF),
    lw.col("event_type") == LIKE,
    listen & ~(lw.col("played_ratio_pct") >= HALF),  # not "< HALF": a null counts as nothing played
)


def pools(history_length: int, scan_window: int, budget: int) -> lw.Projection:
    """The benchmark's settings are 4,086, 20,000 and what its longest sequence leaves."""
    size = history_length // 3
    return lw.Projection(
        max_len=budget,
        traits=["item_id", "event_ts"],
        streams={
            "listen_plus": lw.last(size, where=PLAYED),
            "like": lw.last(size, where=LIKED),
            "skip": lw.last(size, where=SKIPPED),
        },
        scan=scan_window,
    )


def as_the_benchmark(
    columns: dict[str, Any], start: int, stop: int, history_length: int, scan_window: int, budget: int
) -> tuple[list[int], list[int], list[int]]:
    """Items, times and weights of the anchor at row `stop`, whose user's rows begin at `start`: its recipe in numpy."""
    first = max(start, stop - scan_window)
    window = {name: column[first:stop] for name, column in columns.items()}
    is_listen, ratio = window["event_type"] == LISTEN, np.nan_to_num(window["played_ratio_pct"])
    kinds = [is_listen & (ratio >= HALF), window["event_type"] == LIKE, is_listen & (ratio < HALF)]
    size = history_length // 3
    kept = np.sort(np.concatenate([np.flatnonzero(kind)[-size:] for kind in kinds]))[-budget:]
    weights = sum(kind[kept].astype(np.int64) << bit for bit, kind in enumerate(kinds))
    return window["item_id"][kept].tolist(), window["event_ts"][kept].tolist(), weights.tolist()


@pytest.mark.parametrize(
    ("history_length", "scan_window", "budget"), [(90, 300, 10**6), (60, 10**6, 25), (3_000, 700, 40)]
)
def test_the_pools_are_the_benchmark_s(tmp_path: Path, history_length: int, scan_window: int, budget: int) -> None:
    rng = np.random.default_rng(history_length)
    count = USERS * EVENTS
    ratio = np.where(rng.random(count) < 0.1, np.nan, rng.integers(0, 101, count)).astype(np.float32)
    columns = {
        "uid": np.repeat(np.arange(USERS), EVENTS),
        "event_ts": np.tile(np.cumsum(rng.integers(1, 50, EVENTS)), USERS) * 1_000_000,
        "item_id": rng.integers(0, 10_000, count),
        "event_type": rng.choice([LISTEN, LIKE, DISLIKE], count, p=[0.9, 0.07, 0.03]),
        "played_ratio_pct": ratio,
    }
    known = pa.array(ratio, mask=np.isnan(ratio))
    clock = ManualClock(int(columns["event_ts"].max()) + 1)
    events = pa.table(columns).set_column(4, "played_ratio_pct", known)
    with lw.ingest(
        events,
        tmp_path / "store",
        user="uid",
        time="event_ts",
        unit="us",
        ingest_time="event_ts",
        clock=clock,
        quiet=True,
    ) as store:
        anchors = lw.backfill(store, lw.anchors(store, where=listen, min_history=1))
        batch = lw.Materializer(store, pools(history_length, scan_window, budget))(anchors)
    rows = {(user, ts): row for row, (user, ts) in enumerate(zip(columns["uid"], columns["event_ts"], strict=True))}
    users, times = anchors["user_id"].to_pylist(), anchors["request_ts"].cast(pa.int64()).to_pylist()
    compared = 0
    for i, (user, ts) in enumerate(zip(users, times, strict=True)):
        part = slice(int(batch.offsets[i]), int(batch.offsets[i + 1]))
        found = tuple(batch.values[name][part].tolist() for name in ("item_id", "event_ts", "stream"))
        start, stop = user * EVENTS, rows[user, ts]
        assert found == as_the_benchmark(columns, start, stop, history_length, scan_window, budget)
        compared += len(found[0])
    assert compared > 10_000
