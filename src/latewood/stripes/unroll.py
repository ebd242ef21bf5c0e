"""Unpacking whole stripes, at a speed that knows the width: code of its own for every width, without loops.

`unpack` shifts by what it reads; here every shift and mask is written into the instructions, which takes a half to a
quarter of the time (docs/decisions/0018-unrolled-unpackers.md). As a part of every kernel that decodes, so much code
would have to be compiled over and over. So it stands alone, compiled once, and kernels call it by its address, which
the address table of a shard gives them.

All 256 values are written, whatever the stripe holds, so `out` has room for them; up to 1024 bytes are read from
`packed` on, which the padding of the payload allows.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types, uint64

from latewood.kernels import address, intrinsic, kernel, typed_kernel
from latewood.stripes.addresses import I32, I64, load_u64, pointer
from latewood.stripes.entries import table_field
from latewood.stripes.layout import UNPACKERS
from latewood.stripes.unpack import ROW_BYTES, narrow, splat
from latewood.stripes.widths import call_by_address, each_row, switch_widths

_SIGNATURE = types.void(*[types.uint64] * 5)  # packed, width, out, reference, factor


def _unroller(bits: int, out_bits: int, scaled: bool = False) -> Any:
    """An instruction that unpacks the values of a stripe, and the rows' code for every width up to `bits`."""
    lanes = 8 * ROW_BYTES // bits
    out_type = ir.VectorType(ir.IntType(out_bits), lanes)

    @intrinsic
    def unpack_all(typing_context: Any, packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            packed, width, out, reference, factor = arguments
            plus = splat(builder, narrow(builder, reference, out_bits), out_type)
            # known to have 32 bits, the product is one instruction; of 64 bits it would be eight
            times = splat(builder, builder.zext(builder.trunc(factor, I32), I64), out_type) if scaled else None

            def unpack_width(possible: int) -> None:
                for row, value in each_row(builder, packed, bits, possible):
                    if out_bits > bits:
                        value = builder.zext(value, out_type)
                    if times is not None:
                        value = builder.mul(value, times)
                    place = builder.add(out, I64(row * lanes * out_bits // 8))
                    builder.store(builder.add(value, plus), pointer(builder, place, out_type), align=1)

            switch_widths(builder, width, bits, unpack_width)
            return context.get_dummy_value()

        return _SIGNATURE, generate

    return unpack_all


_all_8, _all_16, _all_32 = _unroller(8, 8), _unroller(16, 16), _unroller(32, 32)
_all_32_to_64, _all_scaled = _unroller(32, 64), _unroller(32, 64, scaled=True)


@typed_kernel(_SIGNATURE)
def _unpack_8(packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> None:
    _all_8(packed, width, out, reference, factor)


@typed_kernel(_SIGNATURE)
def _unpack_16(packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> None:
    _all_16(packed, width, out, reference, factor)


@typed_kernel(_SIGNATURE)
def _unpack_32(packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> None:
    _all_32(packed, width, out, reference, factor)


@typed_kernel(_SIGNATURE)
def _unpack_32_to_64(packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> None:
    _all_32_to_64(packed, width, out, reference, factor)


@typed_kernel(_SIGNATURE)
def _unpack_scaled(packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> None:
    _all_scaled(packed, width, out, reference, factor)


# Where they are, by half the bytes of a value; at 3 the one that scales.
_COMPILED = {0: _unpack_8, 1: _unpack_16, 2: _unpack_32, 4: _unpack_32_to_64, 3: _unpack_scaled}
_SCALED = 3
ADDRESSES = np.array([address(_COMPILED[place]) for place in range(5)], np.uint64)


@intrinsic
def _call(typing_context: Any, function: Any, packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> Any:
    """Call one of them by its address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function, *rest = arguments
        call_by_address(context, builder, function, rest)
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 6), generate


@kernel
def unpack_stripe(table: Any, itemsize: Any, packed: Any, width: Any, out: Any, reference: Any) -> Any:
    """Unpack all values of a stripe of at most 32 bits each, `reference` added."""
    function = load_u64(table_field(table, UNPACKERS) + ((itemsize >> uint64(1)) << uint64(3)))
    _call(function, packed, width, out, reference, uint64(1))


@kernel
def unpack_scaled_stripe(table: Any, packed: Any, width: Any, out: Any, reference: Any, factor: Any) -> Any:
    """Likewise values of 8 bytes, times `factor`, where width and factor have at most 32 bits."""
    function = load_u64(table_field(table, UNPACKERS) + uint64(_SCALED << 3))
    _call(function, packed, width, out, reference, factor)
