"""Arrays that grow at the end: the columns of the arena.

What was written is never moved or overwritten in place, so a reference to `array` taken earlier stays right for the
rows it held then: readers need a lock only for taking it.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.mutable.event_batch import text_array, text_parts


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
        self.array = np.empty(max(size, 2 * len(old)), old.dtype)
        self.array[: len(old)] = old
        if self._fill is not None:
            self.array[len(old) :] = self._fill

    def put(self, start: int, values: Any) -> None:
        """Write values from `start` on, growing as needed."""
        self.reserve(start + len(values))
        self.array[start : start + len(values)] = values


class Traits:
    """The trait columns, by trait id: values, and a mask from the first null on."""

    __slots__ = ("_columns",)

    def __init__(self) -> None:
        self._columns: dict[int, tuple[Growable, Growable | None]] = {}

    def put(self, start: int, count: int, columns: dict[int, Any]) -> None:
        """Write `count` rows from `start` on. A trait that is absent is null there."""
        for trait in self._columns.keys() - columns.keys():
            values = self._columns[trait][0]
            values.put(start, np.zeros(count, values.array.dtype))
            self._mask(trait, start).put(start, np.ones(count, np.bool_))
        for trait, column in columns.items():
            if trait not in self._columns:
                self._columns[trait] = Growable(column.values.dtype), None
                if start:
                    self._columns[trait][0].put(0, np.zeros(start, column.values.dtype))
                    self._mask(trait, 0).put(0, np.ones(start, np.bool_))
            self._columns[trait][0].put(start, column.values)
            if column.mask is not None:
                self._mask(trait, start).put(start, column.mask)
            elif self._columns[trait][1] is not None:
                self._mask(trait, start).put(start, np.zeros(count, np.bool_))

    def _mask(self, trait: int, start: int) -> Growable:
        values, mask = self._columns[trait]
        if mask is None:
            mask = Growable(np.bool_, capacity=max(1024, start))
            mask.array[:start] = False
            self._columns[trait] = values, mask
        return mask

    def arrays(self) -> dict[int, tuple[NDArray[Any], NDArray[np.bool_] | None]]:
        """References to the columns as they are now."""
        return {
            trait: (values.array, None if mask is None else mask.array)
            for trait, (values, mask) in self._columns.items()
        }


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
