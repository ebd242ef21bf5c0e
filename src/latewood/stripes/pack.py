"""Packing values into bits: the inverse of unpack.py, and the choice of the cheapest width.

A width that fits nearly all values is chosen by total size; of the few wider ones (exceptions) the bits above the width
are stored beside their positions, and added after unpacking ("patched frame of reference").
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import (
    I64,
    bit_length,
    load_u64,
    pointer,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
    zero_bytes,
)
from latewood.stripes.entries import packed_bytes, word_bits
from latewood.stripes.unpack import ROW_BYTES, narrow, splat


def _packer(bits: int) -> Any:
    lanes = 256 // bits
    row_type, wide_type = (ir.VectorType(ir.IntType(b), lanes) for b in (bits, 64))

    @intrinsic
    def pack(typing_context: Any, values: Any, rows: Any, width: Any, mask: Any, out: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, rows, width, mask, out = arguments
            keep = splat(builder, narrow(builder, mask, bits), row_type)
            with cgutils.for_range(builder, rows) as loop:
                bit = builder.mul(loop.index, width)
                shift = builder.and_(bit, I64(bits - 1))
                source = builder.add(values, builder.mul(loop.index, I64(lanes * 8)))
                row = builder.load(pointer(builder, source, wide_type), align=1)
                row = builder.and_(builder.trunc(row, row_type) if bits < 64 else row, keep)
                word = builder.mul(builder.lshr(bit, I64(bits.bit_length() - 1)), I64(ROW_BYTES))
                low = pointer(builder, builder.add(out, word), row_type)
                merge(builder, low, builder.shl(row, splat(builder, narrow(builder, shift, bits), row_type)))
                with builder.if_then(builder.icmp_unsigned(">", builder.add(shift, width), I64(bits))):
                    rest = splat(builder, narrow(builder, builder.sub(I64(bits), shift), bits), row_type)
                    next_row = pointer(builder, builder.add(out, builder.add(word, I64(ROW_BYTES))), row_type)
                    merge(builder, next_row, builder.lshr(row, rest))
            return context.get_dummy_value()

        def merge(builder: Any, place: Any, row: Any) -> None:
            builder.store(builder.or_(builder.load(place, align=1), row), place, align=1)

        return types.void(*[types.uint64] * 5), generate

    return pack


_pack_8, _pack_16, _pack_32, _pack_64 = (_packer(bits) for bits in (8, 16, 32, 64))


@kernel
def choose_width(counts: Any, bits: Any, events: Any, itemsize: Any) -> Any:
    """The cheapest width. `counts` is the address of 65 counts of values by bit length, `bits` the largest of those.

    Returns: bytes, width, exceptions, and the size code of their high parts.
    """
    best = packed_bytes(events, itemsize, bits)
    best_width, best_exceptions, best_code, exceptions = bits, uint64(0), uint64(0), uint64(0)
    width = bits
    while width > uint64(0):
        exceptions += load_u64(counts + width * uint64(8))
        width -= uint64(1)
        high = bits - width
        code = uint64(high > uint64(8)) + uint64(high > uint64(16)) + uint64(high > uint64(32))
        size = packed_bytes(events, itemsize, width) + exceptions * (uint64(1) + (uint64(1) << code))
        if size < best:
            best, best_width, best_exceptions, best_code = size, width, exceptions, code
    return best, best_width, best_exceptions, best_code


@kernel
def pack_values(values: Any, events: Any, itemsize: Any, width: Any, exceptions: Any, code: Any, out: Any) -> Any:
    """Pack a stripe's 256 uint64 values (zeros after the last event), exceptions included, to `out`."""
    size = packed_bytes(events, itemsize, width)
    zero_bytes(out, size)
    bits = word_bits(itemsize, width)
    lanes = uint64(256) // bits
    rows = (events + lanes - uint64(1)) // lanes
    mask = ~uint64(0) >> (uint64(64) - width) if width else uint64(0)
    if width == uint64(0):
        rows = uint64(0)
    if bits == uint64(32):
        _pack_32(values, rows, width, mask, out)
    elif bits == uint64(8):
        _pack_8(values, rows, width, mask, out)
    elif bits == uint64(16):
        _pack_16(values, rows, width, mask, out)
    else:
        _pack_64(values, rows, width, mask, out)
    if exceptions:
        _write_exceptions(values, events, width, mask, exceptions, code, out + size)


@kernel
def _write_exceptions(values: Any, events: Any, width: Any, mask: Any, count: Any, code: Any, out: Any) -> Any:
    position = out + (count << code)
    for i in range(events):
        value = load_u64(values + (uint64(i) << uint64(3)))
        if value > mask:
            high = value >> width
            if code == uint64(0):
                store_u8(out, high)
            elif code == uint64(1):
                store_u16(out, high)
            elif code == uint64(2):
                store_u32(out, high)
            else:
                store_u64(out, high)
            out += uint64(1) << code
            store_u8(position, uint64(i))
            position += uint64(1)


@kernel
def count_bits(values: Any, events: Any, minus: Any, mask: Any, counts: Any) -> Any:
    """Count values by the bit length of (value - minus) & mask. Returns: the largest bit length."""
    zero_bytes(counts, uint64(65 * 8))
    every = uint64(0)
    for i in range(events):
        value = (load_u64(values + (uint64(i) << uint64(3))) - minus) & mask
        every |= value
        at = counts + (bit_length(value) << uint64(3))
        store_u64(at, load_u64(at) + uint64(1))
    return bit_length(every)
