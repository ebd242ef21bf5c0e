"""How much of a window is materialized together: as little work as memory allows.

Steps lie in runs. Usually a run is so many steps that what a batch costs whatever its size does not count; its batches are
decoded straight to their places, and what two of its examples share is decoded once. Where an order scatters each user's
examples over the window, runs share little: then it is less work to decode every history of the window once, keep that,
and copy the batches out of it.
"""

from itertools import accumulate
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import one_array

# Steps of short histories are materialized together up to this many events, for what a batch costs whatever its size
# is then a third of its time; more would leave the processor's caches.
EVENTS_AT_ONCE = 1 << 19
WINDOW_BYTES = 512 << 20  # a window is decoded at once as far as it fits
_WORTH = 0.75  # copying an event costs about a quarter of decoding it


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
    of_run = np.repeat(np.arange(len(runs)), [run.stop - run.start for run in runs])
    once, apart = _decoded(mine, whose), _decoded(mine, whose, of_run)
    if once >= _WORTH * apart:
        return runs
    if once * event_bytes <= WINDOW_BYTES:
        return [Run(runs[0].first, runs[-1].last, start, stop, once=True)]
    middle = len(runs) // 2
    halves = runs[:middle], runs[middle:]
    return [run for half in halves for run in _at_once(lengths, users, event_bytes, half)]


def _decoded(lengths: NDArray[np.int64], users: NDArray[np.int64], runs: NDArray[np.int64] | None = None) -> int:
    """About how many events are decoded if every run decodes each of its users once: the longest history of each."""
    keys = users if runs is None else runs * (int(users.max(initial=0)) + 1) + users
    above = int(lengths.max(initial=0)) + 1
    owner, length = np.divmod(np.sort(keys * above + lengths), above)  # one sort of numbers is faster than of pairs
    is_longest = np.append(np.diff(owner) != 0, True)
    return int(length[is_longest].sum())
