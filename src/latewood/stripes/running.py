"""Running sums of packed steps: of times of which few are wanted, all that has to be made of the others.

A time is the sum of all steps before it. Summed lane by lane, a row of eight at once, that takes no more than unpacking
does; what a single time needs beyond it are the eight lanes of its row. Width by width the code is written out, as in
unroll.py, and called by address.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from latewood.kernels import address, intrinsic, typed_kernel
from latewood.stripes.addresses import I32, I64, pointer
from latewood.stripes.unpack import ROW_BYTES, splat
from latewood.stripes.widths import call_by_address, each_row, in_each_lane, switch_widths

SUMMED_BITS = 27  # the widest steps of which the sum of 32 rows fits into 32 bits
_LANES = 8
_ROW = ir.VectorType(I32, _LANES)
_SIGNATURE = types.void(*[types.uint64] * 3)  # packed, width, out


@intrinsic
def _sum_all(typing_context: Any, packed: Any, width: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, width, out = arguments

        def sum_width(possible: int) -> None:
            total = in_each_lane(_ROW, 0)
            for row, value in each_row(builder, packed, 32, possible):
                total = builder.add(total, value)
                place = builder.add(out, I64(row * ROW_BYTES))
                builder.store(total, pointer(builder, place, _ROW), align=1)

        switch_widths(builder, width, SUMMED_BITS, sum_width)
        return context.get_dummy_value()

    return _SIGNATURE, generate


@typed_kernel(_SIGNATURE)
def run_sums(packed: Any, width: Any, out: Any) -> None:
    """Running sums of 256 packed steps of at most SUMMED_BITS: out[r] = row 0 + … + row r, 32 rows of eight uint32.

    Args: packed, out: addresses; up to 1024 bytes are read.
    """
    _sum_all(packed, width, out)


# Its address, for kernels: in an array, since a number of a module counts as part of its kernels' source, and this one
# is another in every process.
RUN_SUMS = np.array([address(run_sums)], np.uint64)


@intrinsic
def call_run_sums(typing_context: Any, function: Any, packed: Any, width: Any, out: Any) -> Any:
    """Call it by its address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function, *rest = arguments
        call_by_address(context, builder, function, rest)
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 4), generate


@intrinsic
def sum_until(typing_context: Any, sums: Any, row: Any) -> Any:
    """The sum of steps 0 to `row`, by the running sums at `sums`, before which lies a row of zeros."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, row = arguments
        at = builder.add(sums, builder.shl(builder.lshr(row, I64(3)), I64(5)))
        here = builder.load(pointer(builder, at, _ROW), align=1)
        before = builder.load(pointer(builder, builder.sub(at, I64(ROW_BYTES)), _ROW), align=1)
        lane = splat(builder, builder.trunc(builder.and_(row, I64(_LANES - 1)), I32), _ROW)
        lanes = ir.Constant(_ROW, list(range(_LANES)))
        chosen = builder.select(builder.icmp_unsigned("<=", lanes, lane), here, before)
        wide = builder.zext(chosen, ir.VectorType(I64, _LANES))
        for half in (4, 2, 1):
            order = ir.VectorType(I32, half)
            lower, upper = (ir.Constant(order, list(range(first, first + half))) for first in (0, half))
            wide = builder.add(builder.shuffle_vector(wide, wide, lower), builder.shuffle_vector(wide, wide, upper))
        return builder.extract_element(wide, I32(0))

    return types.uint64(*[types.uint64] * 2), generate
