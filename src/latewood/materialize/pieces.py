"""Pieces: batches in which users come seldom twice, whose histories have rows that are not to be seen, or recent events.

All stored rows are decoded straight to where they belong, piece by piece: a piece ends where a row is not to be seen, or
where a recent event comes. Only the recent events are copied (docs/decisions/0040-pieces-are-decoded-in-place.md). What is
left for `choose`, `split`, `plan` and `assemble` is what shares, and lists.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.immutable.resolve import Resolution
from latewood.kernels import kernel
from latewood.materialize.assemble import Segments
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import NO_LIMIT
from latewood.materialize.decode import StoredColumns, columns_with_nulls, copy_recents, decode_stored
from latewood.materialize.plan import slot_count, slot_of
from latewood.materialize.recents import Recents
from latewood.materialize.straight import MOST_REPEATED
from latewood.materialize.suppress import StoredRows
from latewood.stripes.runs import Pieces
from latewood.stripes.shard import Tables


class InPieces(NamedTuple):
    """Where the events of n examples go. Shapes: offsets (n + 1,)."""

    offsets: NDArray[np.int64]
    ranges: NDArray[np.int64]  # as the matrix of `Ranges`
    pieces: Pieces
    segments: Segments  # of recent events, to be copied afterwards
    rows: int  # of all ranges


def lay_out_pieces(
    resolution: Resolution,
    stored: StoredRows,
    recents: Recents,
    ranks: NDArray[np.int64],
    max_len: int | None,
) -> InPieces | None:
    """Where everything of all examples goes; None if it pays to share.

    Args: stored: the rows that may be shown. ranks: how many of them sort before each recent event.
    """
    n, count = len(stored.counts), len(recents)
    most = len(stored.runs.start) + count  # a recent event cuts a run in two
    offsets, piece_offsets, ranges = np.empty(n + 1, np.int64), np.empty(n + 1, np.int64), np.empty((5, n), np.int64)
    pieces, segments = np.empty((most, 3), np.int64), np.empty((count, 3), np.int64)
    range_count, piece_count, segment_count, rows = _lay_out(
        (resolution.status, resolution.shard, resolution.user, stored.counts),
        tuple(stored.runs),
        recents.offsets,
        ranks,
        int(NO_LIMIT) if max_len is None else max_len,
        np.empty(slot_count(n), np.int64),
        (offsets, ranges, piece_offsets, pieces, segments),
    )
    if range_count < 0:
        return None
    matrix = ranges if range_count == n else np.ascontiguousarray(ranges[:, :range_count])
    of_ranges = Pieces(piece_offsets[: range_count + 1], pieces[:piece_count])
    return InPieces(offsets, matrix, of_ranges, segments[:segment_count], rows)


def decode_pieces(
    tables: Tables,
    laid_out: InPieces,
    stored: StoredColumns,
    recents: Sequence[Column],
    pool: BufferPool,
    verify: bool,
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]], int, int]:
    """The values of all columns, the masks of those with nulls, and the stripes touched and their bytes.

    Args: recents: the recent events' values of each. Raises: CorruptionError: a damaged block.
    """
    size, masked = int(laid_out.offsets[-1]), columns_with_nulls(recents)
    decoded = decode_stored(tables, laid_out.ranges, size, stored, pool, verify, masked, laid_out.pieces)
    copy_recents(laid_out.segments, decoded, recents)
    return *decoded.by_name(stored.names), decoded.stripe_count, decoded.size_bytes


@kernel
def _lay_out(
    examples: Any, runs: Any, recent_offsets: Any, ranks: Any, limit: int, slots: Any, out: Any
) -> tuple[int, int, int, int]:
    """`lay_out_pieces`, example by example: stored events up to the next recent one, the recent ones of that rank, and on.

    The oldest are skipped until the rest fits. Returns: how many ranges, pieces, segments and rows there are; -1 ranges
    where it pays to share.
    """
    status, shard, user, stored_all = examples
    run_offsets, run_start, run_length = runs
    offsets, ranges, piece_offsets, pieces, segments = out
    range_count, piece_count, segment_count, rows, repeated, target = 0, 0, 0, 0, 0, 0
    slots[:] = -1
    offsets[0], piece_offsets[0] = 0, 0
    for i in range(len(status)):
        stored = stored_all[i] if status[i] == 0 else 0
        j = recent_offsets[i]
        recent_stop = recent_offsets[i + 1] if status[i] == 0 else j
        skip = max(stored + recent_stop - j - limit, 0)
        first, k, run, in_run = (
            piece_count,
            0,
            run_offsets[i],
            0,
        )  # stored events done, and how many of them in their run
        while k < stored or j < recent_stop:
            until = stored
            if j < recent_stop:  # of one whose pointer means nothing a rank is any number
                until = min(ranks[j], stored)
            while k < until:
                length = min(run_length[run] - in_run, until - k)
                passed = min(skip, length)
                skip -= passed
                if passed < length:
                    row = run_start[run] + in_run + passed
                    pieces[piece_count, 0], pieces[piece_count, 1] = row, row + length - passed
                    pieces[piece_count, 2] = target
                    target += length - passed
                    piece_count += 1
                k, in_run = k + length, in_run + length
                if in_run == run_length[run]:
                    run, in_run = run + 1, 0
            stop = j
            while stop < recent_stop and min(ranks[stop], stored) <= k:
                stop += 1
            passed = min(skip, stop - j)
            j, skip = j + passed, skip - passed
            if j < stop:
                segments[segment_count, 0], segments[segment_count, 1] = ~j, target
                segments[segment_count, 2] = stop - j
                target += stop - j
                segment_count += 1
                j = stop
        offsets[i + 1] = target
        if piece_count > first:
            slot = slot_of(slots, shard, user, len(user), i)
            if slots[slot] >= 0:
                repeated += 1
                if repeated > MOST_REPEATED * len(user):
                    return -1, 0, 0, 0
            slots[slot] = i
            ranges[0, range_count], ranges[1, range_count] = shard[i], user[i]
            ranges[2, range_count], ranges[3, range_count] = pieces[first, 0], pieces[piece_count - 1, 1]
            ranges[4, range_count] = pieces[first, 2]
            rows += pieces[piece_count - 1, 1] - pieces[first, 0]
            range_count += 1
            piece_offsets[range_count] = piece_count
    return range_count, piece_count, segment_count, rows
