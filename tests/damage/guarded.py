"""Memory between two pages that may not be touched: a byte read or written outside ends the process at once.

Kernels run without bounds checks, and what lies beside an ordinary array is usually readable, so a read astray goes
unseen. Here an array ends (or begins) exactly where a forbidden page begins.
"""

import ctypes
import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAGE = mmap.PAGESIZE
_NOTHING, _READ, _READ_WRITE = 0, 1, 3
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Region:
    """So many bytes between guards, given out whole, again and again: what was given out before is overwritten."""

    def __init__(self, size_bytes: int) -> None:
        self._size = -(-size_bytes // _PAGE) * _PAGE
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS  # to each forked process its own; else they would share it
        self._memory = mmap.mmap(-1, self._size + 2 * _PAGE, flags=private)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for guard in (0, _PAGE + self._size):
            self._protect(self._address + guard, _PAGE, _NOTHING)
        self._bytes = np.frombuffer(self._memory, np.uint8, self._size, _PAGE)

    def array(self, dtype: Any, count: int, *, at_end: bool = True) -> NDArray[Any]:
        """A writable array whose end, or else whose beginning, is a guard."""
        size = np.dtype(dtype).itemsize * count
        if size > self._size:
            raise MemoryError(f"{size} bytes in a region of {self._size}")
        part = self._bytes[self._size - size :] if at_end else self._bytes[:size]
        return part.view(dtype)

    def file(self, data: bytes, *, at_end: bool = True) -> NDArray[np.uint8]:
        """Bytes that cannot be written to until the next call."""
        self._protect(self._address + _PAGE, self._size, _READ_WRITE)
        array = self.array(np.uint8, len(data), at_end=at_end)
        array[:] = np.frombuffer(data, np.uint8)
        self._protect(self._address + _PAGE, self._size, _READ)
        return array

    def _protect(self, address: int, size: int, access: int) -> None:
        if _libc.mprotect(address, size, access):
            raise OSError(ctypes.get_errno(), "mprotect")
