"""Assemble: what the model saw, from stored and recent events (docs/protocol.md R4).

The order of work is fixed: merge by the total order (event_ts, ingest_ts, ordinal), suppress superseded versions, cut to
the newest `max_len`. Merge and cut are here. Suppression has thinned out the stored candidates before they come here,
which gives the same (of recents, only those that nothing superseded are logged). Streams, which filter before they cut,
are found elsewhere (find.py).

Usually all recents are newer than all stored events, and merging is appending: then nothing below costs more than
copying the recents. Where a recent event is older than a stored one (it arrived late, after the last compaction),
merge.py finds its place, and the stored events around it become separate runs.

That is for what shares, lists and windows; other batches are laid out in pieces (pieces.py).

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
from latewood.materialize.split import Parts
from latewood.stripes.addresses import copy_bytes, prefetch

Segments = NDArray[np.int64]  # (m, 3)
_AHEAD, _LINES = 3, 4  # segments, and cache lines of each: what a copy begins with comes from anywhere
NOTHING: Segments = np.zeros((0, 3), np.int64)


def assemble(
    candidates: Candidates,
    parts: Parts,
    base: NDArray[np.int64],
    place_offsets: NDArray[np.int64],
    places: NDArray[np.int64],
) -> Segments:
    """What to copy once the plan's ranges are decoded, so that every output is complete.

    Args:
        base: (n + t,) element of the decoded buffer where each head, and then each tail, begins.
        place_offsets, places: (n + 1,), (m,) for the recents of examples that merge, how many stored candidates sort
            before each; other examples have an empty stretch, and their recents come last.
    """
    n, runs = len(parts.split), candidates.runs
    tail_start, tail_base = np.zeros((2, n), np.int64)
    tail_start[parts.owner], tail_base[parts.owner] = parts.tails.start, base[n:]
    # a run may be cut where the tail begins, and each recent can cut one
    segments = np.empty((len(runs.start) + 2 * n + 2 * len(places), 3), np.int64)
    stored = (candidates.stored_count, runs.offsets, runs.start, candidates.before)
    decoded = (parts.split, parts.heads.start, base, tail_start, tail_base)
    recent = (candidates.recent_stop, candidates.recent_count, place_offsets, places)
    count = _walk(candidates.offsets, stored, decoded, recent, segments)
    return segments[:count]


@kernel
def _walk(offsets: Any, stored: Any, decoded: Any, recent: Any, segments: Any) -> int:
    """Walk every example's candidates in order, skip the oldest until the rest fits, and note the pieces."""
    stored_count, run_offsets, run_start, run_before = stored
    recent_stop, recent_count, place_offsets, places = recent
    m = 0
    for i in range(len(stored_count)):
        target = offsets[i]
        skip = stored_count[i] + recent_count[i] - (offsets[i + 1] - target)
        first_recent = recent_stop[i] - recent_count[i]
        merging = place_offsets[i + 1] > place_offsets[i]
        k, j, run = 0, 0, run_offsets[i]  # stored and recent candidates done
        while k < stored_count[i] or j < recent_count[i]:
            until = stored_count[i]
            if merging and j < recent_count[i]:
                until = places[place_offsets[i] + j]
            passed = min(skip, until - k)
            k, skip = k + passed, skip - passed
            while k < until:
                while run + 1 < run_offsets[i + 1] and run_before[run + 1] <= k:
                    run += 1
                end = min(until, run_before[run + 1]) if run + 1 < run_offsets[i + 1] else until
                source, length = _source(decoded, i, k, run_start[run] + k - run_before[run], end - k)
                if source != target:  # else it was decoded where it belongs
                    segments[m, 0], segments[m, 1], segments[m, 2] = source, target, length
                    m += 1
                target, k = target + length, k + length
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
def _source(decoded: Any, i: int, k: int, row: int, length: int) -> tuple[int, int]:
    """Where stored candidate k of example i, at `row`, was decoded, and how many of `length` more lie behind it."""
    split, head_start, base, tail_start, tail_base = decoded
    if k < split[i]:
        return base[i] + row - head_start[i], min(length, split[i] - k)
    return tail_base[i] + row - tail_start[i], length


def copy_segments(segments: Segments, columns: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> None:
    """Carry out the segments for some columns.

    Args: columns: each a buffer (size,) and recents (r,), of one dtype, contiguous.
    """
    copy_by_address(
        segments, [(buffer.ctypes.data, recents.ctypes.data, buffer.itemsize) for buffer, recents in columns]
    )


def copy_by_address(segments: Segments, columns: Sequence[tuple[int, int, int]]) -> None:
    """The same of columns by the addresses of buffer and recents, and the bytes of a value.

    So one call serves columns of every dtype, and Arrow's read-only arrays as well as ours.
    """
    _copy(segments, np.array(columns, np.uint64).reshape(-1, 3))


@kernel
def _copy(segments: Any, columns: Any) -> None:
    for c in range(len(columns)):
        buffer, recents, itemsize = columns[c, 0], columns[c, 1], columns[c, 2]
        for m in range(len(segments)):
            if m + _AHEAD < len(segments):
                near = _origin(segments, m + _AHEAD, buffer, recents, itemsize)
                for line in range(_LINES):
                    prefetch(near + (uint64(line) << uint64(6)))
            target, length = uint64(segments[m, 1]), uint64(segments[m, 2])
            origin = _origin(segments, m, buffer, recents, itemsize)
            copy_bytes(buffer + target * itemsize, origin, length * itemsize)


@kernel
def _origin(segments: Any, m: int, buffer: Any, recents: Any, itemsize: Any) -> Any:
    """The address that a segment is copied from."""
    source = segments[m, 0]
    if source >= 0:
        return buffer + uint64(source) * itemsize
    return recents + uint64(~source) * itemsize
