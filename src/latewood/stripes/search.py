"""Search: which rows of a stripe meet conditions, with as little of it decoded as will tell.

A condition is tested where the values are: as *intervals* of the bits that a column stores. Codes of a dictionary are
looked up once per value, and floats have their order in their bits, so that one test serves every type: `value - low <=
span`, modulo the column's width. What a stripe's entry and reference say bounds its values to an interval, too, and
often that is enough: a stripe whose codes end below the one that is looked for is passed over without a byte of it
being decoded. The places of sparse flags are taken as they are stored.

The rows of a stripe are a mask of 256 bits, four words. A condition over several columns is a little program that combines
the masks of its leaves on a stack; a leaf that cannot change the result any more is not looked at.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.stripes.addresses import copy_bytes, load_u8, load_u64, store_u64
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
    stripe_events,
    table_field,
    user_stripes,
)
from latewood.stripes.layout import DELTA, NULLS, PAYLOAD, POSITIONS, RAW, SCALED, STRIPE_EVENTS
from latewood.stripes.leaf import (
    ALL,
    ALWAYS,
    CODED,
    COLUMN,
    COMPARES,
    FALSE_COUNTS,
    FEW_INTERVALS,
    FLAGS,
    IS_NULL,
    ITEMSIZE,
    JOINED,
    JOINED_COUNT,
    KIND,
    LEAF_FIELDS,
    LIMIT,
    NEVER,
    NONE,
    SLOT,
    TRUE_COUNTS,
    UNKNOWN,
    compare_arc,
    every_bit,
    match_sorted,
    word_at,
)
from latewood.stripes.match import match_values, row_bits
from latewood.stripes.places import ascend
from latewood.stripes.stripe import decode_values, sum_steps, verify_block

WORDS = STRIPE_EVENTS // 64  # of a mask

# An operation, with an argument: which leaf, or how many of the next operations to leave out if nothing, or everything, is
# on top of the stack.
LEAF, AND, OR, NOT, UNLESS_NONE, UNLESS_ALL = range(6)

# A search as kernels see it: first how many leaves, streams and columns there are, then where everything is, in it and on
# the desk, in words.
_LEAVES, _STREAMS, _SLOTS, _AT_LEAVES, _AT_INTERVALS, _AT_OPERATIONS, _AT_PROGRAMS = range(7)
_DESK_LEAVES, _DESK_SLOTS, _DESK_STREAMS, _DESK_STACK, _DESK_ROOM = range(7, 12)
_HEADER = 12
# The desk begins with notes: of what is damaged, and of what was decoded.
NOTE_COLUMN, NOTE_STRIPE, NOTE_STRIPES, NOTE_BYTES = range(4)
_NOTES = 4
_LEAF_WORDS = 1 + WORDS  # on the desk: whether it was looked at, and its mask
_BROKEN = 3  # beside NONE, ALL and UNKNOWN
DAMAGED, BEYOND = 1, 2  # what the kernels say


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """What is searched for, of several streams at once.

    Shapes: leaves (l, LEAF_FIELDS) and intervals (m, 2), as leaf.py has them; operations (o, 2); programs (s + 1,): whose
    operations are which. A stream without operations takes every row.
    """

    leaves: NDArray[np.uint64]
    intervals: NDArray[np.uint64]
    operations: NDArray[np.uint64]
    programs: NDArray[np.uint64]
    slots: int  # columns to decode
    words: NDArray[np.uint64] = field(init=False)  # all of it, for kernels, which take its address

    def __post_init__(self) -> None:
        parts = [part.reshape(-1) for part in (self.leaves, self.intervals, self.operations, self.programs)]
        starts = np.cumsum([_HEADER, *(len(part) for part in parts)])[:-1]
        streams, masks = len(self.programs) - 1, WORDS * (len(self.operations) + 2)
        sizes = np.cumsum([_NOTES, len(self.leaves) * _LEAF_WORDS, self.slots, WORDS * streams, masks])
        header = [len(self.leaves), streams, self.slots, *starts, *sizes]
        object.__setattr__(self, "words", np.concatenate([np.array(header, np.uint64), *parts]))

    def desk(self) -> NDArray[np.uint64]:
        """Room for one search at a time."""
        return np.zeros(int(self.words[_DESK_ROOM]) + (self.slots + 1) * STRIPE_EVENTS + 8, np.uint64)


@kernel
def stream_mask(search: Any, stream: Any, desk: Any) -> Any:
    """Where on the desk the mask of a stream is."""
    return word_at(desk, table_field(search, _DESK_STREAMS) + stream * uint64(WORDS))


@kernel
def _leaf_at(search: Any, leaf: Any) -> Any:
    return word_at(search, table_field(search, _AT_LEAVES) + leaf * uint64(LEAF_FIELDS))


@kernel
def _intervals(search: Any) -> Any:
    return word_at(search, table_field(search, _AT_INTERVALS))


@kernel
def _program_at(search: Any, stream: Any) -> Any:
    """Where the number of a stream's first operation stands, and behind it that of the next stream's."""
    return word_at(search, table_field(search, _AT_PROGRAMS) + stream)


@kernel
def _operation_at(search: Any, operation: Any) -> Any:
    return word_at(search, table_field(search, _AT_OPERATIONS) + (operation << uint64(1)))


@kernel
def search_stripe(table: Any, user: Any, stripe: Any, search: Any, verify: Any, desk: Any) -> Any:
    """Lay the mask of every stream on the desk. Bits of rows that the stripe does not have mean nothing.

    Args: search, desk: addresses.
    Returns: 0; DAMAGED, where a block is, or BEYOND, where there is a code without a value, and on the desk the column.
    """
    store_u64(word_at(desk, NOTE_STRIPE), stripe)
    place = word_at(desk, table_field(search, _DESK_LEAVES))
    for leaf in range(table_field(search, _LEAVES)):
        store_u64(word_at(place, uint64(leaf) * uint64(_LEAF_WORDS)), uint64(0))
    place = word_at(desk, table_field(search, _DESK_SLOTS))
    for slot in range(table_field(search, _SLOTS)):
        store_u64(word_at(place, slot), uint64(0))
    for stream in range(table_field(search, _STREAMS)):
        found = _search_stream(table, user, stripe, search, uint64(stream), verify, desk)
        if found:
            return found
    return uint64(0)


@kernel
def _search_stream(table: Any, user: Any, stripe: Any, search: Any, stream: Any, verify: Any, desk: Any) -> Any:
    out, program = stream_mask(search, stream, desk), _program_at(search, stream)
    first, last = load_u64(program), load_u64(program + uint64(8))
    if first == last:
        _fill(out, ~uint64(0))
        return uint64(0)
    if last == first + uint64(1):
        leaf = _leaf_at(search, table_field(_operation_at(search, first), 1))
        return _look(table, user, stripe, search, leaf, verify, desk, out)
    verdict = _foresee(table, user, stripe, search, first, last, verify, desk)
    if verdict == uint64(UNKNOWN):
        return _run(table, user, stripe, search, first, last, verify, desk, out)
    if verdict == uint64(_BROKEN):
        return uint64(DAMAGED)
    _fill(out, ~uint64(0) if verdict == uint64(ALL) else uint64(0))
    return uint64(0)


@kernel
def _fill(mask: Any, word: Any) -> None:
    for i in range(WORDS):
        store_u64(word_at(mask, i), word)


@kernel
def _foresee(table: Any, user: Any, stripe: Any, search: Any, first: Any, last: Any, verify: Any, desk: Any) -> Any:
    """What a program will say of all rows, if what bounds the leaves' values tells; else UNKNOWN."""
    stack = top = word_at(desk, table_field(search, _DESK_STACK))
    for i in range(first, last):
        operation = _operation_at(search, uint64(i))
        kind = table_field(operation, 0)
        if kind == uint64(LEAF):
            leaf = _leaf_at(search, table_field(operation, 1))
            verdict = _bound(table, user, stripe, search, leaf, verify, desk)
            if verdict == uint64(_BROKEN):
                return verdict
            store_u64(top, verdict)
            top += uint64(8)
        elif kind == uint64(NOT):
            verdict = load_u64(top - uint64(8))
            if verdict != uint64(UNKNOWN):
                store_u64(top - uint64(8), uint64(ALL) - verdict)
        elif kind <= uint64(OR):
            top -= uint64(8)
            left, right = load_u64(top - uint64(8)), load_u64(top)
            decides = uint64(NONE) if kind == uint64(AND) else uint64(ALL)
            if left == decides or right == decides:
                left = decides
            elif left != right:
                left = uint64(UNKNOWN)
            store_u64(top - uint64(8), left)
    return load_u64(stack)


@kernel
def _run(
    table: Any, user: Any, stripe: Any, search: Any, first: Any, last: Any, verify: Any, desk: Any, out: Any
) -> Any:
    """Carry out a program; its mask goes to `out`."""
    stack = top = word_at(desk, table_field(search, _DESK_STACK))
    size, i = uint64(8 * WORDS), first
    while i < last:
        operation = _operation_at(search, i)
        kind, argument = table_field(operation, 0), table_field(operation, 1)
        if kind == uint64(LEAF):
            known = word_at(desk, table_field(search, _DESK_LEAVES) + argument * uint64(_LEAF_WORDS))
            if load_u64(known) == uint64(0):
                mask = known + uint64(8)
                found = _look(table, user, stripe, search, _leaf_at(search, argument), verify, desk, mask)
                if found:
                    return found
                store_u64(known, uint64(1))
            copy_bytes(top, known + uint64(8), size)
            top += size
        elif kind == uint64(NOT):
            for k in range(WORDS):
                at = word_at(top - size, k)
                store_u64(at, ~load_u64(at))
        elif kind <= uint64(OR):
            top -= size
            for k in range(WORDS):
                at = word_at(top - size, k)
                left, right = load_u64(at), load_u64(word_at(top, k))
                store_u64(at, left & right if kind == uint64(AND) else left | right)
        else:
            wanted, same = uint64(0) if kind == uint64(UNLESS_NONE) else ~uint64(0), True
            for k in range(WORDS):
                same &= load_u64(word_at(top - size, k)) == wanted
            if same:
                i += argument
        i += uint64(1)
    copy_bytes(out, stack, size)
    return uint64(0)


@kernel
def _bound(table: Any, user: Any, stripe: Any, search: Any, leaf: Any, verify: Any, desk: Any) -> Any:
    """Whether a leaf is true of no row of a stripe, or of all, as far as its index and header tell."""
    kind, column = table_field(leaf, KIND), table_field(leaf, COLUMN)
    if kind >= uint64(NEVER):
        return uint64(ALL) if kind == uint64(ALWAYS) else uint64(NONE)
    entry = load_u64(word_at(first_entry(table, user, column), stripe))
    if entry_mode(entry) == uint64(NULLS):
        return uint64(ALL) if kind == uint64(IS_NULL) else uint64(NONE)
    if kind == uint64(IS_NULL):
        return uint64(UNKNOWN) if entry_has_nulls(entry) else uint64(NONE)
    if entry_has_reference(entry) and verify and verify_block(table, user, column, stripe):
        store_u64(word_at(desk, NOTE_COLUMN), column)
        return uint64(_BROKEN)
    verdict = _bound_values(table, user, stripe, entry, search, leaf)
    return uint64(UNKNOWN) if verdict == uint64(ALL) and entry_has_nulls(entry) else verdict


@kernel
def _bound_values(table: Any, user: Any, stripe: Any, entry: Any, search: Any, leaf: Any) -> Any:
    """Whether none or all of the values that a stripe can hold lie in the leaf's intervals. Its block is verified."""
    mode = entry_mode(entry)
    if mode == uint64(RAW):
        return uint64(UNKNOWN)
    if mode == uint64(POSITIONS):
        if entry_exceptions(entry):
            return uint64(UNKNOWN)
        return uint64(ALL) if table_field(leaf, FLAGS) & uint64(FALSE_COUNTS) else uint64(NONE)
    if mode == uint64(DELTA):
        if stripe + uint64(1) >= user_stripes(table, user):
            return uint64(UNKNOWN)
        low = uint64(first_ts(table, user, stripe))
        return compare_arc(_intervals(search), leaf, low, uint64(first_ts(table, user, stripe + uint64(1))) - low)
    return _bound_packed(table, user, stripe, entry, search, leaf)


@kernel
def _bound_packed(table: Any, user: Any, stripe: Any, entry: Any, search: Any, leaf: Any) -> Any:
    """`_bound_values` of what is packed."""
    every, width, exceptions = every_bit(table_field(leaf, ITEMSIZE)), entry_width(entry), entry_exceptions(entry)
    if exceptions:
        width += uint64(8) << entry_size_code(entry)
    if width >= uint64(64):
        return uint64(UNKNOWN)
    low, span = uint64(0), (uint64(1) << width) - uint64(1)
    payload = table_field(table, PAYLOAD)
    at = payload + entry_offset(entry) + bitmap_bytes(entry, stripe_events(table, user, stripe))
    if entry_mode(entry) == uint64(SCALED) and span:
        factor = load_u64(at + uint64(8))
        if factor > every // span:
            return uint64(UNKNOWN)
        span *= factor
    if span > every:
        return uint64(UNKNOWN)
    if entry_has_reference(entry):
        low = load_u64(at) & every
    verdict = compare_arc(_intervals(search), leaf, low, span)
    if verdict == uint64(UNKNOWN):
        return verdict
    if exceptions:  # where a place stands twice, its value is beyond the width
        behind = load_u64(word_at(first_entry(table, user, table_field(leaf, COLUMN)), stripe) + uint64(8))
        if not ascend(payload + entry_offset(behind) - exceptions, exceptions):
            return uint64(UNKNOWN)
    is_coded = table_field(leaf, FLAGS) & uint64(CODED)
    if is_coded and verdict == uint64(NONE) and low + span >= table_field(leaf, LIMIT):
        return uint64(UNKNOWN)  # perhaps a code without a value, and whether that meets the condition nobody knows
    return verdict


@kernel
def _look(table: Any, user: Any, stripe: Any, search: Any, leaf: Any, verify: Any, desk: Any, mask: Any) -> Any:
    """Write a leaf's mask."""
    kind, column = table_field(leaf, KIND), table_field(leaf, COLUMN)
    if kind >= uint64(NEVER):
        _fill(mask, ~uint64(0) if kind == uint64(ALWAYS) else uint64(0))
        return uint64(0)
    place = word_at(first_entry(table, user, column), stripe)
    entry = load_u64(place)
    all_null, nulls = entry_mode(entry) == uint64(NULLS), entry_has_nulls(entry)
    if all_null or (kind == uint64(IS_NULL) and not nulls):
        _fill(mask, ~uint64(0) if all_null and kind == uint64(IS_NULL) else uint64(0))
        return uint64(0)
    if verify and verify_block(table, user, column, stripe):
        store_u64(word_at(desk, NOTE_COLUMN), column)
        return uint64(DAMAGED)
    payload = table_field(table, PAYLOAD) + entry_offset(entry)
    if kind == uint64(IS_NULL):
        copy_bytes(mask, payload, uint64(8 * WORDS))  # past its end, where the stripe is short: the payload is padded
        return uint64(0)
    verdict = _bound_values(table, user, stripe, entry, search, leaf)
    if verdict != uint64(UNKNOWN):
        _fill(mask, ~uint64(0) if verdict == uint64(ALL) else uint64(0))
    else:
        _note(desk, entry_offset(load_u64(place + uint64(8))) - entry_offset(entry))
        if entry_mode(entry) == uint64(POSITIONS):
            at = payload + bitmap_bytes(entry, stripe_events(table, user, stripe))
            _mark_positions(at, entry_exceptions(entry), table_field(leaf, FLAGS), mask)
        elif _match_values(table, user, stripe, entry, search, leaf, desk, mask):
            store_u64(word_at(desk, NOTE_COLUMN), column)
            return uint64(BEYOND)
    if nulls:
        for i in range(WORDS):
            store_u64(word_at(mask, i), load_u64(word_at(mask, i)) & ~load_u64(word_at(payload, i)))
    return uint64(0)


@kernel
def _note(desk: Any, size_bytes: Any) -> None:
    stripes, total = word_at(desk, NOTE_STRIPES), word_at(desk, NOTE_BYTES)
    store_u64(stripes, load_u64(stripes) + uint64(1))
    store_u64(total, load_u64(total) + size_bytes)


@kernel
def _mark_positions(at: Any, count: Any, flags: Any, mask: Any) -> None:
    """The mask of flags that are stored as the places of the true ones."""
    both = uint64(FALSE_COUNTS | TRUE_COUNTS)
    _fill(mask, ~uint64(0) if flags == both else uint64(0))
    if flags == uint64(0) or flags == both:
        return
    for i in range(count):
        place = load_u8(at + uint64(i))
        word = word_at(mask, place >> uint64(6))
        store_u64(word, load_u64(word) | (uint64(1) << (place & uint64(63))))
    if flags == uint64(FALSE_COUNTS):
        for i in range(WORDS):
            store_u64(word_at(mask, i), ~load_u64(word_at(mask, i)))


@kernel
def _match_values(table: Any, user: Any, stripe: Any, entry: Any, search: Any, leaf: Any, desk: Any, mask: Any) -> Any:
    """The mask of values that have to be decoded. Returns: whether one is beyond the leaf's limit."""
    itemsize, slot, events = table_field(leaf, ITEMSIZE), table_field(leaf, SLOT), stripe_events(table, user, stripe)
    room, decoded = (
        word_at(desk, table_field(search, _DESK_ROOM)),
        word_at(desk, table_field(search, _DESK_SLOTS) + slot),
    )
    values = word_at(room, (slot + uint64(1)) * uint64(STRIPE_EVENTS))
    if load_u64(decoded) == uint64(0):
        if entry_mode(entry) == uint64(DELTA):
            sum_steps(table, entry, events, uint64(first_ts(table, user, stripe)), uint64(0), events, room, values)
        else:
            decode_values(table, entry, events, itemsize, uint64(0), events, values)
        store_u64(decoded, uint64(1))
    limit = table_field(leaf, LIMIT)
    if table_field(leaf, FLAGS) & uint64(CODED) and _is_beyond(table, entry, events, limit, values, mask):
        return True
    _fill(mask, uint64(0))
    count = table_field(leaf, JOINED_COUNT)
    if count > uint64(FEW_INTERVALS):
        match_sorted(_intervals(search), leaf, values, events, mask)
        return False
    at = word_at(_intervals(search), table_field(leaf, JOINED) << uint64(1))
    for _ in range(count):
        match_values(itemsize, values, load_u64(at), load_u64(at + uint64(8)), mask)
        at += uint64(16)
    return False


@kernel
def _is_beyond(table: Any, entry: Any, events: Any, limit: Any, codes: Any, mask: Any) -> Any:
    """Whether a code that is not null has no value. The mask is used for it."""
    _fill(mask, uint64(0))
    if limit:
        match_values(uint64(4), codes, uint64(0), limit - uint64(1), mask)
    bitmap = table_field(table, PAYLOAD) + entry_offset(entry)
    for i in range(WORDS):
        beyond = ~load_u64(word_at(mask, i)) & row_bits(uint64(0), events, uint64(i))
        if entry_has_nulls(entry):
            beyond &= ~load_u64(word_at(bitmap, i))
        if beyond:
            return True
    return False


@kernel
def true_places(table: Any, user: Any, stripe: Any, search: Any, verify: Any, desk: Any) -> Any:
    """For one stream of one flag, stored as the places of the true ones, and no nulls: where these are, and how many.

    They ascend.

    Returns: an address, 0 where it is not so and `search_stripe` has to be asked; and the number.
    """
    operation = _operation_at(search, uint64(0))
    leaf = _leaf_at(search, table_field(operation, 1))
    column = table_field(leaf, COLUMN)
    place = word_at(first_entry(table, user, column), stripe)
    entry = load_u64(place)
    if entry_mode(entry) != uint64(POSITIONS) or entry_has_nulls(entry):
        return uint64(0), uint64(0)
    places, count = table_field(table, PAYLOAD) + entry_offset(entry), entry_exceptions(entry)
    if (verify and verify_block(table, user, column, stripe)) or not ascend(places, count):
        return uint64(0), uint64(0)
    _note(desk, count)
    return places, count


@kernel
def seeks_true_places(search: Any) -> Any:
    """Whether `true_places` may be asked: there is one stream, and its condition is that a flag is true."""
    if table_field(search, _STREAMS) != uint64(1) or load_u64(_program_at(search, uint64(1))) != uint64(1):
        return False
    leaf = _leaf_at(search, table_field(_operation_at(search, uint64(0)), 1))
    return table_field(leaf, KIND) == uint64(COMPARES) and table_field(leaf, FLAGS) == uint64(TRUE_COUNTS)
