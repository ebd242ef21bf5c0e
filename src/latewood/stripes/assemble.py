"""Users → the bytes of a shard's payload and its index, a chunk of users per call.

The payload goes user by user, within a user column by column, within a column stripe by stripe; the entries and the
checksums lie in the same order. Carried stripes are copied with their entries moved to their new place. A block that is
carried whole keeps its checksum, so that damage done to it before is still found; a block that is carried in part is
verified before its checksum is computed anew.
"""

from typing import Any

from numba import int64, uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, copy_bytes, load_i32, load_i64, load_u64
from latewood.stripes.checksum import xxh64
from latewood.stripes.encode import encode_stripe, encode_times
from latewood.stripes.entries import (
    block_index,
    entry_offset,
    first_entry,
    first_ts,
    identity_before,
    latest_ingest,
    table_field,
    user_events,
    user_stripes,
)
from latewood.stripes.identity import identity
from latewood.stripes.layout import BLOCK_STRIPES, CHECKSUMS, DELAY, EVENT_TS, ORDINAL, PAYLOAD, STRIPE_EVENTS
from latewood.stripes.stripe import verify_block

# Of a column in the description of a run: where its values and mask are, bytes per value, kind.
VALUES, MASK, ITEMSIZE, KIND = range(4)
# Running totals of a shard.
EVENTS, STRIPES, BLOCKS, PAYLOAD_BYTES = range(4)
OK, UNSORTED, DAMAGED, NOT_THERE = range(4)


@kernel
def assemble_users(
    first: Any,
    last: Any,
    offsets: Any,
    hashes: Any,
    checks: Any,
    columns: Any,
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

    `totals` counts what the shard holds so far and is moved on. Returns: OK, or what is wrong with user where[0].
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
        if not _index_stripes(
            hashes[user], checks[user], columns, start, stop, old, old_user, carried, stripes, stripe_at
        ):
            return UNSORTED
        for column in range(count):
            began = at
            c = uint64(column)
            if carried:
                at = _carry(old, old_user, c, carried, entries, entry_at, at, base + (at - start_of_payload))
            at = _encode_tail(
                columns, c, start, stop, entries, entry_at + carried, at, base + (at - start_of_payload), scratch
            )
            if at == uint64(0):
                return UNSORTED
            end = base + (at - start_of_payload)
            ok = _seal_blocks(
                old,
                old_user,
                c,
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
def _index_stripes(
    user_hash: Any,
    check: Any,
    columns: Any,
    start: Any,
    stop: Any,
    old: Any,
    old_user: Any,
    carried: Any,
    stripes: Any,
    at: Any,
) -> Any:
    """Write a user's stripe records: first time, latest ingest, identities so far. Returns: whether they are sorted."""
    identities, previous = uint64(0), int64(-(2**63))
    for stripe in range(carried):
        s = uint64(stripe)
        identities = identity_before(old, old_user, s + uint64(1))
        previous = first_ts(old, old_user, s)
        stripes[at, 0] = uint64(previous)
        stripes[at, 1] = uint64(latest_ingest(old, old_user, s))
        stripes[at, 2] = identities
        at += uint64(1)
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
        stripes[at, 1] = uint64(latest)
        stripes[at, 2] = identities
        at += uint64(1)
        start = end
    return True


@kernel
def _carry(old: Any, user: Any, column: Any, count: Any, entries: Any, entry_at: Any, at: Any, offset: Any) -> Any:
    """Copy leading stripes of a column and their entries. Returns: the address after them."""
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
    """Write the checksums of a user's column; `zero` is the address of offset 0. Returns: whether all carried is whole."""
    start = uint64(0)
    while start < number:
        stop = min(start + uint64(BLOCK_STRIPES), number)
        kept = False
        if start < carried:
            old_stop = min(start + uint64(BLOCK_STRIPES), user_stripes(old, old_user))
            kept = stop == old_stop and stop <= carried
        if kept:
            block = block_index(old, old_user, column, start)
            checksums[checksum_at] = load_u64(table_field(old, CHECKSUMS) + block * uint64(8))
        else:
            if start < carried and verify_block(old, old_user, column, start):
                return False
            first = entry_offset(entries[entry_at + start])
            last = end if stop == number else entry_offset(entries[entry_at + stop])
            checksums[checksum_at] = xxh64(zero + first, last - first)
        checksum_at += uint64(1)
        start = stop
    return True
