"""A small store and requests with numbers, for loaders in other processes and frameworks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

import latewood as lw

REQUESTS = 47


@contextmanager
def numbered_examples(folder: Path) -> Iterator[tuple[lw.Store, pa.Table]]:
    """The store in that folder, made anew and opened for reading, and examples with the feature `number`."""
    rng = np.random.default_rng(0)
    ts = pa.array(np.sort(rng.integers(1_000_000, 2_000_000, 300)))
    events = pa.table({"user": rng.integers(0, 5, 300), "at": ts, "item": np.arange(300)})
    lw.ingest(events, folder, user="user", time="at", ingest_time="at", unit="us", shards=1, quiet=True).close()
    with lw.Store.open(folder) as store:
        users = pa.array(rng.integers(0, 5, REQUESTS))
        requests = pa.table({"user_id": users, "request_ts": [2_000_001] * REQUESTS, "number": np.arange(REQUESTS)})
        examples = lw.backfill(store, requests, complete=True)
    with lw.Store.open(folder, read_only=True) as store:
        yield store, examples
