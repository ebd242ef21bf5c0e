"""Examples without a store: numbered by the column `row`, with recent events that tell the row."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS
from latewood.columns import times_to_arrow
from latewood.pointer import Pointers

START = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
DAY_US = 86_400_000_000
ACTIONS = ("view", "like", "buy")


@pytest.fixture(scope="session")
def recent_examples() -> Callable[..., pa.Table]:
    return make_examples


def make_examples(count: int, *, seed: int = 0, users: int = 7, days: int = 3, **columns: Any) -> pa.Table:
    """Examples numbered by the column `row`, each with 0 to 3 recent events whose item ids tell the row."""
    rng = np.random.default_rng(seed)
    request_ts = START + rng.integers(0, days * DAY_US, count)
    lengths = rng.integers(0, 4, count)
    owner = np.repeat(np.arange(count), lengths)
    event_ts = request_ts[owner] - 10 + np.arange(len(owner)) % 4
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    recent = {
        "event_ts": times_to_arrow(event_ts),
        "ingest_ts": times_to_arrow(event_ts),
        "ordinal": pa.array(np.arange(len(owner), dtype=np.int32)),
        "item_id": pa.array(owner * 10 + np.arange(len(owner)) % 10),
        "price": pa.array(owner.astype(np.float32)),
        "action": pa.array([ACTIONS[i % 3] for i in owner], pa.string()),
    }
    lists = [pa.ListArray.from_arrays(offsets, values) for values in recent.values()]
    zero = np.zeros(count, np.int64)
    early = np.full(count, EARLIEST_TS)
    pointers = Pointers(b"e" * 16, early, request_ts, request_ts, zero.astype(np.int32), zero, zero.astype(np.uint64))
    table = {
        "user_id": pa.array(rng.integers(0, users, count)),
        "request_ts": times_to_arrow(request_ts),
        "row": pa.array(np.arange(count)),
        **columns,
        "uih": pointers.to_arrow(),
        "recent": pa.StructArray.from_arrays(lists, names=list(recent)),
        "cutoff": times_to_arrow(request_ts),
    }
    return pa.table(table)
