"""Decode rows of many columns out of many shards in one call.

Short ranges wait for memory, not for arithmetic: the user's record of a range is asked for some ranges ahead, the entry
that it leads to, once it has arrived, a little less far ahead, and the payload that the entry names less far still.

The records are read once, in a pass of their own that also checks the ranges, and where a range's parts lie is noted for
all columns. Then ranges are taken a few at a time, and of those one column after the other: a user's columns lie near
each other, in pages that the processor has just looked up.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, load_u8, load_u64, prefetch, store_u64, zero_bytes
from latewood.stripes.entries import (
    block_index,
    entry_has_nulls,
    entry_offset,
    first_entry,
    stripe_record,
    table_field,
    user_events,
    user_record,
)
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    EVENT_TS,
    PAYLOAD,
    STRIPE_BYTES,
    STRIPE_EVENTS,
    STRIPE_FIRST_TS,
    USER_BYTES,
    USER_COUNT,
    VERIFIED,
)
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import decode_part, mark_nulls, sum_steps, table_at, verify_block

_RECORDS_AHEAD, _ENTRIES_AHEAD, _PAYLOAD_AHEAD = 16, 10, 5  # ranges
_TOGETHER = 64  # ranges of which one column is decoded before the next
_MOST_AHEAD = 1536  # bytes
_NULLS, _OUTSIDE, _DAMAGED = 1, 2, 3  # what the kernel says
# A kernel's room: where something is wrong, what was read, scratch for a stripe, and the place of every range.
_RANGE, _STRIPE, _OUTPUT, _STRIPES, _BYTES = range(5)
_SCRATCH, _PLACES = 8, 8 + STRIPE_EVENTS
# A range's place: its shard's table; of its first stripe the record, the entry of the first column and how many bytes
# further that of the next one is, the byte of the block of the first column and how many further that of the next; events.
_TABLE, _RECORD, _ENTRY, _ENTRIES, _VERIFIED, _BLOCKS, _EVENTS, _PLACE_WORDS = range(8)
# An output as kernels see it; the last field is what they say of it.
COLUMN, ITEMSIZE, VALUES, MASK, HAS_NULLS = range(5)


class Output(NamedTuple):
    """Where one column goes: an array of its dtype and, if wanted, one for its nulls. Shapes: both (size,)."""

    column: int  # its index among the shards' columns
    values: NDArray[Any]
    mask: NDArray[np.bool_] | None = None


class Decoded(NamedTuple):
    """What decoding met: for each output, whether any stripe read has nulls; how many stripes, and their bytes."""

    nulls: list[bool]
    stripe_count: int
    size_bytes: int


def decode_column(
    tables: Tables,
    ranges: Ranges,
    column: int,
    out: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    verify: bool = True,
) -> bool:
    """`decode_columns` of one column. Returns: whether any stripe read has nulls."""
    return decode_columns(tables, ranges, [Output(column, out, mask)], verify).nulls[0]


def decode_columns(tables: Tables, ranges: Ranges, outputs: Sequence[Output], verify: bool = True) -> Decoded:
    """Decode ranges of some columns into outputs of one size.

    Masks are written in full for every range (True where null); without one nulls are just 0. Blocks are verified when
    they are first read, so `verify=False` only saves time on the first read.

    Raises: CorruptionError: names the shard, user, column and block. IndexError: a range that is not there.
    """
    if not len(ranges) or not outputs:
        return Decoded([False] * len(outputs), 0, 0)
    size = len(outputs[0].values)
    described = np.array([_describe(tables, output, size) for output in outputs], np.uint64)
    touched = decode_described(tables, ranges.matrix, described, size, verify)
    return Decoded((described[:, HAS_NULLS] != 0).tolist(), *touched)


def decode_described(
    tables: Tables, ranges: NDArray[np.int64], described: NDArray[np.uint64], size: int, verify: bool = True
) -> tuple[int, int]:
    """Decode ranges into outputs that are there and of one size, as kernels see them: nobody checks that they are.

    Shapes: ranges (5, n): the matrix of `Ranges`; described (columns, 5): COLUMN, ITEMSIZE, VALUES, MASK and, which is
    filled in, HAS_NULLS. Returns: how many stripes were read, and their bytes. Raises: as `decode_columns`.
    """
    work = np.empty(_PLACES + _PLACE_WORDS * ranges.shape[1], np.uint64)
    found = _decode_all(tables.rows, ranges, described, size, verify, work)
    if found:
        row, stripe, column = (int(work[field]) for field in (_RANGE, _STRIPE, _OUTPUT))
        if found == _OUTSIDE:
            raise IndexError(f"range {row} lies outside its user's events, the shards or the output")
        raise tables.damage(int(ranges[0, row]), int(ranges[1, row]), int(described[column, COLUMN]), stripe)
    return int(work[_STRIPES]), int(work[_BYTES])


def _describe(tables: Tables, output: Output, size: int) -> tuple[int, int, int, int, int]:
    """An output as kernels take it, checked: they check nothing."""
    column, values, mask = output
    _check_output(tables, column, values, mask)
    if len(values) != size:
        raise ValueError(f"outputs are of one size: {size} and {len(values)}")
    return column, values.itemsize, values.ctypes.data, 0 if mask is None else mask.ctypes.data, 0


def _check_output(tables: Tables, column: int, out: NDArray[Any], mask: NDArray[np.bool_] | None) -> None:
    columns = tables.columns
    if not 0 <= column < len(columns):
        raise IndexError(f"there is no column {column}")
    if columns[column].role == "items":
        raise IndexError(f"column {column} holds the items of lists, which `decode_lists` decodes")
    wanted = columns[column].dtype
    if out.dtype != wanted or not out.flags.carray:  # contiguous and writable, in one question
        raise ValueError(f"the output of {columns[column].name!r} is a contiguous array of {wanted}, not {out.dtype}")
    if mask is None:
        return
    if mask.dtype.itemsize != 1 or len(mask) < len(out) or not mask.flags.c_contiguous or not mask.flags.writeable:
        raise ValueError("the mask is a contiguous bool array as long as the output")


@kernel
def is_inside(tables: Any, shard: Any, user: Any, start: Any, stop: Any, target: Any, size: Any) -> Any:
    """Whether a range exists and its output has room; negative numbers have become huge ones."""
    if shard >= uint64(len(tables)):
        return False
    table = table_at(tables, shard)
    if table_field(table, PAYLOAD) == uint64(0) or user >= table_field(table, USER_COUNT):
        return False
    return start <= stop <= user_events(table, user) and target <= size and stop - start <= size - target


@kernel
def _decode_all(tables: Any, ranges: Any, outputs: Any, size: Any, verify: Any, work: Any) -> Any:
    """Decode all columns. Returns: 0, or what went wrong, and in `work` where: the range, the stripe, the output."""
    room, columns, count = address_of(work), address_of(ranges), uint64(ranges.shape[1])
    for field in range(_SCRATCH):
        work[field] = 0
    if _note_places(tables, ranges, uint64(size), work):
        return _OUTSIDE
    for k in range(len(outputs)):
        outputs[k, HAS_NULLS] = 0
    first = uint64(0)
    while first < count:
        stop = min(count, first + uint64(_TOGETHER))
        for k in range(len(outputs)):
            column, itemsize = outputs[k, COLUMN], outputs[k, ITEMSIZE]
            found = _decode_ranges(
                columns, count, first, stop, column, itemsize, outputs[k, VALUES], outputs[k, MASK], verify, room
            )
            if found > _NULLS:
                work[_OUTPUT] = k
                return found
            outputs[k, HAS_NULLS] |= uint64(found)
        first = stop
    return 0


@kernel
def _note_places(tables: Any, ranges: Any, size: Any, work: Any) -> Any:
    """Check all ranges, and note where their parts lie. Returns: 0, or _OUTSIDE, and in `work` which range it is."""
    count, at = ranges.shape[1], _PLACES
    for i in range(min(count, _RECORDS_AHEAD)):
        _ask_for_record(tables, ranges, i)
    for i in range(count):
        if i + _RECORDS_AHEAD < count:
            _ask_for_record(tables, ranges, i + _RECORDS_AHEAD)
        shard, user, start = uint64(ranges[0, i]), uint64(ranges[1, i]), uint64(ranges[2, i])
        if not is_inside(tables, shard, user, start, uint64(ranges[3, i]), uint64(ranges[4, i]), size):
            work[_RANGE] = i
            return _OUTSIDE
        table, stripe = table_at(tables, shard), start // uint64(STRIPE_EVENTS)
        entry, block = first_entry(table, user, uint64(0)), block_index(table, user, uint64(0), stripe)
        work[at + _TABLE], work[at + _RECORD] = table, stripe_record(table, user, stripe)
        work[at + _ENTRY] = entry + (stripe << uint64(3))
        work[at + _ENTRIES] = first_entry(table, user, uint64(1)) - entry
        work[at + _VERIFIED] = table_field(table, VERIFIED) + block
        work[at + _BLOCKS] = block_index(table, user, uint64(1), stripe) - block
        work[at + _EVENTS] = user_events(table, user)
        at += _PLACE_WORDS
    return 0


@kernel
def _ask_for_record(tables: Any, ranges: Any, i: Any) -> None:
    """Prefetch the record of a range's user, and the next one's, with which it is read."""
    if uint64(ranges[0, i]) < uint64(len(tables)):
        record = user_record(table_at(tables, ranges[0, i]), uint64(ranges[1, i]))
        prefetch(record)
        prefetch(record + uint64(2 * USER_BYTES - 1))


@kernel
def _decode_ranges(
    ranges: Any,
    count: Any,
    first: Any,
    stop: Any,
    column: Any,
    itemsize: Any,
    out_at: Any,
    mask_at: Any,
    verify: Any,
    work: Any,
) -> Any:
    """Decode ranges [first, stop) of a column. Returns: 0, _NULLS, or _DAMAGED. Args: ranges, work: where they are."""
    nulls, i, asked = uint64(0), first, first
    while i < stop:
        while asked < min(stop, i + uint64(_ENTRIES_AHEAD + 1)):
            place = _place_of(work, asked)
            prefetch(_field(place, _ENTRY) + column * _field(place, _ENTRIES))
            prefetch(_field(place, _VERIFIED) + column * _field(place, _BLOCKS))
            if column == uint64(EVENT_TS):
                prefetch(_field(place, _RECORD))
            asked += uint64(1)
        if i == first:
            for near in range(first + uint64(1), min(stop, first + uint64(_PAYLOAD_AHEAD))):
                _ask_for_payload(_place_of(work, near), column)
        if i + uint64(_PAYLOAD_AHEAD) < stop:
            _ask_for_payload(_place_of(work, i + uint64(_PAYLOAD_AHEAD)), column)
        at = ranges + (i << uint64(3))
        start, end = load_u64(at + uint64(16) * count), load_u64(at + uint64(24) * count)
        target = load_u64(at + uint64(32) * count)
        user, mask_to = load_u64(at + uint64(8) * count), mask_at + target if mask_at else mask_at
        status = _decode_range(
            _place_of(work, i), user, column, itemsize, start, end, out_at + target * itemsize, mask_to, verify, work
        )
        if status == _DAMAGED:
            store_u64(work + uint64(8 * _RANGE), i)
            return _DAMAGED
        nulls |= uint64(status)
        i += uint64(1)
    return _NULLS if nulls else 0


@kernel
def _place_of(work: Any, i: Any) -> Any:
    """Where the place of a range is noted."""
    return work + uint64(8 * _PLACES) + uint64(i) * uint64(8 * _PLACE_WORDS)


@kernel
def _field(place: Any, field: Any) -> Any:
    return load_u64(place + uint64(8) * uint64(field))


@kernel
def _ask_for_payload(place: Any, column: Any) -> None:
    """Prefetch the beginning of a range of a column, twice as much as its first stripe: what follows it is like it."""
    payload = table_field(_field(place, _TABLE), PAYLOAD)
    _ask_for_stripe(payload, _field(place, _ENTRY) + column * _field(place, _ENTRIES), uint64(2))


@kernel
def _ask_for_stripe(payload: Any, place: Any, times: Any) -> None:
    """Prefetch from the stripe on whose entry is at `place`, some `times` its length."""
    start = entry_offset(load_u64(place))
    size = min(times * (entry_offset(load_u64(place + uint64(8))) - start), uint64(_MOST_AHEAD))
    for line in range((size + uint64(63)) >> uint64(6)):
        prefetch(payload + start + (uint64(line) << uint64(6)))


@kernel
def _decode_range(
    place: Any,
    user: Any,
    column: Any,
    itemsize: Any,
    start: Any,
    stop: Any,
    out: Any,
    mask: Any,
    verify: Any,
    work: Any,
) -> Any:
    """Decode rows [start, stop) of one user. Returns: 0, _NULLS, or _DAMAGED."""
    table, total, nulls = _field(place, _TABLE), _field(place, _EVENTS), uint64(0)
    payload, scratch = table_field(table, PAYLOAD), work + uint64(8 * _SCRATCH)
    stripe = start // uint64(STRIPE_EVENTS)
    at = _field(place, _ENTRY) + column * _field(place, _ENTRIES)
    verified = _field(place, _VERIFIED) + column * _field(place, _BLOCKS) - stripe // uint64(BLOCK_STRIPES)
    first, record = stripe * uint64(STRIPE_EVENTS), _field(place, _RECORD)
    if start < stop:  # stripes lie back to back: each ends where the next begins, even past this user and column
        count = (stop + uint64(STRIPE_EVENTS - 1)) // uint64(STRIPE_EVENTS) - stripe
        size = entry_offset(load_u64(at + (count << uint64(3)))) - entry_offset(load_u64(at))
        _add(work, _STRIPES, count)
        _add(work, _BYTES, size)
    while start < stop:
        entry = load_u64(at)
        at += uint64(8)
        last = min(stop, first + uint64(STRIPE_EVENTS))
        if last < stop:
            _ask_for_stripe(payload, at, uint64(1))
        checked = not verify or load_u8(verified + stripe // uint64(BLOCK_STRIPES))
        if not checked and verify_block(table, user, column, stripe):
            store_u64(work + uint64(8 * _STRIPE), stripe)
            return _DAMAGED
        events, count = min(total - first, uint64(STRIPE_EVENTS)), last - start
        if column == uint64(EVENT_TS):
            time = load_u64(record + uint64(STRIPE_FIRST_TS))
            sum_steps(table, entry, events, time, start - first, last - first, scratch, out)
            record += uint64(STRIPE_BYTES)
        else:
            decode_part(table, entry, events, itemsize, start - first, last - first, out, scratch)
        if entry_has_nulls(entry):
            nulls = uint64(1)
            mark_nulls(payload, entry, start - first, last - first, itemsize, out, mask)
        elif mask:
            zero_bytes(mask, count)
        out += count * itemsize
        if mask:
            mask += count
        stripe += uint64(1)
        first += uint64(STRIPE_EVENTS)
        start = last
    return _NULLS if nulls else 0


@kernel
def _add(work: Any, field: Any, value: Any) -> None:
    at = work + uint64(8) * uint64(field)
    store_u64(at, load_u64(at) + value)
