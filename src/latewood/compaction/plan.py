"""Plan: what becomes of every user of a run of keys when new events are merged into an old shard. Pure.

Think of restocking a library where every reader's card file is a row of full drawers and one drawer in use. Most
readers brought nothing: their drawers are moved as they stand. A reader who brought cards keeps all drawers before the
first one that a new card could belong in; only the drawers from there on are opened. A drawer is a stripe, opening is
decoding.

New events may sort anywhere, so the first drawer to open is found by the earliest new event. The stripe index holds
only each stripe's first time, but that is enough: what is new was learned after everything in the shard, so that among
events of one time it sorts last (docs/protocol.md R1). Of the stripes that begin no later than the earliest new event, all
but the last therefore end before it, whatever their ties are.

An old card that gets a mark (R13) is looked for where its time says; its ties may begin a drawer earlier, so of the
stripes that begin *before* that time all but the last stay. Readers of whom some is to be forgotten (R16) have all their
drawers opened, and so have those whose oldest cards are too old or too many (R15), less the drawers in which the index
shows that nothing remains.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latewood.columns import portions
from latewood.compaction.bisect import bisect
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.users import UserKeys, no_keys, user_starts


@dataclass(frozen=True, slots=True)
class OldUsers:
    """The index of consecutive users of an old shard, as far as planning needs it.

    Shapes: keys (users,); first_event and first_stripe (users + 1,), counted within the shard; first_ts: of every
    stripe of the shard.
    """

    start: int  # the shard's index of the first of these users
    keys: UserKeys
    first_event: NDArray[np.int64]
    first_stripe: NDArray[np.int64]
    first_ts: NDArray[np.int64]

    @property
    def events(self) -> NDArray[np.int64]:
        """(users,): how many each has."""
        return np.diff(self.first_event)


@dataclass(frozen=True, slots=True)
class Due:
    """What else is due to old users, besides new events.

    Shapes: marked and marked_ts (marks,), in any order; forgotten: one per old user, or None for nobody.
    """

    marked: UserKeys  # of each event that is superseded now: its user
    marked_ts: NDArray[np.int64]  # and its event_ts
    forgotten: NDArray[np.bool_] | None = None  # users of whom some is to be forgotten
    horizon: int | None = None  # events before it are too old
    max_events: int | None = None  # events beyond the newest so many are too many


NOTHING_DUE = Due(no_keys(), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of each user, in key order.

    Shapes: (users,) each, new_offsets (users + 1,). The new events are sorted by user key, so `new_offsets` cuts them.
    """

    keys: UserKeys
    old_user: NDArray[np.int64]  # its index in the old shard; -1: a user the shard does not have
    carried: NDArray[np.int64]  # leading stripes kept as bytes
    tail_start: NDArray[np.int64]  # rows of the old user that are decoded and merged
    tail_stop: NDArray[np.int64]
    new_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.old_user)

    @property
    def tail_rows(self) -> NDArray[np.int64]:
        """Old rows to decode per user."""
        return self.tail_stop - self.tail_start

    @property
    def passed_over(self) -> int:
        """Old rows that are neither carried nor decoded: the index shows that they are too old or too many."""
        return int(self.tail_start[self.carried == 0].sum())

    def slices(self, rows_max: int) -> list["Plan"]:
        """Consecutive runs of users, each of at most `rows_max` rows and users together, or of one user."""
        cost = self.tail_rows + np.diff(self.new_offsets) + 1
        return [self._slice(start, stop) for start, stop in portions(cost, rows_max)]

    def _slice(self, start: int, stop: int) -> "Plan":
        part = {name: getattr(self, name)[start:stop] for name in ("old_user", "carried", "tail_start", "tail_stop")}
        keys, new_offsets = self.keys.slice(start, stop), self.new_offsets[start : stop + 1]
        return replace(self, keys=keys, new_offsets=new_offsets, **part)


def plan_users(old: OldUsers, new_keys: UserKeys, new_event_ts: NDArray[np.int64], due: Due = NOTHING_DUE) -> Plan:
    """Plan a run of users: all of `old`, and those of the new events, which are sorted by key and total order.

    Every new event's ingest time is past those of all old ones.

    The cost is that of the users, of the new events and of what is due; no stripe is looked at of a user without any.
    """
    first_row = user_starts(new_keys)
    users, new_count = new_keys.take(first_row), np.diff(np.append(first_row, len(new_event_ts)))
    place, found = locate(old.keys, users)
    carried, skipped = _open(old, place[found], new_event_ts[first_row[found]], new_count[found], due)

    added = ~found
    slot = place + np.cumsum(added) - added  # of each new user in the union: earlier additions shift it
    old_slot = np.arange(len(skipped)) + np.searchsorted(place[added], np.arange(len(skipped)), side="right")
    total = len(skipped) + int(added.sum())
    keys = UserKeys(np.empty(total, np.uint64), np.empty(total, np.uint64))
    for half, mine, theirs in zip(keys, old.keys, users, strict=True):
        half[old_slot], half[slot] = mine, theirs
    old_user = _spread(old.start + np.arange(len(skipped)), old_slot, total, -1)
    # an untouched user's last stripe may be short
    tail_start = np.minimum(np.where(carried > 0, carried, skipped) * STRIPE_EVENTS, old.events)
    new_rows = np.zeros(total + 1, np.int64)
    new_rows[slot + 1] = new_count
    carried, tail_start, tail_stop = (_spread(of, old_slot, total, 0) for of in (carried, tail_start, old.events))
    return Plan(keys, old_user, carried, tail_start, tail_stop, np.cumsum(new_rows))


def locate(sorted_keys: UserKeys, users: UserKeys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each user stands among sorted ones, or would be inserted; and whether it stands there."""
    place = np.searchsorted(sorted_keys.hash, users.hash, side="left").astype(np.int64)
    stop = np.searchsorted(sorted_keys.hash, users.hash, side="right").astype(np.int64)
    while True:  # once, but for users whose hashes collide
        inside = place < stop
        known = len(sorted_keys.hash) > 0
        check = sorted_keys.check[np.where(inside, place, 0)] if known else np.zeros(len(place), np.uint64)
        if not (behind := inside & (check < users.check)).any():
            return place, inside & (check == users.check)
        place += behind


def _spread(values: NDArray[np.int64], slot: NDArray[np.int64], total: int, other: int) -> NDArray[np.int64]:
    spread = np.full(total, other, np.int64)
    spread[slot] = values
    return spread


def _open(
    old: OldUsers, touched: NDArray[np.int64], event_ts: NDArray[np.int64], counts: NDArray[np.int64], due: Due
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many leading stripes of every old user are carried, and how many are passed over where none is.

    Shapes: touched, event_ts, counts: of every old user with new events, the earliest and how many; → (users,) each.
    """
    carried, skipped = np.diff(old.first_stripe), np.zeros(len(old.keys.hash), np.int64)
    carried[touched] = _whole_stripes(old, touched, event_ts)
    _open_for_marks(old, due, carried)
    if due.horizon is not None or due.max_events is not None:
        events = old.events
        events[touched] += counts
        _open_for_retention(old, due, events, carried, skipped)
    if due.forgotten is not None:
        carried[due.forgotten] = skipped[due.forgotten] = 0
    return carried, skipped


def _open_for_marks(old: OldUsers, due: Due, carried: NDArray[np.int64]) -> None:
    """Lower `carried` so that the first stripe that may hold an event that is superseded now is opened."""
    if not len(due.marked_ts):
        return
    place, found = locate(old.keys, due.marked)
    users = place[found]
    np.minimum.at(carried, users, _whole_stripes(old, users, due.marked_ts[found] - 1))


def _open_for_retention(
    old: OldUsers, due: Due, events: NDArray[np.int64], carried: NDArray[np.int64], skipped: NDArray[np.int64]
) -> None:
    """Open the users that lose events, and count their leading stripes in which nothing remains.

    All events of the stripes before the last one that begins before a time lie before that time themselves. For too old
    ones that time is the horizon. For too many, it is when the stripe begins that holds the `max_events`th newest old
    event: the newest `max_events` of all, and all ties of the first of them, are no older than that.
    """
    if due.horizon is not None:
        horizon = due.horizon
        users = np.flatnonzero(old.first_ts[old.first_stripe[:-1]] < horizon)
        carried[users] = 0
        skipped[users] = _whole_stripes(old, users, np.full(len(users), horizon - 1))
    if due.max_events is not None:
        users = np.flatnonzero(events > due.max_events)
        carried[users] = 0
        row = np.maximum(old.events[users] - due.max_events, 0)
        begins = old.first_ts[old.first_stripe[users] + row // STRIPE_EVENTS]
        skipped[users] = np.maximum(skipped[users], _whole_stripes(old, users, begins - 1))


def _whole_stripes(old: OldUsers, users: NDArray[np.int64], event_ts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many leading stripes of each old user end no later than a time."""
    start, stop = old.first_stripe[users], old.first_stripe[users + 1]
    after = bisect(start, stop, lambda stripe: old.first_ts[stripe] <= event_ts)
    return np.maximum(after - start - 1, 0)
