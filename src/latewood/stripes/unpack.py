"""Unpacking bits into values, a row of 256 bits at a time.

Values lie in 256 / B lanes of words of B bits, so that a row of lanes is one vector register: row r's value starts at
bit r * width of each lane's bit stream, and word k of lane l lies at [k * LANES + l]. One row is two loads, three
shifts and a mask, without a branch. numba cannot prove that a plain loop of this shape may become vector code, so the
loops are written as LLVM vectors outright. They check nothing; every width and address was checked when the shard was
opened.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import I32, I64, pointer

ROW_BYTES = 32


def splat(builder: Any, scalar: Any, vector_type: Any) -> Any:
    """Copy one scalar into every lane."""
    undefined = ir.Constant(vector_type, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(I32, vector_type.count), [0] * vector_type.count)
    return builder.shuffle_vector(builder.insert_element(undefined, scalar, I32(0)), undefined, lanes)


def narrow(builder: Any, scalar: Any, bits: int) -> Any:
    """The low bits of a 64-bit number."""
    return builder.trunc(scalar, ir.IntType(bits)) if bits < 64 else scalar


def _unpacker(bits: int, out_bits: int, scaled: bool = False) -> Any:
    lanes = 256 // bits
    row_type = ir.VectorType(ir.IntType(bits), lanes)
    out_type = ir.VectorType(ir.IntType(out_bits), lanes)

    @intrinsic
    def unpack(
        typing_context: Any, packed: Any, width: Any, first: Any, rows: Any, out: Any, reference: Any, factor: Any
    ) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            packed, width, first, rows, out, reference, factor = arguments
            mask = splat(builder, narrow(builder, _mask(builder, width), bits), row_type)
            plus = splat(builder, narrow(builder, reference, out_bits), out_type)
            # Known to have 32 bits, the product is one instruction; of 64 bits it would be eight.
            times = (
                splat(builder, builder.zext(builder.trunc(factor, I32), ir.IntType(64)), out_type) if scaled else None
            )
            skipped = builder.mul(first, width)
            at = cgutils.alloca_once_value(builder, builder.add(packed, _row_offset(builder, skipped, bits)))
            bit = cgutils.alloca_once_value(builder, builder.and_(skipped, I64(bits - 1)))
            with cgutils.for_range(builder, rows) as loop:
                address, shift = builder.load(at), builder.load(bit)
                low = builder.lshr(_load_row(builder, address, row_type), spread(builder, shift))
                # Shifting by all the bits is undefined, so it is done in two steps; where nothing straddles, the mask
                # removes what comes of it. The bytes read may lie past the stripe: the payload is padded.
                above = _load_row(builder, builder.add(address, I64(ROW_BYTES)), row_type)
                above = builder.shl(above, spread(builder, builder.sub(I64(bits - 1), shift)))
                above = builder.shl(above, ir.Constant(row_type, [1] * lanes))
                value = builder.and_(builder.or_(low, above), mask)
                if out_bits > bits:
                    value = builder.zext(value, out_type)
                if scaled:
                    value = builder.mul(value, times)
                place = builder.add(out, builder.mul(loop.index, I64(lanes * out_bits // 8)))
                builder.store(builder.add(value, plus), pointer(builder, place, out_type), align=1)
                end = builder.add(shift, width)
                builder.store(builder.add(address, _row_offset(builder, end, bits)), at)
                builder.store(builder.and_(end, I64(bits - 1)), bit)
            return context.get_dummy_value()

        def spread(builder: Any, scalar: Any) -> Any:
            return splat(builder, narrow(builder, scalar, bits), row_type)

        return types.void(*[types.uint64] * 7), generate

    return unpack


def _load_row(builder: Any, address: Any, row_type: Any) -> Any:
    return builder.load(pointer(builder, address, row_type), align=1)


def _mask(builder: Any, width: Any) -> Any:
    """`width` ones, for 0 to 64."""
    ones = builder.lshr(I64(-1), builder.and_(builder.sub(I64(64), width), I64(63)))
    return builder.select(builder.icmp_unsigned("==", width, I64(0)), I64(0), ones)


def _row_offset(builder: Any, bit: Any, bits: int) -> Any:
    """Bytes to the row of words in which a bit of the lane streams lies."""
    return builder.shl(builder.lshr(bit, I64(bits.bit_length() - 1)), I64(ROW_BYTES.bit_length() - 1))


# unpack_*(packed, width, first row, rows, out, reference, factor): addresses and numbers are uint64; out is where the
# first row's values go, whole rows. Only the scaled one uses the factor, which is below 2**32.
_unpack_8, _unpack_16, _unpack_32 = _unpacker(8, 8), _unpacker(16, 16), _unpacker(32, 32)
_unpack_32_to_64, _unpack_64, _unpack_scaled = _unpacker(32, 64), _unpacker(64, 64), _unpacker(32, 64, scaled=True)


@kernel
def unpack_rows(itemsize: Any, packed: Any, width: Any, start: Any, stop: Any, out: Any, reference: Any) -> Any:
    """Unpack values [start, stop) of a stripe, and the rest of their rows, to their places in out[0:256].

    `out` is the address of value 0; `reference` is added to every value.
    """
    none = uint64(1)
    if itemsize == uint64(8):
        if width <= uint64(32):
            first, last = start >> uint64(3), (stop + uint64(7)) >> uint64(3)
            _unpack_32_to_64(packed, width, first, last - first, out + (first << uint64(6)), reference, none)
        else:
            first, last = start >> uint64(2), (stop + uint64(3)) >> uint64(2)
            _unpack_64(packed, width, first, last - first, out + (first << uint64(5)), reference, none)
    elif itemsize == uint64(4):
        first, last = start >> uint64(3), (stop + uint64(7)) >> uint64(3)
        _unpack_32(packed, width, first, last - first, out + (first << uint64(5)), reference, none)
    elif itemsize == uint64(1):
        first, last = start >> uint64(5), (stop + uint64(31)) >> uint64(5)
        _unpack_8(packed, width, first, last - first, out + (first << uint64(5)), reference, none)
    else:
        first, last = start >> uint64(4), (stop + uint64(15)) >> uint64(4)
        _unpack_16(packed, width, first, last - first, out + (first << uint64(5)), reference, none)


@kernel
def unpack_scaled_rows(packed: Any, width: Any, start: Any, stop: Any, out: Any, reference: Any, factor: Any) -> Any:
    """As `unpack_rows` for 8 bytes, times `factor`, where width and factor have at most 32 bits."""
    first, last = start >> uint64(3), (stop + uint64(7)) >> uint64(3)
    _unpack_scaled(packed, width, first, last - first, out + (first << uint64(6)), reference, factor)


def _scaler(bits: int) -> Any:
    lanes = 256 // bits
    row_type = ir.VectorType(ir.IntType(bits), lanes)

    @intrinsic
    def scale(typing_context: Any, out: Any, rows: Any, factor: Any, plus: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, rows, factor, plus = arguments
            by, more = (splat(builder, narrow(builder, part, bits), row_type) for part in (factor, plus))
            with cgutils.for_range(builder, rows) as loop:
                place = pointer(builder, builder.add(out, builder.mul(loop.index, I64(ROW_BYTES))), row_type)
                value = builder.load(place, align=1)
                builder.store(builder.add(builder.mul(value, by), more), place, align=1)
            return context.get_dummy_value()

        return types.void(*[types.uint64] * 4), generate

    return scale


_scale_8, _scale_16, _scale_32, _scale_64 = (_scaler(bits) for bits in (8, 16, 32, 64))


@kernel
def scale_rows(itemsize: Any, start: Any, stop: Any, out: Any, factor: Any, plus: Any) -> Any:
    """out[i] = out[i] * factor + plus for values [start, stop) and the rest of their 32-byte rows."""
    first, last = (start * itemsize) >> uint64(5), (stop * itemsize + uint64(31)) >> uint64(5)
    at, rows = out + (first << uint64(5)), last - first
    if itemsize == uint64(8):
        _scale_64(at, rows, factor, plus)
    elif itemsize == uint64(4):
        _scale_32(at, rows, factor, plus)
    elif itemsize == uint64(1):
        _scale_8(at, rows, factor, plus)
    else:
        _scale_16(at, rows, factor, plus)


_PAIR, _QUAD = ir.VectorType(I64, 2), ir.VectorType(I64, 4)


def _lanes(builder: Any, row: Any, *lanes: int) -> Any:
    """A row's lanes in another order; as many as there are lanes stands for zero."""
    order = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
    return builder.shuffle_vector(row, ir.Constant(row.type, [0] * len(lanes)), order)


@intrinsic
def sum_pairs(typing_context: Any, steps: Any, pairs: Any, start: Any, out: Any) -> Any:
    """out[i] = start + steps[0] + … + steps[i], for pairs of uint64. Returns: the last, or `start` without pairs.

    One addition from row to row is all that waits. Rows of four where possible (measured, of a stripe: 45 ns; rows of
    eight 48, pairs alone 61, one by one 78).
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        steps, pairs, start, out = arguments
        carried = cgutils.alloca_once_value(builder, splat(builder, start, _QUAD))
        with cgutils.for_range(builder, builder.lshr(pairs, I64(1))) as loop:
            at = builder.mul(loop.index, I64(32))
            row = builder.load(pointer(builder, builder.add(steps, at), _QUAD), align=1)
            row = builder.add(row, _lanes(builder, row, 4, 0, 1, 2))
            row = builder.add(row, _lanes(builder, row, 4, 4, 0, 1))
            before = builder.load(carried)
            builder.store(builder.add(before, row), pointer(builder, builder.add(out, at), _QUAD), align=1)
            builder.store(builder.add(before, _lanes(builder, row, 3, 3, 3, 3)), carried)
        result = cgutils.alloca_once_value(builder, builder.extract_element(builder.load(carried), I32(0)))
        with builder.if_then(builder.trunc(pairs, ir.IntType(1))):
            at = builder.shl(builder.sub(pairs, I64(1)), I64(4))
            pair = builder.load(pointer(builder, builder.add(steps, at), _PAIR), align=1)
            pair = builder.add(pair, _lanes(builder, pair, 2, 0))
            pair = builder.add(pair, splat(builder, builder.load(result), _PAIR))
            builder.store(pair, pointer(builder, builder.add(out, at), _PAIR), align=1)
            builder.store(builder.extract_element(pair, I32(1)), result)
        return builder.load(result)

    return types.uint64(*[types.uint64] * 4), generate
