"""Plan: from what every example needs to what is decoded once, and where each event of the batch comes from.

Think of a copying desk. Each order asks for a stretch of one user's book. Orders whose stretches overlap are served
from one copy of the stretch that covers them; an order that stands alone is copied straight onto the customer's
sheet. So the decoded buffer of a trait is the output of the whole batch followed by scratch for the shared stretches,
and the plan is two lists: *ranges*, the rows to decode and where in the buffer they go, and *segments*, what to copy
afterwards, out of scratch or out of the recent events. An example that shares nothing, lacks nothing and has no
recent events has no segment.

Stretches are shared only where that saves more decoding than the copying costs: they must overlap, in stripes, by a
third of the later one (copying costs about a fifth of decoding). Hence short windows far apart in a long history stay
apart.

Nothing here reads a byte of the store: the plan is a pure function of resolved pointers and recents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Rows
from latewood.stripes.jit import kernel
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.runs import Ranges

_USER_BITS = 40  # a shard has fewer users than that


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What to decode, and where.

    Shapes: base (n,): the element of the decoded buffer that holds an example's row `start`.
    """

    ranges: Ranges
    base: NDArray[np.int64]
    size: int  # elements of the decoded buffer: the output, then scratch


def plan(rows: Rows, direct: NDArray[np.bool_], offsets: NDArray[np.int64]) -> Plan:
    """Group the examples by user, share overlapping stretches, and give every stretch its place in the buffer.

    Args:
        rows: what each of n examples needs; start = stop where nothing.
        direct: whether an example's output begins with exactly its stretch: no row inside is invisible, and no recent
            event sorts between them.
        offsets: (n + 1,) of the output.
    """
    wanting = np.flatnonzero(rows.stop > rows.start)
    users = (rows.shard[wanting] << _USER_BITS) | rows.user[wanting]
    # Among stretches with one start the longest comes first, and the others lie inside it.
    order = wanting[np.lexsort((-rows.stop[wanting], rows.start[wanting], users))]
    columns = np.empty((5, len(order)), np.int64)
    base = np.zeros(len(direct), np.int64)
    count, size = _share(order, tuple(rows), direct, offsets, columns, base)
    return Plan(Ranges(*(column[:count] for column in columns)), base, int(size))


@kernel
def _share(order: Any, rows: Any, direct: Any, place: Any, columns: Any, base: Any) -> Any:
    """One range per group of stretches that share; returns the number of ranges and the size of the buffer.

    A group whose hull is exactly one direct example's stretch is decoded in that example's place in the output, and the
    others copy from there; any other group is decoded in scratch.
    """
    shard, user, start, stop = rows
    count, first, size = 0, 0, place[-1]
    while first < len(order):
        i = order[first]
        hull_start, hull_stop = start[i], stop[i]
        last = first + 1
        while last < len(order):
            j = order[last]
            if shard[j] != shard[i] or user[j] != user[i]:
                break
            common = (hull_stop - 1) // STRIPE_EVENTS - start[j] // STRIPE_EVENTS + 1
            stripes = (stop[j] - 1) // STRIPE_EVENTS - start[j] // STRIPE_EVENTS + 1
            if 3 * min(common, stripes) < stripes:
                break
            hull_stop = max(hull_stop, stop[j])
            last += 1
        target = -1
        for k in range(first, last):
            j = order[k]
            if direct[j] and start[j] == hull_start and stop[j] == hull_stop:
                target = place[j]
                break
        if target < 0:
            target = size
            size += hull_stop - hull_start
        columns[0, count], columns[1, count] = shard[i], user[i]
        columns[2, count], columns[3, count], columns[4, count] = hull_start, hull_stop, target
        count += 1
        for k in range(first, last):
            j = order[k]
            base[j] = target + start[j] - hull_start
        first = last
    return count, size
