"""One stripe's bytes → values: what `decode_column` and the kernels of other packages are made of.

All numbers are uint64, memory is named by address. `table` is the address of a shard's row in an address table
(`table_at(rows, shard)`). Whoever calls has checked that the user, stripe and column exist; everything else was checked
when the shard was opened, but for the payload's bytes: those have checksums, and whatever they hold, no byte outside a
stripe's 256 places in `out` is written.
"""

from typing import Any

from numba import uint64

from latewood.events import NEVER
from latewood.kernels import kernel
from latewood.stripes.addresses import (
    address_of,
    copy_bytes,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
    zero_bytes,
)
from latewood.stripes.checksum import xxh64
from latewood.stripes.entries import (
    bitmap_bytes,
    block_index,
    entry_exceptions,
    entry_has_nulls,
    entry_has_reference,
    entry_mode,
    entry_offset,
    entry_size_code,
    entry_width,
    first_entry,
    first_ts,
    packed_bytes,
    stripe_events,
    table_field,
    user_stripes,
)
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    CHECKSUMS,
    DELAY,
    EVENT_TS,
    NO_COLUMN,
    NULLS,
    ORDINAL,
    PAYLOAD,
    POSITIONS,
    RAW,
    SCALED,
    STRIPE_EVENTS,
    SUPERSEDED,
    TABLE_FIELDS,
    VERIFIED,
)
from latewood.stripes.unpack import scale_rows, sum_pairs, unpack_rows, unpack_scaled_rows
from latewood.stripes.unroll import unpack_scaled_stripe, unpack_stripe

_FEW = STRIPE_EVENTS // 2  # values that are unpacked row by row


@kernel
def table_at(rows: Any, shard: Any) -> Any:
    """The address of a shard's row in an address table."""
    return address_of(rows) + uint64(shard) * uint64(TABLE_FIELDS * 8)


@kernel
def verify_block(table: Any, user: Any, column: Any, stripe: Any) -> Any:
    """Check the checksum of a stripe's block, unless that was done before. Returns: 0 where it is right."""
    block = block_index(table, user, column, stripe)
    verified = table_field(table, VERIFIED) + block
    if load_u8(verified):
        return uint64(0)
    first = stripe - stripe % uint64(BLOCK_STRIPES)
    last = min(first + uint64(BLOCK_STRIPES), user_stripes(table, user))
    entries = first_entry(table, user, column)
    start = entry_offset(load_u64(entries + first * uint64(8)))
    stop = entry_offset(load_u64(entries + last * uint64(8)))
    stored = load_u64(table_field(table, CHECKSUMS) + block * uint64(8))
    if xxh64(table_field(table, PAYLOAD) + start, stop - start) != stored:
        return uint64(1)
    store_u8(verified, uint64(1))
    return uint64(0)


@kernel
def _patch(itemsize: Any, out: Any, entry: Any, highs: Any, factor: Any) -> Any:
    """Add the high parts of the exceptions, times `factor`, to their values."""
    exceptions, code, width = entry_exceptions(entry), entry_size_code(entry), entry_width(entry)
    positions = highs + (exceptions << code)
    mask = ~uint64(0) >> (uint64(64) - (uint64(8) << code))
    for i in range(exceptions):
        # Eight bytes are read whatever the size: the payload is padded.
        high = ((load_u64(highs + (uint64(i) << code)) & mask) << width) * factor
        at = out + load_u8(positions + uint64(i)) * itemsize
        if itemsize == uint64(8):
            store_u64(at, load_u64(at) + high)
        elif itemsize == uint64(4):
            store_u32(at, load_u32(at) + high)
        elif itemsize == uint64(1):
            store_u8(at, load_u8(at) + high)
        else:
            store_u16(at, load_u16(at) + high)


@kernel
def _unpack(table: Any, itemsize: Any, packed: Any, width: Any, start: Any, stop: Any, out: Any, reference: Any) -> Any:
    """Values [start, stop): all of them, where that is as fast as the rows that they lie in."""
    if stop - start > uint64(_FEW) and width <= uint64(32):
        unpack_stripe(table, itemsize, packed, width, out, reference)
    else:
        unpack_rows(itemsize, packed, width, start, stop, out, reference)


@kernel
def _unpack_scaled(
    table: Any,
    entry: Any,
    events: Any,
    itemsize: Any,
    packed: Any,
    start: Any,
    stop: Any,
    out: Any,
    reference: Any,
    factor: Any,
) -> Any:
    """Values [start, stop) as reference + packed * factor, exceptions included."""
    width = entry_width(entry)
    highs = packed + packed_bytes(events, itemsize, width)
    if itemsize == uint64(8) and width <= uint64(32) and factor < uint64(1 << 32):
        if stop - start > uint64(_FEW):
            unpack_scaled_stripe(table, packed, width, out, reference, factor)
        else:
            unpack_scaled_rows(packed, width, start, stop, out, reference, factor)
        _patch(itemsize, out, entry, highs, factor)
    else:
        _unpack(table, itemsize, packed, width, start, stop, out, uint64(0))
        _patch(itemsize, out, entry, highs, uint64(1))
        scale_rows(itemsize, start, stop, out, factor, reference)


@kernel
def _set_positions(at: Any, count: Any, out: Any) -> Any:
    for i in range(count):
        store_u8(out + load_u8(at + uint64(i)), uint64(1))


@kernel
def decode_values(table: Any, entry: Any, events: Any, itemsize: Any, start: Any, stop: Any, out: Any) -> Any:
    """Values [start, stop) of a stripe to their places in out[0:256], nulls as whatever was packed.

    The other places may be overwritten too.
    """
    at = table_field(table, PAYLOAD) + entry_offset(entry) + bitmap_bytes(entry, events)
    mode = entry_mode(entry)
    if mode == uint64(RAW):
        copy_bytes(out + start * itemsize, at + start * itemsize, (stop - start) * itemsize)
    elif mode == uint64(POSITIONS):
        zero_bytes(out + start, stop - start)
        _set_positions(at, entry_exceptions(entry), out)
    elif mode == uint64(NULLS):
        zero_bytes(out + start * itemsize, (stop - start) * itemsize)
    elif mode == uint64(SCALED):
        reference, factor = load_u64(at), load_u64(at + uint64(8))
        _unpack_scaled(table, entry, events, itemsize, at + uint64(16), start, stop, out, reference, factor)
    else:
        reference = uint64(0)
        if entry_has_reference(entry):
            reference = load_u64(at)
            at += uint64(8)
        _unpack(table, itemsize, at, entry_width(entry), start, stop, out, reference)
        if entry_exceptions(entry):
            _patch(itemsize, out, entry, at + packed_bytes(events, itemsize, entry_width(entry)), uint64(1))


@kernel
def sum_steps(table: Any, entry: Any, events: Any, first: Any, start: Any, stop: Any, steps: Any, out: Any) -> Any:
    """Times [start, stop) of a DELTA stripe to out[0 : stop - start]; `steps` is room for 256 values."""
    at = table_field(table, PAYLOAD) + entry_offset(entry)
    if entry_has_reference(entry):
        factor = load_u64(at)
        _unpack_scaled(table, entry, events, uint64(8), at + uint64(8), uint64(0), stop, steps, uint64(0), factor)
    else:
        _unpack(table, uint64(8), at, entry_width(entry), uint64(0), stop, steps, uint64(0))
        _patch(uint64(8), steps, entry, at + packed_bytes(events, uint64(8), entry_width(entry)), uint64(1))
    time = uint64(first)
    for i in range(start):
        time += load_u64(steps + (uint64(i) << uint64(3)))
    # Straight to where they belong: a copy would have to wait for what has just been stored.
    source, pairs = steps + (start << uint64(3)), (stop - start) >> uint64(1)
    time = sum_pairs(source, pairs, time, out)
    if (stop - start) & uint64(1):
        last = pairs << uint64(4)
        store_u64(out + last, time + load_u64(source + last))


@kernel
def apply_nulls(bitmap: Any, start: Any, stop: Any, itemsize: Any, out: Any, mask: Any) -> Any:
    """Zero the values that are null, of [start, stop) at `out`, and write their mask, unless its address is 0."""
    for i in range(start, stop):
        place = uint64(i) - start
        null = (load_u8(bitmap + (uint64(i) >> uint64(3))) >> (uint64(i) & uint64(7))) & uint64(1)
        if mask:
            store_u8(mask + place, null)
        if null:
            zero_bytes(out + place * itemsize, itemsize)


@kernel
def _load_entry(table: Any, user: Any, column: Any, stripe: Any) -> Any:
    return load_u64(first_entry(table, user, column) + stripe * uint64(8))


@kernel
def decode_times(table: Any, user: Any, stripe: Any, steps: Any, out: Any) -> Any:
    """event_ts of a whole stripe as int64.

    `steps` and `out` are room for 256 values each, apart. Returns: 0, or 1 where the block is damaged.
    """
    if verify_block(table, user, uint64(EVENT_TS), stripe):
        return uint64(1)
    events = stripe_events(table, user, stripe)
    entry = _load_entry(table, user, uint64(EVENT_TS), stripe)
    first = uint64(first_ts(table, user, stripe))
    sum_steps(table, entry, events, first, uint64(0), events, steps, out)
    return uint64(0)


@kernel
def decode_built_in(table: Any, user: Any, column: Any, stripe: Any, itemsize: Any, out: Any) -> Any:
    """A whole stripe, nulls as whatever was packed; `out` is room for 256 values. Returns: 0, or 1 where damaged."""
    if verify_block(table, user, column, stripe):
        return uint64(1)
    events = stripe_events(table, user, stripe)
    entry = _load_entry(table, user, column, stripe)
    decode_values(table, entry, events, itemsize, uint64(0), events, out)
    return uint64(0)


@kernel
def decode_delays(table: Any, user: Any, stripe: Any, out: Any) -> Any:
    """ingest_ts - event_ts of a whole stripe as int64, as `decode_built_in`."""
    return decode_built_in(table, user, uint64(DELAY), stripe, uint64(8), out)


@kernel
def decode_ordinals(table: Any, user: Any, stripe: Any, out: Any) -> Any:
    """The ordinals of a whole stripe as int32, as `decode_built_in`."""
    return decode_built_in(table, user, uint64(ORDINAL), stripe, uint64(4), out)


@kernel
def decode_superseded(table: Any, user: Any, stripe: Any, out: Any) -> Any:
    """superseded_at of a whole stripe as int64, NEVER (2**63 - 1) where an event is not, as `decode_built_in`.

    So are all events of a shard without such a column.
    """
    events, column = stripe_events(table, user, stripe), table_field(table, SUPERSEDED)
    if column == uint64(NO_COLUMN):
        _fill_never(events, out)
        return uint64(0)
    if decode_built_in(table, user, column, stripe, uint64(8), out):
        return uint64(1)
    entry = _load_entry(table, user, column, stripe)
    if entry_mode(entry) == uint64(NULLS):
        _fill_never(events, out)
    elif entry_has_nulls(entry):
        bitmap = table_field(table, PAYLOAD) + entry_offset(entry)
        for i in range(events):
            if (load_u8(bitmap + (uint64(i) >> uint64(3))) >> (uint64(i) & uint64(7))) & uint64(1):
                store_u64(out + (uint64(i) << uint64(3)), uint64(NEVER))
    return uint64(0)


@kernel
def _fill_never(count: Any, out: Any) -> None:
    for i in range(count):
        store_u64(out + (uint64(i) << uint64(3)), uint64(NEVER))


@kernel
def decode_part(
    table: Any,
    entry: Any,
    events: Any,
    itemsize: Any,
    start: Any,
    stop: Any,
    out: Any,
    scratch: Any,
) -> Any:
    """Values [start, stop) of a stripe, not of times, to out[0 : stop - start], nulls as whatever was packed.

    Whole stripes are unpacked into place, others through `scratch`, which is room for 256 values of 8 bytes, unless they
    lie there value by value.
    """
    mode = entry_mode(entry)
    if stop - start == uint64(STRIPE_EVENTS):
        decode_values(table, entry, events, itemsize, start, stop, out)
    elif mode == uint64(RAW):
        at = table_field(table, PAYLOAD) + entry_offset(entry) + bitmap_bytes(entry, events)
        copy_bytes(out, at + start * itemsize, (stop - start) * itemsize)
    elif mode == uint64(POSITIONS):
        at = table_field(table, PAYLOAD) + entry_offset(entry) + bitmap_bytes(entry, events)
        zero_bytes(out, stop - start)
        for i in range(entry_exceptions(entry)):
            place = load_u8(at + uint64(i)) - start  # wraps where it lies before the part
            if place < stop - start:
                store_u8(out + place, uint64(1))
    else:
        decode_values(table, entry, events, itemsize, start, stop, scratch)
        copy_bytes(out, scratch + start * itemsize, (stop - start) * itemsize)


@kernel
def mark_nulls(payload: Any, entry: Any, start: Any, stop: Any, itemsize: Any, out: Any, mask: Any) -> Any:
    """Zero the nulls of decoded values [start, stop) of a stripe that has nulls, and write their mask."""
    if entry_mode(entry) != uint64(NULLS):
        apply_nulls(payload + entry_offset(entry), start, stop, itemsize, out, mask)
    elif mask:
        for i in range(stop - start):
            store_u8(mask + uint64(i), uint64(1))
