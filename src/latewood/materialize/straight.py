"""Straight: batches in which every example is one run of stored rows, of a user of its own, and nothing else.

So are most batches of examples whose histories are clean, and of them nothing has to be chosen, shared, merged or copied:
where an example's rows begin and where they go is a sum. One kernel finds out whether a batch is so, and lays it out on the
way; the columns are decoded straight into the output. It gives what the general way gives (choose, split, plan, decode),
with a tenth of its calls: each of those finds the processor's caches full of the batch before
(docs/decisions/0037-what-a-batch-costs-whatever-its-size.md).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.immutable.resolve import Resolution
from latewood.kernels import kernel
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import NO_LIMIT
from latewood.materialize.decode import WantedColumn
from latewood.materialize.plan import slot_of
from latewood.stripes.decode import HAS_NULLS, MASK, VALUES, decode_described
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables


class LaidOut(NamedTuple):
    """Where the events of n examples go. Shapes: offsets (n + 1,)."""

    offsets: NDArray[np.int64]
    ranges: NDArray[np.int64]  # as the matrix of `Ranges`


class StoredColumns(NamedTuple):
    """The columns of a projection where all of them are stored and none is of lists.

    Shapes: described (columns, 5): as kernels see outputs, but for where they are.
    """

    names: tuple[str, ...]
    columns: list[int]
    dtypes: list[np.dtype[Any]]
    nullable: list[int]  # places of those that may have nulls
    described: NDArray[np.uint64]


def stored_columns(wanted: list[WantedColumn]) -> StoredColumns | None:
    """None where one is younger than the generation, or of lists."""
    columns = [want.column for want in wanted if want.column is not None and not want.is_list]
    if len(columns) != len(wanted):
        return None
    described = [(column, want.dtype.itemsize, 0, 0, 0) for column, want in zip(columns, wanted, strict=True)]
    return StoredColumns(
        tuple(want.name for want in wanted),
        columns,
        [want.dtype for want in wanted],
        [place for place, want in enumerate(wanted) if want.nullable],
        np.array(described, np.uint64).reshape(-1, 5),
    )


def lay_out(resolution: Resolution, max_len: int | None) -> LaidOut | None:
    """Where everything goes; None if some example is not one run of rows of a user of its own, or did not resolve.

    For examples without recent events.
    """
    n = len(resolution.status)
    runs = resolution.runs
    if len(runs.start) != n:
        return None
    offsets, ranges = np.empty(n + 1, np.int64), np.empty((5, n), np.int64)
    slots = np.empty(1 << (2 * n).bit_length(), np.int64)
    count = _lay_out(
        resolution.status,
        resolution.shard,
        resolution.user,
        runs.start,
        runs.length,
        int(NO_LIMIT) if max_len is None else max_len,
        slots,
        offsets,
        ranges,
    )
    if count < 0:
        return None
    return LaidOut(offsets, ranges if count == n else np.ascontiguousarray(ranges[:, :count]))


def decode_straight(
    tables: Tables, laid_out: LaidOut, stored: StoredColumns, pool: BufferPool, verify: bool
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]], int, int]:
    """The values of all columns, the masks of those with nulls, and the stripes touched and their bytes.

    Raises: CorruptionError: a damaged block.
    """
    size = int(laid_out.offsets[-1])
    arrays, described = pool.empties(size, stored.dtypes), stored.described.copy()
    described[:, VALUES] = [address for _, address in arrays]
    masks: dict[int, NDArray[np.bool_]] = {}
    for place in stored.nullable:  # most columns that may have nulls have none
        if tables.has_nulls.item(stored.columns[place]):
            [(masks[place], described[place, MASK])] = pool.empties(size, [np.dtype(np.bool_)])
    touched = decode_described(tables, Ranges.of(laid_out.ranges), described, size, verify)
    values = {name: array for name, (array, _) in zip(stored.names, arrays, strict=True)}
    met = {stored.names[place]: mask for place, mask in masks.items() if described[place, HAS_NULLS] and mask.any()}
    return values, met, *touched


@kernel
def _lay_out(
    status: Any,
    shard: Any,
    user: Any,
    start: Any,
    length: Any,
    limit: int,
    slots: Any,
    offsets: Any,
    ranges: Any,
) -> int:
    """`lay_out`. Returns: how many ranges there are, or -1 where it is not so simple."""
    for slot in range(len(slots)):
        slots[slot] = -1
    n, count, size = len(status), 0, 0
    offsets[0] = 0
    for i in range(n):
        if status[i] != 0:
            return -1
        shown = min(length[i], limit)
        if shown > 0:
            slot = slot_of(slots, shard, user, n, i)
            if slots[slot] >= 0:
                return -1
            slots[slot] = i
            stop = start[i] + length[i]
            ranges[0, count], ranges[1, count] = shard[i], user[i]
            ranges[2, count], ranges[3, count], ranges[4, count] = stop - shown, stop, size
            size += shown
            count += 1
        offsets[i + 1] = size
    return count
