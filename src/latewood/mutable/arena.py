"""The arena: the tier's events in memory, as columns, with each user's chained from the newest back.

The log is the truth and the arena its working copy: what a capture reads. It is filled a batch at a time, in the log's
order. The newest rows may be *pending*: entered, so that the next append of the same commit sees them, but not yet
durable; readers do not see them until `commit`. The owner holds a lock around every call; arrays handed out need none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.events import NO_TIE, Events
from latewood.mutable import chains
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.event_ids import IdRun
from latewood.mutable.growable import Growable, IntegerIds, TextIds, Traits
from latewood.users import UserKeys


@dataclass(frozen=True, slots=True)
class View:
    """The columns at one moment: rows that were committed then can be taken from it at any later time."""

    user_hash: NDArray[np.uint64]
    user_check: NDArray[np.uint64]
    user_ids: IntegerIds | TextIds
    users: NDArray[np.int64]
    event_ts: NDArray[np.int64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]
    traits: dict[int, tuple[NDArray[Any], NDArray[np.bool_] | None]]

    def take(self, rows: NDArray[np.int64]) -> Events:
        users = self.users[rows]
        columns = {}
        for trait, (values, mask) in self.traits.items():
            nulls = None if mask is None else mask[rows]
            columns[trait] = Column(values[rows], nulls if nulls is not None and nulls.any() else None)
        return Events(
            self.user_ids.take(users),
            UserKeys(self.user_hash[users], self.user_check[users]),
            self.event_ts[rows],
            self.ingest_ts[rows],
            self.ordinal[rows],
            columns,
        )


class Arena:
    """Events by row, users by number. Rows [0, committed) are durable, [committed, rows) pending.

    Args:
        user_type: the schema's user id type.
        first_batch: the number of the first batch it will hold.
    """

    def __init__(self, user_type: pa.DataType, first_batch: int = 0) -> None:
        self._user_type = user_type
        self.rows = self.committed = 0
        self.first_batch = self.next_batch = first_batch
        self._batch_starts: list[int] = []  # by batch since the first: its first row
        self._user_count = 0
        self._users_table = np.zeros(2048, np.int64)
        self._user_hash, self._user_check = Growable(np.uint64), Growable(np.uint64)
        self._head, self._seen = Growable(np.int64, fill=-1), Growable(np.int64, fill=0)
        self._user_ids = IntegerIds() if pa.types.is_integer(user_type) else TextIds()
        self._users, self._previous, self._latest = (Growable(np.int64) for _ in range(3))
        self._event_ts, self._ingest_ts, self._ordinal = Growable(np.int64), Growable(np.int64), Growable(np.int32)
        self._traits = Traits()
        self._ties = np.zeros(2048, np.int64)
        self._id_count = 0
        self._ids_table = np.zeros(2048, np.int64)
        self._id_high, self._id_low, self._id_content = (Growable(np.uint64) for _ in range(3))
        self._id_row = Growable(np.int64)
        self._found, self._spare = np.empty(65536, np.int64), np.empty(65536, np.int64)

    # Users

    def assign(self, events: Events) -> NDArray[np.int64]:
        """Each event's user number; users not seen before get one."""
        n, count = len(events), self._user_count
        self._reserve_users(count + n)
        users, new_rows = np.empty(n, np.int64), np.empty(n, np.int64)
        hashes, checks = map(np.ascontiguousarray, events.keys)
        known = self._users_table, self._user_hash.array, self._user_check.array
        self._user_count = chains.assign_users(hashes, checks, *known, count, users, new_rows)
        if self._user_count > count:
            first = new_rows[: self._user_count - count]
            self._user_ids.put(count, events.user_ids.take(pa.array(first)))
        return users

    def _reserve_users(self, count: int) -> None:
        for column in (self._user_hash, self._user_check, self._head, self._seen):
            column.reserve(count)
        if 2 * count > len(self._users_table):
            self._users_table = _table(count)
            chains.rehash_users(self._users_table, self._user_hash.array, self._user_count)

    def rank(self, users: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """How many chosen events of the same user come before each chosen one (0 elsewhere)."""
        ranks = np.zeros(len(users), np.int64)
        chains.rank_in_user(users, chosen, self._seen.array, ranks)
        return ranks

    # Event ids

    def match(self, ids: NDArray[np.uint64], content: NDArray[np.uint64]) -> tuple[NDArray[np.int64], int]:
        """Which rows repeat an event id: the arena's row (≥ 0), row j of the batch (-2 - j), or none (-1).

        The second is the first row that repeats an id with other content, or -1.
        """
        found = np.full(len(ids), -1, np.int64)
        scratch = np.zeros(_power_of_two(2 * len(ids) + 1), np.int64)
        high, low = np.ascontiguousarray(ids[:, 0]), np.ascontiguousarray(ids[:, 1])
        known = self._id_high.array, self._id_low.array, self._id_content.array
        conflict = chains.match_ids(high, low, np.ascontiguousarray(content), self._ids_table, *known, scratch, found)
        hits = found >= 0
        found[hits] = self._id_row.array[found[hits]]
        return found, conflict

    def stamps_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The ingest times and ordinals of rows, pending ones too."""
        return self._ingest_ts.array[rows], self._ordinal.array[rows]

    def ids_before(self, batch: int, latest: int) -> IdRun:
        """The event ids of the batches before `batch`, to be remembered beyond their eviction."""
        entries = np.flatnonzero(self._id_row.array[: self._id_count] < self._row_of(batch))
        rows = self._id_row.array[entries]
        high, low, content = (column.array[entries] for column in (self._id_high, self._id_low, self._id_content))
        ingest_ts, ordinal = self.stamps_of(rows)
        return IdRun.sort(high, low, content, ingest_ts, ordinal, latest=latest)

    # Events

    def add(self, batch: EventBatch, users: NDArray[np.int64], *, place_ties: bool) -> NDArray[np.int32]:
        """Enter the next batch as pending rows; returns the ordinals, given here if `place_ties` (R1)."""
        events, start = batch.events, self.rows
        stop = start + len(events)
        self._reserve_rows(stop)
        for column, values in (
            (self._users, users),
            (self._event_ts, events.event_ts),
            (self._ingest_ts, events.ingest_ts),
            (self._ordinal, events.ordinal),
        ):
            column.put(start, values)
        self._traits.put(start, len(events), events.traits)
        columns = self._users.array, self._event_ts.array, self._ingest_ts.array, self._ordinal.array
        links = self._previous.array, self._latest.array, self._head.array, self._ties
        chains.link_rows(start, stop, place_ties, *columns, *links)
        if batch.ids is not None and batch.content is not None:
            self._add_ids(batch.ids, batch.content, start)
        self._batch_starts.append(start)
        self.next_batch += 1
        self.rows = stop
        return self._ordinal.array[start:stop].copy()

    def _reserve_rows(self, count: int) -> None:
        self._previous.reserve(count)
        self._latest.reserve(count)
        if 2 * count > len(self._ties):
            self._ties = _table(count)
            chains.rehash_ties(self._ties, self.rows, self._users.array, self._event_ts.array, self._ingest_ts.array)

    def _add_ids(self, ids: NDArray[np.uint64], content: NDArray[np.uint64], start: int) -> None:
        named = np.flatnonzero(ids.any(axis=1))
        count, stop = self._id_count, self._id_count + len(named)
        for column, values in (
            (self._id_high, ids[named, 0]),
            (self._id_low, ids[named, 1]),
            (self._id_content, content[named]),
            (self._id_row, named + start),
        ):
            column.put(count, values)
        if 2 * stop > len(self._ids_table):
            self._ids_table = _table(stop)
            count = 0
        chains.link_ids(count, stop, self._ids_table, self._id_low.array)
        self._id_count = stop

    def commit(self) -> None:
        """The pending rows are durable: let readers see them."""
        self.committed = self.rows

    def view(self) -> View:
        users = self._user_hash.array, self._user_check.array, self._user_ids, self._users.array
        return View(*users, self._event_ts.array, self._ingest_ts.array, self._ordinal.array, self._traits.arrays())

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
        n = len(end_ts)
        users, offsets = np.empty(n, np.int64), np.empty(n + 1, np.int64)
        hashes, checks = map(np.ascontiguousarray, keys)
        chains.find_users(hashes, checks, self._users_table, self._user_hash.array, self._user_check.array, users)
        if tie_ingest is None or tie_ordinal is None:
            tie_ingest, tie_ordinal = np.full(n, NO_TIE), np.zeros(n, np.int32)
        requests = (users, end_ts, min_ingest, cutoff, tie_ingest, tie_ordinal, self.committed)
        columns = (self._head.array, self._previous.array, self._latest.array)
        order = (self._event_ts.array, self._ingest_ts.array, self._ordinal.array)
        count = chains.gather(*requests, *columns, *order, self._found, self._spare, offsets)
        if count > len(self._found):
            self._found, self._spare = np.empty(2 * count, np.int64), np.empty(2 * count, np.int64)
            chains.gather(*requests, *columns, *order, self._found, self._spare, offsets)
        return offsets, self._found[:count].copy()

    def rows_between(self, start_ingest: int, end_ingest: int) -> NDArray[np.int64]:
        """The committed rows with `start_ingest ≤ ingest_ts < end_ingest`, in arrival order."""
        ingest = self._ingest_ts.array[: self.committed]
        return np.flatnonzero((ingest >= start_ingest) & (ingest < end_ingest))

    # Forgetting

    def rebuilt(self, first_batch: int) -> "Arena":
        """An arena of the committed batches from `first_batch` on: after an eviction or a commit that failed."""
        fresh = Arena(self._user_type, max(first_batch, self.first_batch))
        view, ids = self.view(), self._ids_by_row()
        start = self._row_of(fresh.next_batch)
        rows = np.arange(start, self.committed)
        if len(rows):
            events = view.take(rows)
            batch = EventBatch(events, *((None, None) if ids is None else (ids[0][rows], ids[1][rows])))
            fresh.add(batch, fresh.assign(events), place_ties=False)
        fresh._batch_starts = [first - start for first in self._batch_starts if start <= first < self.committed]
        fresh.next_batch = fresh.first_batch + len(fresh._batch_starts)
        fresh.commit()
        return fresh

    def _ids_by_row(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]] | None:
        if not self._id_count:
            return None
        ids, content = np.zeros((self.rows, 2), np.uint64), np.zeros(self.rows, np.uint64)
        rows = self._id_row.array[: self._id_count]
        ids[rows, 0] = self._id_high.array[: self._id_count]
        ids[rows, 1] = self._id_low.array[: self._id_count]
        content[rows] = self._id_content.array[: self._id_count]
        return ids, content

    def _row_of(self, batch: int) -> int:
        place = batch - self.first_batch
        return self._batch_starts[place] if place < len(self._batch_starts) else self.rows


def _table(count: int) -> NDArray[np.int64]:
    return np.zeros(_power_of_two(4 * count), np.int64)


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()
