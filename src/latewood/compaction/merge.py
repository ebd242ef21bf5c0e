"""Merge: put events into the total order (docs/protocol.md R1), a whole run of users at once. Pure.

Two acts. `arrange` sorts new events by user and total order and gives ordinals to those that have none yet, by arrival
among their ties. `merge_order` weaves the decoded tails of old users with the new events, both sorted, like one zip per
user; it says only which row comes where, so that each column is gathered once.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.columns import TraitColumn, concat_columns
from latewood.events import Events
from latewood.kernels import kernel

UNPLACED = -1  # the ordinal of an event that has arrived but was not given its place yet
_LAST = np.iinfo(np.int32).max


def arrange(events: Events) -> Events:
    """Sort by user key and total order; the unplaced get their place after the placed ones of a tie, by arrival."""
    if not len(events):
        return events
    placed = events.ordinal >= 0
    ordinal = events.ordinal if placed.all() else np.where(placed, events.ordinal, _LAST)
    order = _order(events, ordinal)
    events = events if order is None else events.take(order)
    if placed.all():
        return events
    return events.stamped(events.ingest_ts, _place(events))


def _order(events: Events, ordinal: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """The rows in order, equal ones as they arrived; None where they are in order already.

    Sorting by fewer columns is cheaper and usually enough: data mostly arrives in order of time, so that bringing users
    together is often all there is to do, and sorting those by event time most of the rest.
    """
    columns = (ordinal, events.ingest_ts, events.event_ts, events.keys.check, events.keys.hash)
    if _sorted(columns):
        return None
    for chosen in ((4,), (2, 4)):
        order = np.lexsort([columns[column] for column in chosen]).astype(np.int64, copy=False)
        if _sorted(tuple(column[order] for column in columns)):
            return order
    return np.lexsort(columns).astype(np.int64, copy=False)


def _sorted(columns: tuple[NDArray[Any], ...]) -> bool:
    """Whether rows ascend by the last column, ties of it by the one before, and so on."""
    descends = np.zeros(max(len(columns[0]) - 1, 0), np.bool_)
    for column in columns:
        left, right = column[:-1], column[1:]
        descends = (left > right) | ((left == right) & descends)
    return not descends.any()


def _place(events: Events) -> NDArray[np.int32]:
    """The ordinals of sorted events, those of placed events as they are."""
    n = len(events)
    same = np.ones(max(n - 1, 0), np.bool_)
    for column in (events.keys.hash, events.keys.check, events.event_ts, events.ingest_ts):
        same &= column[1:] == column[:-1]
    starts = np.concatenate([np.zeros(1, np.int64), np.flatnonzero(~same) + 1])
    group = np.cumsum(np.concatenate([np.zeros(1, np.int64), (~same).astype(np.int64)]))
    taken = np.maximum.reduceat(events.ordinal, starts).astype(np.int64)  # -1 where nothing of a tie is placed
    placed = np.add.reduceat((events.ordinal >= 0).astype(np.int64), starts)
    position = np.arange(n) - starts[group]
    after = taken[group] + 1 + position - placed[group]
    return np.where(events.ordinal >= 0, events.ordinal, after).astype(np.int32)


@kernel
def merge_order(
    old_offsets: NDArray[np.int64],
    new_offsets: NDArray[np.int64],
    old_ts: NDArray[np.int64],
    old_delay: NDArray[np.int64],
    old_ordinal: NDArray[np.int32],
    new_ts: NDArray[np.int64],
    new_delay: NDArray[np.int64],
    new_ordinal: NDArray[np.int32],
) -> NDArray[np.int64]:
    """The merged order of old rows and new rows of each user, as rows of the two laid end to end (old first).

    Among events of one time, the delay orders as the ingest time does. An event that stands on both sides, which no
    protocol allows, gives a first element of -1.
    """
    n_old = len(old_ts)
    order = np.empty(n_old + len(new_ts), np.int64)
    at = 0
    for user in range(len(old_offsets) - 1):
        i, i_stop = old_offsets[user], old_offsets[user + 1]
        j, j_stop = new_offsets[user], new_offsets[user + 1]
        while i < i_stop and j < j_stop:
            old_first = old_ts[i] < new_ts[j]
            if old_ts[i] == new_ts[j]:
                old_first = old_delay[i] < new_delay[j]
                if old_delay[i] == new_delay[j]:
                    old_first = old_ordinal[i] < new_ordinal[j]
                    if old_ordinal[i] == new_ordinal[j]:
                        order[0] = -1
                        return order
            if old_first:
                order[at] = i
                i += 1
            else:
                order[at] = n_old + j
                j += 1
            at += 1
        while i < i_stop:
            order[at] = i
            i += 1
            at += 1
        while j < j_stop:
            order[at] = n_old + j
            j += 1
            at += 1
    return order


def gather(old: TraitColumn, new: TraitColumn, order: NDArray[np.int64]) -> TraitColumn:
    """The rows of two columns laid end to end, in an order."""
    return concat_columns([old, new]).take(order)
