"""Spill: new events by ranges of the user hash, a bulk load's in bounded memory, the mutable tier's where they lie.

A sorting office: events are dropped into buckets, which are fine ranges of the hash, finer than shards. As long as they
fit into memory they stay there. When they do not, what was added is sorted by bucket and written to one temporary file, and
the office starts anew; reading a range of buckets collects its pieces from the file and from memory, oldest first, so
that within a bucket what was added keeps the order in which it arrived.

Events that the mutable tier has in memory stay where they are: of them only the order is noted, and a range of buckets is
taken from there (docs/decisions/0042-compaction-reads-recent-events-where-they-lie.md). They come between those of the file
and the others, whenever they arrived: they have their ordinals.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Lists, TraitColumn, null_column
from latewood.compaction.spill_file import SpilledRun, SpillFile
from latewood.errors import SchemaError
from latewood.events import NEVER, Events, concat_events
from latewood.lists import offsets_of
from latewood.mutable import EventsView, View
from latewood.schema import Schema
from latewood.stripes import gather_lists
from latewood.users import shard_of

BUCKETS_MIN = 2048  # so that one bucket of a thousand million events still fits into modest memory
_SORTED_AT_ONCE, _SORTED_LEAST, _SORTING_BYTES = 1 << 22, 1 << 16, 32  # events of a view, and what each takes
_FLUSH_BYTES_MAX = 1 << 30  # the offsets of an Arrow string array end at 2 GiB


@dataclass(frozen=True, slots=True)
class _Flush:
    """A run in the file, sorted by bucket. Shapes: before (buckets + 1,), the rows before each bucket."""

    before: NDArray[np.int64]
    run: SpilledRun


@dataclass(frozen=True, slots=True)
class _Order:
    """Some of a view's events, by bucket. Shapes: before (buckets + 1,), those before each bucket; rows (n,)."""

    before: NDArray[np.int64]
    rows: NDArray[np.unsignedinteger[Any]]  # of the view's columns


class Spill:
    """Collects events, then gives them back by ranges of buckets.

    Args:
        schema: of the events: the columns that every bucket has. Traits that it does not have are left out.
        shards: numbers of shards; a bucket never crosses a border between shards of any of them.
        memory_bytes: how much may be added before it is written out, and what sorting the events of a view may take.
        directory: where the temporary file goes; None is the system's place for such.
        threads: that put events in order, and write to it.
    """

    def __init__(
        self,
        schema: Schema,
        shards: Sequence[int],
        memory_bytes: int,
        directory: str | None = None,
        threads: int = 1,
    ) -> None:
        self._schema, self._shards = schema, tuple(shards)
        self._memory_bytes = min(memory_bytes, _FLUSH_BYTES_MAX)
        self._directory, self._threads = directory, threads
        fine = shards[0] * -(-BUCKETS_MIN // shards[0])
        # of every bucket, and past the last one: the first upper half of a hash, of 32 bits, that falls into it
        self._borders = np.unique(np.concatenate([_borders(count) for count in (fine, *shards)]))
        self._buckets = len(self._borders) - 1
        self._even = self._buckets == fine
        self._added: list[Events] = []
        self._added_bytes = 0
        self._file: SpillFile | None = None
        self._flushes: list[_Flush] = []
        self._columns: View | None = None  # of the events that stay where they are
        self._orders: list[_Order] = []
        self._sorted: Events | None = None  # what stays in memory, by bucket, once all is added
        self._sorted_rows = np.zeros(self._buckets + 1, np.int64)  # its rows before each bucket
        self.event_count = 0
        self.item_bytes = 0  # of all lists
        self.min_ingest: int | None = None
        self.max_ingest: int | None = None  # or when an event was superseded

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._added, self._sorted, self._columns, self._orders = [], None, None, []
        if self._file is not None:
            self._file.close()

    @property
    def spilled_bytes(self) -> int:
        """How much was written to the temporary file."""
        return self._file.size_bytes if self._file else 0

    def add(self, events: Events) -> None:
        """Take events, in order of arrival."""
        if not len(events):
            return
        self._sorted, self._sorted_rows = None, np.zeros(self._buckets + 1, np.int64)
        self.event_count += len(events)
        low, high = int(events.ingest_ts.min()), int(events.ingest_ts.max())
        if events.superseded_at is not None:
            high = max(high, int(events.superseded_at.max(where=events.superseded_at < NEVER, initial=high)))
        self._note_ingest(low, high)
        self.item_bytes += sum(_item_bytes(column) for column in events.traits.values())
        self._added.append(_alone(events))
        self._added_bytes += _size_bytes(events)
        if self._added_bytes > self._memory_bytes:
            self._flush()

    def add_view(self, events: EventsView) -> None:
        """Take events that stay where they are, and are read from there. Once at most."""
        if not len(events):
            return
        assert self._columns is None
        self._columns = events.columns
        self.event_count += len(events)
        _complete(events.columns.take(np.zeros(0, np.int64)), self._schema)  # refuses what does not fit
        buckets = self._narrow(self.bucket_of(events.columns.user_hash))
        there_is_room_for = self._memory_bytes // (_SORTING_BYTES * self._threads)
        at_once = min(_SORTED_AT_ONCE, max(_SORTED_LEAST, there_is_room_for))
        parts = [events.slice(start, start + at_once) for start in range(0, len(events), at_once)]
        with ThreadPoolExecutor(self._threads, "latewood-spill") as pool:
            self._orders += pool.map(lambda part: self._in_order(part, buckets), parts)
        for part in parts:
            ingest_ts = events.columns.ingest_ts[part.rows]
            self._note_ingest(int(ingest_ts.min()), int(ingest_ts.max()))
            lists = [column.take(part.rows) for column in events.columns.traits.values() if isinstance(column, Lists)]
            self.item_bytes += sum(map(_item_bytes, lists))

    def finish(self) -> None:
        """Make what was added readable; views are at once. Adding more and finishing again is allowed."""
        if not self._added:
            return
        parts, order, self._sorted_rows = self._by_bucket()
        events = concat_events(parts)
        del parts  # before they are copied once more
        self._sorted = _alone(events.take(order))
        self._added = [self._sorted]

    def counts(self, buckets: range | None = None) -> NDArray[np.int64]:
        """Events per bucket, of some or of all. Shapes: (buckets,)."""
        start, stop = (0, self._buckets) if buckets is None else (buckets.start, buckets.stop)
        rows_before = [self._sorted_rows, *(of.before for of in self._flushes), *(of.before for of in self._orders)]
        return np.sum([np.diff(rows[start : stop + 1]) for rows in rows_before], axis=0)

    def read(self, start: int, stop: int) -> Events | None:
        """The events of the buckets from `start` to `stop`; None if there are none.

        What was added is in order of arrival within each bucket. Safe to call from several threads.
        """
        pieces = []
        for flush in self._flushes:
            assert self._file is not None
            first, last = int(flush.before[start]), int(flush.before[stop])
            if first < last:
                pieces.append(self._file.read(flush.run, first, last))
        if self._columns is not None and len(rows := self._rows_of_view(start, stop)):
            pieces.append(_complete(self._columns.take(rows), self._schema))
        if self._sorted is not None:
            first, last = int(self._sorted_rows[start]), int(self._sorted_rows[stop])
            if first < last:
                pieces.append(self._sorted.slice(first, last))
        return concat_events(pieces) if pieces else None

    def buckets(self, shard: int, shards: int) -> range:
        """The buckets of one shard of `shards`. Raises: ValueError: the spill was not made for that many."""
        if shards not in self._shards:
            raise ValueError(f"buckets for {self._shards} shards, not for {shards}")
        start, stop = np.searchsorted(self._borders, [_border(shard, shards), _border(shard + 1, shards)])
        return range(int(start), int(stop))

    def shards_of(self, buckets: range, shards: int) -> range:
        """The shards of `shards` that some buckets lie in, of which there is one at least.

        To look at every pair of an old and a new shard would take the better part of a minute from a thousand shards on.
        """
        first, last = (int(self._borders[bucket]) * shards >> 32 for bucket in (buckets.start, buckets.stop - 1))
        return range(first, last + 1)

    def bucket_of(self, user_hash: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The bucket of each user."""
        if self._even:  # a multiplication where a search would do, too: a bulk load asks this of every event
            return shard_of(user_hash, self._buckets)
        return np.searchsorted(self._borders, (user_hash >> np.uint64(32)).astype(np.int64), side="right") - 1

    def first_user(self, user_hash: NDArray[np.uint64], bucket: int) -> int:
        """The first of users sorted by hash that is in this bucket or past it."""
        bound = int(self._borders[bucket]) << 32
        return int(np.searchsorted(user_hash, np.uint64(bound))) if bound < 1 << 64 else len(user_hash)

    def _note_ingest(self, low: int, high: int) -> None:
        self.min_ingest = low if self.min_ingest is None else min(low, self.min_ingest)
        self.max_ingest = high if self.max_ingest is None else max(high, self.max_ingest)

    def _in_order(self, events: EventsView, buckets: NDArray[Any]) -> _Order:
        """Args: buckets: of each user of the view."""
        order, before = self._sorted_by(buckets[events.columns.users[events.rows]])
        return _Order(before, events.rows[order].astype(np.min_scalar_type(len(events.columns.event_ts))))

    def _narrow(self, buckets: NDArray[np.int64]) -> NDArray[Any]:
        """In two bytes where that will do, for those are sorted by radix."""
        return buckets.astype(np.uint16 if self._buckets < 1 << 16 else np.int64)

    def _sorted_by(self, buckets: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The stable order of events by bucket, and how many come before each bucket."""
        order = np.argsort(buckets, kind="stable").astype(np.int64, copy=False)
        return order, offsets_of(np.bincount(buckets, minlength=self._buckets))

    def _rows_of_view(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows of some buckets, each bucket's in order of arrival."""
        parts = [of.rows[int(of.before[start]) : int(of.before[stop])] for of in self._orders]
        return np.concatenate(parts).astype(np.int64)

    def _by_bucket(self) -> tuple[list[Events], NDArray[np.int64], NDArray[np.int64]]:
        """What was added, its rows in the stable order of the buckets, and the rows before each bucket."""
        parts, self._added = [_complete(part, self._schema) for part in self._added], []
        buckets = np.concatenate([self.bucket_of(part.keys.hash) for part in parts])
        return parts, *self._sorted_by(self._narrow(buckets))

    def _flush(self) -> None:
        parts, order, rows = self._by_bucket()
        self._added_bytes = 0
        if self._file is None:
            self._file = SpillFile(self._schema, self._directory, self._threads)
        self._flushes.append(_Flush(rows, self._file.append(parts, order)))


def _complete(events: Events, schema: Schema) -> Events:
    """Events with every trait of the schema and no other: concatenating and slicing need no special case then.

    Raises: SchemaError: a trait that no schema of this store had when it was read, or of another dtype.
    """
    traits: dict[int, TraitColumn] = {}
    for trait in schema:
        column = events.traits.get(trait.id) or null_column(trait, len(events))
        if column.dtype != trait.dtype or isinstance(column, Lists) != trait.is_list:
            raise SchemaError(
                f"trait {trait.name!r} holds {trait.type}, and no {type(column).__name__} of {column.dtype}"
            )
        traits[trait.id] = column
    if unknown := [trait_id for trait_id in events.traits if trait_id >= schema.next_id]:
        raise SchemaError(f"the events have a trait of id {min(unknown)}, which is not known yet")
    return replace(events, traits=traits)


def _size_bytes(events: Events) -> int:
    traits = sum(_column_bytes(column) for column in events.traits.values())
    places = (36 if events.superseded_at is None else 44) * len(events)
    return int(events.user_ids.nbytes) + places + traits


def _column_bytes(column: TraitColumn) -> int:
    """Of lists, without what the pool has for other events."""
    mask = 0 if column.mask is None else column.mask.nbytes
    if isinstance(column, Lists):
        return column.starts.nbytes + column.lengths.nbytes + _item_bytes(column) + mask
    return column.values.nbytes + mask


def _item_bytes(column: TraitColumn) -> int:
    return int(column.lengths.sum()) * column.dtype.itemsize if isinstance(column, Lists) else 0


def _alone(events: Events) -> Events:
    """Events whose lists are in pools of their own, back to back: held for long, they hold no others' items."""
    lists: dict[int, TraitColumn] = {
        trait: gather_lists(column) for trait, column in events.traits.items() if isinstance(column, Lists)
    }
    return replace(events, traits=events.traits | lists)


def _borders(shards: int) -> NDArray[np.int64]:
    """The first upper half of a hash of each shard, and 2**32."""
    return np.array([_border(shard, shards) for shard in range(shards + 1)])


def _border(shard: int, shards: int) -> int:
    """The first upper half of a hash of a shard: the inverse of `shard_of`."""
    return -((-shard << 32) // shards)
