"""Compaction against a plain sort: after every step, a full decode of the newest generation is what sorting gives.

The model is dull on purpose: a list of rows, as they arrived. Users are few and times coarse, so that histories grow
past several stripes, tie, and are torn open by late events.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column, TraitColumn
from latewood.compaction import bulk_load, compact
from latewood.errors import ConflictError
from latewood.events import Events
from latewood.immutable import Catalog, Changes, Generation, Scrubs
from latewood.mutable import InMemoryTier
from latewood.schema import Schema
from latewood.storage import open_storage
from latewood.stripes import (
    FIRST_TRAIT,
    Ranges,
    Shard,
    Tables,
    columns_of,
    decode_column,
    decode_list_column,
    fields_of,
    plain,
)
from latewood.testing import ManualClock
from latewood.users import user_keys
from latewood.vocabulary import Vocabulary
from made_columns import cells, random_trait

EPOCH = bytes(range(16))
START = 1_700_000_000_000_000
HOUR = 3_600_000_000
TRAITS = pa.schema(
    [
        ("item", pa.int64()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("like", pa.bool_()),
        ("score", pa.float32()),
        ("tags", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float64(), 3)),
        pa.field("count", pa.uint8(), nullable=False),
    ]
)
names = itertools.count()
Row = tuple[Any, ...]


@dataclass
class Parts:
    """A store's parts, and the rows it was given: (user, event_ts, ingest_ts, traits)."""

    schema: Schema
    shards: int
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.storage = open_storage(f"memory://compaction-property-{next(names)}")
        self.catalog = Catalog(self.storage, EPOCH)
        self.catalog.publish(Generation.first(EPOCH, self.schema, shards=self.shards))
        self.tier = InMemoryTier(self.schema.user_id)
        self.changes, self.scrubs = Changes(self.storage, EPOCH), Scrubs(self.storage, EPOCH)
        self.vocabulary = Vocabulary(self.storage, self.schema, epoch=EPOCH)

    def append(self, events: Events, explicit: bool) -> None:
        try:
            receipt = self.tier.append(events, explicit=explicit, now=self.clock.now())
        except ConflictError:
            return
        self.remember(events, receipt.ingest_ts.tolist())

    def remember(self, events: Events, ingest_ts: list[int]) -> None:
        assert all(events.traits[trait.id].dtype == trait.dtype for trait in self.schema)
        traits = zip(*(cells(events.traits[trait.id]) for trait in self.schema), strict=True)
        self.rows += zip(events.user_ids.to_pylist(), events.event_ts.tolist(), ingest_ts, traits, strict=True)


def make_events(schema: Schema, seed: int, n: int, now: int) -> Events:
    rng = np.random.default_rng(seed)
    users = rng.integers(-3, 4, n) if n < 300 else np.where(rng.random(n) < 0.7, 1, rng.integers(-3, 4, n))
    ids = pa.array(users, pa.int64())
    if schema.user_id == pa.string():
        ids = pa.array([f"user {user} ü" for user in users], pa.string())
    event_ts = now + rng.choice([1, 1000, HOUR]) * rng.integers(-40, 3, n)
    ingest_ts = now - rng.choice([0, 1000, HOUR]) + rng.integers(0, 3, n)
    traits = {trait.id: random_trait(rng, trait, n) for trait in schema}
    return Events(ids, user_keys(ids), event_ts, ingest_ts, np.zeros(n, np.int32), traits)


def sorted_rows(rows: list[Row], watermark: int) -> dict[Any, list[Row]]:
    """The oracle: every user's rows below the watermark, in the total order, with ordinals by arrival among ties."""
    taken: dict[Row, int] = defaultdict(int)
    users: dict[Any, list[Row]] = defaultdict(list)
    for user, event_ts, ingest_ts, traits in rows:
        ordinal = taken[user, event_ts, ingest_ts]
        taken[user, event_ts, ingest_ts] += 1
        if ingest_ts < watermark:
            users[user].append((event_ts, ingest_ts, ordinal, traits))
    return {user: sorted(mine, key=lambda row: row[:3]) for user, mine in users.items()}


def decoded(parts: Parts, generation: Generation) -> dict[Any, list[Row]]:
    """All of a generation, decoded column by column."""
    users: dict[Any, list[Row]] = {}
    for number, file in enumerate(generation.shards):
        if not file.exists:
            continue
        shard = Shard.open(parts.storage, file.key, columns=columns_of(parts.schema), number=number)
        shard.verify()
        ends = shard.first_event
        tables, n = Tables(1), shard.event_count
        tables.put(0, shard)
        everyone = np.arange(shard.user_count)
        ranges = Ranges(np.zeros(len(everyone), np.int64), everyone, 0 * everyone, np.diff(ends), ends[:-1])
        columns: list[TraitColumn] = []
        for index, column in fields_of(shard.columns)[:-1]:
            if column.role == "lengths":
                columns.append(decode_list_column(tables, ranges, index, n))
                continue
            values, mask = np.empty(n, column.dtype), np.empty(n, np.bool_)
            decode_column(tables, ranges, index, values, mask)
            columns.append(Column(values, mask))
        event_ts, delay, ordinal = (plain(column).values for column in columns[:FIRST_TRAIT])
        traits = [cells(column) for column in columns[FIRST_TRAIT:]]
        times = (event_ts.tolist(), (event_ts + delay).tolist(), ordinal.tolist())
        rows = list(zip(*times, zip(*traits, strict=True), strict=True))
        assert (shard.user_count, n) == (file.user_count, file.event_count)
        for user, start, stop in zip(shard.user_ids.to_pylist(), ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            assert user not in users
            users[user] = rows[start:stop]
    assert (generation.user_count, generation.event_count) == (len(users), sum(map(len, users.values())))
    return users


STEP = st.tuples(
    st.sampled_from(["append", "append", "replay", "compact", "cut", "bulk"]),
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 20, 200, 700]),
)


@given(
    st.sampled_from([pa.int64(), pa.string()]),
    st.sampled_from([1, 4]),
    st.sampled_from([1 << 30, 1]),
    st.lists(STEP, min_size=1, max_size=7),
)
def test_a_generation_is_the_sorted_rows(
    user_type: pa.DataType, shards: int, memory_bytes: int, steps: list[tuple[str, int, int]]
) -> None:
    parts = Parts(Schema(user_id=user_type, traits=TRAITS), shards)
    for step, seed, n in [*steps, ("compact", 0, 0)]:
        now = parts.clock.advance(1 + seed % 3 * HOUR)
        events = make_events(parts.schema, seed, n, now)
        if step in ("append", "replay"):
            parts.append(events, explicit=step == "replay")
            continue
        generation = parts.catalog.latest()
        if step == "compact":
            generation = compact(parts, memory_bytes=memory_bytes, workers=1 + seed % 2)
            assert generation.watermark <= parts.tier.state().closed
        elif step == "cut" and parts.tier.state().frontier < parts.tier.state().last:
            state = parts.tier.state()
            generation = compact(parts, watermark=int(np.random.default_rng(seed).integers(state.frontier, state.last)))
        elif step == "bulk":
            half = n // 2
            try:
                generation = bulk_load(
                    parts, iter([events.slice(0, half), events.slice(half, n)]), memory_bytes=memory_bytes
                )
            except ConflictError:
                continue
            parts.remember(events, events.ingest_ts.tolist())
        assert generation == parts.catalog.latest()
        assert decoded(parts, generation) == sorted_rows(parts.rows, generation.watermark)
    assert sum(map(len, decoded(parts, parts.catalog.latest()).values())) == len(parts.rows)


@pytest.mark.parametrize("user_type", [pa.int64(), pa.string()])
def test_thirty_days_of_a_growing_history(user_type: pa.DataType) -> None:
    parts = Parts(Schema(user_id=user_type, traits=TRAITS), 3)
    for day in range(30):
        now = parts.clock.advance(24 * HOUR)
        parts.append(make_events(parts.schema, day, 120, now), explicit=False)
        generation = compact(parts)
        assert generation.id == day + 1
        if day % 5 == 4:
            assert decoded(parts, generation) == sorted_rows(parts.rows, generation.watermark)
