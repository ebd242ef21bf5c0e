"""The kernels behind `resolve`: whole batches of requests or pointers against all shards of a generation.

Like finding a line in a shelf of diaries: the address table names the shelf, the user index the diary, the stripe index
the chapter (binary search over first times), and one decoded stripe the line. From that line the walk goes back, stripe
by stripe. A stripe whose latest ingest lies before the watermark counts as a whole, by its record alone: its checksum
is the difference of two running sums. Another, and the one where a range begins or ends inside, is laid out on a *desk*
with room for one stripe: times, ingest times and ordinals, decoded, and each row is looked at. The desk's note says
which stripe lies on it, for examples of one user tend to follow one another.

A batch is gone through twice, once for the index and once for the payload, so that each time what a later request needs
can be prefetched.

Every number from disk that these kernels follow was checked when the shard was opened. Payload checksums are verified
as blocks are decoded; a kernel that meets a broken one stops, and its note says which.
"""

from typing import Any

import numpy as np
from numba import int64, uint64

from latewood.clock import EARLIEST_TS
from latewood.stripes.addresses import address_of
from latewood.stripes.entries import (
    first_ts,
    identity_before,
    latest_ingest,
    stripe_events,
    user_events,
    user_stripes,
)
from latewood.stripes.identity import identity
from latewood.stripes.jit import kernel
from latewood.stripes.layout import DELAY, EVENT_TS, ORDINAL, STRIPE_EVENTS
from latewood.stripes.stripe import decode_delays, decode_ordinals, decode_times, table_at

ALL = np.iinfo(np.int64).max  # as a wanted length: no limit

# Statuses of a pointer: see resolve.Status.
OK, UNKNOWN_USER, SHORT, CHECKSUM = range(4)

# What the desk's note says: which stripe lies on it, and in which column of that stripe a broken block was met.
TABLE, USER, STRIPE, DAMAGED = range(4)
NOTE_FIELDS = 4
NOWHERE = -1
_ROOM = 2 * STRIPE_EVENTS  # decoding writes whole rows


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
        if user[i] >= 0:
            stripes[i] = stripes_before(table_at(tables, shard[i]), uint64(user[i]), end_ts[i])
    return stripes


@kernel
def new_desk() -> Any:
    """times, ingests, ordinals, note."""
    note = np.full(NOTE_FIELDS, NOWHERE, np.int64)
    return np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int64), np.empty(_ROOM, np.int32), note


@kernel
def lay_out(table: Any, user: Any, stripe: Any, desk: Any) -> Any:
    """Put a stripe on the desk unless it lies there. Returns how many events it has; 0 if a block is broken."""
    times, ingests, ordinals, note = desk
    rows = uint64(stripe_events(table, user, stripe))
    if note[TABLE] == int64(table) and note[USER] == int64(user) and note[STRIPE] == int64(stripe):
        return rows
    note[TABLE], note[USER], note[STRIPE] = int64(table), int64(user), int64(stripe)
    if decode_times(table, user, stripe, address_of(ingests), address_of(times)):
        note[DAMAGED] = EVENT_TS
    elif decode_delays(table, user, stripe, address_of(ingests)):
        note[DAMAGED] = DELAY
    elif decode_ordinals(table, user, stripe, address_of(ordinals)):
        note[DAMAGED] = ORDINAL
    if note[DAMAGED] != NOWHERE:
        return uint64(0)
    for row in range(rows):
        ingests[row] += times[row]
    return rows


@kernel
def rows_before(times: Any, rows: Any, end_ts: Any) -> Any:
    """How many of the sorted times on the desk lie before a time."""
    low, high = uint64(0), rows
    while low < high:
        middle = (low + high) >> uint64(1)
        if times[middle] < end_ts:
            low = middle + uint64(1)
        else:
            high = middle
    return low


@kernel
def end_before(table: Any, user: Any, stripes: Any, end_ts: Any, desk: Any) -> Any:
    """How many of a user's rows have event_ts < end_ts, given how many stripes begin before it."""
    if stripes == uint64(0):
        return uint64(0)
    rows = lay_out(table, user, stripes - uint64(1), desk)
    return (stripes - uint64(1)) * uint64(STRIPE_EVENTS) + rows_before(desk[0], rows, end_ts)


@kernel
def time_of(table: Any, user: Any, row: Any, desk: Any) -> Any:
    """A row's event_ts; free where a stripe begins."""
    stripe, place = row // uint64(STRIPE_EVENTS), row % uint64(STRIPE_EVENTS)
    if place == uint64(0):
        return first_ts(table, user, stripe)
    lay_out(table, user, stripe, desk)
    return desk[0][place]


@kernel
def ties_before(table: Any, user: Any, row: Any, end_ts: Any, anchor: Any, watermark: Any, desk: Any) -> Any:
    """How many of the rows at `end_ts`, from `row` on, sort before an anchor and are visible: the first ones."""
    times, ingests, ordinals, _ = desk
    anchor_ingest, anchor_ordinal = anchor
    events, count = uint64(user_events(table, user)), uint64(0)
    while row + count < events:
        place = (row + count) % uint64(STRIPE_EVENTS)
        if lay_out(table, user, (row + count) // uint64(STRIPE_EVENTS), desk) == uint64(0):
            return count
        ingest = ingests[place]
        sorts_before = ingest < anchor_ingest or (ingest == anchor_ingest and ordinals[place] < anchor_ordinal)
        if times[place] != end_ts or not sorts_before or ingest >= watermark:
            return count
        count += uint64(1)
    return count


@kernel
def has_ties(table: Any, user: Any, row: Any, ties: Any, end_ts: Any, watermark: Any, desk: Any) -> Any:
    """Whether the `ties` rows from `row` on are at `end_ts` and visible. They are sorted: the last one tells."""
    last = row + ties - uint64(1)
    if last >= uint64(user_events(table, user)):
        return False
    if lay_out(table, user, last // uint64(STRIPE_EVENTS), desk) == uint64(0):
        return False
    place = last % uint64(STRIPE_EVENTS)
    return desk[0][place] == end_ts and desk[1][place] < watermark


@kernel
def sum_identities(key: Any, start: Any, stop: Any, watermark: Any, desk: Any) -> Any:
    """The sum of the identities of the visible ones among the desk's rows [start, stop)."""
    times, ingests, ordinals, _ = desk
    total = uint64(0)
    for row in range(start, stop):
        one = identity(key[0], key[1], times[row], ingests[row], ordinals[row])
        total += one if ingests[row] < watermark else uint64(0)
    return total


@kernel
def count_visible(start: Any, stop: Any, watermark: Any, desk: Any) -> Any:
    """How many of the desk's rows [start, stop) are visible."""
    ingests = desk[1]
    count = uint64(0)
    for row in range(start, stop):
        count += uint64(1) if ingests[row] < watermark else uint64(0)
    return count


@kernel
def take_newest(last: Any, wanted: Any, watermark: Any, desk: Any) -> Any:
    """The newest `wanted` visible rows among the desk's [0, last): how many, and their hull [first, last)."""
    ingests = desk[1]
    while last > uint64(0) and ingests[last - uint64(1)] >= watermark:
        last -= uint64(1)
    count, first = count_visible(uint64(0), last, watermark, desk), uint64(0)
    if count > wanted:  # the oldest one taken is the wanted-th from the end
        count, first = uint64(0), last
        while count < wanted:
            first -= uint64(1)
            count += uint64(1) if ingests[first] < watermark else uint64(0)
    else:
        while first < last and ingests[first] >= watermark:
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
        base, rows = stripe * uint64(STRIPE_EVENTS), uint64(stripe_events(table, user, stripe))
        below = identity_before(table, user, stripe)
        of_all = identity_before(table, user, stripe + uint64(1)) - below
        is_clean, last = latest_ingest(table, user, stripe) < watermark, row - base
        if is_clean and last == rows and rows <= wanted - count:
            taken, first, of_taken = rows, uint64(0), of_all
        else:
            if lay_out(table, user, stripe, desk) == uint64(0):
                return count, total, start, stop
            taken, first, last = take_newest(last, wanted - count, watermark, desk)
            if is_clean and uint64(2) * taken > rows:  # less to sum in what is left out
                of_rest = sum_identities(key, uint64(0), first, watermark, desk)
                of_taken = of_all - of_rest - sum_identities(key, last, rows, watermark, desk)
            else:
                of_taken = sum_identities(key, first, last, watermark, desk)
        if taken:
            stop = base + last if count == uint64(0) else stop
            start = base + first
        count, total, row = count + taken, total + of_taken, base
    if count == uint64(0):
        start = stop
    return count, total, start, stop


@kernel
def measure(tables: Any, keys: Any, place: Any, requests: Any, out: Any) -> Any:
    """See `resolve.measure`. Returns the desk's note."""
    hashes, checks = keys
    shard, user = place
    end_ts, watermark, tie_ingest, tie_ordinal = requests
    start_ts, end_ties, length, checksum, stored_before = out
    desk = new_desk()
    stripes = find_ends(tables, shard, user, end_ts)
    for i in range(len(user)):
        if user[i] < 0:
            continue
        table, u, key = table_at(tables, shard[i]), uint64(user[i]), (hashes[i], checks[i])
        row = end_before(table, u, stripes[i], end_ts[i], desk)
        stored_before[i] = row
        if tie_ingest[i] > EARLIEST_TS:
            anchor = (tie_ingest[i], tie_ordinal[i])
            ties = ties_before(table, u, row, end_ts[i], anchor, watermark[i], desk)
            end_ties[i] = ties
            row += ties
        count, total, start, _ = walk_back(table, u, key, row, uint64(ALL), watermark[i], desk)
        if count:
            start_ts[i] = time_of(table, u, start, desk)
        length[i], checksum[i] = count, total
        if desk[3][DAMAGED] != NOWHERE:
            break
    return desk[3]


@kernel
def resolve(tables: Any, keys: Any, place: Any, pointers: Any, out: Any) -> Any:
    """See `resolve.resolve`. Returns the desk's note. Rows whose status is not OK already are left alone."""
    hashes, checks = keys
    shard, user = place
    watermark, start_ts, end_ts, end_ties, length, checksum = pointers
    status, starts, stops, found, sums = out
    desk = new_desk()
    stripes = find_ends(tables, shard, user, end_ts)
    for i in range(len(user)):
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
        if ties and not has_ties(table, u, row, ties, end_ts[i], watermark[i], desk):
            ties, status[i] = uint64(0), SHORT
        count, total, start, stop = walk_back(table, u, key, row + ties, wanted, watermark[i], desk)
        found[i], sums[i] = count, total
        if count < wanted:
            status[i] = SHORT
        elif total != checksum[i]:
            status[i] = CHECKSUM
        elif time_of(table, u, start, desk) < start_ts[i]:
            status[i] = SHORT
        if status[i] == OK:
            starts[i], stops[i] = start, stop
        if desk[3][DAMAGED] != NOWHERE:
            break
    return desk[3]


@kernel
def reverse(out: Any, start: Any, stop: Any) -> None:
    """Turn out[start:stop] around."""
    for k in range((stop - start) // uint64(2)):
        other = stop - uint64(1) - k
        out[start + k], out[other] = out[other], out[start + k]


@kernel
def visible_rows(tables: Any, rows: Any, watermark: Any, newest: Any, offsets: Any, out: Any) -> Any:
    """The newest visible rows of each range, oldest first. Returns the desk's note.

    `out` has room for min(newest, stop - start) rows of each range; `offsets` comes out as what was needed.
    """
    shard, user, start, stop = rows
    desk = new_desk()
    ingests = desk[1]
    at = uint64(0)
    for i in range(len(user)):
        offsets[i] = at
        if user[i] < 0 or newest[i] <= 0:
            continue
        table, u = table_at(tables, shard[i]), uint64(user[i])
        first, row = at, uint64(stop[i])
        while row > uint64(start[i]) and at - first < uint64(newest[i]):
            row -= uint64(1)
            stripe, place = row // uint64(STRIPE_EVENTS), row % uint64(STRIPE_EVENTS)
            if lay_out(table, u, stripe, desk) == uint64(0):
                return desk[3]
            if ingests[place] < watermark[i]:
                out[at] = row
                at += uint64(1)
        reverse(out, first, at)
    offsets[len(user)] = at
    return desk[3]
