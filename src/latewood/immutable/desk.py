"""The desk: one stripe, laid out so that its rows can be looked at.

It is one array of int64: columns of a stripe (times, delays, ordinals, and when each row was superseded), scratch for
decoding, running sums of identities, which rows were found not to be visible, room for the place of a stripe, and a note,
which says which stripe lies there, how much of it, and in which block damage was met. Kernels pass its address around: as
arrays, its parts would cost more at every call than the call does.

Examples of one user tend to follow one another and to end near each other. So a stripe that lies there already is not
decoded again, and from the second sum on that is asked of it, its identities are summed up once for all that follow.
"""

from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.events import NEVER
from latewood.immutable.places import (
    EVENTS,
    PLACE_WORDS,
    RECORD,
    STRIPE,
    TABLE,
    USER,
    entry_at,
    identities_before,
    latest_ingest_of,
    mark_of,
    placed,
    write_place,
)
from latewood.kernels import kernel
from latewood.stripes.addresses import bit_length, load_i32, load_i64, load_u8, load_u64, store_u8, store_u64
from latewood.stripes.entries import entry_has_reference, entry_offset, is_constant, table_field
from latewood.stripes.identity import mark_later, run_identities, sum_identities
from latewood.stripes.layout import (
    DELAY,
    EVENT_TS,
    NEVER_CLEAN,
    ORDINAL,
    PAYLOAD,
    STRIPE_EVENTS,
    STRIPE_FIRST_TS,
    SUPERSEDED,
)
from latewood.stripes.stripe import decode_superseded, decode_values, sum_steps, verify_block

# Whole rows are written, and running sums begin with 0. Not a power of two: the parts would fall on each other in caches.
_ROOM = STRIPE_EVENTS + 16
TIMES, DELAYS, ORDINALS, SUPERSEDED_AT, SUMS, STEPS, HOLES, NOTE = (8 * _ROOM * part for part in range(8))  # in bytes
DAMAGED, OF_TABLE, OF_USER, OF_STRIPE, LIES, LEVEL, HAS_SUPERSEDED, ALIKE = range(8)
_BARE, _WHOLE, _ASKED, _SUMMED = range(4)  # levels: times; all columns; a sum was asked for; running sums lie there
NOWHERE = -1
FIRST_NOTE = NOTE // 8
_ALIKE_FIELDS = 2  # of a column: whether its rows are all alike, and what they are
_OTHER = NOTE + 8 * (ALIKE + _ALIKE_FIELDS * (ORDINAL + 1))  # room for a place
WORDS = _OTHER // 8 + PLACE_WORDS


def new_desk() -> NDArray[np.int64]:
    """An empty desk. Not made in the kernels: numba would free what it sees only the address of.

    Only the note says something yet: to fill the rest would push everything else out of the nearest cache.
    """
    desk = np.empty(WORDS, np.int64)
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
def is_damaged(desk: Any) -> Any:
    """Whether a broken block was met: then nothing else is laid out, and the note says which it was."""
    return noted(desk, DAMAGED) != NOWHERE


@kernel
def note_damage(place: Any, column: Any, desk: Any) -> None:
    """Note that the block of a column of a stripe is broken."""
    write_note(desk, DAMAGED, column)
    write_note(desk, OF_TABLE, placed(place, TABLE))
    write_note(desk, OF_USER, placed(place, USER))
    write_note(desk, OF_STRIPE, placed(place, STRIPE))


@kernel
def time_at(desk: Any, row: Any) -> Any:
    """event_ts of a row on the desk."""
    return load_i64(desk + uint64(TIMES) + uint64(8) * row)


@kernel
def ingest_at(desk: Any, row: Any) -> Any:
    """ingest_ts of a row on the desk."""
    return time_at(desk, row) + load_i64(desk + uint64(DELAYS) + uint64(8) * row)


@kernel
def ordinal_at(desk: Any, row: Any) -> Any:
    """The ordinal of a row on the desk."""
    return load_i32(desk + uint64(ORDINALS) + uint64(4) * row)


@kernel
def superseded_at(desk: Any, row: Any) -> Any:
    """When a row on the desk was superseded."""
    return load_i64(desk + uint64(SUPERSEDED_AT) + uint64(8) * row)


@kernel
def is_visible(desk: Any, row: Any, watermark: Any) -> Any:
    """Whether a row on the desk was known before the watermark, and nothing that supersedes it."""
    return ingest_at(desk, row) < watermark <= superseded_at(desk, row)


@kernel
def place_of(end: Any, stripe: Any, desk: Any) -> Any:
    """The place of a stripe of the user in whose history `end` is one: that one, or in the desk's room for another."""
    if stripe == placed(end, STRIPE):
        return end
    other = desk + uint64(_OTHER)
    write_place(placed(end, TABLE), placed(end, USER), stripe, other)
    return other


@kernel
def is_broken(place: Any, column: Any, desk: Any) -> Any:
    """Whether a stripe's block of a column is not as it was written; then that is noted."""
    if load_u8(mark_of(place, column)):
        return False
    if verify_block(placed(place, TABLE), placed(place, USER), uint64(column), placed(place, STRIPE)) == uint64(0):
        return False
    note_damage(place, column, desk)
    return True


@kernel
def lay_out_times(place: Any, desk: Any) -> Any:
    """Put a stripe's times on the desk unless they lie there. Returns how many events it has; 0 if damaged."""
    if is_damaged(desk):
        return uint64(0)
    events, record = placed(place, EVENTS), placed(place, RECORD)
    if uint64(noted(desk, LIES)) != record:
        if is_broken(place, EVENT_TS, desk):
            return uint64(0)
        first = load_u64(record + uint64(STRIPE_FIRST_TS))
        steps, times = desk + uint64(STEPS), desk + uint64(TIMES)
        sum_steps(placed(place, TABLE), entry_at(place, EVENT_TS), events, first, uint64(0), events, steps, times)
        write_note(desk, LIES, record)
        write_note(desk, LEVEL, _BARE)
        write_note(desk, HAS_SUPERSEDED, 0)
    return events


@kernel
def lay_out_columns(place: Any, desk: Any) -> Any:
    """Put all that identities depend on on the desk unless it lies there. Returns how many events; 0 if damaged."""
    events = lay_out_times(place, desk)
    if events == uint64(0) or noted(desk, LEVEL) != _BARE:
        return events
    if is_broken(place, DELAY, desk) or is_broken(place, ORDINAL, desk):
        return uint64(0)
    _decode(place, DELAY, uint64(8), desk + uint64(DELAYS), desk)
    _decode(place, ORDINAL, uint64(4), desk + uint64(ORDINALS), desk)
    write_note(desk, LEVEL, _WHOLE)
    return events


@kernel
def _decode(place: Any, column: Any, itemsize: Any, out: Any, desk: Any) -> None:
    """A whole column to its room on the desk.

    Where all its values are alike, as delays often are and ordinals nearly always, chances are that they lie there already.
    """
    table, entry, events = placed(place, TABLE), entry_at(place, column), placed(place, EVENTS)
    field, is_alike = uint64(ALIKE) + uint64(_ALIKE_FIELDS) * uint64(column), is_constant(entry)
    if is_alike:
        value = load_u64(table_field(table, PAYLOAD) + entry_offset(entry)) if entry_has_reference(entry) else uint64(0)
        if noted(desk, field) == 1 and uint64(noted(desk, field + uint64(1))) == value:
            return
        write_note(desk, field + uint64(1), value)
        events = uint64(STRIPE_EVENTS)  # for whatever stripe comes next
    write_note(desk, field, is_alike)
    decode_values(table, entry, events, itemsize, uint64(0), events, out)


@kernel
def lay_out(place: Any, desk: Any) -> Any:
    """Put all that visibility depends on on the desk unless it lies there. Returns how many events; 0 if damaged.

    When rows were superseded is read only where the record says that one was.
    """
    events = lay_out_columns(place, desk)
    if events == uint64(0) or noted(desk, HAS_SUPERSEDED) == 1:
        return events
    table, stripe, out = placed(place, TABLE), placed(place, STRIPE), desk + uint64(SUPERSEDED_AT)
    if latest_ingest_of(place, stripe) == NEVER_CLEAN:
        if decode_superseded(table, placed(place, USER), stripe, out):
            note_damage(place, table_field(table, SUPERSEDED), desk)
            return uint64(0)
    else:
        for row in range(events):
            store_u64(out + uint64(8) * uint64(row), uint64(NEVER))
    write_note(desk, HAS_SUPERSEDED, 1)
    return events


@kernel
def mark_holes(place: Any, stop: Any, watermark: Any, desk: Any) -> Any:
    """Note on the desk which of the rows [0, stop) of a stripe are not visible. Returns: 0 where all are, or if damaged."""
    if lay_out_columns(place, desk) == uint64(0):
        return uint64(0)
    holes = desk + uint64(HOLES)
    found = mark_later(desk + uint64(TIMES), desk + uint64(DELAYS), stop, watermark, holes)
    if latest_ingest_of(place, placed(place, STRIPE)) == NEVER_CLEAN:
        if lay_out(place, desk) == uint64(0):
            return uint64(0)
        for row in range(stop):
            if superseded_at(desk, row) < watermark:
                at = holes + (uint64(row) >> uint64(3))
                store_u8(at, load_u8(at) | (uint64(1) << (uint64(row) & uint64(7))))
                found = uint64(1)
    return found


@kernel
def hole_before(stop: Any, desk: Any) -> Any:
    """One more than the last of the rows [0, stop) that is not visible, as `mark_holes` found; 0 if all are."""
    return _marked_before(stop, desk, uint64(0))


@kernel
def visible_before(stop: Any, desk: Any) -> Any:
    """One more than the last of the rows [0, stop) that is visible, as `mark_holes` found; 0 if none is."""
    return _marked_before(stop, desk, ~uint64(0))


@kernel
def _marked_before(stop: Any, desk: Any, flipped: Any) -> Any:
    marks, word = desk + uint64(HOLES), stop & ~uint64(63)
    bits = (load_u64(marks + (word >> uint64(3))) ^ flipped) & ((uint64(1) << (stop & uint64(63))) - uint64(1))
    while bits == uint64(0) and word:
        word -= uint64(64)
        bits = load_u64(marks + (word >> uint64(3))) ^ flipped
    return word + bit_length(bits) if bits else uint64(0)


@kernel
def sum_rows(place: Any, seed: Any, first: Any, last: Any, desk: Any) -> Any:
    """The sum of the identities of the rows [first, last) of a stripe, visible or not; any number if damaged.

    Where that is less work it is the sum of all, which the index knows, less that of the others.
    """
    stripe, events = placed(place, STRIPE), placed(place, EVENTS)
    if first == last:
        return uint64(0)
    of_all = identities_before(place, stripe + uint64(1)) - identities_before(place, stripe)
    if last - first == events:
        return of_all
    if lay_out_columns(place, desk) == uint64(0):
        return uint64(0)
    if noted(desk, LEVEL) == _WHOLE:
        write_note(desk, LEVEL, _ASKED)
        if uint64(2) * (last - first) <= events:
            return _sum_part(seed, first, last, desk)
        others = _sum_part(seed, last, events, desk)
        if first:  # hardly ever: requests begin where the history does
            others += _sum_part(seed, uint64(0), first, desk)
        return of_all - others
    sums = desk + uint64(SUMS)
    if noted(desk, LEVEL) == _ASKED:
        run_identities(seed, desk + uint64(TIMES), desk + uint64(DELAYS), desk + uint64(ORDINALS), events, sums)
        write_note(desk, LEVEL, _SUMMED)
    return load_u64(sums + (last << uint64(3))) - load_u64(sums + (first << uint64(3)))


@kernel
def _sum_part(seed: Any, first: Any, last: Any, desk: Any) -> Any:
    wide, narrow = desk + (first << uint64(3)), desk + (first << uint64(2))
    times, delays, ordinals = wide + uint64(TIMES), wide + uint64(DELAYS), narrow + uint64(ORDINALS)
    return sum_identities(seed, times, delays, ordinals, last - first)
