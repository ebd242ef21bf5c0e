"""Corrections of what a generation holds: the check that the mutable tier cannot make (docs/protocol.md R13).

The tier resolves event ids, and places of events that it still has. A place of an older event it takes on trust, so it is
looked up in the generation before the append.
"""

import numpy as np

from latewood.clock import show_ts
from latewood.errors import ConflictError
from latewood.immutable import GenerationReader, Scrubs
from latewood.immutable.scrubs import NOT_SCRUBBED
from latewood.intake import Intake


def check_places(intake: Intake, reader: GenerationReader, scrubs: Scrubs) -> None:
    """Refuse rows that supersede what was never there. Where retention or a scrub took events, nobody can tell.

    Raises: ConflictError: names the row and the place.
    """
    supersedes, generation = intake.supersedes, reader.generation
    if supersedes is None or supersedes.places is None or generation.expired:
        return
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
