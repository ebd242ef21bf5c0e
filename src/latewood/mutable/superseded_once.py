"""An event is superseded at most once: who corrects a corrected event names its newest version (R13). No I/O.

With two versions in its place, both would be visible, and an anchor on the later one would not know the event for its own
earlier version: only the first of the times at which it was superseded is kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.errors import ConflictError
from latewood.events import NEVER, Events
from latewood.mutable.supersedes import GONE, SEVERAL, Newer, Places, StoredTargets, Supersedes, first_of_equal
from latewood.mutable.targets import Known, Targets, forgotten
from latewood.mutable.tier import UnseenTargetsError
from latewood.users import UserKeys


@dataclass(frozen=True, slots=True)
class DeletedAgain:
    """Rows that delete what is deleted already. Shapes: (k,)."""

    rows: NDArray[np.int64]
    above: NDArray[np.int64]  # the row of the table that deletes it first; -1: it was deleted before
    at: NDArray[np.int64]  # when, in that case


def check_superseded_once(
    targets: Targets, events: Events, supersedes: Supersedes, known: Known, stored: StoredTargets | None
) -> tuple[Targets, DeletedAgain, NDArray[np.int64]]:
    """The targets that are superseded by nothing else, the rows that delete what is deleted, and those to be skipped.

    These delete what was stored, and a scrub took: as in `find_targets`, to which only what is here is known.

    Raises: ConflictError: naming a row whose event has a newer version, or was deleted and is to be corrected.
        UnseenTargetsError: see `MutableTier.append`.
    """
    newer, gone = _find_newer(targets, events.keys.take(targets.rows), known, stored)
    pointless = targets.rows[gone & supersedes.deletions[targets.rows]]
    targets, newer = targets.take(np.flatnonzero(~gone)), newer.take(np.flatnonzero(~gone))
    rows = targets.rows
    keys, deletions = events.keys.take(rows), supersedes.deletions[rows]
    before = newer.at != NEVER
    again = before & deletions & (newer.ordinal == GONE)
    _refuse_superseded(rows, newer, before & ~again)
    first = first_of_equal(targets.within, *keys, *_columns(targets.places))
    second = ~before & (first != np.arange(len(rows)))
    repeated = second & deletions & deletions[first]
    _refuse_second(rows, first, second & ~repeated)
    above = np.where(repeated, rows[first], -1)
    done = again | repeated
    return targets.take(np.flatnonzero(~done)), DeletedAgain(rows[done], above[done], newer.at[done]), pointless


def _find_newer(
    targets: Targets, keys: UserKeys, known: Known, stored: StoredTargets | None
) -> tuple[Newer, NDArray[np.bool_]]:
    """What took the place of each target that is not of the table itself, and which of them a scrub took.

    A newer version that was forgotten is as good as a deletion.
    """
    newer, gone = Newer.none(len(targets)), np.zeros(len(targets), np.bool_)
    earlier = np.flatnonzero(targets.within < 0)
    places, users = targets.places.take(earlier), keys.take(earlier)
    newer.put(earlier, known.arena.newer(users, places))
    if stored is not None:
        is_here = known.arena.rows_at(known.arena.find_users(users), places) >= 0
        elsewhere = earlier[~is_here & (newer.at[earlier] == NEVER)]
        if len(elsewhere):
            _check_looked(stored, targets.rows[elsewhere], targets.places.take(elsewhere), known)
            newer.put(elsewhere, stored.newer)
            gone[elsewhere] = stored.forgotten
    at_place = Places(newer.event_ts, newer.at, newer.ordinal)
    newer.ordinal[forgotten(keys, at_place, known.book) & (newer.ordinal >= 0)] = GONE
    return newer, gone


def _check_looked(stored: StoredTargets, rows: NDArray[np.int64], places: Places, known: Known) -> None:
    """Raises: UnseenTargetsError: no generation was asked, or one that is too old by now."""
    floor = known.state.tier.floor
    if stored.watermark < floor or not stored.are_of(rows, places):
        raise UnseenTargetsError(rows, places, floor)


def _refuse_superseded(rows: NDArray[np.int64], newer: Newer, refused: NDArray[np.bool_]) -> None:
    """Raises: ConflictError: naming the first row that is refused, and what is known of the newer version."""
    if not refused.any():
        return
    i = int(np.argmax(refused))
    at, ordinal = show_ts(int(newer.at[i])), int(newer.ordinal[i])
    if ordinal == GONE:
        raise ConflictError(
            f"row {rows[i]} supersedes an event that was deleted, at {at}, and stays so: append it as a new event, with an "
            f"event_id of its own"
        )
    place = f"that of {show_ts(int(newer.event_ts[i]))}, ingested {at}, number {ordinal} there"
    raise ConflictError(
        f"row {rows[i]} supersedes an event that was superseded already, by "
        f"{f'one of those ingested {at}' if ordinal == SEVERAL else place}: name the newest version. (What is appended "
        f"twice is known again by its event_ids only)"
    )


def _refuse_second(rows: NDArray[np.int64], first: NDArray[np.int64], refused: NDArray[np.bool_]) -> None:
    """Raises: ConflictError: naming two rows of the table that supersede one event."""
    if refused.any():
        i = int(np.argmax(refused))
        raise ConflictError(
            f"row {rows[i]} supersedes the event that row {rows[first[i]]} supersedes: each version names the one before it"
        )


def _columns(places: Places) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    return places.event_ts, places.ingest_ts, places.ordinal
