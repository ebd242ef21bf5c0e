"""Columns as bytes, back to back and each padded to 8: how a batch of the log is put together, and taken apart.

Integers of 4 or 8 bytes, but uint64, are written narrow: the smallest of a column and how many bytes each takes, two int64,
then what each exceeds the smallest by, in 0, 1, 2, 4 or 8 bytes. What arrives together is alike, so that times, ids and
codes take a half or a quarter of what they take in memory, and an append waits that much less for the disk.
"""

from typing import Any

import numpy as np
from numba import int32, int64, types, uint8, uint64
from numpy.typing import NDArray

from latewood.kernels import kernel, typed_kernel

_HEAD = 16  # bytes before the values of a narrow column
_WIDTHS = (0, 1, 2, 4, 8)
_SIGNED: dict[int, np.dtype[Any]] = {4: np.dtype("<i4"), 8: np.dtype("<i8")}


def _is_wide(dtype: np.dtype[Any]) -> bool:
    """Whether columns of this type are written narrow. Those of uint64 are hashes, as a rule, and have nothing to gain."""
    return dtype.kind in "iu" and dtype.itemsize >= 4 and dtype != np.uint64


class Packer:
    """Puts columns one behind the other.

    Args:
        room: bytes of all that will be put.
        count: of how many columns.
    """

    def __init__(self, room: int, count: int) -> None:
        self._bytes = np.empty(room + (_HEAD + 8) * count, np.uint8)
        self._end = 0

    def put(self, column: NDArray[Any] | bytes) -> None:
        """A column as it is in memory."""
        plain = column if isinstance(column, bytes) else np.ascontiguousarray(column).reshape(-1).view(np.uint8)
        end = self._end + len(plain)
        self._bytes[self._end : end] = np.frombuffer(plain, np.uint8)
        self._end = end + -end % 8
        self._bytes[end : self._end] = 0

    def put_narrow(self, column: NDArray[Any]) -> None:
        """A column as narrow as may be: wide integers by what they exceed their smallest by, others as they are."""
        if not _is_wide(column.dtype):
            self.put(column)
            return
        values = np.ascontiguousarray(column).view(_SIGNED[column.dtype.itemsize])
        write = _write_64 if column.dtype.itemsize == 8 else _write_32
        end = self._end + int(write(values, self._bytes[self._end :]))
        self._end = end + -end % 8
        self._bytes[end : self._end] = 0

    @property
    def packed(self) -> memoryview:
        """What was put so far."""
        return self._bytes.data[: self._end]


class Unpacker:
    """Takes columns off the front of a buffer.

    Args: narrow: whether wide integers were written narrow; else they stand as they are in memory.
    Raises, whatever is taken: ValueError: the buffer does not hold it.
    """

    def __init__(self, body: memoryview, offset: int, *, narrow: bool) -> None:
        self._body, self._offset, self._narrow = body, offset, narrow

    def take(self, dtype: str, count: int) -> NDArray[Any]:
        """What `put` was given: a view of the buffer."""
        if count < 0:  # to numpy that is all there is
            raise ValueError(f"a column of {count} values")
        array = np.frombuffer(self._body, np.dtype(dtype), count, self._offset)
        self._offset += array.nbytes + -array.nbytes % 8
        return array

    def take_narrow(self, dtype: str, count: int) -> NDArray[Any]:
        """What `put_narrow` was given."""
        wanted = np.dtype(dtype)
        if not self._narrow or not _is_wide(wanted):
            return self.take(dtype, count)
        smallest, width = self.take("<i8", 2).tolist()
        if width not in _WIDTHS:
            raise ValueError(f"values of {width} bytes")
        signed = np.full(count, smallest, np.int64)
        if width:
            signed += self.take("<i8" if width == 8 else f"<u{width}", count)
        return signed.astype(_SIGNED[wanted.itemsize], copy=False).view(wanted)

    def require_end(self) -> None:
        """Raises: ValueError: something is left."""
        if self._offset != len(self._body):
            raise ValueError(f"its columns end at byte {self._offset} of {len(self._body)}")


def _write_narrow(values, out):  # type: ignore[no-untyped-def]
    """Write integers narrow. Returns: how many bytes they take."""
    low = high = int64(values[0]) if len(values) else int64(0)
    for i in range(len(values)):
        low = min(low, int64(values[i]))
        high = max(high, int64(values[i]))
    most = uint64(high) - uint64(low)
    width = 0 if most == 0 else 1 if most < 1 << 8 else 2 if most < 1 << 16 else 4 if most < 1 << 32 else 8
    head = out[:_HEAD].view(np.int64)
    head[0], head[1] = low, width
    body = out[_HEAD : _HEAD + width * len(values)]
    if width == 1:
        _write_excess(values, low, body)
    elif width == 2:
        _write_excess(values, low, body.view(np.uint16))
    elif width == 4:
        _write_excess(values, low, body.view(np.uint32))
    elif width == 8:
        _write_excess(values, low, body.view(np.uint64))
    return _HEAD + len(body)


@kernel
def _write_excess(values, low, into):  # type: ignore[no-untyped-def]
    for i in range(len(values)):
        into[i] = uint64(values[i]) - uint64(low)


def _signature(of: Any) -> Any:
    return int64(types.Array(of, 1, "C", readonly=True), types.Array(uint8, 1, "C"))


_write_64 = typed_kernel(_signature(int64))(_write_narrow)
_write_32 = typed_kernel(_signature(int32))(_write_narrow)
