"""Spill: events of any number, held in bounded memory, and given back by ranges of the user hash.

A sorting office: events are dropped into buckets, which are fine ranges of the hash, finer than shards. As long as they
fit into memory they stay there. When they do not, what is held is written to one temporary file, bucket by bucket, and
the office starts anew; reading a range of buckets collects its pieces from the file and from memory, oldest first, so
that within a bucket events keep the order in which they arrived. The file has no name: a crash leaves nothing behind.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.errors import SchemaError
from latewood.events import NEVER, Events, concat_events
from latewood.schema import Schema
from latewood.users import UserKeys, shard_of

BUCKETS_MIN = 2048  # so that one bucket of a thousand million events still fits into modest memory
_FLUSH_BYTES_MAX = 1 << 30  # one read takes less than 2 GiB, and so do the offsets of an Arrow string array


@dataclass(frozen=True, slots=True)
class _Flush:
    """Where the buckets of one flush lie in the file. Shapes: all (buckets + 1,)."""

    rows: NDArray[np.int64]  # rows before each bucket
    offsets: NDArray[np.int64]  # bytes before each bucket
    superseded: bool  # whether its rows say when they were superseded


class Spill:
    """Collects events, then gives them back by ranges of buckets.

    Args:
        schema: of the events: the columns that every bucket has. Traits that it does not have are left out.
        shards: numbers of shards; a bucket never crosses a border between shards of any of them.
        memory_bytes: how much may be held before it is written out.
        directory: where the temporary file goes; None is the system's place for such.
    """

    def __init__(self, schema: Schema, shards: Sequence[int], memory_bytes: int, directory: str | None = None) -> None:
        self._schema, self._shards = schema, tuple(shards)
        self._memory_bytes = min(memory_bytes, _FLUSH_BYTES_MAX)
        self._directory = directory
        fine = shards[0] * -(-BUCKETS_MIN // shards[0])
        # of every bucket, and past the last one: the first upper half of a hash, of 32 bits, that falls into it
        self._borders = np.unique(np.concatenate([_borders(count) for count in (fine, *shards)]))
        self._buckets = len(self._borders) - 1
        self._even = self._buckets == fine
        self._held: list[Events] = []
        self._held_bytes = 0
        self._file: IO[bytes] | None = None
        self._flushes: list[_Flush] = []
        self._sorted: Events | None = None  # what stays in memory, by bucket, once all is added
        self._sorted_rows = np.zeros(self._buckets + 1, np.int64)  # its rows before each bucket
        self.event_count = 0
        self.min_ingest: int | None = None
        self.max_ingest: int | None = None  # or when an event was superseded

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held, self._sorted = [], None
        if self._file is not None:
            self._file.close()

    @property
    def spilled_bytes(self) -> int:
        """How much was written to the temporary file."""
        return int(self._flushes[-1].offsets[-1]) if self._flushes else 0

    def add(self, events: Events) -> None:
        """Take events, in order of arrival."""
        if not len(events):
            return
        self._sorted, self._sorted_rows = None, np.zeros(self._buckets + 1, np.int64)
        self.event_count += len(events)
        low, high = int(events.ingest_ts.min()), int(events.ingest_ts.max())
        if events.superseded_at is not None:
            high = max(high, int(events.superseded_at.max(where=events.superseded_at < NEVER, initial=high)))
        self.min_ingest = low if self.min_ingest is None else min(low, self.min_ingest)
        self.max_ingest = high if self.max_ingest is None else max(high, self.max_ingest)
        self._held.append(events)
        self._held_bytes += _size_bytes(events)
        if self._held_bytes > self._memory_bytes:
            self._flush()

    def finish(self) -> None:
        """Make what was added readable. Adding more and finishing again is allowed."""
        if not self._held:
            return
        self._sorted, self._sorted_rows = self._by_bucket()
        self._held = [self._sorted]

    def counts(self) -> NDArray[np.int64]:
        """Events per bucket. Shapes: (buckets,)."""
        return np.sum([np.diff(rows) for rows in [self._sorted_rows, *(flush.rows for flush in self._flushes)]], axis=0)

    def read(self, start: int, stop: int) -> Events | None:
        """The events of the buckets from `start` to `stop`, each bucket's in order of arrival; None if there are none.

        Safe to call from several threads.
        """
        pieces = [piece for flush in self._flushes for piece in self._read(flush, start, stop)]
        if self._sorted is not None:
            first, last = int(self._sorted_rows[start]), int(self._sorted_rows[stop])
            if first < last:
                pieces.append(self._sorted.slice(first, last))
        return concat_events(pieces) if pieces else None

    def buckets(self, shard: int, shards: int) -> range:
        """The buckets of one shard of `shards`. Raises: ValueError: the spill was not made for that many."""
        if shards not in self._shards:
            raise ValueError(f"buckets for {self._shards} shards, not for {shards}")
        start, stop = np.searchsorted(self._borders, _borders(shards)[shard : shard + 2])
        return range(int(start), int(stop))

    def bucket_of(self, user_hash: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The bucket of each user."""
        if self._even:  # a multiplication where a search would do, too: a bulk load asks this of every event
            return shard_of(user_hash, self._buckets)
        return np.searchsorted(self._borders, (user_hash >> np.uint64(32)).astype(np.int64), side="right") - 1

    def first_user(self, user_hash: NDArray[np.uint64], bucket: int) -> int:
        """The first of users sorted by hash that is in this bucket or past it."""
        bound = int(self._borders[bucket]) << 32
        return int(np.searchsorted(user_hash, np.uint64(bound))) if bound < 1 << 64 else len(user_hash)

    def _by_bucket(self) -> tuple[Events, NDArray[np.int64]]:
        """What is held, stably sorted by bucket, and the rows before each bucket."""
        events, self._held = concat_events([_complete(part, self._schema) for part in self._held]), []
        buckets = self.bucket_of(events.keys.hash).astype(np.uint16 if self._buckets < 1 << 16 else np.int64)
        order = np.argsort(buckets, kind="stable").astype(np.int64, copy=False)
        counts = np.bincount(buckets, minlength=self._buckets)
        return events.take(order), np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])

    def _flush(self) -> None:
        events, rows = self._by_bucket()
        self._held_bytes = 0
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, prefix="latewood-spill-")  # noqa: SIM115
        offsets = np.empty(self._buckets + 1, np.int64)
        offsets[0] = self.spilled_bytes
        for bucket in range(self._buckets):
            size = 0
            if rows[bucket] < rows[bucket + 1]:
                piece = events.slice(int(rows[bucket]), int(rows[bucket + 1]))
                size = self._file.write(_to_batch(piece).serialize())
            offsets[bucket + 1] = offsets[bucket] + size
        self._file.flush()
        self._flushes.append(_Flush(rows, offsets, events.superseded_at is not None))

    def _read(self, flush: _Flush, start: int, stop: int) -> Iterator[Events]:
        assert self._file is not None
        first, last = int(flush.offsets[start]), int(flush.offsets[stop])
        if first == last:
            return
        data = pa.py_buffer(os.pread(self._file.fileno(), last - first, first))
        schema = _batch_schema(self._schema, flush.superseded)
        for bucket in range(start, stop):
            offset, size = int(flush.offsets[bucket]), int(flush.offsets[bucket + 1] - flush.offsets[bucket])
            if size:
                yield _from_batch(pa.ipc.read_record_batch(data.slice(offset - first, size), schema), self._schema)


def _complete(events: Events, schema: Schema) -> Events:
    """Events with every trait of the schema and no other: concatenating and slicing need no special case then.

    Raises: SchemaError: a trait that no schema of this store had when it was read, or of another dtype.
    """
    traits: dict[int, Column] = {}
    for trait in schema:
        column = events.traits.get(trait.id)
        if column is None:
            column = Column(np.zeros(len(events), trait.dtype), np.ones(len(events), np.bool_))
        if column.values.dtype != trait.dtype:
            raise SchemaError(f"trait {trait.name!r} holds {trait.dtype}, not {column.values.dtype}")
        traits[trait.id] = column
    if unknown := [trait_id for trait_id in events.traits if trait_id >= schema.next_id]:
        raise SchemaError(f"the events have a trait of id {min(unknown)}, which is not known yet")
    return replace(events, traits=traits)


def _size_bytes(events: Events) -> int:
    traits = sum(c.values.nbytes + (0 if c.mask is None else c.mask.nbytes) for c in events.traits.values())
    places = (36 if events.superseded_at is None else 44) * len(events)
    return int(events.user_ids.nbytes) + places + traits


def _borders(shards: int) -> NDArray[np.int64]:
    """The first upper half of a hash of each shard, and 2**32: the inverse of `shard_of`."""
    return -((-np.arange(shards + 1) << 32) // shards)


# In the file a bucket is an Arrow record batch whose columns are the numpy columns as they are (flags as bytes), so
# that reading copies nothing. A trait's mask is a column of its own; no mask is a mask without a row set. When events were
# superseded is a column only where any was.


def _batch_schema(schema: Schema, superseded: bool) -> pa.Schema:
    fields: list[Any] = [("user_id", schema.user_id), ("hash", pa.uint64()), ("check", pa.uint64())]
    fields += [("event_ts", pa.int64()), ("ingest_ts", pa.int64()), ("ordinal", pa.int32())]
    for trait in schema:
        fields += [(f"values {trait.id}", pa.from_numpy_dtype(_plain(trait.dtype))), (f"mask {trait.id}", pa.uint8())]
    return pa.schema([*fields, ("superseded_at", pa.int64())] if superseded else fields)


def _to_batch(events: Events) -> pa.RecordBatch:
    columns = [events.user_ids, *events.keys, events.event_ts, events.ingest_ts, events.ordinal]
    fields = ["user_id", "hash", "check", "event_ts", "ingest_ts", "ordinal"]
    for trait, (values, mask) in events.traits.items():
        columns += [values.view(_plain(values.dtype))]
        columns += [np.zeros(len(events), np.uint8) if mask is None else mask.view(np.uint8)]
        fields += [f"values {trait}", f"mask {trait}"]
    if events.superseded_at is not None:
        columns, fields = [*columns, events.superseded_at], [*fields, "superseded_at"]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], fields)


def _from_batch(batch: pa.RecordBatch, schema: Schema) -> Events:
    user_ids, *columns = batch.columns
    hash_, check, event_ts, ingest_ts, ordinal, *rest = (column.to_numpy() for column in columns)
    traits, superseded_at = {}, rest.pop() if len(rest) % 2 else None
    for trait, values, mask in zip(schema, rest[::2], rest[1::2], strict=True):
        traits[trait.id] = Column(values.view(trait.dtype), mask.view(np.bool_) if mask.any() else None)
    return Events(user_ids, UserKeys(hash_, check), event_ts, ingest_ts, ordinal, traits, superseded_at)


def _plain(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as Arrow and numpy share it without a conversion: Arrow packs flags into bits."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype
