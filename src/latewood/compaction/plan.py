"""Plan: what becomes of every user of a run of keys when new events are merged into an old shard. Pure.

Think of restocking a library where every reader's card file is a row of full drawers and one drawer in use. Most
readers brought nothing: their drawers are moved as they stand. A reader who brought cards keeps all drawers before the
first one that a new card could belong in; only the drawers from there on are opened. A drawer is a stripe, opening is
decoding.

New events may sort anywhere, so the first drawer to open is found by the earliest new event. The stripe index holds
only each stripe's first time, but that is enough: what is new was learned after everything in the shard, so that among
events of one time it sorts last (docs/protocol.md R1). Of the stripes that begin no later than the earliest new event, all
but the last therefore end before it, whatever their ties are.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latewood.columns import portions
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.users import UserKeys


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

    def slices(self, rows_max: int) -> list["Plan"]:
        """Consecutive runs of users, each of at most `rows_max` rows and users together, or of one user."""
        cost = self.tail_rows + np.diff(self.new_offsets) + 1
        return [self._slice(start, stop) for start, stop in portions(cost, rows_max)]

    def _slice(self, start: int, stop: int) -> "Plan":
        part = {name: getattr(self, name)[start:stop] for name in ("old_user", "carried", "tail_start", "tail_stop")}
        keys, new_offsets = self.keys.slice(start, stop), self.new_offsets[start : stop + 1]
        return replace(self, keys=keys, new_offsets=new_offsets, **part)


def plan_users(old: OldUsers, new_keys: UserKeys, new_event_ts: NDArray[np.int64]) -> Plan:
    """Plan a run of users: all of `old`, and those of the new events, which are sorted by key and total order.

    Every new event's ingest time is past those of all old ones.

    The cost is that of the users, and of the new events; no stripe is looked at of a user without new events.
    """
    first_row = user_starts(new_keys)
    users = new_keys.take(first_row)
    place, found = _locate(old.keys, users)
    old_count, added = len(old.keys.hash), ~found
    slot = place + np.cumsum(added) - added  # of each new user in the union: earlier additions shift it
    old_slot = np.arange(old_count) + np.searchsorted(place[added], np.arange(old_count), side="right")
    total = old_count + int(added.sum())

    keys = UserKeys(np.empty(total, np.uint64), np.empty(total, np.uint64))
    for half, mine, theirs in zip(keys, old.keys, users, strict=True):
        half[old_slot], half[slot] = mine, theirs
    old_user = np.full(total, -1, np.int64)
    old_user[old_slot] = old.start + np.arange(old_count)
    carried, tail_stop = np.zeros(total, np.int64), np.zeros(total, np.int64)
    carried[old_slot], tail_stop[old_slot] = np.diff(old.first_stripe), np.diff(old.first_event)
    touched = place[found]
    carried[slot[found]] = _whole_stripes(old, touched, new_event_ts[first_row[found]])
    tail_start = np.minimum(carried * STRIPE_EVENTS, tail_stop)  # an untouched user's last stripe may be short

    new_rows = np.zeros(total + 1, np.int64)
    new_rows[slot + 1] = np.diff(np.append(first_row, len(new_event_ts)))
    return Plan(keys, old_user, carried, tail_start, tail_stop, np.cumsum(new_rows))


def user_starts(keys: UserKeys) -> NDArray[np.int64]:
    """The first row of every user in rows sorted by key."""
    if not len(keys.hash):
        return np.zeros(0, np.int64)
    differs = (keys.hash[1:] != keys.hash[:-1]) | (keys.check[1:] != keys.check[:-1])
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(differs) + 1])


def _locate(old: UserKeys, users: UserKeys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each user stands among the old ones, or would be inserted; and whether it stands there."""
    place = np.searchsorted(old.hash, users.hash, side="left").astype(np.int64)
    stop = np.searchsorted(old.hash, users.hash, side="right").astype(np.int64)
    while True:  # once, but for users whose hashes collide
        inside = place < stop
        check = old.check[np.where(inside, place, 0)] if len(old.hash) else np.zeros(len(place), np.uint64)
        if not (behind := inside & (check < users.check)).any():
            return place, inside & (check == users.check)
        place += behind


def _whole_stripes(old: OldUsers, users: NDArray[np.int64], event_ts: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many leading stripes of each old user end no later than a time: a binary search per user, all at once."""
    start, stop = old.first_stripe[users], old.first_stripe[users + 1]
    low, high = start.copy(), stop.copy()
    while (open_ := low < high).any():
        middle = (low + high) >> 1
        before = open_ & (old.first_ts[np.where(open_, middle, 0)] <= event_ts)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return np.maximum(low - start - 1, 0)
