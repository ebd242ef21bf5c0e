"""How much of a window is materialized together: as little work as memory allows.

Steps lie in runs. Usually a run is so many steps that what a batch costs whatever its size does not count; its batches are
decoded straight to their places, and what two of its examples share is decoded once. Where an order scatters each user's
examples over the window, runs share little: then it is less work to decode every history of the window once, keep that,
and copy the batches out of it.
"""

from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import one_array
from latewood.kernels import kernel

# Steps of short histories are materialized together up to this many events, for what a batch costs whatever its size
# is then a third of its time; more would leave the processor's caches.
EVENTS_AT_ONCE = 1 << 19
WINDOW_BYTES = 512 << 20  # a window is decoded at once as far as it fits
_COPYING = 0.3  # of an event, as a share of decoding it


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
    lengths: NDArray[np.int64],
    users: NDArray[np.int64],
    event_bytes: int,
    *,
    may_be_once: bool = True,
) -> list[Run]:
    """What to materialize together of a window.

    Args: sizes: examples of each step. lengths, users: (n,) of the examples, users as numbers from 0.
        event_bytes: what an event takes. may_be_once: whether histories may be decoded before their batches.
    """
    bounds = [0, *accumulate(sizes)]
    runs = _direct(bounds, lengths)
    return _at_once(lengths, users, event_bytes, runs) if may_be_once else runs


def number_users(user_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Users as numbers from 0, by their first example. Shapes: (n,)."""
    array = one_array(user_ids)
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    codes = array.indices.cast(pa.int64())
    return codes.fill_null(len(array.dictionary)).to_numpy(zero_copy_only=False)


def _direct(bounds: list[int], lengths: NDArray[np.int64]) -> list[Run]:
    """Runs of steps that have up to EVENTS_AT_ONCE events, at least one step each."""
    before = np.concatenate([[0], np.cumsum(lengths)])[bounds]
    runs, first = list[Run](), 0
    while first < len(bounds) - 1:
        last = max(first + 1, int(np.searchsorted(before, before[first] + EVENTS_AT_ONCE, "right")) - 1)
        runs.append(Run(first, last, bounds[first], bounds[last]))
        first = last
    return runs


def _at_once(lengths: NDArray[np.int64], users: NDArray[np.int64], event_bytes: int, runs: list[Run]) -> list[Run]:
    """The same steps in one run, if that is less work, or in two, if it would not fit."""
    if len(runs) < 2:
        return runs
    start, stop = runs[0].start, runs[-1].stop
    mine, whose = lengths[start:stop], users[start:stop]
    bounds = np.array([run.start for run in runs] + [stop]) - start
    once, apart = _decoded(mine, whose, np.array([0, stop - start])), _decoded(mine, whose, bounds)
    if once + _COPYING * int(mine.sum()) >= apart:
        return runs
    if once * event_bytes <= WINDOW_BYTES:
        return [Run(runs[0].first, runs[-1].last, start, stop, once=True)]
    middle = len(runs) // 2
    halves = runs[:middle], runs[middle:]
    return [run for half in halves for run in _at_once(lengths, users, event_bytes, half)]


def count_users(users: NDArray[np.int64], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many users have examples in each of some stretches. Shapes: users (n,), from 0; bounds (k + 1,) → (k,)."""
    counts = np.zeros(len(bounds) - 1, np.int64)
    _count_users(users, bounds, np.full(int(users.max(initial=-1)) + 1, -1), counts)
    return counts


def _decoded(lengths: NDArray[np.int64], users: NDArray[np.int64], bounds: NDArray[np.int64]) -> int:
    """About how many events are decoded if each stretch decodes each of its users once: the longest history of each."""
    users_room = int(users.max(initial=-1)) + 1
    return int(_sum_longest(lengths, users, bounds, np.full(users_room, -1), np.zeros(users_room, np.int64)))


@kernel
def _count_users(users: Any, bounds: Any, last: Any, counts: Any) -> None:
    """`count_users`. Args: last: in which stretch each user was seen last, -1 at first."""
    for k in range(len(counts)):
        for i in range(bounds[k], bounds[k + 1]):
            if last[users[i]] != k:
                last[users[i]] = k
                counts[k] += 1


@kernel
def _sum_longest(lengths: Any, users: Any, bounds: Any, last: Any, longest: Any) -> int:
    """`_decoded`. Args: last, longest: of each user, in which stretch it was seen last, and what was longest there."""
    total = 0
    for k in range(len(bounds) - 1):
        for i in range(bounds[k], bounds[k + 1]):
            user = users[i]
            if last[user] != k:
                last[user], longest[user] = k, 0
            if lengths[i] > longest[user]:
                total += lengths[i] - longest[user]
                longest[user] = lengths[i]
    return total
