"""Materialize against brute force: the events visible by docs/protocol.md R2, sorted, cut, as Python lists.

The store is one generation, written here shard by shard; pointers and recents are counted here, one event at a time. So
nothing but the stripes and the code under test stands between the raw events and the comparison.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
from hypothesis import given

from latewood.columns import Column, column_from_arrow
from latewood.immutable.manifest import NO_FILE, Generation, ShardFile
from latewood.immutable.reader import GenerationReader
from latewood.immutable.scrubs import Scrubs
from latewood.materialize import Materializer
from latewood.pointer import Pointers
from latewood.projection import Projection
from latewood.schema import TIME_TYPE, Schema
from latewood.storage import keys, open_storage
from latewood.stripes import ShardWriter, UserRun, columns_of, identities
from latewood.users import shard_of, user_keys
from latewood.vocabulary import Vocabulary

EPOCH = bytes(range(16))
SHARDS = 3
TRAITS = [
    ("item", pa.int64()),
    ("action", pa.dictionary(pa.int32(), pa.string())),
    ("note", pa.string()),
    ("like", pa.bool_()),
    ("score", pa.float32()),
    ("seen", pa.timestamp("us")),
    ("rank", pa.uint8()),
]
INTEGER_USERS = Schema(user_id=pa.int64(), traits=pa.schema(TRAITS))
TEXT_USERS = Schema(user_id=pa.string(), traits=pa.schema(TRAITS))
names = itertools.count()


@dataclass(frozen=True)
class Event:
    user: Any
    event_ts: int
    ingest_ts: int
    ordinal: int
    traits: tuple[Any, ...]

    @property
    def order(self) -> tuple[int, int, int]:
        return (self.event_ts, self.ingest_ts, self.ordinal)


@dataclass(frozen=True)
class Request:
    """As of `cutoff`, everything before `end` in the total order; a pointer of `watermark`."""

    user: Any
    end: tuple[int, ...]  # (event_ts,), or a whole order for an anchor
    cutoff: int
    watermark: int


@dataclass
class World:
    """A store of one generation, and everything that ever happened."""

    schema: Schema
    events: list[Event]
    watermark: int
    epoch: bytes = EPOCH
    refreshed: int = field(default=0)

    def __post_init__(self) -> None:
        self.storage = open_storage(f"memory://materialize-{next(names)}")
        self.vocabulary = Vocabulary(self.storage, self.schema)
        stored = [event for event in self.events if event.ingest_ts < self.watermark]
        self._columns = {trait.id: self._column(stored, i) for i, trait in enumerate(self.schema)}
        for i, trait in enumerate(self.schema):  # what appends to the mutable tier would have done
            if trait.coded:
                self.vocabulary.encode(trait, pa.array([e.traits[i] for e in self.events], trait.value_type))
        shards = tuple(self._write(number, stored) for number in range(SHARDS))
        self.generation = Generation(1, self.watermark, "attempt", EPOCH, self.schema, shards)
        self._reader = GenerationReader(self.storage, self.generation)
        self.scrubs = Scrubs(self.storage, EPOCH)

    def reader(self) -> GenerationReader:
        return self._reader

    def refresh(self) -> GenerationReader:
        self.refreshed += 1
        return self._reader

    def _column(self, events: Sequence[Event], i: int) -> Column:
        trait = self.schema.traits[i]
        values = [event.traits[i] for event in events]
        array = pa.array(values, trait.value_type, from_pandas=False)
        return self.vocabulary.encode(trait, array) if trait.coded else column_from_arrow(array)

    def _write(self, number: int, stored: list[Event]) -> ShardFile:
        ids = pa.array([event.user for event in stored], self.schema.user_id)
        mine = np.flatnonzero(shard_of(user_keys(ids).hash, SHARDS) == number)
        if not len(mine):
            return NO_FILE
        own = user_keys(ids)
        order = np.array([event.order for event in stored], np.int64)
        rows = mine[np.lexsort((*order[mine].T[::-1], own.check[mine], own.hash[mine]))]
        first = np.flatnonzero([i == 0 or stored[rows[i]].user != stored[rows[i - 1]].user for i in range(len(rows))])
        columns = [
            Column(order[rows, 0]),
            Column(order[rows, 1] - order[rows, 0]),
            Column(order[rows, 2].astype(np.int32)),
        ]
        for trait in self.schema:
            values, mask = self._columns[trait.id]
            columns.append(Column(values[rows], None if mask is None else mask[rows]))
        columns.append(Column(np.zeros(len(rows), np.int64), np.ones(len(rows), np.bool_)))
        run = UserRun(
            ids.take(pa.array(rows[first])),
            own.take(rows[first]),
            np.append(first, len(rows)).astype(np.int64),
            columns,
        )
        key = keys.shard(1, "attempt", number)
        with self.storage.writer(key) as sink:
            writer = ShardWriter(sink, columns_of(self.schema), epoch=EPOCH, generation=1, shard=number)
            writer.add(run)
            summary = writer.finish()
        return ShardFile(key, summary.size_bytes, summary.event_count, summary.user_count, summary.footer_xxh3)

    def visible(self, request: Request, low: int, high: int) -> list[Event]:
        """The user's events before the request's end, with low <= ingest_ts < high, in the total order."""
        return sorted(
            (
                event
                for event in self.events
                if event.user == request.user and event.order < request.end and low <= event.ingest_ts < high
            ),
            key=lambda event: event.order,
        )

    def examples(self, requests: Sequence[Request], *, shuffled: bool = False) -> pa.Table:
        """What capture or backfill would have logged."""
        stored = [self.visible(request, -(2**62), request.watermark) for request in requests]
        recent = [self.visible(request, request.watermark, request.cutoff) for request in requests]
        if shuffled:
            recent = [events[::-1] for events in recent]
        users = pa.array([request.user for request in requests], self.schema.user_id)
        end_ts = np.array([request.end[0] for request in requests], np.int64)
        pointers = Pointers(
            EPOCH,
            np.array([request.watermark for request in requests], np.int64),
            np.array([e[0].event_ts if e else r.end[0] for e, r in zip(stored, requests, strict=True)], np.int64),
            end_ts,
            np.array([sum(x.event_ts == t for x in e) for e, t in zip(stored, end_ts, strict=True)], np.int32),
            np.array([len(events) for events in stored], np.int64),
            np.array([self._checksum(events) for events in stored], np.uint64),
        )
        cutoff = pa.array([request.cutoff for request in requests], pa.int64()).view(TIME_TYPE)
        return pa.table(
            {
                "user_id": users,
                "request": pa.array(range(len(requests))),
                "uih": pointers.to_arrow(),
                "recent": self._recent(recent),
                "cutoff": cutoff,
            }
        )

    def _checksum(self, events: list[Event]) -> int:
        own = user_keys(pa.array([event.user for event in events], self.schema.user_id))
        order = np.array([event.order for event in events], np.int64).reshape(-1, 3)
        return int(identities(own, *order.T).sum(dtype=np.uint64))

    def _recent(self, recent: list[list[Event]]) -> pa.StructArray:
        def lists(type_: pa.DataType, get: Any) -> pa.Array:
            flat = [get(event) for events in recent for event in events]
            array = pa.array(flat, pa.int64() if pa.types.is_timestamp(type_) else type_, from_pandas=False)
            offsets = np.cumsum([0, *(len(events) for events in recent)]).astype(np.int32)
            return pa.ListArray.from_arrays(pa.array(offsets), array.view(type_), type=pa.list_(type_))

        columns = {
            "event_ts": lists(TIME_TYPE, lambda event: event.event_ts),
            "ingest_ts": lists(TIME_TYPE, lambda event: event.ingest_ts),
            "ordinal": lists(pa.int32(), lambda event: event.ordinal),
        }
        for i, trait in enumerate(self.schema):
            columns[trait.name] = lists(trait.value_type, lambda event, i=i: event.traits[i])
        return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))

    def expected(self, request: Request, projection: Projection) -> dict[str, list[Any]]:
        """R2 and the cut, by brute force."""
        events = self.visible(request, -(2**62), request.cutoff)
        if projection.max_len is not None:
            events = events[len(events) - min(projection.max_len, len(events)) :]
        columns = [trait.name for trait in self.schema]
        return {
            name: [e.event_ts if name == "event_ts" else e.traits[columns.index(name)] for e in events]
            for name in projection.names(self.schema)
        }


def plain(history: pa.Array, row: int) -> dict[str, list[Any]]:
    """One history as Python values, times as µs."""
    result = {}
    for column in history.type:
        values = history.field(column.name)[row].values
        result[column.name] = (values.view(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()
    return result


def check(world: World, requests: Sequence[Request], projection: Projection, **options: Any) -> None:
    materializer = Materializer(world, projection)
    batch = materializer(world.examples(requests, **options))
    history = batch.to_arrow()["history"].combine_chunks()
    wanted = [world.expected(request, projection) for request in requests]
    assert [plain(history, row) for row in range(len(requests))] == wanted
    assert batch.weights.tolist() == [1.0] * len(requests)
    assert batch.features.column_names == ["user_id", "request"]
    for name, values in batch.values.items():
        mask = batch.masks.get(name)
        nulls = [value is None for row in wanted for value in row[name]]
        assert (mask is None and not any(nulls)) or mask.tolist() == nulls
        if mask is not None:
            assert not values[mask].any()
    lengths = [max(map(len, row.values()), default=0) for row in wanted]
    if projection.names(world.schema):
        assert batch.lengths.tolist() == lengths
        assert materializer.last_stats.events == sum(lengths)
        assert materializer.stats.examples == len(requests)


TRAIT_VALUES = st.tuples(
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.sampled_from(["like", "buy", ""]),
    st.none() | st.sampled_from(["ü", "🌲", "x" * 40]),
    st.none() | st.booleans(),
    st.none() | st.sampled_from([0.5, -1.0, 2.0**100]),
    st.none() | st.integers(-(10**15), 10**15),
    st.none() | st.integers(0, 255),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Few users and few moments, so that events tie, share stripes of one user, and arrive late."""
    schema = draw(st.sampled_from([INTEGER_USERS, TEXT_USERS]))
    users = [-5, 0, 2**60] if schema is INTEGER_USERS else ["", "a", "ö🌲"]
    raw = draw(
        st.lists(st.tuples(st.sampled_from(users), st.integers(0, 8), st.integers(-1, 8), TRAIT_VALUES), max_size=40)
    )
    return World(schema, numbered([(u, t, t + d, traits) for u, t, d, traits in raw]), draw(st.integers(0, 16)))


def numbered(raw: Sequence[tuple[Any, int, int, tuple[Any, ...]]]) -> list[Event]:
    """Events with ordinals by arrival."""
    seen: dict[tuple[Any, int, int], int] = {}
    events = []
    for user, event_ts, ingest_ts, traits in raw:
        place = seen.get((user, event_ts, ingest_ts), 0)
        seen[user, event_ts, ingest_ts] = place + 1
        events.append(Event(user, event_ts, ingest_ts, place, traits))
    return events


def requests_of(world: World) -> st.SearchStrategy[list[Request]]:
    unknown = 77 if world.schema is INTEGER_USERS else "unknown"
    users = st.sampled_from([*sorted({event.user for event in world.events}), unknown])

    def plain_request(user: Any, end_ts: int, cutoff: int, older: int) -> Request:
        return Request(user, (end_ts,), cutoff, max(min(cutoff, world.watermark) - older, -1))

    def anchor(event: Event) -> Request:
        cutoff = min(event.event_ts, event.ingest_ts) + 1
        return Request(event.user, event.order, cutoff, min(cutoff, world.watermark))

    requests = st.builds(plain_request, users, st.integers(0, 10), st.integers(0, 18), st.sampled_from([0, 0, 3]))
    if world.events:
        requests |= st.sampled_from(world.events).map(anchor)
    return st.lists(requests, max_size=12)


PROJECTIONS = st.builds(
    Projection,
    max_len=st.sampled_from([None, 0, 1, 2, 5, 1000]),
    traits=st.none() | st.lists(st.sampled_from(["event_ts", *(name for name, _ in TRAITS)]), unique=True),
)


@given(st.data())
def test_materialized_is_what_was_visible(data: st.DataObject) -> None:
    world = data.draw(worlds())
    requests = data.draw(requests_of(world))
    check(world, requests, data.draw(PROJECTIONS), shuffled=data.draw(st.booleans()))


def grown(seed: int, count: int, late: float) -> World:
    """Long histories: three users, events over many stripes, some late or known before their time."""
    rng = np.random.default_rng(seed)
    event_ts = np.sort(rng.integers(0, count * 2, count))
    delay = np.where(rng.random(count) < late, rng.integers(0, count, count), rng.integers(0, 3, count))
    users = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    raw = [
        (int(user), int(t), int(t + d), (int(item), "like" if item % 3 else None, str(item % 50), True, 0.5, None, 7))
        for user, t, d, item in zip(users, event_ts, delay, rng.integers(0, 1000, count), strict=True)
    ]
    return World(INTEGER_USERS, numbered(raw), int(count * 1.5))


def some_requests(world: World, seed: int, count: int) -> list[Request]:
    rng = np.random.default_rng(seed)
    span = max(event.event_ts for event in world.events)
    requests = []
    for _ in range(count):
        end, lag = int(rng.integers(0, span + 2)), int(rng.integers(0, 40))
        cutoff = end - lag if rng.random() < 0.5 else end + int(rng.integers(0, span))
        request = Request(int(rng.integers(0, 4)), (end,), max(cutoff, 0), min(max(cutoff, 0), world.watermark))
        requests.append(request)
    return requests


CLEAN, LATE = grown(1, 4000, 0.0), grown(2, 4000, 0.2)


@given(st.integers(0, 10**6), st.sampled_from([0, 1, 50, 256, 700, None]), st.booleans())
def test_long_histories_share_stretches_and_skip_what_came_late(seed: int, max_len: int | None, late: bool) -> None:
    world = LATE if late else CLEAN
    check(world, some_requests(world, seed, 6), Projection(max_len, traits=["item", "action", "event_ts"]))
