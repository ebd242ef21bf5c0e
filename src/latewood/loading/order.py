"""Which example stands at which position of an epoch: a pure function of (seed, epoch, index).

"shuffle" deals with examples as one does with many packs of cards: the packs (row groups) are put in a random order,
and then as many as lie in one window are mixed card by card. So only a window must be in memory, and a file is read
group by group. "user" is the log's own order, which keeps a user's examples together; "time" is by request time.

Chance comes from a hash of (seed, epoch, place) and not from numpy's generators, whose streams may change between
versions: a run must resume exactly after an upgrade too.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.errors import SchemaError
from latewood.users import splitmix

ORDERS = ("shuffle", "user", "time")
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_GROUPS = 0  # the stream of the groups' order; window w has stream w + 1


class Order(Protocol):
    """A permutation of rows, read by position."""

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        """The rows of the examples at positions start to stop."""


def order_of(
    kind: str, offsets: NDArray[np.int64], times: Callable[[], NDArray[np.int64]], seed: int, window: int
) -> Callable[[int], Order]:
    """The order of each epoch.

    Args:
        offsets: of the groups: group g holds the rows offsets[g] to offsets[g + 1].
        times: gives the request times; called for "time" only, once.
    Raises: SchemaError: an order that does not exist.
    """
    if kind == "shuffle":
        return lambda epoch: ShuffleOrder(offsets, seed, epoch, window)
    if kind == "user":
        log = LogOrder()
        return lambda _: log
    if kind == "time":
        by_time = TimeOrder(times())
        return lambda _: by_time
    raise SchemaError(f"order {kind!r} does not exist; these do: {', '.join(map(repr, ORDERS))}")


class LogOrder:
    """The order in which the examples lie."""

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        return np.arange(start, stop, dtype=np.int64)


class TimeOrder:
    """By request time; equal times in the order in which they lie. Shapes: times (n,)."""

    def __init__(self, times: NDArray[np.int64]) -> None:
        self._rows = np.argsort(times, kind="stable").astype(np.int64, copy=False)

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        return self._rows[start:stop]


class ShuffleOrder:
    """Groups in a random order, mixed within windows."""

    def __init__(self, offsets: NDArray[np.int64], seed: int, epoch: int, window: int) -> None:
        self._key, self._window, self._count = (seed, epoch), window, int(offsets[-1])
        groups = permutation(len(offsets) - 1, *self._key, _GROUPS)
        self._first_rows = offsets[:-1][groups]
        sizes = np.diff(offsets)[groups]
        self._first_positions = np.cumsum(sizes) - sizes  # where each group would stand, were nothing mixed
        self._mixed: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def rows(self, start: int, stop: int) -> NDArray[np.int64]:
        windows = range(start // self._window, -(-stop // self._window))
        parts = []
        for w in windows:
            first = w * self._window
            parts.append(self._rows_of_window(w)[max(start - first, 0) : stop - first])
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _rows_of_window(self, w: int) -> NDArray[np.int64]:
        """Kept for the next call: the steps of a window ask for it one after the other."""
        if self._mixed[0] != w:
            first = w * self._window
            size = min(self._window, self._count - first)
            positions = first + permutation(size, *self._key, w + 1)
            groups = np.searchsorted(self._first_positions, positions, "right") - 1
            self._mixed = (w, self._first_rows[groups] + positions - self._first_positions[groups])
        return self._mixed[1]


def permutation(count: int, seed: int, epoch: int, stream: int) -> NDArray[np.int64]:
    """The numbers below `count` by the hash of (seed, epoch, stream, number), which has no ties within one stream."""
    key = np.zeros(1, np.uint64)
    for part in (seed, epoch, stream):
        key = splitmix(key + _GOLDEN + np.uint64(part % 2**64))
    hashes = splitmix(key + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
    return np.argsort(hashes).astype(np.int64, copy=False)
