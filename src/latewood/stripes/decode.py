"""Decode rows of many columns out of many shards in one call.

Short ranges wait for memory, not for arithmetic: the user's record of a range is asked for some ranges ahead, the entry
that it leads to, once it has arrived, a little less far ahead, and the payload that the entry names less far still.

The records are read once, in a pass of their own that also checks the ranges, and where a range's parts lie is noted for
all columns. Then ranges are taken a few at a time, and of those one column after the other: a user's columns lie near
each other, in pages that the processor has just looked up.

Of a range some pieces may be wanted, each at a place of its own. A stripe with several of them is decoded once, to the
scratch, and they are copied from there while the nearest cache holds it; but times are summed up aside, from steps there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, copy_bytes, load_u8, load_u64, prefetch, store_u64, zero_bytes
from latewood.stripes.entries import (
    entry_has_nulls,
    entry_offset,
    table_field,
)
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    EVENT_TS,
    PAYLOAD,
    STRIPE_BYTES,
    STRIPE_EVENTS,
    STRIPE_FIRST_TS,
)
from latewood.stripes.located import (
    BLOCKS,
    ENTRIES,
    ENTRY,
    EVENTS,
    LOCATION_WORDS,
    RECORD,
    TABLE,
    VERIFIED_AT,
    ask_for_payload,
    ask_for_stripe,
    field,
    location_of,
    note_locations,
)
from latewood.stripes.runs import WHOLE, Pieces, Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import decode_part, decode_values, mark_nulls, sum_steps, verify_block

_ENTRIES_AHEAD, _PAYLOAD_AHEAD = 10, 5  # ranges
_TOGETHER = 64  # ranges of which one column is decoded before the next
_NULLS, _OUTSIDE, _DAMAGED = 1, 2, 3  # what the kernel says
# Its room: where something is wrong, what was read, scratch for a stripe, a stripe's times, its mask; then
# the locations of all ranges.
_RANGE, _STRIPE, _OUTPUT, _STRIPES, _BYTES = range(5)
_SCRATCH, _ASIDE, _ASIDE_MASK = 8, 8 + STRIPE_EVENTS, 8 + 2 * STRIPE_EVENTS
_LOCATED = _ASIDE_MASK + STRIPE_EVENTS // 8
# A piece: where it begins, where it ends and where it goes, in bytes from its beginning.
_PIECE_BYTES, _PIECE_STOP, _PIECE_TARGET = 24, 8, 16
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


def decode_columns(
    tables: Tables, ranges: Ranges, outputs: Sequence[Output], verify: bool = True, pieces: Pieces = WHOLE
) -> Decoded:
    """Decode ranges of some columns, or pieces of them, into outputs of one size.

    Masks are written in full for every range (True where null); without one nulls are just 0. Blocks are verified when
    they are first read, so `verify=False` only saves time on the first read.

    Raises: CorruptionError: names the shard, user, column and block. IndexError: a range that is not there.
    """
    if not len(ranges) or not outputs:
        return Decoded([False] * len(outputs), 0, 0)
    if pieces is not WHOLE and len(pieces.offsets) != len(ranges) + 1:
        raise ValueError(f"pieces of {len(pieces.offsets) - 1} range, not of {len(ranges)}")
    size = len(outputs[0].values)
    described = np.array([_describe(tables, output, size) for output in outputs], np.uint64)
    touched = decode_described(tables, ranges.matrix, described, size, verify, pieces)
    return Decoded((described[:, HAS_NULLS] != 0).tolist(), *touched)


def decode_described(
    tables: Tables,
    ranges: NDArray[np.int64],
    described: NDArray[np.uint64],
    size: int,
    verify: bool = True,
    pieces: Pieces = WHOLE,
) -> tuple[int, int]:
    """Decode ranges into outputs that are there and of one size, as kernels see them: nobody checks that they are.

    Shapes: ranges (5, n): the matrix of `Ranges`; described (columns, 5): COLUMN, ITEMSIZE, VALUES, MASK and, which is
    filled in, HAS_NULLS. Returns: how many stripes were read, and their bytes. Raises: as `decode_columns`.
    """
    work = np.empty(_LOCATED + LOCATION_WORDS * ranges.shape[1], np.uint64)
    found = _decode_all(tables.rows, ranges, *pieces, described, size, verify, work)
    if found:
        row, stripe, column = (int(work[word]) for word in (_RANGE, _STRIPE, _OUTPUT))
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
def _decode_all(
    tables: Any, ranges: Any, offsets: Any, pieces: Any, outputs: Any, size: Any, verify: Any, work: Any
) -> Any:
    """Decode all columns. Returns: 0, or what went wrong, and in `work` where: the range, the stripe, the output."""
    room, columns, count = address_of(work), address_of(ranges), uint64(ranges.shape[1])
    of_ranges, all_pieces = address_of(offsets) if len(offsets) else uint64(0), address_of(pieces)
    for word in range(_SCRATCH):
        work[word] = 0
    wrong = note_locations(tables, ranges, offsets, pieces, uint64(size), work[_LOCATED:])
    if wrong >= 0:
        work[_RANGE] = wrong
        return _OUTSIDE
    for k in range(len(outputs)):
        outputs[k, HAS_NULLS] = 0
    first = uint64(0)
    while first < count:
        stop = min(count, first + uint64(_TOGETHER))
        for k in range(len(outputs)):
            column, itemsize = outputs[k, COLUMN], outputs[k, ITEMSIZE]
            found = _decode_ranges(
                columns,
                count,
                of_ranges,
                all_pieces,
                first,
                stop,
                column,
                itemsize,
                outputs[k, VALUES],
                outputs[k, MASK],
                verify,
                room,
            )
            if found > _NULLS:
                work[_OUTPUT] = k
                return found
            outputs[k, HAS_NULLS] |= uint64(found)
        first = stop
    return 0


@kernel
def _decode_ranges(
    ranges: Any,
    count: Any,
    offsets: Any,
    pieces: Any,
    first: Any,
    stop: Any,
    column: Any,
    itemsize: Any,
    out_at: Any,
    mask_at: Any,
    verify: Any,
    work: Any,
) -> Any:
    """Decode ranges [first, stop) of a column. Returns: 0, _NULLS, or _DAMAGED.

    Args: ranges, offsets, pieces, work: where they are; offsets is 0 where ranges are wanted as they are.
    """
    nulls, i, asked, located = uint64(0), first, first, work + uint64(8 * _LOCATED)
    while i < stop:
        while asked < min(stop, i + uint64(_ENTRIES_AHEAD + 1)):
            location = location_of(located, asked)
            prefetch(field(location, ENTRY) + column * field(location, ENTRIES))
            prefetch(field(location, VERIFIED_AT) + column * field(location, BLOCKS))
            if column == uint64(EVENT_TS):
                prefetch(field(location, RECORD))
            asked += uint64(1)
        if i == first:
            for near in range(first + uint64(1), min(stop, first + uint64(_PAYLOAD_AHEAD))):
                ask_for_payload(location_of(located, near), column)
        if i + uint64(_PAYLOAD_AHEAD) < stop:
            ask_for_payload(location_of(located, i + uint64(_PAYLOAD_AHEAD)), column)
        at = ranges + (i << uint64(3))
        start, end = load_u64(at + uint64(16) * count), load_u64(at + uint64(24) * count)
        user, target, piece, last = load_u64(at + uint64(8) * count), uint64(0), uint64(0), uint64(0)
        if offsets:
            piece = pieces + load_u64(offsets + (i << uint64(3))) * uint64(_PIECE_BYTES)
            last = pieces + load_u64(offsets + (i << uint64(3)) + uint64(8)) * uint64(_PIECE_BYTES)
            target = load_u64(piece + uint64(_PIECE_TARGET))
        else:
            target = load_u64(at + uint64(32) * count)
        if last - piece <= uint64(_PIECE_BYTES):  # one piece, or none but the range
            to, mask_to = out_at + target * itemsize, mask_at + target if mask_at else mask_at
            status = _decode_range(
                location_of(located, i), user, column, itemsize, start, end, to, mask_to, verify, work
            )
        else:
            status = _decode_pieces(
                location_of(located, i), user, column, itemsize, start, piece, last, out_at, mask_at, verify, work
            )
        if status == _DAMAGED:
            store_u64(work + uint64(8 * _RANGE), i)
            return _DAMAGED
        nulls |= uint64(status)
        i += uint64(1)
    return _NULLS if nulls else 0


@kernel
def _decode_range(
    location: Any,
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
    table, total, nulls = field(location, TABLE), field(location, EVENTS), uint64(0)
    payload, scratch = table_field(table, PAYLOAD), work + uint64(8 * _SCRATCH)
    stripe = start // uint64(STRIPE_EVENTS)
    at = field(location, ENTRY) + column * field(location, ENTRIES)
    verified = field(location, VERIFIED_AT) + column * field(location, BLOCKS) - stripe // uint64(BLOCK_STRIPES)
    first, record = stripe * uint64(STRIPE_EVENTS), field(location, RECORD)
    if start < stop:
        _count_bytes(at, start, stop, work)
    while start < stop:
        entry = load_u64(at)
        at += uint64(8)
        last = min(stop, first + uint64(STRIPE_EVENTS))
        if last < stop:
            ask_for_stripe(payload, at, uint64(1))
        checked = not verify or load_u8(verified + stripe // uint64(BLOCK_STRIPES))
        if not checked and verify_block(table, user, column, stripe):
            store_u64(work + uint64(8 * _STRIPE), stripe)
            return _DAMAGED
        events, count = min(total - first, uint64(STRIPE_EVENTS)), last - start
        # spelled out here and for pieces: a call for every stripe would take a twentieth longer
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
def _count_bytes(at: Any, start: Any, stop: Any, work: Any) -> None:
    """Count the stripes of rows [start, stop), of which the first one's entry is at `at`, and their bytes.

    Stripes lie back to back: each ends where the next begins, even past this user and column.
    """
    count = (stop + uint64(STRIPE_EVENTS - 1)) // uint64(STRIPE_EVENTS) - start // uint64(STRIPE_EVENTS)
    _add(work, _STRIPES, count)
    _add(work, _BYTES, entry_offset(load_u64(at + (count << uint64(3)))) - entry_offset(load_u64(at)))


@kernel
def _decode_pieces(
    location: Any,
    user: Any,
    column: Any,
    itemsize: Any,
    start: Any,
    piece: Any,
    end: Any,
    out_at: Any,
    mask_at: Any,
    verify: Any,
    work: Any,
) -> Any:
    """Decode the pieces at [piece, end), which ascend, of a range that begins at `start`. Returns: as `_decode_range`."""
    table, total, nulls = field(location, TABLE), field(location, EVENTS), uint64(0)
    payload, scratch = table_field(table, PAYLOAD), work + uint64(8 * _SCRATCH)
    aside, aside_mask = work + uint64(8 * _ASIDE), work + uint64(8 * _ASIDE_MASK)
    from_stripe, stop = start // uint64(STRIPE_EVENTS), load_u64(end - uint64(_PIECE_BYTES - _PIECE_STOP))
    entries = field(location, ENTRY) + column * field(location, ENTRIES) - (from_stripe << uint64(3))
    verified = field(location, VERIFIED_AT) + column * field(location, BLOCKS) - from_stripe // uint64(BLOCK_STRIPES)
    records = field(location, RECORD) - from_stripe * uint64(STRIPE_BYTES)
    _count_bytes(entries + (from_stripe << uint64(3)), start, stop, work)
    row = start
    while piece < end:
        stripe = row // uint64(STRIPE_EVENTS)
        first, at = stripe * uint64(STRIPE_EVENTS), entries + (stripe << uint64(3))
        events = min(total - first, uint64(STRIPE_EVENTS))
        limit = first + events
        if limit < stop:
            ask_for_stripe(payload, at + uint64(8), uint64(1))
        checked = not verify or load_u8(verified + stripe // uint64(BLOCK_STRIPES))
        if not checked and verify_block(table, user, column, stripe):
            store_u64(work + uint64(8 * _STRIPE), stripe)
            return _DAMAGED
        beyond = piece + uint64(_PIECE_BYTES)  # the first piece that begins after this stripe
        while beyond < end and load_u64(beyond) < limit:
            beyond += uint64(_PIECE_BYTES)
        newest = beyond - uint64(_PIECE_BYTES)
        last, entry = min(load_u64(newest + uint64(_PIECE_STOP)), limit), load_u64(at)
        is_alone = newest == piece  # the only one that has rows of this stripe: straight to its place
        to, mask_to = aside, aside_mask if mask_at else mask_at
        if is_alone:
            target = load_u64(piece + uint64(_PIECE_TARGET)) + row - load_u64(piece)
            to, mask_to = out_at + target * itemsize, mask_at + target if mask_at else mask_at
        if column == uint64(EVENT_TS):
            time = load_u64(records + stripe * uint64(STRIPE_BYTES) + uint64(STRIPE_FIRST_TS))
            sum_steps(table, entry, events, time, row - first, last - first, scratch, to)
        elif is_alone:
            decode_part(table, entry, events, itemsize, row - first, last - first, to, scratch)
        else:
            decode_values(table, entry, events, itemsize, row - first, last - first, scratch)
            to = scratch + (row - first) * itemsize
        if entry_has_nulls(entry):
            nulls = uint64(1)
            mark_nulls(payload, entry, row - first, last - first, itemsize, to, mask_to)
        elif mask_to:
            zero_bytes(mask_to, last - row)
        if not is_alone:
            _hand_out(piece, beyond, row, last, itemsize, to, aside_mask, out_at, mask_at)
        if load_u64(newest + uint64(_PIECE_STOP)) > limit:
            piece, row = newest, limit
        else:
            piece, row = beyond, load_u64(beyond) if beyond < end else limit
    return _NULLS if nulls else 0


@kernel
def _hand_out(
    piece: Any, end: Any, row: Any, last: Any, itemsize: Any, aside: Any, aside_mask: Any, out_at: Any, mask_at: Any
) -> None:
    """Copy what pieces at [piece, end) have of the rows [row, last), which lie aside, to their places."""
    while piece < end:
        start, stop = max(load_u64(piece), row), min(load_u64(piece + uint64(_PIECE_STOP)), last)
        target = load_u64(piece + uint64(_PIECE_TARGET)) + start - load_u64(piece)
        copy_bytes(out_at + target * itemsize, aside + (start - row) * itemsize, (stop - start) * itemsize)
        if mask_at:
            copy_bytes(mask_at + target, aside_mask + (start - row), stop - start)
        piece += uint64(_PIECE_BYTES)


@kernel
def _add(work: Any, word: Any, value: Any) -> None:
    at = work + uint64(8) * uint64(word)
    store_u64(at, load_u64(at) + value)
