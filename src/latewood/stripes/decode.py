"""Decode rows of one column out of many shards in one call.

Short ranges wait for memory, not for arithmetic: the entry of a range is asked for a few ranges ahead, and the payload
that it names, once it has arrived, a little less far ahead.
"""

from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.stripes.addresses import load_u64, prefetch
from latewood.stripes.entries import entry_offset, first_entry, table_field, user_events
from latewood.stripes.jit import kernel
from latewood.stripes.layout import PAYLOAD, STRIPE_EVENTS, USER_COUNT
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import decode_part, table_at, verify_block

_ENTRIES_AHEAD, _PAYLOAD_AHEAD = 8, 3
_NULLS, _OUTSIDE, _DAMAGED = 1, 2, 3  # what the kernel says


def decode_column(
    tables: Tables,
    ranges: Ranges,
    column: int,
    out: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    verify: bool = True,
) -> bool:
    """Decode ranges of one column (its index among the shards' columns) into `out`, of the column's dtype.

    `mask` is written in full for every range (True where null); without it nulls are just 0. Blocks are verified when
    they are first read, so `verify=False` only saves time on the first read.

    Returns: whether any stripe read has nulls.
    Raises: CorruptionError: names the shard, user, column and block. IndexError: a range that is not there.
    """
    _check_output(tables, column, out, mask, len(ranges))
    scratch = np.empty(STRIPE_EVENTS, np.uint64)
    where = np.zeros(2, np.int64)
    places = np.empty(len(ranges), np.uint64)
    found = _decode_ranges(
        tables.rows, *ranges.arrays(), np.uint64(column), np.uint64(out.itemsize), np.uint64(len(out)),
        np.uint64(out.ctypes.data), np.uint64(0 if mask is None else mask.ctypes.data), verify,
        places, scratch, where,
    )  # fmt: skip
    if found == _OUTSIDE:
        raise IndexError(f"range {where[0]} lies outside its user's events, the shards or the output")
    if found == _DAMAGED:
        row, stripe = int(where[0]), int(where[1])
        raise tables.damage(int(ranges.shard[row]), int(ranges.user[row]), column, stripe)
    return bool(found == _NULLS)


def _check_output(tables: Tables, column: int, out: NDArray[Any], mask: NDArray[np.bool_] | None, ranges: int) -> None:
    if not ranges:
        return
    columns = tables.columns
    if not 0 <= column < len(columns):
        raise IndexError(f"there is no column {column}")
    wanted = columns[column].dtype
    if out.dtype != wanted or not out.flags.c_contiguous or not out.flags.writeable:
        raise ValueError(f"the output of {columns[column].name!r} is a contiguous array of {wanted}, not {out.dtype}")
    if mask is not None and (mask.dtype.itemsize != 1 or len(mask) < len(out) or not mask.flags.c_contiguous):
        raise ValueError("the mask is a contiguous bool array as long as the output")


@kernel
def _is_inside(tables: Any, shard: Any, user: Any, start: Any, stop: Any, target: Any, size: Any) -> Any:
    """Whether a range exists and its output has room; negative numbers have become huge ones."""
    if shard >= uint64(len(tables)):
        return False
    table = table_at(tables, shard)
    if table_field(table, PAYLOAD) == uint64(0) or user >= table_field(table, USER_COUNT):
        return False
    return start <= stop <= user_events(table, user) and target <= size and stop - start <= size - target


@kernel
def _decode_ranges(
    tables: Any,
    shards: Any,
    users: Any,
    starts: Any,
    stops: Any,
    targets: Any,
    column: Any,
    itemsize: Any,
    size: Any,
    out: Any,
    mask: Any,
    verify: Any,
    places: Any,
    scratch: Any,
    where: Any,
) -> Any:
    """Decode all ranges. Returns: 0, _NULLS, or what went wrong, and where: the range and the stripe."""
    count, nulls, checked = len(shards), uint64(0), 0
    for i in range(count):
        while checked < min(count, i + _ENTRIES_AHEAD + 1):
            shard, user, start = uint64(shards[checked]), uint64(users[checked]), uint64(starts[checked])
            if not _is_inside(tables, shard, user, start, uint64(stops[checked]), uint64(targets[checked]), size):
                where[0] = checked
                return _OUTSIDE
            place = first_entry(table_at(tables, shard), user, column) + (start // uint64(STRIPE_EVENTS)) * uint64(8)
            prefetch(place)
            places[checked] = place
            checked += 1
        if i + _PAYLOAD_AHEAD < count:
            ahead = i + _PAYLOAD_AHEAD
            soon = table_field(table_at(tables, shards[ahead]), PAYLOAD) + entry_offset(load_u64(places[ahead]))
            for line in range(5):
                prefetch(soon + uint64(line * 64))
        table, user = table_at(tables, shards[i]), uint64(users[i])
        status = _decode_range(
            table, user, column, itemsize, uint64(starts[i]), uint64(stops[i]),
            out + uint64(targets[i]) * itemsize, mask + uint64(targets[i]) if mask else mask, verify, scratch, where,
        )  # fmt: skip
        if status == _DAMAGED:
            where[0] = i
            return _DAMAGED
        nulls |= uint64(status)
    return _NULLS if nulls else 0


@kernel
def _decode_range(
    table: Any,
    user: Any,
    column: Any,
    itemsize: Any,
    start: Any,
    stop: Any,
    out: Any,
    mask: Any,
    verify: Any,
    scratch: Any,
    where: Any,
) -> Any:
    """Decode rows [start, stop) of one user. Returns: 0, _NULLS, or _DAMAGED and the stripe in where[1]."""
    room = uint64(scratch.ctypes.data)
    payload, entries = table_field(table, PAYLOAD), first_entry(table, user, column)
    nulls = uint64(0)
    while start < stop:
        stripe = start // uint64(STRIPE_EVENTS)
        first = stripe * uint64(STRIPE_EVENTS)
        last = min(stop, first + uint64(STRIPE_EVENTS))
        if last < stop:
            soon = payload + entry_offset(load_u64(entries + (stripe + uint64(1)) * uint64(8)))
            for line in range(4):
                prefetch(soon + uint64(line * 64))
        if verify and verify_block(table, user, column, stripe):
            where[1] = stripe
            return _DAMAGED
        nulls |= decode_part(table, user, column, stripe, itemsize, start - first, last - first, out, mask, room)
        count = last - start
        out += count * itemsize
        if mask:
            mask += count
        start = last
    return _NULLS if nulls else 0
