"""The arena: the tier's events in memory, as columns, with each user's chained from the newest back.

The log is the truth and the arena its working copy: what a capture reads. It is filled a batch at a time, in the log's
order. The newest rows may be *pending*: entered, so that the next append of the same commit sees them, but not yet
durable; readers do not see them until `commit`. The owner holds a lock around every call; arrays handed out need none.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Lists
from latewood.events import NEVER, NO_TIE, Suppressions, no_suppressions
from latewood.mutable import chains
from latewood.mutable.event_batch import EventBatch, Versions
from latewood.mutable.event_ids import NO_EVENT, IdRun
from latewood.mutable.growable import Growable, IntegerIds, TextIds, Traits, power_of_two
from latewood.mutable.id_table import IdTable
from latewood.mutable.supersedes import GONE, SEVERAL, Newer, Places, first_of_equal
from latewood.mutable.suppression_table import SuppressionTable
from latewood.mutable.view import View
from latewood.users import UserKeys

_NO_SUPPRESSIONS = no_suppressions()
_Ties = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class _Counts(NamedTuple):
    """How much the arena holds."""

    rows: int = 0
    ids: int = 0
    superseded: int = 0


class Arena:
    """Events by row, users by number, and what was superseded; the last of each may be pending.

    Args:
        user_type: the schema's user id type.
        first_batch: the number of the first batch it will hold.
    """

    def __init__(self, user_type: pa.DataType, first_batch: int = 0) -> None:
        self._user_type = user_type
        self.rows = 0
        self.first_batch = self.next_batch = first_batch
        self._starts: list[_Counts] = []  # by batch since the first: what was there before it
        self._committed, self._committed_batch = _Counts(), first_batch
        self._user_count = 0
        self._users_table = np.zeros(2048, np.int64)
        self._user_hash, self._user_check = Growable(np.uint64), Growable(np.uint64)
        self._head, self._seen = Growable(np.int64, fill=-1), Growable(np.int64, fill=0)
        self._user_ids = IntegerIds() if pa.types.is_integer(user_type) else TextIds()
        self._users, self._previous, self._latest = (Growable(np.int64) for _ in range(3))
        self._event_ts, self._ingest_ts, self._ordinal = Growable(np.int64), Growable(np.int64), Growable(np.int32)
        self._traits = Traits()
        self._ties = np.zeros(2048, np.int64)
        self._tied = 0  # the rows before it are in that table, which is filled only when somebody asks it
        self.ids = IdTable()
        self._superseded = SuppressionTable()
        self._superseded_at = Growable(np.int64, fill=NEVER)  # by row; only as long as it need be
        self._found, self._spare = np.empty(65536, np.int64), np.empty(65536, np.int64)
        self._view: View | None = None  # of what is committed

    # Users

    def assign(self, keys: UserKeys, user_ids: pa.Array) -> NDArray[np.int64]:
        """Each row's user number; users not seen before get one."""
        n, count = len(user_ids), self._user_count
        self._reserve_users(count + n)
        users, new_rows = np.empty(n, np.int64), np.empty(n, np.int64)
        hashes, checks = map(np.ascontiguousarray, keys)
        known = self._users_table, self._user_hash.array, self._user_check.array
        self._user_count = chains.assign_users(hashes, checks, *known, count, users, new_rows)
        if self._user_count > count:
            first = new_rows[: self._user_count - count]
            self._user_ids.put(count, user_ids.take(pa.array(first)))
        return users

    def _reserve_users(self, count: int) -> None:
        for column in (self._user_hash, self._user_check, self._head, self._seen):
            column.reserve(count)
        if 2 * count > len(self._users_table):
            self._users_table = _table(count)
            chains.rehash_users(self._users_table, self._user_hash.array, self._user_count)

    def count_earlier(self, users: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many chosen events of the same user come before each chosen one (0 elsewhere)."""
        counts = np.zeros(len(users), np.int64)
        chains.count_earlier(users, chosen, self._seen.array, counts)
        return counts

    def find_users(self, keys: UserKeys) -> NDArray[np.int64]:
        """Each user's number, -1 where unknown."""
        users = np.empty(len(keys.hash), np.int64)
        hashes, checks = map(np.ascontiguousarray, keys)
        chains.find_users(hashes, checks, self._users_table, self._user_hash.array, self._user_check.array, users)
        return users

    def keys_of(self, users: NDArray[np.int64]) -> UserKeys:
        """The keys of users by number."""
        return UserKeys(self._user_hash.array[users], self._user_check.array[users])

    # Events

    def add(self, batch: EventBatch, users: NDArray[np.int64], *, place_ties: bool) -> NDArray[np.int32]:
        """Enter the next batch as pending rows; returns the ordinals, given here if `place_ties` (R1)."""
        events, start = batch.events, self.rows
        stop = start + len(events)
        self._previous.reserve(stop)
        self._latest.reserve(stop)
        for column, values in (
            (self._users, users),
            (self._event_ts, events.event_ts),
            (self._ingest_ts, events.ingest_ts),
            (self._ordinal, events.ordinal),
        ):
            column.put(start, values)
        self._traits.put(start, len(events), events.traits)
        links = self._previous.array, self._latest.array, self._head.array
        chains.link_rows(start, stop, self._users.array, self._ingest_ts.array, *links)
        if place_ties:
            self._enter_ties(start)
            chains.place_ties(start, stop, *self._ties_for(stop), self._ordinal.array)
            self._tied = stop
        self._starts.append(self._counts())
        self.next_batch += 1
        self.rows = stop
        ordinal: NDArray[np.int32] = self._ordinal.array[start:stop].copy()
        if batch.ids is not None and batch.content is not None:
            self.ids.add(batch.ids, batch.content, events.ingest_ts, ordinal, start)
        return ordinal

    def supersede(self, versions: Versions, users: NDArray[np.int64]) -> None:
        """Enter what the batch just added supersedes, pending too; `users` are the numbers of those it is of."""
        newer = self._newest_at(self._starts[-1].rows, users, versions.suppressions.at)
        self._superseded.add(users, versions.suppressions, newer)
        self.ids.add(versions.ids, versions.content, versions.suppressions.at)

    def _newest_at(self, start: int, users: NDArray[np.int64], at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of the rows from `start` on, each user's one that was ingested at a time; GONE or SEVERAL if it is not one."""
        near = start + np.flatnonzero(np.isin(self._ingest_ts.array[start : self.rows], at))
        owners, times = self._users.array[near], self._ingest_ts.array[near]
        first = first_of_equal(np.concatenate([owners, users]), np.concatenate([times, at]))
        row, count = first[len(near) :], np.bincount(first[: len(near)], minlength=len(first))
        found = np.full(len(users), GONE, np.int64)
        found[count[row] == 1] = near[row[count[row] == 1]]
        found[count[row] > 1] = SEVERAL
        return found

    def take_in(self, batch: EventBatch) -> None:
        """Enter a batch that is durable, as the log has it."""
        events, versions = batch.events, batch.versions
        self.add(batch, self.assign(events.keys, events.user_ids), place_ties=False)
        if versions is not None:
            self.supersede(versions, self.assign(versions.suppressions.keys, versions.user_ids))
        self.commit()

    def _counts(self) -> _Counts:
        return _Counts(self.rows, self.ids.count, self._superseded.count)

    def _enter_ties(self, stop: int) -> None:
        """Let the table of tied groups have all rows before `stop`."""
        if self._tied < stop:
            columns = self._ties_for(stop)
            chains.enter_ties(self._tied, stop, *columns)
            self._tied = stop

    def _ties_for(self, count: int) -> _Ties:
        """The table, with room for so many rows, and the columns that tell its groups apart."""
        columns = self._users.array, self._event_ts.array, self._ingest_ts.array
        if 2 * count > len(self._ties):
            self._ties = _table(count)
            chains.enter_ties(0, self._tied, self._ties, *columns)
        return self._ties, *columns

    def commit(self) -> None:
        """What is pending is durable: let readers see it."""
        if self._committed.superseded < self._superseded.count:
            self._mark(self._committed.superseded)
        self._committed, self._committed_batch = self._counts(), self.next_batch
        self._view = None

    def _mark(self, start: int) -> None:
        """Set when rows are superseded, by the entries from `start` on."""
        new, of = slice(start, self._superseded.count), self._superseded
        places = Places(of.event_ts.array[new], of.ingest_ts.array[new], of.ordinal.array[new])
        rows = self.rows_at(of.users.array[new], places)
        here = rows >= 0
        self._superseded_at.reserve(self.rows)
        np.minimum.at(self._superseded_at.array, rows[here], of.at.array[new][here])

    def rows_at(self, users: NDArray[np.int64], places: Places) -> NDArray[np.int64]:
        """The rows, pending ones too, of users (by number, or -1) at these places; -1 where there is none."""
        rows = np.empty(len(users), np.int64)
        event_ts, ingest_ts = np.ascontiguousarray(places.event_ts), np.ascontiguousarray(places.ingest_ts)
        asked = np.ascontiguousarray(users), event_ts, ingest_ts, np.ascontiguousarray(places.ordinal)
        if len(users):
            self._enter_ties(self.rows)
        chains.find_rows(*asked, *self._ties_for(self._tied), self._ordinal.array, self._previous.array, rows)
        return rows

    def newer(self, keys: UserKeys, places: Places) -> Newer:
        """Which versions took the place of events, as far as the arena knows; pending ones too."""
        entries = self._superseded.find(self.find_users(keys), places)
        newer, known = Newer.none(len(entries)), np.flatnonzero(entries >= 0)
        row = self._superseded.newer.array[entries[known]]
        is_row = row >= 0
        event_ts = np.where(is_row, self._event_ts.array[row * is_row], 0)
        ordinal = np.where(is_row, self._ordinal.array[row * is_row], row).astype(np.int32)
        newer.put(known, Newer(self._superseded.at.array[entries[known]], event_ts, ordinal))
        return newer

    def places_of(self, rows: NDArray[np.int64]) -> tuple[UserKeys, Places]:
        """Whose rows they are, and their places."""
        places = Places(self._event_ts.array[rows], self._ingest_ts.array[rows], self._ordinal.array[rows])
        return self.keys_of(self._users.array[rows]), places

    def view(self) -> View:
        if self._view is None:
            users = self._user_hash.array, self._user_check.array, self._user_ids, self._users.array
            order = self._event_ts.array, self._ingest_ts.array, self._ordinal.array
            self._view = View(*users, *order, self._traits.columns())
        return self._view

    def gather(
        self,
        keys: UserKeys,
        end_ts: NDArray[np.int64],
        min_ingest: NDArray[np.int64],
        cutoff: NDArray[np.int64],
        tie_ingest: NDArray[np.int64] | None,
        tie_ordinal: NDArray[np.int32] | None,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(offsets, rows): each request's committed rows in the total order; see `chains.gather`."""
        hashes, checks = map(np.ascontiguousarray, keys)
        offsets = np.empty(len(end_ts) + 1, np.int64)
        if tie_ingest is None or tie_ordinal is None:
            tie_ingest, tie_ordinal = np.full(len(end_ts), NO_TIE), np.zeros(len(end_ts), np.int32)
        users = hashes, checks, self._users_table, self._user_hash.array, self._user_check.array
        requests = (*users, end_ts, min_ingest, cutoff, tie_ingest, tie_ordinal, self._committed.rows)
        columns = (self._head.array, self._previous.array, self._latest.array)
        order = (self._event_ts.array, self._ingest_ts.array, self._ordinal.array)
        count = chains.gather(*requests, *columns, *order, self._found, self._spare, offsets)
        if count > len(self._found):
            self._found, self._spare = np.empty(2 * count, np.int64), np.empty(2 * count, np.int64)
            chains.gather(*requests, *columns, *order, self._found, self._spare, offsets)
        rows = self._found[:count].copy()
        return self._drop_superseded(offsets, rows, cutoff) if self._committed.superseded else (offsets, rows)

    def _drop_superseded(
        self, offsets: NDArray[np.int64], rows: NDArray[np.int64], cutoff: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        self._superseded_at.reserve(self.rows)
        kept = self._superseded_at.array[rows] >= np.repeat(cutoff, np.diff(offsets))
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        return before[offsets], rows[kept]

    def suppressed(
        self,
        keys: UserKeys,
        end_ts: NDArray[np.int64],
        min_ingest: int | NDArray[np.int64],
        earliest: NDArray[np.int64],
        cutoff: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], Suppressions]:
        """(offsets, places): what each request must not see of the events ingested before `min_ingest`."""
        if not self._committed.superseded:
            return np.zeros(len(end_ts) + 1, np.int64), _NO_SUPPRESSIONS
        wanted = np.ascontiguousarray(np.broadcast_to(min_ingest, len(end_ts)), np.int64)
        requests = self.find_users(keys), end_ts, wanted, earliest, cutoff, self._committed.superseded
        offsets, entries = self._superseded.gather(*requests)
        return offsets, self._suppressions(entries)

    def superseded_between(self, start: int, end: int) -> Suppressions:
        """What was superseded at `start ≤ at < end`, in the order of arrival."""
        at = self._superseded.at.array[: self._committed.superseded]
        return self._suppressions(np.flatnonzero((at >= start) & (at < end)))

    def _suppressions(self, entries: NDArray[np.int64]) -> Suppressions:
        of = self._superseded
        columns = (of.event_ts, of.ingest_ts, of.ordinal, of.at)
        return Suppressions(self.keys_of(of.users.array[entries]), *(column.array[entries] for column in columns))

    def rows_between(self, start_ingest: int, end_ingest: int) -> NDArray[np.int64]:
        """The committed rows with `start_ingest ≤ ingest_ts < end_ingest`, in arrival order."""
        ingest = self._ingest_ts.array[: self._committed.rows]
        return np.flatnonzero((ingest >= start_ingest) & (ingest < end_ingest))

    def rows_with(self, trait: int, codes: NDArray[np.int32]) -> NDArray[np.int64]:
        """The committed rows that have one of these codes of a trait, be it in a list."""
        if (column := self._traits.columns().get(trait)) is None:
            return np.zeros(0, np.int64)
        column = column.slice(0, self._committed.rows)
        if isinstance(column, Lists):
            among = np.isin(column.compact().items, codes)
            return np.unique(np.repeat(np.arange(column.event_count), column.lengths)[among])
        found = np.isin(column.values, codes)
        return np.flatnonzero(found if column.mask is None else found & ~column.mask)

    # Forgetting

    def ids_before(self, batch: int, latest: int) -> IdRun:
        """The event ids of the batches before `batch`, to be remembered beyond their eviction."""
        entries, ids = slice(0, self._before(batch).ids), self.ids
        columns: dict[str, Any] = {
            name: getattr(ids, name).array[entries] for name in ("high", "low", "content", "ingest_ts", "ordinal")
        }
        of_events = columns["ordinal"] != NO_EVENT
        rows = np.where(of_events, ids.row.array[entries], 0)
        user_hash, user_check = self.keys_of(np.where(of_events, self._users.array[rows], 0))
        known = {"event_ts": self._event_ts.array[rows], "user_hash": user_hash, "user_check": user_check}
        columns |= {name: np.where(of_events, column, np.zeros(1, column.dtype)) for name, column in known.items()}
        return IdRun.sort(columns, latest=latest)

    def rebuilt(self, first_batch: int) -> "Arena":
        """An arena of the committed batches from `first_batch` on: after an eviction or a commit that failed."""
        fresh = Arena(self._user_type, max(first_batch, self.first_batch))
        start, stop, view = self._before(fresh.first_batch), self._committed, self.view()
        if start.rows < stop.rows:
            events = view.take(np.arange(start.rows, stop.rows))
            fresh.add(EventBatch(events, None, None), fresh.assign(events.keys, events.user_ids), place_ties=False)
        fresh.ids = self.ids.part(start.ids, stop.ids, start.rows)
        if start.superseded < stop.superseded:
            entries = np.arange(start.superseded, stop.superseded)
            places, users = self._suppressions(entries), self._superseded.users.array[entries]
            newer = self._superseded.newer.array[entries]
            moved = np.where(newer < 0, newer, newer - start.rows)
            fresh._superseded.add(fresh.assign(places.keys, self._user_ids.take(users)), places, moved)
        kept = self._starts[fresh.first_batch - self.first_batch : self._committed_batch - self.first_batch]
        fresh._starts = [_Counts(*(np.subtract(there, start).tolist())) for there in kept]
        fresh.next_batch = fresh.first_batch + len(kept)
        fresh.commit()
        return fresh

    def _before(self, batch: int) -> _Counts:
        """What there was before a batch."""
        place = batch - self.first_batch
        return self._starts[place] if place < len(self._starts) else self._counts()


def _table(count: int) -> NDArray[np.int64]:
    return np.zeros(power_of_two(4 * count), np.int64)
