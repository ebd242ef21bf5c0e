"""Plan: from what every example needs to what is decoded once, and where each event of the batch comes from.

Think of a copying desk. Each order asks for a stretch of one user's book. Orders whose stretches overlap are served
from one copy of the stretch that covers them; an order that stands alone is copied straight onto the customer's
sheet. So the decoded buffer of a trait is the output of the whole batch followed by scratch, for what is shared or needed
in pieces, and the plan is two lists: *ranges*, the rows to decode and where in the buffer they go, and *segments*, what to
copy afterwards, out of scratch or out of the recent events. An example that shares nothing, lacks nothing and has no
recent events has no segment.

Stretches are shared only where they overlap, in stripes, by a third of the later one: then the copying costs less than the
decoding that it saves, while what is copied is in the caches. Hence short windows far apart in a long history stay apart.

Nothing here reads a byte of the store: the plan is a pure function of resolved pointers and recents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Rows
from latewood.kernels import kernel
from latewood.materialize.split import NOWHERE, Parts
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.runs import Ranges

_ROW_BITS = 31  # two row numbers of so many bits fit into one int64


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What to decode, and where.

    Shapes: base (n + t,): the element of the decoded buffer that holds the first row of each head, and of each tail.
    """

    ranges: Ranges
    base: NDArray[np.int64]
    size: int  # elements of the decoded buffer: the output, then scratch
    is_in_place: bool  # whether every stretch is decoded where it belongs


def plan(parts: Parts, size: int) -> Plan:
    """Group the stretches by user, share overlapping ones, and give every one its place in the buffer.

    Args: size: elements of the output.
    """
    n, t = len(parts.heads.start), len(parts.owner)
    rows, place = parts.heads, parts.place
    if t:
        rows = Rows(*map(np.concatenate, zip(parts.heads, parts.tails, strict=True)))
        place = np.concatenate([place, np.full(t, NOWHERE, np.int64)])
    columns, base = np.empty((5, n + t), np.int64), np.zeros(n + t, np.int64)
    slots = np.empty(slot_count(n + t), np.int64)
    count, needed = _apart(tuple(rows), place, n, size, slots, columns, base)
    if count >= 0:
        return Plan(Ranges.of(columns[:, :count]), base, int(needed), int(needed) == size)
    count, size = _share(_by_start(rows), tuple(rows), place, n, size, slots, columns, base)
    return Plan(Ranges.of(columns[:, :count]), base, int(size), is_in_place=False)


def slot_count(stretches: int) -> int:
    """How large a hash table of their users is."""
    return 1 << (2 * stretches).bit_length()


def _by_start(rows: Rows) -> NDArray[np.int64]:
    """The stretches by start, and among those with one start the longest first: the others lie in it."""
    if len(rows.stop) and rows.stop.max() >= 1 << _ROW_BITS:
        return np.lexsort((-rows.stop, rows.start))
    return np.argsort((rows.start << _ROW_BITS) - rows.stop)  # one sort instead of two


@kernel
def _apart(rows: Any, place: Any, heads: int, size: int, slots: Any, columns: Any, base: Any) -> tuple[int, int]:
    """One range per stretch, where no user has two heads or two tails, as in most batches of independent examples.

    Returns: the number of ranges and the size of the buffer, or -1 where some stretches might share.
    """
    shard, user, start, stop = rows
    count = 0
    slots[:] = -1
    for i in range(len(start)):
        if stop[i] <= start[i]:
            continue
        slot = slot_of(slots, shard, user, heads, i)
        if slots[slot] >= 0:
            return -1, size
        slots[slot] = i
        target = place[i]
        if target < 0:
            target = size
            size += stop[i] - start[i]
        columns[0, count], columns[1, count] = shard[i], user[i]
        columns[2, count], columns[3, count], columns[4, count] = start[i], stop[i], target
        base[i] = target
        count += 1
    return count, size


@kernel
def _share(
    order: Any, rows: Any, place: Any, heads: int, size: int, slots: Any, columns: Any, base: Any
) -> tuple[int, int]:
    """One range per group of stretches that share; returns the number of ranges and the size of the buffer.

    `order` is that of starts, and where they are equal the longest first. `slots` becomes a hash table of users: each slot
    the user's open group, as the stretch that opened it. Heads share with heads and tails with tails: else each tail would
    draw its own head out of its place. `newer` chains the members of a group. Since stretches come by start, a user's next
    one either joins the open group or comes after it, and opens another.
    """
    shard, user, start, stop = rows
    hull = np.empty(len(order), np.int64)  # of a group, under its first example: where its stretches end
    last = np.empty(len(order), np.int64)  # likewise: its newest member
    opened = np.empty(len(order), np.int64)
    newer = np.empty(len(order), np.int64)
    count = 0
    slots[:], newer[:] = -1, -1
    for i in order:
        if stop[i] <= start[i]:
            continue
        slot = slot_of(slots, shard, user, heads, i)
        group = slots[slot]
        if group >= 0 and pays(hull[group], start[i], stop[i]):
            newer[last[group]] = i
            last[group] = i
            hull[group] = max(hull[group], stop[i])
        else:
            slots[slot] = i
            hull[i], last[i] = stop[i], i
            opened[count] = i
            count += 1
    for k in range(count):
        first = opened[k]
        target = _place_of(first, hull[first], start, stop, newer, place)
        if target < 0:
            target = size
            size += hull[first] - start[first]
        columns[0, k], columns[1, k] = shard[first], user[first]
        columns[2, k], columns[3, k], columns[4, k] = start[first], hull[first], target
        i = first
        while i >= 0:
            base[i] = target + start[i] - start[first]
            i = newer[i]
    return count, size


@kernel
def slot_of(slots: Any, shard: Any, user: Any, heads: int, i: int) -> int:
    """Where in the hash table the user of stretch i, a head or a tail, is, or would be."""
    mask = len(slots) - 1
    slot = ((user[i] * 2_654_435_761 + shard[i] * 40_503 + (i < heads) * 977) >> 7) & mask
    while slots[slot] >= 0:
        other = slots[slot]
        if user[other] == user[i] and shard[other] == shard[i] and (other < heads) == (i < heads):
            break
        slot = (slot + 1) & mask
    return slot


@kernel
def pays(hull_stop: int, start: int, stop: int) -> bool:
    """Whether a stretch that begins no earlier shares enough stripes with one that ends at `hull_stop`."""
    last = (stop - 1) // STRIPE_EVENTS
    stripes = last - start // STRIPE_EVENTS + 1
    common = min(last, (hull_stop - 1) // STRIPE_EVENTS) - start // STRIPE_EVENTS + 1
    return 3 * common >= stripes


@kernel
def _place_of(first: int, hull_stop: int, start: Any, stop: Any, newer: Any, place: Any) -> int:
    """Where in the output just the group's hull is needed, or -1: then the group goes to scratch."""
    i = first
    while i >= 0 and start[i] == start[first]:
        if place[i] >= 0 and stop[i] == hull_stop:
            return place[i]
        i = newer[i]
    return -1
