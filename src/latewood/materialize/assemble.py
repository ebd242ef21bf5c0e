"""Assemble: what the model saw, from stored and recent events (docs/protocol.md R4).

The order of work is fixed: merge by the total order (event_ts, ingest_ts, ordinal), suppress superseded versions,
take the newest `scan` where a stream bounds it, filter kinds, cut to the newest `max_len`. Merge and cut are here.
Suppression has thinned out the stored candidates before they come here, which gives the same (of recents, only those
that nothing superseded are logged); filters will thin out both lists, and a `scan` has to count before they do.

Usually all recents are newer than all stored events, and merging is appending: then nothing below costs more than
copying the recents. Where a recent event is older than a stored one (it arrived late, after the last compaction),
merge.py finds its place, and the stored events around it become separate runs.

Everything is expressed as *segments* (source, target, length), to be copied trait by trait. A source is an element of
the decoded buffer, or, with all bits inverted (so: negative), of the batch's recent events.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.materialize.choose import Candidates
from latewood.stripes.addresses import copy_bytes

Segments = NDArray[np.int64]  # (m, 3)


def assemble(
    candidates: Candidates, base: NDArray[np.int64], place_offsets: NDArray[np.int64], places: NDArray[np.int64]
) -> Segments:
    """What to copy once the plan's ranges are decoded, so that every output is complete.

    Args:
        base: (n,) element of the decoded buffer that holds row `start` of each example.
        place_offsets, places: (n + 1,), (m,) for the recents of examples that merge, how many stored candidates sort
        before
            each; other examples have an empty stretch, and their recents come last.
    """
    # Stored candidates are at most one run, or one per row where listed, and each recent can split a run.
    bound = 2 * len(base) + len(candidates.listed) + 2 * len(places)
    segments = np.empty((bound, 3), np.int64)
    stored = (candidates.rows.start, candidates.stored_count, candidates.row_offsets, candidates.listed)
    recent = (candidates.recent_stop, candidates.recent_count, place_offsets, places)
    count = _segments(base, candidates.offsets, stored, recent, segments)
    return segments[:count]


@kernel
def _segments(base: Any, offsets: Any, stored: Any, recent: Any, segments: Any) -> int:
    """Walk every example's candidates in order, skip the oldest until the rest fits, and note the runs."""
    start, stored_count, row_offsets, listed = stored
    recent_stop, recent_count, place_offsets, places = recent
    m = 0
    for i in range(len(base)):
        target = offsets[i]
        skip = stored_count[i] + recent_count[i] - (offsets[i + 1] - target)
        first_recent = recent_stop[i] - recent_count[i]
        merging = place_offsets[i + 1] > place_offsets[i]
        k, j = 0, 0  # stored and recent candidates done
        while k < stored_count[i] or j < recent_count[i]:
            until = stored_count[i]
            if merging and j < recent_count[i]:
                until = places[place_offsets[i] + j]
            passed = min(skip, until - k)
            k, skip = k + passed, skip - passed
            if k < until:
                rows = listed[row_offsets[i] + k : row_offsets[i + 1]]
                m = _stored_runs(segments, m, base[i], start[i], rows, k, until, target)
                target += until - k
                k = until
            stop = j
            while stop < recent_count[i] and (not merging or places[place_offsets[i] + stop] == k):
                stop += 1
            passed = min(skip, stop - j)
            j, skip = j + passed, skip - passed
            if j < stop:
                segments[m, 0], segments[m, 1], segments[m, 2] = ~(first_recent + j), target, stop - j
                m += 1
                target += stop - j
                j = stop
    return m


@kernel
def _stored_runs(segments: Any, m: int, base: int, start: int, rows: Any, k: int, until: int, target: int) -> int:
    """Note the runs of stored candidates k to `until`: one, or as many as listed rows have. Returns the new count."""
    if not len(rows):
        if base + k != target:  # else it was decoded where it belongs
            segments[m, 0], segments[m, 1], segments[m, 2] = base + k, target, until - k
            m += 1
        return m
    at, count = 0, until - k
    while at < count:
        stop = at + 1
        while stop < count and rows[stop] == rows[stop - 1] + 1:
            stop += 1
        segments[m, 0], segments[m, 1], segments[m, 2] = base + rows[at] - start, target + at, stop - at
        m += 1
        at = stop
    return m


def copy_segments(segments: Segments, columns: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Carry out the segments for some columns.

    Args: columns: each a buffer (size,) and recents (r,), of one dtype, contiguous.
    """
    # By address, so that one call serves all columns of every dtype, and Arrow's read-only arrays as well as ours.
    places = [(buffer.ctypes.data, recents.ctypes.data, buffer.itemsize) for buffer, recents in columns]
    _copy(segments, np.array(places, np.uint64).reshape(-1, 3))


@kernel
def _copy(segments: Any, columns: Any) -> None:
    for c in range(len(columns)):
        buffer, recents, itemsize = columns[c, 0], columns[c, 1], columns[c, 2]
        for m in range(len(segments)):
            source, target, length = segments[m, 0], segments[m, 1], segments[m, 2]
            origin = buffer if source >= 0 else recents
            place = source if source >= 0 else ~source
            copy_bytes(buffer + uint64(target) * itemsize, origin + uint64(place) * itemsize, uint64(length) * itemsize)
