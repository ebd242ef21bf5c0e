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

from latewood.immutable.resolve import Resolution, Rows, Runs
from latewood.lists import offsets_of
from latewood.materialize.recents import Recents
from latewood.materialize.suppress import Hits

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
    resolution: Resolution, hits: Hits | None, recents: Recents, max_len: int | NDArray[np.int64] | None
) -> Candidates:
    """Choose the candidates of every example; those that did not resolve come out empty. Reads nothing.

    Args: hits: the stored rows that the recents suppress. max_len: of all outputs, or (n,) of each.
    """
    limit = np.broadcast_to(NO_LIMIT if max_len is None else np.asarray(max_len, np.int64), resolution.status.shape)
    resolved = resolution.status == 0
    stored = np.where(resolved, resolution.count if hits is None else resolution.count - hits.counts, 0)
    recent = np.where(resolved, np.diff(recents.offsets), 0)
    offsets = offsets_of(np.minimum(stored + recent, limit))
    recent_stop, recent_count = recents.offsets[1:], np.minimum(recent, limit)
    merging = _merging(resolution, recents, stored, recent_stop, recent_count)
    wanted = np.minimum(stored, limit - recent_count)
    wanted[merging] = np.minimum(stored[merging], limit[merging])
    runs = _newest(resolution.runs if hits is None else hits.left_out_of(resolution.runs), wanted)
    first, last = runs.offsets[:-1], runs.offsets[1:] - 1
    rows = Rows(resolution.shard, resolution.user, runs.start[first], runs.start[last] + runs.length[last])
    return Candidates(offsets, rows, wanted, runs, recent_stop, recent_count, merging)


def _merging(
    resolution: Resolution,
    recents: Recents,
    stored: NDArray[np.int64],
    recent_stop: NDArray[np.int64],
    recent_count: NDArray[np.int64],
) -> NDArray[np.int64]:
    """The examples of which some recent candidate does not surely follow the last stored event."""
    both = np.flatnonzero((recent_count > 0) & (stored > 0))
    oldest_recent = recents.order[0, recent_stop[both] - recent_count[both]]
    return both[oldest_recent <= resolution.last_ts[both]]


def _newest(runs: Runs, wanted: NDArray[np.int64]) -> Runs:
    """The newest `wanted` rows of each example. Every example keeps a run, if only an empty one."""
    if len(runs.start) == len(wanted):
        return Runs(runs.offsets, runs.start + runs.length - wanted, wanted)
    counts = np.diff(runs.offsets)
    cut = np.clip(np.repeat(runs.counts - wanted, counts) - runs.before, 0, runs.length)
    start, length = runs.start + cut, runs.length - cut
    kept = length > 0
    kept[runs.offsets[1:] - 1] = True
    offsets = np.concatenate([[0], np.cumsum(kept)])[runs.offsets]
    return Runs(offsets, start[kept], length[kept])
