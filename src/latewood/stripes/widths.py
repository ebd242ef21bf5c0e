"""How code is written for every width of packed values, without loops, and called by its address.

So do unroll.py and running.py. What is here is Python that runs while a kernel compiles, and writes instructions.
"""

from collections.abc import Callable, Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from latewood.stripes.addresses import I64, pointer
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.unpack import ROW_BYTES


def each_row(builder: Any, packed: Any, bits: int, width: int) -> Iterator[tuple[int, Any]]:
    """The rows of a stripe's 256 values, with their numbers: vectors of words of `bits`, as unpack.py has them.

    Args: packed: an address. Every word is read once, when the first row needs it.
    """
    row_type = ir.VectorType(ir.IntType(bits), 8 * ROW_BYTES // bits)
    words: dict[int, Any] = {}

    def word(k: int) -> Any:
        if k not in words:
            words[k] = builder.load(pointer(builder, builder.add(packed, I64(k * ROW_BYTES)), row_type), align=1)
        return words[k]

    for row in range(STRIPE_EVENTS // row_type.count):
        k, shift = divmod(row * width, bits)
        value = word(k) if width else in_each_lane(row_type, 0)
        if shift:
            value = builder.lshr(value, in_each_lane(row_type, shift))
        if shift + width > bits:  # it straddles two words
            value = builder.or_(value, builder.shl(word(k + 1), in_each_lane(row_type, bits - shift)))
        if shift + width != bits:
            value = builder.and_(value, in_each_lane(row_type, (1 << width) - 1))
        yield row, value


def in_each_lane(vector_type: Any, value: int) -> Any:
    """A vector of nothing but a number."""
    return ir.Constant(vector_type, [value] * vector_type.count)


def switch_widths(builder: Any, width: Any, widest: int, write: Callable[[int], None]) -> None:
    """Go to the code that `write` writes for a width, of those from 0 to `widest`; nothing happens for others."""
    done = builder.append_basic_block("done")
    choice = builder.switch(width, done)
    for possible in range(widest + 1):
        block = builder.append_basic_block(f"width_{possible}")
        choice.add_case(I64(possible), block)
        builder.position_at_end(block)
        write(possible)
        builder.branch(done)
    builder.position_at_end(done)


def call_by_address(context: Any, builder: Any, function: Any, arguments: list[Any]) -> None:
    """Call a typed kernel of numbers of 64 bits that returns nothing. Args: function: its address."""
    type_ = context.call_conv.get_function_type(types.none, [types.uint64] * len(arguments))
    returned, failure = (cgutils.alloca_once(builder, part.pointee, zfill=True) for part in type_.args[:2])
    builder.call(pointer(builder, function, type_), [returned, failure, *arguments])
