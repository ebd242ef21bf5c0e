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
from numba.core import cgutils

from latewood.kernels import address, intrinsic, typed_kernel
from latewood.stripes.addresses import I32, I64, pointer
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.unpack import ROW_BYTES, splat

SUMMED_BITS = 27  # the widest steps of which the sum of 32 rows fits into 32 bits
_LANES = 8
_ROW = ir.VectorType(I32, _LANES)
_ARGUMENTS = [types.uint64] * 3  # packed, width, out
_SIGNATURE = types.void(*_ARGUMENTS)


def _each(value: int) -> Any:
    return ir.Constant(_ROW, [value] * _LANES)


def _sum_width(builder: Any, width: int, packed: Any, out: Any) -> None:
    words: dict[int, Any] = {}

    def word(k: int) -> Any:
        if k not in words:
            words[k] = builder.load(pointer(builder, builder.add(packed, I64(k * ROW_BYTES)), _ROW), align=1)
        return words[k]

    total = _each(0)
    for row in range(STRIPE_EVENTS // _LANES):
        k, shift = divmod(row * width, 32)
        value = word(k) if width else _each(0)
        if shift:
            value = builder.lshr(value, _each(shift))
        if shift + width > 32:  # it straddles two words
            value = builder.or_(value, builder.shl(word(k + 1), _each(32 - shift)))
        if shift + width != 32:
            value = builder.and_(value, _each((1 << width) - 1))
        total = builder.add(total, value)
        builder.store(total, pointer(builder, builder.add(out, I64(row * ROW_BYTES)), _ROW), align=1)


@intrinsic
def _sum_all(typing_context: Any, packed: Any, width: Any, out: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        packed, width, out = arguments
        done = builder.append_basic_block("done")
        choice = builder.switch(width, done)
        for possible in range(SUMMED_BITS + 1):
            block = builder.append_basic_block(f"width_{possible}")
            choice.add_case(I64(possible), block)
            builder.position_at_end(block)
            _sum_width(builder, possible, packed, out)
            builder.branch(done)
        builder.position_at_end(done)
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
        type_ = context.call_conv.get_function_type(types.none, _ARGUMENTS)
        returned, failure = (cgutils.alloca_once(builder, part.pointee, zfill=True) for part in type_.args[:2])
        builder.call(pointer(builder, function, type_), [returned, failure, *rest])
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
