"""Split: which part of an example is decoded straight to where it belongs, and which has to be copied there.

For batches that share, and for lists; others are decoded in pieces, each to its place (pieces.py).

An output begins with stored events, back to back, up to the first one that is not to be seen or that a recent event sorts
before. Both are near the end: late events are late by hours or days, and recent ones are recent. So the *head* of a
history, nearly all of it, is decoded in place, and only its *tail* is decoded aside and copied run by run.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Rows
from latewood.kernels import kernel
from latewood.materialize.choose import Candidates
from latewood.stripes.layout import STRIPE_EVENTS

# Each part costs something whatever its size, so that a short head is not worth it.
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

    Args: place_offsets, places: what `merge` says.
    """
    rows, stored, runs, offsets = candidates.rows, candidates.stored_count, candidates.runs, candidates.offsets
    n = len(stored)
    if len(runs.start) == n and not len(places):
        nothing = np.zeros(0, np.int64)
        return Parts(rows, Rows(nothing, nothing, nothing, nothing), nothing, offsets[:-1], stored)
    columns, tails = np.empty((3, n), np.int64), np.empty((3, n), np.int64)
    count = _split(
        (stored, candidates.recent_count, offsets), tuple(runs), rows.stop, place_offsets, places, columns, tails
    )
    (start, stop, until), (owner, tail_start, tail_stop) = columns, tails[:, :count]
    heads = Rows(rows.shard, rows.user, start, stop)
    return Parts(heads, Rows(rows.shard[owner], rows.user[owner], tail_start, tail_stop), owner, offsets[:-1], until)


@kernel
def _split(examples: Any, runs: Any, row_stop: Any, place_offsets: Any, places: Any, columns: Any, tails: Any) -> int:
    """`split`, example by example. Returns: how many tails there are.

    Shapes: columns (3, n): where each head starts and stops, and the stored candidates before its tail; tails (3, n):
    whose each is, and where it starts and stops.
    """
    stored, recent_count, offsets = examples
    run_offsets, run_start, run_length = runs
    count = 0
    for i in range(len(stored)):
        first = run_offsets[i]
        skipped = stored[i] + recent_count[i] - (offsets[i + 1] - offsets[i])  # of the oldest candidates
        until = run_length[first]
        if place_offsets[i + 1] > place_offsets[i]:  # a recent event may come between
            until = min(until, places[place_offsets[i]])
        begin = min(skipped, until)
        if until < stored[i]:
            # At a stripe's beginning: else both parts would decode that stripe.
            until = (run_start[first] + until) // STRIPE_EVENTS * STRIPE_EVENTS - run_start[first]
            if until - begin < _WORTH_IN_PLACE:
                until = begin
            tails[0, count], tails[1, count], tails[2, count] = i, run_start[first] + until, row_stop[i]
            count += 1
        columns[0, i], columns[1, i], columns[2, i] = run_start[first] + begin, run_start[first] + until, until
    return count
