"""Reads a whole shard and compares it with what it says of itself: the checksums of its blocks, the records of its stripes.

Opening a shard checks the index, reading it checks the blocks that are read; this checks everything, and that the
index was computed from these events (docs/protocol.md R18).
"""

from typing import Any

from numba import int64, uint64

from latewood.events import NEVER
from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, load_i32, load_i64, load_u64
from latewood.stripes.entries import (
    entry_has_nulls,
    entry_offset,
    first_entry,
    identity_before,
    latest_ingest,
    stripe_events,
    table_field,
    user_record,
    user_stripes,
)
from latewood.stripes.identity import identity
from latewood.stripes.items import is_whole
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    COLUMN_COUNT,
    NEVER_CLEAN,
    PAYLOAD,
    STRIPE_EVENTS,
    USER_CHECK,
    USER_HASH,
)
from latewood.stripes.stripe import (
    decode_built_in,
    decode_delays,
    decode_ordinals,
    decode_superseded,
    decode_times,
    mark_nulls,
    verify_block,
)

# What is wrong, in words for messages; a damaged block has words of its own.
PROBLEMS = (
    "",
    "damaged",
    "the index disagrees with the events",
    "the events are not sorted",
    "an event is superseded before it was ingested",
    "the items of lists are not as their lengths say",
)
DAMAGED, DISAGREES, UNSORTED, TOO_EARLY, UNFIT = range(1, 6)
WORK_WORDS = 5 * STRIPE_EVENTS  # steps, times, delays, ordinals, superseded_at of a stripe


@kernel
def verify_users(table: Any, users: Any, kinds: Any, itemsizes: Any, lists: Any, work: Any, where: Any) -> Any:
    """Check all of some users. Returns: 0, or what is wrong, and in `where` the user, column and stripe.

    Args: kinds, itemsizes, lists: of each column, its values, and whether they are the items of lists.
    """
    columns = table_field(table, COLUMN_COUNT)
    for user in users:
        u = uint64(user)
        where[0], stripes = user, user_stripes(table, u)
        for column in range(columns):
            for stripe in range(uint64(0), stripes, uint64(BLOCK_STRIPES)):
                if verify_block(table, u, uint64(column), uint64(stripe)):
                    where[1], where[2] = column, stripe
                    return DAMAGED
        problem = _verify_records(table, u, stripes, address_of(work), where)
        if problem:
            return problem
        for column in range(columns):
            if lists[column]:
                for stripe in range(stripes):
                    if not _is_fit(table, u, uint64(column), uint64(stripe), kinds[column], itemsizes[column], work):
                        where[1], where[2] = column, stripe
                        return UNFIT
    return 0


@kernel
def _is_fit(table: Any, user: Any, column: Any, stripe: Any, kind: Any, itemsize: Any, work: Any) -> Any:
    """Whether the items of a stripe are as many as its lengths say, and its header is right."""
    lengths, events = address_of(work), stripe_events(table, user, stripe)
    decode_built_in(table, user, column - uint64(1), stripe, uint64(4), lengths)
    entry = load_u64(first_entry(table, user, column - uint64(1)) + stripe * uint64(8))
    if entry_has_nulls(entry):
        mark_nulls(table_field(table, PAYLOAD), entry, uint64(0), events, uint64(4), lengths, uint64(0))
    items = int64(0)
    for i in range(events):
        length = load_i32(lengths + (uint64(i) << uint64(2)))
        if length < 0:
            return False
        items += length
    entry = first_entry(table, user, column) + stripe * uint64(8)
    offset = entry_offset(load_u64(entry))
    size = entry_offset(load_u64(entry + uint64(8))) - offset
    return is_whole(table, offset, size, uint64(items), kind, itemsize)


@kernel
def _verify_records(table: Any, user: Any, stripes: Any, room: Any, where: Any) -> Any:
    """The total order of a user's events, and what the stripes' records say of them."""
    size = uint64(8 * STRIPE_EVENTS)
    times, delays, ordinals = room + size, room + size * uint64(2), room + size * uint64(3)
    superseded = room + size * uint64(4)
    record = user_record(table, user)
    user_hash, check = load_u64(record + uint64(USER_HASH)), load_u64(record + uint64(USER_CHECK))
    total, last_time, last_ingest, last_ordinal = uint64(0), int64(-(2**63)), int64(-(2**63)), int64(-1)
    for stripe in range(stripes):
        s, latest = uint64(stripe), int64(-(2**63))
        where[1], where[2] = 0, stripe
        decode_times(table, user, s, room, times)
        decode_delays(table, user, s, delays)
        decode_ordinals(table, user, s, ordinals)
        decode_superseded(table, user, s, superseded)
        is_clean = True
        for i in range(stripe_events(table, user, s)):
            at = uint64(i) << uint64(3)
            time, ordinal = load_i64(times + at), load_i32(ordinals + (uint64(i) << uint64(2)))
            ingest = time + load_i64(delays + at)
            if time < last_time or (time == last_time and ingest < last_ingest):
                return UNSORTED
            if time == last_time and ingest == last_ingest and ordinal <= last_ordinal:
                return UNSORTED
            last_time, last_ingest, last_ordinal, latest = time, ingest, ordinal, max(latest, ingest)
            total += identity(user_hash, check, time, ingest, ordinal)
            if load_i64(superseded + at) != int64(NEVER):
                is_clean = False
                if load_i64(superseded + at) < ingest:
                    return TOO_EARLY
        if not is_clean:
            latest = int64(NEVER_CLEAN)
        if latest != latest_ingest(table, user, s) or total != identity_before(table, user, s + uint64(1)):
            return DISAGREES
    return 0
