"""Corrections of what a generation holds: the check that the mutable tier cannot make (docs/protocol.md R13).

The tier resolves event ids, and places of events that it still has. What became of an older event, and whether it is there
at all, it asks of whoever appends: that is looked up here, in the newest generation.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.errors import ConflictError
from latewood.events import NEVER
from latewood.immutable import GenerationReader, Scrubs, read_newest
from latewood.immutable.resolve import Located, Rows
from latewood.immutable.scrubs import NOT_SCRUBBED
from latewood.intake import Intake
from latewood.lists import offsets_of
from latewood.mutable import GONE, SEVERAL, Newer, StoredTargets, UnseenTargetsError


class CorrectedStore(Protocol):
    """What the check needs of a store."""

    scrubs: Scrubs

    def reader(self) -> GenerationReader:
        """The newest generation known, opened."""

    def refresh(self) -> GenerationReader:
        """Look for a newer one."""


def look_up_targets(asked: UnseenTargetsError, intake: Intake, store: CorrectedStore) -> StoredTargets:
    """What the newest generation says of the events that rows supersede, and that the tier has no more.

    Raises: ConflictError: names the row and the place of an event that never was. Where retention or a scrub took events,
        nobody can tell.
    """
    reader = store.reader()
    watermark = reader.generation.watermark
    if watermark < asked.floor or (asked.places.ingest_ts >= watermark).any():
        reader = store.refresh()  # which may have it by now, and the tier no more
    return read_newest(store, lambda reader: _look_in(reader, asked, intake, store.scrubs), reader)[1]


def _look_in(reader: GenerationReader, asked: UnseenTargetsError, intake: Intake, scrubs: Scrubs) -> StoredTargets:
    """`look_up_targets` in one generation."""
    if reader.generation.scrubs > len(scrubs):
        scrubs.refresh()
    places, keys, watermark = asked.places, intake.events.keys.take(asked.rows), reader.generation.watermark
    located = reader.locate(keys)
    found = reader.find_rows(located, places.event_ts, places.ingest_ts, places.ordinal)
    missing = (found < 0) & (places.ingest_ts < watermark)
    # What a scrub of events took is told by its absence alone, once it is done; unless retention may have taken it, which
    # older generations may still show.
    forgotten = missing & (places.ingest_ts <= scrubs.scrubbed_at(keys)) & (not reader.generation.expired)
    if not reader.generation.expired:
        _refuse_missing(asked, intake, missing & (scrubs.scrubbed_at(keys) == NOT_SCRUBBED))
    there = np.flatnonzero(found >= 0)
    newer = Newer.none(len(found))
    newer.put(there, _find_newer(reader, Located(located.shard[there], located.user[there]), found[there]))
    return StoredTargets(watermark, asked.rows, places, newer, forgotten)


def _refuse_missing(asked: UnseenTargetsError, intake: Intake, missing: NDArray[np.bool_]) -> None:
    """Raises: ConflictError: a row supersedes what was never there."""
    if missing.any():
        places, i = asked.places, int(np.argmax(missing))
        row, event_ts, ingest_ts = int(asked.rows[i]), int(places.event_ts[i]), int(places.ingest_ts[i])
        raise ConflictError(
            f"row {row} supersedes an event of {show_ts(event_ts)}, ingested {show_ts(ingest_ts)}, number "
            f"{places.ordinal[i]} there: user {intake.events.user_ids[row].as_py()!r} has none"
        )


def _find_newer(reader: GenerationReader, located: Located, rows: NDArray[np.int64]) -> Newer:
    """What took the place of some stored events: their users' only event of the time at which they were superseded."""
    newer = Newer.none(len(rows))
    at = reader.read(Rows(*located, rows, rows + 1), []).superseded_at
    if at is None:
        return newer
    newer.at[:] = at
    gone = np.flatnonzero(at < NEVER)
    pairs, user = np.unique(np.stack([located.shard[gone], located.user[gone]]), axis=1, return_inverse=True)
    users = Located(*np.ascontiguousarray(pairs))
    counts = reader.event_counts(users)
    history = reader.read(Rows(*users, np.zeros_like(counts), counts), [])
    bounds = offsets_of(counts)
    for i, of in zip(gone.tolist(), user.ravel().tolist(), strict=True):
        start, stop = int(bounds[of]), int(bounds[of + 1])
        found = start + np.flatnonzero(history.ingest_ts[start:stop] == at[i])
        if len(found) == 1:
            newer.event_ts[i], newer.ordinal[i] = history.event_ts[found[0]], history.ordinal[found[0]]
        else:
            newer.ordinal[i] = SEVERAL if len(found) else GONE
    return newer
