"""A place: where all that belongs to one stripe lies, its entries, its record and what says that its blocks were checked.

All of it follows from the user's record, but by some dozen additions each time. Like a call slip in a library it is
filled in once, where the index is searched; whoever asks for the memory ahead, or reads it, then goes by the slip.

A place is `PLACE_WORDS` words of uint64 at an address. What belongs to other stripes of the same user is told from it by
their distance.
"""

from typing import Any

from numba import uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import load_i64, load_u64, store_u64
from latewood.stripes.entries import table_field, user_record
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    COLUMN_COUNT,
    ENTRIES,
    LATEST_UNTIL,
    STRIPE_BYTES,
    STRIPE_EVENTS,
    STRIPE_FIRST_TS,
    STRIPE_IDENTITY,
    STRIPE_LATEST_INGEST,
    STRIPES,
    USER_BYTES,
    USER_FIRST_BLOCK,
    USER_FIRST_EVENT,
    USER_FIRST_STRIPE,
    VERIFIED,
)

# Which stripe, of how many events; the addresses of its entry of event_ts, its block's mark, its record, and what
# `latest_until` says of it; how many bytes entries and marks lie from column to column. Of a request's end: how many
# stripes begin before it, and whether it lies in another stripe than the end before.
TABLE, USER, STRIPE, EVENTS, ENTRY, MARK, RECORD, UNTIL, ENTRY_STEP, MARK_STEP, BEFORE, IS_NEW = range(12)
PLACE_WORDS = 12
PLACE_BYTES = 8 * PLACE_WORDS
placed = table_field  # a field of the place at an address: places and tables are both rows of words


@kernel
def put(place: Any, field: Any, value: Any) -> None:
    """Set a field of a place."""
    store_u64(place + (uint64(field) << uint64(3)), value)


@kernel
def write_place(table: Any, user: Any, stripe: Any, place: Any) -> None:
    """Fill in the place of a stripe, but for what is said of a request's end."""
    record = user_record(table, user)
    following = record + uint64(USER_BYTES)
    first, first_block = load_u64(record + uint64(USER_FIRST_STRIPE)), load_u64(record + uint64(USER_FIRST_BLOCK))
    stripes = load_u64(following + uint64(USER_FIRST_STRIPE)) - first
    blocks = load_u64(following + uint64(USER_FIRST_BLOCK)) - first_block
    events = load_u64(following + uint64(USER_FIRST_EVENT)) - load_u64(record + uint64(USER_FIRST_EVENT))
    columns = table_field(table, COLUMN_COUNT)
    put(place, TABLE, table)
    put(place, USER, user)
    put(place, STRIPE, stripe)
    put(place, EVENTS, min(events - stripe * uint64(STRIPE_EVENTS), uint64(STRIPE_EVENTS)))
    put(place, ENTRY, table_field(table, ENTRIES) + (first * columns + stripe) * uint64(8))
    put(place, MARK, table_field(table, VERIFIED) + first_block * columns + stripe // uint64(BLOCK_STRIPES))
    put(place, RECORD, table_field(table, STRIPES) + (first + stripe) * uint64(STRIPE_BYTES))
    put(place, UNTIL, table_field(table, LATEST_UNTIL) + (first + stripe) * uint64(8))
    put(place, ENTRY_STEP, stripes * uint64(8))
    put(place, MARK_STEP, blocks)


@kernel
def entry_at(place: Any, column: Any) -> Any:
    """The entry of a column of the stripe."""
    return load_u64(placed(place, ENTRY) + uint64(column) * placed(place, ENTRY_STEP))


@kernel
def mark_of(place: Any, column: Any) -> Any:
    """The address of the byte that says whether the stripe's block of a column was verified."""
    return placed(place, MARK) + uint64(column) * placed(place, MARK_STEP)


@kernel
def record_of(place: Any, stripe: Any) -> Any:
    """The address of the record of a stripe of the same user."""
    return placed(place, RECORD) + (stripe - placed(place, STRIPE)) * uint64(STRIPE_BYTES)


@kernel
def first_ts_of(place: Any, stripe: Any) -> Any:
    """event_ts of the first event of a stripe of the same user, int64."""
    return load_i64(record_of(place, stripe) + uint64(STRIPE_FIRST_TS))


@kernel
def latest_ingest_of(place: Any, stripe: Any) -> Any:
    """The largest ingest_ts in a stripe of the same user, int64."""
    return load_i64(record_of(place, stripe) + uint64(STRIPE_LATEST_INGEST))


@kernel
def latest_until_of(place: Any, stripe: Any) -> Any:
    """The largest latest ingest time among the user's stripes up to and including this one, int64."""
    return load_i64(placed(place, UNTIL) + (stripe - placed(place, STRIPE)) * uint64(8))


@kernel
def identities_before(place: Any, stripe: Any) -> Any:
    """The sum of the identities of the user's events before a stripe; the stripe count gives the sum of all."""
    if stripe == uint64(0):
        return uint64(0)
    return load_u64(record_of(place, stripe - uint64(1)) + uint64(STRIPE_IDENTITY))
