"""Memory by address, for kernels: loads, stores, copies and prefetches on plain uint64 addresses.

An array costs seven scalars at every call between kernels, and a batch reads from many shards at once; an address is
one number and names any of them. Nothing here checks anything: whoever computes an address has checked it.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from latewood.kernels import intrinsic

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def pointer(builder: Any, address: Any, type_: Any) -> Any:
    """The address as a pointer to values of an LLVM type."""
    return builder.inttoptr(address, type_.as_pointer())


def _loader(bits: int, signed: bool = False) -> Any:
    result = types.int64 if signed else types.uint64

    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.load(pointer(builder, arguments[0], ir.IntType(bits)), align=1)
            extend = builder.sext if signed else builder.zext
            return extend(value, I64) if bits < 64 else value

        return result(types.uint64), generate

    return load


def _storer(bits: int) -> Any:
    @intrinsic
    def store(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.trunc(arguments[1], ir.IntType(bits)) if bits < 64 else arguments[1]
            builder.store(value, pointer(builder, arguments[0], ir.IntType(bits)), align=1)
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), generate

    return store


# load_*(address) -> uint64, load_i*(address) -> int64
load_u8, load_u16, load_u32, load_u64 = (_loader(bits) for bits in (8, 16, 32, 64))
load_i8, load_i16, load_i32, load_i64 = (_loader(bits, signed=True) for bits in (8, 16, 32, 64))
# store_*(address, uint64 value): the low bits
store_u8, store_u16, store_u32, store_u64 = (_storer(bits) for bits in (8, 16, 32, 64))


@intrinsic
def address_of(typing_context: Any, array: Any) -> Any:
    """The address of an array's first element. The array must outlive its use."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, I64)

    return types.uint64(array), generate


@intrinsic
def copy_bytes(typing_context: Any, target: Any, source: Any, count: Any) -> Any:
    """Copy bytes between addresses that do not overlap."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, source, count = arguments
        cgutils.raw_memcpy(builder, pointer(builder, target, I8), pointer(builder, source, I8), count, 1)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64, types.uint64), generate


@intrinsic
def zero_bytes(typing_context: Any, target: Any, count: Any) -> Any:
    """Set bytes to zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        cgutils.memset(builder, pointer(builder, arguments[0], I8), arguments[1], 0)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address, to read it soon. A wrong address is harmless: it is a hint."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = I8.as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32]), "llvm.prefetch.p0i8"
        )
        read, keep_in_all_caches, data = I32(0), I32(3), I32(1)
        builder.call(function, [pointer(builder, arguments[0], I8), read, keep_in_all_caches, data])
        return context.get_dummy_value()

    return types.void(types.uint64), generate


@intrinsic
def bit_length(typing_context: Any, value: Any) -> Any:
    """How many bits a uint64 needs: 0 for 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zeros = builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0))
        return builder.sub(I64(64), zeros)

    return types.uint64(types.uint64), generate
