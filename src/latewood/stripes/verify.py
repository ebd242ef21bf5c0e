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
    identity_before,
    latest_ingest,
    stripe_events,
    table_field,
    user_record,
    user_stripes,
)
from latewood.stripes.identity import identity
from latewood.stripes.layout import BLOCK_STRIPES, COLUMN_COUNT, NEVER_CLEAN, STRIPE_EVENTS, USER_CHECK, USER_HASH
from latewood.stripes.stripe import decode_delays, decode_ordinals, decode_superseded, decode_times, verify_block

# What is wrong, in words for messages; a damaged block has words of its own.
PROBLEMS = (
    "",
    "damaged",
    "the index disagrees with the events",
    "the events are not sorted",
    "an event is superseded before it was ingested",
)
DAMAGED, DISAGREES, UNSORTED, TOO_EARLY = range(1, 5)
WORK_WORDS = 5 * STRIPE_EVENTS  # steps, times, delays, ordinals, superseded_at of a stripe


@kernel
def verify_users(table: Any, users: Any, work: Any, where: Any) -> Any:
    """Check all of some users. Returns: 0, or what is wrong, and in `where` the user, column and stripe."""
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
    return 0


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
