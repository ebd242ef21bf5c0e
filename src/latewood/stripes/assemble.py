"""Users → the bytes of a shard's payload and its index, a chunk of users per call.

The payload goes user by user, within a user column by column, within a column stripe by stripe; the entries and the
checksums lie in the same order. Carried stripes are copied with their entries moved to their new place. A block that is
carried whole keeps its checksum, so that damage done to it before is still found; a block that is carried in part is
verified before its checksum is computed anew. The old shard may have other columns: of one that it lacks, carried
stripes are all null, which takes no bytes.
"""

from typing import Any

from numba import int64, uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, copy_bytes, load_i32, load_i64, load_u8, load_u64
from latewood.stripes.checksum import xxh64
from latewood.stripes.encode import encode_stripe, encode_times
from latewood.stripes.entries import (
    block_index,
    entry_offset,
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
from latewood.stripes.items import encode_items
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    CHECKSUMS,
    DELAY,
    EVENT_TS,
    HAS_NULLS_SHIFT,
    LISTS,
    MODE_SHIFT,
    NEVER_CLEAN,
    NO_COLUMN,
    NULLS,
    ORDINAL,
    PAYLOAD,
    STRIPE_EVENTS,
)
from latewood.stripes.stripe import decode_delays, decode_times, verify_block

# Of a column in the description of a run: where its values and mask are, bytes per value, kind, place in the old shard; of
# the items of lists, where their starts are, of any other 0. The lengths of these lists are the column before.
VALUES, MASK, ITEMSIZE, KIND, SOURCE, STARTS = range(6)
# Running totals of a shard; the last is the largest ingest_ts, an int64.
EVENTS, STRIPES, BLOCKS, PAYLOAD_BYTES, LATEST = range(5)
OK, UNSORTED, DAMAGED, NOT_THERE = range(4)
SCRATCH_WORDS = 3 * STRIPE_EVENTS  # of the kernels here: times, steps and delays of a stripe; more than encoding needs
_NO_BYTES = (NULLS << MODE_SHIFT) | (1 << HAS_NULLS_SHIFT)  # the entry of a stripe of nulls, but for its offset
_ITEMS = LISTS << MODE_SHIFT  # that of a stripe of items


@kernel
def measure_carried(old: Any, old_users: Any, old_stripes: Any, columns: Any, out: Any) -> Any:
    """How many bytes of the payload each user carries over, whatever they are; 0 for what is not there."""
    for user in range(len(old_users)):
        out[user] = 0
        if old_users[user] < 0 or uint64(old_stripes[user]) > user_stripes(old, uint64(old_users[user])):
            continue
        for column in range(len(columns)):
            if columns[column, SOURCE] != uint64(NO_COLUMN):
                entries = first_entry(old, uint64(old_users[user]), columns[column, SOURCE])
                stop = entry_offset(load_u64(entries + uint64(old_stripes[user]) * uint64(8)))
                out[user] += int64(stop - entry_offset(load_u64(entries)))


@kernel
def assemble_users(
    first: Any,
    last: Any,
    offsets: Any,
    hashes: Any,
    checks: Any,
    columns: Any,
    superseded: Any,
    old: Any,
    old_users: Any,
    old_stripes: Any,
    totals: Any,
    payload: Any,
    users: Any,
    stripes: Any,
    entries: Any,
    checksums: Any,
    column_bytes: Any,
    scratch: Any,
    where: Any,
) -> Any:
    """Write users [first, last) of a run; `old` is the address of the old shard's table row, or 0.

    `superseded` is the column superseded_at, or NO_COLUMN. `totals` counts what the shard holds so far and is moved on.
    Returns: OK, or what is wrong with user where[0], in column where[1].
    """
    start_of_payload, base = address_of(payload), totals[PAYLOAD_BYTES]
    at, stripe_at, entry_at, checksum_at = start_of_payload, uint64(0), uint64(0), uint64(0)
    count = uint64(len(columns))
    for user in range(first, last):
        where[0] = user
        carried, before, old_user = uint64(0), uint64(0), uint64(0)
        if old and old_users[user] >= 0 and old_stripes[user] > 0:
            old_user, carried = uint64(old_users[user]), uint64(old_stripes[user])
            if carried > user_stripes(old, old_user):
                return NOT_THERE
            before = min(carried * uint64(STRIPE_EVENTS), user_events(old, old_user))
        start, stop = uint64(offsets[user]), uint64(offsets[user + 1])
        tail = stop - start
        if tail and before != carried * uint64(STRIPE_EVENTS):
            return NOT_THERE  # a partial stripe cannot be carried with events after it
        number = carried + (tail + uint64(STRIPE_EVENTS - 1)) // uint64(STRIPE_EVENTS)
        blocks = (number + uint64(BLOCK_STRIPES - 1)) // uint64(BLOCK_STRIPES)
        record = user - first
        users[record, 0], users[record, 1] = hashes[user], checks[user]
        users[record, 2], users[record, 3], users[record, 4] = totals[EVENTS], totals[STRIPES], totals[BLOCKS]
        if carried:
            damaged = _index_carried(old, old_user, carried, stripes, stripe_at, totals, address_of(scratch))
            if damaged:
                where[1] = damaged - 1
                return DAMAGED
        if not _index_stripes(
            hashes[user], checks[user], columns, superseded, start, stop, stripes, stripe_at, carried, totals
        ):
            return UNSORTED
        for column in range(count):
            began = at
            c = uint64(column)
            if carried:
                source = columns[column, SOURCE]
                empty = uint64(_ITEMS) if columns[column, STARTS] else uint64(_NO_BYTES)
                at = _carry(
                    old, old_user, source, empty, carried, entries, entry_at, at, base + (at - start_of_payload)
                )
            at = _encode_tail(
                columns, c, start, stop, entries, entry_at + carried, at, base + (at - start_of_payload), scratch
            )
            if at == uint64(0):
                return UNSORTED
            end = base + (at - start_of_payload)
            ok = _seal_blocks(
                old,
                old_user,
                columns[column, SOURCE],
                carried,
                number,
                entries,
                entry_at,
                end,
                start_of_payload - base,
                checksums,
                checksum_at,
            )
            if not ok:
                where[1] = column
                return DAMAGED
            column_bytes[column] += at - began
            entry_at += number
            checksum_at += blocks
        stripe_at += number
        totals[EVENTS] += before + tail
        totals[STRIPES] += number
        totals[BLOCKS] += blocks
        totals[PAYLOAD_BYTES] = base + (at - start_of_payload)
    return OK


@kernel
def _index_carried(old: Any, user: Any, carried: Any, stripes: Any, at: Any, totals: Any, scratch: Any) -> Any:
    """Take over the records of carried stripes. Returns: 0, or one more than the column that is damaged.

    Where a record does not tell the latest ingest time, since an event is superseded, the events do.
    """
    for stripe in range(carried):
        s = uint64(stripe)
        latest = latest_ingest(old, user, s)
        stripes[at, 0] = uint64(first_ts(old, user, s))
        stripes[at, 1] = uint64(latest)
        stripes[at, 2] = identity_before(old, user, s + uint64(1))
        at += uint64(1)
        if latest == int64(NEVER_CLEAN):
            times, delays = scratch, scratch + uint64(8 * STRIPE_EVENTS)
            if decode_times(old, user, s, scratch + uint64(16 * STRIPE_EVENTS), times):
                return EVENT_TS + 1
            if decode_delays(old, user, s, delays):
                return DELAY + 1
            latest = int64(-(2**63))
            for i in range(stripe_events(old, user, s)):
                place = uint64(i) << uint64(3)
                latest = max(latest, load_i64(times + place) + load_i64(delays + place))
        totals[LATEST] = uint64(max(latest, int64(totals[LATEST])))
    return 0


@kernel
def _index_stripes(
    user_hash: Any,
    check: Any,
    columns: Any,
    superseded: Any,
    start: Any,
    stop: Any,
    stripes: Any,
    at: Any,
    carried: Any,
    totals: Any,
) -> Any:
    """Write a user's stripe records: first time, latest ingest, identities so far. Returns: whether they are sorted.

    The records of the carried stripes stand already, from `at` on.
    """
    identities, previous = uint64(0), int64(-(2**63))
    if carried:
        at += carried
        previous, identities = int64(stripes[at - uint64(1), 0]), stripes[at - uint64(1), 2]
    times, delays, ordinals = columns[EVENT_TS, VALUES], columns[DELAY, VALUES], columns[ORDINAL, VALUES]
    while start < stop:
        end = min(start + uint64(STRIPE_EVENTS), stop)
        stripes[at, 0] = load_u64(times + start * uint64(8))
        if load_i64(times + start * uint64(8)) < previous:
            return False
        latest = int64(-(2**63))
        for i in range(start, end):
            row = uint64(i)
            previous = load_i64(times + row * uint64(8))
            ingest = previous + load_i64(delays + row * uint64(8))
            latest = max(latest, ingest)
            identities += identity(user_hash, check, previous, ingest, load_i32(ordinals + row * uint64(4)))
        totals[LATEST] = uint64(max(latest, int64(totals[LATEST])))
        is_clean = superseded == uint64(NO_COLUMN) or _are_null(columns[superseded, MASK], start, end)
        stripes[at, 1] = uint64(latest) if is_clean else uint64(NEVER_CLEAN)
        stripes[at, 2] = identities
        at += uint64(1)
        start = end
    return True


@kernel
def _are_null(mask: Any, start: Any, stop: Any) -> Any:
    """Whether all of some rows are, by the mask at an address, which may be 0."""
    if mask == uint64(0):
        return False
    known = uint64(0)
    for i in range(start, stop):
        known += uint64(load_u8(mask + uint64(i)) == uint64(0))
    return known == uint64(0)


@kernel
def _carry(
    old: Any, user: Any, column: Any, empty: Any, count: Any, entries: Any, entry_at: Any, at: Any, offset: Any
) -> Any:
    """Copy leading stripes of a column, if the old shard has it, and their entries. Returns: the address after them.

    If it has not, the stripes are `empty`.
    """
    if column == uint64(NO_COLUMN):
        for stripe in range(count):
            entries[entry_at + uint64(stripe)] = empty | offset
        return at
    source = first_entry(old, user, column)
    start = entry_offset(load_u64(source))
    stop = entry_offset(load_u64(source + count * uint64(8)))
    copy_bytes(at, table_field(old, PAYLOAD) + start, stop - start)
    for stripe in range(count):
        s = uint64(stripe)
        entries[entry_at + s] = load_u64(source + s * uint64(8)) - start + offset
    return at + (stop - start)


@kernel
def _encode_tail(
    columns: Any, column: Any, start: Any, stop: Any, entries: Any, entry_at: Any, at: Any, offset: Any, scratch: Any
) -> Any:
    """Encode rows [start, stop) of a column. Returns: the address after them, 0 where times are unsorted."""
    values, mask = columns[column, VALUES], columns[column, MASK]
    itemsize, kind = columns[column, ITEMSIZE], columns[column, KIND]
    room = address_of(scratch)
    while start < stop:
        events = min(uint64(STRIPE_EVENTS), stop - start)
        source = values + start * itemsize
        if column == uint64(EVENT_TS):
            entry, size = encode_times(source, events, offset, at, room)
            if entry == ~uint64(0):
                return uint64(0)
        elif columns[column, STARTS]:
            starts = columns[column, STARTS] + (start << uint64(3))
            lengths = columns[column - uint64(1), VALUES] + (start << uint64(2))
            entry = uint64(_ITEMS) | offset
            size = encode_items(kind, itemsize, values, starts, lengths, events, at, room)
        else:
            nulls = mask + start if mask else mask
            entry, size = encode_stripe(kind, itemsize, source, nulls, events, offset, at, room)
        entries[entry_at] = entry
        entry_at += uint64(1)
        at += size
        offset += size
        start += events
    return at


@kernel
def _seal_blocks(
    old: Any,
    old_user: Any,
    column: Any,
    carried: Any,
    number: Any,
    entries: Any,
    entry_at: Any,
    end: Any,
    zero: Any,
    checksums: Any,
    checksum_at: Any,
) -> Any:
    """Write the checksums of a user's column, which is `column` of the old shard; `zero` is the address of offset 0.

    Returns: whether all carried is whole.
    """
    start = uint64(0)
    while start < number:
        stop = min(start + uint64(BLOCK_STRIPES), number)
        kept = False
        is_copied = start < carried and column != uint64(NO_COLUMN)
        if is_copied:
            old_stop = min(start + uint64(BLOCK_STRIPES), user_stripes(old, old_user))
            kept = stop == old_stop and stop <= carried
        if kept:
            block = block_index(old, old_user, column, start)
            checksums[checksum_at] = load_u64(table_field(old, CHECKSUMS) + block * uint64(8))
        else:
            if is_copied and verify_block(old, old_user, column, start):
                return False
            first = entry_offset(entries[entry_at + start])
            last = end if stop == number else entry_offset(entries[entry_at + stop])
            checksums[checksum_at] = xxh64(zero + first, last - first)
        checksum_at += uint64(1)
        start = stop
    return True
