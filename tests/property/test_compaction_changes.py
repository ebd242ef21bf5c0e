"""Compaction with all that changes a history: corrections, deletions, retention, scrubs, schemas, shards, rollbacks.

The model is a list of rows per generation, in plain Python, and shares no code with what it checks: each generation is
its parent's rows and the new ones, less what is forgotten, less what is too old or too many. Users are few and times
coarse, so that histories span several stripes, tie, and are torn open by late events.
"""

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from latewood.compaction import bulk_load, compact, rollback
from latewood.errors import ConflictError
from latewood.events import NEVER, Events
from latewood.immutable import Catalog, Change, Changes, Generation, GenerationReader, Scrubs
from latewood.mutable import InMemoryTier, Places, Supersedes
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import open_storage
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
        pa.field("count", pa.uint8(), nullable=False),
        ("tags", pa.list_(pa.string())),
    ]
)
TYPES = [pa.int16(), pa.bool_(), pa.float64(), pa.string(), pa.list_(pa.int16()), pa.list_(pa.float32(), 2)]
names = itertools.count()


def is_looser(now: Retention | None, before: Retention | None) -> bool:
    """Whether an event may be kept that was let go of before."""
    limits = [
        (math.inf, math.inf) if one is None else (one.max_age_us or math.inf, one.max_events or math.inf)
        for one in (now, before)
    ]
    return limits[0][0] > limits[1][0] or limits[0][1] > limits[1][1]


@dataclass(eq=False)
class Row:
    """One event: its place, its values by trait id, and when its newer version came."""

    user: int
    event_ts: int
    ingest_ts: int
    ordinal: int
    values: dict[int, Any]
    superseded_at: int = NEVER
    forgotten: bool = False

    @property
    def place(self) -> tuple[int, int, int, int]:
        return self.user, self.event_ts, self.ingest_ts, self.ordinal


class World:
    """A store's parts, and the model of what they hold."""

    def __init__(self, shards: int, retention: Retention | None) -> None:
        self.schema = Schema(user_id=pa.int64(), traits=TRAITS)
        self.storage = open_storage(f"memory://compaction-changes-{next(names)}")
        self.catalog, self.clock = Catalog(self.storage, EPOCH), ManualClock(START)
        self.catalog.ensure_first(self.schema, shards, retention)
        self.changes, self.scrubs = Changes(self.storage, EPOCH), Scrubs(self.storage, EPOCH)
        self.vocabulary = Vocabulary(self.storage, self.schema, epoch=EPOCH)
        self.tier = InMemoryTier(pa.int64(), scrubs=self.scrubs)
        self.recent: list[Row] = []  # whatever was appended, also what is long in generations
        self.held: dict[int, list[Row]] = {0: []}  # by generation
        self.scrub_times: list[tuple[int, set[int]]] = []
        self.expired: dict[int, bool] = {0: False}

    # ---- what happens

    def append(self, rng: np.random.Generator, n: int) -> None:
        """Plain events."""
        events = self.events(rng, rng.integers(0, 5, n) if n < 300 else np.where(rng.random(n) < 0.7, 1, 2))
        self.admit(events, self.tier.append(events, now=self.clock.now()))

    def supersede(self, rng: np.random.Generator, n: int) -> None:
        """Corrections and deletions of rows that are there, each once."""
        there = [row for row in self.recent if not row.forgotten and row.superseded_at == NEVER]
        if not there:
            return
        targets = [there[i] for i in rng.permutation(len(there))[: rng.choice([1, 2, 30])]]
        events = self.events(rng, np.array([row.user for row in targets]))
        moved = rng.random(len(targets)) < 0.3
        columns = ([getattr(row, name) for row in targets] for name in ("event_ts", "ingest_ts", "ordinal"))
        target_ts, ingest_ts, ordinal = (np.array(column, np.int64) for column in columns)
        events.event_ts[~moved] = target_ts[~moved]
        deletions = rng.random(len(targets)) < 0.4
        places = Places(target_ts, ingest_ts, ordinal.astype(np.int32))
        supersedes = Supersedes(np.ones(len(targets), np.bool_), deletions, places=places)
        receipt = self.tier.append(events, supersedes=supersedes, now=self.clock.now())
        self.admit(events, receipt, deletions)
        for target, at, ordinal_, deletes in zip(targets, receipt.ingest_ts, receipt.ordinal, deletions, strict=True):
            if deletes or ordinal_ >= 0:
                target.superseded_at = int(at)

    def scrub(self, rng: np.random.Generator, n: int) -> None:
        """Some users, or some events."""
        there = [row for row in self.recent if not row.forgotten]
        users, listed = sorted({int(user) for user in rng.integers(0, 5, 1 + n % 2)}), None
        taken = [row for row in there if row.user in users]
        if n % 3 and there:
            taken = [there[i] for i in sorted(set(rng.integers(0, len(there), min(n, 30)).tolist()))]
            users = sorted({row.user for row in taken})
            listed = places_of(taken)
        body = self.scrubs.body(user_keys(pa.array(users, pa.int64())), listed)
        _, scrub_ts = self.tier.scrub(body, now=self.clock.now())
        self.scrub_times.append((scrub_ts, set(users)))
        for row in taken:
            row.forgotten = True

    def alter(self, rng: np.random.Generator, n: int) -> None:
        """Another schema, another number of shards, another retention."""
        before = self.changes.latest(self.catalog.latest())
        names = [trait.name for trait in before.schema]
        add = [pa.field(f"added {before.number}", TYPES[n % len(TYPES)])] if rng.random() < 0.5 else []
        drop = [str(rng.choice(names))] if names and rng.random() < 0.3 else []
        rename = {str(rng.choice(names)): f"renamed {before.number}"} if names and rng.random() < 0.3 else {}
        schema = before.schema.altered(add=add, drop=drop, rename={} if drop else rename)
        shards = int(rng.choice([1, 2, 3, 5, before.shards]))
        keep = [before.retention, None, Retention(max_events=int(rng.integers(1, 400)))]
        keep += [Retention(timedelta(microseconds=int(rng.choice([1000, 5 * HOUR]))), max_events=300)]
        self.changes.add(Change(before.number + 1, schema, shards, keep[rng.integers(len(keep))]))

    def load(self, rng: np.random.Generator, n: int, memory_bytes: int) -> None:
        """In bulk, with some rows superseded already."""
        events = self.events(rng, rng.integers(0, 5, n))
        ingest_ts = self.tier.state().closed + rng.integers(0, 3, n)
        superseded_at = np.where(rng.random(n) < 0.2, ingest_ts + 1, NEVER)
        events = replace(events, ingest_ts=ingest_ts, superseded_at=superseded_at)
        parent = self.catalog.latest()
        generation = bulk_load(self, [events.slice(0, n // 2), events.slice(n // 2, n)], memory_bytes=memory_bytes)
        if generation == parent:
            return
        taken: dict[tuple[int, ...], int] = defaultdict(int)
        for row in self.recent:
            key = (row.user, row.event_ts, row.ingest_ts)
            taken[key] = max(taken[key], row.ordinal + 1)
        for row, at in zip(rows_of(events, np.zeros(n, int)), superseded_at.tolist(), strict=True):
            if row.event_ts < self.scrubbed_at(row.user):
                continue
            key = (row.user, row.event_ts, row.ingest_ts)
            row.ordinal, taken[key] = taken[key], taken[key] + 1
            row.superseded_at = at
            self.recent.append(row)
        self.check(generation, parent)

    def compact(self, watermark: int | None, memory_bytes: int) -> None:
        """At the closed time, or at another."""
        parent = self.catalog.latest()
        generation = compact(self, watermark=watermark, memory_bytes=memory_bytes, workers=1)
        if generation.id != parent.id:
            self.check(generation, parent)
        elif watermark is None:
            assert self.changes.latest(parent).number == parent.change
            assert parent.scrubs == len(self.scrub_times)
            assert not any(row.ingest_ts >= parent.watermark and not row.forgotten for row in self.recent)

    def roll_back(self, number: int) -> None:
        """To an older generation, where that can be done."""
        newest, floor = self.catalog.latest(), self.tier.state().floor
        parent = self.catalog.load(number)
        since = [self.catalog.load(later) for later in range(number + 1, newest.id + 1)]
        possible = bool(since) and parent.scrubs == newest.scrubs and parent.watermark >= floor
        possible &= all(generation.origin != "load" for generation in since) and number > newest.id - 3
        possible &= not any(is_looser(after.retention, before.retention) for before, after in itertools.pairwise(since))
        try:
            generation = rollback(self, number, keep=3)
        except ConflictError:
            stored = {item.key for item in self.storage.list("generations")}
            possible &= all(file.key in stored for file in parent.shards if file.exists)
            assert not possible
            return
        assert possible
        assert (generation.id, generation.origin) == (newest.id + 1, "rollback")
        self.check(generation, parent)

    # ---- the model

    def scrubbed_at(self, user: int) -> int:
        return max((time for time, users in self.scrub_times if user in users), default=-NEVER)

    def admit(self, events: Events, receipt: Any, deletions: Any = None) -> None:
        for i, row in enumerate(rows_of(events, receipt.ordinal)):
            row.ingest_ts = int(receipt.ingest_ts[i])
            if deletions is not None and deletions[i]:
                continue
            assert (row.ordinal < 0) == (row.event_ts < self.scrubbed_at(row.user))
            if row.ordinal >= 0:
                self.recent.append(row)

    def expected(self, generation: Generation, parent: Generation, watermark: int) -> list[Row]:
        """The rows of a generation: its parent's and the new ones, without what goes."""
        rows = self.held[parent.id] + [row for row in self.recent if parent.watermark <= row.ingest_ts < watermark]
        users = defaultdict(list)
        for row in sorted(rows, key=lambda row: row.place):
            if not row.forgotten:
                users[row.user].append(row)
        kept, keep = [], generation.retention
        for mine in users.values():
            oldest = -NEVER
            if keep is not None and keep.max_age is not None:
                oldest = watermark - keep.max_age // timedelta(microseconds=1)
            if keep is not None and keep.max_events is not None and len(mine) > keep.max_events:
                oldest = max(oldest, mine[-keep.max_events].event_ts)
            kept += [row for row in mine if row.event_ts >= oldest]
        lost = sum(map(len, users.values())) > len(kept)
        self.expired[generation.id] = self.expired[parent.id] or lost
        return kept

    def check(self, generation: Generation, parent: Generation) -> None:
        change = self.changes.latest(generation)
        assert (generation.change, generation.schema, generation.retention) == (
            change.number,
            change.schema,
            change.retention,
        )
        assert len(generation.shards) == change.shards
        assert generation.parent == parent.id
        assert generation.scrubs == sum(time < generation.watermark for time, _ in self.scrub_times)
        self.held[generation.id] = self.expected(generation, parent, generation.watermark)
        assert generation.expired == self.expired[generation.id]
        self.check_rows(generation, self.held[generation.id])
        assert self.tier.state().floor <= generation.watermark

    def check_rows(self, generation: Generation, expected: list[Row]) -> None:
        reader, found = GenerationReader(self.storage, generation), list[tuple[Row, int]]()
        for events in reader.scan(list(generation.schema), at_once=500):
            found += zip(rows_of(events, events.ordinal), times_of(events), strict=True)
        wanted = {row.place: row for row in expected}
        assert len(found) == len(wanted) == generation.event_count
        places: dict[int, list[tuple[int, ...]]] = defaultdict(list)
        for row, superseded_at in found:
            mine = wanted[row.place]
            places[row.user].append(row.place)
            is_known = mine.superseded_at < generation.watermark
            assert superseded_at == (mine.superseded_at if is_known else NEVER), row.place
            assert row.values == {trait.id: mine.values.get(trait.id) for trait in generation.schema}
        assert all(sorted(mine) == mine for mine in places.values())
        for number, file in enumerate(generation.shards):
            shard = reader.shard(number)
            assert (shard is not None) == file.exists
            if shard is not None:
                shard.verify()

    def events(self, rng: np.random.Generator, users: Any) -> Events:
        n, now, schema = len(users), self.clock.now(), self.catalog.latest().schema
        # few distinct times make ties that span stripes
        event_ts = now + rng.choice([1, 1000, HOUR]) * rng.integers(-rng.choice([4, 40]), 3, n)
        traits = {trait.id: random_trait(rng, trait, n) for trait in schema}
        ids = pa.array(users, pa.int64())
        return Events(ids, user_keys(ids), event_ts, np.zeros(n, np.int64), np.zeros(n, np.int32), traits)


def rows_of(events: Events, ordinals: Any) -> list[Row]:
    values: list[dict[int, Any]] = [{} for _ in range(len(events))]
    for trait, column in events.traits.items():
        for i, cell in enumerate(cells(column)):
            values[i][trait] = cell
    columns = (events.user_ids.to_pylist(), events.event_ts.tolist(), events.ingest_ts.tolist(), ordinals.tolist())
    return [Row(*row) for row in zip(*columns, values, strict=True)]


def times_of(events: Events) -> list[int]:
    return [NEVER] * len(events) if events.superseded_at is None else events.superseded_at.tolist()


def places_of(rows: list[Row]) -> Events:
    ids = pa.array([row.user for row in rows], pa.int64())
    times = (np.array([getattr(row, name) for row in rows], np.int64) for name in ("event_ts", "ingest_ts", "ordinal"))
    event_ts, ingest_ts, ordinal = times
    return Events(ids, user_keys(ids), event_ts, ingest_ts, ordinal.astype(np.int32), {})


STEP = st.tuples(
    st.sampled_from(["append", "append", "supersede", "supersede", "scrub", "alter", "load", "cut", "compact", "back"]),
    st.integers(0, 2**32),
    st.sampled_from([1, 2, 20, 200, 700]),
)
KEEP = [
    None,
    None,
    Retention(max_events=100),
    Retention(timedelta(hours=5)),
    Retention(timedelta(hours=30), max_events=300),
]


@given(
    st.sampled_from([1, 3]),
    st.sampled_from(KEEP),
    st.sampled_from([1 << 30, 1]),
    st.lists(STEP, min_size=1, max_size=16),
)
def test_generations_are_what_the_model_says(
    shards: int, retention: Retention | None, memory_bytes: int, steps: list[tuple[str, int, int]]
) -> None:
    world = World(shards, retention)
    for step, seed, n in [*steps, ("compact", 0, 0)]:
        rng = np.random.default_rng(seed)
        world.clock.advance(1 + seed % 3 * HOUR)
        if step in ("append", "supersede", "scrub", "alter"):
            getattr(world, step)(rng, n)
        elif step == "load":
            world.load(rng, n, memory_bytes)
        elif step == "back":
            world.roll_back(max(0, world.catalog.latest().id - seed % 3))
        else:
            state = world.tier.state()
            cut = int(rng.integers(state.frontier, state.closed + 1)) if step == "cut" else None
            world.compact(cut, memory_bytes)
