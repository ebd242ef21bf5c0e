"""Decode: the traits of a planned batch, straight into their places, completed by what is copied.

One call of the stripes' kernel decodes every range of the plan, across traits, users and shards; then the segments
bring in what is shared, and the recent events. Null masks are kept only where a null is in the batch.

A list trait is two such columns, where each event's items begin and how many they are, and a pool of items: the decoded
ones, and those of the recent events behind them. What is copied are the two numbers; the items stay where they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn
from latewood.materialize.assemble import Segments, copy_segments
from latewood.materialize.buffers import BufferPool
from latewood.materialize.plan import Plan
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.gather import gather_lists, gather_rows
from latewood.stripes.lists import ListsOutput, decode_lists
from latewood.stripes.shard import Tables

_PLACE_BYTES = 12  # of a list: where its items begin, and how many they are


class WantedColumn(NamedTuple):
    """One column of a projection."""

    name: str
    trait: int | None  # its id; None is event_ts
    column: int | None  # its number in the shards; None where the generation is older than the trait
    dtype: np.dtype[Any]
    nullable: bool
    is_list: bool = False
    list_size: int | None = None  # of lists of one size

    @property
    def decoded_bytes(self) -> int:
        """What an event takes in memory; of lists of any length without their items."""
        if not self.is_list:
            return self.dtype.itemsize + self.nullable
        return _PLACE_BYTES + self.dtype.itemsize * (self.list_size or 0) + self.nullable


class DecodedColumns(NamedTuple):
    """The columns of a batch, and what they cost: stripes touched, and their bytes."""

    columns: dict[str, TraitColumn]
    stripe_count: int
    size_bytes: int


def decode(
    tables: Tables,
    plan: Plan,
    segments: Segments,
    wanted: Sequence[WantedColumn],
    recents: Sequence[TraitColumn],
    events: int,
    pool: BufferPool,
    verify: bool,
) -> DecodedColumns:
    """All columns of the batch. Shapes: recents (r,) → values (events,), mask (events,) or None.

    Raises: CorruptionError: a damaged block; the message names the file and the place in it.
    """
    work = _Work(tables, plan, segments, events, pool, verify)
    plain = [(want, recent) for want, recent in zip(wanted, recents, strict=True) if isinstance(recent, Column)]
    columns, *touched = _decode_plain(work, plain)
    for want, recent in zip(wanted, recents, strict=True):
        if isinstance(recent, Lists):
            columns[want.name], *cost = _decode_lists(work, want, recent)
            touched = [a + b for a, b in zip(touched, cost, strict=True)]
    return DecodedColumns({want.name: columns[want.name] for want in wanted}, *touched)


@dataclass(frozen=True, slots=True, eq=False)
class _Work:
    """What is decoded from where, and where to."""

    tables: Tables
    plan: Plan
    segments: Segments
    events: int
    pool: BufferPool
    verify: bool


def _decode_plain(
    work: _Work, columns: Sequence[tuple[WantedColumn, Column]]
) -> tuple[dict[str, TraitColumn], int, int]:
    """The columns that are no lists, and stripes and bytes touched."""
    buffers = [_buffers(work, want, recent) for want, recent in columns]
    stored = [
        Output(want.column, *buffer)
        for (want, _), buffer in zip(columns, buffers, strict=True)
        if want.column is not None
    ]
    decoded = decode_columns(work.tables, work.plan.ranges, stored, work.verify)
    met_nulls = iter(decoded.nulls)
    # null where the generation is older than the trait, where a stripe has nulls, or where a recent event has
    nulls = [(want.column is None or next(met_nulls)) or recent.mask is not None for want, recent in columns]
    masks = [mask if has_nulls else None for (_, mask), has_nulls in zip(buffers, nulls, strict=True)]
    if len(work.segments):
        pairs = [(values, recent.values) for (values, _), (_, recent) in zip(buffers, columns, strict=True)]
        pairs += [
            (mask, _mask_of(recent)) for mask, (_, recent) in zip(masks, columns, strict=True) if mask is not None
        ]
        copy_segments(work.segments, pairs)
    made: dict[str, TraitColumn] = {
        want.name: Column(values[: work.events], None if mask is None else _if_any(mask[: work.events]))
        for (want, _), (values, _), mask in zip(columns, buffers, masks, strict=True)
    }
    return made, decoded.stripe_count, decoded.size_bytes


def _decode_lists(work: _Work, want: WantedColumn, recent: Lists) -> tuple[Lists, int, int]:
    """One list trait, and stripes and bytes touched. An element that is nothing's has a list of no items."""
    recent, size, pool = recent.compact(), work.plan.size, work.pool
    starts, lengths = pool.empty(size, np.int64), pool.empty(size, np.int32)
    starts[:], lengths[:] = 0, 0
    mask: NDArray[np.bool_] | None = None
    if want.column is None:
        mask = np.ones(size, np.bool_)
    elif recent.mask is not None or _may_be_null(work.tables, want):
        mask = pool.empty(size, np.bool_)
    items = _decode_items(work, want, recent, starts, lengths, mask)
    if not (want.column is None or items.met_nulls or recent.mask is not None):
        mask = None
    if len(work.segments):
        pairs: list[tuple[NDArray[Any], NDArray[Any]]] = [
            (starts, recent.starts + items.recent_from),
            (lengths, np.ascontiguousarray(recent.lengths)),
        ]
        copy_segments(work.segments, pairs if mask is None else [*pairs, (mask, _mask_of(recent))])
    n = work.events
    lists = Lists(items.items, starts[:n], lengths[:n], None if mask is None else _if_any(mask[:n]))
    return lists, items.stripe_count, items.size_bytes


class _Items(NamedTuple):
    """The items of a list trait: what is stored, and from `recent_from` on those of the recent events."""

    items: NDArray[Any]
    recent_from: int = 0
    met_nulls: bool = False
    stripe_count: int = 0
    size_bytes: int = 0


def _decode_items(
    work: _Work,
    want: WantedColumn,
    recent: Lists,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    mask: NDArray[np.bool_] | None,
) -> _Items:
    if want.column is None or not len(work.plan.ranges):
        return _Items(recent.items)
    room: list[NDArray[Any]] = []  # of both, once it is known how many are stored

    def empty(count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        room.append(work.pool.empty(count + len(recent.items), dtype))
        return room[0][:count]

    output = ListsOutput(want.column, starts, lengths, mask, want.list_size)
    decoded = decode_lists(work.tables, work.plan.ranges, output, work.verify, empty)
    [items], stored = room, len(decoded.items)
    items[stored:] = recent.items
    return _Items(items, stored, decoded.nulls, decoded.stripe_count, decoded.size_bytes)


def _buffers(work: _Work, wanted: WantedColumn, recents: Column) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Room for a column and, if it can have nulls, for its mask; filled where nothing is stored."""
    size, pool = work.plan.size, work.pool
    values = pool.empty(size, wanted.dtype)
    if wanted.column is None:
        values[:] = 0
        return values, np.ones(size, np.bool_)
    needs_mask = recents.mask is not None or _may_be_null(work.tables, wanted)
    return values, pool.empty(size, np.bool_) if needs_mask else None


def _may_be_null(tables: Tables, wanted: WantedColumn) -> bool:
    """Most columns that may have nulls have none: then no mask is written."""
    return (
        wanted.nullable
        and wanted.column is not None
        and wanted.column < len(tables.has_nulls)
        and tables.has_nulls.item(wanted.column)
    )


def _mask_of(column: TraitColumn) -> NDArray[np.bool_]:
    return np.zeros(column.event_count, np.bool_) if column.mask is None else column.mask


def _if_any(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Nulls may have been met only in rows that no example sees."""
    return mask if mask.any() else None


def lists_among(columns: dict[str, TraitColumn]) -> dict[str, Lists]:
    """Those that are lists."""
    return {name: column for name, column in columns.items() if isinstance(column, Lists)}


def gathered(lists: Lists, list_size: int | None, pool: BufferPool) -> NDArray[Any]:
    """The items of a batch's events in their order: back to back, or as rows of one size, of zeros where null."""
    if list_size is None:
        return gather_lists(lists, pool.empty(int(lists.lengths.sum(dtype=np.int64)), lists.dtype)).items
    rows = pool.empty(lists.event_count * list_size, lists.dtype).reshape(-1, list_size)
    gather_rows(lists, list_size, rows)
    return rows
