"""The demo's second part: real data that brings both clocks, such as commits with an author's and a committer's time.

Requests are spread over the histories and backfilled; every sequence is compared with the oracle, and counted is what
arrived too late: events inside a pointer's time range that the request could not have known.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from latewood.capture import backfill
from latewood.clock import to_us
from latewood.errors import SchemaError
from latewood.ingestion import ingest_with_report
from latewood.materialize import Materializer
from latewood.projection import Projection
from latewood.testing import Oracle, different_rows

REQUESTS = 20_000
AT_ONCE = 2_000
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}  # µs


def compare_two_clocks(
    path: Path, folder: Path, console: Console, *, user: str, time: str, ingest_time: str, unit: str, seed: int = 0
) -> dict[str, Any]:
    """Ingest, backfill, materialize and compare. Returns the figures, JSON-able."""
    table = pq.read_table(path)
    events = read_two_clocks(table, user=user, time=time, ingest_time=ingest_time, unit=unit)
    store, report = ingest_with_report(
        table,
        folder / "two-clocks",
        user=user,
        time=time,
        ingest_time=ingest_time,
        unit=unit,
        shards=2,
        console=console,
    )
    requests = spread_requests(events, np.random.default_rng(seed), UNITS[unit])
    examples = backfill(store, requests, complete=True)
    projection = Projection(max_len=4096)
    materializer, oracle = Materializer(store, projection), Oracle(events)
    different = 0
    for start in range(0, len(examples), AT_ONCE):
        found = materializer(examples.slice(start, AT_ONCE)).to_arrow()
        different += len(different_rows(found, oracle.fat_rows(requests.slice(start, AT_ONCE), projection)))
    in_range = known_too_late(events, examples)
    store.close()
    return {
        "events": report.events,
        "late_hour_share": report.late_hour_share,
        "requests": len(requests),
        "compared": len(examples),
        "different": different,
        "late_kept_out": int(in_range.sum()),
        "requests_with_late": int(np.count_nonzero(in_range)),
    }


def read_two_clocks(table: pa.Table, *, user: str, time: str, ingest_time: str, unit: str) -> pa.Table:
    """The events as the store and the oracle take them: user_id, both clocks in µs, traits.

    Raises: SchemaError: a column is missing.
    """
    for option, name in (("user", user), ("time", time), ("ingest-time", ingest_time)):
        if name not in table.column_names:
            columns = ", ".join(table.column_names)
            raise SchemaError(f"there is no column {name!r}; there are: {columns}. Name yours with --{option}")
    return pa.table(
        {"user_id": table[user].cast(pa.int64())}
        | {"event_ts": _scaled(table[time], UNITS[unit]), "ingest_ts": _scaled(table[ingest_time], UNITS[unit])}
        | {name: table[name] for name in table.column_names if name not in (user, time, ingest_time)}
    )


def _scaled(column: pa.ChunkedArray, scale: int) -> pa.Array:
    if pa.types.is_timestamp(column.type):
        return pa.array([to_us(moment) for moment in column.to_pylist()], pa.int64())
    return pa.array(column.to_numpy().astype(np.int64) * scale)


def spread_requests(events: pa.Table, rng: np.random.Generator, grain: int, most: int = REQUESTS) -> pa.Table:
    """Requests by the users of random events, at random moments between that event and the user's last, on the grain."""
    user, ts = events["user_id"].to_numpy(), events["event_ts"].to_numpy()
    row = rng.integers(0, len(ts), min(most, len(ts)))
    order = np.lexsort((ts, user))
    last_of = np.searchsorted(user[order], user[row], side="right") - 1
    newest = ts[order][last_of]
    moment = ts[row] + (rng.random(len(row)) * (newest - ts[row] + grain)).astype(np.int64) // grain * grain + grain
    return pa.table({"request_id": np.arange(len(row)), "user_id": user[row], "request_ts": moment})


def known_too_late(events: pa.Table, examples: pa.Table) -> NDArray[np.int64]:
    """Per example, how many events of its user lie inside its pointer's time range but were learned after its cutoff."""
    user, ts, ingest = (events[name].to_numpy() for name in ("user_id", "event_ts", "ingest_ts"))
    order = np.argsort(user, kind="stable")
    user, ts, ingest = user[order], ts[order], ingest[order]
    of_example = examples["user_id"].to_numpy()
    start, stop = np.searchsorted(user, of_example), np.searchsorted(user, of_example, side="right")
    uih = examples["uih"].combine_chunks()
    start_ts, end_ts = (uih.field(name).cast(pa.int64()).to_numpy() for name in ("start_ts", "end_ts"))
    cutoff = examples["cutoff"].cast(pa.int64()).to_numpy()
    counts = np.zeros(len(examples), np.int64)
    for i, (a, b) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
        inside = (ts[a:b] >= start_ts[i]) & (ts[a:b] < end_ts[i])
        counts[i] = np.count_nonzero(inside & (ingest[a:b] >= cutoff[i]))
    return counts
