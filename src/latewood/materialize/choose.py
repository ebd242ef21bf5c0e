"""Choose: which stored rows and which recent events compete for a place in each example's output.

An output keeps at most `limit` events, the newest of stored and recent ones together, less the stored ones that were
superseded in the recents. Where all recents follow all
stored events, which is nearly always, arithmetic says exactly how many of each are kept, and nothing more is ever
decoded. Where they interleave, the newest `limit` of both sides compete, and merging decides.

Stored rows are one stretch unless something inside it is invisible to the example (a late event, an old pointer, one
that was superseded); then the visible rows are listed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.errors import CorruptionError
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Rows
from latewood.materialize.recents import Recents
from latewood.materialize.suppress import Hits
from latewood.stripes.decode import decode_column
from latewood.stripes.layout import EVENT_TS
from latewood.stripes.runs import Ranges

NO_LIMIT = np.int64(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What competes for the output of n examples.

    Shapes: offsets, row_offsets (n + 1,); rows (row_offsets[-1],); merging (k,); all others (n,).

    Stored candidates are the rows start, start + 1, … below stop, or, where `row_offsets` gives an example a stretch,
    the `rows` in it; recent candidates are the `recent_count` before `recent_stop` in the batch's recents.
    """

    offsets: NDArray[np.int64]  # of the output
    rows: Rows
    stored_count: NDArray[np.int64]
    row_offsets: NDArray[np.int64]
    listed: NDArray[np.int64]
    recent_stop: NDArray[np.int64]
    recent_count: NDArray[np.int64]
    merging: NDArray[np.int64]  # the examples whose recents do not all follow their stored events

    @property
    def direct(self) -> NDArray[np.bool_]:
        """Whether an output begins with exactly its stretch of rows."""
        direct = np.diff(self.row_offsets) == 0
        direct[self.merging] = False
        return direct


def choose(
    reader: GenerationReader,
    resolution: Resolution,
    watermark: NDArray[np.int64],
    hits: Hits | None,
    recents: Recents,
    max_len: int | None,
    verify: bool,
) -> Candidates:
    """Choose the candidates of every example; those that did not resolve come out empty.

    Args:
        watermark: the pointers' own, which decides what is visible to them.
        hits: the stored rows that the recents suppress.
    Raises: CorruptionError: damaged bytes, where bytes had to be read to decide.
    """
    limit = NO_LIMIT if max_len is None else np.int64(max_len)
    resolved = resolution.status == 0
    stored = np.where(resolved, resolution.count if hits is None else resolution.count - hits.counts, 0)
    recent = np.where(resolved, np.diff(recents.offsets), 0)
    offsets = np.zeros(len(stored) + 1, np.int64)
    np.cumsum(np.minimum(stored + recent, limit), out=offsets[1:])
    recent_stop, recent_count = recents.offsets[1:], np.minimum(recent, limit)
    merging = _merging(reader, resolution, recents, stored, recent_stop, recent_count, verify)
    wanted = np.minimum(stored, limit - recent_count)
    wanted[merging] = np.minimum(stored[merging], limit)
    rows, row_offsets, listed = _rows(reader, resolution, watermark, hits, wanted)
    return Candidates(offsets, rows, wanted, row_offsets, listed, recent_stop, recent_count, merging)


def _merging(
    reader: GenerationReader,
    resolution: Resolution,
    recents: Recents,
    stored: NDArray[np.int64],
    recent_stop: NDArray[np.int64],
    recent_count: NDArray[np.int64],
    verify: bool,
) -> NDArray[np.int64]:
    """The examples of which some recent candidate does not surely follow the last stored event."""
    both = np.flatnonzero((recent_count > 0) & (stored > 0))
    if not len(both):
        return both
    last = resolution.stop[both]
    newest_stored = np.empty(len(both), np.int64)
    ranges = Ranges(resolution.shard[both], resolution.user[both], last - 1, last, np.arange(len(both)))
    decode_column(reader.tables, ranges, EVENT_TS, newest_stored, None, verify)
    oldest_recent = recents.order[0, recent_stop[both] - recent_count[both]]
    return both[oldest_recent <= newest_stored]


def _rows(
    reader: GenerationReader,
    resolution: Resolution,
    watermark: NDArray[np.int64],
    hits: Hits | None,
    wanted: NDArray[np.int64],
) -> tuple[Rows, NDArray[np.int64], NDArray[np.int64]]:
    """The newest `wanted` visible rows, without hits: as stretches, and listed where one would hold another row."""
    start, stop = resolution.stop - wanted, resolution.stop.copy()
    stop[wanted == 0] = start[wanted == 0]
    row_offsets, listed = np.zeros(len(wanted) + 1, np.int64), np.zeros(0, np.int64)
    dirty = np.flatnonzero((resolution.dirty if hits is None else resolution.dirty | (hits.counts > 0)) & (wanted > 0))
    if len(dirty):
        hulls = Rows(*(column[dirty] for column in resolution.rows))
        hidden = None if hits is None else (hits.take(dirty).offsets, hits.take(dirty).rows)
        offsets, visible = reader.visible_rows(hulls, watermark[dirty], wanted[dirty], hidden)
        if not np.array_equal(np.diff(offsets), wanted[dirty]):
            raise CorruptionError("the index and the ingest times of a stripe disagree on which rows are visible")
        first, last = visible[offsets[:-1]], visible[offsets[1:] - 1]
        start[dirty], stop[dirty] = first, last + 1
        gaps = last + 1 - first > wanted[dirty]  # elsewhere the newest rows are one stretch after all
        counts = np.zeros(len(wanted), np.int64)
        counts[dirty[gaps]] = wanted[dirty[gaps]]
        np.cumsum(counts, out=row_offsets[1:])
        listed = visible[np.repeat(gaps, wanted[dirty])]
    return Rows(resolution.shard, resolution.user, start, stop), row_offsets, listed
