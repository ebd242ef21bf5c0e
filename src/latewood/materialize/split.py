"""Split: which part of an example is decoded straight to where it belongs, and which has to be copied there.

An output begins with stored events, back to back, up to the first one that is not to be seen or that a recent event sorts
before. Both are near the end: late events are late by hours or days, and recent ones are recent. So the *head* of a
history, nearly all of it, is decoded in place, and only its *tail* is decoded aside and copied run by run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Rows
from latewood.materialize.choose import Candidates
from latewood.stripes.layout import STRIPE_EVENTS

# A stripe that both parts need is decoded twice, so that a short head is not worth it.
_WORTH_IN_PLACE = 2 * STRIPE_EVENTS
NOWHERE = -1  # as the place of a stretch that is not decoded into the output


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """The heads of n examples, in place, and the tails of those that have one.

    Shapes: heads, place, split (n,); tails, owner (t,).
    """

    heads: Rows
    tails: Rows
    owner: NDArray[np.int64]  # whose each tail is
    place: NDArray[np.int64]  # the element of the output where each head begins
    split: NDArray[np.int64]  # the stored candidates before the tail


def are_views(candidates: Candidates, parts: Parts) -> NDArray[np.bool_]:
    """Which examples are a stretch of stored rows and nothing else, and so can be looked at wherever they are decoded."""
    views = candidates.recent_count == 0
    views[parts.owner] = False
    return views


def split(candidates: Candidates, place_offsets: NDArray[np.int64], places: NDArray[np.int64]) -> Parts:
    """Split every example.

    Args: place_offsets, places: what `merge_places` says.
    """
    rows, stored, runs, offsets = candidates.rows, candidates.stored_count, candidates.runs, candidates.offsets
    n = len(stored)
    if len(runs.start) == n and not len(places):
        nothing = np.zeros(0, np.int64)
        return Parts(rows, Rows(nothing, nothing, nothing, nothing), nothing, offsets[:-1], stored)
    first = runs.offsets[:-1]
    skipped = stored + candidates.recent_count - np.diff(offsets)  # of the oldest candidates
    until = runs.length[first]
    merging = candidates.merging
    until[merging] = np.minimum(until[merging], places[place_offsets[:-1][merging]])
    begin = np.minimum(skipped, until)
    has_tail = until < stored
    until = np.where(has_tail & (until - begin < _WORTH_IN_PLACE), begin, until)
    start = runs.start[first]
    owner = np.flatnonzero(has_tail)
    heads = Rows(rows.shard, rows.user, start + begin, start + until)
    tails = Rows(rows.shard[owner], rows.user[owner], (start + until)[owner], rows.stop[owner])
    return Parts(heads, tails, owner, offsets[:-1], until)
