"""One generation, opened: users to rows, pointers to rows, rows to columns.

Shards are opened when a user of theirs is first asked for, and stay open; a reader may be used from many threads.
Everything is done for a whole batch at once, across shards, in one kernel call per question.
"""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, TraitColumn, null_column
from latewood.events import Events
from latewood.immutable import lookup, resolve
from latewood.immutable.manifest import Generation
from latewood.immutable.refusals import require
from latewood.immutable.resolve import NO_UNSTORED, Located, Measured, Resolution, Rows, Unstored
from latewood.lists import offsets_of
from latewood.pointer import Pointers
from latewood.schema import Trait
from latewood.storage import Storage
from latewood.stripes import (
    DELAY,
    EVENT_TS,
    ORDINAL,
    Ranges,
    Shard,
    Tables,
    columns_of,
    decode_column,
    decode_list_column,
    superseded_index,
    superseded_times,
)
from latewood.users import UserKeys, shard_of

_LISTS_SHIFT = 4  # of lists, so many times (a power of two) fewer events are read at once


class GenerationReader:
    """Reads one generation. Thread-safe; what it returns holds no reference into it.

    A shard whose file is gone (a newer generation was published, and this one collected) is a FileNotFoundError: read
    from the newest generation then.
    """

    def __init__(self, storage: Storage, generation: Generation) -> None:
        self.storage, self.generation = storage, generation
        # For kernels. Holds the shards that are open: those of every user that has been located.
        self.tables = Tables(len(generation.shards))
        self._columns = columns_of(generation.schema)
        self._places = {c.id: place for place, c in enumerate(self._columns) if c.role in ("trait", "lengths")}
        self._unopened = np.array([shard.exists for shard in generation.shards])
        self._closed_shards = int(self._unopened.sum())  # how many are yet to be opened
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open every shard now: what is open can be read to the end, whatever is collected meanwhile."""
        self._open(range(len(self.generation.shards)))

    def shard(self, number: int) -> Shard | None:
        """One shard, opened and validated; None where the generation has no file for it, having no events."""
        self._open([number])
        return self.tables.shards[number]

    def column(self, trait: Trait) -> int | None:
        """The column of a trait in every shard of this generation; None if the trait was added later (null in all).

        Of a list trait that of the lengths; the items are the next.
        """
        return self._places.get(trait.id)

    def locate(self, keys: UserKeys) -> Located:
        """Where users are: their shard and their index in it, -1 where this generation does not have them."""
        hashes, checks = self._opened_for(keys)
        located = Located(np.empty(len(hashes), np.int64), np.empty(len(hashes), np.int64))
        lookup.locate(self.tables.rows, hashes, checks, *located)
        return located

    def _opened_for(self, keys: UserKeys) -> UserKeys:
        """The same keys, as kernels take them, once the shards of all of them are open."""
        keys = UserKeys(np.ascontiguousarray(keys.hash, np.uint64), np.ascontiguousarray(keys.check, np.uint64))
        if self._closed_shards:
            self._open(np.unique(shard_of(keys.hash, len(self.generation.shards))).tolist())
        return keys

    def event_counts(self, located: Located) -> NDArray[np.int64]:
        """How many events each user has here; 0 for an unknown one."""
        counts = np.empty(len(located.user), np.int64)
        lookup.event_counts(self.tables.rows, *located, counts)
        return counts

    def forget_checks(self, keys: UserKeys) -> None:
        """Take no block of some users for verified: each is, once more, before it is next decoded.

        What another thread is about to verify may still count.
        """
        lookup.forget_all_checks(self.tables.rows, *self.locate(keys))

    def history_lengths(self) -> NDArray[np.int64]:
        """How many events each user of this generation has."""
        shards = [self.shard(number) for number in range(len(self.generation.shards))]
        counts = [np.diff(shard.first_event).astype(np.int64) for shard in shards if shard is not None]
        return np.concatenate(counts or [np.zeros(0, np.int64)])

    def measure(
        self,
        keys: UserKeys,
        end_ts: NDArray[np.int64],
        watermark: NDArray[np.int64] | int,
        tie_ingest: NDArray[np.int64] | None = None,
        tie_ordinal: NDArray[np.int32] | None = None,
    ) -> Measured:
        """What requests can see of this generation; see `resolve.measure`."""
        return resolve.measure(self.tables, keys, self.locate(keys), end_ts, watermark, tie_ingest, tie_ordinal)

    def resolve(self, keys: UserKeys, pointers: Pointers, unstored: Unstored = NO_UNSTORED) -> Resolution:
        """The rows that pointers mean, checked; see `resolve.resolve`. `require` raises what did not match."""
        watermark, expired = self.generation.watermark, self.generation.expired
        return resolve.resolve(self.tables, self._opened_for(keys), pointers, watermark, expired, unstored)

    def require(
        self,
        resolution: Resolution,
        pointers: Pointers,
        user_ids: pa.Array,
        scrub_ts: NDArray[np.int64] | None = None,
    ) -> None:
        """Accept only pointers that resolved in full; see `refusals.require`."""
        require(resolution, pointers, user_ids, self.generation, self.tables, scrub_ts)

    def find_rows(
        self,
        located: Located,
        event_ts: NDArray[np.int64],
        ingest_ts: NDArray[np.int64],
        ordinal: NDArray[Any],
        watermark: NDArray[np.int64] | int | None = None,
    ) -> NDArray[np.int64]:
        """The rows of events given by their places, -1 where there is none; see `resolve.find_rows`."""
        return resolve.find_rows(self.tables, located, event_ts, ingest_ts, ordinal, watermark)

    def read(self, rows: Rows, traits: Sequence[Trait]) -> Events:
        """Runs of rows of known users as events, back to back in the order given. Raises: CorruptionError."""
        counts = rows.stop - rows.start
        event_ts = self.read_column(rows, EVENT_TS, np.dtype(np.int64)).values
        return Events(
            self._user_ids(rows, counts),
            self._keys(rows, counts),
            event_ts,
            event_ts + self.read_column(rows, DELAY, np.dtype(np.int64)).values,
            self.read_column(rows, ORDINAL, np.dtype(np.int32)).values,
            {trait.id: column for trait in traits if (column := self.read_trait(rows, trait)) is not None},
            self._superseded_at(rows),
        )

    def read_trait(self, rows: Rows, trait: Trait) -> TraitColumn | None:
        """A trait of runs of rows of known users, as `read_column`; None where this generation does not have it.

        Of lists the items are compact.
        """
        column = self.column(trait)
        if column is None:
            return None
        if not trait.is_list:
            return self.read_column(rows, column, trait.dtype, trait.nullable)
        ranges, size = _back_to_back(rows)
        if not size:  # a generation without shards has no columns either
            return null_column(trait, 0)
        return decode_list_column(self.tables, ranges, column, size, trait.list_size)

    def read_column(self, rows: Rows, column: int, dtype: np.dtype[Any], nullable: bool = False) -> Column:
        """One stored column of runs of rows of known users, back to back in the order given."""
        ranges, size = _back_to_back(rows)
        values, mask = np.empty(size, dtype), np.empty(size, np.bool_) if nullable else None
        nulls = decode_column(self.tables, ranges, column, values, mask)
        return Column(values, mask if nulls else None)

    def sample_times(self, keys: UserKeys, *, users: int, newest: int) -> NDArray[np.int64]:
        """The times of the newest few events of some of the users that are known here: to guess at a clock."""
        located = self.locate(keys)
        known = located.user >= 0
        pairs = np.unique(np.stack([located.shard[known], located.user[known]]), axis=1)[:, :users]
        some = Located(*np.ascontiguousarray(pairs))
        counts = self.event_counts(some)
        rows = Rows(*some, np.maximum(0, counts - newest), counts)
        return self.read_column(rows, EVENT_TS, np.dtype(np.int64)).values

    def scan(self, traits: Sequence[Trait], *, at_once: int = 1 << 20) -> Iterator[Events]:
        """All events, user by user in key order, about `at_once` at a time, fewer with lists; a user is never split."""
        if any(trait.is_list for trait in traits):
            at_once = max(at_once >> _LISTS_SHIFT, 1)
        for number in range(len(self.generation.shards)):
            shard = self.shard(number)
            if shard is None:
                continue
            bounds, first = shard.first_event, 0
            while first < shard.user_count:
                last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + at_once, side="right")) - 1)
                users = np.arange(first, last)
                zeros = np.zeros(len(users), np.int64)
                yield self.read(Rows(zeros + number, users, zeros, np.diff(bounds[first : last + 1])), traits)
                first = last

    def _superseded_at(self, rows: Rows) -> NDArray[np.int64] | None:
        """When rows were superseded; None where none of them was."""
        column = superseded_index(self.tables.columns)
        if column is None:
            return None
        return superseded_times(self.read_column(rows, column, np.dtype(np.int64), nullable=True))

    def _open(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if self._unopened[number]:
                with self._lock:
                    if self._unopened[number]:
                        self._open_one(number)

    def _open_one(self, number: int) -> None:
        file, generation = self.generation.shards[number], self.generation
        shard = Shard.open(
            self.storage,
            file.key,
            columns=self._columns,
            epoch=generation.epoch,
            number=number,
            footer_xxh3=file.footer_xxh3,
        )
        self.tables.put(number, shard)
        self._unopened[number] = False  # last: other threads look at it without the lock
        self._closed_shards -= 1

    def _user_ids(self, rows: Rows, counts: NDArray[np.int64]) -> pa.Array:
        parts, place = self._per_shard(rows)
        ids = [shard.user_ids.take(pa.array(rows.user[of_shard])) for shard, of_shard in parts]
        users = pa.concat_arrays(ids) if ids else pa.array([], self.generation.schema.user_id)
        return users.take(pa.array(np.repeat(place, counts)))

    def _keys(self, rows: Rows, counts: NDArray[np.int64]) -> UserKeys:
        parts, place = self._per_shard(rows)
        found = [shard.keys.take(rows.user[of_shard]) for shard, of_shard in parts]
        halves = (np.concatenate([part[half] for part in found] or [np.zeros(0, np.uint64)]) for half in (0, 1))
        return UserKeys(*halves).take(np.repeat(place, counts))

    def _per_shard(self, rows: Rows) -> tuple[list[tuple[Shard, NDArray[np.int64]]], NDArray[np.int64]]:
        """The runs of each shard, and each run's place in these lists set end to end."""
        numbers = np.unique(rows.shard).tolist()
        parts = [(self.shard(number), np.flatnonzero(rows.shard == number)) for number in numbers]
        order = np.concatenate([of_shard for _, of_shard in parts] or [np.zeros(0, np.int64)])
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        return [(shard, of_shard) for shard, of_shard in parts if shard is not None], place


def _back_to_back(rows: Rows) -> tuple[Ranges, int]:
    """Runs of rows as ranges that fill an output, and its size."""
    offsets = offsets_of(rows.stop - rows.start)
    return Ranges(*rows, offsets[:-1]), int(offsets[-1])
