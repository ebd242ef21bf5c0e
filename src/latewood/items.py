"""What a model knows of items: their dense ids, and their own traits.

A `Vocab` gives every value of a trait that was seen often enough a row of an embedding table. `Items` holds what belongs to
an item rather than to an event, such as its category, once per item instead of once per event.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latewood.batch import Batch
from latewood.clock import to_us
from latewood.columns import (
    Column,
    column_to_arrow,
    lists_from_arrow,
    one_array,
    plain_array,
    plain_from_arrow,
    read_table,
    table_without_views,
    timestamps_to_us,
    with_nulls,
)
from latewood.errors import CorruptionError, SchemaError
from latewood.events import NEVER, Events
from latewood.histories import HistoryStore, Scan, scan_histories, superseded
from latewood.lists import is_list
from latewood.schema import Schema, Trait, is_text

PADDING, UNKNOWN = 0, 1
_FIRST = 2  # the id of the most frequent value
_RUNS_AT_ONCE = 64


class Vocab:
    """The values of a trait as dense ids: 0 is padding, 1 what is unknown or null, and from 2 on by falling count.

    Frozen: an id means the same for ever, so it is kept beside the model that was trained with it.

    Args: values: distinct, without nulls, in the order of their ids; counts: how often each was seen.
    """

    def __init__(self, name: str, values: pa.Array, counts: NDArray[np.int64]) -> None:
        self.name, self.values, self.counts = name, values, counts
        self._index = _Index(name, values)

    def __len__(self) -> int:
        """Rows of an embedding table: the values and both special ids."""
        return len(self.values) + _FIRST

    def __repr__(self) -> str:
        return f"<Vocab of {self.name!r}: {len(self.values):,} values, {len(self):,} ids>"

    def encode(self, values: Any) -> NDArray[np.int64]:
        """The ids of some values, such as candidates: an Arrow column, or what Arrow makes one of. Shapes: (n,) → (n,).

        Raises: SchemaError: values of another type.
        """
        return _ids(self._index.of(values))

    def encode_history(self, batch: Batch) -> NDArray[np.int64]:
        """The ids of the trait in a batch, as flat as its column; of a list trait those of all items.

        Raises: SchemaError: the batch lacks the trait, or has it with another type.
        """
        return _ids(self._index.of_batch(batch, self.name))

    def to_arrow(self) -> pa.Table:
        """Columns `id`, `value` and `count`, which can be written to any file; `from_arrow` reads them."""
        ids = pa.array(np.arange(_FIRST, len(self)))
        table = pa.table({"id": ids, "value": self.values, "count": pa.array(self.counts)})
        return table.replace_schema_metadata({"trait": self.name})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> "Vocab":
        """Raises: SchemaError: not what `to_arrow` gives."""
        name = (table.schema.metadata or {}).get(b"trait")
        if name is None or table.column_names != ["id", "value", "count"]:
            raise SchemaError(f"not a vocab's table, which says its trait; columns: {', '.join(table.column_names)}")
        ids, values, counts = (plain_array(column) for column in table_without_views(table).columns)
        if ids.to_pylist() != list(range(_FIRST, len(table) + _FIRST)):
            raise SchemaError(f"the ids of a vocab's table count from {_FIRST}, in order")
        return cls(name.decode(), values, counts.to_numpy())


class Items:
    """What belongs to items rather than to events, once per item: looked up for histories and for candidates alike.

    Args:
        source: a Parquet file, or any Arrow table: a row per item.
        key: the column by which items are known; each value once.
    Raises: SchemaError: no such column, or a key that is null or there twice, or of a type that is no key. CorruptionError:
        a file that cannot be read.
    """

    def __init__(self, source: Any, key: str) -> None:
        table = table_without_views(_read(source))
        if repeated := {name for name in table.column_names if table.column_names.count(name) > 1}:
            raise SchemaError(f"items have two columns {min(repeated)!r}")
        if key not in table.column_names:
            raise SchemaError(f"items have no column {key!r}; they have: {', '.join(table.column_names) or 'none'}")
        self.key, self.table = key, table.combine_chunks()
        self._index = _Index(key, plain_array(table[key]))
        self._columns = dict[str, _ItemTrait]()  # made when first asked for

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"<Items: {len(self):,} by {self.key!r}, {', '.join(self.traits) or 'no traits'}>"

    @property
    def traits(self) -> list[str]:
        """All columns but the key."""
        return [name for name in self.table.column_names if name != self.key]

    def look_up(self, values: Any, traits: Sequence[str] | None = None) -> pa.Table:
        """The traits of some items, such as candidates, one row each; null where an item is unknown.

        Args: values: a column of keys. Raises: SchemaError: an unknown trait, or keys of another type.
        """
        rows = self._index.of(values)
        return self.table.select(self._chosen(traits)).take(pa.array(rows, mask=rows < 0))

    def add_to(self, batch: Batch, traits: Sequence[str] | None = None) -> Batch:
        """A batch whose events have their items' traits too. As `Loader(transform=items.add_to)`.

        Raises: SchemaError: the batch lacks the key or has one of the traits already; lists, as key or as trait; a trait
            that no batch can hold as numbers, such as dates.
        """
        chosen = self._chosen(traits)
        if taken := [name for name in chosen if name in batch.values]:
            raise SchemaError(f"the batch has a column {taken[0]!r} already; choose with traits=")
        if self.key in batch.lists or batch.values.get(self.key, batch.offsets).ndim > 1:
            raise SchemaError(f"{self.key!r} is a list trait: its items have no place of their own in a batch")
        rows = self._index.of_batch(batch, self.key)
        columns = {name: self._column(name) for name in chosen}
        masks = {name: column.mask[rows] for name, column in columns.items()}
        words = {name: column.words for name, column in columns.items() if column.words is not None}
        return replace(
            batch,
            values=batch.values | {name: column.values[rows] for name, column in columns.items()},
            masks=batch.masks | {name: mask for name, mask in masks.items() if mask.any()},
            dictionaries=batch.dictionaries | words,
            types=dict(batch.types) | {name: column.type for name, column in columns.items()},
        )

    def _chosen(self, traits: Sequence[str] | None) -> list[str]:
        chosen = self.traits if traits is None else list(traits)
        if unknown := [name for name in chosen if name not in self.traits]:
            raise SchemaError(f"items have no trait {unknown[0]!r}; they have: {', '.join(self.traits) or 'none'}")
        return chosen

    def _column(self, name: str) -> "_ItemTrait":
        if name not in self._columns:
            self._columns[name] = _ItemTrait.of(name, self.table[name])
        return self._columns[name]


class _ItemTrait(NamedTuple):
    """A trait of n items as numbers, and a null for unknown ones at the end. Shapes: values (n + 1, ...); mask (n + 1,)."""

    values: NDArray[Any]
    mask: NDArray[np.bool_]
    words: pa.Array | None  # of which the values are codes
    type: pa.DataType

    @classmethod
    def of(cls, name: str, column: pa.ChunkedArray) -> "_ItemTrait":
        array, words = plain_array(column), None
        if pa.types.is_fixed_size_list(array.type):
            lists = lists_from_arrow(array, lambda items: plain_from_arrow(_without_nulls(name, _numbers(name, items))))
            rows = np.zeros((len(array) + 1, array.type.list_size), lists.items.dtype)
            rows[:-1][lists.lengths > 0] = lists.items.reshape(-1, array.type.list_size)
            type_ = pa.list_(_number_type(name, array.type.value_type), array.type.list_size)
            return cls(rows, _with_unknown(lists.mask, len(array)), None, type_)
        if is_list(array.type):
            raise SchemaError(
                f"{name!r} has lists of any length, which items cannot add to a batch; choose with traits="
            )
        if is_text(array.type) or pa.types.is_dictionary(column.type):
            array = pc.dictionary_encode(array)
            words, array = array.dictionary, array.indices
        array = _numbers(name, array)
        values, mask = plain_from_arrow(array)
        type_ = array.type if words is None else words.type
        return cls(np.append(values, np.zeros(1, values.dtype)), _with_unknown(mask, len(array)), words, type_)


def _numbers(name: str, array: pa.Array) -> pa.Array:
    """As a batch can hold it: numbers and truths, and times in µs. Raises: SchemaError: what is none of these."""
    type_ = _number_type(name, array.type)
    return array if type_ == array.type else timestamps_to_us(array, name).view(type_)


def _without_nulls(name: str, items: pa.Array) -> pa.Array:
    """Raises: SchemaError: there are some, for which a batch has no mask."""
    if items.null_count:
        raise SchemaError(f"{name!r} has lists with null items; a list may be null, its items may not")
    return items


def _number_type(name: str, type_: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_):
        return type_
    raise SchemaError(f"{name!r} is {type_}, which a batch cannot hold as numbers; cast it, or choose with traits=")


def _with_unknown(mask: NDArray[np.bool_] | None, count: int) -> NDArray[np.bool_]:
    return np.append(np.zeros(count, np.bool_) if mask is None else mask, True)


class _Index:
    """Where each of some distinct values stands."""

    def __init__(self, name: str, values: pa.Array) -> None:
        if not _is_key(values.type):
            raise SchemaError(f"{name!r} is {values.type}; items are known by integers, strings or other plain values")
        if values.null_count or len(pc.unique(values)) < len(values):
            raise SchemaError(f"{name!r} has a null or a value twice; it names items, each once")
        self._name, self._values = name, values
        # the dictionary that was seen last, and where its values stand: one pair, since loaders' threads share an index
        self._seen: tuple[pa.Array | None, NDArray[np.int64]] = None, np.zeros(0, np.int64)

    def of(self, values: Any) -> NDArray[np.int64]:
        """Where values stand, -1 for null and what is not there. Shapes: (n,) → (n,)."""
        try:
            plain = plain_array(values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values))
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise SchemaError(f"not values of {self._name!r}, which is {self._values.type}: {error}") from None
        found = pc.index_in(self._as_keys(plain), value_set=self._values, skip_nulls=True)
        return found.fill_null(-1).to_numpy().astype(np.int64)

    def of_batch(self, batch: Batch, name: str) -> NDArray[np.int64]:
        """Where the values of a batch's column stand, or its items; -1 for null and what is not there."""
        if name not in batch.values:
            raise SchemaError(f"the batch has no {name!r}; it has: {', '.join(batch.values) or 'no traits'}")
        values, mask = batch.values[name].reshape(-1), batch.masks.get(name)
        if mask is not None and mask.all() and name not in batch.lists:
            return np.full(len(values), -1)  # a dictionary may have no value then
        if name in batch.dictionaries:
            found = self._table(batch.dictionaries[name])[values] if len(values) else np.zeros(0, np.int64)
        else:
            type_ = batch.types[name]
            found = self.of(column_to_arrow(Column(values), type_.value_type if is_list(type_) else type_))
        if mask is not None and name not in batch.lists:
            found = np.where(np.repeat(mask, len(values) // len(mask)), -1, found)
        return found

    def _as_keys(self, plain: pa.Array) -> pa.Array:
        """Values as the type of the keys, null where that has no such value. Raises: SchemaError: of another kind."""
        type_ = self._values.type
        if plain.type == type_:
            return plain
        if not _are_alike(plain.type, type_):
            raise SchemaError(f"{self._name!r} is {type_}, not {plain.type}")
        if pa.types.is_integer(type_) and pa.types.is_integer(plain.type):
            numbers, bounds = plain_from_arrow(plain).values, np.iinfo(type_.to_pandas_dtype())
            beyond = (numbers < bounds.min) | (numbers > bounds.max)
            plain = with_nulls(plain, beyond) if beyond.any() else plain
        try:
            return plain.cast(type_)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(f"{self._name!r} is {type_}, not {plain.type}: {error}") from None

    def _table(self, words: pa.Array) -> NDArray[np.int64]:
        """Kept for the next batch: while a store's dictionary does not grow it is one and the same."""
        seen, of_words = self._seen
        if words is not seen:
            of_words = self.of(words)
            self._seen = words, of_words
        return of_words


def _is_key(type_: pa.DataType) -> bool:
    return pa.types.is_primitive(type_) or is_text(type_) or pa.types.is_binary(type_) or pa.types.is_null(type_)


def _are_alike(one: pa.DataType, other: pa.DataType) -> bool:
    """Whether a value of one type may be one of the other: text is no number, however it is spelt."""
    kinds = (_is_number, is_text, pa.types.is_boolean, pa.types.is_timestamp)
    return pa.types.is_null(one) or any(kind(one) and kind(other) for kind in kinds)


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _read(source: Any) -> pa.Table:
    if not isinstance(source, str | Path):
        return read_table(source)
    try:
        return pq.read_table(source)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorruptionError(f"{source} cannot be read as Parquet: {error}") from error


def count_values(store: HistoryStore, name: str, until: int | datetime | None, min_count: int) -> Vocab:
    """See `Store.vocab`."""
    if min_count < 1:
        raise SchemaError(f"min_count is {min_count}; it counts events, and what is in no event is unknown")
    before = NEVER if until is None else to_us(until)

    def traits(schema: Schema) -> list[Trait]:
        return [schema[name]]

    def count(scan: Scan) -> pa.Table:
        trait, waiting = scan.schema[name], list[pa.Array]()
        counts = _counted(pa.array([], trait.item_type), pa.array([], pa.int64()))
        for events in scan.events:
            waiting.append(_values(store, trait, events.take(np.flatnonzero(_known(events, before)))))
            if len(waiting) == _RUNS_AT_ONCE:
                counts, waiting = _added(counts, waiting), []
        return _added(counts, waiting)

    counts = scan_histories(store, count, traits)
    counts = counts.filter(pc.greater_equal(counts["count"], min_count))
    order = pc.sort_indices(counts, [("count", "descending"), ("value", "ascending")])
    values, seen = (one_array(counts[column].take(order)) for column in ("value", "count"))
    return Vocab(name, values, seen.to_numpy())


def _known(events: Events, before: int) -> NDArray[np.bool_]:
    """Which events had happened, were known and had not been superseded before a moment."""
    return (events.event_ts < before) & (events.ingest_ts < before) & (superseded(events) >= before)


def _values(store: HistoryStore, trait: Trait, events: Events) -> pa.Array:
    """A trait's values that are not null, of lists their items."""
    array = plain_array(store.vocabulary.trait_to_arrow(trait, events))
    return (pc.list_flatten(array) if trait.is_list else array).drop_null()


def _added(counts: pa.Table, runs: list[pa.Array]) -> pa.Table:
    each = [_counted(run, pa.array(np.ones(len(run), np.int64))) for run in runs]
    joined = pa.concat_tables([counts, *each])
    return _counted(joined["value"], joined["count"])


def _counted(values: pa.Array, counts: pa.Array) -> pa.Table:
    """Each value once, with its counts added up."""
    table = pa.table({"value": values, "count": counts}).group_by("value", use_threads=False)
    return table.aggregate([("count", "sum")]).rename_columns({"count_sum": "count"})


def _ids(places: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(places < 0, UNKNOWN, places + _FIRST)
