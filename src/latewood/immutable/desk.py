"""The desk: one stripe, laid out so that its rows can be looked at.

It is one array of int64: four columns of a stripe (times, ingest times, ordinals, and when each row was superseded),
scratch for decoding, which rows were found not to be visible, and a note, which says which stripe lies there, whether all
of its columns or only its times, and in which of its columns a broken block was met. Kernels pass its address around: as
arrays, its parts would cost more at every call than the call does.

Examples of one user tend to follow one another and to end near each other, so a stripe that lies there already is not
decoded again.
"""

from typing import Any

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from latewood.events import NEVER
from latewood.kernels import kernel
from latewood.stripes.addresses import load_i32, load_i64, store_u64
from latewood.stripes.entries import latest_ingest, stripe_events, table_field
from latewood.stripes.layout import DELAY, EVENT_TS, NEVER_CLEAN, ORDINAL, STRIPE_EVENTS, SUPERSEDED
from latewood.stripes.stripe import decode_delays, decode_ordinals, decode_superseded, decode_times

_ROOM = 2 * STRIPE_EVENTS  # decoding writes whole rows
TIMES, INGESTS, ORDINALS, SUPERSEDED_AT, STEPS, HOLES, NOTE = (8 * _ROOM * part for part in range(7))  # in bytes
TABLE, USER, STRIPE, IS_WHOLE, DAMAGED = range(5)
NOWHERE = -1
FIRST_NOTE = NOTE // 8


def new_desk() -> NDArray[np.int64]:
    """An empty desk. Not made in the kernels: numba would free what it sees only the address of.

    Only the note says something yet: to fill the rest would push everything else out of the nearest cache.
    """
    desk = np.empty(FIRST_NOTE + 5, np.int64)
    desk[FIRST_NOTE:] = NOWHERE
    return desk


@kernel
def noted(desk: Any, field: Any) -> Any:
    """A field of the note."""
    return load_i64(desk + uint64(NOTE) + uint64(8) * uint64(field))


@kernel
def write_note(desk: Any, field: Any, value: Any) -> None:
    """Set a field of the note."""
    store_u64(desk + uint64(NOTE) + uint64(8) * uint64(field), uint64(value))


@kernel
def time_at(desk: Any, row: Any) -> Any:
    """event_ts of a row on the desk."""
    return load_i64(desk + uint64(TIMES) + uint64(8) * row)


@kernel
def ingest_at(desk: Any, row: Any) -> Any:
    """ingest_ts of a row on the desk; its delay where only a part was decoded."""
    return load_i64(desk + uint64(INGESTS) + uint64(8) * row)


@kernel
def ordinal_at(desk: Any, row: Any) -> Any:
    """The ordinal of a row on the desk."""
    return load_i32(desk + uint64(ORDINALS) + uint64(4) * row)


@kernel
def superseded_at(desk: Any, row: Any) -> Any:
    """When a row on the desk was superseded."""
    return load_i64(desk + uint64(SUPERSEDED_AT) + uint64(8) * row)


@kernel
def hole_at(desk: Any, number: Any) -> Any:
    """A row that was found not to be visible."""
    return uint64(load_i64(desk + uint64(HOLES) + uint64(8) * number))


@kernel
def write_hole(desk: Any, number: Any, row: Any) -> None:
    """Note a row that is not visible."""
    store_u64(desk + uint64(HOLES) + uint64(8) * number, uint64(row))


@kernel
def is_visible(desk: Any, row: Any, watermark: Any) -> Any:
    """Whether a row on the desk was known before the watermark, and nothing that supersedes it."""
    return ingest_at(desk, row) < watermark <= superseded_at(desk, row)


@kernel
def lay_out_times(table: Any, user: Any, stripe: Any, desk: Any) -> Any:
    """Put a stripe's times on the desk unless they lie there. Returns how many events it has; 0 if damaged.

    Once a block was found damaged nothing else is laid out: the note says which it was.
    """
    if noted(desk, DAMAGED) != NOWHERE:
        return uint64(0)
    place = noted(desk, TABLE) == int64(table) and noted(desk, USER) == int64(user)
    if not place or noted(desk, STRIPE) != int64(stripe):
        write_note(desk, TABLE, table)
        write_note(desk, USER, user)
        write_note(desk, STRIPE, stripe)
        write_note(desk, IS_WHOLE, 0)
        if decode_times(table, user, stripe, desk + uint64(STEPS), desk + uint64(TIMES)):
            write_note(desk, DAMAGED, EVENT_TS)
    return stripe_events(table, user, stripe) if noted(desk, DAMAGED) == NOWHERE else uint64(0)


@kernel
def lay_out(table: Any, user: Any, stripe: Any, desk: Any) -> Any:
    """Put all that visibility depends on on the desk unless it lies there. Returns how many events; 0 if damaged."""
    rows = lay_out_times(table, user, stripe, desk)
    if rows == uint64(0) or noted(desk, IS_WHOLE) == 1:
        return rows
    if decode_delays(table, user, stripe, desk + uint64(INGESTS)):
        write_note(desk, DAMAGED, DELAY)
        return uint64(0)
    if decode_ordinals(table, user, stripe, desk + uint64(ORDINALS)):
        write_note(desk, DAMAGED, ORDINAL)
        return uint64(0)
    if lay_out_superseded(table, user, stripe, rows, desk):
        write_note(desk, DAMAGED, table_field(table, SUPERSEDED))
        return uint64(0)
    write_note(desk, IS_WHOLE, 1)
    for row in range(rows):
        store_u64(desk + uint64(INGESTS) + uint64(8) * row, uint64(time_at(desk, row) + ingest_at(desk, row)))
    return rows


@kernel
def lay_out_superseded(table: Any, user: Any, stripe: Any, rows: Any, desk: Any) -> Any:
    """When a stripe's rows were superseded: bytes are read only where the record says that one was.

    Returns: 0, or 1 where they are damaged.
    """
    if latest_ingest(table, user, stripe) == NEVER_CLEAN:
        return decode_superseded(table, user, stripe, desk + uint64(SUPERSEDED_AT))
    for row in range(rows):
        store_u64(desk + uint64(SUPERSEDED_AT) + uint64(8) * uint64(row), uint64(NEVER))
    return uint64(0)
