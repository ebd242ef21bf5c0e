"""A batch: the histories of n examples as jagged columns, one flat array per trait and one array of offsets for all.

Example i owns the events `offsets[i]` to `offsets[i + 1]` of every column, oldest first. Columns hold numbers only:
times are int64 µs, strings and dictionary values are codes. A code means `dictionaries[name][code]`, for as long as
the store lives, so an embedding table can be indexed by it.

Of a list trait the values are the items. Lists of one size are rows, one for each event, of zeros where null. Lists of any
length have their items back to back, those of event j from `lists[name][j]` to `lists[name][j + 1]`.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, column_to_arrow, compact_lists, lists_to_arrow, portions
from latewood.errors import CorruptionError, SchemaError
from latewood.lists import offsets_of, positions
from latewood.projection import STREAM
from latewood.schema import EVENT_TS, TIME_TYPE, Schema

HISTORY = "history"
_CHUNK_EVENTS = 2**24  # Arrow's offsets, of lists and of the strings in them, are int32: larger batches become chunks


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Batch:
    """The histories of n examples, one row each, in the order the examples came in.

    The arrays belong to whoever holds the batch: they are not written to again while anything refers to them.

    Shapes: offsets (n + 1,) int64; every column (offsets[-1],), of lists of one size (offsets[-1], size), of lists of any
    length (items,) beside lists (offsets[-1] + 1,) int64; masks (offsets[-1],); weights (n,) float32; features n rows.
    """

    offsets: NDArray[np.int64]
    values: dict[str, NDArray[Any]]
    masks: dict[str, NDArray[np.bool_]]  # True where null (the value there is 0); absent where the batch has no null
    dictionaries: dict[str, pa.Array]  # code → value, of the coded traits
    weights: NDArray[np.float32]  # 0 for an example that `on_missing="mask"` emptied, else 1
    features: pa.Table  # the examples' own columns, without uih, recent and cutoff
    types: Mapping[str, pa.DataType]  # the Arrow type of each column's values
    lists: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # where each event's items begin
    streams: tuple[str, ...] = ()  # of a projection with streams: the i-th is bit i of the column "stream"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        features = count_of(self.features.num_columns, "feature")
        return f"<Batch of {describe_columns(len(self), int(self.offsets[-1]), self.values)}; {features}>"

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Events per example. Shapes: (n,)."""
        return np.diff(self.offsets)

    def slice(self, start: int, stop: int) -> "Batch":
        """The examples [start, stop) as a batch that shares this one's memory."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        masks = {name: mask[first:last] for name, mask in self.masks.items()}
        lists = {name: ends[first : last + 1] for name, ends in self.lists.items()}
        parts = {name: (int(ends[0]), int(ends[-1])) for name, ends in lists.items()}  # in items
        return replace(
            self,
            offsets=self.offsets[start : stop + 1] - first,
            values={name: values[slice(*parts.get(name, (first, last)))] for name, values in self.values.items()},
            masks={name: mask for name, mask in masks.items() if mask.any()},
            lists={name: ends - ends[0] for name, ends in lists.items()},
            weights=self.weights[start:stop],
            features=self.features.slice(start, stop - start),
        )

    def stream(self, name: str) -> "Batch":
        """The events of one stream alone, without the column "stream". Raises: SchemaError: there is no such stream."""
        if name not in self.streams:
            raise SchemaError(f"the batch has no stream {name!r}; it has: {', '.join(self.streams) or 'none'}")
        alone = self.take(np.flatnonzero(self.values[STREAM] >> self.streams.index(name) & 1))
        columns, types = dict(alone.values), dict(alone.types)
        del columns[STREAM], types[STREAM]
        return replace(alone, values=columns, types=types, streams=())

    def take(self, events: NDArray[np.int64]) -> "Batch":
        """Some of the events, by their places in the columns, which rise; every example keeps its own."""
        lists = {
            name: column.take(events).compact() for name in self.lists if isinstance(column := self.column(name), Lists)
        }
        masks = {name: mask[events] for name, mask in self.masks.items()}
        return replace(
            self,
            offsets=np.searchsorted(events, self.offsets),
            values={name: lists[name].items if name in lists else of[events] for name, of in self.values.items()},
            masks={name: mask for name, mask in masks.items() if mask.any()},
            lists={name: of.offsets for name, of in lists.items()},
        )

    def column(self, name: str, first: int = 0, last: int | None = None) -> TraitColumn:
        """A column of the events from `first` to `last`, as views; of a list trait as `Lists`."""
        last = int(self.offsets[-1]) if last is None else last
        values, mask = self.values[name], self.masks.get(name)
        mask = None if mask is None else mask[first:last]
        if name in self.lists:
            ends = self.lists[name][first : last + 1]
            return Lists(values, ends[:-1], np.diff(ends).astype(np.int32), mask)
        if values.ndim == 1:
            return Column(values[first:last], mask)
        size = values.shape[1]
        lengths = np.full(last - first, size, np.int32)
        lists = compact_lists(values[first:last].reshape(-1), lengths, mask)
        return lists if mask is None else lists._replace(lengths=np.where(mask, np.int32(0), lengths))

    def column_to_arrow(self, name: str) -> pa.Array:
        """A column's values, one of each event, not codes. Raises: CorruptionError: a code without a value."""
        return self._column(name, 0, int(self.offsets[-1]))

    def to_arrow(self) -> pa.Table:
        """The features and a column `history`: struct<trait: list<value>>, with values instead of codes.

        Raises: CorruptionError: a code without a value.
        """
        chunks = [self._history(start, stop) for start, stop in portions(self._cost(), _CHUNK_EVENTS)]
        type_ = pa.struct([(name, pa.list_(self.types[name])) for name in self.values])
        return self.features.append_column(HISTORY, pa.chunked_array(chunks, type_))

    def to_torch(self, layout: str = "jagged", **options: Any) -> Any:
        """The columns as tensors: "jagged" or "nested", which share this batch's memory, or "padded" or "kjt", a copy.

        Args: options: of "padded": `side="right"`, where the padding is, `value=0`, what it is, and `max_len=None`, how
            wide the tensors are (the newest events are kept), if not as wide as the longest history.
        Returns: a `TorchBatch`, `NestedBatch`, `PaddedBatch` or `KeyedBatch` of `latewood.loading.torch`.
        Raises: SchemaError: a layout or side that does not exist, the message lists those that do; or lists of any length
            in a layout that has no place for them. ImportError: torch is not installed, or for "kjt" torchrec.
        """
        return _adapter("torch").to_torch(self, layout, **options)

    def to_jax(self, **options: Any) -> Any:
        """The columns as padded JAX arrays of few different widths, so that little is compiled anew.

        Args: options: `buckets`, the widths to choose from (the next power of two unless given), `rows`, how many examples
            to fill a short batch up to, with weight 0; `side="right"` and `value=0` of the padding.
        Returns: a `JaxBatch` of `latewood.loading.jax`, a pytree.
        Raises: SchemaError: a history longer than the widest bucket, more examples than rows, lists of any length, or
            integers past 32 bits while JAX has no others, but of features, which are left out. ImportError: no jax.
        """
        return _adapter("jax").to_jax(self, **options)

    def _cost(self) -> NDArray[np.int64]:
        """Of each example, its events and all their items."""
        return self.lengths + sum(np.diff(ends[self.offsets]) for ends in self.lists.values())

    def _history(self, start: int, stop: int) -> pa.StructArray:
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        offsets = pa.array((self.offsets[start : stop + 1] - first).astype(np.int32))
        fields, lists = [], []
        for name in self.values:
            type_ = pa.list_(self.types[name])
            lists.append(pa.ListArray.from_arrays(offsets, self._column(name, first, last), type=type_))
            fields.append(pa.field(name, type_))
        if not fields:
            return pa.array([{}] * (stop - start), pa.struct([]))
        return pa.StructArray.from_arrays(lists, fields=fields)

    def _column(self, name: str, first: int, last: int) -> pa.Array:
        column, type_ = self.column(name, first, last), self.types[name]
        if not isinstance(column, Lists):
            return self._plain(name, column, type_)
        return lists_to_arrow(column, type_, lambda items: self._plain(name, items, type_.value_type))

    def _plain(self, name: str, column: Column, type_: pa.DataType) -> pa.Array:
        if name not in self.dictionaries:
            return column_to_arrow(column, type_)
        words = self.dictionaries[name]
        try:
            return words.take(pa.array(column.values, mask=column.mask))
        except pa.ArrowIndexError as error:
            raise CorruptionError(f"trait {name!r} has a code beyond its {len(words)} values: {error}") from None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SharedBatch:
    """The histories of n examples in shared memory: what several of them see is there once.

    Example i's events are the `lengths[i]` elements from `starts[i]` on of every column, oldest first. Those of examples
    of one user overlap; the rest of a column means nothing. `expand` copies every example to a place of its own.

    Of a trait of lists of any length, the column is the items, in any order, and `lists` says where those of an element
    are: the `lists[name].lengths[j]` ones from `lists[name].starts[j]` on.

    Shapes: starts, lengths (n,) int64; every column (size,), of lists of one size (size, list size); weights (n,) float32;
    features n rows. The other fields are as in a `Batch`.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    values: dict[str, NDArray[Any]]
    masks: dict[str, NDArray[np.bool_]]
    dictionaries: dict[str, pa.Array]
    weights: NDArray[np.float32]
    features: pa.Table
    types: Mapping[str, pa.DataType]
    lists: dict[str, Lists] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        features = count_of(self.features.num_columns, "feature")
        return f"<SharedBatch of {describe_columns(len(self), int(self.lengths.sum()), self.values)}; {features}>"

    def slice(self, start: int, stop: int) -> "SharedBatch":
        """The examples [start, stop), in the same columns."""
        return replace(
            self,
            starts=self.starts[start:stop],
            lengths=self.lengths[start:stop],
            weights=self.weights[start:stop],
            features=self.features.slice(start, stop - start),
        )

    def history(self, i: int) -> dict[str, NDArray[Any]]:
        """One example's columns, as views. Shapes: (lengths[i],), of lists of one size (lengths[i], size).

        Of lists of any length they are the items, back to back, as a copy if they do not lie so; `list_offsets` tells
        whose they are.
        """
        start, stop = self._of(i)
        return {
            name: self._lists(name, start, stop).items if name in self.lists else values[start:stop]
            for name, values in self.values.items()
        }

    def list_offsets(self, i: int) -> dict[str, NDArray[np.int64]]:
        """Where the items of one example's events begin and end, of lists of any length. Shapes: (lengths[i] + 1,)."""
        return {name: self._lists(name, *self._of(i)).offsets for name in self.lists}

    def mask(self, i: int) -> dict[str, NDArray[np.bool_]]:
        """Where one example's columns are null, as views; a column without nulls in the batch is left out."""
        start, stop = self._of(i)
        return {name: mask[start:stop] for name, mask in self.masks.items()}

    def distinct(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The histories that differ, each once: their starts, their lengths, and which of them every example has.

        What RecD calls an inverse: a model computes on each history once and takes its outputs by the third array.
        Histories are told apart by where they lie, so equal ones of several users are several. Shapes: (m,), (m,), (n,).
        """
        pairs, inverse = np.unique(np.stack([self.starts, self.lengths]), axis=1, return_inverse=True)
        return pairs[0], pairs[1], inverse.reshape(-1)

    def to_torch(self) -> Any:
        """As tensors in the same memory, a `SharedTorchBatch` of `latewood.loading.torch`.

        Raises: ImportError: torch is not installed.
        """
        return _adapter("torch").shared_to_torch(self)

    def expand(self) -> Batch:
        """The same examples back to back, each with a copy of its own."""
        at = positions(self.starts, self.lengths)
        lists = {name: of.take(at).compact() for name, of in self.lists.items()}
        masks = {name: mask[at] for name, mask in self.masks.items()}
        return Batch(
            offsets_of(self.lengths),
            {name: lists[name].items if name in lists else values[at] for name, values in self.values.items()},
            {name: mask for name, mask in masks.items() if mask.any()},
            self.dictionaries,
            self.weights,
            self.features,
            self.types,
            {name: of.offsets for name, of in lists.items()},
        )

    def _lists(self, name: str, start: int, stop: int) -> Lists:
        return self.lists[name].slice(start, stop).compact()

    def _of(self, i: int) -> tuple[int, int]:
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no example {i}: the batch has {len(self)}")
        start = int(self.starts[i])
        return start, start + int(self.lengths[i])


def _adapter(framework: str) -> Any:
    """Its module in `latewood.loading`, by name and only when called: it is an extra, and its adapter above the nouns."""
    try:
        return importlib.import_module(f"latewood.loading.{framework}")
    except ModuleNotFoundError as error:
        if error.name != framework:
            raise
        raise ImportError(
            f"to_{framework} needs {framework}: pip install 'latewood[{framework}]'", name=framework
        ) from None


def describe_columns(examples: int, events: int, names: Iterable[str]) -> str:
    """What a batch holds, for people."""
    columns = "".join(f", {name}" for name in names)
    return f"{count_of(examples, 'example')}: {count_of(events, 'event')}{columns}"


def count_of(count: int, what: str) -> str:
    """So many of something, for people."""
    plural = "es" if what.endswith("ch") else "s"
    return f"{count:,} {what}{'' if count == 1 else plural}"


def value_types(schema: Schema, names: tuple[str, ...]) -> dict[str, pa.DataType]:
    """The Arrow type of the values of the named columns; "event_ts" is the events' own time."""
    return {name: TIME_TYPE if name == EVENT_TS else schema[name].value_type for name in names}
