"""Where the parts of ranges lie: read once, and noted for all columns, which are then decoded one after the other.

A range's *location* is eight words: its shard's table; of its first stripe the record, the entry of the first column and
how many bytes further that of the next column is, the byte that says whether the block of the first column is verified and
how many further that of the next; and how many events its user has. What is read of a range is asked for some ranges ahead.
"""

from typing import Any

from numba import uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64, prefetch
from latewood.stripes.entries import (
    block_index,
    entry_offset,
    first_entry,
    stripe_record,
    table_field,
    user_events,
    user_record,
)
from latewood.stripes.layout import PAYLOAD, STRIPE_EVENTS, USER_BYTES, USER_COUNT, VERIFIED
from latewood.stripes.stripe import table_at

TABLE, RECORD, ENTRY, ENTRIES, VERIFIED_AT, BLOCKS, EVENTS, LOCATION_WORDS = range(8)
_RECORDS_AHEAD = 16  # ranges
_MOST_AHEAD = 1536  # bytes


@kernel
def is_inside(tables: Any, shard: Any, user: Any, start: Any, stop: Any, target: Any, size: Any) -> Any:
    """Whether a range exists and its output has room; negative numbers have become huge ones."""
    if shard >= uint64(len(tables)):
        return False
    table = table_at(tables, shard)
    if table_field(table, PAYLOAD) == uint64(0) or user >= table_field(table, USER_COUNT):
        return False
    return start <= stop <= user_events(table, user) and target <= size and stop - start <= size - target


@kernel
def note_locations(tables: Any, ranges: Any, offsets: Any, pieces: Any, size: Any, locations: Any) -> Any:
    """Check all ranges and their pieces, and note their locations. Returns: -1, or which of them is not there.

    Shapes: ranges (5, n), offsets and pieces as in `Pieces`, locations (LOCATION_WORDS * n,).
    """
    count, at = ranges.shape[1], 0
    for i in range(min(count, _RECORDS_AHEAD)):
        ask_for_record(tables, ranges, i)
    for i in range(count):
        if i + _RECORDS_AHEAD < count:
            ask_for_record(tables, ranges, i + _RECORDS_AHEAD)
        shard, user, start, stop = (
            uint64(ranges[0, i]),
            uint64(ranges[1, i]),
            uint64(ranges[2, i]),
            uint64(ranges[3, i]),
        )
        if len(offsets):  # each piece has a target, which is looked at by itself
            is_right = is_inside(tables, shard, user, start, stop, uint64(0), stop - start)
            is_right = is_right and _are_inside(pieces, offsets[i], offsets[i + 1], start, stop, size)
        else:
            is_right = is_inside(tables, shard, user, start, stop, uint64(ranges[4, i]), size)
        if not is_right:
            return i
        table, stripe = table_at(tables, shard), start // uint64(STRIPE_EVENTS)
        entry, block = first_entry(table, user, uint64(0)), block_index(table, user, uint64(0), stripe)
        locations[at + TABLE], locations[at + RECORD] = table, stripe_record(table, user, stripe)
        locations[at + ENTRY] = entry + (stripe << uint64(3))
        locations[at + ENTRIES] = first_entry(table, user, uint64(1)) - entry
        locations[at + VERIFIED_AT] = table_field(table, VERIFIED) + block
        locations[at + BLOCKS] = block_index(table, user, uint64(1), stripe) - block
        locations[at + EVENTS] = user_events(table, user)
        at += LOCATION_WORDS
    return -1


@kernel
def _are_inside(pieces: Any, first: Any, last: Any, start: Any, stop: Any, size: Any) -> Any:
    """Whether the pieces of a range are as `Pieces` says, and the output has room for them."""
    if first < 0 or last <= first or last > len(pieces):
        return False
    row = start
    for k in range(first, last):
        begin, end, target = uint64(pieces[k, 0]), uint64(pieces[k, 1]), uint64(pieces[k, 2])
        if not (row <= begin < end <= stop and target <= size and end - begin <= size - target):
            return False
        row = end
    return uint64(pieces[first, 0]) == start and row == stop


@kernel
def ask_for_record(tables: Any, ranges: Any, i: Any) -> None:
    """Prefetch the record of a range's user, and the next one's, with which it is read."""
    if uint64(ranges[0, i]) < uint64(len(tables)):
        record = user_record(table_at(tables, ranges[0, i]), uint64(ranges[1, i]))
        prefetch(record)
        prefetch(record + uint64(2 * USER_BYTES - 1))


@kernel
def location_of(locations: Any, i: Any) -> Any:
    """Where the location of a range is noted."""
    return locations + uint64(i) * uint64(8 * LOCATION_WORDS)


@kernel
def field(location: Any, word: Any) -> Any:
    """One word of a location."""
    return load_u64(location + uint64(8) * uint64(word))


@kernel
def ask_for_payload(location: Any, column: Any) -> None:
    """Prefetch the beginning of a range of a column, twice as much as its first stripe: what follows it is like it."""
    payload = table_field(field(location, TABLE), PAYLOAD)
    ask_for_stripe(payload, field(location, ENTRY) + column * field(location, ENTRIES), uint64(2))


@kernel
def ask_for_stripe(payload: Any, entry_at: Any, times: Any) -> None:
    """Prefetch from the stripe on whose entry is at `entry_at`, some `times` its length."""
    start = entry_offset(load_u64(entry_at))
    size = min(times * (entry_offset(load_u64(entry_at + uint64(8))) - start), uint64(_MOST_AHEAD))
    for line in range((size + uint64(63)) >> uint64(6)):
        prefetch(payload + start + (uint64(line) << uint64(6)))
