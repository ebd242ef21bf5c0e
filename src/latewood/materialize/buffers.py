"""A pool of output buffers, because fresh memory is dear: its page faults cost two to three times the decoding itself.

A buffer is reused only when nobody but the pool refers to it. That is safe because every way to reach the memory
holds a reference to the block, and CPython counts references exactly: a numpy view (and a view of a view) names the
block as its `base`; `pa.array`, `torch.from_numpy`, memoryviews and DLPack capsules hold the array they were made
from. So when the count is what it is for a block that was never handed out, no one can read or write it, and no one
can get hold of it again except through the pool, which is locked. (A bare address taken from an array keeps nothing
alive, here as anywhere.) Where references are not counted exactly, without the GIL or on another interpreter, nothing
is reused.
"""

import sys
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ALIGNMENT = 64  # a cache line, and what Arrow asks for
_SMALL = 1 << 16  # the allocator keeps blocks below this by itself, their pages long touched
_WASTE = 4  # a block serves requests down to a quarter of its size


def _counts_exactly() -> bool:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)
    return sys.implementation.name == "cpython" and bool(gil())


class BufferPool:
    """Hands out uninitialised arrays over memory that it reuses once nobody else refers to it. Thread-safe.

    Args:
        limit_bytes: the most that idle blocks may occupy; beyond it the smallest are let go.
    """

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._blocks: list[NDArray[np.uint8]] = []  # by size
        self._sizes: list[int] = []  # of them
        self._addresses: list[int] = []
        self._latest: dict[int, tuple[int, ...]] = {}  # by how many arrays were asked for, which blocks they were given
        self._alone = self._references_when_alone() if _counts_exactly() else -1

    def empty(self, length: int, dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array, like `np.empty`. Shapes: (length,)."""
        return self.empties(length, [np.dtype(dtype)])[0][0]

    def empties(self, length: int, dtypes: Sequence[np.dtype[Any]]) -> list[tuple[NDArray[Any], int]]:
        """Several such arrays, and the address of each, which an array itself takes long to tell."""
        arrays = list[tuple[NDArray[Any], int]]()
        with self._lock:
            known = self._latest.get(len(dtypes), ())
            if len(known) == len(dtypes) and self._are_idle(known, length, dtypes):
                for number, dtype in zip(known, dtypes, strict=True):
                    arrays.append((np.ndarray(length, dtype, self._blocks[number]), self._addresses[number]))
                return arrays
            places, is_settled = list[int](), True
            latest: dict[int, int] = {}  # by size, which the latest was: those before it are taken, or were not idle
            for dtype in dtypes:
                size_bytes = length * dtype.itemsize
                if size_bytes < _SMALL or self._alone < 0:
                    array = np.empty(length, dtype)
                    arrays.append((array, array.ctypes.data))
                    continue
                place = self._idle(size_bytes, latest.get(size_bytes, -1) + 1)
                if place is None:
                    place = self._allocate(size_bytes)
                    latest.clear()  # others have other numbers now
                    is_settled = False
                latest[size_bytes] = place
                places.append(place)
                # A view taken inside the lock: from here on the block is not alone.
                arrays.append((np.ndarray(length, dtype, self._blocks[place]), self._addresses[place]))
            if is_settled:
                self._latest[len(dtypes)] = tuple(places)
        return arrays

    @property
    def size_bytes(self) -> int:
        """The memory of all blocks, idle or not."""
        return sum(self._sizes)

    def _are_idle(self, places: Sequence[int], length: int, dtypes: Sequence[np.dtype[Any]]) -> bool:
        """Whether some blocks, each for one array, will do: batches that follow one another are alike."""
        for place, dtype in zip(places, dtypes, strict=True):
            size_bytes = length * dtype.itemsize
            fits = _SMALL <= size_bytes <= self._sizes[place] <= _WASTE * size_bytes
            if not fits or self._references(self._blocks, place) != self._alone:
                return False
        return True

    def _idle(self, size_bytes: int, first: int) -> int | None:
        """Which is the smallest one, from the first on, that is idle and large enough, but not far too large."""
        for i in range(max(first, bisect_left(self._sizes, size_bytes)), len(self._sizes)):
            if self._sizes[i] > _WASTE * size_bytes:
                break
            if self._references(self._blocks, i) == self._alone:
                return i
        return None

    def _allocate(self, size_bytes: int) -> int:
        """Which is a new one."""
        idle = [i for i in range(len(self._blocks)) if self._references(self._blocks, i) == self._alone]
        excess = sum(self._sizes[i] for i in idle) - self._limit_bytes
        dropped = set()
        for i in idle:
            if excess <= 0:
                break
            excess -= self._sizes[i]
            dropped.add(i)
        if dropped:  # before there is memory for another, which may be refused
            self._keep([block for i, block in enumerate(self._blocks) if i not in dropped])
        room = size_bytes + size_bytes // 8  # for the next batch, which may be a little larger
        memory = np.empty(room + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        # Through a memoryview, so that the aligned part is an array of its own, which views will name as their base.
        block = np.frombuffer(memory.data[start : start + room], np.uint8)
        place = bisect_right(self._sizes, len(block))
        self._keep([*self._blocks[:place], block, *self._blocks[place:]])
        return place

    def _keep(self, blocks: list[NDArray[np.uint8]]) -> None:
        self._blocks, self._sizes = blocks, list(map(len, blocks))
        self._addresses = [block.ctypes.data for block in blocks]
        self._latest.clear()

    @staticmethod
    def _references(blocks: list[NDArray[np.uint8]], i: int) -> int:
        # One place for every count, so that the interpreter's own temporaries are the same each time.
        return sys.getrefcount(blocks[i])

    @classmethod
    def _references_when_alone(cls) -> int:
        return cls._references([np.empty(1, np.uint8)], 0)
