"""Straight: batches in which every example is one run of stored rows and nothing else, and users come seldom twice.

So are most batches of examples whose histories are clean, and of them nothing has to be chosen, shared, merged or copied:
where an example's rows begin and where they go is a sum. One kernel finds out whether a batch is so, and lays it out on the
way; the columns are decoded straight into the output. It gives what the general way gives (choose, split, plan, decode),
with a tenth of its calls: each of those finds the processor's caches full of the batch before
(docs/decisions/0039-batches-that-need-no-plan.md).

Shared batches of such examples are laid out likewise, however often a user comes: a user's rows are decoded once, and
every example looks at its own.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Resolution
from latewood.kernels import kernel
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import NO_LIMIT
from latewood.materialize.decode import StoredColumns, decode_stored
from latewood.materialize.plan import pays, slot_count, slot_of
from latewood.stripes.shard import Tables

# Of a batch's examples, those of a user who came before: up to so many of them are decoded again. That takes as long as to
# copy them, and nothing has to be searched for (decision 39).
MOST_REPEATED = 0.75
_AS_THEY_COME = np.zeros(0, np.int64)  # an order
_NEEDS_ORDER, _NOT_SIMPLE = -1, -2  # why there are no ranges


class LaidOut(NamedTuple):
    """Where the events of n examples go. Shapes: offsets (n + 1,)."""

    offsets: NDArray[np.int64]
    ranges: NDArray[np.int64]  # as the matrix of `Ranges`


def lay_out(resolution: Resolution, start: int, stop: int, max_len: int | None) -> LaidOut | None:
    """Where everything of the examples from `start` to `stop` goes.

    None if it pays to share, or if some example is not one run of rows, or did not resolve. For examples without recent
    events.
    """
    n = stop - start
    offsets, ranges = np.empty(n + 1, np.int64), np.empty((5, n), np.int64)
    count = _lay_out(
        resolution.status,
        resolution.shard,
        resolution.user,
        resolution.runs.offsets,
        resolution.runs.start,
        resolution.runs.length,
        start,
        int(NO_LIMIT) if max_len is None else max_len,
        np.empty(slot_count(n), np.int64),
        offsets,
        ranges,
    )
    if count < 0:
        return None
    return LaidOut(offsets, ranges if count == n else np.ascontiguousarray(ranges[:, :count]))


class SharedRows(NamedTuple):
    """Where the rows of n examples are in memory that they share. Shapes: starts, lengths (n,)."""

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    ranges: NDArray[np.int64]  # as the matrix of `Ranges`
    size: int  # of the memory, in events
    events: int  # of all examples


def lay_out_shared(resolution: Resolution, max_len: int | None) -> SharedRows | None:
    """Likewise where rows are only looked at, and shared; None if an example is not one run of them, or did not resolve."""
    n, runs = len(resolution.status), resolution.runs
    if len(runs.start) != n:
        return None
    limit = int(NO_LIMIT) if max_len is None else max_len
    examples = resolution.status, resolution.shard, resolution.user, runs.start, runs.length
    lengths, starts, groups = np.empty((3, n), np.int64)
    ranges, slots = np.empty((5, n), np.int64), np.empty(slot_count(n), np.int64)
    count, size, events = _share(examples, limit, _AS_THEY_COME, slots, groups, ranges, starts, lengths)
    if count == _NEEDS_ORDER:  # some rows of a user are far from the others
        shown = np.minimum(runs.length, limit)
        stop = runs.start + runs.length
        order = np.lexsort((-stop, stop - shown))
        count, size, events = _share(examples, limit, order, slots, groups, ranges, starts, lengths)
    if count < 0:
        return None
    return SharedRows(starts, lengths, np.ascontiguousarray(ranges[:, :count]), size, events)


def decode_straight(
    tables: Tables, ranges: NDArray[np.int64], size: int, stored: StoredColumns, pool: BufferPool, verify: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]], int, int]:
    """The values of all columns, the masks of those with nulls, and the stripes touched and their bytes.

    Raises: CorruptionError: a damaged block.
    """
    decoded = decode_stored(tables, ranges, size, stored, pool, verify)
    return *decoded.by_name(stored.names), decoded.stripe_count, decoded.size_bytes


@kernel
def _lay_out(
    status: Any,
    shard: Any,
    user: Any,
    run_offsets: Any,
    run_start: Any,
    run_length: Any,
    first: int,
    limit: int,
    slots: Any,
    offsets: Any,
    ranges: Any,
) -> int:
    """`lay_out`. Returns: how many ranges there are, or -1 where it is not so simple."""
    n, count, size, repeated = ranges.shape[1], 0, 0, 0
    if run_offsets[first + n] - run_offsets[first] != n:
        return -1
    slots[:] = -1
    offsets[0] = 0
    for i in range(n):
        example, run = first + i, run_offsets[first] + i
        if status[example] != 0:
            return -1
        shown = min(run_length[run], limit)
        if shown > 0:
            slot = slot_of(slots, shard, user, len(user), example)
            if slots[slot] >= 0:
                repeated += 1
                if repeated > MOST_REPEATED * n:
                    return -1
            slots[slot] = example
            stop = run_start[run] + run_length[run]
            ranges[0, count], ranges[1, count] = shard[example], user[example]
            ranges[2, count], ranges[3, count], ranges[4, count] = stop - shown, stop, size
            size += shown
            count += 1
        offsets[i + 1] = size
    return count


@kernel
def _share(
    examples: Any, limit: int, order: Any, slots: Any, groups: Any, ranges: Any, starts: Any, lengths: Any
) -> tuple[int, int, int]:
    """`lay_out_shared`: one range per group of examples that share, by the rule of `plan`, which knows tails, too.

    Args: order: of examples, by where their rows begin, the longest first; or none: as they come. groups: room.
    Returns: how many ranges there are, how many events they have, and how many the examples; instead of ranges
        _NEEDS_ORDER, if it takes an order to tell which are near each other, or _NOT_SIMPLE.
    """
    status, shard, user, run_start, run_length = examples
    count, events, before, slot = 0, 0, -1, 0
    slots[:] = -1
    for k in range(len(status)):
        i = order[k] if len(order) else k
        if status[i] != 0:
            return _NOT_SIMPLE, 0, 0
        stop = run_start[i] + run_length[i]
        lengths[i] = min(run_length[i], limit)
        start = stop - lengths[i]
        events += lengths[i]
        if lengths[i] == 0:
            groups[i] = -1
            continue
        if before < 0 or user[i] != user[before] or shard[i] != shard[before]:  # mostly a user's come one after another
            slot = slot_of(slots, shard, user, len(user), i)
        before, group = i, groups[slots[slot]] if slots[slot] >= 0 else -1
        if group >= 0:
            first, last = ranges[2, group], ranges[3, group]
            if pays(last, start, stop) if start >= first else pays(stop, first, last):
                ranges[2, group], ranges[3, group] = min(first, start), max(last, stop)
            elif len(order) == 0:
                return _NEEDS_ORDER, 0, 0
            else:
                group = -1
        if group < 0:
            group, count = count, count + 1
            ranges[0, group], ranges[1, group], ranges[2, group], ranges[3, group] = shard[i], user[i], start, stop
        slots[slot], groups[i] = i, group
    size = 0
    for group in range(count):
        ranges[4, group] = size
        size += ranges[3, group] - ranges[2, group]
    for i in range(len(status)):
        group, starts[i] = groups[i], 0
        if group >= 0:
            starts[i] = ranges[4, group] + run_start[i] + run_length[i] - lengths[i] - ranges[2, group]
    return count, size, events
