"""The histories on disk, twice: as a latewood store with an example log, and as Fat Rows.

The Fat Rows are cut from the raw arrays, not from what latewood reads, so that comparing both sides tests both.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from bench.histories import MS, Histories, Requests

US_UTC = pa.timestamp("us", "UTC")
_ROWS_AT_ONCE = 1_000  # one row group of Fat Rows


def write_store(histories: Histories, path: Path) -> lw.Store:
    """Ingest all events, each learned of when it happened, as the first hour's user would."""
    end = int(histories.columns["event_ts"].max()) + 10 * MS
    return lw.ingest(
        events_table(histories), path, user="user_id", time="event_ts", ingest_time="event_ts",
        clock=lw.testing.ManualClock(end), quiet=True,
    )  # fmt: skip


def events_table(histories: Histories) -> pa.Table:
    """All events, user after user."""
    owner = np.repeat(np.arange(histories.user_count), histories.lengths)
    times = pa.array(histories.columns["event_ts"]).view(US_UTC)
    traits = {name: pa.array(column) for name, column in histories.columns.items() if name != "event_ts"}
    return pa.table({"user_id": pa.array(owner), "event_ts": times} | traits)


def requests_table(histories: Histories, requests: Requests) -> pa.Table:
    """The requests, in the order in which they were drawn, which `example` numbers, with a label."""
    label = (requests.visible % 2).astype(np.int8)
    return pa.table({
        "user_id": pa.array(requests.user),
        "request_ts": pa.array(requests.times(histories)).view(US_UTC),
        "example": pa.array(np.arange(len(requests))),
        "label": pa.array(label),
    })  # fmt: skip


def backfill(store: lw.Store, requests: pa.Table) -> pa.Table:
    """Examples of the requests. Their histories are complete: all events were ingested before."""
    return lw.backfill(store, requests, complete=True)


def write_fat_rows(path: Path, histories: Histories, requests: Requests, max_len: int) -> lw.FatRows:
    """Write the newest `max_len` events of every request, all traits, in request order."""
    features = requests_table(histories, requests)
    return lw.write_fat_rows(path, _fat_tables(histories, requests, features, max_len), row_group_size=_ROWS_AT_ONCE)


def _fat_tables(histories: Histories, requests: Requests, features: pa.Table, max_len: int) -> Iterator[pa.Table]:
    for start in range(0, len(requests), _ROWS_AT_ONCE):
        rows = requests.slice(start, start + _ROWS_AT_ONCE).rows(histories, max_len)
        offsets, columns = cut(histories, *rows)
        lists = {name: _lists(offsets, name, values) for name, values in columns.items()}
        history = pa.StructArray.from_arrays(list(lists.values()), names=list(lists))
        yield features.slice(start, _ROWS_AT_ONCE).append_column("history", history)


def cut(
    histories: Histories, start: NDArray[np.int64], stop: NDArray[np.int64], traits: tuple[str, ...] | None = None
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.generic]]]:
    """Runs of rows as jagged columns. Shapes: (n,), (n,) → offsets (n + 1,), columns (offsets[-1],)."""
    offsets = np.zeros(len(start) + 1, np.int64)
    np.cumsum(stop - start, out=offsets[1:])
    runs = list(zip(start.tolist(), stop.tolist(), strict=True))
    names = histories.columns if traits is None else traits
    columns = {name: np.concatenate([histories.columns[name][a:b] for a, b in runs]) for name in names}
    return offsets, columns


def _lists(offsets: NDArray[np.int64], name: str, values: NDArray[np.generic]) -> pa.ListArray:
    array = pa.array(values).view(US_UTC) if name == "event_ts" else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), array)
