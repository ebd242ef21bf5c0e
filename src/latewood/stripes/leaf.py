"""A leaf: one comparison, as intervals of the bits that its column stores, and how values are held against them.

A leaf is a row of words. It names its intervals twice: `apart`, ascending, and `joined`, where one may run past the largest
value to the smallest. Each is a low end and a span.
"""

from typing import Any

from numba import uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64, store_u64
from latewood.stripes.entries import table_field

FEW_INTERVALS = 16  # more are searched through value by value

COLUMN, ITEMSIZE, SLOT, KIND, FLAGS, LIMIT, APART, APART_COUNT, JOINED, JOINED_COUNT = range(10)
LEAF_FIELDS = 10
COMPARES, IS_NULL, NEVER, ALWAYS = range(4)  # kinds of leaves
# Flags of a leaf: whether a 0 meets it, and a 1; whether its values are codes, of which LIMIT have a value.
FALSE_COUNTS, TRUE_COUNTS, CODED = 1, 2, 4

NONE, ALL, UNKNOWN = range(3)  # how many rows meet a leaf, as far as it is known without them


@kernel
def word_at(address: Any, word: Any) -> Any:
    """The address of a word behind an address."""
    return address + (uint64(word) << uint64(3))


@kernel
def _interval_at(intervals: Any, interval: Any) -> Any:
    return word_at(intervals, interval << uint64(1))


@kernel
def every_bit(itemsize: Any) -> Any:
    """All bits of a value."""
    return ~uint64(0) >> (uint64(64) - (itemsize << uint64(3)))


@kernel
def compare_arc(intervals: Any, leaf: Any, low: Any, span: Any) -> Any:
    """Whether the values from `low` on, up to `span` further, lie in none of a leaf's intervals, or in one of them."""
    every, count = every_bit(table_field(leaf, ITEMSIZE)), table_field(leaf, JOINED_COUNT)
    if count > uint64(FEW_INTERVALS):
        return _compare_sorted(intervals, leaf, low, span, every)
    touched, at = False, _interval_at(intervals, table_field(leaf, JOINED))
    for _ in range(count):
        first, length = load_u64(at), load_u64(at + uint64(8))
        behind = (low - first) & every  # how far the arc begins behind the interval's beginning
        if behind <= length and span <= length - behind:
            return uint64(ALL)
        touched |= behind <= length or ((first - low) & every) <= span
        at += uint64(16)
    return uint64(UNKNOWN) if touched else uint64(NONE)


@kernel
def _compare_sorted(intervals: Any, leaf: Any, low: Any, span: Any, every: Any) -> Any:
    if span > every - low:
        return uint64(UNKNOWN)
    at = _last_interval(intervals, leaf, low + span)
    if at == uint64(0) or load_u64(at) + load_u64(at + uint64(8)) < low:
        return uint64(NONE)
    inside = load_u64(at) <= low and load_u64(at) + load_u64(at + uint64(8)) >= low + span
    return uint64(ALL) if inside else uint64(UNKNOWN)


@kernel
def _last_interval(intervals: Any, leaf: Any, value: Any) -> Any:
    """Where the last of a leaf's intervals is that begins at a value or before; 0 if none does."""
    first = table_field(leaf, APART)
    low, high = first, first + table_field(leaf, APART_COUNT)
    while low < high:
        middle = (low + high) >> uint64(1)
        if load_u64(_interval_at(intervals, middle)) <= value:
            low = middle + uint64(1)
        else:
            high = middle
    return _interval_at(intervals, low - uint64(1)) if low > first else uint64(0)


@kernel
def match_sorted(intervals: Any, leaf: Any, values: Any, events: Any, mask: Any) -> None:
    """Set the bits of the values that lie in a leaf's intervals: for many of these, which each value is looked up in.

    Up to seven bytes past the last value are read.
    """
    itemsize = table_field(leaf, ITEMSIZE)
    every = every_bit(itemsize)
    for i in range(events):
        row = uint64(i)
        value = load_u64(values + row * itemsize) & every
        at = _last_interval(intervals, leaf, value)
        if at and value - load_u64(at) <= load_u64(at + uint64(8)):
            word = word_at(mask, row >> uint64(6))
            store_u64(word, load_u64(word) | (uint64(1) << (row & uint64(63))))
