"""A store of one generation, written here shard by shard, and everything that ever happened, as Python lists.

Pointers, recents and what a request must see are counted one event at a time, by docs/protocol.md R2 and R13 alone, so that
nothing but the stripes and the code under test stands between the raw events and a comparison.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.columns import Column, TraitColumn, column_from_arrow
from latewood.events import NEVER
from latewood.immutable import Scrubs
from latewood.immutable.manifest import NO_FILE, Generation, ShardFile
from latewood.immutable.reader import GenerationReader
from latewood.pointer import PLACE_TYPE, Pointers
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
    ("tags", pa.list_(pa.string())),
    ("basket", pa.list_(pa.int64())),
    ("pair", pa.list_(pa.float32(), 2)),
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
    superseded_at: int = NEVER

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
    kept_from: dict[Any, int] = field(
        default_factory=dict
    )  # of some users: the time before which retention took events
    epoch: bytes = EPOCH
    refreshed: int = field(default=0)

    def __post_init__(self) -> None:
        self.storage = open_storage(f"memory://materialize-{next(names)}")
        self.vocabulary = Vocabulary(self.storage, self.schema)
        stored = [
            event
            for event in self.events
            if event.ingest_ts < self.watermark and event.event_ts >= self.kept_from.get(event.user, event.event_ts)
        ]
        self._columns = {trait.id: self._column(stored, i) for i, trait in enumerate(self.schema)}
        for i, trait in enumerate(self.schema):  # what appends to the mutable tier would have done
            if trait.coded:
                self.vocabulary.encode(trait, pa.array([e.traits[i] for e in self.events], trait.value_type))
        shards = tuple(self._write(number, stored) for number in range(SHARDS))
        self.generation = Generation(
            1, self.watermark, "attempt", EPOCH, self.schema, shards, expired=bool(self.kept_from)
        )
        self._reader = GenerationReader(self.storage, self.generation)
        self.scrubs = Scrubs(self.storage, EPOCH)

    def reader(self) -> GenerationReader:
        return self._reader

    def refresh(self) -> GenerationReader:
        self.refreshed += 1
        return self._reader

    def _column(self, events: Sequence[Event], i: int) -> TraitColumn:
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
        columns: list[TraitColumn] = [
            Column(order[rows, 0]),
            Column(order[rows, 1] - order[rows, 0]),
            Column(order[rows, 2].astype(np.int32)),
        ]
        columns += [self._columns[trait.id].take(rows) for trait in self.schema]
        at = np.array([stored[row].superseded_at for row in rows], np.int64)
        never = at >= self.watermark  # it is not known yet
        columns.append(Column(np.where(never, 0, at), never))
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
        """The user's events before the request's end, with low <= ingest_ts < high <= superseded_at, in the total order."""
        return sorted(
            (
                event
                for event in self.events
                if event.user == request.user
                and event.order < request.end
                and low <= event.ingest_ts < high <= event.superseded_at
            ),
            key=lambda event: event.order,
        )

    def superseded(self, request: Request) -> list[Event]:
        """The stored events, up to the time of the request's end, that something recent took the place of."""
        return [
            event
            for event in self.events
            if event.user == request.user
            and event.event_ts <= request.end[0]
            and event.ingest_ts < request.watermark <= event.superseded_at < request.cutoff
        ]

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
                "recent": self._recent(recent, [self.superseded(request) for request in requests]),
                "cutoff": cutoff,
            }
        )

    def _checksum(self, events: list[Event]) -> int:
        own = user_keys(pa.array([event.user for event in events], self.schema.user_id))
        order = np.array([event.order for event in events], np.int64).reshape(-1, 3)
        return int(identities(own, *order.T).sum(dtype=np.uint64))

    def _recent(self, recent: list[list[Event]], superseded: list[list[Event]]) -> pa.StructArray:
        def lists(type_: pa.DataType, get: Any) -> pa.Array:
            flat = [get(event) for events in recent for event in events]
            array = pa.array(flat, pa.int64() if pa.types.is_timestamp(type_) else type_, from_pandas=False)
            offsets = np.cumsum([0, *(len(events) for events in recent)]).astype(np.int32)
            array = array if array.type == type_ else array.view(type_)
            return pa.ListArray.from_arrays(pa.array(offsets), array, type=pa.list_(type_))

        columns = {
            "event_ts": lists(TIME_TYPE, lambda event: event.event_ts),
            "ingest_ts": lists(TIME_TYPE, lambda event: event.ingest_ts),
            "ordinal": lists(pa.int32(), lambda event: event.ordinal),
        }
        for i, trait in enumerate(self.schema):
            columns[trait.name] = lists(trait.value_type, lambda event, i=i: event.traits[i])
        names = [field.name for field in PLACE_TYPE]
        places = [[dict(zip(names, event.order, strict=True)) for event in events] for events in superseded]
        columns["supersedes"] = pa.array(places, pa.list_(PLACE_TYPE))
        return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))

    def expected(self, request: Request, projection: Projection) -> dict[str, list[Any]]:
        """R2, R13 and the cut, by brute force."""
        events = self.visible(request, -(2**62), request.cutoff)
        if projection.max_len is not None:
            events = events[len(events) - min(projection.max_len, len(events)) :]
        columns = [trait.name for trait in self.schema]
        return {
            name: [e.event_ts if name == "event_ts" else e.traits[columns.index(name)] for e in events]
            for name in projection.names(self.schema)
        }

    def end_of(self, anchor: Event) -> tuple[int, ...]:
        """Where an anchor's history ends: at the first of its versions that were known by then (R2)."""
        cutoff, versions, waiting = min(anchor.event_ts, anchor.ingest_ts) + 1, [anchor], [anchor]
        while waiting:
            newer = waiting.pop()
            older = [
                event
                for event in self.events
                if event.user == newer.user and event.superseded_at == newer.ingest_ts and event not in versions
            ]
            versions += older
            waiting += older
        return min([anchor.order, *(event.order for event in versions if event.ingest_ts < cutoff)])


def plain(history: pa.Array, row: int) -> dict[str, list[Any]]:
    """One history as Python values, times as µs."""
    result = {}
    for column in history.type:
        values = history.field(column.name)[row].values
        result[column.name] = (values.view(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()
    return result


def numbered(raw: Sequence[tuple[Any, int, int, tuple[Any, ...]]]) -> list[Event]:
    """Events with ordinals by arrival."""
    seen: dict[tuple[Any, int, int], int] = {}
    events = []
    for user, event_ts, ingest_ts, traits in raw:
        place = seen.get((user, event_ts, ingest_ts), 0)
        seen[user, event_ts, ingest_ts] = place + 1
        events.append(Event(user, event_ts, ingest_ts, place, traits))
    return events
