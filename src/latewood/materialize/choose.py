"""Choose: which stored rows and which recent events compete for a place in each example's output.

An output keeps at most `limit` events, the newest of stored and recent ones together, less the stored ones that were
superseded in the recents. Where all recents follow all
stored events, which is nearly always, arithmetic says exactly how many of each are kept, and nothing more is ever
decoded. Where they interleave, the newest `limit` of both sides compete, and merging decides.

Stored rows are one run unless something between them is invisible to the example (a late event, an old pointer, one that
was superseded): then there is a run on each side of it. Late events are late by hours or days, so that nearly all of a
history is in its first run.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.errors import CorruptionError
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Rows, Runs
from latewood.materialize.recents import Recents
from latewood.materialize.suppress import Hits
from latewood.stripes.decode import decode_column
from latewood.stripes.layout import EVENT_TS
from latewood.stripes.runs import Ranges

NO_LIMIT = np.int64(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What competes for the output of n examples.

    Shapes: offsets (n + 1,); merging (k,); all others (n,).

    Stored candidates are the rows of an example's runs; `rows` is their hull. Recent candidates are the `recent_count`
    before `recent_stop` in the batch's recents.
    """

    offsets: NDArray[np.int64]  # of the output
    rows: Rows
    stored_count: NDArray[np.int64]
    runs: Runs
    recent_stop: NDArray[np.int64]
    recent_count: NDArray[np.int64]
    merging: NDArray[np.int64]  # the examples whose recents do not all follow their stored events


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
    rows, runs = _runs(reader, resolution, watermark, hits, wanted)
    return Candidates(offsets, rows, wanted, runs, recent_stop, recent_count, merging)


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


def _runs(
    reader: GenerationReader,
    resolution: Resolution,
    watermark: NDArray[np.int64],
    hits: Hits | None,
    wanted: NDArray[np.int64],
) -> tuple[Rows, Runs]:
    """The newest `wanted` visible rows, without hits: their hull, and in which runs they lie."""
    start, stop = resolution.stop - wanted, resolution.stop.copy()
    stop[wanted == 0] = start[wanted == 0]
    clean = Runs(np.arange(len(wanted) + 1), start, wanted)
    rows = Rows(resolution.shard, resolution.user, start, stop)
    dirty = np.flatnonzero((resolution.dirty if hits is None else resolution.dirty | (hits.counts > 0)) & (wanted > 0))
    if not len(dirty):
        return rows, clean
    found = _visible_runs(reader, resolution, watermark, hits, wanted, dirty)
    if not np.array_equal(found.counts, wanted[dirty]):
        raise CorruptionError("the index and the ingest times of a stripe disagree on which rows are visible")
    last = found.offsets[1:] - 1
    start[dirty], stop[dirty] = found.start[found.offsets[:-1]], found.start[last] + found.length[last]
    counts = np.ones(len(wanted), np.int64)
    counts[dirty] = np.diff(found.offsets)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    runs = Runs(offsets, np.repeat(start, counts), np.repeat(wanted, counts))
    at = np.arange(len(found.start)) + np.repeat(offsets[:-1][dirty] - found.offsets[:-1], counts[dirty])
    runs.start[at], runs.length[at] = found.start, found.length
    return rows, runs


def _visible_runs(
    reader: GenerationReader,
    resolution: Resolution,
    watermark: NDArray[np.int64],
    hits: Hits | None,
    wanted: NDArray[np.int64],
    some: NDArray[np.int64],
) -> Runs:
    """Those of some examples. Each row that is not to be seen begins at most one more run."""
    hulls = Rows(*(column[some] for column in resolution.rows))
    most = (hulls.stop - hulls.start) - resolution.count[some] + 1
    if hits is None:
        return reader.visible_runs(hulls, watermark[some], wanted[some], None, most)
    hidden = hits.take(some)
    most += hidden.counts
    return reader.visible_runs(hulls, watermark[some], wanted[some], (hidden.offsets, hidden.rows), most)
