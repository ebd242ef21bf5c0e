"""The kernels behind `resolve`: whole batches of requests or pointers against all shards of a generation.

Like finding a line in a shelf of diaries: the address table names the shelf, the user index the diary, the stripe index
the chapter (binary search over first times), and one decoded stripe the line. From that line the walk goes back, stripe
by stripe. A stripe whose latest ingest lies before the watermark is *clean* and counts as a whole, by its record alone:
its checksum is the difference of two running sums. Another, and the one where a range begins or ends inside, is laid out
on the desk (desk.py), and its invisible rows are marked, eight at a time. A stripe with a superseded row is never clean,
so that nobody looks for them elsewhere.

A batch is gone through twice, once for the index and once for the payload, so that each time what a later request needs
can be prefetched (ahead.py). The first time notes of each request where all that belongs to the stripe of its end lies
(places.py), for the second to go by. No kernel between takes an array, but what ranks recent events: numba counts the
references to each at every call.

Every number from disk that these kernels follow was checked when the shard was opened. Payload checksums are verified
as blocks are decoded; a kernel that meets a broken one stops, and its note says which.
"""

from typing import Any

import numpy as np
from numba import uint64

from latewood.clock import EARLIEST_TS
from latewood.immutable import ahead
from latewood.immutable.desk import (
    hole_before,
    ingest_at,
    is_damaged,
    is_visible,
    lay_out,
    lay_out_columns,
    lay_out_times,
    mark_holes,
    ordinal_at,
    place_of,
    sum_rows,
    time_at,
    visible_before,
)
from latewood.immutable.lookup import locate
from latewood.immutable.places import (
    BEFORE,
    EVENTS,
    IS_NEW,
    PLACE_BYTES,
    RECORD,
    STRIPE,
    TABLE,
    USER,
    first_ts_of,
    identities_before,
    latest_ingest_of,
    latest_until_of,
    placed,
    put,
    write_place,
)
from latewood.immutable.rank import first_row_from, rank_events
from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, load_i64, load_u64, store_u64
from latewood.stripes.entries import stripe_record, user_events, user_stripes
from latewood.stripes.identity import seed_of, seeded_identity
from latewood.stripes.layout import STRIPE_BYTES, STRIPE_EVENTS, STRIPE_FIRST_TS, TABLE_FIELDS

ALL = np.iinfo(np.int64).max  # as a wanted length: no limit

ANY = np.iinfo(np.int64).min  # as a watermark: whatever is stored will do

# Statuses of a pointer: see resolve.Status.
OK, UNKNOWN_USER, SHORT, CHECKSUM, NEWER = range(5)

# What `resolve` finds out of each pointer, a row each; the checksums' bits as int64.
START, STOP, GIVEN, LAST_TS, FOUND, SUM = range(6)
FINDINGS = 6

_ROWS = STRIPE_EVENTS  # rows of a stripe
_TABLE_BYTES = 8 * TABLE_FIELDS


@kernel
def stripes_before(table: Any, user: Any, end_ts: Any) -> Any:
    """How many of a user's stripes begin before a time: the place of that time lies in the last of them."""
    times = stripe_record(table, user, uint64(0)) + uint64(STRIPE_FIRST_TS)
    low, high = uint64(0), uint64(user_stripes(table, user))
    if load_i64(times + (high - uint64(1)) * uint64(STRIPE_BYTES)) < end_ts:
        return high  # live requests end after all that is stored
    while low < high:
        middle = (low + high) >> uint64(1)
        if load_i64(times + middle * uint64(STRIPE_BYTES)) < end_ts:
            low = middle + uint64(1)
        else:
            high = middle
    return low


@kernel
def find_ends(tables: Any, shard: Any, user: Any, end_ts: Any, places: Any) -> None:
    """For each request, how many stripes begin before its end, and the place of the last of them; if none, of the first."""
    rows, place, last = address_of(tables), address_of(places), uint64(0)
    for i in range(len(user)):
        later = i + ahead.RECORDS
        if later < len(user) and user[later] >= 0:
            ahead.records(rows + uint64(shard[later]) * uint64(_TABLE_BYTES), uint64(user[later]))
        put(place, BEFORE, uint64(0))
        put(place, IS_NEW, uint64(0))
        if user[i] >= 0:
            table, u = rows + uint64(shard[i]) * uint64(_TABLE_BYTES), uint64(user[i])
            before = stripes_before(table, u, end_ts[i])
            write_place(table, u, max(before, uint64(1)) - uint64(1), place)
            put(place, BEFORE, before)
            record = placed(place, RECORD)
            if before and record != last:
                put(place, IS_NEW, uint64(1))
                last = record
        place += uint64(PLACE_BYTES)


@kernel
def end_before(end: Any, end_ts: Any, desk: Any) -> Any:
    """How many of a user's rows have event_ts < end_ts, given the place that was found for it."""
    if placed(end, BEFORE) == uint64(0):
        return uint64(0)
    return placed(end, STRIPE) * uint64(_ROWS) + first_row_from(desk, uint64(0), lay_out_times(end, desk), end_ts)


@kernel
def time_of(end: Any, row: Any, desk: Any) -> Any:
    """A row's event_ts; free where a stripe begins."""
    stripe, at = row // uint64(_ROWS), row % uint64(_ROWS)
    if at == uint64(0):
        return first_ts_of(end, stripe)
    lay_out_times(place_of(end, stripe, desk), desk)
    return time_at(desk, at)


@kernel
def ties_before(end: Any, row: Any, end_ts: Any, anchor: Any, watermark: Any, desk: Any) -> Any:
    """Of the rows at `end_ts`, from `row` on, those that sort before an anchor: how many are visible, and their end."""
    anchor_ingest, anchor_ordinal = anchor
    events, count, stop = user_events(placed(end, TABLE), placed(end, USER)), uint64(0), row
    while row < events:
        at = row % uint64(_ROWS)
        if lay_out(place_of(end, row // uint64(_ROWS), desk), desk) == uint64(0):
            break
        ingest = ingest_at(desk, at)
        sorts_before = ingest < anchor_ingest or (ingest == anchor_ingest and ordinal_at(desk, at) < anchor_ordinal)
        if time_at(desk, at) != end_ts or not sorts_before or ingest >= watermark:
            break
        row += uint64(1)
        if is_visible(desk, at, watermark):
            count, stop = count + uint64(1), row
    return count, stop


@kernel
def end_of_ties(end: Any, row: Any, ties: Any, end_ts: Any, watermark: Any, desk: Any) -> Any:
    """The end of the first `ties` visible rows at `end_ts`, from `row` on; 0 where there are fewer."""
    events = user_events(placed(end, TABLE), placed(end, USER))
    while row < events:
        stripe, at = row // uint64(_ROWS), row % uint64(_ROWS)
        place = place_of(end, stripe, desk)
        rows = placed(place, EVENTS)
        if latest_ingest_of(place, stripe) < watermark:  # all are visible: the last one tells
            taken = min(ties, rows - at)
            if lay_out_times(place, desk) == uint64(0):
                return uint64(0)
            if time_at(desk, at + taken - uint64(1)) != end_ts:
                return uint64(0)
            row, ties = row + taken, ties - taken
            if ties == uint64(0):
                return row
            continue
        if lay_out(place, desk) == uint64(0):
            return uint64(0)
        while at < rows and time_at(desk, at) == end_ts:
            row, at = row + uint64(1), at + uint64(1)
            if is_visible(desk, at - uint64(1), watermark):
                ties -= uint64(1)
                if ties == uint64(0):
                    return row
        if at < rows:
            return uint64(0)
    return uint64(0)


@kernel
def sum_all_clean(end: Any, seed: Any, start: Any, stop: Any, desk: Any) -> Any:
    """The sum of the identities of the rows [start, stop) where all stripes are clean: the ends, and between the index."""
    first, last = start // uint64(_ROWS), (stop - uint64(1)) // uint64(_ROWS)
    from_first, to_last = start - first * uint64(_ROWS), stop - last * uint64(_ROWS)
    if first == last:
        return sum_rows(place_of(end, first, desk), seed, from_first, to_last, desk)
    if from_first == uint64(0) and to_last == uint64(_ROWS):
        return identities_before(end, last + uint64(1)) - identities_before(end, first)
    # the last first: its times lie on the desk
    total = sum_rows(place_of(end, last, desk), seed, uint64(0), to_last, desk)
    total += identities_before(end, last) - identities_before(end, first + uint64(1))
    return total + sum_rows(place_of(end, first, desk), seed, from_first, uint64(_ROWS), desk)


@kernel
def push_run(runs: Any, room: Any, at: Any, continues: Any, start: Any, stop: Any) -> Any:
    """Add a run before those that there are, or let it continue the last one. Returns: how many there are now.

    Runs past the room are only counted.

    Args: runs: where their starts lie, and behind room for `room` of these their lengths.
    """
    if continues:
        at -= uint64(1)
    if at < room:
        length = runs + ((room + at) << uint64(3))
        store_u64(length, stop - start + (load_u64(length) if continues else uint64(0)))
        store_u64(runs + (at << uint64(3)), start)
    return at + uint64(1)


@kernel
def walk_back(
    end: Any, seed: Any, row: Any, wanted: Any, watermark: Any, runs: Any, room: Any, at: Any, desk: Any
) -> Any:
    """Take the newest `wanted` visible rows before `row`, stripe by stripe as far as any of the rest may be invisible.

    Returns: how many there are, the sum of their identities, their hull [start, stop), the time of the last, and the number
    of runs, to which theirs were added, the newest first.
    """
    count, total, start, stop, last_ts = uint64(0), uint64(0), row, row, EARLIEST_TS - 1
    while row > uint64(0) and count < wanted:
        stripe = (row - uint64(1)) // uint64(_ROWS)
        if latest_until_of(end, stripe) < watermark:  # nearly always at once: all that is left is visible
            break
        base, top, place = stripe * uint64(_ROWS), row, place_of(end, stripe, desk)
        # not clean is this stripe, or only one before it
        has_holes = latest_ingest_of(end, stripe) >= watermark and mark_holes(place, row - base, watermark, desk)
        if has_holes:
            top = base + visible_before(row - base, desk)
        low = max(base, top - min(top, wanted - count))
        total += sum_rows(place, seed, low - base, top - base, desk)
        if is_damaged(desk):
            return count, total, start, stop, last_ts, at
        if count == uint64(0) and top > low:
            stop, last_ts = top, time_of(end, top - uint64(1), desk)
        while top > low:
            bottom = max(low, base + hole_before(top - base, desk)) if has_holes else low
            at = push_run(runs, room, at, count > uint64(0) and top == start, bottom, top)
            start, count, top = bottom, count + top - bottom, bottom
            if bottom > low:
                top = max(low, base + visible_before(bottom - base, desk))
                for hole in range(top - base, bottom - base):
                    at_hole = time_at(desk, hole), ingest_at(desk, hole), ordinal_at(desk, hole)
                    total -= seeded_identity(seed, *at_hole)
        row = low
    if row > uint64(0) and count < wanted:
        low = row - min(row, wanted - count)
        total += sum_all_clean(end, seed, low, row, desk)
        if count == uint64(0):
            stop, last_ts = row, time_of(end, row - uint64(1), desk)
        at = push_run(runs, room, at, count > uint64(0) and row == start, low, row)
        start, count = low, count + row - low
    return count, total, start if count else stop, stop, last_ts, at


@kernel
def any_unknown(end: Any, stop: Any, watermark: Any, desk: Any) -> Any:
    """Whether any of the rows before `stop` was not known before the watermark; else superseding hides what is hidden."""
    for row in range(stop):
        stripe, at = uint64(row) // uint64(_ROWS), uint64(row) % uint64(_ROWS)
        if lay_out_columns(place_of(end, stripe, desk), desk) == uint64(0) or ingest_at(desk, at) >= watermark:
            return True
    return False


@kernel
def measure(tables: Any, keys: Any, located: Any, requests: Any, out: Any, places: Any, desk_array: Any) -> None:
    """See `resolve.measure`. What went wrong is noted on the desk."""
    hashes, checks = keys
    shard, user = located
    end_ts, watermark, tie_ingest, tie_ordinal = requests
    start_ts, end_ties, length, checksum, stored_before = out
    desk, first, none = address_of(desk_array), address_of(places), uint64(0)
    find_ends(tables, shard, user, end_ts, places)
    for i in range(len(user)):
        ahead.ends(first, uint64(i), uint64(len(user)))
        if user[i] < 0:
            continue
        end, seed = first + uint64(i) * uint64(PLACE_BYTES), seed_of(hashes[i], checks[i])
        row = end_before(end, end_ts[i], desk)
        stored_before[i] = row
        if tie_ingest[i] >= EARLIEST_TS:
            anchor = (tie_ingest[i], tie_ordinal[i])
            end_ties[i], row = ties_before(end, row, end_ts[i], anchor, watermark[i], desk)
        count, total, start, _, _, _ = walk_back(end, seed, row, uint64(ALL), watermark[i], none, none, none, desk)
        if count:
            start_ts[i] = time_of(end, start, desk)
        elif not any_unknown(end, uint64(stored_before[i]), watermark[i], desk):
            stored_before[i] = 0
        length[i], checksum[i] = count, total
        if is_damaged(desk):
            break


@kernel
def resolve(
    tables: Any,
    keys: Any,
    located: Any,
    pointers: Any,
    unstored: Any,
    newest: Any,
    partly: Any,
    status: Any,
    out: Any,
    offsets: Any,
    runs: Any,
    places: Any,
    desk_array: Any,
) -> None:
    """See `resolve.resolve`. What went wrong is noted on the desk.

    Args:
        located: (n,) each, filled in: where each user is.
        unstored: events to be ranked among those that each pointer means: see `Unstored`.
        newest: the generation's watermark; pointers with a later one are not looked up.
        partly: of pointers that find fewer events than they mean, give the rows of those found.
        status, out: (n,), (FINDINGS, n), written for every pointer.
        offsets, runs: (n + 1,), (2, room): each pointer's runs, oldest first, at least one, which may be empty. If there
            was not room enough, offsets[n] tells what is needed, and the runs mean nothing.
        places: room for `PLACE_WORDS` of each.
    """
    hashes, checks = keys
    shard, user = located
    watermark, start_ts, end_ts, end_ties, length, checksum = pointers
    desk, first, at, count = address_of(desk_array), address_of(places), uint64(0), uint64(len(user))
    starts, room = address_of(runs), uint64(runs.shape[1])
    event_offsets, order, ranks, reach = unstored
    locate(tables, hashes, checks, shard, user)
    find_ends(tables, shard, user, end_ts, places)
    for i in range(len(user)):
        ahead.ends(first, uint64(i), count)
        near = i + ahead.BYTES
        if near < len(user) and user[near] >= 0:
            has_events = len(event_offsets) > 0 and event_offsets[near] < event_offsets[near + 1]
            oldest = order[0, event_offsets[near]] if has_events else ALL
            ahead.stripe_before(first, uint64(near), watermark[near], oldest)
        before, start, stop, found, total, last_ts = at, uint64(0), uint64(0), uint64(0), uint64(0), EARLIEST_TS - 1
        status[i], wanted = OK, uint64(max(length[i], 0))
        if watermark[i] > newest:
            status[i] = NEWER
        elif wanted == uint64(0):
            status[i] = CHECKSUM if checksum[i] else OK
        elif user[i] < 0:
            status[i] = UNKNOWN_USER
        else:
            end, seed = first + uint64(i) * uint64(PLACE_BYTES), seed_of(hashes[i], checks[i])
            meant = (watermark[i], start_ts[i], end_ts[i], uint64(end_ties[i]), wanted, checksum[i])
            status[i], start, stop, last, found, total, pushed = find_meant(
                end, seed, meant, partly, starts, room, at, desk
            )
            if stop > start:
                at, last_ts = pushed, last
                if len(event_offsets) and at <= room:
                    events = order, ranks, event_offsets[i], event_offsets[i + 1], uint64(reach)
                    rank_events(end, (start, stop, found, last), events, (starts, room, before, at), desk)
            if is_damaged(desk):
                break
        is_given = stop > start
        out[START, i] = start if is_given else uint64(0)
        out[STOP, i] = stop if is_given else uint64(0)
        out[GIVEN, i] = found if is_given else uint64(0)
        out[LAST_TS, i], out[FOUND, i], out[SUM, i] = last_ts, found, total
        offsets[i] = before
        if at == before:
            at = push_run(starts, room, at, False, uint64(0), uint64(0))
        elif at - before > uint64(1) and at <= room:
            turn_around(starts, room, before, at)
    offsets[len(user)] = at


@kernel
def find_meant(end: Any, seed: Any, meant: Any, partly: Any, runs: Any, room: Any, at: Any, desk: Any) -> Any:
    """What a pointer means.

    Returns: its status, the hull, empty where none is to be given, the time of its last row, the count and checksum
    found, and the number of runs.
    """
    watermark, start_ts, end_ts, ties, wanted, checksum = meant
    row, status = end_before(end, end_ts, desk), OK
    if ties:
        tied = end_of_ties(end, row, ties, end_ts, watermark, desk)
        row, status = (tied, OK) if tied else (row, SHORT)
    count, total, start, stop, last_ts, at = walk_back(end, seed, row, wanted, watermark, runs, room, at, desk)
    is_given = status == OK
    if count < wanted:
        status, is_given = SHORT, is_given and partly
    elif total != checksum:
        status, is_given = CHECKSUM, False
    elif time_of(end, start, desk) < start_ts:
        status, is_given = SHORT, False
    return status, start, stop if is_given else start, last_ts, count, total, at


@kernel
def turn_around(runs: Any, room: Any, start: Any, stop: Any) -> None:
    """Turn the order of the runs [start, stop) around; see `push_run`."""
    for part in range(2):
        low, high = (
            runs + ((start + uint64(part) * room) << uint64(3)),
            runs + ((stop + uint64(part) * room) << uint64(3)),
        )
        high -= uint64(8)
        while low < high:
            value = load_u64(low)
            store_u64(low, load_u64(high))
            store_u64(high, value)
            low, high = low + uint64(8), high - uint64(8)


@kernel
def find_rows(tables: Any, located: Any, events: Any, watermark: Any, out: Any, places: Any, desk_array: Any) -> None:
    """See `resolve.find_rows`. What went wrong is noted on the desk."""
    shard, user = located
    event_ts, ingest_ts, ordinal = events
    desk, first = address_of(desk_array), address_of(places)
    find_ends(tables, shard, user, event_ts, places)
    for i in range(len(user)):
        ahead.ends(first, uint64(i), uint64(len(user)))
        out[i] = -1
        if user[i] < 0:
            continue
        end = first + uint64(i) * uint64(PLACE_BYTES)
        row, stop = end_before(end, event_ts[i], desk), user_events(placed(end, TABLE), placed(end, USER))
        while row < stop and lay_out(place_of(end, row // uint64(_ROWS), desk), desk):
            at = row % uint64(_ROWS)
            if time_at(desk, at) != event_ts[i] or ingest_at(desk, at) > ingest_ts[i]:
                break
            if ingest_at(desk, at) == ingest_ts[i] and ordinal_at(desk, at) == ordinal[i]:
                if watermark[i] == ANY or is_visible(desk, at, watermark[i]):
                    out[i] = row
                break
            row += uint64(1)
        if is_damaged(desk):
            break
