"""The kernels behind `resolve`: whole batches of requests or pointers against all shards of a generation.

Like finding a line in a shelf of diaries: the address table names the shelf, the user index the diary, the stripe index
the chapter (binary search over first times), and one decoded stripe the line. From that line the walk goes back, stripe
by stripe. A stripe whose latest ingest lies before the watermark is *clean* and counts as a whole, by its record alone:
its checksum is the difference of two running sums. Another, and the one where a range begins or ends inside, is laid out
on the desk (desk.py) and each row is looked at. A stripe with a superseded row is never clean, so that nobody looks for
them elsewhere.

A batch is gone through twice, once for the index and once for the payload, so that each time what a later request needs
can be prefetched.

Every number from disk that these kernels follow was checked when the shard was opened. Payload checksums are verified
as blocks are decoded; a kernel that meets a broken one stops, and its note says which.
"""

from typing import Any

import numpy as np
from numba import int64, uint64

from latewood.clock import EARLIEST_TS
from latewood.immutable import ahead
from latewood.immutable.desk import (
    DAMAGED,
    INGESTS,
    IS_WHOLE,
    NOWHERE,
    ORDINALS,
    SUPERSEDED_AT,
    TIMES,
    hole_at,
    ingest_at,
    is_visible,
    lay_out,
    lay_out_times,
    noted,
    ordinal_at,
    superseded_at,
    time_at,
    write_hole,
    write_note,
)
from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, load_u64
from latewood.stripes.entries import (
    first_entry,
    first_ts,
    identity_before,
    latest_ingest,
    latest_until,
    stripe_events,
    table_field,
    user_events,
    user_stripes,
)
from latewood.stripes.identity import identity, sum_identities
from latewood.stripes.layout import DELAY, NEVER_CLEAN, ORDINAL, STRIPE_EVENTS, SUPERSEDED
from latewood.stripes.stripe import decode_superseded, decode_values, table_at, verify_block

ALL = np.iinfo(np.int64).max  # as a wanted length: no limit

ANY = np.iinfo(np.int64).min  # as a watermark: whatever is stored will do

# Statuses of a pointer: see resolve.Status.
OK, UNKNOWN_USER, SHORT, CHECKSUM = range(4)


@kernel
def stripes_before(table: Any, user: Any, end_ts: Any) -> Any:
    """How many of a user's stripes begin before a time: the place of that time lies in the last of them."""
    low, high = uint64(0), uint64(user_stripes(table, user))
    if high and first_ts(table, user, high - uint64(1)) < end_ts:
        return high  # live requests end after all that is stored
    while low < high:
        middle = (low + high) >> uint64(1)
        if first_ts(table, user, middle) < end_ts:
            low = middle + uint64(1)
        else:
            high = middle
    return low


@kernel
def find_ends(tables: Any, shard: Any, user: Any, end_ts: Any) -> Any:
    """For each request, how many stripes begin before its end."""
    stripes = np.zeros(len(user), np.uint64)
    for i in range(len(user)):
        ahead.records(tables, shard, user, i)
        if user[i] >= 0:
            stripes[i] = stripes_before(table_at(tables, shard[i]), uint64(user[i]), end_ts[i])
    return stripes


@kernel
def end_before(table: Any, user: Any, stripes: Any, end_ts: Any, desk: Any) -> Any:
    """How many of a user's rows have event_ts < end_ts, given how many stripes begin before it."""
    if stripes == uint64(0):
        return uint64(0)
    low, high = uint64(0), lay_out_times(table, user, stripes - uint64(1), desk)
    while low < high:
        middle = (low + high) >> uint64(1)
        if time_at(desk, middle) < end_ts:
            low = middle + uint64(1)
        else:
            high = middle
    return (stripes - uint64(1)) * uint64(STRIPE_EVENTS) + low


@kernel
def time_of(table: Any, user: Any, row: Any, desk: Any) -> Any:
    """A row's event_ts; free where a stripe begins."""
    stripe, place = row // uint64(STRIPE_EVENTS), row % uint64(STRIPE_EVENTS)
    if place == uint64(0):
        return first_ts(table, user, stripe)
    lay_out_times(table, user, stripe, desk)
    return time_at(desk, place)


@kernel
def ties_before(table: Any, user: Any, row: Any, end_ts: Any, anchor: Any, watermark: Any, desk: Any) -> Any:
    """Of the rows at `end_ts`, from `row` on, those that sort before an anchor: how many are visible, and their end."""
    anchor_ingest, anchor_ordinal = anchor
    events, count, end = user_events(table, user), uint64(0), row
    while row < events:
        place = row % uint64(STRIPE_EVENTS)
        if lay_out(table, user, row // uint64(STRIPE_EVENTS), desk) == uint64(0):
            break
        ingest = ingest_at(desk, place)
        sorts_before = ingest < anchor_ingest or (ingest == anchor_ingest and ordinal_at(desk, place) < anchor_ordinal)
        if time_at(desk, place) != end_ts or not sorts_before or ingest >= watermark:
            break
        row += uint64(1)
        if is_visible(desk, place, watermark):
            count, end = count + uint64(1), row
    return count, end


@kernel
def end_of_ties(table: Any, user: Any, row: Any, ties: Any, end_ts: Any, watermark: Any, desk: Any) -> Any:
    """The end of the first `ties` visible rows at `end_ts`, from `row` on; 0 where there are fewer."""
    events = user_events(table, user)
    while row < events:
        stripe, place = row // uint64(STRIPE_EVENTS), row % uint64(STRIPE_EVENTS)
        rows = stripe_events(table, user, stripe)
        if latest_ingest(table, user, stripe) < watermark:  # all are visible: the last one tells
            taken = min(ties, rows - place)
            if lay_out_times(table, user, stripe, desk) == uint64(0):
                return uint64(0)
            if time_at(desk, place + taken - uint64(1)) != end_ts:
                return uint64(0)
            row, ties = row + taken, ties - taken
            if ties == uint64(0):
                return row
            continue
        if lay_out(table, user, stripe, desk) == uint64(0):
            return uint64(0)
        while place < rows and time_at(desk, place) == end_ts:
            row, place = row + uint64(1), place + uint64(1)
            if is_visible(desk, place - uint64(1), watermark):
                ties -= uint64(1)
                if ties == uint64(0):
                    return row
        if place < rows:
            return uint64(0)
    return uint64(0)


@kernel
def decode_rows(table: Any, user: Any, column: Any, stripe: Any, itemsize: Any, rows: Any, out: Any) -> Any:
    """Decode some rows of a column to their places. Returns: 0, or 1 where the block is damaged."""
    if verify_block(table, user, column, stripe):
        return uint64(1)
    entry = load_u64(first_entry(table, user, column) + stripe * uint64(8))
    decode_values(table, entry, stripe_events(table, user, stripe), itemsize, rows[0], rows[1], out)
    return uint64(0)


@kernel
def sum_part(table: Any, user: Any, stripe: Any, key: Any, start: Any, stop: Any, desk: Any) -> Any:
    """The sum of the identities of the rows [start, stop) of the stripe whose times lie on the desk.

    Returns: the sum, and the latest ingest time of these rows.
    """
    latest = int64(EARLIEST_TS)
    if start >= stop:
        return uint64(0), latest
    write_note(desk, IS_WHOLE, 0)  # only these rows are decoded, and delays stay delays
    rows, delays, ordinals = (start, stop), desk + uint64(INGESTS), desk + uint64(ORDINALS)
    if decode_rows(table, user, uint64(DELAY), stripe, uint64(8), rows, delays):
        write_note(desk, DAMAGED, DELAY)
        return uint64(0), latest
    if decode_rows(table, user, uint64(ORDINAL), stripe, uint64(4), rows, ordinals):
        write_note(desk, DAMAGED, ORDINAL)
        return uint64(0), latest
    wide, narrow = start << uint64(3), start << uint64(2)
    return sum_identities(key, desk + uint64(TIMES) + wide, delays + wide, ordinals + narrow, stop - start, latest)


@kernel
def sum_clean(table: Any, user: Any, stripe: Any, key: Any, first: Any, last: Any, desk: Any) -> Any:
    """The sum of the identities of the rows [first, last) of a clean stripe: of them, or of all less the others."""
    of_all = identity_before(table, user, stripe + uint64(1)) - identity_before(table, user, stripe)
    rows = stripe_events(table, user, stripe)
    if last - first == rows:
        return of_all
    if lay_out_times(table, user, stripe, desk) == uint64(0):
        return uint64(0)
    if uint64(2) * (last - first) <= rows:
        return sum_part(table, user, stripe, key, first, last, desk)[0]
    before = sum_part(table, user, stripe, key, uint64(0), first, desk)[0]
    return of_all - before - sum_part(table, user, stripe, key, last, rows, desk)[0]


@kernel
def sum_all_clean(table: Any, user: Any, key: Any, start: Any, stop: Any, desk: Any) -> Any:
    """The sum of the identities of the rows [start, stop) where all stripes are clean: the ends, and between the index."""
    first, last = start // uint64(STRIPE_EVENTS), (stop - uint64(1)) // uint64(STRIPE_EVENTS)
    from_first, to_last = start - first * uint64(STRIPE_EVENTS), stop - last * uint64(STRIPE_EVENTS)
    if first == last:
        return sum_clean(table, user, first, key, from_first, to_last, desk)
    # the last first: its times lie on the desk
    total = sum_clean(table, user, last, key, uint64(0), to_last, desk)
    total += identity_before(table, user, last) - identity_before(table, user, first + uint64(1))
    return total + sum_clean(table, user, first, key, from_first, uint64(STRIPE_EVENTS), desk)


@kernel
def sum_visible(table: Any, user: Any, stripe: Any, key: Any, first: Any, last: Any, watermark: Any, desk: Any) -> Any:
    """The sum of the identities of the visible ones among the rows [first, last) of a stripe that is not clean.

    Where a request long past ends, most stripes are not, for what came after it, and all rows before it are visible.
    Returns: the sum, and how many rows are not visible; which those are lies on the desk.
    """
    if lay_out_times(table, user, stripe, desk) == uint64(0):
        return uint64(0), uint64(0)
    total, latest = sum_part(table, user, stripe, key, first, last, desk)
    is_marked = latest_ingest(table, user, stripe) == NEVER_CLEAN
    if noted(desk, DAMAGED) != NOWHERE or (latest < watermark and not is_marked):
        return total, uint64(0)
    if is_marked and decode_superseded(table, user, stripe, desk + uint64(SUPERSEDED_AT)):
        write_note(desk, DAMAGED, table_field(table, SUPERSEDED))
        return uint64(0), uint64(0)
    holes = uint64(0)
    for row in range(first, last):
        time = time_at(desk, row)
        ingest = time + ingest_at(desk, row)
        if ingest >= watermark or (is_marked and superseded_at(desk, row) < watermark):
            total -= identity(key[0], key[1], time, ingest, ordinal_at(desk, row))
            write_hole(desk, holes, row)
            holes += uint64(1)
    return total, holes


@kernel
def push_run(runs: Any, at: Any, continues: Any, start: Any, stop: Any) -> Any:
    """Add a run before those that there are, or let it continue the last one. Returns: how many there are now.

    Runs past the room are only counted.
    """
    if continues:
        at -= 1
    if at < runs.shape[1]:
        runs[1, at] = stop - start + (runs[1, at] if continues else 0)
        runs[0, at] = start
    return at + 1


@kernel
def walk_back(
    table: Any, user: Any, key: Any, row: Any, wanted: Any, watermark: Any, runs: Any, at: Any, desk: Any
) -> Any:
    """Take the newest `wanted` visible rows before `row`, stripe by stripe as far as any of the rest may be invisible.

    Returns: how many there are, the sum of their identities, their hull [start, stop), and the number of runs, to which
    theirs were added, the newest first.
    """
    count, total, start, stop = uint64(0), uint64(0), row, row
    while row > uint64(0) and count < wanted:
        stripe = (row - uint64(1)) // uint64(STRIPE_EVENTS)
        base = stripe * uint64(STRIPE_EVENTS)
        if latest_until(table, user, stripe) < watermark:  # nearly always: all that is left is visible
            low, holes = row - min(row, wanted - count), uint64(0)
            total += sum_all_clean(table, user, key, low, row, desk)
        else:
            low = max(base, row - min(row, wanted - count))
            part, holes = sum_unclean(table, user, stripe, key, low - base, row - base, watermark, desk)
            total += part
        if noted(desk, DAMAGED) != NOWHERE:
            break
        top = row
        for hole in range(holes + uint64(1)):  # the run above each, from the newest on, and the one below the last
            bottom = base + hole_at(desk, holes - uint64(1) - hole) + uint64(1) if hole < holes else low
            if bottom < top:
                at = push_run(runs, at, count > uint64(0) and top == start, bottom, top)
                stop = stop if count else top
                start, count = bottom, count + top - bottom
            top = bottom - uint64(1)
        row = low
    if count == uint64(0):
        start = stop
    return count, total, start, stop, at


@kernel
def sum_unclean(table: Any, user: Any, stripe: Any, key: Any, first: Any, last: Any, watermark: Any, desk: Any) -> Any:
    """`sum_visible` of a stripe that may be clean all the same: only one before it is not."""
    if latest_ingest(table, user, stripe) < watermark:
        return sum_clean(table, user, stripe, key, first, last, desk), uint64(0)
    return sum_visible(table, user, stripe, key, first, last, watermark, desk)


@kernel
def any_unknown(table: Any, user: Any, stop: Any, watermark: Any, desk: Any) -> Any:
    """Whether any of the rows before `stop` was not known before the watermark; else superseding hides what is hidden."""
    for row in range(stop):
        stripe, place = uint64(row) // uint64(STRIPE_EVENTS), uint64(row) % uint64(STRIPE_EVENTS)
        if lay_out(table, user, stripe, desk) == uint64(0) or ingest_at(desk, place) >= watermark:
            return True
    return False


@kernel
def measure(tables: Any, keys: Any, place: Any, requests: Any, out: Any, desk_array: Any) -> None:
    """See `resolve.measure`. What went wrong is noted on the desk."""
    hashes, checks = keys
    shard, user = place
    end_ts, watermark, tie_ingest, tie_ordinal = requests
    start_ts, end_ties, length, checksum, stored_before = out
    desk, no_runs = address_of(desk_array), np.empty((2, 0), np.int64)
    stripes = find_ends(tables, shard, user, end_ts)
    for i in range(len(user)):
        ahead.end_stripe(tables, shard, user, stripes, i)
        if user[i] < 0:
            continue
        table, u, key = table_at(tables, shard[i]), uint64(user[i]), (hashes[i], checks[i])
        row = end_before(table, u, stripes[i], end_ts[i], desk)
        stored_before[i] = row
        if tie_ingest[i] >= EARLIEST_TS:
            anchor = (tie_ingest[i], tie_ordinal[i])
            end_ties[i], row = ties_before(table, u, row, end_ts[i], anchor, watermark[i], desk)
        count, total, start, _, _ = walk_back(table, u, key, row, uint64(ALL), watermark[i], no_runs, 0, desk)
        if count:
            start_ts[i] = time_of(table, u, start, desk)
        elif not any_unknown(table, u, uint64(stored_before[i]), watermark[i], desk):
            stored_before[i] = 0
        length[i], checksum[i] = count, total
        if noted(desk, DAMAGED) != NOWHERE:
            break


@kernel
def resolve(
    tables: Any, keys: Any, place: Any, pointers: Any, partly: Any, out: Any, offsets: Any, runs: Any, desk_array: Any
) -> None:
    """See `resolve.resolve`. What went wrong is noted on the desk. Rows whose status is not OK already are left alone.

    `partly`: of pointers that find fewer events than they mean, give the rows of those found.
    `offsets` (n + 1,), `runs` (2, room): each pointer's runs, oldest first, at least one, which may be empty. If there
    was not room enough, offsets[n] tells what is needed, and the runs mean nothing.
    """
    hashes, checks = keys
    shard, user = place
    status, starts, stops, found, sums, last_ts = out
    desk, at = address_of(desk_array), 0
    stripes = find_ends(tables, shard, user, pointers[2])
    for i in range(len(user)):
        ahead.end_stripe(tables, shard, user, stripes, i)
        offsets[i] = at
        if status[i] == OK and user[i] >= 0 and pointers[4][i] > 0:
            table, u, key = table_at(tables, shard[i]), uint64(user[i]), (hashes[i], checks[i])
            status[i], start, stop, found[i], sums[i], pushed = find_meant(
                table, u, key, stripes[i], pointers, i, partly, runs, at, desk
            )
            if stop > start:
                starts[i], stops[i], at = start, stop, pushed
                last_ts[i] = time_of(table, u, stop - uint64(1), desk)
            if noted(desk, DAMAGED) != NOWHERE:
                break
        elif status[i] == OK and pointers[4][i] > 0:
            status[i] = UNKNOWN_USER
        elif status[i] == OK and pointers[5][i]:
            status[i] = CHECKSUM
        if at == offsets[i]:
            at = push_run(runs, at, False, uint64(0), uint64(0))
        elif at <= runs.shape[1]:
            turn_around(runs, offsets[i], at)
    offsets[len(user)] = at


@kernel
def find_meant(
    table: Any, user: Any, key: Any, stripes: Any, pointers: Any, i: Any, partly: Any, runs: Any, at: Any, desk: Any
) -> Any:
    """What pointer i means.

    Returns: its status, the hull, empty where none is to be given, the count and checksum found, and the number of runs.
    """
    watermark, start_ts, end_ts, end_ties, length, checksum = pointers
    wanted, ties = uint64(length[i]), uint64(end_ties[i])
    row, status = end_before(table, user, stripes, end_ts[i], desk), OK
    if ties:
        end = end_of_ties(table, user, row, ties, end_ts[i], watermark[i], desk)
        row, status = (end, OK) if end else (row, SHORT)
    count, total, start, stop, at = walk_back(table, user, key, row, wanted, watermark[i], runs, at, desk)
    is_given = status == OK
    if count < wanted:
        status, is_given = SHORT, is_given and partly
    elif total != checksum[i]:
        status, is_given = CHECKSUM, False
    elif time_of(table, user, start, desk) < start_ts[i]:
        status, is_given = SHORT, False
    return status, start, stop if is_given else start, count, total, at


@kernel
def turn_around(runs: Any, start: Any, stop: Any) -> None:
    """Turn the columns runs[:, start:stop] around."""
    for k in range((stop - start) // 2):
        other = stop - 1 - k
        for part in range(2):
            runs[part, start + k], runs[part, other] = runs[part, other], runs[part, start + k]


@kernel
def find_rows(tables: Any, located: Any, places: Any, watermark: Any, out: Any, desk_array: Any) -> None:
    """See `resolve.find_rows`. What went wrong is noted on the desk."""
    shard, user = located
    event_ts, ingest_ts, ordinal = places
    desk = address_of(desk_array)
    stripes = find_ends(tables, shard, user, event_ts)
    for i in range(len(user)):
        out[i] = -1
        if user[i] < 0:
            continue
        table, u = table_at(tables, shard[i]), uint64(user[i])
        row, events = end_before(table, u, stripes[i], event_ts[i], desk), user_events(table, u)
        while row < events and lay_out(table, u, row // uint64(STRIPE_EVENTS), desk):
            at = row % uint64(STRIPE_EVENTS)
            if time_at(desk, at) != event_ts[i] or ingest_at(desk, at) > ingest_ts[i]:
                break
            if ingest_at(desk, at) == ingest_ts[i] and ordinal_at(desk, at) == ordinal[i]:
                if watermark[i] == ANY or is_visible(desk, at, watermark[i]):
                    out[i] = row
                break
            row += uint64(1)
        if noted(desk, DAMAGED) != NOWHERE:
            break
