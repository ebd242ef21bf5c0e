"""Decode: the traits of a planned batch, straight into their places, completed by what is copied.

One call of the stripes' kernel decodes every range of the plan, across traits, users and shards; then the segments
bring in what is shared, and the recent events. Null masks are kept only where a null is in the batch.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.materialize.assemble import Segments, copy_segments
from latewood.materialize.buffers import BufferPool
from latewood.materialize.plan import Plan
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.shard import Tables


class Wanted(NamedTuple):
    """One column of a projection."""

    name: str
    trait: int | None  # its id; None is event_ts
    column: int | None  # its number in the shards; None where the generation is older than the trait
    dtype: np.dtype[Any]
    nullable: bool


class DecodedColumns(NamedTuple):
    """The columns of a batch, and what they cost: stripes touched, and their bytes."""

    columns: dict[str, Column]
    stripe_count: int
    size_bytes: int


def decode(
    tables: Tables,
    plan: Plan,
    segments: Segments,
    wanted: Sequence[Wanted],
    recents: Sequence[Column],
    events: int,
    pool: BufferPool,
    verify: bool,
) -> DecodedColumns:
    """All columns of the batch. Shapes: recents (r,) → values (events,), mask (events,) or None.

    Raises: CorruptionError: a damaged block; the message names the file and the place in it.
    """
    buffers = [_buffers(tables, plan, want, recent, pool) for want, recent in zip(wanted, recents, strict=True)]
    stored = [
        Output(want.column, *buffer) for want, buffer in zip(wanted, buffers, strict=True) if want.column is not None
    ]
    decoded = decode_columns(tables, plan.ranges, stored, verify)
    met_nulls = iter(decoded.nulls)
    # null where the generation is older than the trait, where a stripe has nulls, or where a recent event has
    nulls = [
        (want.column is None or next(met_nulls)) or recent.mask is not None
        for want, recent in zip(wanted, recents, strict=True)
    ]
    masks = [mask if has_nulls else None for (_, mask), has_nulls in zip(buffers, nulls, strict=True)]
    if len(segments):
        pairs = [(values, recent.values) for (values, _), recent in zip(buffers, recents, strict=True)]
        pairs += [(mask, _mask_of(recent)) for mask, recent in zip(masks, recents, strict=True) if mask is not None]
        copy_segments(segments, pairs)
    columns = {
        want.name: Column(values[:events], None if mask is None else _if_any(mask[:events]))
        for want, (values, _), mask in zip(wanted, buffers, masks, strict=True)
    }
    return DecodedColumns(columns, decoded.stripe_count, decoded.size_bytes)


def _buffers(
    tables: Tables, plan: Plan, wanted: Wanted, recents: Column, pool: BufferPool
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Room for a column and, if it can have nulls, for its mask; filled where nothing is stored."""
    values = pool.empty(plan.size, wanted.dtype)
    if wanted.column is None:
        values[:] = 0
        return values, np.ones(plan.size, np.bool_)
    needs_mask = recents.mask is not None or _may_be_null(tables, wanted)
    return values, pool.empty(plan.size, np.bool_) if needs_mask else None


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
