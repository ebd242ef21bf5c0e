"""Corrections of what a generation holds: the check that the mutable tier cannot make (docs/protocol.md R13).

The tier resolves event ids, and places of events that it still has. A place of an older event it takes on trust, so it is
looked up in the generation before the append.
"""

from typing import Protocol

import numpy as np

from latewood.clock import show_ts
from latewood.errors import ConflictError
from latewood.immutable import GenerationReader, Scrubs
from latewood.immutable.scrubs import NOT_SCRUBBED
from latewood.intake import Intake
from latewood.mutable import Supersedes


class CorrectedStore(Protocol):
    """What the check needs of a store."""

    scrubs: Scrubs

    def reader(self) -> GenerationReader:
        """The newest generation known, opened."""

    def refresh(self) -> GenerationReader:
        """Look for a newer one."""


def check_places(intake: Intake, store: CorrectedStore) -> None:
    """Refuse rows that supersede what was never there. Where retention or a scrub took events, nobody can tell.

    Raises: ConflictError: names the row and the place.
    """
    if intake.supersedes is None or intake.supersedes.places is None:
        return
    reader, places = store.reader(), intake.supersedes.places
    if (intake.supersedes.chosen & (places.ingest_ts >= reader.generation.watermark)).any():
        reader = store.refresh()  # which may have it by now, and the tier no more
    while True:
        try:
            _check_in(reader, intake, intake.supersedes, store.scrubs)
        except FileNotFoundError:  # the generation was collected: a newer one holds what it held
            newest = store.refresh()
            if newest.generation.id == reader.generation.id:
                raise
            reader = newest
        else:
            return


def _check_in(reader: GenerationReader, intake: Intake, supersedes: Supersedes, scrubs: Scrubs) -> None:
    generation = reader.generation
    if generation.expired or supersedes.places is None:
        return
    if generation.scrubs > len(scrubs):
        scrubs.refresh()
    places, keys = supersedes.places, intake.events.keys
    rows = np.flatnonzero(supersedes.chosen & (places.ingest_ts < generation.watermark))
    rows = rows[scrubs.scrubbed_at(keys.take(rows)) == NOT_SCRUBBED]
    if not len(rows):
        return
    wanted = places.take(rows)
    found = reader.find_rows(reader.locate(keys.take(rows)), wanted.event_ts, wanted.ingest_ts, wanted.ordinal)
    if (found < 0).any():
        at = int(np.argmax(found < 0))
        event_ts, ingest_ts = show_ts(int(wanted.event_ts[at])), show_ts(int(wanted.ingest_ts[at]))
        raise ConflictError(
            f"row {rows[at]} supersedes an event of {event_ts}, ingested {ingest_ts}, number {wanted.ordinal[at]} there: "
            f"user {intake.events.user_ids[int(rows[at])].as_py()!r} has none"
        )
