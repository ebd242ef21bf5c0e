"""Search: which rows of a stripe meet conditions, with as little of it decoded as will tell.

A condition is tested where the values are: as *intervals* of the bits that a column stores. Codes of a dictionary are
looked up once per value, and floats have their order in their bits, so that one test serves every type: `value - low <=
span`, modulo the column's width. What a stripe's entry and reference say bounds its values to an interval, too, and
often that is enough: a stripe whose codes end below the one that is looked for is passed over without a byte of it
being decoded. The places of sparse flags are taken as they are stored.

The rows of a stripe are a mask of 256 bits, four words. A condition over several columns is a little program that combines
the masks of its leaves on a stack; a leaf that cannot change the result any more is not looked at.
"""

# ruff: noqa: ARG001  numba looks at the number of an intrinsic's arguments

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import int64, types, uint64
from numba.core import cgutils
from numpy.typing import NDArray

from latewood.kernels import intrinsic, kernel
from latewood.stripes.addresses import I64, address_of, load_u8, load_u64, pointer
from latewood.stripes.entries import (
    entry_exceptions,
    entry_has_nulls,
    entry_has_reference,
    entry_mode,
    entry_offset,
    entry_size_code,
    entry_width,
    first_entry,
    first_ts,
    stripe_events,
    table_field,
    user_stripes,
)
from latewood.stripes.layout import DELTA, NULLS, PAYLOAD, POSITIONS, RAW, SCALED, STRIPE_EVENTS
from latewood.stripes.stripe import decode_values, sum_steps, verify_block
from latewood.stripes.unpack import narrow, splat

WORDS = STRIPE_EVENTS // 64  # of a mask
LEAF_AND, LEAF_OR, LEAF_NOT = -1, -2, -3  # operations; from 0 on they are leaves
UNLESS_NONE, UNLESS_ALL = -4, -5  # leave the next operations out if nothing, or everything, is on top of the stack
FEW_INTERVALS = 16  # more are searched through value by value

# A leaf as kernels see it.
LEAF_COLUMN, LEAF_ITEMSIZE, LEAF_SLOT, LEAF_KIND, LEAF_FLAGS, LEAF_LIMIT = range(6)
LEAF_SORTED, LEAF_SORTED_COUNT, LEAF_JOINED, LEAF_JOINED_COUNT = range(6, 10)
LEAF_FIELDS = 10
COMPARES, IS_NULL, NEVER, ALWAYS = range(4)  # kinds of leaves

# What a search leaves on its desk: notes, then of each leaf whether it was looked at and its mask, of each column whether
# it is decoded, of each stream its mask, a stack of masks, and room for a stripe of times and of each column.
NOTE_COLUMN, NOTE_STRIPES, NOTE_BYTES, NOTE_STRIPE = range(4)
_NOTES = 4
_LEAF_WORDS = 1 + WORDS
_NONE, _ALL, _UNKNOWN = range(3)
DAMAGED, BEYOND = 1, 2  # what the kernel says


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What is searched for, as kernels take it.

    Shapes: leaves (l, LEAF_FIELDS); intervals (m, 2): low and span; operations (o, 2); programs (s + 1,): whose
    operations are which, of s streams. A stream without operations takes every row.

    A leaf names its intervals twice: `sorted`, ascending and apart, and `joined`, where one may run past the largest value
    to the smallest.
    """

    leaves: NDArray[np.uint64]
    intervals: NDArray[np.uint64]
    operations: NDArray[np.int64]
    programs: NDArray[np.int64]
    slots: int  # columns to decode

    @property
    def streams(self) -> int:
        return len(self.programs) - 1

    def desk(self) -> NDArray[np.uint64]:
        """Room for one search at a time."""
        masks = (self.streams + len(self.operations) + 2) * WORDS
        words = _NOTES + len(self.leaves) * _LEAF_WORDS + self.slots + masks
        return np.zeros(words + (self.slots + 1) * STRIPE_EVENTS + 8, np.uint64)

    def arrays(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], int]:
        """For `search_stripe`."""
        return self.leaves, self.intervals, self.operations, self.programs, self.slots


def _matcher(bits: int) -> Any:
    lanes = max(256 // bits, 8)
    row_type, out_type = ir.VectorType(ir.IntType(bits), lanes), ir.IntType(lanes)

    @intrinsic
    def match(typing_context: Any, values: Any, low: Any, span: Any, out: Any) -> Any:
        """Set the bits of the values, of 256, that lie from `low` on no further than `span`."""

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values, low, span, out = arguments
            lowest, most = (splat(builder, narrow(builder, part, bits), row_type) for part in (low, span))
            with cgutils.for_range(builder, I64(STRIPE_EVENTS // lanes)) as loop:
                at = builder.add(values, builder.mul(loop.index, I64(lanes * bits // 8)))
                row = builder.load(pointer(builder, at, row_type), align=1)
                found = builder.icmp_unsigned("<=", builder.sub(row, lowest), most)
                place = pointer(builder, builder.add(out, builder.mul(loop.index, I64(lanes // 8))), out_type)
                before = builder.load(place, align=1)
                builder.store(builder.or_(before, builder.bitcast(found, out_type)), place, align=1)
            return context.get_dummy_value()

        return types.void(*[types.uint64] * 4), generate

    return match


_match_8, _match_16, _match_32, _match_64 = (_matcher(bits) for bits in (8, 16, 32, 64))


@kernel
def stream_mask(search: Any, stream: Any) -> Any:
    """Where on the desk the mask of a stream begins."""
    leaves, _, _, _, slots = search
    return _NOTES + len(leaves) * _LEAF_WORDS + slots + stream * WORDS


@kernel
def search_stripe(table: Any, user: Any, stripe: Any, search: Any, verify: Any, desk: Any) -> Any:
    """Lay the mask of every stream on the desk. Bits of rows that the stripe does not have mean nothing.

    Returns: 0; DAMAGED, where a block is, or BEYOND, where there is a code without a value, and on the desk the column.
    """
    leaves, _, _, programs, slots = search
    desk[NOTE_STRIPE] = stripe
    for leaf in range(len(leaves)):
        desk[_NOTES + leaf * _LEAF_WORDS] = 0
    for slot in range(slots):
        desk[_NOTES + len(leaves) * _LEAF_WORDS + slot] = 0
    for stream in range(len(programs) - 1):
        out = stream_mask(search, stream)
        first, last = programs[stream], programs[stream + 1]
        if first == last:
            _fill(desk, out, ~uint64(0))
            continue
        verdict = _UNKNOWN
        if last > first + 1:
            verdict = _foresee(table, user, stripe, search, first, last, verify, desk)
        if verdict == _UNKNOWN:
            found = _run(table, user, stripe, search, first, last, verify, desk, out)
            if found:
                return found
        elif verdict in (_NONE, _ALL):
            _fill(desk, out, ~uint64(0) if verdict == _ALL else uint64(0))
        else:
            return DAMAGED
    return 0


@kernel
def _fill(desk: Any, at: Any, word: Any) -> None:
    for i in range(WORDS):
        desk[at + i] = word


@kernel
def _foresee(table: Any, user: Any, stripe: Any, search: Any, first: Any, last: Any, verify: Any, desk: Any) -> Any:
    """What a program will say of all rows, if what bounds the leaves' values tells; else _UNKNOWN. Above: damage."""
    leaves, intervals, operations, programs, _ = search
    stack = stream_mask(search, len(programs) - 1)
    top = stack
    for i in range(first, last):
        operation = operations[i, 0]
        if operation >= 0:
            verdict = _bound(table, user, stripe, leaves, operation, intervals, verify, desk)
            if verdict > _UNKNOWN:
                return verdict
            desk[top] = uint64(verdict)
            top += 1
        elif operation == LEAF_NOT:
            if desk[top - 1] != uint64(_UNKNOWN):
                desk[top - 1] = uint64(_ALL) - desk[top - 1]
        elif operation in (LEAF_AND, LEAF_OR):
            top -= 1
            desk[top - 1] = _both(desk[top - 1], desk[top], operation)
    return int64(desk[stack])


@kernel
def _both(left: Any, right: Any, operation: Any) -> Any:
    """What an operation says of two leaves' verdicts."""
    decides = uint64(_NONE if operation == LEAF_AND else _ALL)
    if left == decides or right == decides:
        return decides
    return left if left == right else uint64(_UNKNOWN)


@kernel
def _run(
    table: Any, user: Any, stripe: Any, search: Any, first: Any, last: Any, verify: Any, desk: Any, out: Any
) -> Any:
    """Carry out a program; its mask goes to `out`."""
    leaves, intervals, operations, programs, slots = search
    stack = stream_mask(search, len(programs) - 1)
    room = stack + (len(operations) + 2) * WORDS
    top, i = stack, first
    while i < last:
        operation = operations[i, 0]
        if operation >= 0:
            place = _NOTES + operation * _LEAF_WORDS
            if desk[place] == uint64(0):
                found = _look(table, user, stripe, leaves, operation, intervals, verify, desk, slots, room)
                if found:
                    return found
                desk[place] = uint64(1)
            for k in range(WORDS):
                desk[top + k] = desk[place + 1 + k]
            top += WORDS
        elif operation == LEAF_NOT:
            for k in range(WORDS):
                desk[top - WORDS + k] = ~desk[top - WORDS + k]
        elif operation == LEAF_AND:
            top -= WORDS
            for k in range(WORDS):
                desk[top - WORDS + k] &= desk[top + k]
        elif operation == LEAF_OR:
            top -= WORDS
            for k in range(WORDS):
                desk[top - WORDS + k] |= desk[top + k]
        else:
            wanted = uint64(0) if operation == UNLESS_NONE else ~uint64(0)
            same = True
            for k in range(WORDS):
                same &= desk[top - WORDS + k] == wanted
            if same:
                i += operations[i, 1]
        i += 1
    for k in range(WORDS):
        desk[out + k] = desk[stack + k]
    return 0


@kernel
def _bound(table: Any, user: Any, stripe: Any, leaves: Any, leaf: Any, intervals: Any, verify: Any, desk: Any) -> Any:
    """Whether a leaf is true of no row of a stripe, or of all, as far as its index and header tell. Above: damage."""
    kind, column = int64(leaves[leaf, LEAF_KIND]), leaves[leaf, LEAF_COLUMN]
    if kind in (NEVER, ALWAYS):
        return _ALL if kind == ALWAYS else _NONE
    entry = load_u64(first_entry(table, user, column) + (stripe << uint64(3)))
    if entry_mode(entry) == uint64(NULLS):
        return _ALL if kind == IS_NULL else _NONE
    if kind == IS_NULL:
        return _UNKNOWN if entry_has_nulls(entry) else _NONE
    if entry_has_reference(entry) and verify and verify_block(table, user, column, stripe):
        desk[NOTE_COLUMN] = column
        return _UNKNOWN + 1
    verdict = _bound_values(table, user, stripe, entry, leaves, leaf, intervals)
    return _UNKNOWN if verdict == _ALL and entry_has_nulls(entry) else verdict


@kernel
def _bound_values(table: Any, user: Any, stripe: Any, entry: Any, leaves: Any, leaf: Any, intervals: Any) -> Any:
    """Whether none or all of the values that a stripe can hold lie in the leaf's intervals. Its block is verified."""
    mode, width = entry_mode(entry), entry_width(entry)
    if mode == uint64(RAW):
        return _UNKNOWN
    if mode == uint64(POSITIONS):
        if entry_exceptions(entry):
            return _UNKNOWN
        return _ALL if leaves[leaf, LEAF_FLAGS] & uint64(1) else _NONE
    if mode == uint64(DELTA):
        if stripe + uint64(1) >= user_stripes(table, user):
            return _UNKNOWN
        low = uint64(first_ts(table, user, stripe))
        return _compare_arc(leaves, leaf, intervals, low, uint64(first_ts(table, user, stripe + uint64(1))) - low)
    every = ~uint64(0) >> (uint64(64) - (leaves[leaf, LEAF_ITEMSIZE] << uint64(3)))
    at = table_field(table, PAYLOAD) + entry_offset(entry)
    if entry_has_nulls(entry):
        at += (stripe_events(table, user, stripe) + uint64(7)) >> uint64(3)
    if entry_exceptions(entry):
        width += uint64(8) << entry_size_code(entry)
    if width >= uint64(64):
        return _UNKNOWN
    span = (uint64(1) << width) - uint64(1)
    if mode == uint64(SCALED) and span:
        factor = load_u64(at + uint64(8))
        if factor > every // span:
            return _UNKNOWN
        span *= factor
    if span > every:
        return _UNKNOWN
    low = load_u64(at) & every if entry_has_reference(entry) else uint64(0)
    return _compare_arc(leaves, leaf, intervals, low, span)


@kernel
def _compare_arc(leaves: Any, leaf: Any, intervals: Any, low: Any, span: Any) -> Any:
    """Whether the values from `low` on, up to `span` further, lie in none of a leaf's intervals, or in one of them."""
    every = ~uint64(0) >> (uint64(64) - (leaves[leaf, LEAF_ITEMSIZE] << uint64(3)))
    first, count = int64(leaves[leaf, LEAF_JOINED]), int64(leaves[leaf, LEAF_JOINED_COUNT])
    if count > FEW_INTERVALS:
        return _compare_sorted(leaves, leaf, intervals, low, span, every)
    touched = False
    for i in range(first, first + count):
        behind = (low - intervals[i, 0]) & every  # how far the arc begins behind the interval's beginning
        if behind <= intervals[i, 1] and span <= intervals[i, 1] - behind:
            return _ALL
        touched |= behind <= intervals[i, 1] or ((intervals[i, 0] - low) & every) <= span
    return _UNKNOWN if touched else _NONE


@kernel
def _compare_sorted(leaves: Any, leaf: Any, intervals: Any, low: Any, span: Any, every: Any) -> Any:
    if span > every - low:
        return _UNKNOWN
    i = _interval_of(leaves, leaf, intervals, low + span)
    if i < 0 or intervals[i, 0] + intervals[i, 1] < low:
        return _NONE
    return _ALL if intervals[i, 0] <= low and intervals[i, 0] + intervals[i, 1] >= low + span else _UNKNOWN


@kernel
def _interval_of(leaves: Any, leaf: Any, intervals: Any, value: Any) -> Any:
    """The last of a leaf's intervals that begins at a value or before; -1 if none does."""
    first = int64(leaves[leaf, LEAF_SORTED])
    low, high = first, first + int64(leaves[leaf, LEAF_SORTED_COUNT])
    while low < high:
        middle = (low + high) >> 1
        if intervals[middle, 0] <= value:
            low = middle + 1
        else:
            high = middle
    return low - 1 if low > first else -1


@kernel
def _look(
    table: Any,
    user: Any,
    stripe: Any,
    leaves: Any,
    leaf: Any,
    intervals: Any,
    verify: Any,
    desk: Any,
    slots: Any,
    room: Any,
) -> Any:
    """Lay a leaf's mask on the desk."""
    kind, column, mask = int64(leaves[leaf, LEAF_KIND]), leaves[leaf, LEAF_COLUMN], _NOTES + leaf * _LEAF_WORDS + 1
    if kind in (NEVER, ALWAYS):
        _fill(desk, mask, ~uint64(0) if kind == ALWAYS else uint64(0))
        return 0
    place = first_entry(table, user, column) + (stripe << uint64(3))
    entry = load_u64(place)
    mode, nulls = entry_mode(entry), entry_has_nulls(entry)
    if mode == uint64(NULLS) or (kind == IS_NULL and not nulls):
        _fill(desk, mask, ~uint64(0) if mode == uint64(NULLS) and kind == IS_NULL else uint64(0))
        return 0
    if verify and verify_block(table, user, column, stripe):
        desk[NOTE_COLUMN] = column
        return DAMAGED
    payload = table_field(table, PAYLOAD) + entry_offset(entry)
    if kind == IS_NULL:
        for i in range(WORDS):
            desk[mask + i] = load_u64(payload + (uint64(i) << uint64(3)))
        return 0
    verdict = _bound_values(table, user, stripe, entry, leaves, leaf, intervals)
    if verdict != _UNKNOWN:
        _fill(desk, mask, ~uint64(0) if verdict == _ALL else uint64(0))
    else:
        _note(desk, entry_offset(load_u64(place + uint64(8))) - entry_offset(entry))
        if mode == uint64(POSITIONS):
            _mark_positions(table, user, stripe, entry, payload, leaves[leaf, LEAF_FLAGS], desk, mask)
        elif _match_values(table, user, stripe, entry, leaves, leaf, intervals, desk, slots, room, mask):
            desk[NOTE_COLUMN] = column
            return BEYOND
    if nulls:
        for i in range(WORDS):
            desk[mask + i] &= ~load_u64(payload + (uint64(i) << uint64(3)))
    return 0


@kernel
def _note(desk: Any, size_bytes: Any) -> None:
    desk[NOTE_STRIPES] += uint64(1)
    desk[NOTE_BYTES] += size_bytes


@kernel
def _mark_positions(
    table: Any, user: Any, stripe: Any, entry: Any, payload: Any, flags: Any, desk: Any, mask: Any
) -> None:
    """The mask of flags that are stored as the places of the true ones. Args: flags: 1, false counts, 2, true does."""
    at = payload
    if entry_has_nulls(entry):
        at += (stripe_events(table, user, stripe) + uint64(7)) >> uint64(3)
    _fill(desk, mask, uint64(0))
    if flags >= uint64(2):
        for i in range(entry_exceptions(entry)):
            place = load_u8(at + uint64(i))
            desk[mask + int64(place >> uint64(6))] |= uint64(1) << (place & uint64(63))
        if flags == uint64(3):
            _fill(desk, mask, ~uint64(0))
    elif flags == uint64(1):
        _fill(desk, mask, ~uint64(0))
        for i in range(entry_exceptions(entry)):
            place = load_u8(at + uint64(i))
            desk[mask + int64(place >> uint64(6))] &= ~(uint64(1) << (place & uint64(63)))


@kernel
def _match_values(
    table: Any,
    user: Any,
    stripe: Any,
    entry: Any,
    leaves: Any,
    leaf: Any,
    intervals: Any,
    desk: Any,
    slots: Any,
    room: Any,
    mask: Any,
) -> Any:
    """The mask of values that have to be decoded. Returns: whether one is beyond the leaf's limit."""
    itemsize, slot = leaves[leaf, LEAF_ITEMSIZE], leaves[leaf, LEAF_SLOT]
    base = address_of(desk)
    values = base + ((uint64(room) + (slot + uint64(1)) * uint64(STRIPE_EVENTS)) << uint64(3))
    decoded, events = _NOTES + len(leaves) * _LEAF_WORDS + int64(slot), stripe_events(table, user, stripe)
    if desk[decoded] == uint64(0):
        if entry_mode(entry) == uint64(DELTA):
            steps = base + (uint64(room) << uint64(3))
            sum_steps(table, entry, events, uint64(first_ts(table, user, stripe)), uint64(0), events, steps, values)
        else:
            decode_values(table, entry, events, itemsize, uint64(0), events, values)
        desk[decoded] = uint64(1)
    _fill(desk, mask, uint64(0))
    out = base + (uint64(mask) << uint64(3))
    if leaves[leaf, LEAF_LIMIT] and _is_beyond(table, entry, events, leaves[leaf, LEAF_LIMIT], values, desk, mask):
        return True
    _fill(desk, mask, uint64(0))
    first, count = int64(leaves[leaf, LEAF_JOINED]), int64(leaves[leaf, LEAF_JOINED_COUNT])
    if count > FEW_INTERVALS:
        _match_sorted(leaves, leaf, intervals, values, events, desk, mask)
        return False
    for i in range(first, first + count):
        _match(itemsize, values, intervals[i, 0], intervals[i, 1], out)
    return False


@kernel
def _match(itemsize: Any, values: Any, low: Any, span: Any, out: Any) -> None:
    if itemsize == uint64(8):
        _match_64(values, low, span, out)
    elif itemsize == uint64(4):
        _match_32(values, low, span, out)
    elif itemsize == uint64(1):
        _match_8(values, low, span, out)
    else:
        _match_16(values, low, span, out)


@kernel
def _is_beyond(table: Any, entry: Any, events: Any, limit: Any, codes: Any, desk: Any, mask: Any) -> Any:
    """Whether a code that is not null has no value. The mask is used for it, and is to be cleared after."""
    _match_32(codes, uint64(0), limit - uint64(1), address_of(desk) + (uint64(mask) << uint64(3)))
    bitmap = table_field(table, PAYLOAD) + entry_offset(entry)
    for i in range(WORDS):
        beyond = ~desk[mask + i] & row_bits(uint64(0), events, uint64(i))
        if entry_has_nulls(entry):
            beyond &= ~load_u64(bitmap + (uint64(i) << uint64(3)))
        if beyond:
            return True
    return False


@kernel
def _match_sorted(leaves: Any, leaf: Any, intervals: Any, values: Any, events: Any, desk: Any, mask: Any) -> None:
    itemsize = leaves[leaf, LEAF_ITEMSIZE]
    every = ~uint64(0) >> (uint64(64) - (itemsize << uint64(3)))
    for row in range(events):
        value = load_u64(values + uint64(row) * itemsize) & every
        i = _interval_of(leaves, leaf, intervals, value)
        if i >= 0 and value - intervals[i, 0] <= intervals[i, 1]:
            desk[mask + int64(uint64(row) >> uint64(6))] |= uint64(1) << (uint64(row) & uint64(63))


@kernel
def row_bits(start: Any, stop: Any, word: Any) -> Any:
    """One word of the mask of rows [start, stop) of a stripe."""
    first = word << uint64(6)
    low, high = max(start, first) - first, min(stop, first + uint64(64))
    if high <= first or low >= uint64(64) or high - first <= low:
        return uint64(0)
    return (~uint64(0) << low) & (~uint64(0) >> (uint64(64) - (high - first)))
