"""What versions in the arena supersede: places of events, here or elsewhere, each user's chained from the newest back.

Most stores never correct anything, so nothing here is touched until something is superseded.
"""

import numpy as np
from numba import int32, int64, types, uint64
from numpy.typing import NDArray

from latewood.events import Suppressions
from latewood.kernels import typed_kernel
from latewood.mutable.chains import tie_hash
from latewood.mutable.growable import Growable, power_of_two
from latewood.mutable.supersedes import Places

_I64 = types.Array(int64, 1, "C")
_I32 = types.Array(int32, 1, "C")
_IN_I64 = types.Array(int64, 1, "C", readonly=True)
_IN_I32 = types.Array(int32, 1, "C", readonly=True)


class SuppressionTable:
    """Superseded places in the order of arrival; users by the arena's numbers.

    A hash table finds them by place: entry numbers plus one, 0 is empty.
    """

    def __init__(self) -> None:
        self.count = 0
        self.users, self.event_ts, self.ingest_ts, self.at = (Growable(np.int64) for _ in range(4))
        self.ordinal = Growable(np.int32)
        self.newer = Growable(np.int64)  # the arena's row of the version that supersedes, or GONE, or SEVERAL
        self._previous, self._head = Growable(np.int64), Growable(np.int64, fill=-1)
        self._table = np.zeros(256, np.int64)

    def add(self, users: NDArray[np.int64], places: Suppressions, newer: NDArray[np.int64]) -> None:
        """Enter what was just superseded."""
        start, stop = self.count, self.count + len(users)
        self._previous.reserve(stop)
        self._head.reserve(int(users.max()) + 1 if len(users) else 0)
        self.users.put(start, users)
        self.event_ts.put(start, places.event_ts)
        self.ingest_ts.put(start, places.ingest_ts)
        self.ordinal.put(start, places.ordinal)
        self.at.put(start, places.at)
        self.newer.put(start, newer)
        link_places(start, stop, self.users.array, self._previous.array, self._head.array)
        if 2 * stop > len(self._table):
            self._table, start = np.zeros(power_of_two(4 * stop), np.int64), 0
        columns = self.users.array, self.event_ts.array, self.ingest_ts.array, self.ordinal.array
        enter_places(start, stop, self._table, *columns)
        self.count = stop

    def find(self, users: NDArray[np.int64], places: Places) -> NDArray[np.int64]:
        """The first entry, pending ones too, of each user's place; -1 where it is not superseded."""
        entries = np.empty(len(users), np.int64)
        event_ts, ingest_ts = np.ascontiguousarray(places.event_ts), np.ascontiguousarray(places.ingest_ts)
        asked = np.ascontiguousarray(users), event_ts, ingest_ts, np.ascontiguousarray(places.ordinal)
        columns = self.users.array, self.event_ts.array, self.ingest_ts.array, self.ordinal.array
        find_places(*asked, self._table, *columns, entries)
        return entries

    def gather(
        self,
        users: NDArray[np.int64],
        end_ts: NDArray[np.int64],
        min_ingest: NDArray[np.int64],
        earliest: NDArray[np.int64],
        cutoff: NDArray[np.int64],
        limit: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(offsets, entries): each request's places up to its end, superseded at `earliest ≤ at < cutoff`.

        In the total order, each once, with its earliest `at`; of events ingested before `min_ingest`, and of the first
        `limit` entries.
        """
        known = np.where(users < len(self._head.array), users, -1)
        requests = known, end_ts, min_ingest, earliest, cutoff, limit
        columns = self._head.array, self._previous.array, self.event_ts.array, self.ingest_ts.array, self.at.array
        nothing = np.empty(0, np.int64)
        count = gather_places(*requests, *columns, nothing, nothing)
        of, entries = np.empty(count, np.int64), np.empty(count, np.int64)
        gather_places(*requests, *columns, of, entries)
        place = self.ordinal.array[entries], self.ingest_ts.array[entries], self.event_ts.array[entries], of
        order = np.lexsort((self.at.array[entries], *place))
        new = np.ones(count, np.bool_)
        new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in place], axis=0)
        chosen = order[new]
        return np.searchsorted(of[chosen], np.arange(len(users) + 1)), entries[chosen]


@typed_kernel(types.void(int64, int64, _I64, _I64, _I64))
def link_places(start, stop, users, previous, head):  # type: ignore[no-untyped-def]
    """Thread entries [start, stop) into their users' chains."""
    for entry in range(start, stop):
        previous[entry] = head[users[entry]]
        head[users[entry]] = entry


@typed_kernel(uint64(int64, int64, int64, int32))
def place_hash(user, event_ts, ingest_ts, ordinal):  # type: ignore[no-untyped-def]
    return tie_hash(user, event_ts, ingest_ts + int64(ordinal) * int64(0x9E3779B1))


@typed_kernel(types.void(int64, int64, _I64, _I64, _I64, _I64, _I32))
def enter_places(start, stop, table, users, event_ts, ingest_ts, ordinal):  # type: ignore[no-untyped-def]
    """Enter entries [start, stop) into the table, each behind those of the same place."""
    mask = uint64(len(table) - 1)
    for entry in range(start, stop):
        place = place_hash(users[entry], event_ts[entry], ingest_ts[entry], ordinal[entry]) & mask
        while table[place] != 0:
            place = (place + uint64(1)) & mask
        table[place] = entry + 1


@typed_kernel(
    types.void(_IN_I64, _IN_I64, _IN_I64, _IN_I32, _I64, _I64, _I64, _I64, _I32, _I64),
)
def find_places(  # type: ignore[no-untyped-def]
    of_users, of_event_ts, of_ingest_ts, of_ordinal, table, users, event_ts, ingest_ts, ordinal, entries
):
    """See `SuppressionTable.find`."""
    mask = uint64(len(table) - 1)
    for i in range(len(of_users)):
        entries[i] = -1
        user, time, learned = of_users[i], of_event_ts[i], of_ingest_ts[i]
        place = place_hash(user, time, learned, of_ordinal[i]) & mask
        while table[place] != 0:
            entry = table[place] - 1
            same = users[entry] == user and event_ts[entry] == time and ingest_ts[entry] == learned
            if same and ordinal[entry] == of_ordinal[i]:
                entries[i] = entry
                break
            place = (place + uint64(1)) & mask


@typed_kernel(
    int64(_IN_I64, _IN_I64, _IN_I64, _IN_I64, _IN_I64, int64, _I64, _I64, _I64, _I64, _I64, _I64, _I64),
)
def gather_places(  # type: ignore[no-untyped-def]
    users, end_ts, min_ingest, earliest, cutoff, limit, head, previous, event_ts, ingest_ts, at, of, entries
):
    """How many entries the requests have, see `SuppressionTable.gather`.

    As many as there is room for are written down, each with its request.
    """
    count = 0
    for request in range(len(users)):
        entry = head[users[request]] if users[request] >= 0 else int64(-1)
        while entry >= 0:
            stored = ingest_ts[entry] < min_ingest[request] and event_ts[entry] <= end_ts[request]
            if stored and entry < limit and at[entry] >= earliest[request] and at[entry] < cutoff[request]:
                if count < len(of):
                    of[count] = request
                    entries[count] = entry
                count += 1
            entry = previous[entry]
    return count
