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
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Resolution, Rows, Runs
from latewood.kernels import kernel
from latewood.materialize.recents import Recents
from latewood.materialize.suppress import StoredRows

NO_LIMIT = np.int64(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What competes for the output of n examples.

    Shapes: offsets (n + 1,); before (runs,); merging (k,); all others (n,).

    Stored candidates are the rows of an example's runs; `rows` is their hull. Recent candidates are the `recent_count`
    before `recent_stop` in the batch's recents.
    """

    offsets: NDArray[np.int64]  # of the output
    rows: Rows
    stored_count: NDArray[np.int64]
    runs: Runs
    before: NDArray[np.int64]  # the stored candidates of the same example in the runs before each
    recent_stop: NDArray[np.int64]
    recent_count: NDArray[np.int64]
    merging: NDArray[np.int64]  # the examples whose recents do not all follow their stored events

    @property
    def are_plain(self) -> bool:
        """Whether every example is one run of stored rows and nothing else."""
        return len(self.before) == len(self.stored_count) and not self.recent_count.any()


def choose(
    resolution: Resolution, stored: StoredRows, recents: Recents, max_len: int | NDArray[np.int64] | None
) -> Candidates:
    """Choose the candidates of every example; those that did not resolve come out empty. Reads nothing.

    Args: stored: the rows that may be shown. max_len: of all outputs, or (n,) of each.
    """
    n, runs = len(resolution.status), stored.runs
    limits = np.array([NO_LIMIT]) if max_len is None else np.atleast_1d(np.asarray(max_len, np.int64))
    ends, counts = np.empty((2, n + 1), np.int64), np.empty((5, n), np.int64)
    chosen = np.empty((3, len(runs.start)), np.int64)
    run_count, merging = _choose(
        (resolution.status, stored.counts, resolution.last_ts, limits),
        tuple(runs),
        (recents.offsets, recents.order),
        ends,
        counts,
        chosen,
    )
    start, stop, stored_count, recent_count, merges = counts
    run_start, run_length, before = chosen[:, :run_count]
    return Candidates(
        ends[0],
        Rows(resolution.shard, resolution.user, start, stop),
        stored_count,
        Runs(ends[1], run_start, run_length),
        before,
        recents.offsets[1:],
        recent_count,
        merges[:merging],
    )


@kernel
def _choose(examples: Any, runs: Any, recents: Any, ends: Any, counts: Any, chosen: Any) -> tuple[int, int]:
    """`choose`, example by example. Returns: how many runs there are, and how many examples merge.

    Every example keeps a run, if only an empty one.
    """
    status, stored_all, last_ts, limits = examples
    run_offsets, run_start, run_length = runs
    recent_offsets, order = recents
    run_count, merging = 0, 0
    ends[0, 0], ends[1, 0] = 0, 0
    for i in range(len(status)):
        limit = limits[i if len(limits) > 1 else 0]
        is_resolved = status[i] == 0
        stored = stored_all[i] if is_resolved else 0
        recent = recent_offsets[i + 1] - recent_offsets[i] if is_resolved else 0
        recent_count = min(recent, limit)
        wanted = min(stored, limit - recent_count)
        if recent_count > 0 and stored > 0 and order[0, recent_offsets[i + 1] - recent_count] <= last_ts[i]:
            wanted = min(stored, limit)
            counts[4, merging] = i
            merging += 1
        ends[0, i + 1] = ends[0, i] + min(stored + recent, limit)
        skipped = -wanted  # the oldest rows
        for run in range(run_offsets[i], run_offsets[i + 1]):
            skipped += run_length[run]
        first, before = run_count, 0
        for run in range(run_offsets[i], run_offsets[i + 1]):
            cut = min(max(skipped, 0), run_length[run])
            skipped -= run_length[run]
            length = run_length[run] - cut
            if length > 0 or (run + 1 == run_offsets[i + 1] and run_count == first):
                chosen[0, run_count], chosen[1, run_count], chosen[2, run_count] = run_start[run] + cut, length, before
                before += length
                run_count += 1
        counts[0, i] = chosen[0, first]
        counts[1, i] = chosen[0, run_count - 1] + chosen[1, run_count - 1]
        counts[2, i], counts[3, i] = wanted, recent_count
        ends[1, i + 1] = run_count
    return run_count, merging
