"""The cache lines that hold some stored values: the least that anything must read that gives them.

Counted too low rather than too high: of a packed value the line of its first word alone, of flags that are stored as places
the first of them, of times, which are sums, what lies before the last one wanted in its stripe. No entry, no record, no
checksum.
"""

from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Located
from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64, prefetch
from latewood.stripes.entries import (
    bitmap_bytes,
    entry_has_reference,
    entry_mode,
    entry_offset,
    entry_width,
    first_entry,
    stripe_events,
    table_field,
    word_shift,
)
from latewood.stripes.layout import DELTA, PACKED, PAYLOAD, RAW, SCALED, STRIPE_EVENTS
from latewood.stripes.stripe import table_at

_LINE = 64
_AHEAD = 24  # lines
_LINES_PER_STRIPE = 40  # more than any column of a stripe takes


def cache_lines_of(
    reader: GenerationReader, located: Located, rows: list[NDArray[np.int64]], columns: list[tuple[int, int]]
) -> NDArray[np.uint64]:
    """The addresses of the lines, user by user, column by column, of which each is there once.

    Args: rows: of each user, ascending. columns: their numbers, and bytes per value.
    """
    found = []
    for shard, user, wanted in zip(*located, rows, strict=True):
        for column, itemsize in columns:
            stripes = len(np.unique(wanted // STRIPE_EVENTS))
            lines = np.empty(stripes * _LINES_PER_STRIPE + len(wanted), np.uint64)
            count = _find(reader.tables.rows, int(shard), int(user), column, itemsize, wanted, lines)
            found.append(np.unique(lines[:count]))  # words that cross a line are met more than once
    return np.concatenate(found)


@kernel
def touch_cache_lines(lines: Any) -> Any:
    """Read a word of every line, each asked for ahead. Returns: a sum, so that it is done."""
    total = uint64(0)
    for i in range(len(lines)):
        if i + _AHEAD < len(lines):
            prefetch(lines[i + _AHEAD])
        total += load_u64(lines[i])
    return total


@kernel
def _find(tables: Any, shard: Any, user: Any, column: Any, itemsize: Any, rows: Any, lines: Any) -> Any:
    """The lines of a column of one user. Returns: how many there are."""
    table = table_at(tables, shard)
    entries, payload = first_entry(table, uint64(user), uint64(column)), table_field(table, PAYLOAD)
    count, i = 0, 0
    while i < len(rows):
        stripe = uint64(rows[i]) // uint64(STRIPE_EVENTS)
        entry = load_u64(entries + (stripe << uint64(3)))
        mode, width = entry_mode(entry), entry_width(entry)
        shift = word_shift(uint64(itemsize), width)
        lanes = uint64(256) >> shift
        at = payload + entry_offset(entry) + bitmap_bytes(entry, stripe_events(table, uint64(user), stripe))
        if mode == uint64(SCALED):
            at += uint64(16)
        elif (mode == uint64(PACKED) or mode == uint64(DELTA)) and entry_has_reference(entry):
            at += uint64(8)
        last = ~uint64(0)
        first_of_stripe = at & ~uint64(_LINE - 1)
        while i < len(rows) and uint64(rows[i]) // uint64(STRIPE_EVENTS) == stripe:
            row = uint64(rows[i]) % uint64(STRIPE_EVENTS)
            place = at
            if mode == uint64(RAW):
                place = at + row * uint64(itemsize)
            elif mode == uint64(PACKED) or mode == uint64(SCALED) or mode == uint64(DELTA):
                word = ((row // lanes) * width) >> shift
                place = at + (word << uint64(5)) + (((row % lanes) << shift) >> uint64(3))
            line = place & ~uint64(_LINE - 1)
            if mode == uint64(DELTA):  # a sum of all before
                if last == ~uint64(0):
                    last = first_of_stripe - uint64(_LINE)
                while last < line:
                    last += uint64(_LINE)
                    lines[count] = last
                    count += 1
            elif line != last:
                lines[count] = line
                count += 1
                last = line
            i += 1
    return count
