"""Two columns of one trait, theirs and ours, made comparable value by value.

*Exactly* the same are values that are equal as numbers or texts, bit for bit, and both null or neither: an int32 is
as good as an int64 of the same value. *Loosely* the same are those that differ by representation only: a double that
rounds to the float we have, 0.0 and -0.0, a number and its text; and nothing, however it was written: null, NaN, 0, "", an
empty list. Lists are the same if their items are, in their order.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import plain_array
from latewood.errors import SchemaError
from latewood.lists import ListParts, is_list, positions, split_lists
from latewood.schema import is_text
from latewood.users import splitmix

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, eq=False)
class Values:
    """One side of a trait, as numbers that are equal where the values are. Shapes: all (n,)."""

    exact: NDArray[np.int64]
    null: NDArray[np.bool_]
    loose: NDArray[np.int64]

    def differ(self, rows: NDArray[np.int64], other: "Values", others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where rows of this side are not exactly those of the other."""
        nulls, theirs = self.null[rows], other.null[others]
        return (nulls != theirs) | (~nulls & (self.exact[rows] != other.exact[others]))


def comparable(theirs: pa.Array, ours: pa.Array, name: str, factor: int) -> tuple[Values, Values]:
    """Both sides of a trait. Args: factor: µs per unit of their integer times. Raises: SchemaError: no values at all."""
    if is_list(theirs.type) and is_list(ours.type):
        parts = split_lists(theirs), split_lists(ours)
        items = comparable(plain_array(parts[0].items), plain_array(parts[1].items), name, factor)
        return _lists(parts[0], items[0]), _lists(parts[1], items[1])
    kinds = {_kind(theirs.type, name), _kind(ours.type, name)}
    if "time" in kinds and "text" not in kinds:
        return _whole(_us(theirs, factor)), _whole(_us(ours, 1))
    if "text" in kinds:
        left, right = _texts(theirs, ours)
        return (left, right) if len(kinds) == 1 else (replace(left, exact=~left.exact), right)  # a number is no text
    if "float" in kinds:
        return _floats(theirs), _floats(ours)
    return _whole(theirs), _whole(ours)


def signatures(columns: list[NDArray[Any]], count: int) -> NDArray[np.uint64]:
    """One number per event for all of its columns together. Shapes: each column (count,)."""
    signature = np.zeros(count, np.uint64)
    for column in columns:
        signature = splitmix(signature * _GOLDEN + column.astype(np.int64).view(np.uint64) + _GOLDEN)
    return signature


def _lists(parts: ListParts, items: Values) -> Values:
    null = np.zeros(len(parts.lengths), np.bool_) if parts.mask is None else parts.mask
    exact = _digest(np.stack([items.exact, items.null.astype(np.int64)]), parts.lengths)
    return Values(exact, null, _digest(items.loose[np.newaxis], parts.lengths))


def _digest(items: NDArray[np.int64], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """One number per list: 0 of an empty one. Shapes: items (k, m), lengths (n,) of sum m → (n,)."""
    ends = np.cumsum(lengths)
    place = positions(np.zeros(len(lengths), np.int64), lengths)  # within its list
    hashes = signatures([*items, place], items.shape[1])
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    return (before[ends] - before[ends - lengths]).view(np.int64)


def _kind(type_: pa.DataType, name: str) -> str:
    if is_text(type_):
        return "text"
    if pa.types.is_floating(type_):
        return "float"
    if pa.types.is_integer(type_) or pa.types.is_boolean(type_) or pa.types.is_null(type_):
        return "whole"
    if pa.types.is_timestamp(type_) or pa.types.is_date(type_):
        return "time"
    raise SchemaError(f"{name!r} is {type_} there, which is nothing that a trait can be compared with")


def _us(array: pa.Array, factor: int) -> pa.Array:
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s"))
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(pa.int64())
    return pc.multiply(array.cast(pa.int64(), safe=False), factor)


def _whole(array: pa.Array) -> Values:
    null = _nulls(array)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    numbers = array.cast(pa.int64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
    if array.type != pa.uint64():
        return Values(numbers, null, numbers)
    return Values(np.where(numbers < 0, ~numbers, numbers), null, numbers)  # 2**64 - 1 is -1 in another type only


def _floats(array: pa.Array) -> Values:
    null = _nulls(array)
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.int8())
    numbers = array.cast(pa.float64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
    exact = np.where(np.isnan(numbers), np.nan, numbers)  # one NaN for all
    with np.errstate(over="ignore"):
        rounded = np.nan_to_num(numbers.astype(np.float32), nan=0.0, posinf=np.inf, neginf=-np.inf) + np.float32(0)
    return Values(exact.view(np.int64), null, rounded.view(np.int32).astype(np.int64))


def _texts(theirs: pa.Array, ours: pa.Array) -> tuple[Values, Values]:
    """Both as codes of one dictionary, in which the empty text has the code of a null."""
    sides = [array.cast(pa.large_string()) for array in (theirs, ours)]
    words = pa.concat_arrays([pa.array([""], pa.large_string()), *(side.fill_null("") for side in sides)])
    codes = words.dictionary_encode().indices.to_numpy().astype(np.int64)
    return tuple(  # type: ignore[return-value]
        Values(part, _nulls(side), part)
        for part, side in zip((codes[1 : 1 + len(theirs)], codes[1 + len(theirs) :]), sides, strict=True)
    )


def _nulls(array: pa.Array) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return nulls
