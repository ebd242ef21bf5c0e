"""Pieces: batches in which users come seldom twice, whose histories have rows that are not to be seen, or recent events.

All stored rows are decoded straight to where they belong, piece by piece: a piece ends where a row is not to be seen, or
where a recent event comes. Only the recent events are copied (docs/decisions/0040-pieces-are-decoded-in-place.md). What is
left for `split`, `plan` and `assemble` is what shares, and lists.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.materialize.assemble import Segments, walk_segments
from latewood.materialize.choose import Candidates
from latewood.materialize.plan import Plan, slot_count, slot_of
from latewood.materialize.straight import MOST_REPEATED
from latewood.stripes.runs import Pieces, Ranges

_FAR = 1 << 60  # rows as sources of segments: no target is as large


class Planned(NamedTuple):
    """What to decode, and what to copy afterwards."""

    plan: Plan
    segments: Segments


def plan_pieces(candidates: Candidates, place_offsets: NDArray[np.int64], places: NDArray[np.int64]) -> Planned | None:
    """What to decode, and what to copy besides; None if it pays to share.

    Args: place_offsets, places: what `merge_places` says.
    """
    n, runs = len(candidates.stored_count), candidates.runs
    zeros = np.zeros(n, np.int64)
    segments = np.empty((len(runs.start) + 2 * n + 2 * len(places), 3), np.int64)
    stored = (candidates.stored_count, runs.offsets, runs.start, candidates.before)
    as_rows = (candidates.stored_count, zeros, np.full(n, _FAR), zeros, zeros)
    recent = (candidates.recent_stop, candidates.recent_count, place_offsets, places)
    count = walk_segments(candidates.offsets, stored, as_rows, recent, segments)
    ranges, offsets = np.empty((5, n), np.int64), np.empty(n + 1, np.int64)
    pieces, recents = np.empty((2, count, 3), np.int64)
    found = _sort_out(
        segments[:count],
        candidates.offsets,
        candidates.rows.shard,
        candidates.rows.user,
        np.empty(slot_count(n), np.int64),
        ranges,
        offsets,
        pieces,
        recents,
    )
    if found[0] < 0:
        return None
    range_count, piece_count, recent_count = found
    matrix = np.ascontiguousarray(ranges[:, :range_count])
    of_ranges = Pieces(offsets[: range_count + 1], pieces[:piece_count])
    size = int(candidates.offsets[-1])
    return Planned(Plan(Ranges.of(matrix), zeros, size, False, of_ranges), recents[:recent_count])


@kernel
def _sort_out(
    segments: Any,
    offsets: Any,
    shard: Any,
    user: Any,
    slots: Any,
    ranges: Any,
    piece_offsets: Any,
    pieces: Any,
    recents: Any,
) -> Any:
    """Pieces of ranges, out of the segments of rows, and those of recent events.

    Returns: how many ranges, pieces and segments of recent events there are; -1 ranges where it pays to share.
    """
    slots[:] = -1
    n, m, range_count, piece_count, recent_count, repeated = len(user), 0, 0, 0, 0, 0
    piece_offsets[0] = 0
    for i in range(n):
        first = piece_count
        while m < len(segments) and segments[m, 1] < offsets[i + 1]:
            source, target, length = segments[m, 0], segments[m, 1], segments[m, 2]
            m += 1
            if source < 0:
                recents[recent_count, 0], recents[recent_count, 1], recents[recent_count, 2] = source, target, length
                recent_count += 1
                continue
            row = source - _FAR
            pieces[piece_count, 0], pieces[piece_count, 1], pieces[piece_count, 2] = row, row + length, target
            piece_count += 1
        if piece_count > first:
            slot = slot_of(slots, shard, user, n, i)
            if slots[slot] >= 0:
                repeated += 1
                if repeated > MOST_REPEATED * n:
                    return -1, 0, 0
            slots[slot] = i
            ranges[0, range_count], ranges[1, range_count] = shard[i], user[i]
            ranges[2, range_count], ranges[3, range_count] = pieces[first, 0], pieces[piece_count - 1, 1]
            ranges[4, range_count] = pieces[first, 2]
            range_count += 1
            piece_offsets[range_count] = piece_count
    return range_count, piece_count, recent_count
