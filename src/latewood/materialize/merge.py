"""Merge: where recent events belong among stored ones (docs/protocol.md R4), where they do not just follow.

A recent event can be older than a stored one: it happened early, arrived late, and no compaction has seen it yet.
Its place follows from its rank, which is found as the example's pointer is looked up, in a stripe that has to be decoded
there anyway. Where nobody looked, because the recents were not read yet or because they suppress stored events, the total
order of these is decoded here, three columns that nobody asked for: only for examples whose oldest recent is not past the
last stored event, only from the stripe on in which it may belong, and all but their times only where those are equal.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.immutable import GenerationReader
from latewood.kernels import kernel
from latewood.materialize.choose import Candidates
from latewood.materialize.recents import Recents, is_before
from latewood.stripes.decode import decode_column, decode_described
from latewood.stripes.entries import first_ts
from latewood.stripes.layout import DELAY, EVENT_TS, ORDINAL, STRIPE_EVENTS
from latewood.stripes.runs import Ranges
from latewood.stripes.stripe import table_at


class Merged(NamedTuple):
    """Of the recent candidates of examples that merge, how many stored candidates sort before each.

    Shapes: offsets (n + 1,), with an empty stretch for examples that do not merge; places (offsets[-1],).
    """

    offsets: NDArray[np.int64]
    places: NDArray[np.int64]


def merge(
    reader: GenerationReader,
    candidates: Candidates,
    recents: Recents,
    stored: NDArray[np.int64],
    ranks: NDArray[np.int64] | None,
    verify: bool,
) -> Merged:
    """Where the recent candidates of the examples that merge belong.

    Args: stored, ranks: (n,), (r,): of how many stored events of an example, candidates or not, and how many of them sort
        before each recent event; None where that is not known.
    """
    offsets = np.zeros(len(candidates.stored_count) + 1, np.int64)
    if not len(candidates.merging):
        return Merged(offsets, np.zeros(0, np.int64))
    if ranks is None:
        return _search_places(reader, candidates, recents, offsets, verify)
    places = np.empty(len(ranks), np.int64)
    counts = candidates.recent_stop, candidates.recent_count, candidates.stored_count, stored
    count = _places_of_ranks(candidates.merging, counts, ranks, offsets, places)
    return Merged(offsets, places[:count])


def ranks_of(candidates: Candidates, stored: NDArray[np.int64], merged: Merged, count: int) -> NDArray[np.int64]:
    """The ranks of `count` recent events, of which the candidates were merged."""
    ranks = np.empty(count, np.int64)
    _ranks_of_places(candidates.recent_stop, candidates.recent_count, candidates.stored_count, stored, *merged, ranks)
    return ranks


def _search_places(
    reader: GenerationReader, candidates: Candidates, recents: Recents, offsets: NDArray[np.int64], verify: bool
) -> Merged:
    """`merge`, by what is stored."""
    merging = candidates.merging
    ranges, known_offsets = np.empty((5, len(merging)), np.int64), np.empty(len(merging) + 1, np.int64)
    of_recents = (candidates.recent_stop, candidates.recent_count, recents.order)
    _lay_out(reader.tables.rows, tuple(candidates.rows), merging, of_recents, offsets, known_offsets, ranges)
    known = np.empty((3, known_offsets[-1]), np.int64)
    times = np.array([(EVENT_TS, known.itemsize, known.ctypes.data, 0, 0)], np.uint64)
    decode_described(reader.tables, ranges, times, known.shape[1], verify)
    stored = (candidates.stored_count, candidates.runs.offsets, candidates.runs.start, candidates.before)
    places, tied = np.empty(offsets[-1], np.int64), np.zeros(len(merging), np.bool_)
    examples, of_stored = (merging, *stored), (ranges[2], known_offsets, known)
    _places(examples, of_recents, of_stored, places, tied, False)
    if tied.any():  # else their times alone say which comes first
        _decode_rest(reader, ranges[:, tied], known, verify)
        _places(examples, of_recents, of_stored, places, tied, True)
    return Merged(offsets, places)


@kernel
def _places_of_ranks(merging: Any, counts: Any, ranks: Any, offsets: Any, places: Any) -> int:
    """Returns: how many places there are."""
    recent_stop, recent_count, stored_count, stored = counts
    for k in range(len(merging)):
        offsets[merging[k] + 1] = recent_count[merging[k]]
    for i in range(len(stored_count)):
        at, skipped = offsets[i], stored[i] - stored_count[i]
        offsets[i + 1] += at
        for place in range(at, offsets[i + 1]):
            rank = ranks[recent_stop[i] - recent_count[i] + place - at]
            places[place] = max(rank - skipped, 0)
    return int(offsets[len(stored_count)])


@kernel
def _ranks_of_places(
    recent_stop: Any, recent_count: Any, stored_count: Any, stored: Any, offsets: Any, places: Any, ranks: Any
) -> None:
    """Those of recent events that are no candidates are 0: they are older."""
    ranks[:] = 0
    for i in range(len(stored)):
        first, skipped = recent_stop[i] - recent_count[i], stored[i] - stored_count[i]
        for j in range(recent_count[i]):
            at = offsets[i] + j
            ranks[first + j] = skipped + places[at] if at < offsets[i + 1] else stored[i]


def _decode_rest(reader: GenerationReader, matrix: NDArray[np.int64], known: NDArray[np.int64], verify: bool) -> None:
    """Complete the order of some rows, of which the times are known; that of the others comes to mean nothing.

    Shapes: matrix (5, ranges), as of `Ranges`; known (3, rows): event_ts, and then ingest_ts and ordinal.
    """
    ranges, ordinals = Ranges.of(matrix), np.zeros(known.shape[1], np.int32)
    decode_column(reader.tables, ranges, DELAY, known[1], None, verify)
    decode_column(reader.tables, ranges, ORDINAL, ordinals, None, verify)
    known[1] += known[0]
    known[2] = ordinals


@kernel
def _lay_out(tables: Any, rows: Any, merging: Any, recent: Any, offsets: Any, known_offsets: Any, ranges: Any) -> None:
    """Which rows of the examples that merge may lie among recent events, back to back, and how many recents there are.

    Rows before those sort before every recent. Shapes: offsets (n + 1,), of zeros; known_offsets (k + 1,); ranges (5, k).
    """
    shard, user, start, stop = rows
    recent_stop, recent_count, order = recent
    known_offsets[0] = 0
    for k in range(len(merging)):
        i = merging[k]
        offsets[i + 1] = recent_count[i]
        oldest = order[0, recent_stop[i] - recent_count[i]]
        first = _row_from(tables, shard[i], user[i], start[i], stop[i], oldest)
        ranges[0, k], ranges[1, k], ranges[2, k], ranges[3, k] = shard[i], user[i], first, stop[i]
        ranges[4, k] = known_offsets[k]
        known_offsets[k + 1] = known_offsets[k] + stop[i] - first
    for i in range(len(start)):
        offsets[i + 1] += offsets[i]


@kernel
def _row_from(tables: Any, shard: int, user: int, start: int, stop: int, event_ts: int) -> int:
    """The row of a stretch [start, stop) from which on a row can be of `event_ts` or later.

    That is in the stripe before the first one that begins at `event_ts` or later, for equal times may cross stripes.
    """
    table = table_at(tables, shard)
    low, high = start // STRIPE_EVENTS, (stop - 1) // STRIPE_EVENTS + 1
    while low < high:
        middle = (low + high) // 2
        if first_ts(table, uint64(user), uint64(middle)) < event_ts:
            low = middle + 1
        else:
            high = middle
    return int(max(start, (low - 1) * STRIPE_EVENTS))


@kernel
def _places(examples: Any, recent: Any, stored: Any, out: Any, tied: Any, only_tied: bool) -> None:
    """`merge`, example by example. Rows before `known_start` sort before every recent.

    Notes in `tied` the examples of which a recent event is as old as a stored one. Args: only_tied: those alone, of which
    the whole order is known.
    """
    merging, stored_count, run_offsets, run_start, run_before = examples
    known_start, known_offsets, known = stored
    recent_stop, recent_count, recents = recent
    at = 0
    for index in range(len(merging)):
        i = merging[index]
        if only_tied and not tied[index]:
            at += recent_count[i]
            continue
        low = 0
        for j in range(recent_stop[i] - recent_count[i], recent_stop[i]):
            high = stored_count[i]
            while low < high:
                middle = (low + high) // 2
                run = _run_of(run_before, run_offsets[i], run_offsets[i + 1], middle)
                row = run_start[run] + middle - run_before[run]
                k = known_offsets[index] + row - known_start[index]
                if row < known_start[index]:
                    low = middle + 1
                    continue
                if known[0, k] == recents[0, j]:
                    tied[index] = True
                if known[0, k] < recents[0, j] or (only_tied and is_before(known, k, recents, j)):
                    low = middle + 1
                else:
                    high = middle
            out[at] = low
            at += 1


@kernel
def _run_of(run_before: Any, first: int, stop: int, k: int) -> int:
    """Which of an example's runs [first, stop) holds its stored candidate k."""
    while stop - first > 1:
        middle = (first + stop) // 2
        if run_before[middle] <= k:
            first = middle
        else:
            stop = middle
    return first
