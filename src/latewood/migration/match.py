"""Which of their events is which of ours: of one request, by time and by values, whatever the order they lie in.

Events are the same if their times and all their values are, but for representation. Of several that are alike, the
first of theirs is the first of ours. What is left over on either side is for `classify` to explain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.users import splitmix


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Pairs of events, and what is left over. Shapes: theirs and ours (pairs,), sorted by ours; the rest as they lie.

    `tied` counts the times at which both have the same events in another order, `unsorted` the places where theirs goes
    back in time.
    """

    theirs: NDArray[np.int64]
    ours: NDArray[np.int64]
    only_theirs: NDArray[np.int64]
    only_ours: NDArray[np.int64]
    tied: NDArray[np.int64]  # the times
    unsorted: int


def match(
    their_time: NDArray[np.int64],
    their_values: NDArray[np.uint64],
    our_time: NDArray[np.int64],
    our_values: NDArray[np.uint64],
) -> Match:
    """Match the events of one request. Args: values: signatures, equal where all values are, loosely."""
    left, right = _whole(their_time, their_values), _whole(our_time, our_values)
    by_left, by_right = np.argsort(left, kind="stable"), np.argsort(right, kind="stable")
    left, right = left[by_left], right[by_right]
    rank = np.arange(len(left)) - np.searchsorted(left, left)  # among those that are alike
    first, last = np.searchsorted(right, left), np.searchsorted(right, left, "right")
    found = rank < last - first
    theirs, ours = by_left[found], by_right[(first + rank)[found]]
    in_order = np.argsort(ours)
    theirs, ours = theirs[in_order], ours[in_order]
    back = np.flatnonzero(np.diff(theirs) < 0)
    tied = our_time[ours[back]] == our_time[ours[back + 1]]
    return Match(
        theirs,
        ours,
        np.setdiff1d(np.arange(len(left)), theirs),
        np.setdiff1d(np.arange(len(right)), ours),
        np.unique(our_time[ours[back[tied]]]),
        int(np.count_nonzero(np.diff(their_time) < 0)),
    )


def _whole(time: NDArray[np.int64], values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return splitmix(splitmix(time.view(np.uint64)) + values)
