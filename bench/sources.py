"""The histories on disk, twice: as a latewood store with an example log, and as Fat Rows.

The Fat Rows are cut from the raw arrays, not from what latewood reads, so that comparing both sides tests both.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import latewood as lw
from bench.histories import MS, Histories, Requests

US_UTC = pa.timestamp("us", "UTC")
_ROWS_AT_ONCE = 1_024  # one row group of Fat Rows: whole batches, so that none is joined of two groups
_PLAIN_PAGE_BYTES = 8 << 20  # holds all copies of a user's history


def write_store(histories: Histories, path: Path) -> lw.Store:
    """Ingest all events, each learned of when it happened, as the first hour's user would."""
    return lw.ingest(
        events_table(histories), path, user="user_id", time="event_ts", ingest_time="event_ts",
        clock=lw.testing.ManualClock(end_of(histories)), quiet=True,
    )  # fmt: skip


def end_of(histories: Histories) -> int:
    """When all events have happened, and all requests been made. Units: µs."""
    return int(histories.columns["event_ts"].max()) + 10 * MS


def events_table(histories: Histories) -> pa.Table:
    """All events, user after user."""
    owner = np.repeat(np.arange(histories.user_count), histories.lengths)
    times = pa.array(histories.columns["event_ts"]).view(US_UTC)
    traits = {name: pa.array(column) for name, column in histories.columns.items() if name != "event_ts"}
    return pa.table({"user_id": pa.array(owner), "event_ts": times} | traits)


def tick_of(events: pa.Table, row: int) -> int:
    """The first row that is as old as this one: a compaction closes its whole tick. Args: events: sorted by time."""
    times = events["event_ts"].cast(pa.int64()).to_numpy()
    return int(np.searchsorted(times, times[row]))


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
    return lw.write_fat_rows(path, fat_tables(histories, requests, max_len), row_group_size=_ROWS_AT_ONCE)


def write_plain_fat_rows(path: Path, histories: Histories, requests: Requests, max_len: int) -> lw.FatRows:
    """The same without encodings, in large pages: zstd then finds the copies of neighbouring rows, byte for byte."""
    tables = fat_tables(histories, requests, max_len)
    first = _strict(next(tables))
    with pq.ParquetWriter(
        path, first.schema, compression="zstd", compression_level=3, use_dictionary=False, write_statistics=False,
        data_page_size=_PLAIN_PAGE_BYTES,
    ) as writer:  # fmt: skip
        for table in chain([first], map(_strict, tables)):
            writer.write_table(table)
    return lw.FatRows(path)


def _strict(table: pa.Table) -> pa.Table:
    """Without nulls in lists, as Fat Rows are: what Parquet need not store, it need not decode."""
    type_ = table.schema.field("history").type
    fields = [pa.field(f.name, pa.list_(pa.field("element", f.type.value_type, False)), False) for f in type_]
    history = pa.chunked_array([chunk.cast(pa.struct(fields)) for chunk in table["history"].chunks])
    return table.drop_columns(["history"]).append_column(pa.field("history", pa.struct(fields), False), history)


def fat_tables(histories: Histories, requests: Requests, max_len: int) -> Iterator[pa.Table]:
    """The newest `max_len` events of every request, all traits, in request order, some rows at a time."""
    features = requests_table(histories, requests)
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
