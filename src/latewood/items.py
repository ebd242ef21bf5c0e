"""What belongs to an item rather than to an event, such as its category: once per item instead of once per event."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.columns import (
    lists_from_arrow,
    plain_array,
    plain_from_arrow,
    read_table,
    table_without_views,
    timestamps_to_us,
)
from latewood.errors import CorruptionError, SchemaError
from latewood.key_index import KeyIndex
from latewood.lists import is_list
from latewood.schema import is_text

B = TypeVar("B", Batch, SharedBatch)


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
        self._index = KeyIndex(key, plain_array(table[key]))
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

    def add_to(self, batch: B, traits: Sequence[str] | None = None) -> B:
        """A batch, shared or not, whose events have their items' traits too. As `Loader(transform=items.add_to)`.

        Raises: SchemaError: the batch lacks the key or has one of the traits already; lists, as key or as trait; a trait
            that no batch can hold as numbers, such as dates.
        """
        chosen = self._chosen(traits)
        if taken := [name for name in chosen if name in batch.values]:
            raise SchemaError(f"the batch has a column {taken[0]!r} already; choose with traits=")
        if self.key in batch.lists or (self.key in batch.values and batch.values[self.key].ndim > 1):
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
            there = lists.lengths > 0
            rows[:-1][there] = lists.items.reshape(int(there.sum()), array.type.list_size)
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


def _read(source: Any) -> pa.Table:
    if not isinstance(source, str | Path):
        return read_table(source)
    try:
        return pq.read_table(source)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorruptionError(f"{source} cannot be read as Parquet: {error}") from error
