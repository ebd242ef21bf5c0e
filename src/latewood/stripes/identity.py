"""The identity of an event: 64 bits of (user, event_ts, ingest_ts, ordinal), summed as checksums (docs/protocol.md R18).

A pointer carries the sum of the identities of its events mod 2**64; stripes carry running sums, so that the sum of any
range costs two lookups and the ends. It finds accidents, not adversaries. The function is part of the format: it never
changes.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types, uint64
from numba.core import cgutils
from numpy.typing import NDArray

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import I8, I32, I64, pointer
from latewood.stripes.unpack import splat
from latewood.users import UserKeys

_CHECK, _EVENT = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9
_ONE, _INGEST = 0x94D049BB133111EB, 0xD6E8FEB86659FD93
_TWO, _ORDINAL = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB
_LAST = 0x8EBC6AF09C88C6E3
_LANES = 8  # identities at a time
_ROW, _NARROW_ROW = ir.VectorType(I64, _LANES), ir.VectorType(I32, _LANES)


@kernel
def seed_of(user_hash: Any, check: Any) -> Any:
    """What a user's key gives to the identities of all events of that user, uint64."""
    return uint64(user_hash) ^ (uint64(check) * uint64(_CHECK))


@kernel
def identity(user_hash: Any, check: Any, event_ts: Any, ingest_ts: Any, ordinal: Any) -> Any:
    """One event's identity, for kernels. Any integer types; returns uint64."""
    return seeded_identity(seed_of(user_hash, check), event_ts, ingest_ts, ordinal)


@kernel
def seeded_identity(seed: Any, event_ts: Any, ingest_ts: Any, ordinal: Any) -> Any:
    """`identity`, given the user's seed."""
    h = uint64(seed) + uint64(int64(event_ts)) * uint64(_EVENT)
    h ^= h >> uint64(32)
    h = h * uint64(_ONE) + uint64(int64(ingest_ts)) * uint64(_INGEST)
    h ^= h >> uint64(29)
    h = h * uint64(_TWO) + uint64(int64(ordinal)) * uint64(_ORDINAL)
    h ^= h >> uint64(32)
    h *= uint64(_LAST)
    return h ^ (h >> uint64(29))


# Columns as vectors. Left to itself, numba would gather every value from its address.


def _each(value: int) -> Any:
    return ir.Constant(_ROW, [value] * _LANES)


def _load(builder: Any, address: Any, index: Any, type_: Any) -> Any:
    """Row number `index` of a column."""
    at = builder.add(address, builder.mul(index, I64(_LANES * type_.element.width // 8)))
    return builder.load(pointer(builder, at, type_), align=1)


def _hash_row(builder: Any, seed: Any, time: Any, ingest: Any, ordinal: Any) -> Any:
    """`seeded_identity` of a row of events."""

    def folded(value: Any, bits: int) -> Any:
        return builder.xor(value, builder.lshr(value, _each(bits)))

    h = folded(builder.add(seed, builder.mul(time, _each(_EVENT))), 32)
    h = folded(builder.add(builder.mul(h, _each(_ONE)), builder.mul(ingest, _each(_INGEST))), 29)
    h = folded(builder.add(builder.mul(h, _each(_TWO)), builder.mul(ordinal, _each(_ORDINAL))), 32)
    return folded(builder.mul(h, _each(_LAST)), 29)


def _hash_columns(builder: Any, seed: Any, columns: Any, index: Any) -> Any:
    """The identities of row number `index` of events, whose times, delays and ordinals lie in columns."""
    times, delays, ordinals = columns
    time = _load(builder, times, index, _ROW)
    ingest = builder.add(time, _load(builder, delays, index, _ROW))
    ordinal = builder.sext(_load(builder, ordinals, index, _NARROW_ROW), _ROW)
    return _hash_row(builder, seed, time, ingest, ordinal)


def _row_count(builder: Any, count: Any) -> Any:
    """How many rows `count` events reach into."""
    return builder.lshr(builder.add(count, I64(_LANES - 1)), I64(_LANES.bit_length() - 1))


def _is_wanted(builder: Any, count: Any, index: Any) -> Any:
    """Of each lane of row number `index`, whether it is one of `count` events."""
    left = builder.sub(count, builder.mul(index, I64(_LANES)))
    return builder.icmp_signed("<", ir.Constant(_ROW, list(range(_LANES))), splat(builder, left, _ROW))


def _shifted(builder: Any, row: Any, lanes: int) -> Any:
    """A row moved up by some lanes, zeros below."""
    order = [_LANES] * lanes + list(range(_LANES - lanes))
    return builder.shuffle_vector(row, _each(0), ir.Constant(ir.VectorType(I32, _LANES), order))


def _summed(builder: Any, row: Any) -> Any:
    """The sum of all lanes of a row, half and half."""
    for lanes in (4, 2, 1):
        order = [(lane + lanes) % _LANES for lane in range(_LANES)]
        turned = builder.shuffle_vector(row, row, ir.Constant(ir.VectorType(I32, _LANES), order))
        row = builder.add(row, turned)
    return builder.extract_element(row, I32(0))


@intrinsic
def sum_identities(typing_context: Any, seed: Any, times: Any, delays: Any, ordinals: Any, count: Any) -> Any:
    """The sum of the identities of `count` events of a user, given by the seed.

    Args: times, delays, ordinals: where their columns lie, of int64, int64 and int32. Up to 7 more values of each are read,
        and make no difference.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seed, *columns, count = arguments
        of_user = splat(builder, seed, _ROW)
        total = cgutils.alloca_once_value(builder, _each(0))
        with cgutils.for_range(builder, _row_count(builder, count)) as loop:
            hashes = _hash_columns(builder, of_user, columns, loop.index)
            wanted = builder.select(_is_wanted(builder, count, loop.index), hashes, _each(0))
            builder.store(builder.add(builder.load(total), wanted), total)
        return _summed(builder, builder.load(total))

    return types.uint64(*[types.uint64] * 5), generate


@intrinsic
def run_identities(
    typing_context: Any, seed: Any, times: Any, delays: Any, ordinals: Any, count: Any, sums: Any
) -> Any:
    """Likewise the sums of the first 0, 1, …, `count` of them, to `sums`, where up to 7 more values are written."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seed, *columns, count, sums = arguments
        of_user = splat(builder, seed, _ROW)
        before = cgutils.alloca_once_value(builder, _each(0))
        builder.store(I64(0), pointer(builder, sums, I64), align=1)
        with cgutils.for_range(builder, _row_count(builder, count)) as loop:
            row = _hash_columns(builder, of_user, columns, loop.index)
            for lanes in (1, 2, 4):
                row = builder.add(row, _shifted(builder, row, lanes))
            known = builder.load(before)
            at = builder.add(sums, builder.mul(loop.index, I64(8 * _LANES)))
            builder.store(builder.add(row, known), pointer(builder, builder.add(at, I64(8)), _ROW), align=1)
            # the one addition that the next row waits for
            last = splat(builder, builder.extract_element(row, I32(_LANES - 1)), _ROW)
            builder.store(builder.add(known, last), before)
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 6), generate


@intrinsic
def mark_later(typing_context: Any, times: Any, delays: Any, count: Any, since: Any, marks: Any) -> Any:
    """Note in a bit each which of `count` events were ingested at `since` or later. Returns: how many rows of 8 have one.

    Args: times, delays: as of `sum_identities`. marks: an address; up to 7 more bits are written.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        times, delays, count, since, marks = arguments
        earliest, found = splat(builder, since, _ROW), cgutils.alloca_once_value(builder, I64(0))
        with cgutils.for_range(builder, _row_count(builder, count)) as loop:
            ingest = builder.add(_load(builder, times, loop.index, _ROW), _load(builder, delays, loop.index, _ROW))
            is_later = builder.and_(builder.icmp_signed(">=", ingest, earliest), _is_wanted(builder, count, loop.index))
            bits = builder.bitcast(is_later, I8)
            builder.store(bits, pointer(builder, builder.add(marks, loop.index), I8), align=1)
            any_is = builder.zext(builder.icmp_unsigned("!=", bits, I8(0)), I64)
            builder.store(builder.add(builder.load(found), any_is), found)
        return builder.load(found)

    return types.uint64(types.uint64, types.uint64, types.uint64, types.int64, types.uint64), generate


def identities(
    keys: UserKeys, event_ts: NDArray[np.int64], ingest_ts: NDArray[np.int64], ordinal: NDArray[Any]
) -> NDArray[np.uint64]:
    """The identities of n events. Shapes: all (n,)."""
    event, ingest, place = (np.asarray(part, np.int64).view(np.uint64) for part in (event_ts, ingest_ts, ordinal))
    h = keys.hash ^ (keys.check * np.uint64(_CHECK))
    h = h + event * np.uint64(_EVENT)
    h ^= h >> np.uint64(32)
    h = h * np.uint64(_ONE) + ingest * np.uint64(_INGEST)
    h ^= h >> np.uint64(29)
    h = h * np.uint64(_TWO) + place * np.uint64(_ORDINAL)
    h ^= h >> np.uint64(32)
    h = h * np.uint64(_LAST)
    return h ^ (h >> np.uint64(29))
