"""Find: the events that streams hold, from the newest backwards, as far as is needed and no further.

Think of leafing through a diary from its last page for the last thousand entries of a kind: pages that hold none are
turned, and at the thousandth one stops. Recent events come first, then stored rows, stripe by stripe; where recents
lie among stored rows, they are met where they belong. Nothing but what conditions look at is decoded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.lists import offsets_of
from latewood.materialize.choose import NO_LIMIT, Candidates
from latewood.stripes.addresses import bit_length
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.search import (
    DAMAGED,
    NOTE_BYTES,
    NOTE_COLUMN,
    NOTE_STRIPE,
    NOTE_STRIPES,
    WORDS,
    Search,
    row_bits,
    search_stripe,
    stream_mask,
)
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import table_at

# What is known of an example while it is gone through: which stripe's masks lie on the desk, how many events were found,
# how many streams want more.
_STRIPE, _FOUND, _OPEN = range(3)
_NO_STRIPE = -1


class BeyondError(Exception):
    """A column has a code without a value. Attributes: column: its number among the shards' columns."""

    def __init__(self, column: int) -> None:
        super().__init__(column)
        self.column = column


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The events that some stream holds, oldest first within each example.

    Shapes: offsets (n + 1,); source, bits (k,). A source is a row of the example's user, or, with all bits inverted (so:
    negative), one of the batch's recent events. Bit i of `bits`: the i-th stream holds it.
    """

    offsets: NDArray[np.int64]
    source: NDArray[np.int64]
    bits: NDArray[np.int64]
    stripe_count: int  # looked into
    size_bytes: int


def find_events(
    tables: Tables,
    candidates: Candidates,
    merged: tuple[NDArray[np.int64], NDArray[np.int64]],
    search: Search,
    counts: NDArray[np.int64],
    recent_bits: NDArray[np.int64],
    max_len: int | None,
    verify: bool,
) -> Found:
    """The newest events of each stream, and of all together the newest `max_len`.

    Args:
        merged: what `merge_places` says.
        counts: of each stream. recent_bits: of every recent event of the batch, whose streams' conditions it meets.
    Raises: CorruptionError: a damaged block. BeyondError.
    """
    lengths, n = np.diff(candidates.offsets), len(candidates.stored_count)
    limit = int(NO_LIMIT) if max_len is None else max_len
    room = np.minimum(np.minimum(lengths, min(int(counts.sum(dtype=np.float64)), int(NO_LIMIT))), limit)
    bounds = offsets_of(room)
    out = np.empty((2, bounds[-1]), np.int64)
    found, desk = np.zeros(n, np.int64), search.desk()
    runs = candidates.runs
    status = _find(
        tables.rows,
        (candidates.rows.shard, candidates.rows.user, lengths),
        (candidates.stored_count, runs.offsets, runs.start, runs.before),
        (candidates.recent_stop, candidates.recent_count, *merged, recent_bits),
        search.arrays(),
        counts,
        limit,
        bounds,
        out,
        found,
        verify,
        desk,
    )
    if status:
        example, column = int(found[0]), int(desk[NOTE_COLUMN])
        if status != DAMAGED:
            raise BeyondError(column)
        shard, user = int(candidates.rows.shard[example]), int(candidates.rows.user[example])
        raise tables.damage(shard, user, column, int(desk[NOTE_STRIPE]))
    offsets = offsets_of(found)
    if offsets[-1] < bounds[-1]:
        packed = np.empty((2, offsets[-1]), np.int64)
        _pack(bounds, offsets, out, packed)
        out = packed
    return Found(offsets, out[0], out[1], int(desk[NOTE_STRIPES]), int(desk[NOTE_BYTES]))


@kernel
def _find(
    tables: Any,
    examples: Any,
    stored: Any,
    recent: Any,
    search: Any,
    counts: Any,
    limit: int,
    bounds: Any,
    out: Any,
    found: Any,
    verify: Any,
    desk: Any,
) -> int:
    """Go through every example. Returns: 0, or what is wrong, and in `found[0]` with which."""
    shard, user, lengths = examples
    state, left = np.zeros(3, np.int64), np.zeros(len(counts), np.int64)
    for i in range(len(lengths)):
        left[:] = counts
        state[_STRIPE], state[_FOUND], state[_OPEN] = _NO_STRIPE, 0, (counts > 0).sum()
        end, most = bounds[i + 1], min(limit, bounds[i + 1] - bounds[i])
        if most and state[_OPEN]:
            status = _go_back(
                tables, shard[i], user[i], i, lengths[i], stored, recent, search, left, end, most, out, verify, desk,
                state,
            )  # fmt: skip
            if status:
                found[0] = i
                return status
        found[i] = state[_FOUND]
    return 0


@kernel
def _go_back(
    tables: Any,
    shard: int,
    user: int,
    i: int,
    length: int,
    stored: Any,
    recent: Any,
    search: Any,
    left: Any,
    end: int,
    most: int,
    out: Any,
    verify: Any,
    desk: Any,
    state: Any,
) -> int:
    """One example, from its newest event back over `length` of them."""
    stored_count, run_offsets, run_start, run_before = stored
    recent_stop, recent_count, place_offsets, places, recent_bits = recent
    k, j, run = stored_count[i], recent_count[i], run_offsets[i + 1] - 1  # stored and recent candidates to come
    merging = place_offsets[i + 1] > place_offsets[i]
    while length > 0 and state[_FOUND] < most and state[_OPEN] > 0:
        until = 0
        if j:
            until = places[place_offsets[i] + j - 1] if merging else stored_count[i]
        if k > until:  # those of one run
            while run_before[run] >= k:
                run -= 1
            first = max(until, k - length, run_before[run])
            row = run_start[run] - run_before[run]
            status = _take_rows(
                tables, shard, user, row + first, row + k, search, left, end, most, out, verify, desk, state
            )
            if status:
                return status
            length, k = length - (k - first), first
        elif j:
            j -= 1
            length -= 1
            at = recent_stop[i] - recent_count[i] + j
            _take_recent(at, recent_bits[at], left, end, out, state)
        else:
            return 0
    return 0


@kernel
def _take_recent(at: int, bits: int, left: Any, end: int, out: Any, state: Any) -> None:
    kept = 0
    for stream in range(len(left)):
        if bits >> stream & 1 and left[stream] > 0:
            kept |= 1 << stream
            left[stream] -= 1
            state[_OPEN] -= left[stream] == 0
    if kept:
        state[_FOUND] += 1
        out[0, end - state[_FOUND]], out[1, end - state[_FOUND]] = ~at, kept


@kernel
def _take_rows(
    tables: Any,
    shard: int,
    user: int,
    start: int,
    stop: int,
    search: Any,
    left: Any,
    end: int,
    most: int,
    out: Any,
    verify: Any,
    desk: Any,
    state: Any,
) -> int:
    """Rows [start, stop) of a user, backwards, until nothing more is wanted."""
    table = table_at(tables, shard)
    while stop > start and state[_FOUND] < most and state[_OPEN] > 0:
        stripe = (stop - 1) // STRIPE_EVENTS
        first = stripe * STRIPE_EVENTS
        if state[_STRIPE] != stripe:  # runs may share one
            status = search_stripe(table, uint64(user), uint64(stripe), search, verify, desk)
            if status:
                return status
            state[_STRIPE] = stripe
        begin = max(start, first)
        _take_masked(first, uint64(begin - first), uint64(stop - first), search, left, end, most, out, desk, state)
        stop = begin
    return 0


@kernel
def _take_masked(
    first: int,
    begin: Any,
    stop: Any,
    search: Any,
    left: Any,
    end: int,
    most: int,
    out: Any,
    desk: Any,
    state: Any,
) -> None:
    """The rows [begin, stop) of a stripe, whose masks lie on the desk and whose first row is `first`."""
    for step in range(WORDS):
        word = WORDS - 1 - step
        visible, union = row_bits(begin, stop, uint64(word)), uint64(0)
        if visible == uint64(0):
            continue
        for stream in range(len(left)):
            bits = desk[stream_mask(search, stream) + word] & visible
            if bits and left[stream]:
                union |= bits
        while union:
            place = bit_length(union) - uint64(1)
            union &= ~(uint64(1) << place)
            kept = 0
            for stream in range(len(left)):
                if (desk[stream_mask(search, stream) + word] >> place) & uint64(1) and left[stream]:
                    kept |= 1 << stream
                    left[stream] -= 1
                    state[_OPEN] -= left[stream] == 0
            if kept:
                state[_FOUND] += 1
                at = end - state[_FOUND]
                out[0, at], out[1, at] = first + (word << 6) + int64(place), kept
                if state[_FOUND] == most or state[_OPEN] == 0:
                    return


@kernel
def _pack(bounds: Any, offsets: Any, source: Any, target: Any) -> None:
    """What was found at the end of each example's room, back to back."""
    for i in range(len(offsets) - 1):
        count = offsets[i + 1] - offsets[i]
        for part in range(2):
            target[part, offsets[i] : offsets[i + 1]] = source[part, bounds[i + 1] - count : bounds[i + 1]]
