"""Places in a stripe that are stored as a list, a byte each: of true flags, and of exceptions.

They ascend (docs/format.md), and whoever takes some of them without looking at the others relies on that. But a file
may say otherwise with every checksum right, so that is looked at first, 32 of them at once; where they do not ascend, the
stripe is decoded, which takes places in any order.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

from llvmlite import ir
from numba import types, uint64

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import I32, I64, pointer
from latewood.stripes.unpack import splat

_BYTES = ir.VectorType(ir.IntType(8), 32)


@intrinsic
def _are_until(typing_context: Any, places: Any, row: Any) -> Any:
    """Which of 32 places are at most `row`: 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places, row = arguments
        bytes_ = builder.load(pointer(builder, places, _BYTES), align=1)
        found = builder.icmp_unsigned("<=", bytes_, splat(builder, builder.trunc(row, ir.IntType(8)), _BYTES))
        return builder.zext(builder.bitcast(found, I32), I64)

    return types.uint64(*[types.uint64] * 2), generate


@intrinsic
def _are_below_next(typing_context: Any, places: Any) -> Any:
    """Which of 32 places are below the one behind them: 32 bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        next_ = builder.add(arguments[0], I64(1))
        these, others = (builder.load(pointer(builder, at, _BYTES), align=1) for at in (arguments[0], next_))
        return builder.zext(builder.bitcast(builder.icmp_unsigned("<", these, others), I32), I64)

    return types.uint64(types.uint64), generate


@intrinsic
def _count_ones(typing_context: Any, value: Any) -> Any:
    """How many bits of a uint64 are 1."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@kernel
def ascend(places: Any, count: Any) -> Any:
    """Whether each of some places lies behind the one before it. Up to 32 bytes past the last are read."""
    left = max(count, uint64(1)) - uint64(1)  # pairs
    while left > uint64(32):
        if _are_below_next(places) != uint64(2**32 - 1):
            return False
        places += uint64(32)
        left -= uint64(32)
    pairs = (uint64(1) << left) - uint64(1)
    return left == uint64(0) or _are_below_next(places) & pairs == pairs


@kernel
def count_until(places: Any, count: Any, row: Any) -> Any:
    """How many of some places are at most `row`. Up to 31 bytes past the last are read."""
    found, left = uint64(0), count
    while left > uint64(32):
        found += _count_ones(_are_until(places, row))
        places += uint64(32)
        left -= uint64(32)
    return found + _count_ones(_are_until(places, row) & ((uint64(1) << left) - uint64(1)))
