"""Decode: each trait of a planned batch, straight into its place, completed by what is copied.

One call of the stripes' kernel per trait decodes every range of the plan, across users and shards; then the segments
bring in what is shared, and the recent events. Null masks are kept only where a null is in the batch.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.materialize.assemble import Segments, copy_segments
from latewood.materialize.buffers import BufferPool
from latewood.materialize.plan import Plan
from latewood.stripes.decode import decode_column
from latewood.stripes.shard import Tables


class Wanted(NamedTuple):
    """One column of a projection."""

    name: str
    trait: int | None  # its id; None is event_ts
    column: int | None  # its number in the shards; None where the generation is older than the trait
    dtype: np.dtype[Any]
    nullable: bool


def decode(
    tables: Tables,
    plan: Plan,
    segments: Segments,
    wanted: Wanted,
    recents: Column,
    events: int,
    pool: BufferPool,
    verify: bool,
) -> Column:
    """One column of the batch. Shapes: recents (r,) → values (events,), mask (events,) or None.

    Raises: CorruptionError: a damaged block; the message names the file and the place in it.
    """
    buffer = pool.empty(plan.size, wanted.dtype)
    nulls = recents.mask is not None
    mask = pool.empty(plan.size, np.bool_) if nulls or _may_be_null(tables, wanted) else None
    if wanted.column is None:
        buffer[:], nulls = 0, True
        mask = np.ones(plan.size, np.bool_)
    elif len(plan.ranges):
        nulls |= decode_column(tables, plan.ranges, wanted.column, buffer, mask, verify)
    if len(segments):
        copy_segments(segments, buffer, recents.values)
    values = buffer[:events]
    if not nulls or mask is None:
        return Column(values)
    if len(segments):
        copy_segments(segments, mask, _mask_of(recents))
    return Column(values, _if_any(mask[:events]))


def _may_be_null(tables: Tables, wanted: Wanted) -> bool:
    """Most columns that may have nulls have none: then no mask is written."""
    return (
        wanted.nullable
        and wanted.column is not None
        and bool(tables.has_nulls[wanted.column : wanted.column + 1].any())
    )


def _mask_of(column: Column) -> NDArray[np.bool_]:
    return np.zeros(len(column.values), np.bool_) if column.mask is None else column.mask


def _if_any(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Nulls may have been met only in rows that no example sees."""
    return mask if mask.any() else None
