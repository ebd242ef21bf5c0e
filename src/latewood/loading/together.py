"""How much of a window is materialized together: as little work as memory allows.

Steps lie in runs. Usually a run is so many steps that what a batch costs whatever its size does not count; its batches are
decoded straight to their places, and what its examples share is decoded once only where most of them share. Where an order
scatters each user's examples over the window, runs share little: then it may be less work to decode every history of the
window once, keep that, and copy the batches out of it.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import one_array
from latewood.kernels import kernel
from latewood.materialize import Shown
from latewood.materialize.plan import pays

# Steps of short histories are materialized together up to this size, for what a batch costs whatever its size is a third
# of its time; more would leave the processor's caches.
BYTES_AT_ONCE = 6 << 20
# A window is decoded at once as far as it fits, together with some batches: else large batches would take many times
# what a trainer who holds one or two of them expects (decision 32).
WINDOW_BYTES = 512 << 20
_BATCHES_BESIDE = 5
_COPYING = 0.6  # of an event, as a share of decoding it (decision 32)


class Run(NamedTuple):
    """The steps from `first` to `last` of a window, which have the examples from `start` to `stop`."""

    first: int
    last: int
    start: int
    stop: int
    once: bool = False  # decoded before its batches, each history once

    @classmethod
    def of_one(cls, step: int, sizes: list[int]) -> "Run":
        """A step alone."""
        start = sum(sizes[:step])
        return cls(step, step + 1, start, start + sizes[step])


def runs_of(
    sizes: list[int],
    shown: Shown,
    users: NDArray[np.int64],
    event_bytes: float,
    *,
    first: int = 0,
    may_be_once: bool = True,
) -> list[Run]:
    """What to materialize together of a window, from the step `first` on.

    Args: sizes: examples of each step. shown, users: of the n examples, users as numbers from 0. Shapes: users (n,).
        event_bytes: what an event takes; nothing, where no column is wanted. may_be_once: whether histories may be decoded
        before their batches.
    """
    event_bytes = max(event_bytes, 1)
    bounds = [0, *accumulate(sizes)]
    before = np.concatenate([[0], np.cumsum(shown.lengths)])[bounds]
    runs = _direct(bounds, before, max(int(BYTES_AT_ONCE / event_bytes), 1), first)
    if len(runs) < 2 or not may_be_once or not _may_pay(shown, users):
        return runs
    order = np.argsort(users * (int(shown.start.max(initial=0)) + 1) + shown.start)  # a third of what lexsort takes
    fits = WINDOW_BYTES / event_bytes - _BATCHES_BESIDE * int(np.diff(before).max())
    return _at_once(shown, users, order, fits, runs)


def _may_pay(shown: Shown, users: NDArray[np.int64]) -> bool:
    """Whether decoding at once might be less work: what it would be at best, which costs little to tell."""
    stored = shown.stop - shown.start
    longest = np.zeros(int(users.max(initial=-1)) + 1, np.int64)
    np.maximum.at(longest, users, stored)
    return int(longest.sum()) + _COPYING * int(shown.lengths.sum()) < int(stored.sum())


def number_users(user_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Users as numbers from 0, by their first example. Shapes: (n,)."""
    array = one_array(user_ids)
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    codes = array.indices.cast(pa.int64())
    return codes.fill_null(len(array.dictionary)).to_numpy(zero_copy_only=False)


def _direct(bounds: list[int], before: NDArray[np.int64], events: int, first: int) -> list[Run]:
    """Runs of steps that have up to so many events, at least one step each. Args: before: events before each bound."""
    runs = list[Run]()
    while first < len(bounds) - 1:
        last = max(first + 1, int(np.searchsorted(before, before[first] + events, "right")) - 1)
        runs.append(Run(first, last, bounds[first], bounds[last]))
        first = last
    return runs


def _at_once(
    shown: Shown, users: NDArray[np.int64], order: NDArray[np.int64], fits: float, runs: list[Run]
) -> list[Run]:
    """The same steps in one run, if that is less work, or in two, if it would not fit.

    Args: order: the examples by user and start. fits: how many events do.
    """
    if len(runs) < 2:
        return runs
    start, stop = runs[0].start, runs[-1].stop
    order = order[(order >= start) & (order < stop)]
    stretch = np.repeat(np.arange(len(runs)), [run.stop - run.start for run in runs])
    apart = _decoded(shown, users, order, start, stretch)
    once = _decoded(shown, users, order, start, np.zeros_like(stretch))
    if once + _COPYING * int(shown.lengths[start:stop].sum()) >= apart:
        return runs
    if once + int(shown.recents[start:stop].sum()) <= fits:
        return [Run(runs[0].first, runs[-1].last, start, stop, once=True)]
    middle = len(runs) // 2
    halves = runs[:middle], runs[middle:]
    return [run for half in halves for run in _at_once(shown, users, order, fits, half)]


def count_users(users: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many users have examples in each of some stretches. Shapes: users (n,), from 0; bounds (k + 1,) → (k,)."""
    counts = np.zeros(len(bounds) - 1, np.int64)
    _count_users(users, bounds, np.full(int(users.max(initial=-1)) + 1, -1), counts)
    return counts


def _decoded(
    shown: Shown, users: NDArray[np.int64], order: NDArray[np.int64], start: int, stretch: NDArray[np.int64]
) -> int:
    """How many stored events are decoded, about, if each stretch shares what its own examples have in common.

    So much is decoded where most examples share. Where fewer do, each history is decoded again, which takes no longer than
    to copy it; `_COPYING` was measured beside this estimate, not beside what is decoded then.

    Args: stretch: of each example from `start` on, in which it lies. order: of the same examples.
    """
    hull, opened_by = np.zeros((2, int(stretch[-1]) + 1), np.int64)
    opened_by[:] = -1
    return int(_sum_decoded(order, shown.start, shown.stop, users, start, stretch, hull, opened_by))


@kernel
def _count_users(users: Any, bounds: Any, last: Any, counts: Any) -> None:
    """`count_users`. Args: last: in which stretch each user was seen last, -1 at first."""
    for k in range(len(counts)):
        for i in range(bounds[k], bounds[k + 1]):
            if last[users[i]] != k:
                last[users[i]] = k
                counts[k] += 1


@kernel
def _sum_decoded(
    order: Any, start: Any, stop: Any, users: Any, first: int, stretch: Any, hull: Any, opened_by: Any
) -> int:
    """`_decoded`, as planning shares. Args: hull, opened_by: of each stretch, where what was decoded last ends, of whom."""
    total = 0
    for i in order:
        if stop[i] <= start[i]:
            continue
        k = stretch[i - first]
        if opened_by[k] == users[i] and pays(hull[k], start[i], stop[i]):
            total += max(stop[i] - hull[k], 0)
            hull[k] = max(hull[k], stop[i])
        else:
            total += stop[i] - start[i]
            opened_by[k], hull[k] = users[i], stop[i]
    return total
