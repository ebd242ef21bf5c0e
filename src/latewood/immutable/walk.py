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
from numba import uint64

from latewood.clock import EARLIEST_TS
from latewood.immutable import ahead
from latewood.immutable.desk import (
    DAMAGED,
    INGESTS,
    IS_WHOLE,
    NOWHERE,
    ORDINALS,
    ingest_at,
    is_visible,
    lay_out,
    lay_out_times,
    noted,
    ordinal_at,
    time_at,
    write_note,
)
from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, load_u64
from latewood.stripes.entries import (
    first_entry,
    first_ts,
    identity_before,
    latest_ingest,
    stripe_events,
    table_field,
    user_events,
    user_stripes,
)
from latewood.stripes.identity import identity
from latewood.stripes.layout import DELAY, ORDINAL, PAYLOAD, STRIPE_EVENTS
from latewood.stripes.stripe import decode_values, table_at, verify_block

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
def sum_visible(key: Any, start: Any, stop: Any, watermark: Any, desk: Any) -> Any:
    """The sum of the identities of the visible ones among the desk's rows [start, stop)."""
    total = uint64(0)
    for row in range(start, stop):
        one = identity(key[0], key[1], time_at(desk, row), ingest_at(desk, row), ordinal_at(desk, row))
        total += one if is_visible(desk, row, watermark) else uint64(0)
    return total


@kernel
def decode_rows(table: Any, user: Any, column: Any, stripe: Any, itemsize: Any, rows: Any, out: Any) -> Any:
    """Decode some rows of a column to their places. Returns: 0, or 1 where the block is damaged."""
    if verify_block(table, user, column, stripe):
        return uint64(1)
    entry = load_u64(first_entry(table, user, column) + stripe * uint64(8))
    payload, events = table_field(table, PAYLOAD), stripe_events(table, user, stripe)
    decode_values(payload, entry, events, itemsize, rows[0], rows[1], out)
    return uint64(0)


@kernel
def sum_part(table: Any, user: Any, stripe: Any, key: Any, start: Any, stop: Any, desk: Any) -> Any:
    """The sum of the identities of the rows [start, stop) of the stripe whose times lie on the desk."""
    if start >= stop:
        return uint64(0)
    write_note(desk, IS_WHOLE, 0)  # only these rows are decoded, and delays stay delays
    rows, delays, ordinals = (start, stop), desk + uint64(INGESTS), desk + uint64(ORDINALS)
    if decode_rows(table, user, uint64(DELAY), stripe, uint64(8), rows, delays):
        write_note(desk, DAMAGED, DELAY)
        return uint64(0)
    if decode_rows(table, user, uint64(ORDINAL), stripe, uint64(4), rows, ordinals):
        write_note(desk, DAMAGED, ORDINAL)
        return uint64(0)
    total = uint64(0)
    for row in range(start, stop):
        time = time_at(desk, row)
        total += identity(key[0], key[1], time, time + ingest_at(desk, row), ordinal_at(desk, row))
    return total


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
        return sum_part(table, user, stripe, key, first, last, desk)
    before = sum_part(table, user, stripe, key, uint64(0), first, desk)
    return of_all - before - sum_part(table, user, stripe, key, last, rows, desk)


@kernel
def take_newest(last: Any, wanted: Any, watermark: Any, desk: Any) -> Any:
    """The newest `wanted` visible rows among the desk's [0, last): how many, and their hull [first, last)."""
    while last > uint64(0) and not is_visible(desk, last - uint64(1), watermark):
        last -= uint64(1)
    count, first = uint64(0), last
    for row in range(last):
        count += uint64(1) if is_visible(desk, row, watermark) else uint64(0)
    if count > wanted:  # the oldest one taken is the wanted-th from the end
        count = uint64(0)
        while count < wanted:
            first -= uint64(1)
            count += uint64(1) if is_visible(desk, first, watermark) else uint64(0)
        return count, first, last
    first = uint64(0)
    while first < last and not is_visible(desk, first, watermark):
        first += uint64(1)
    return count, first, last


@kernel
def walk_back(table: Any, user: Any, key: Any, row: Any, wanted: Any, watermark: Any, desk: Any) -> Any:
    """Take the newest `wanted` visible rows before `row`.

    Returns: how many there are, the sum of their identities, and their hull [start, stop).
    """
    count, total, start, stop = uint64(0), uint64(0), row, row
    while row > uint64(0) and count < wanted:
        stripe = (row - uint64(1)) // uint64(STRIPE_EVENTS)
        base = stripe * uint64(STRIPE_EVENTS)
        last = row - base
        if latest_ingest(table, user, stripe) < watermark:
            taken = min(last, wanted - count)
            first = last - taken
            total += sum_clean(table, user, stripe, key, first, last, desk)
        else:
            lay_out(table, user, stripe, desk)
            taken, first, last = take_newest(last, wanted - count, watermark, desk)
            total += sum_visible(key, first, last, watermark, desk)
        if noted(desk, DAMAGED) != NOWHERE:
            break
        if taken:
            stop = base + last if count == uint64(0) else stop
            start = base + first
        count, row = count + taken, base
    if count == uint64(0):
        start = stop
    return count, total, start, stop


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
    desk = address_of(desk_array)
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
        count, total, start, _ = walk_back(table, u, key, row, uint64(ALL), watermark[i], desk)
        if count:
            start_ts[i] = time_of(table, u, start, desk)
        elif not any_unknown(table, u, uint64(stored_before[i]), watermark[i], desk):
            stored_before[i] = 0
        length[i], checksum[i] = count, total
        if noted(desk, DAMAGED) != NOWHERE:
            break


@kernel
def resolve(tables: Any, keys: Any, place: Any, pointers: Any, partly: Any, out: Any, desk_array: Any) -> None:
    """See `resolve.resolve`. What went wrong is noted on the desk. Rows whose status is not OK already are left alone.

    `partly`: of pointers that find fewer events than they mean, give the rows of those found.
    """
    hashes, checks = keys
    shard, user = place
    watermark, start_ts, end_ts, end_ties, length, checksum = pointers
    status, starts, stops, found, sums = out
    desk = address_of(desk_array)
    stripes = find_ends(tables, shard, user, end_ts)
    for i in range(len(user)):
        ahead.end_stripe(tables, shard, user, stripes, i)
        if status[i] != OK:
            continue
        wanted, ties = uint64(length[i]), uint64(end_ties[i])
        if user[i] < 0 or wanted == uint64(0):
            if wanted:
                status[i] = UNKNOWN_USER
            elif checksum[i]:
                status[i] = CHECKSUM
            continue
        table, u, key = table_at(tables, shard[i]), uint64(user[i]), (hashes[i], checks[i])
        row = end_before(table, u, stripes[i], end_ts[i], desk)
        if ties:
            end = end_of_ties(table, u, row, ties, end_ts[i], watermark[i], desk)
            if end:
                row = end
            else:
                status[i] = SHORT
        count, total, start, stop = walk_back(table, u, key, row, wanted, watermark[i], desk)
        found[i], sums[i] = count, total
        if count < wanted:
            if partly and status[i] == OK:
                starts[i], stops[i] = start, stop
            status[i] = SHORT
        elif total != checksum[i]:
            status[i] = CHECKSUM
        elif time_of(table, u, start, desk) < start_ts[i]:
            status[i] = SHORT
        if status[i] == OK:
            starts[i], stops[i] = start, stop
        if noted(desk, DAMAGED) != NOWHERE:
            break


@kernel
def reverse(out: Any, start: Any, stop: Any) -> None:
    """Turn out[start:stop] around."""
    for k in range((stop - start) // uint64(2)):
        other = stop - uint64(1) - k
        out[start + k], out[other] = out[other], out[start + k]


@kernel
def visible_rows(
    tables: Any, rows: Any, watermark: Any, newest: Any, hidden: Any, offsets: Any, out: Any, desk_array: Any
) -> None:
    """The newest visible rows of each range, oldest first. What went wrong is noted on the desk.

    `hidden`: offsets and rows, ascending within a range, that are left out. `out` has room for min(newest, stop - start)
    rows of each range; `offsets` comes out as what was needed.
    """
    shard, user, start, stop = rows
    hidden_offsets, hidden_rows = hidden
    desk = address_of(desk_array)
    at = uint64(0)
    for i in range(len(user)):
        offsets[i] = at
        if user[i] < 0 or newest[i] <= 0:
            continue
        table, u = table_at(tables, shard[i]), uint64(user[i])
        first, row, h = at, uint64(stop[i]), hidden_offsets[i + 1]
        while row > uint64(start[i]) and at - first < uint64(newest[i]):
            row -= uint64(1)
            while h > hidden_offsets[i] and uint64(hidden_rows[h - 1]) > row:
                h -= 1
            stripe, place = row // uint64(STRIPE_EVENTS), row % uint64(STRIPE_EVENTS)
            if lay_out(table, u, stripe, desk) == uint64(0):
                return
            is_hidden = h > hidden_offsets[i] and uint64(hidden_rows[h - 1]) == row
            if is_visible(desk, place, watermark[i]) and not is_hidden:
                out[at] = row
                at += uint64(1)
        reverse(out, first, at)
    offsets[len(user)] = at


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
