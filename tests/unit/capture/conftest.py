"""A store in memory, a log of all that was appended to it, and what an example must hold, by docs/protocol.md R2 alone."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.immutable.resolve import Rows
from latewood.pointer import Pointers
from latewood.schema import Schema
from latewood.store import Store
from latewood.testing import ManualClock
from latewood.users import user_keys

SCHEMA = Schema(
    user_id=pa.string(),
    traits=pa.schema(
        [("item", pa.int64()), ("action", pa.dictionary(pa.int32(), pa.string())), ("score", pa.float32())]
    ),
)
ACTIONS = ("view", "like", None, "buy ✓")
START = 1_700_000_000_000_000
names = itertools.count()

Place = tuple[int, int, int]  # event_ts, ingest_ts, ordinal


@dataclass
class World:
    """A store and the truth about it."""

    store: Store
    clock: ManualClock
    log: list[tuple[str, Place]] = field(default_factory=list)

    def append(self, users: Sequence[str], event_ts: Sequence[int], ingest_ts: Sequence[int] | None = None) -> None:
        """Append events; the item of an event is its place in the log."""
        n, first = len(users), len(self.log)
        table = {
            "user_id": pa.array(users, pa.string()),
            "event_ts": pa.array(event_ts, pa.int64()),
            "item": pa.array(range(first, first + n), pa.int64()),
            "action": pa.array([ACTIONS[k % 4] for k in range(first, first + n)], pa.string()),
            "score": pa.array([None if k % 3 == 0 else k / 2 for k in range(first, first + n)], pa.float32()),
        }
        if ingest_ts is not None:
            table["ingest_ts"] = pa.array(ingest_ts, pa.int64())
        receipt = self.store.append(pa.table(table))
        places = zip(event_ts, receipt.ingest_ts.tolist(), receipt.ordinal.tolist(), strict=True)
        self.log += zip(users, places, strict=True)

    def seen(self, user: str, end_ts: int, cutoff: int, tie: tuple[int, int] | None = None) -> list[int]:
        """The items that a request sees, oldest first."""
        visible = [
            ((event_ts, ingest_ts, ordinal), item)
            for item, (owner, (event_ts, ingest_ts, ordinal)) in enumerate(self.log)
            if owner == user
            and (event_ts < end_ts or (event_ts == end_ts and tie is not None and (ingest_ts, ordinal) < tie))
            and ingest_ts < cutoff
        ]
        return [item for _, item in sorted(visible)]

    def held(self, examples: pa.Table) -> list[list[int]]:
        """The items that examples hold: those of the pointer, in the newest generation, merged with the recent ones."""
        reader = self.store.refresh()
        keys = user_keys(examples["user_id"].combine_chunks())
        pointers = Pointers.from_arrow(examples["uih"].combine_chunks(), self.store.epoch)
        resolution = reader.resolve(keys, pointers)
        reader.require(resolution, pointers, examples["user_id"].combine_chunks())
        runs, full = resolution.runs, resolution.runs.length > 0
        each = np.repeat(np.arange(len(examples)), np.diff(runs.offsets))[full]
        start, length = runs.start[full], runs.length[full]
        stored = reader.read(
            Rows(resolution.shard[each], resolution.user[each], start, start + length), [SCHEMA["item"]]
        )
        items: Any = [[] for _ in range(len(examples))]
        if len(stored):
            each = np.repeat(each, length)
            for i, item in zip(each.tolist(), stored.traits[0].values.tolist(), strict=True):
                items[i].append(item)
        for i, recent in enumerate(examples["recent"].to_pylist()):
            assert recent["item"] == sorted(recent["item"], key=lambda item: self.log[item][1])
            assert recent["action"] == [ACTIONS[item % 4] for item in recent["item"]]
            assert recent["score"] == [None if item % 3 == 0 else item / 2 for item in recent["item"]]
            items[i] = sorted(items[i] + recent["item"], key=lambda item: self.log[item][1])
        return items


@pytest.fixture
def world() -> World:
    clock = ManualClock(START)
    return World(Store.create(f"memory://capture-{next(names)}", SCHEMA, shards=3, clock=clock), clock)
