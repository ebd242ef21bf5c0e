"""Where each of some distinct values stands: the index behind ids and items."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.columns import Column, column_to_arrow, plain_array, plain_from_arrow, with_nulls
from latewood.errors import SchemaError
from latewood.lists import is_list
from latewood.schema import is_text


class KeyIndex:
    """Where each of some distinct values stands.

    Raises: SchemaError: values of a type that is no key, a null, or a value that is there twice. The message has `name`.
    """

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

    def of_batch(self, batch: Batch | SharedBatch, name: str) -> NDArray[np.int64]:
        """Where the values of a batch's column stand, or its items; -1 for null and what is not there."""
        if name not in batch.values:
            raise SchemaError(f"the batch has no {name!r}; it has: {', '.join(batch.values) or 'no traits'}")
        values, mask = batch.values[name].reshape(-1), batch.masks.get(name)
        if mask is not None and mask.all() and name not in batch.lists:
            return np.full(len(values), -1)  # a dictionary may have no value then
        if name in batch.dictionaries:
            table = self._table(batch.dictionaries[name])
            # what no example of a shared batch shows means nothing, and need be no code
            used = np.clip(values, 0, max(len(table) - 1, 0)) if isinstance(batch, SharedBatch) else values
            found = table[used] if len(values) and len(table) else np.full(len(values), -1)
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
