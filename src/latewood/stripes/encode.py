"""One stripe of one column → its bytes and its entry: every encoding that could pay is priced, the cheapest is written.

A stripe's values are staged as 256 uint64 (sign-extended where signed; floats as their bits), nulls as the smallest of
the others, so that they cost nothing where a reference is taken off.
"""

from typing import Any

import numpy as np
from numba import int64, uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import (
    copy_bytes,
    load_i8,
    load_i16,
    load_i32,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_u8,
    store_u64,
    zero_bytes,
)
from latewood.stripes.layout import (
    DELTA,
    EXCEPTIONS_SHIFT,
    HAS_NULLS_SHIFT,
    HAS_REFERENCE_SHIFT,
    MODE_SHIFT,
    NULLS,
    PACKED,
    POSITIONS,
    RAW,
    SCALED,
    SIZE_CODE_SHIFT,
    STRIPE_EVENTS,
    WIDTH_SHIFT,
)
from latewood.stripes.pack import choose_width, count_bits, pack_values

UNSIGNED, SIGNED, BOOL = 0, 1, 2  # kinds of values; floats are unsigned
SCRATCH_WORDS = 256 + 65  # staged values, then a histogram


def kind_of(dtype: np.dtype[Any]) -> int:
    """The kind of a column's values."""
    return {"i": SIGNED, "b": BOOL}.get(dtype.kind, UNSIGNED)


@kernel
def stage_values(kind: Any, itemsize: Any, source: Any, events: Any, values: Any) -> Any:
    """Load a stripe's values as uint64, with zeros after the last."""
    for i in range(events):
        at = source + uint64(i) * itemsize
        value = uint64(0)
        if itemsize == uint64(8):
            value = load_u64(at)
        elif itemsize == uint64(4):
            value = uint64(load_i32(at)) if kind == uint64(SIGNED) else load_u32(at)
        elif itemsize == uint64(2):
            value = uint64(load_i16(at)) if kind == uint64(SIGNED) else load_u16(at)
        elif kind == uint64(SIGNED):
            value = uint64(load_i8(at))
        else:
            value = load_u8(at)
        store_u64(values + (uint64(i) << uint64(3)), value)
    zero_bytes(values + (events << uint64(3)), (uint64(STRIPE_EVENTS) - events) << uint64(3))


@kernel
def _smallest(values: Any, events: Any, signed: Any, nulls: Any) -> Any:
    """The smallest value that is not null, as uint64; `nulls` is the address of a mask or 0."""
    flip = uint64(1) << uint64(63) if signed else uint64(0)  # makes signed order unsigned
    least = ~uint64(0)
    for i in range(events):
        if nulls and load_u8(nulls + uint64(i)):
            continue
        least = min(least, load_u64(values + (uint64(i) << uint64(3))) ^ flip)
    return least ^ flip


@kernel
def _common_factor(values: Any, events: Any, minus: Any) -> Any:
    """The greatest common divisor of the values less `minus`; 0 where all are 0."""
    factor = uint64(0)
    for i in range(events):
        value = load_u64(values + (uint64(i) << uint64(3))) - minus
        if value == uint64(0) or (factor and value % factor == uint64(0)):
            continue
        while value:
            factor, value = value, factor % value
        if factor == uint64(1):
            return factor
    return factor


@kernel
def _subtract_and_divide(values: Any, events: Any, minus: Any, factor: Any) -> Any:
    for i in range(events):
        at = values + (uint64(i) << uint64(3))
        store_u64(at, (load_u64(at) - minus) // factor)


@kernel
def _multiply_and_add(values: Any, events: Any, factor: Any, plus: Any) -> Any:
    for i in range(events):
        at = values + (uint64(i) << uint64(3))
        store_u64(at, load_u64(at) * factor + plus)


@kernel
def _subtract_and_mask(values: Any, events: Any, minus: Any, mask: Any) -> Any:
    for i in range(events):
        at = values + (uint64(i) << uint64(3))
        store_u64(at, (load_u64(at) - minus) & mask)


@kernel
def _write_nulls(nulls: Any, events: Any, out: Any) -> Any:
    """Write the bitmap of a mask. Returns: the number of nulls."""
    zero_bytes(out, (events + uint64(7)) >> uint64(3))
    count = uint64(0)
    for i in range(events):
        if load_u8(nulls + uint64(i)):
            count += uint64(1)
            at = out + (uint64(i) >> uint64(3))
            store_u8(at, load_u8(at) | (uint64(1) << (uint64(i) & uint64(7))))
    return count


@kernel
def _make_entry(offset: Any, mode: Any, width: Any, exceptions: Any, code: Any, nulls: Any, reference: Any) -> Any:
    entry = offset | (mode << uint64(MODE_SHIFT)) | (width << uint64(WIDTH_SHIFT))
    entry |= (exceptions << uint64(EXCEPTIONS_SHIFT)) | (code << uint64(SIZE_CODE_SHIFT))
    return entry | (nulls << uint64(HAS_NULLS_SHIFT)) | (reference << uint64(HAS_REFERENCE_SHIFT))


@kernel
def encode_times(source: Any, events: Any, offset: Any, out: Any, scratch: Any) -> Any:
    """A stripe of event_ts as DELTA. Returns: its entry and bytes; no bytes and an entry of all ones where unsorted."""
    values, counts = scratch, scratch + uint64(STRIPE_EVENTS * 8)
    previous = int64(load_u64(source))
    for i in range(events):
        time = int64(load_u64(source + (uint64(i) << uint64(3))))
        if time < previous:
            return ~uint64(0), uint64(0)
        store_u64(values + (uint64(i) << uint64(3)), uint64(time) - uint64(previous))
        previous = time
    zero_bytes(values + (events << uint64(3)), (uint64(STRIPE_EVENTS) - events) << uint64(3))
    bits = count_bits(values, events, uint64(0), ~uint64(0), counts)
    size, width, exceptions, code = choose_width(counts, bits, events, uint64(8))
    factor = _common_factor(values, events, uint64(0))
    divided = uint64(0)
    if factor > uint64(1):
        _subtract_and_divide(values, events, uint64(0), factor)
        bits = count_bits(values, events, uint64(0), ~uint64(0), counts)
        small, small_width, small_exceptions, small_code = choose_width(counts, bits, events, uint64(8))
        if small + uint64(8) < size:
            size, width, exceptions, code = small + uint64(8), small_width, small_exceptions, small_code
            divided = uint64(1)
            store_u64(out, factor)
        else:
            _multiply_and_add(values, events, factor, uint64(0))
    pack_values(values, events, uint64(8), width, exceptions, code, out + (divided << uint64(3)))
    return _make_entry(offset, uint64(DELTA), width, exceptions, code, uint64(0), divided), size


@kernel
def encode_stripe(
    kind: Any, itemsize: Any, source: Any, nulls: Any, events: Any, offset: Any, out: Any, scratch: Any
) -> Any:
    """A stripe of any other column; `nulls` is the address of its mask or 0. Returns: its entry and bytes."""
    values = scratch
    stage_values(kind, itemsize, source, events, values)
    bitmap = uint64(0)
    if nulls:
        count = _write_nulls(nulls, events, out)
        if count == events:
            return _make_entry(offset, uint64(NULLS), uint64(0), uint64(0), uint64(0), uint64(1), uint64(0)), uint64(0)
        bitmap = (events + uint64(7)) >> uint64(3) if count else uint64(0)
        nulls = nulls if count else uint64(0)
    least = _smallest(values, events, kind == uint64(SIGNED), nulls)
    if nulls:
        for i in range(events):
            if load_u8(nulls + uint64(i)):
                store_u64(values + (uint64(i) << uint64(3)), least)
    if kind == uint64(BOOL):
        entry, size = _write_bools(values, events, least, bitmap, offset, out + bitmap)
    else:
        entry, size = _write_cheapest(itemsize, values, events, least, bitmap, offset, out + bitmap, scratch)
    return entry, size + bitmap


@kernel
def _write_raw(values: Any, events: Any, itemsize: Any, out: Any) -> Any:
    for i in range(events):
        copy_bytes(out + uint64(i) * itemsize, values + (uint64(i) << uint64(3)), itemsize)


@kernel
def _write_bools(values: Any, events: Any, least: Any, bitmap: Any, offset: Any, out: Any) -> Any:
    has_nulls = uint64(bitmap > uint64(0))
    if least:  # all true
        if events <= uint64(8):
            _write_raw(values, events, uint64(1), out)
            return _make_entry(offset, uint64(RAW), uint64(0), uint64(0), uint64(0), has_nulls, uint64(0)), events
        store_u64(out, uint64(1))
        return _make_entry(offset, uint64(PACKED), uint64(0), uint64(0), uint64(0), has_nulls, uint64(1)), uint64(8)
    true = uint64(0)
    for i in range(events):
        if load_u64(values + (uint64(i) << uint64(3))):
            store_u8(out + true, uint64(i))
            true += uint64(1)
    if true == uint64(0):
        return _make_entry(offset, uint64(PACKED), uint64(0), uint64(0), uint64(0), has_nulls, uint64(0)), uint64(0)
    if true <= min(events, uint64(32)):
        return _make_entry(offset, uint64(POSITIONS), uint64(0), true, uint64(0), has_nulls, uint64(0)), true
    if events <= uint64(32):
        _write_raw(values, events, uint64(1), out)
        return _make_entry(offset, uint64(RAW), uint64(0), uint64(0), uint64(0), has_nulls, uint64(0)), events
    pack_values(values, events, uint64(1), uint64(1), uint64(0), uint64(0), out)
    return _make_entry(offset, uint64(PACKED), uint64(1), uint64(0), uint64(0), has_nulls, uint64(0)), uint64(32)


@kernel
def _write_cheapest(
    itemsize: Any, values: Any, events: Any, least: Any, bitmap: Any, offset: Any, out: Any, scratch: Any
) -> Any:
    has_nulls = uint64(bitmap > uint64(0))
    every = ~uint64(0) >> (uint64(64) - (itemsize << uint64(3)))
    counts = scratch + uint64(STRIPE_EVENTS * 8)
    mode, factor, reference = uint64(PACKED), uint64(1), uint64(0)
    bits = count_bits(values, events, uint64(0), every, counts)
    size, width, exceptions, code = choose_width(counts, bits, events, itemsize)
    if least and size > uint64(8):
        bits = count_bits(values, events, least, every, counts)
        less, less_width, less_exceptions, less_code = choose_width(counts, bits, events, itemsize)
        if less + uint64(8) < size:
            size, width, exceptions, code = less + uint64(8), less_width, less_exceptions, less_code
            reference = uint64(1)
    if size > uint64(16):
        common = _common_factor(values, events, least)
        if common > uint64(1):
            _subtract_and_divide(values, events, least, common)
            bits = count_bits(values, events, uint64(0), every, counts)
            small, small_width, small_exceptions, small_code = choose_width(counts, bits, events, itemsize)
            if small + uint64(16) < size:
                size, width, exceptions, code = small + uint64(16), small_width, small_exceptions, small_code
                mode, factor, reference = uint64(SCALED), common, uint64(1)
            else:
                _multiply_and_add(values, events, common, least)
    if events * itemsize <= size:
        if factor > uint64(1):
            _multiply_and_add(values, events, factor, least)
        _write_raw(values, events, itemsize, out)
        return _make_entry(
            offset, uint64(RAW), uint64(0), uint64(0), uint64(0), has_nulls, uint64(0)
        ), events * itemsize
    if mode == uint64(SCALED):
        store_u64(out + uint64(8), factor)
    else:
        _subtract_and_mask(values, events, least if reference else uint64(0), every)
    if reference:
        store_u64(out, least)
        out += uint64(16) if mode == uint64(SCALED) else uint64(8)
    pack_values(values, events, itemsize, width, exceptions, code, out)
    return _make_entry(offset, mode, width, exceptions, code, has_nulls, reference), size
