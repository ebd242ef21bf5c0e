"""The 64-bit entry of one stripe of one column, and the arithmetic of the user index: for kernels, all uint64."""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

from numba import types, uint64

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import I64, load_i64, load_u64, pointer, zero_bytes
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    COLUMN_COUNT,
    ENTRIES,
    EXCEPTIONS_BITS,
    EXCEPTIONS_SHIFT,
    HAS_NULLS_SHIFT,
    HAS_REFERENCE_SHIFT,
    MODE_BITS,
    MODE_SHIFT,
    NULLS,
    OFFSET_BITS,
    PACKED,
    POSITIONS,
    RAW,
    SCALED,
    SIZE_CODE_BITS,
    SIZE_CODE_SHIFT,
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
    USERS,
    VERIFIED,
    WIDTH_BITS,
    WIDTH_SHIFT,
)

_OFFSET_MASK = (1 << OFFSET_BITS) - 1
_MODE_MASK = (1 << MODE_BITS) - 1
_WIDTH_MASK = (1 << WIDTH_BITS) - 1
_EXCEPTIONS_MASK = (1 << EXCEPTIONS_BITS) - 1
_SIZE_CODE_MASK = (1 << SIZE_CODE_BITS) - 1
# The fields of a PACKED entry that let values differ from each other, above its offset.
_VARYING = (
    _MODE_MASK << MODE_SHIFT | _WIDTH_MASK << WIDTH_SHIFT | _EXCEPTIONS_MASK << EXCEPTIONS_SHIFT | 1 << HAS_NULLS_SHIFT
) >> OFFSET_BITS


@kernel
def entry_offset(entry: Any) -> Any:
    return entry & uint64(_OFFSET_MASK)


@kernel
def entry_mode(entry: Any) -> Any:
    return (entry >> uint64(MODE_SHIFT)) & uint64(_MODE_MASK)


@kernel
def entry_width(entry: Any) -> Any:
    return (entry >> uint64(WIDTH_SHIFT)) & uint64(_WIDTH_MASK)


@kernel
def entry_exceptions(entry: Any) -> Any:
    return (entry >> uint64(EXCEPTIONS_SHIFT)) & uint64(_EXCEPTIONS_MASK)


@kernel
def entry_size_code(entry: Any) -> Any:
    return (entry >> uint64(SIZE_CODE_SHIFT)) & uint64(_SIZE_CODE_MASK)


@kernel
def entry_has_nulls(entry: Any) -> Any:
    return (entry >> uint64(HAS_NULLS_SHIFT)) & uint64(1)


@kernel
def entry_has_reference(entry: Any) -> Any:
    return (entry >> uint64(HAS_REFERENCE_SHIFT)) & uint64(1)


@kernel
def is_constant(entry: Any) -> Any:
    """Whether all that a stripe holds is a reference, if any: every value is that, or 0. Not of event_ts, nor of nulls."""
    return (entry >> uint64(OFFSET_BITS)) & uint64(_VARYING) == uint64(PACKED << (MODE_SHIFT - OFFSET_BITS))


@kernel
def word_shift(itemsize: Any, width: Any) -> Any:
    """log2 of the bits of the words that values of `itemsize` bytes are packed into: wide values need wide words."""
    if itemsize == uint64(8):
        return uint64(5) if width <= uint64(32) else uint64(6)
    return uint64(3) + (itemsize >> uint64(1))


@kernel
def word_bits(itemsize: Any, width: Any) -> Any:
    """The bits of those words."""
    return uint64(1) << word_shift(itemsize, width)


@kernel
def packed_bytes(events: Any, itemsize: Any, width: Any) -> Any:
    """Bytes of the packed words: whole rows of 32 bytes, as many as the values of `events` events reach into."""
    shift = word_shift(itemsize, width)
    rows = (events + (uint64(256) >> shift) - uint64(1)) >> (uint64(8) - shift)
    return ((rows * width + (uint64(1) << shift) - uint64(1)) >> shift) << uint64(5)


@kernel
def bitmap_bytes(entry: Any, events: Any) -> Any:
    return (events + uint64(7)) >> uint64(3) if entry_has_nulls(entry) else uint64(0)


@kernel
def stripe_bytes(entry: Any, events: Any, itemsize: Any) -> Any:
    """Bytes of the whole stripe."""
    mode = entry_mode(entry)
    if mode == uint64(NULLS):
        return uint64(0)
    size = bitmap_bytes(entry, events)
    if mode == uint64(RAW):
        return size + events * itemsize
    if mode == uint64(POSITIONS):
        return size + entry_exceptions(entry)
    size += entry_has_reference(entry) << uint64(3)
    if mode == uint64(SCALED):
        size += uint64(8)
    exceptions = entry_exceptions(entry) * (uint64(1) + (uint64(1) << entry_size_code(entry)))
    return size + packed_bytes(events, itemsize, entry_width(entry)) + exceptions


@intrinsic
def table_field(typing_context: Any, table: Any, field: Any) -> Any:
    """A field of the table row at the address `table`. An intrinsic, lest numba compile it anew for each field."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, field = arguments
        return builder.load(pointer(builder, builder.add(table, builder.mul(field, I64(8))), I64), align=8)

    return types.uint64(types.uint64, types.uint64), generate


@kernel
def user_record(table: Any, user: Any) -> Any:
    """The address of a user's record; the next one's follows, the sentinel's after the last."""
    return table_field(table, USERS) + user * uint64(USER_BYTES)


@kernel
def _difference(table: Any, user: Any, field: Any) -> Any:
    record = user_record(table, user) + uint64(field)
    return load_u64(record + uint64(USER_BYTES)) - load_u64(record)


@kernel
def user_events(table: Any, user: Any) -> Any:
    """How many events a user has."""
    return _difference(table, user, USER_FIRST_EVENT)


@kernel
def user_stripes(table: Any, user: Any) -> Any:
    """How many stripes a user has."""
    return _difference(table, user, USER_FIRST_STRIPE)


@kernel
def stripe_events(table: Any, user: Any, stripe: Any) -> Any:
    """How many events a stripe has."""
    rest = user_events(table, user) - stripe * uint64(STRIPE_EVENTS)
    return min(rest, uint64(STRIPE_EVENTS))


@kernel
def first_entry(table: Any, user: Any, column: Any) -> Any:
    """The address of the entry of a user's first stripe of a column."""
    record = user_record(table, user)
    first = load_u64(record + uint64(USER_FIRST_STRIPE))
    stripes = load_u64(record + uint64(USER_BYTES + USER_FIRST_STRIPE)) - first
    index = first * table_field(table, COLUMN_COUNT) + column * stripes
    return table_field(table, ENTRIES) + index * uint64(8)


@kernel
def block_index(table: Any, user: Any, column: Any, stripe: Any) -> Any:
    """The place of a stripe's block among the shard's checksums."""
    record = user_record(table, user)
    first = load_u64(record + uint64(USER_FIRST_BLOCK))
    blocks = load_u64(record + uint64(USER_BYTES + USER_FIRST_BLOCK)) - first
    return first * table_field(table, COLUMN_COUNT) + column * blocks + stripe // uint64(BLOCK_STRIPES)


@kernel
def forget_checks(table: Any, user: Any) -> None:
    """Take a user's blocks for not verified: their marks lie side by side, in all columns."""
    record, columns = user_record(table, user), table_field(table, COLUMN_COUNT)
    first = load_u64(record + uint64(USER_FIRST_BLOCK))
    blocks = load_u64(record + uint64(USER_BYTES + USER_FIRST_BLOCK)) - first
    zero_bytes(table_field(table, VERIFIED) + first * columns, blocks * columns)


@kernel
def stripe_record(table: Any, user: Any, stripe: Any) -> Any:
    """The address of a stripe's record."""
    first = load_u64(user_record(table, user) + uint64(USER_FIRST_STRIPE))
    return table_field(table, STRIPES) + (first + stripe) * uint64(STRIPE_BYTES)


@kernel
def first_ts(table: Any, user: Any, stripe: Any) -> Any:
    """event_ts of a stripe's first event, int64."""
    return load_i64(stripe_record(table, user, stripe) + uint64(STRIPE_FIRST_TS))


@kernel
def latest_ingest(table: Any, user: Any, stripe: Any) -> Any:
    """The largest ingest_ts in a stripe, int64."""
    return load_i64(stripe_record(table, user, stripe) + uint64(STRIPE_LATEST_INGEST))


@kernel
def identity_before(table: Any, user: Any, stripe: Any) -> Any:
    """The sum of the identities of a user's events before a stripe; the stripe count gives the sum of all."""
    if stripe == uint64(0):
        return uint64(0)
    return load_u64(stripe_record(table, user, stripe - uint64(1)) + uint64(STRIPE_IDENTITY))
