"""Decode rows of lists: the lengths as the column that they are, then the items into one pool, back to back.

Where a row's items lie in its stripe is told by the lengths of all rows before it, so the lengths are decoded by whole
stripes, whatever part of them is asked for. A stripe's items are decoded only where a row asks for some.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from latewood.columns import Lists
from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, load_u64, prefetch
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.encode import kind_of
from latewood.stripes.entries import entry_offset, first_entry, stripe_events, table_field, user_events
from latewood.stripes.items import decode_items, is_counted, is_whole
from latewood.stripes.layout import PAYLOAD, STRIPE_EVENTS
from latewood.stripes.located import is_inside
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import table_at, verify_block

_ANY_SIZE = -1
_OUTSIDE, _DAMAGED, _UNFIT = 1, 2, 3  # what the kernels say
_RANGE, _STRIPE, _PIECES, _BYTES = range(4)  # where something is wrong; how many pieces there are, and their bytes
# A piece: the items that a range asks for of one stripe. Where the stripe is, how many items it has, which are wanted.
_TABLE, _OFFSET, _SIZE, _ITEMS, _START, _STOP, _OF_RANGE, _OF_STRIPE = range(8)
_PIECES_AHEAD, _LINES_AHEAD = 4, 4


class ListsOutput(NamedTuple):
    """Where the lists of one trait go. Shapes: starts, lengths, mask (size,)."""

    column: int  # the index of its lengths among the shards' columns; its items are the next
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    mask: NDArray[np.bool_] | None = None
    list_size: int | None = None  # the number of items of each list that is not null; None: any


class DecodedLists(NamedTuple):
    """What decoding met: the items, which the starts count in; whether any stripe read has nulls; what was read."""

    items: NDArray[Any]
    nulls: bool
    stripe_count: int
    size_bytes: int


def decode_lists(
    tables: Tables,
    ranges: Ranges,
    output: ListsOutput,
    verify: bool = True,
    empty: Callable[[int, np.dtype[Any]], NDArray[Any]] = np.empty,
) -> DecodedLists:
    """Decode ranges of a list trait: starts, lengths and mask to their places, the items into a pool of their own.

    The items lie range after range, and within a range row after row. Masks, verify: as `decode_columns`.

    Args: empty: makes the pool.
    Raises: CorruptionError: names the shard, user, column and block or stripe. IndexError: a range that is not there.
    """
    column, starts, lengths, mask, list_size = output
    if not 0 <= column < len(tables.columns) - 1 or tables.columns[column].role != "lengths":
        raise IndexError(f"there is no list trait at column {column}")
    dtype = tables.columns[column + 1].dtype
    if not len(ranges):
        return DecodedLists(empty(0, dtype), False, 0, 0)
    _check_output(output)
    wide, work = _widened(tables, ranges, len(starts))
    rows = int(wide.target[-1] + wide.stop[-1] - wide.start[-1])
    whole, nulls = np.empty(rows, np.int32), np.empty(rows, np.bool_)
    decoded = decode_columns(tables, wide, [Output(column, whole, nulls)], verify)
    pieces = np.empty((rows // STRIPE_EVENTS + len(ranges), 8), np.uint64)
    marks = np.zeros(0, np.bool_) if mask is None else mask
    size = _ANY_SIZE if list_size is None else list_size
    total = _place(tables.rows, ranges.matrix, column, whole, nulls, size, verify, starts, lengths, marks, pieces, work)
    if total < 0:
        raise _refusal(tables, ranges, column, -total, work)
    items = empty(total, dtype)
    found, scratch = int(work[_PIECES]), np.empty(STRIPE_EVENTS, np.uint64)
    kind, itemsize = np.uint64(kind_of(dtype)), np.uint64(dtype.itemsize)
    status = _decode_pieces(pieces, found, kind, itemsize, items.view(np.uint8), scratch, work)
    if status:
        raise _refusal(tables, ranges, column, status, work)
    return DecodedLists(items, decoded.nulls[0], decoded.stripe_count + found, decoded.size_bytes + int(work[_BYTES]))


def decode_list_column(
    tables: Tables, ranges: Ranges, column: int, size: int, list_size: int | None = None, verify: bool = True
) -> Lists:
    """`decode_lists` into `size` places of new arrays."""
    starts, lengths, mask = np.zeros(size, np.int64), np.zeros(size, np.int32), np.zeros(size, np.bool_)
    decoded = decode_lists(tables, ranges, ListsOutput(column, starts, lengths, mask, list_size), verify)
    return Lists(decoded.items, starts, lengths, mask if decoded.nulls else None)


def _check_output(output: ListsOutput) -> None:
    """Kernels check nothing."""
    wanted = {"starts": np.int64, "lengths": np.int32, "mask": np.bool_}
    for name, dtype in wanted.items():
        array = getattr(output, name)
        if name == "mask" and array is None:
            continue
        if array.dtype != dtype or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(f"the {name} of lists go to a contiguous array of {np.dtype(dtype)}")
        if len(array) != len(output.starts):
            raise ValueError("the outputs of lists are of one size")


def _widened(tables: Tables, ranges: Ranges, size: int) -> tuple[Ranges, NDArray[np.int64]]:
    """Ranges of the whole stripes that some ranges touch, back to back. Raises: IndexError: one that is not there."""
    wide, work = np.empty_like(ranges.matrix), np.zeros(4, np.int64)
    if _widen(tables.rows, ranges.matrix, size, wide, work):
        raise IndexError(f"range {work[_RANGE]} lies outside its user's events, the shards or the output")
    return Ranges(*wide), work


def _refusal(tables: Tables, ranges: Ranges, column: int, status: int, work: NDArray[np.int64]) -> Exception:
    row, stripe = int(work[_RANGE]), int(work[_STRIPE])
    shard, user = int(ranges.shard[row]), int(ranges.user[row])
    if status == _DAMAGED:
        return tables.damage(shard, user, column + 1, stripe)
    return tables.unfit(shard, user, column, stripe)


@kernel
def _widen(tables: Any, ranges: Any, size: Any, out: Any, work: Any) -> Any:
    """See `_widened`. Returns: 0, or _OUTSIDE, and in `work` which range it is."""
    target = 0
    for i in range(ranges.shape[1]):
        shard, user, start, stop = ranges[0, i], ranges[1, i], ranges[2, i], ranges[3, i]
        if not is_inside(
            tables, uint64(shard), uint64(user), uint64(start), uint64(stop), uint64(ranges[4, i]), uint64(size)
        ):
            work[_RANGE] = i
            return _OUTSIDE
        out[0, i], out[1, i], out[2, i], out[3, i], out[4, i] = shard, user, start, stop, target
        if start < stop:
            events = int64(user_events(table_at(tables, shard), uint64(user)))
            out[2, i] = start // STRIPE_EVENTS * STRIPE_EVENTS
            out[3, i] = min((stop + STRIPE_EVENTS - 1) // STRIPE_EVENTS * STRIPE_EVENTS, events)
        target += out[3, i] - out[2, i]
    return 0


@kernel
def _place(
    tables: Any,
    ranges: Any,
    column: Any,
    whole: Any,
    nulls: Any,
    list_size: Any,
    verify: Any,
    starts: Any,
    lengths: Any,
    mask: Any,
    pieces: Any,
    work: Any,
) -> Any:
    """Say where the items of every row will be, and note the pieces to decode.

    Args: whole, nulls: the lengths of the stripes that the ranges touch, one after the other.
    Returns: how many items there will be; a negative number says what is wrong, and `work` where.
    """
    total, at, found = 0, 0, 0
    for i in range(ranges.shape[1]):
        user, start, stop, target = uint64(ranges[1, i]), ranges[2, i], ranges[3, i], ranges[4, i]
        table = table_at(tables, ranges[0, i])
        first = start // STRIPE_EVENTS * STRIPE_EVENTS
        while first < stop and start < stop:
            stripe = uint64(first // STRIPE_EVENTS)
            events = int64(stripe_events(table, user, stripe))
            work[_RANGE], work[_STRIPE] = i, int64(stripe)
            if verify and verify_block(table, user, uint64(column + 1), stripe):
                return -_DAMAGED
            items, before, wanted = 0, 0, 0
            for k in range(events):
                length = int64(whole[at + k])
                if length < 0 or (list_size >= 0 and length != list_size and not nulls[at + k]):
                    return -_UNFIT
                row = first + k
                if row < start:
                    before += length
                elif row < stop:
                    place = target + row - start
                    starts[place], lengths[place] = total + wanted, length
                    if len(mask):
                        mask[place] = nulls[at + k]
                    wanted += length
                items += length
            entry = first_entry(table, user, uint64(column + 1)) + stripe * uint64(8)
            offset = entry_offset(load_u64(entry))
            size = entry_offset(load_u64(entry + uint64(8))) - offset
            if not is_counted(table, offset, size, uint64(items)):
                return -_UNFIT
            if wanted:
                pieces[found, _TABLE], pieces[found, _OFFSET], pieces[found, _SIZE] = table, offset, size
                pieces[found, _ITEMS], pieces[found, _START], pieces[found, _STOP] = items, before, before + wanted
                pieces[found, _OF_RANGE], pieces[found, _OF_STRIPE] = i, stripe
                found += 1
                work[_BYTES] += int64(size)
            total += wanted
            at += events
            first += STRIPE_EVENTS
    work[_PIECES] = found
    return total


@kernel
def _decode_pieces(pieces: Any, count: Any, kind: Any, itemsize: Any, out: Any, scratch: Any, work: Any) -> Any:
    """Decode the pieces, one after the other. Returns: 0, or what is wrong, and in `work` where."""
    at, room = address_of(out), address_of(scratch)
    for i in range(count):
        if i + _PIECES_AHEAD < count:
            _ask_for(pieces, i + _PIECES_AHEAD)
        table, offset, size, items = pieces[i, _TABLE], pieces[i, _OFFSET], pieces[i, _SIZE], pieces[i, _ITEMS]
        if not is_whole(table, offset, size, items, kind, itemsize):
            work[_RANGE], work[_STRIPE] = pieces[i, _OF_RANGE], pieces[i, _OF_STRIPE]
            return _UNFIT
        start, stop = pieces[i, _START], pieces[i, _STOP]
        decode_items(table, offset, items, itemsize, start, stop, at, room)
        at += (stop - start) * itemsize
    return 0


@kernel
def _ask_for(pieces: Any, i: Any) -> None:
    """Prefetch the beginning of a piece's stripe."""
    address = table_field(pieces[i, _TABLE], PAYLOAD) + pieces[i, _OFFSET]
    for line in range(_LINES_AHEAD):
        prefetch(address + (uint64(line) << uint64(6)))
