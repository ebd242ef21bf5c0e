"""Merge: where recent events belong among stored ones (docs/protocol.md R4), where they do not just follow.

A recent event can be older than a stored one: it happened early, arrived late, and no compaction has seen it yet. To
find its place takes the total order of stored events, three columns that nobody asked for; so they are decoded only
for examples whose oldest recent is not past the last stored event, only from the stripe on in which it may belong, and
all but their times only where those are equal.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import uint64
from numpy.typing import NDArray

from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Rows
from latewood.kernels import kernel
from latewood.lists import offsets_of
from latewood.materialize.choose import Candidates
from latewood.materialize.recents import Recents
from latewood.stripes.decode import decode_column
from latewood.stripes.entries import first_ts
from latewood.stripes.layout import DELAY, EVENT_TS, ORDINAL, STRIPE_EVENTS
from latewood.stripes.runs import Ranges
from latewood.stripes.stripe import table_at


def merge_places(
    reader: GenerationReader, candidates: Candidates, recents: Recents, verify: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each recent candidate of the examples that merge, how many stored candidates sort before it.

    Returns: offsets (n + 1,), with an empty stretch for examples that do not merge, and places (offsets[-1],).
    """
    merging, counts = candidates.merging, np.zeros(len(candidates.stored_count), np.int64)
    if not len(merging):
        return np.zeros(len(counts) + 1, np.int64), np.zeros(0, np.int64)
    counts[merging] = candidates.recent_count[merging]
    offsets = offsets_of(counts)
    oldest = recents.order[0, candidates.recent_stop[merging] - candidates.recent_count[merging]]
    rows = Rows(*(column[merging] for column in candidates.rows))
    known_start = np.empty(len(merging), np.int64)
    _rows_from(reader.tables.rows, rows.shard, rows.user, rows.start, rows.stop, oldest, known_start)
    stored = _Stored.of(reader, rows._replace(start=known_start), verify)
    examples = (
        (merging, candidates.stored_count, candidates.runs.offsets, candidates.runs.start, candidates.before),
        (candidates.recent_stop, candidates.recent_count, recents.order),
    )
    places, tied = np.empty(offsets[-1], np.int64), np.zeros(len(merging), np.bool_)
    _places(*examples, (known_start, stored.offsets, stored.order), places, tied, False)
    if tied.any():  # else their times alone say which comes first
        stored.decode_rest(np.flatnonzero(tied))
        _places(*examples, (known_start, stored.offsets, stored.order), places, tied, True)
    return offsets, places


@dataclass(frozen=True, slots=True, eq=False)
class _Stored:
    """The total order of k runs of rows, back to back. Shapes: ranges, offsets (k + 1,), order (3, t)."""

    reader: GenerationReader
    verify: bool
    ranges: Ranges
    offsets: NDArray[np.int64]
    order: NDArray[np.int64]

    @classmethod
    def of(cls, reader: GenerationReader, rows: Rows, verify: bool) -> "_Stored":
        """Their times; the rest of the order is to be decoded."""
        offsets = offsets_of(rows.stop - rows.start)
        ranges, order = Ranges(*rows, offsets[:-1]), np.empty((3, offsets[-1]), np.int64)
        decode_column(reader.tables, ranges, EVENT_TS, order[0], None, verify)
        return cls(reader, verify, ranges, offsets, order)

    def decode_rest(self, some: NDArray[np.int64]) -> None:
        """Ingest times and ordinals of some of the runs; those of the others come to mean nothing."""
        ranges, ordinals = Ranges.of(self.ranges.matrix[:, some]), np.zeros(self.order.shape[1], np.int32)
        decode_column(self.reader.tables, ranges, DELAY, self.order[1], None, self.verify)
        decode_column(self.reader.tables, ranges, ORDINAL, ordinals, None, self.verify)
        self.order[1] += self.order[0]
        self.order[2] = ordinals


@kernel
def _rows_from(tables: Any, shard: Any, user: Any, start: Any, stop: Any, event_ts: Any, out: Any) -> None:
    """The row of each stretch [start, stop) from which on a row can be of `event_ts` or later.

    That is in the stripe before the first one that begins at `event_ts` or later, for equal times may cross stripes.
    """
    for i in range(len(shard)):
        table = table_at(tables, shard[i])
        low, high = start[i] // STRIPE_EVENTS, (stop[i] - 1) // STRIPE_EVENTS + 1
        while low < high:
            middle = (low + high) // 2
            if first_ts(table, uint64(user[i]), uint64(middle)) < event_ts[i]:
                low = middle + 1
            else:
                high = middle
        out[i] = max(start[i], (low - 1) * STRIPE_EVENTS)


@kernel
def _places(examples: Any, recent: Any, stored: Any, out: Any, tied: Any, only_tied: bool) -> None:
    """`merge_places`, example by example. Rows before `known_start` sort before every recent.

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
                run = run_of(run_before, run_offsets[i], run_offsets[i + 1], middle)
                row = run_start[run] + middle - run_before[run]
                k = known_offsets[index] + row - known_start[index]
                if row < known_start[index]:
                    low = middle + 1
                    continue
                if known[0, k] == recents[0, j]:
                    tied[index] = True
                if known[0, k] < recents[0, j] or (only_tied and _before(known, k, recents, j)):
                    low = middle + 1
                else:
                    high = middle
            out[at] = low
            at += 1


@kernel
def run_of(run_before: Any, first: int, stop: int, k: int) -> int:
    """Which of an example's runs [first, stop) holds its stored candidate k."""
    while stop - first > 1:
        middle = (first + stop) // 2
        if run_before[middle] <= k:
            first = middle
        else:
            stop = middle
    return first


@kernel
def _before(left: Any, i: int, right: Any, j: int) -> bool:
    if left[0, i] != right[0, j]:
        return left[0, i] < right[0, j]
    if left[1, i] != right[1, j]:
        return left[1, i] < right[1, j]
    return left[2, i] < right[2, j]
