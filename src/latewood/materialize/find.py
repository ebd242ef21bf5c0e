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
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import NO_LIMIT, Candidates
from latewood.stripes.addresses import address_of, bit_length, load_u8, load_u64, store_u64
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.match import row_bits
from latewood.stripes.search import (
    DAMAGED,
    NOTE_BYTES,
    NOTE_COLUMN,
    NOTE_STRIPE,
    NOTE_STRIPES,
    WORDS,
    Search,
    search_stripe,
    seeks_true_places,
    stream_mask,
    true_places,
)
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import table_at

# What is known of an example while it is gone through: how many events were found, how many streams want more, which
# stripe's masks lie on the desk; then how many events each stream wants still.
_FOUND, _OPEN, _STRIPE, _LEFT = range(4)
_NO_STRIPE = 2**64 - 1


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
    pool: BufferPool,
) -> Found:
    """The newest events of each stream, and of all together the newest `max_len`.

    Args:
        merged: what `merge` says.
        counts: of each stream. recent_bits: of every recent event of the batch, whose streams' conditions it meets.
    Raises: CorruptionError: a damaged block. BeyondError.
    """
    lengths, n = np.diff(candidates.offsets), len(candidates.stored_count)
    limit = int(NO_LIMIT) if max_len is None else max_len
    room = np.minimum(np.minimum(lengths, min(int(counts.sum(dtype=np.float64)), int(NO_LIMIT))), limit)
    bounds = offsets_of(room)
    out = pool.empty(2 * int(bounds[-1]), np.int64).reshape(2, -1)
    found, desk, state = np.zeros(n, np.int64), search.desk(), np.zeros(_LEFT + len(counts), np.uint64)
    runs = candidates.runs
    status = _find(
        tables.rows,
        (candidates.rows.shard, candidates.rows.user, lengths),
        (candidates.stored_count, runs.offsets, runs.start, runs.before),
        (candidates.recent_stop, candidates.recent_count, *merged, recent_bits),
        (counts, limit, verify),
        bounds,
        found,
        search.words,
        desk,
        state,
        *out,
    )
    if status:
        example, column = int(found[0]), int(desk[NOTE_COLUMN])
        if status != DAMAGED:
            raise BeyondError(column)
        shard, user = int(candidates.rows.shard[example]), int(candidates.rows.user[example])
        raise tables.damage(shard, user, column, int(desk[NOTE_STRIPE]))
    offsets = offsets_of(found)
    if offsets[-1] < bounds[-1]:
        packed = pool.empty(2 * int(offsets[-1]), np.int64).reshape(2, -1)
        _pack(bounds, offsets, out, packed)
        out = packed
    return Found(offsets, out[0], out[1], int(desk[NOTE_STRIPES]), int(desk[NOTE_BYTES]))


@kernel
def _find(
    tables: Any,
    examples: Any,
    stored: Any,
    recent: Any,
    wanted: Any,
    bounds: Any,
    found: Any,
    words: Any,
    desk: Any,
    state: Any,
    source: Any,
    bits: Any,
) -> int:
    """Go through every example. Returns: 0, or what is wrong, and in `found[0]` with which.

    Args: words, desk, state, source, bits: named by their addresses from here on, so the caller keeps them.
    """
    shard, user, lengths = examples
    counts, limit, verify = wanted
    search = address_of(words)
    asks = (search, address_of(desk), address_of(state), uint64(len(counts)), verify, seeks_true_places(search))
    for i in range(len(lengths)):
        state[_FOUND], state[_OPEN], state[_STRIPE] = 0, 0, _NO_STRIPE
        for stream in range(len(counts)):
            state[_LEFT + stream] = counts[stream]
            state[_OPEN] += counts[stream] > 0
        most = min(limit, bounds[i + 1] - bounds[i])
        if most and state[_OPEN]:
            ends = (
                uint64(most),
                address_of(source) + uint64(8 * bounds[i + 1]),
                address_of(bits) + uint64(8 * bounds[i + 1]),
            )
            status = _go_back(table_at(tables, shard[i]), uint64(user[i]), i, lengths[i], stored, recent, asks, ends)
            if status:
                found[0] = i
                return status
        found[i] = state[_FOUND]
    return 0


@kernel
def _go_back(table: Any, user: Any, i: int, length: int, stored: Any, recent: Any, asks: Any, ends: Any) -> int:
    """One example, from its newest event back over `length` of them."""
    stored_count, run_offsets, run_start, run_before = stored
    recent_stop, recent_count, place_offsets, places, recent_bits = recent
    k, j, run = stored_count[i], recent_count[i], run_offsets[i + 1] - 1  # stored and recent candidates to come
    merging = place_offsets[i + 1] > place_offsets[i]
    while length > 0 and _wants_more(asks, ends):
        until = 0
        if j:
            until = places[place_offsets[i] + j - 1] if merging else stored_count[i]
        if k > until:  # those of one run
            while run_before[run] >= k:
                run -= 1
            first = max(until, k - length, run_before[run])
            row = run_start[run] - run_before[run]
            status = _take_rows(table, user, uint64(row + first), uint64(row + k), asks, ends)
            if status:
                return status
            length, k = length - (k - first), first
        elif j:
            j -= 1
            length -= 1
            at = recent_stop[i] - recent_count[i] + j
            _take(~uint64(at), uint64(recent_bits[at]), asks, ends)
        else:
            return 0
    return 0


@kernel
def _wants_more(asks: Any, ends: Any) -> Any:
    _, _, state, _, _, _ = asks
    most, _, _ = ends
    return load_u64(state) < most and load_u64(state + uint64(8 * _OPEN)) > uint64(0)


@kernel
def _take(source: Any, bits: Any, asks: Any, ends: Any) -> None:
    """Take an event for those streams of `bits` that want more."""
    _, _, state, streams, _, _ = asks
    _, sources, streams_of = ends
    kept = uint64(0)
    for stream in range(streams):
        left = state + ((uint64(_LEFT) + stream) << uint64(3))
        if (bits >> stream) & uint64(1) and load_u64(left):
            kept |= uint64(1) << stream
            store_u64(left, load_u64(left) - uint64(1))
            if load_u64(left) == uint64(0):
                open_ = state + uint64(8 * _OPEN)
                store_u64(open_, load_u64(open_) - uint64(1))
    if kept:
        found = load_u64(state) + uint64(1)
        store_u64(state, found)
        store_u64(sources - (found << uint64(3)), source)
        store_u64(streams_of - (found << uint64(3)), kept)


@kernel
def _take_rows(table: Any, user: Any, start: Any, stop: Any, asks: Any, ends: Any) -> int:
    """Rows [start, stop) of a user, backwards, until nothing more is wanted."""
    search, desk, state, _, verify, flags = asks
    size = uint64(STRIPE_EVENTS)
    while stop > start and _wants_more(asks, ends):
        stripe = (stop - uint64(1)) // size
        first = stripe * size
        begin = max(start, first)
        at, count = uint64(0), uint64(0)
        if flags:
            at, count = true_places(table, user, stripe, search, verify, desk)
        if at:
            _take_places(at, count, first, begin, stop, asks, ends)
        else:
            if load_u64(state + uint64(8 * _STRIPE)) != stripe:  # runs may share one
                status = search_stripe(table, user, stripe, search, verify, desk)
                if status:
                    return int64(status)
                store_u64(state + uint64(8 * _STRIPE), stripe)
            _take_masked(first, begin - first, stop - first, asks, ends)
        stop = begin
    return 0


@kernel
def _take_places(at: Any, count: Any, first: Any, start: Any, stop: Any, asks: Any, ends: Any) -> None:
    """For one stream, the rows [start, stop) at given places of a stripe, which ascend."""
    _, _, state, _, _, _ = asks
    most, sources, streams_of = ends
    found = load_u64(state)
    left = state + uint64(8 * _LEFT)
    most = min(most, found + load_u64(left))
    now, i = found, count
    while i > uint64(0) and now < most:
        i -= uint64(1)
        row = first + load_u8(at + i)
        if row < start:
            break
        if row < stop:
            now += uint64(1)
            store_u64(sources - (now << uint64(3)), row)
            store_u64(streams_of - (now << uint64(3)), uint64(1))
    store_u64(state, now)
    store_u64(left, load_u64(left) - (now - found))
    if load_u64(left) == uint64(0):
        store_u64(state + uint64(8 * _OPEN), uint64(0))


@kernel
def _take_masked(first: Any, start: Any, stop: Any, asks: Any, ends: Any) -> None:
    """The rows [start, stop) of a stripe, whose masks lie on the desk and whose first row is `first`."""
    search, desk, _, streams, _, _ = asks
    for step in range(WORDS):
        word = uint64(WORDS - 1 - step)
        visible, union = row_bits(start, stop, word), uint64(0)
        if visible == uint64(0):
            continue
        for stream in range(streams):
            union |= load_u64(stream_mask(search, uint64(stream), desk) + (word << uint64(3)))
        union &= visible
        while union:
            place = bit_length(union) - uint64(1)
            union &= ~(uint64(1) << place)
            bits = uint64(1)
            if streams > uint64(1):
                bits = uint64(0)
                for stream in range(streams):
                    mask = load_u64(stream_mask(search, uint64(stream), desk) + (word << uint64(3)))
                    bits |= ((mask >> place) & uint64(1)) << uint64(stream)
            _take(first + (word << uint64(6)) + place, bits, asks, ends)
            if not _wants_more(asks, ends):
                return


@kernel
def _pack(bounds: Any, offsets: Any, source: Any, target: Any) -> None:
    """What was found at the end of each example's room, back to back."""
    for i in range(len(offsets) - 1):
        count = offsets[i + 1] - offsets[i]
        for part in range(2):
            target[part, offsets[i] : offsets[i + 1]] = source[part, bounds[i + 1] - count : bounds[i + 1]]
