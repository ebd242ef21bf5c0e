"""Arrays that grow at the end: the columns of the arena.

What was written is never moved or overwritten in place, so a reference to `array` taken earlier stays right for the
rows it held then: readers need a lock only for taking it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, nulls_like
from latewood.mutable.event_batch import text_array, text_parts

_SHORT = 1 << 20  # elements


def power_of_two(size: int) -> int:
    """The smallest one that is not below `size`."""
    return 1 << max(size - 1, 1).bit_length()


class Growable:
    """One array with room at the end. Reserve before writing; who owns it keeps the count."""

    __slots__ = ("_fill", "array")

    def __init__(self, dtype: Any, fill: int | None = None, capacity: int = 1024) -> None:
        self._fill = fill
        self.array: NDArray[Any] = np.empty(capacity, dtype)
        if fill is not None:
            self.array[:] = fill

    def reserve(self, size: int) -> None:
        """Make room for `size` elements in all."""
        old = self.array
        if size <= len(old):
            return
        # memory that nobody has touched costs nothing, so that a short column may be given much more than it needs
        ahead = 4 if self._fill is None and len(old) < _SHORT else 2
        grown = np.empty(max(size, ahead * len(old)), old.dtype)
        grown[: len(old)] = old
        if self._fill is not None:
            grown[len(old) :] = self._fill
        self.array = grown  # last: others read it without a lock

    def put(self, start: int, values: Any) -> None:
        """Write values from `start` on, growing as needed."""
        self.reserve(start + len(values))
        self.array[start : start + len(values)] = values


class _Trait:
    """One trait's values, or the lengths, starts and items of its lists; and a mask, from the first null on."""

    __slots__ = ("_item_count", "_items", "_mask", "_starts", "_values")

    def __init__(self, like: TraitColumn) -> None:
        lists = isinstance(like, Lists)
        self._values = Growable(np.int32 if lists else like.dtype)
        self._starts = Growable(np.int64) if lists else None
        self._items = Growable(like.dtype) if lists else None
        self._item_count = 0
        self._mask: Growable | None = None

    def put(self, start: int, column: TraitColumn) -> None:
        """Write a column from row `start` on."""
        if isinstance(column, Lists):
            assert self._starts is not None
            assert self._items is not None
            compact = column.compact()
            self._values.put(start, compact.lengths)
            self._starts.put(start, compact.starts + self._item_count)
            self._items.put(self._item_count, compact.items)
            self._item_count += len(compact.items)
        else:
            self._values.put(start, column.values)
        if column.mask is not None:
            self._nulls(start).put(start, column.mask)
        elif self._mask is not None:
            self._mask.put(start, np.zeros(column.event_count, np.bool_))

    def put_nulls(self, start: int, count: int) -> None:
        """Write `count` nulls from row `start` on."""
        self.put(start, nulls_like(self.column(), count))

    def _nulls(self, start: int) -> Growable:
        if self._mask is None:
            self._mask = Growable(np.bool_, capacity=max(1024, start))
            self._mask.array[:start] = False
        return self._mask

    def column(self) -> TraitColumn:
        """References to the arrays as they are now."""
        mask = None if self._mask is None else self._mask.array
        if self._starts is None or self._items is None:
            return Column(self._values.array, mask)
        return Lists(self._items.array, self._starts.array, self._values.array, mask)


class Traits:
    """The trait columns, by trait id."""

    __slots__ = ("_columns",)

    def __init__(self) -> None:
        self._columns: dict[int, _Trait] = {}

    def put(self, start: int, count: int, columns: dict[int, TraitColumn]) -> None:
        """Write `count` rows from `start` on. A trait that is absent is null there."""
        for trait in self._columns.keys() - columns.keys():
            self._columns[trait].put_nulls(start, count)
        for trait, column in columns.items():
            if trait not in self._columns:
                self._columns[trait] = _Trait(column)
                if start:
                    self._columns[trait].put_nulls(0, start)
            self._columns[trait].put(start, column)

    def columns(self) -> dict[int, TraitColumn]:
        """References to the columns as they are now. They may be longer than there are rows."""
        return {trait: column.column() for trait, column in self._columns.items()}


class IntegerIds:
    """User ids by user number, for integer ids."""

    def __init__(self) -> None:
        self._ids = Growable(np.int64)

    def put(self, start: int, ids: pa.Array) -> None:
        self._ids.put(start, ids.to_numpy())

    def take(self, users: NDArray[np.int64]) -> pa.Array:
        return pa.array(self._ids.array[users])


class TextIds:
    """User ids by user number, for strings: offsets and bytes, so that no string is a Python object."""

    def __init__(self) -> None:
        self._offsets, self._data = Growable(np.int64, fill=0), Growable(np.uint8)

    def put(self, start: int, ids: pa.Array) -> None:
        offsets, data = text_parts(ids)
        end = int(self._offsets.array[start])
        self._data.put(end, np.frombuffer(data, np.uint8))
        self._offsets.put(start + 1, offsets[1:].astype(np.int64) + end)

    def take(self, users: NDArray[np.int64]) -> pa.Array:
        if not len(users):
            return pa.array([], pa.string())
        offsets = self._offsets.array[: int(users.max()) + 2]
        return text_array(offsets, self._data.array, pa.large_string()).take(pa.array(users)).cast(pa.string())
