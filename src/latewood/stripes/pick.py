"""Pick: the values of single rows out of many stripes, each column in one call, and no more decoded than that takes.

Where a packed value lies is arithmetic, so that few values of a stripe are taken out one by one; of many, the stripe is
decoded into scratch that stays in the nearest cache, and they are taken from there. So are times, always: they are sums
of all steps before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.stripes.addresses import (
    address_of,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    prefetch,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
    zero_bytes,
)
from latewood.stripes.decode import Decoded, Output, is_inside
from latewood.stripes.entries import (
    bitmap_bytes,
    entry_exceptions,
    entry_has_nulls,
    entry_has_reference,
    entry_mode,
    entry_offset,
    entry_size_code,
    entry_width,
    first_entry,
    first_ts,
    packed_bytes,
    stripe_events,
    table_field,
    word_bits,
)
from latewood.stripes.layout import DELTA, NULLS, PACKED, PAYLOAD, SCALED, STRIPE_EVENTS
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import decode_values, sum_steps, table_at, verify_block

_FEW = 24  # values that are taken out one by one
_AHEAD = 6  # groups
_DAMAGED = 1
_GROUP, _STRIPES, _BYTES, _MET = range(4)  # what the kernel notes
_SCRATCH = 4
# A group: the rows of one stripe that follow each other. Which shard, user and stripe, and the places of its rows.
_SHARD, _USER, _STRIPE, _FIRST, _LAST = range(5)


@dataclass(frozen=True, slots=True, eq=False)
class Picks:
    """Rows to pick, by stripe. Shapes: rows (k,), of which those below 0 are not stored; groups (g, 5)."""

    rows: NDArray[np.int64]
    groups: NDArray[np.int64]

    @property
    def stored_count(self) -> int:
        """How many rows are stored."""
        return int((self.groups[:, _LAST] - self.groups[:, _FIRST]).sum())

    def ranges(self) -> tuple[Ranges, NDArray[np.int64]]:
        """For what has to be decoded in one piece: of each group the rows from its first to its last, back to back.

        Returns: the ranges, and where in their output each row is. Shapes: (k,); -1 where a row is not stored.
        """
        groups, rows = self.groups, self.rows
        start, stop = rows[groups[:, _FIRST]], rows[groups[:, _LAST] - 1] + 1
        target = np.cumsum(stop - start) - (stop - start)
        places = np.full(len(rows), -1, np.int64)
        stored = rows >= 0
        counts = groups[:, _LAST] - groups[:, _FIRST]
        places[stored] = rows[stored] + np.repeat(target - start, counts)
        return Ranges(groups[:, _SHARD], groups[:, _USER], start, stop, target), places


def group_rows(
    tables: Tables,
    shard: NDArray[np.int64],
    user: NDArray[np.int64],
    offsets: NDArray[np.int64],
    rows: NDArray[np.int64],
) -> Picks:
    """Group rows by stripe.

    Args: shard, user: of each of n runs of rows. rows: ascending within each run; below 0: no stored row.
    Shapes: shard, user (n,); offsets (n + 1,); rows (k,).
    Raises: IndexError: a row that is not there, or a run that does not ascend.
    """
    if len(shard) != len(offsets) - 1 or len(user) != len(shard) or offsets[0] != 0 or offsets[-1] != len(rows):
        raise ValueError("there are as many shards and users as runs, and the runs are all the rows")
    groups = np.empty((len(rows), 5), np.int64)
    count = _group(tables.rows, shard, user, offsets, rows, groups)
    if count < 0:
        raise IndexError(f"row {rows[-count - 1]} is not there, or not behind the row before it")
    return Picks(rows, groups[:count])


def pick_columns(tables: Tables, picks: Picks, outputs: Sequence[Output], verify: bool = True) -> Decoded:
    """Pick some columns' values. Each goes to the place of its row; the places of rows not stored are left alone.

    Masks are written for every stored row (True where null); without one nulls are just 0.
    Raises: CorruptionError: names the shard, user, column and block.
    """
    work, nulls, groups = np.zeros(_SCRATCH + 2 * STRIPE_EVENTS + 8, np.uint64), [], picks.groups
    for output in outputs:
        column, values, mask = output
        _check_output(tables, output, len(picks.rows))
        work[_MET] = 0
        mask_at = 0 if mask is None else mask.ctypes.data
        found = _pick(
            tables.rows, groups, picks.rows, np.uint64(column), np.uint64(values.itemsize),
            np.uint64(values.ctypes.data), np.uint64(mask_at), verify, work,
        )  # fmt: skip
        if found:
            group = groups[int(work[_GROUP])]
            raise tables.damage(int(group[_SHARD]), int(group[_USER]), column, int(group[_STRIPE]))
        nulls.append(bool(work[_MET]))
    return Decoded(nulls, int(work[_STRIPES]), int(work[_BYTES]))


def _check_output(tables: Tables, output: Output, size: int) -> None:
    """Kernels check nothing."""
    column, values, mask = output
    if not 0 <= column < len(tables.columns):
        raise IndexError(f"there is no column {column}")
    if tables.columns[column].role == "items":
        raise IndexError(f"column {column} holds the items of lists, which `decode_lists` decodes")
    wanted = tables.columns[column].dtype
    for array, dtype in ((values, wanted), (mask, np.dtype(np.bool_))):
        if array is None:
            continue
        if array.dtype != dtype or len(array) != size or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(
                f"{tables.columns[column].name!r} is picked into contiguous arrays of {wanted}, {size} long"
            )


@kernel
def _group(tables: Any, shard: Any, user: Any, offsets: Any, rows: Any, groups: Any) -> int:
    """See `group_rows`. Returns: how many groups there are, or ~the place of a row that is wrong."""
    count = 0
    for i in range(len(shard)):
        before, open_stripe = -1, -1
        for k in range(offsets[i], offsets[i + 1]):
            row = rows[k]
            if row < 0:
                open_stripe = -1
                continue
            inside = is_inside(
                tables, uint64(shard[i]), uint64(user[i]), uint64(row), uint64(row + 1), uint64(0), uint64(1)
            )
            if row <= before or not inside:
                return ~k
            before = row
            if row // STRIPE_EVENTS != open_stripe:
                open_stripe = row // STRIPE_EVENTS
                groups[count, _SHARD], groups[count, _USER], groups[count, _STRIPE] = shard[i], user[i], open_stripe
                groups[count, _FIRST] = k
                count += 1
            groups[count - 1, _LAST] = k + 1
    return count


@kernel
def _pick(
    tables: Any, groups: Any, rows: Any, column: Any, itemsize: Any, out: Any, mask: Any, verify: Any, work: Any
) -> int:
    """One column of all groups. Returns: 0, or _DAMAGED, and in `work` the group."""
    scratch, count = address_of(work) + uint64(_SCRATCH * 8), len(groups)
    for g in range(min(count, _AHEAD)):
        _ask_for_group(tables, groups, rows, column, g)
    for g in range(count):
        if g + _AHEAD < count:
            _ask_for_group(tables, groups, rows, column, g + _AHEAD)
        table, user, stripe = table_at(tables, groups[g, _SHARD]), uint64(groups[g, _USER]), uint64(groups[g, _STRIPE])
        first, last = groups[g, _FIRST], groups[g, _LAST]
        if verify and verify_block(table, user, column, stripe):
            work[_GROUP] = g
            return _DAMAGED
        place = first_entry(table, user, column) + (stripe << uint64(3))
        entry, events = load_u64(place), stripe_events(table, user, stripe)
        work[_STRIPES] += uint64(1)
        work[_BYTES] += entry_offset(load_u64(place + uint64(8))) - entry_offset(entry)
        base = stripe * uint64(STRIPE_EVENTS)
        mode = entry_mode(entry)
        if mode == uint64(DELTA):
            _pick_times(
                table, entry, events, uint64(first_ts(table, user, stripe)), rows, base, first, last, scratch, out
            )
        elif last - first <= _FEW and (mode == uint64(PACKED) or mode == uint64(SCALED)):
            _pick_packed(table, entry, events, itemsize, rows, base, first, last, out)
        elif mode == uint64(NULLS):
            zero_bytes(out + uint64(first) * itemsize, uint64(last - first) * itemsize)
        else:
            decode_values(table, entry, events, itemsize, uint64(0), events, scratch)
            _copy_values(scratch, itemsize, rows, base, first, last, out)
        if entry_has_nulls(entry):
            work[_MET] = uint64(1)
            _mark_nulls(
                table_field(table, PAYLOAD) + entry_offset(entry), mode, itemsize, rows, base, first, last, out, mask
            )
        elif mask:
            zero_bytes(mask + uint64(first), uint64(last - first))
    return 0


@kernel
def _ask_for_group(tables: Any, groups: Any, rows: Any, column: Any, g: Any) -> None:
    """Prefetch where the values of a group are packed."""
    table, user, stripe = table_at(tables, groups[g, _SHARD]), uint64(groups[g, _USER]), uint64(groups[g, _STRIPE])
    place = first_entry(table, user, column) + (stripe << uint64(3))
    entry = load_u64(place)
    start = table_field(table, PAYLOAD) + entry_offset(entry)
    first, last = groups[g, _FIRST], groups[g, _LAST]
    if last - first > _FEW or entry_mode(entry) != uint64(PACKED):
        size = entry_offset(load_u64(place + uint64(8))) - entry_offset(entry)
        for line in range((size + uint64(63)) >> uint64(6)):
            prefetch(start + (uint64(line) << uint64(6)))
        return
    base, width = stripe * uint64(STRIPE_EVENTS), entry_width(entry)
    for k in range(first, last):
        # about where: what stands before the words is small
        prefetch(start + (((uint64(rows[k]) - base) * width) >> uint64(3)))


@kernel
def _pick_times(
    table: Any, entry: Any, events: Any, time: Any, rows: Any, base: Any, first: Any, last: Any, scratch: Any, out: Any
) -> None:
    steps, times = scratch, scratch + uint64(STRIPE_EVENTS * 8)
    sum_steps(table, entry, events, time, uint64(0), uint64(rows[last - 1]) - base + uint64(1), steps, times)
    _copy_values(times, uint64(8), rows, base, first, last, out)


@kernel
def _copy_values(values: Any, itemsize: Any, rows: Any, base: Any, first: Any, last: Any, out: Any) -> None:
    """Values of rows [first, last), whose stripe was decoded."""
    if itemsize == uint64(8):
        for k in range(first, last):
            store_u64(out + (uint64(k) << uint64(3)), load_u64(values + ((uint64(rows[k]) - base) << uint64(3))))
    elif itemsize == uint64(4):
        for k in range(first, last):
            store_u32(out + (uint64(k) << uint64(2)), load_u32(values + ((uint64(rows[k]) - base) << uint64(2))))
    elif itemsize == uint64(1):
        for k in range(first, last):
            store_u8(out + uint64(k), load_u8(values + uint64(rows[k]) - base))
    else:
        for k in range(first, last):
            store_u16(out + (uint64(k) << uint64(1)), load_u16(values + ((uint64(rows[k]) - base) << uint64(1))))


@kernel
def _store(itemsize: Any, at: Any, value: Any) -> None:
    if itemsize == uint64(8):
        store_u64(at, value)
    elif itemsize == uint64(4):
        store_u32(at, value)
    elif itemsize == uint64(1):
        store_u8(at, value)
    else:
        store_u16(at, value)


@kernel
def _pick_packed(
    table: Any, entry: Any, events: Any, itemsize: Any, rows: Any, base: Any, first: Any, last: Any, out: Any
) -> None:
    """Values of a packed stripe, one by one: reference + (packed + high << width) * factor."""
    at = table_field(table, PAYLOAD) + entry_offset(entry) + bitmap_bytes(entry, events)
    reference, factor, width = uint64(0), uint64(1), entry_width(entry)
    if entry_has_reference(entry):
        reference = load_u64(at)
        at += uint64(8)
    if entry_mode(entry) == uint64(SCALED):
        factor = load_u64(at)
        at += uint64(8)
    bits = word_bits(itemsize, width)
    lanes = _logarithm(uint64(256) // bits)
    every, ones = ~uint64(0) >> (uint64(64) - bits), uint64(0)
    if width:
        ones = ~uint64(0) >> (uint64(64) - width)
    exceptions, code = entry_exceptions(entry), entry_size_code(entry)
    highs = at + packed_bytes(events, itemsize, width)
    places, next_ = highs + (exceptions << code), uint64(0)
    all_of_high = ~uint64(0) >> (uint64(64) - (uint64(8) << code))
    for k in range(first, last):
        row = uint64(rows[k]) - base
        skipped = (row >> lanes) * width
        # eight bytes are read whatever a word's size: the payload is padded
        word = at + ((skipped // bits) << uint64(5)) + (row & ((uint64(1) << lanes) - uint64(1))) * (bits >> uint64(3))
        shift = skipped % bits
        low = (load_u64(word) & every) >> shift
        above = ((load_u64(word + uint64(32)) & every) << uint64(1)) << (bits - uint64(1) - shift)
        value = (low | above) & ones
        while next_ < exceptions and load_u8(places + next_) < row:
            next_ += uint64(1)
        if next_ < exceptions and load_u8(places + next_) == row:
            value += (load_u64(highs + (next_ << code)) & all_of_high) << width
        _store(itemsize, out + uint64(k) * itemsize, reference + value * factor)


@kernel
def _logarithm(power: Any) -> Any:
    """The logarithm of 4, 8, 16 or 32."""
    return uint64(2) + uint64(power > uint64(4)) + uint64(power > uint64(8)) + uint64(power > uint64(16))


@kernel
def _mark_nulls(
    bitmap: Any, mode: Any, itemsize: Any, rows: Any, base: Any, first: Any, last: Any, out: Any, mask: Any
) -> None:
    """Zero the values that are null, and write their mask, unless its address is 0."""
    for k in range(first, last):
        null = uint64(1)
        if mode != uint64(NULLS):
            row = uint64(rows[k]) - base
            null = (load_u8(bitmap + (row >> uint64(3))) >> (row & uint64(7))) & uint64(1)
        if mask:
            store_u8(mask + uint64(k), null)
        if null:
            _store(itemsize, out + uint64(k) * itemsize, uint64(0))
