"""Rank: where events that are not stored belong among a pointer's rows, while the stripe that tells lies on the desk.

An example's recent event can be older than its last stored one: it happened early, arrived late, and no compaction has
seen it yet. Its *rank* is how many of the rows that the pointer means sort before it (docs/protocol.md R4). The walk that
found those rows has just laid out the stripe that most ranks are told by, so that it asks here before it goes on.
"""

from typing import Any

from numba import uint64

from latewood.immutable.desk import ingest_at, lay_out_columns, lay_out_times, ordinal_at, place_of, time_at
from latewood.immutable.places import first_ts_of
from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64
from latewood.stripes.layout import STRIPE_EVENTS

_ROWS = STRIPE_EVENTS


@kernel
def first_row_from(desk: Any, low: Any, high: Any, event_ts: Any) -> Any:
    """The first row on the desk, of [low, high), that is not before a time; `high` if all are."""
    count = high - low
    # Without a branch that the processor could guess wrong: half of what is left lies before the time, or it does not.
    while count > uint64(0):
        half = count >> uint64(1)
        is_before = uint64(time_at(desk, low + half) < event_ts)
        low += is_before * (half + uint64(1))
        count = is_before * (count - half - uint64(1)) + (uint64(1) - is_before) * half
    return low


@kernel
def rank_events(end: Any, rows: Any, events: Any, runs: Any, desk: Any) -> None:
    """Write the ranks of events, which are in the total order, among the visible rows of a pointer.

    Args:
        rows: their hull [start, stop), how many they are, and the time of the last.
        events: order (3, m) and ranks (m,), which of them: [first, last), and how many rows and events are wanted at most.
        runs: as of `push_run`: where they lie, for how many there is room, and which are the pointer's, the newest first.
    """
    start, row, count, last_ts = rows
    order, ranks, first, last, wanted = events
    starts, room, run, oldest = runs
    before, at = count, last
    while at > first and order[0, at - 1] > last_ts:
        at -= 1
        ranks[at] = count
    if at > first and wanted < count:
        start = _oldest_wanted(start, runs, wanted)
    while at > first:
        at -= 1
        row = _rows_before(end, start, row, order[0, at], order[1, at], order[2, at], desk)
        while run < oldest and load_u64(starts + (run << uint64(3))) >= row:
            before -= load_u64(starts + ((room + run) << uint64(3)))
            run += uint64(1)
        behind = uint64(0)  # rows of the run that `row` lies in
        if run < oldest:
            stop = load_u64(starts + (run << uint64(3))) + load_u64(starts + ((room + run) << uint64(3)))
            behind = stop - min(row, stop)
        ranks[at] = before - behind


@kernel
def _oldest_wanted(start: Any, runs: Any, wanted: Any) -> Any:
    """The oldest of the `wanted` newest rows. What sorts before it is wanted by nobody, be its rank what it may."""
    starts, room, run, oldest = runs
    while run < oldest:
        length = load_u64(starts + ((room + run) << uint64(3)))
        if length >= wanted:
            return load_u64(starts + (run << uint64(3))) + length - wanted
        wanted -= length
        run += uint64(1)
    return start


@kernel
def _rows_before(end: Any, start: Any, stop: Any, event_ts: Any, ingest_ts: Any, ordinal: Any, desk: Any) -> Any:
    """The first of the rows [start, stop) of the user of `end` that does not sort before an event; `stop` if all do."""
    while stop > start:
        stripe = (stop - uint64(1)) // uint64(_ROWS)
        base = stripe * uint64(_ROWS)
        first = max(start, base)
        if first_ts_of(end, stripe) <= event_ts:
            place = place_of(end, stripe, desk)
            if lay_out_times(place, desk) == uint64(0):
                break
            row, high = first_row_from(desk, first - base, stop - base, event_ts), stop - base
            if row < high and time_at(desk, row) == event_ts:  # then their times alone do not tell
                if lay_out_columns(place, desk) == uint64(0):
                    break
                while row < high:
                    middle = (row + high) >> uint64(1)
                    if _is_before(desk, middle, event_ts, ingest_ts, ordinal):
                        row = middle + uint64(1)
                    else:
                        high = middle
            if row > first - base:
                return base + row
        stop = first
    return stop


@kernel
def _is_before(desk: Any, row: Any, event_ts: Any, ingest_ts: Any, ordinal: Any) -> Any:
    """Whether a row on the desk sorts before an event in the total order."""
    if time_at(desk, row) != event_ts:
        return time_at(desk, row) < event_ts
    if ingest_at(desk, row) != ingest_ts:
        return ingest_at(desk, row) < ingest_ts
    return ordinal_at(desk, row) < ordinal
