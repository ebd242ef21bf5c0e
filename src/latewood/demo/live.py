"""The serving side of the demo: purchases are appended as they arrive, every basket is captured before it is appended.

The clock is simulated. Each hour, first the hour's baskets are captured, then what arrived is appended in one durable
commit, so that a capture sees only what precedes it. Every midnight the day's examples go to the log and the store is
compacted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import HOUR_US
from latewood.demo.purchases import SCHEMA, Purchases
from latewood.examples import ExampleLog
from latewood.store import Store
from latewood.testing import ManualClock

HOURS_PER_DAY = 24


@dataclass(frozen=True, slots=True)
class Replay:
    """What the year left behind."""

    store: Path
    examples: Path
    events: pa.Table  # the raw events in order of arrival, with their ingest_ts: what the oracle works from
    late: NDArray[np.bool_]  # of those events
    cutoff: NDArray[np.int64]  # (requests,), by request_id
    commits: int
    compactions: int


def replay(purchases: Purchases, folder: Path, advance: Callable[[int], None] = lambda days: None) -> Replay:
    """Replay the purchases into a new store and example log under `folder`; `advance` is called for each day done."""
    arrival = np.argsort(purchases.arrival_hour, kind="stable")
    events = purchases.events.take(pa.array(arrival))
    request_hour = purchases.requests["request_ts"].to_numpy() // HOUR_US
    first, last = int(request_hour[0]), int(purchases.arrival_hour.max())
    hours = np.arange(first, last + 2)
    event_stop = np.searchsorted(purchases.arrival_hour[arrival], hours)
    request_stop = np.searchsorted(request_hour, hours)
    clock = ManualClock(first * HOUR_US)
    ingest_ts = np.zeros(len(events), np.int64)
    cutoff = np.zeros(len(purchases.requests), np.int64)
    commits = compactions = 0
    with Store.create(folder / "store", SCHEMA, shards=2, clock=clock) as store, ExampleLog(folder / "examples") as log:
        for i, hour in enumerate(hours[:-1].tolist()):
            clock.set((hour + 1) * HOUR_US - 1)  # the end of the hour
            requests = slice(request_stop[i], request_stop[i + 1])
            if requests.stop > requests.start:
                columns = store.capture(purchases.requests[requests]).columns
                cutoff[requests] = columns["cutoff"].cast(pa.int64()).to_numpy()
                log.append(columns)
            arrived = slice(event_stop[i], event_stop[i + 1])
            if arrived.stop > arrived.start:
                ingest_ts[arrived] = store.append(events[arrived]).ingest_ts
                commits += 1
            if (hour + 1) % HOURS_PER_DAY == 0 or hour == last:
                log.flush()
                store.compact()
                compactions += 1
                advance(1)
    events = events.append_column("ingest_ts", pa.array(ingest_ts))
    return Replay(folder / "store", folder / "examples", events, purchases.late[arrival], cutoff, commits, compactions)
