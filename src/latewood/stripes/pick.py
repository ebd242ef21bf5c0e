"""Pick: the values of single rows out of many stripes, each column in one call, and no more decoded than that takes.

Where a packed value lies is arithmetic, so that few values of a stripe are taken out one by one; of many, the stripe is
decoded into scratch that stays in the nearest cache, and they are taken from there. Times are sums of all steps before
them; of few, nothing is made of the steps but these sums (running.py).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import int64, uint64
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
from latewood.stripes.decode import Decoded, Output
from latewood.stripes.entries import (
    bitmap_bytes,
    block_index,
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
    user_events,
    word_bits,
)
from latewood.stripes.layout import BLOCK_STRIPES, DELTA, NULLS, PACKED, PAYLOAD, SCALED, STRIPE_EVENTS, VERIFIED
from latewood.stripes.located import is_inside
from latewood.stripes.places import ascend, count_until
from latewood.stripes.running import RUN_SUMS, SUMMED_BITS, call_run_sums, sum_until
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import decode_values, sum_steps, table_at, verify_block

_FEW = 24  # values that are taken out one by one
_AHEAD = 12  # groups
_AT_ONCE = 512
_DAMAGED = 1
_GROUP, _OUTPUT, _STRIPES, _BYTES = range(4)  # what the kernel notes: where something is wrong, and what was read
_SCRATCH = 4
_COLUMN, _ITEMSIZE, _VALUES, _MASK, _MET = range(5)  # an output; the last field is whether nulls were met
# A group: the rows of one stripe that follow each other. Which shard, user and stripe, and the places of its rows.
_SHARD, _USER, _STRIPE, _FIRST, _LAST = range(5)
_GROUP_BYTES = 40


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
    empty: Callable[[int, Any], NDArray[Any]] = np.empty,
) -> Picks:
    """Group rows by stripe.

    Args: shard, user: of each of n runs of rows. rows: ascending within each run; below 0: no stored row. empty: makes
        room.
    Shapes: shard, user (n,); offsets (n + 1,); rows (k,).
    Raises: IndexError: a row that is not there, or a run that does not ascend.
    """
    if len(shard) != len(offsets) - 1 or len(user) != len(shard) or offsets[0] != 0 or offsets[-1] != len(rows):
        raise ValueError("there are as many shards and users as runs, and the runs are all the rows")
    groups = empty(5 * len(rows), np.int64).reshape(-1, 5)
    count = _group(tables.rows, shard, user, offsets, rows, groups)
    if count < 0:
        raise IndexError(f"row {rows[-count - 1]} is not there, or not behind the row before it")
    return Picks(rows, groups[:count])


def pick_columns(tables: Tables, picks: Picks, outputs: Sequence[Output], verify: bool = True) -> Decoded:
    """Pick some columns' values. Each goes to the place of its row; the places of rows not stored are left alone.

    Masks are written for every stored row (True where null); without one nulls are just 0.
    Raises: CorruptionError: names the shard, user, column and block.
    """
    if not len(picks.groups) or not outputs:
        return Decoded([False] * len(outputs), 0, 0)
    groups, work = picks.groups, np.zeros(_SCRATCH + 2 * STRIPE_EVENTS + 16, np.uint64)
    described = np.array([_describe(tables, output, len(picks.rows)) for output in outputs], np.uint64)
    if _pick_all(tables.rows, groups, picks.rows, described, verify, RUN_SUMS[0], work):
        group, column = groups[int(work[_GROUP])], outputs[int(work[_OUTPUT])].column
        raise tables.damage(int(group[_SHARD]), int(group[_USER]), column, int(group[_STRIPE]))
    return Decoded((described[:, _MET] != 0).tolist(), int(work[_STRIPES]), int(work[_BYTES]))


def _describe(tables: Tables, output: Output, size: int) -> tuple[int, int, int, int, int]:
    """An output as kernels take it, checked: they check nothing."""
    column, values, mask = output
    _check_output(tables, output, size)
    return column, values.itemsize, values.ctypes.data, 0 if mask is None else mask.ctypes.data, 0


def _check_output(tables: Tables, output: Output, size: int) -> None:
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
        before, open_stripe, events = -1, -1, int64(0)
        if is_inside(tables, uint64(shard[i]), uint64(user[i]), uint64(0), uint64(0), uint64(0), uint64(0)):
            events = int64(user_events(table_at(tables, shard[i]), uint64(user[i])))
        for k in range(offsets[i], offsets[i + 1]):
            row = rows[k]
            if row < 0:
                open_stripe = -1
                continue
            if row <= before or row >= events:
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
def _pick_all(tables: Any, groups: Any, rows: Any, outputs: Any, verify: Any, summing: Any, work: Any) -> int:
    """All columns of some groups, then of the next: meanwhile their rows stay in a near cache. Returns: as `_pick`."""
    for start in range(0, len(groups), _AT_ONCE):
        stop = min(start + _AT_ONCE, len(groups))
        for k in range(len(outputs)):
            if _pick(tables, groups, rows, start, stop, outputs[k], verify, summing, work):
                work[_OUTPUT] = k
                return _DAMAGED
    return 0


@kernel
def _pick(
    tables: Any, groups: Any, rows: Any, start: int, stop: int, output: Any, verify: Any, summing: Any, work: Any
) -> int:
    """One column of the groups [start, stop). Returns: 0, or _DAMAGED, and in `work` the group."""
    column, itemsize, out, mask = output[_COLUMN], output[_ITEMSIZE], output[_VALUES], output[_MASK]
    scratch = address_of(work) + uint64(_SCRATCH * 8)
    group, first_row = address_of(groups) + uint64(start * _GROUP_BYTES), address_of(rows)
    shard = user = ~uint64(0)
    table, payload, entries, verified = uint64(0), uint64(0), uint64(0), uint64(0)
    stripes, size_bytes, met = uint64(0), uint64(0), uint64(0)
    for g in range(start, stop):
        if table_field(group, _USER) != user or table_field(group, _SHARD) != shard:
            shard, user = table_field(group, _SHARD), table_field(group, _USER)
            table = table_at(tables, shard)
            payload, entries = table_field(table, PAYLOAD), first_entry(table, user, column)
            verified = table_field(table, VERIFIED) + block_index(table, user, column, uint64(0))
        ahead = group + uint64(_AHEAD * _GROUP_BYTES)
        if g + _AHEAD < stop and table_field(ahead, _USER) == user and table_field(ahead, _SHARD) == shard:
            _ask_for_group(payload, entries, ahead, first_row)
        stripe, first = table_field(group, _STRIPE), table_field(group, _FIRST)
        picked = table_field(group, _LAST) - first
        if (
            verify
            and not load_u8(verified + stripe // uint64(BLOCK_STRIPES))
            and verify_block(table, user, column, stripe)
        ):
            work[_GROUP] = g
            return _DAMAGED
        entry, events = load_u64(entries + (stripe << uint64(3))), stripe_events(table, user, stripe)
        stripes += uint64(1)
        size_bytes += entry_offset(load_u64(entries + (stripe << uint64(3)) + uint64(8))) - entry_offset(entry)
        source, target = first_row + (first << uint64(3)), out + first * itemsize
        mode = entry_mode(entry)
        if mode == uint64(DELTA):
            time = uint64(first_ts(table, user, stripe))
            _pick_times(table, entry, events, time, source, picked, scratch, summing, target)
        elif mode == uint64(NULLS):
            zero_bytes(target, picked * itemsize)
        elif (
            picked > uint64(_FEW)
            or (mode != uint64(PACKED) and mode != uint64(SCALED))
            or not _pick_packed(payload, entry, events, itemsize, source, picked, target)
        ):
            decode_values(table, entry, events, itemsize, uint64(0), events, scratch)
            _copy_values(scratch, itemsize, source, picked, target)
        if entry_has_nulls(entry):
            met = uint64(1)
            bitmap = payload + entry_offset(entry)
            _mark_nulls(bitmap, mode, itemsize, source, picked, target, mask + first if mask else mask)
        elif mask:
            zero_bytes(mask + first, picked)
        group += uint64(_GROUP_BYTES)
    work[_STRIPES] += stripes
    work[_BYTES] += size_bytes
    output[_MET] |= met
    return 0


@kernel
def _row_at(source: Any, i: Any) -> Any:
    """The place in its stripe of the i-th of some rows."""
    return load_u64(source + (uint64(i) << uint64(3))) & uint64(STRIPE_EVENTS - 1)


@kernel
def _ask_for_group(payload: Any, entries: Any, group: Any, first_row: Any) -> None:
    """Prefetch where the values of a group, of the same user, are packed."""
    place = entries + (table_field(group, _STRIPE) << uint64(3))
    entry = load_u64(place)
    start = payload + entry_offset(entry)
    first = table_field(group, _FIRST)
    picked = table_field(group, _LAST) - first
    if picked <= uint64(_FEW) and entry_mode(entry) == uint64(PACKED):
        width, source = entry_width(entry), first_row + (first << uint64(3))
        for i in range(picked):
            # about where: what stands before the words is small, and so is how far a lane's word is from the row's middle
            at = start + ((_row_at(source, i) * width) >> uint64(3))
            prefetch(at)
            prefetch(at + uint64(32))  # where the value goes on
        return
    size = entry_offset(load_u64(place + uint64(8))) - entry_offset(entry)
    for line in range((size + uint64(63)) >> uint64(6)):
        prefetch(start + (uint64(line) << uint64(6)))


@kernel
def _copy_values(values: Any, itemsize: Any, source: Any, picked: Any, out: Any) -> None:
    """Values of a stripe that was decoded."""
    if itemsize == uint64(8):
        for i in range(picked):
            store_u64(out + (uint64(i) << uint64(3)), load_u64(values + (_row_at(source, i) << uint64(3))))
    elif itemsize == uint64(4):
        for i in range(picked):
            store_u32(out + (uint64(i) << uint64(2)), load_u32(values + (_row_at(source, i) << uint64(2))))
    elif itemsize == uint64(1):
        for i in range(picked):
            store_u8(out + uint64(i), load_u8(values + _row_at(source, i)))
    else:
        for i in range(picked):
            store_u16(out + (uint64(i) << uint64(1)), load_u16(values + (_row_at(source, i) << uint64(1))))


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
def _pick_packed(payload: Any, entry: Any, events: Any, itemsize: Any, source: Any, picked: Any, out: Any) -> Any:
    """Values of a packed stripe, one by one: reference + (packed + high << width) * factor.

    Returns: whether it was done; it is not where the places of exceptions do not ascend.
    """
    at = payload + entry_offset(entry) + bitmap_bytes(entry, events)
    reference, factor, width = uint64(0), uint64(1), entry_width(entry)
    if entry_has_reference(entry):
        reference = load_u64(at)
        at += uint64(8)
    if entry_mode(entry) == uint64(SCALED):
        factor = load_u64(at)
        at += uint64(8)
    ones = ~uint64(0) >> (uint64(64) - width) if width else uint64(0)
    exceptions = entry_exceptions(entry)
    if exceptions == uint64(0) and word_bits(itemsize, width) == uint64(32):
        for i in range(picked):
            value = _word_32(at, _row_at(source, i), width) & ones
            _store(itemsize, out + uint64(i) * itemsize, reference + value * factor)
        return True
    bits = word_bits(itemsize, width)
    code, highs, next_ = entry_size_code(entry), at + packed_bytes(events, itemsize, width), uint64(0)
    places, high_ones = highs + (exceptions << code), ~uint64(0) >> (uint64(64) - (uint64(8) << code))
    if not ascend(places, exceptions):
        return False
    for i in range(picked):
        row = _row_at(source, i)
        value = _word(at, row, width, bits) & ones
        while next_ < exceptions and load_u8(places + next_) < row:
            next_ += uint64(1)
        if next_ < exceptions and load_u8(places + next_) == row:
            value += (load_u64(highs + (next_ << code)) & high_ones) << width
        _store(itemsize, out + uint64(i) * itemsize, reference + value * factor)
    return True


@kernel
def _word_32(at: Any, row: Any, width: Any) -> Any:
    """`_word` of words of 32 bits."""
    skipped = (row >> uint64(3)) * width
    word, shift = at + ((skipped >> uint64(5)) << uint64(5)) + ((row & uint64(7)) << uint64(2)), skipped & uint64(31)
    return (load_u32(word) >> shift) | (load_u32(word + uint64(32)) << (uint64(32) - shift))


@kernel
def _word(at: Any, row: Any, width: Any, bits: Any) -> Any:
    """The packed value of a row, with others above it. Args: at: of the words. bits: of a word."""
    log_bits = uint64(3) + uint64(bits > uint64(8)) + uint64(bits > uint64(16)) + uint64(bits > uint64(32))
    log_lanes = uint64(8) - log_bits
    skipped, lane = (row >> log_lanes) * width, row & ((uint64(1) << log_lanes) - uint64(1))
    word, shift = at + ((skipped >> log_bits) << uint64(5)) + lane * (bits >> uint64(3)), skipped & (bits - uint64(1))
    # eight bytes are read whatever a word's size: the payload is padded
    every = ~uint64(0) >> (uint64(64) - bits)
    above = (load_u64(word + uint64(32)) & every) << uint64(1)
    return ((load_u64(word) & every) >> shift) | (above << (bits - uint64(1) - shift))


@kernel
def _mark_nulls(bitmap: Any, mode: Any, itemsize: Any, source: Any, picked: Any, out: Any, mask: Any) -> None:
    """Zero the values that are null, and write their mask, unless its address is 0."""
    for i in range(picked):
        null = uint64(1)
        if mode != uint64(NULLS):
            row = _row_at(source, i)
            null = (load_u8(bitmap + (row >> uint64(3))) >> (row & uint64(7))) & uint64(1)
        if mask:
            store_u8(mask + uint64(i), null)
        if null:
            _store(itemsize, out + uint64(i) * itemsize, uint64(0))


@kernel
def _pick_times(
    table: Any,
    entry: Any,
    events: Any,
    time: Any,
    source: Any,
    picked: Any,
    scratch: Any,
    summing: Any,
    out: Any,
) -> None:
    """Times of a stripe: its first one and the steps up to each row, of which only the sums by lane are ever made."""
    width, last = entry_width(entry), _row_at(source, picked - uint64(1))
    at, factor, exceptions = table_field(table, PAYLOAD) + entry_offset(entry), uint64(1), entry_exceptions(entry)
    if entry_has_reference(entry):
        factor = load_u64(at)
        at += uint64(8)
    code, highs = entry_size_code(entry), at + packed_bytes(events, uint64(8), width)
    places = highs + (exceptions << code)
    if width > uint64(SUMMED_BITS) or picked > uint64(_FEW) or not ascend(places, exceptions):
        sum_steps(table, entry, events, time, uint64(0), last + uint64(1), scratch, scratch + uint64(STRIPE_EVENTS * 8))
        _copy_values(scratch + uint64(STRIPE_EVENTS * 8), uint64(8), source, picked, out)
        return
    zero_bytes(scratch, uint64(32))
    sums = scratch + uint64(32)
    call_run_sums(summing, at, width, sums)
    summed = scratch + uint64(STRIPE_EVENTS * 8)  # the high parts of so many exceptions
    _sum_highs(highs, code, exceptions, summed)
    for i in range(picked):
        row = _row_at(source, i)
        steps = sum_until(sums, row)
        if exceptions:
            steps += load_u64(summed + (count_until(places, exceptions, row) << uint64(3))) << width
        store_u64(out + (uint64(i) << uint64(3)), time + steps * factor)


@kernel
def _sum_highs(highs: Any, code: Any, exceptions: Any, out: Any) -> None:
    total, ones = uint64(0), ~uint64(0) >> (uint64(64) - (uint64(8) << code))
    store_u64(out, total)
    for i in range(exceptions):
        total += load_u64(highs + (uint64(i) << code)) & ones
        store_u64(out + ((uint64(i) + uint64(1)) << uint64(3)), total)
