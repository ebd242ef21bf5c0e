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
from latewood.stripes.addresses import I32, I64, load_i32, load_i64, pointer
from latewood.stripes.unpack import splat
from latewood.users import UserKeys

_CHECK, _EVENT = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9
_ONE, _INGEST = 0x94D049BB133111EB, 0xD6E8FEB86659FD93
_TWO, _ORDINAL = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB
_LAST = 0x8EBC6AF09C88C6E3
_LANES = 8  # identities at a time


@kernel
def identity(user_hash: Any, check: Any, event_ts: Any, ingest_ts: Any, ordinal: Any) -> Any:
    """One event's identity, for kernels. Any integer types; returns uint64."""
    h = uint64(user_hash) ^ (uint64(check) * uint64(_CHECK))
    h += uint64(int64(event_ts)) * uint64(_EVENT)
    h ^= h >> uint64(32)
    h = h * uint64(_ONE) + uint64(int64(ingest_ts)) * uint64(_INGEST)
    h ^= h >> uint64(29)
    h = h * uint64(_TWO) + uint64(int64(ordinal)) * uint64(_ORDINAL)
    h ^= h >> uint64(32)
    h *= uint64(_LAST)
    return h ^ (h >> uint64(29))


@intrinsic
def _sum_rows(typing_context: Any, seed: Any, times: Any, delays: Any, ordinals: Any, groups: Any, latest: Any) -> Any:
    """`sum_identities` of whole groups of events. Left to itself, numba would gather every value from its address."""
    row, narrow_row = ir.VectorType(I64, _LANES), ir.VectorType(I32, _LANES)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        seed, times, delays, ordinals, groups, latest = arguments
        of_user = splat(builder, seed, row)
        total = cgutils.alloca_once_value(builder, ir.Constant(row, [0] * _LANES))
        newest = cgutils.alloca_once_value(builder, splat(builder, latest, row))

        def load(address: Any, index: Any, type_: Any) -> Any:
            at = builder.add(address, builder.mul(index, I64(_LANES * type_.element.width // 8)))
            return builder.load(pointer(builder, at, type_), align=1)

        def times_each(value: Any, factor: int) -> Any:
            return builder.mul(value, ir.Constant(row, [factor] * _LANES))

        def folded(value: Any, bits: int) -> Any:
            return builder.xor(value, builder.lshr(value, ir.Constant(row, [bits] * _LANES)))

        with cgutils.for_range(builder, groups) as loop:
            time = load(times, loop.index, row)
            ingest = builder.add(time, load(delays, loop.index, row))
            ordinal = builder.sext(load(ordinals, loop.index, narrow_row), row)
            h = folded(builder.add(of_user, times_each(time, _EVENT)), 32)
            h = folded(builder.add(times_each(h, _ONE), times_each(ingest, _INGEST)), 29)
            h = folded(builder.add(times_each(h, _TWO), times_each(ordinal, _ORDINAL)), 32)
            h = folded(times_each(h, _LAST), 29)
            builder.store(builder.add(builder.load(total), h), total)
            known = builder.load(newest)
            builder.store(builder.select(builder.icmp_signed(">", ingest, known), ingest, known), newest)
        sums, maxima = builder.load(total), builder.load(newest)
        result, most = I64(0), builder.extract_element(maxima, I32(0))
        for lane in range(_LANES):
            result = builder.add(result, builder.extract_element(sums, I32(lane)))
            candidate = builder.extract_element(maxima, I32(lane))
            most = builder.select(builder.icmp_signed(">", candidate, most), candidate, most)
        return context.make_tuple(builder, signature.return_type, [result, most])

    return types.Tuple((types.uint64, types.int64))(*[types.uint64] * 5, types.int64), generate


@kernel
def sum_identities(key: Any, times: Any, delays: Any, ordinals: Any, count: Any, latest: Any) -> Any:
    """The sum of the identities of `count` events of a user, and the latest of their ingest times and `latest`.

    Args: key: the user's hash and check. times, delays, ordinals: where their columns lie, of int64, int64 and int32.
    """
    seed, groups = uint64(key[0]) ^ (uint64(key[1]) * uint64(_CHECK)), count // uint64(_LANES)
    total, latest = _sum_rows(seed, times, delays, ordinals, groups, latest)
    for i in range(groups * uint64(_LANES), count):
        at = uint64(i) << uint64(3)
        time = load_i64(times + at)
        ingest = time + load_i64(delays + at)
        latest = max(latest, ingest)
        total += identity(key[0], key[1], time, ingest, load_i32(ordinals + (at >> uint64(1))))
    return total, latest


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
