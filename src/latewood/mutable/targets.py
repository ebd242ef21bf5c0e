"""Which events the rows of an append supersede: found by id or by place, and checked (R13). No I/O."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError
from latewood.events import Events
from latewood.mutable.arena import Arena
from latewood.mutable.book import ScrubBook
from latewood.mutable.event_ids import IdRun
from latewood.mutable.log import LogState
from latewood.mutable.supersedes import Places, Supersedes
from latewood.users import UserKeys


@dataclass(frozen=True, slots=True)
class Known:
    """What an append is held against: all that the tier knows when its turn has come."""

    state: LogState
    arena: Arena
    runs: list[IdRun]
    book: ScrubBook | None


@dataclass(frozen=True, slots=True)
class Targets:
    """What m rows of a table supersede. Shapes: (m,)."""

    rows: NDArray[np.int64]  # of the table
    within: NDArray[np.int64]  # the row of the table that is superseded; -1: an earlier event, at
    places: Places

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, some: NDArray[np.int64]) -> "Targets":
        return Targets(self.rows[some], self.within[some], self.places.take(some))

    def placed(self, event_ts: NDArray[np.int64], ingest_ts: NDArray[np.int64], ordinal: NDArray[np.int32]) -> Places:
        """Where they stand, now that the table's own rows have their places."""
        own, row, places = self.within >= 0, np.maximum(self.within, 0), self.places
        return Places(
            np.where(own, event_ts[row], places.event_ts),
            np.where(own, ingest_ts[row], places.ingest_ts),
            np.where(own, ordinal[row], places.ordinal),
        )


def find_targets(
    events: Events, ids: NDArray[np.uint64] | None, supersedes: Supersedes, fresh: NDArray[np.bool_], known: Known
) -> tuple[Targets, NDArray[np.int64]]:
    """What the fresh rows supersede, and which deletions are to be skipped: those of what a scrub took.

    What a scrub took is unknown; its user's correction of it is an event like any other.

    Raises: ConflictError: naming a row whose event is unknown, or another user's.
    """
    rows = np.flatnonzero(supersedes.chosen & fresh)
    if supersedes.ids is not None:
        found = _Finding.by_id(events, ids, supersedes, fresh, rows, known)
    else:
        assert supersedes.places is not None
        found = _Finding.by_place(events.keys.take(rows), supersedes.places.take(rows), known)
    known_here = found.known & ~(forgotten(found.keys, found.places, known.book) & (found.within < 0))
    if (others := known_here & ~found.same_user(events, rows)).any():
        raise ConflictError(f"row {rows[np.argmax(others)]} supersedes an event of another user")
    if (unknown := ~known_here & ~_touched(events.keys.take(rows), known.book)).any():
        how = "event_id" if supersedes.ids is not None else "place"
        raise ConflictError(
            f"row {rows[np.argmax(unknown)]} supersedes an event that is not known: no event has that {how}"
        )
    targets = Targets(rows, found.within, found.places)
    return targets.take(np.flatnonzero(known_here)), rows[~known_here & supersedes.deletions[rows]]


@dataclass(frozen=True, slots=True)
class _Finding:
    """What was found of m events. Shapes: (m,); keys and places mean nothing for an unknown one, or one of the table."""

    within: NDArray[np.int64]
    known: NDArray[np.bool_]
    keys: UserKeys
    places: Places

    @classmethod
    def by_place(cls, keys: UserKeys, places: Places, known: Known) -> "_Finding":
        """Where older events may lie elsewhere, there is no telling here whether one exists."""
        here = known.arena.rows_at(known.arena.find_users(keys), places) >= 0
        return cls(np.full(len(here), -1), here | (places.ingest_ts < known.state.complete_from), keys, places)

    @classmethod
    def by_id(
        cls,
        events: Events,
        ids: NDArray[np.uint64] | None,
        supersedes: Supersedes,
        fresh: NDArray[np.bool_],
        rows: NDArray[np.int64],
        known: Known,
    ) -> "_Finding":
        """In the table above, in the arena, or among the ids that are remembered, whichever has the newest version."""
        assert supersedes.ids is not None
        own = np.zeros((len(events), 2), np.uint64) if ids is None else ids
        usable = fresh & ~supersedes.deletions
        entries = known.arena.ids.targets(supersedes.chosen & fresh, supersedes.ids, own, usable)[rows]
        keys = UserKeys(*np.zeros((2, len(rows)), np.uint64))
        event_ts, ingest_ts = np.zeros((2, len(rows)), np.int64)
        nothing = keys, Places(event_ts, ingest_ts, np.zeros(len(rows), np.int32))
        found = cls(np.where(entries < -1, -2 - entries, -1), entries != -1, *nothing)
        here = np.flatnonzero(entries >= 0)
        found._fill(here, *known.arena.places_of(known.arena.ids.row.array[entries[here]]))
        for run in reversed(known.runs):
            asked = np.flatnonzero(~found.known)
            place = run.newest(supersedes.ids[rows[asked], 0], supersedes.ids[rows[asked], 1])
            asked, place = asked[place >= 0], place[place >= 0]
            found.known[asked] = True
            keys = UserKeys(run.user_hash[place], run.user_check[place])
            found._fill(asked, keys, Places(run.event_ts[place], run.ingest_ts[place], run.ordinal[place]))
        return found

    def _fill(self, rows: NDArray[np.int64], keys: UserKeys, places: Places) -> None:
        self.keys.hash[rows], self.keys.check[rows] = keys
        self.places.event_ts[rows], self.places.ingest_ts[rows] = places.event_ts, places.ingest_ts
        self.places.ordinal[rows] = places.ordinal

    def same_user(self, events: Events, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each is its row's user's."""
        own, of = events.keys.take(rows), events.keys.take(np.maximum(self.within, 0))
        hashes = np.where(self.within >= 0, of.hash, self.keys.hash)
        checks = np.where(self.within >= 0, of.check, self.keys.check)
        return (hashes == own.hash) & (checks == own.check)


def forgotten(keys: UserKeys, places: Places, book: ScrubBook | None) -> NDArray[np.bool_]:
    """Which events a scrub took."""
    if book is None or not len(book):
        return np.zeros(len(keys.hash), np.bool_)
    times = places.event_ts, places.ingest_ts, places.ordinal
    return book.forgotten(Events(pa.nulls(len(keys.hash), pa.int64()), keys, *times, {}), 0)


def _touched(keys: UserKeys, book: ScrubBook | None) -> NDArray[np.bool_]:
    """Which users were scrubbed, wholly or in part: what they supersede may be gone."""
    if book is None or not len(book):
        return np.zeros(len(keys.hash), np.bool_)
    return book.scrubbed_at(keys) >= EARLIEST_TS
