"""Match: which of a stripe's values lie in an interval, as a mask of 256 bits."""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

from llvmlite import ir
from numba import types, uint64
from numba.core import cgutils

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import I64, pointer
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.unpack import narrow, splat


def _matcher(bits: int) -> Any:
    lanes = max(256 // bits, 8)
    row_type, out_type = ir.VectorType(ir.IntType(bits), lanes), ir.IntType(lanes)

    @intrinsic
    def match(typing_context: Any, values: Any, low: Any, span: Any, out: Any) -> Any:
        """Set the bits of the values, of 256, that lie from `low` on no further than `span`."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, low, span, out = arguments
            lowest, most = (splat(builder, narrow(builder, part, bits), row_type) for part in (low, span))
            with cgutils.for_range(builder, I64(STRIPE_EVENTS // lanes)) as loop:
                at = builder.add(values, builder.mul(loop.index, I64(lanes * bits // 8)))
                row = builder.load(pointer(builder, at, row_type), align=1)
                found = builder.icmp_unsigned("<=", builder.sub(row, lowest), most)
                place = pointer(builder, builder.add(out, builder.mul(loop.index, I64(lanes // 8))), out_type)
                before = builder.load(place, align=1)
                builder.store(builder.or_(before, builder.bitcast(found, out_type)), place, align=1)
            return context.get_dummy_value()

        return types.void(*[types.uint64] * 4), generate

    return match


_match_8, _match_16, _match_32, _match_64 = (_matcher(bits) for bits in (8, 16, 32, 64))


@kernel
def match_values(itemsize: Any, values: Any, low: Any, span: Any, mask: Any) -> None:
    """Set the bits of the values, of 256, that lie from `low` on no further than `span`, modulo their width."""
    if itemsize == uint64(8):
        _match_64(values, low, span, mask)
    elif itemsize == uint64(4):
        _match_32(values, low, span, mask)
    elif itemsize == uint64(1):
        _match_8(values, low, span, mask)
    else:
        _match_16(values, low, span, mask)


@kernel
def row_bits(start: Any, stop: Any, word: Any) -> Any:
    """One word of the mask of rows [start, stop) of a stripe."""
    first = word << uint64(6)
    low, high = max(start, first) - first, min(stop, first + uint64(64))
    if high <= first or low >= uint64(64) or high - first <= low:
        return uint64(0)
    return (~uint64(0) << low) & (~uint64(0) >> (uint64(64) - (high - first)))
