"""Materializer: examples + projection → batch, by the stages of this folder in their order."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch, value_types
from latewood.columns import Column
from latewood.errors import CorruptionError, SchemaError
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Status
from latewood.materialize.assemble import assemble
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import choose
from latewood.materialize.decode import Wanted, decode
from latewood.materialize.fetch import fetch
from latewood.materialize.logged import Logged, read_logged
from latewood.materialize.merge import merge_places
from latewood.materialize.plan import plan
from latewood.materialize.statistics import Statistics
from latewood.projection import Projection
from latewood.schema import EVENT_TS, Schema
from latewood.stripes.layout import EVENT_TS as EVENT_TS_COLUMN
from latewood.vocabulary import Vocabulary

_FORGIVABLE = (Status.UNKNOWN_USER, Status.SHORT)  # events are gone; the others say that something is wrong
_POOL = BufferPool()


class MaterializeStore(Protocol):
    """What a materializer needs of a store."""

    epoch: bytes
    vocabulary: Vocabulary

    @property
    def schema(self) -> Schema:
        """Of the generation that reads are answered from."""

    def reader(self) -> GenerationReader:
        """The newest generation known, opened."""

    def refresh(self) -> GenerationReader:
        """Look for a newer one."""


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """Examples whose pointers were looked up: as many as one likes at once, to be materialized in parts."""

    logged: Logged
    resolution: Resolution
    reader: GenerationReader  # of the generation that the resolution is of

    def __len__(self) -> int:
        return len(self.logged)

    def lengths(self, max_len: int | None) -> NDArray[np.int64]:
        """Events that each example will have. Shapes: (n,)."""
        lengths = self.resolution.count + np.diff(self.logged.recents.offsets)
        return lengths if max_len is None else np.minimum(lengths, max_len)

    def take(self, rows: NDArray[np.int64]) -> "Resolved":
        """The examples at these rows, in this order."""
        return Resolved(self.logged.take(rows), self.resolution.take(rows), self.reader)

    def slice(self, start: int, stop: int) -> "Resolved":
        """The examples from `start` to `stop`."""
        return Resolved(self.logged.slice(start, stop), self.resolution.take(slice(start, stop)), self.reader)


class Materializer:
    """Rebuilds the history that each example's request saw, as one model wants it. Thread-safe.

    Args:
        store: where the histories are; opened `read_only` will do.
        projection: how many events, and which traits.
        on_missing: what to do with an example whose events are gone: "raise", or "mask": it keeps its place, empty,
            with weight 0. Damage, leaks and pointers from elsewhere are errors either way.
        verify: check the checksum of every block that is decoded, once.
    """

    def __init__(
        self,
        store: MaterializeStore,
        projection: Projection,
        on_missing: Literal["raise", "mask"] = "raise",
        verify: bool = True,
    ) -> None:
        if on_missing not in ("raise", "mask"):
            raise SchemaError(f'on_missing is "raise" or "mask", not {on_missing!r}')
        self.projection = projection
        self._store, self._mask_missing, self._verify = store, on_missing == "mask", verify
        self._names = projection.names(store.schema)
        self._traits = [store.schema[name] for name in self._names if name != EVENT_TS]
        self._types = value_types(store.schema, self._names)
        self._vocabulary_as_of = -1  # a generation, as is the next
        self._wanted_of: tuple[int, list[Wanted]] = (-1, [])
        self._lock = threading.Lock()
        self.stats = Statistics()  # of all batches so far
        self.last_stats = Statistics()  # of the latest batch

    def __call__(self, examples: Any) -> Batch:
        """Materialize examples, one row each, in order.

        Args: examples: a table with user_id, uih, recent and cutoff, as capture and backfill make them; other columns
            pass through as features.
        Raises: SchemaError: not such a table. PointerError: a pointer of another store, newer than what can be read, or
            (unless masked) whose events are not there. LeakageError: an example holds what its request could not have
            seen. CorruptionError: damaged bytes.
        """
        return self.batch(self.resolve(examples))

    def resolve(self, examples: Any) -> Resolved:
        """The first half: read the examples and look up their pointers. A loader does it for many batches at once.

        Raises: as calling it, but that what cannot be resolved is not an error before its batch is made.
        """
        store = self._store
        logged = read_logged(examples, store.schema, store.epoch, self._traits, store.vocabulary)
        reader = self._reader_for(logged)
        while True:
            try:
                return Resolved(logged, reader.resolve(logged.keys, logged.pointers), reader)
            except FileNotFoundError as error:  # collected, then: a newer generation has all that this one held
                newest = store.refresh()
                if newest.generation.id == reader.generation.id:
                    raise CorruptionError(f"generation {newest.generation.id} lacks a file: {error}") from error
                reader = newest

    def _reader_for(self, logged: Logged) -> GenerationReader:
        reader = self._store.reader()
        if len(logged) and int(logged.pointers.watermark.max()) > reader.generation.watermark:
            reader = self._store.refresh()
        return reader

    def batch(self, resolved: Resolved) -> Batch:
        """The second half: decode and assemble. Raises: PointerError, CorruptionError: as calling it."""
        logged, resolution, reader = resolved.logged, resolved.resolution, resolved.reader
        self._require(logged, resolution, reader)
        candidates = choose(
            reader, resolution, logged.pointers.watermark, logged.recents, self.projection.max_len, self._verify
        )
        planned = plan(candidates.rows, candidates.direct, candidates.offsets)
        segments = assemble(candidates, planned.base, *merge_places(reader, candidates, logged.recents, self._verify))
        wanted, events = self._wanted(reader), int(candidates.offsets[-1])
        recents = [_recents_of(logged, want) for want in wanted]
        columns, *touched = decode(fetch(reader), planned, segments, wanted, recents, events, _POOL, self._verify)
        self._count(len(logged), events, planned.ranges, touched)
        return self._make(logged, candidates.offsets, columns, resolution.status, reader.generation.id)

    def _require(self, logged: Logged, resolution: Resolution, reader: GenerationReader) -> None:
        if not resolution.status.any():
            return
        if self._mask_missing:
            forgiven = np.isin(resolution.status, _FORGIVABLE)
            resolution = replace(resolution, status=np.where(forgiven, np.uint8(Status.OK), resolution.status))
        reader.require(resolution, logged.pointers, logged.user_ids)

    def _wanted(self, reader: GenerationReader) -> list[Wanted]:
        """The projection's columns, as this generation stores them."""
        generation, wanted = self._wanted_of
        if generation != reader.generation.id:
            wanted = [Wanted(name, *self._stored(reader, name)) for name in self._names]
            self._wanted_of = (reader.generation.id, wanted)
        return wanted

    def _stored(self, reader: GenerationReader, name: str) -> tuple[int | None, int | None, np.dtype[Any], bool]:
        if name == EVENT_TS:
            return None, EVENT_TS_COLUMN, np.dtype(np.int64), False
        trait = self._store.schema[name]
        return trait.id, reader.column(trait), trait.dtype, trait.nullable

    def _make(
        self,
        logged: Logged,
        offsets: NDArray[np.int64],
        columns: dict[str, Column],
        status: NDArray[np.uint8],
        generation: int,
    ) -> Batch:
        return Batch(
            offsets=offsets,
            values={name: column.values for name, column in columns.items()},
            masks={name: column.mask for name, column in columns.items() if column.mask is not None},
            dictionaries=self._dictionaries(generation),
            weights=(status == Status.OK).astype(np.float32),
            features=logged.features,
            types=self._types,
        )

    def _dictionaries(self, generation: int) -> dict[str, pa.Array]:
        """Code → value of the coded traits."""
        vocabulary, coded = self._store.vocabulary, [trait for trait in self._traits if trait.coded]
        if generation != self._vocabulary_as_of:
            # Values are durable before the events that use them: read now, they cover all that the generation has.
            for trait in coded:
                vocabulary.refresh(trait.id)
            self._vocabulary_as_of = generation
        return {trait.name: vocabulary.values(trait.id) for trait in coded}

    def _count(self, examples: int, events: int, ranges: Any, touched: Sequence[int]) -> None:
        decoded = int((ranges.stop - ranges.start).sum())
        stats = Statistics(1, examples, events, decoded, *touched)
        with self._lock:
            self.last_stats = stats
            self.stats = self.stats + stats


def _recents_of(logged: Logged, want: Wanted) -> Column:
    if want.trait is None:
        return Column(logged.recents.order[0])
    return logged.recents.columns[want.trait]
