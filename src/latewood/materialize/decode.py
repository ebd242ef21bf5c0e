"""Decode: the traits of a planned batch, straight into their places, completed by what is copied.

One call of the stripes' kernel decodes every range of the plan, across traits, users and shards; then the segments
bring in what is shared, and the recent events. Null masks are kept only where a null is in the batch.

A list trait is two such columns, where each event's items begin and how many they are, and a pool of items: the decoded
ones, and those of the recent events behind them. What is copied are the two numbers; the items stay where they are.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn
from latewood.materialize.assemble import Segments, copy_by_address, copy_segments
from latewood.materialize.buffers import BufferPool
from latewood.materialize.plan import Plan
from latewood.stripes.decode import HAS_NULLS, MASK, VALUES, decode_described
from latewood.stripes.gather import gather_lists, gather_rows
from latewood.stripes.lists import ListsOutput, decode_lists
from latewood.stripes.runs import WHOLE, Pieces
from latewood.stripes.shard import Tables

_BOOL = [np.dtype(np.bool_)]
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


class StoredColumns(NamedTuple):
    """Those columns of a projection that are stored and no lists.

    Shapes: described (columns, 5): as kernels see outputs, but for where they are.
    """

    names: tuple[str, ...]
    columns: list[int]
    dtypes: list[np.dtype[Any]]
    nullable: list[int]  # the places, among these columns, of those that may have nulls
    described: NDArray[np.uint64]

    @classmethod
    def among(cls, wanted: Sequence[WantedColumn]) -> "StoredColumns":
        stored = [(want, want.column) for want in wanted if want.column is not None and not want.is_list]
        return cls(
            tuple(want.name for want, _ in stored),
            [column for _, column in stored],
            [want.dtype for want, _ in stored],
            [place for place, (want, _) in enumerate(stored) if want.nullable],
            np.array([(column, want.dtype.itemsize, 0, 0, 0) for want, column in stored], np.uint64).reshape(-1, 5),
        )


class Wanted(NamedTuple):
    """The columns of a projection in one generation."""

    columns: list[WantedColumn]
    stored: StoredColumns  # those of them that are there and no lists

    @classmethod
    def of(cls, columns: list[WantedColumn]) -> "Wanted":
        return cls(columns, StoredColumns.among(columns))

    @property
    def are_stored(self) -> bool:
        """Whether all are there, and none is a list."""
        return len(self.stored.names) == len(self.columns)


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is decoded from where, and where to. Every column gives its first `events` elements."""

    tables: Tables
    plan: Plan
    segments: Segments
    events: int
    pool: BufferPool
    verify: bool


class DecodedArrays(NamedTuple):
    """Stored columns, decoded. Shapes: values (size,) each; masks (size,)."""

    values: list[NDArray[Any]]
    masks: dict[int, NDArray[np.bool_]]  # by the column's place, of those that met a null or get one later
    described: NDArray[np.uint64]  # the columns as kernels see them
    stripe_count: int
    size_bytes: int

    def by_name(self, names: Sequence[str]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
        """The values of all columns, and the masks of those that have a null. Args: names: of the columns."""
        masks = {names[place]: mask for place, mask in self.masks.items() if mask.any()}
        return dict(zip(names, self.values, strict=True)), masks


class DecodedColumns(NamedTuple):
    """The columns of a batch, and what they cost: stripes touched, and their bytes."""

    columns: dict[str, TraitColumn]
    stripe_count: int
    size_bytes: int


def decode_stored(
    tables: Tables,
    ranges: NDArray[np.int64],
    size: int,
    stored: StoredColumns,
    pool: BufferPool,
    verify: bool,
    masked: Collection[int] = (),
    pieces: Pieces = WHOLE,
) -> DecodedArrays:
    """Decode ranges of all stored columns into arrays of one size.

    Args: ranges: the matrix of `Ranges`. masked: places of columns that get nulls later. pieces: of the ranges.
    Raises: CorruptionError: a damaged block.
    """
    arrays, described = pool.empties(size, stored.dtypes), stored.described.copy()
    for place, (_, address) in enumerate(arrays):
        described[place, VALUES] = address
    masks, has_nulls = dict[int, NDArray[np.bool_]](), tables.has_nulls
    for place in stored.nullable:  # most columns that may have nulls have none: then no mask is written
        column = stored.columns[place]
        if place in masked or (column < len(has_nulls) and has_nulls.item(column)):
            [(masks[place], described[place, MASK])] = pool.empties(size, _BOOL)
    touched = decode_described(tables, ranges, described, size, verify, pieces)
    met = {place: mask for place, mask in masks.items() if described[place, HAS_NULLS] or place in masked}
    return DecodedArrays([array for array, _ in arrays], met, described, *touched)


def columns_with_nulls(recents: Sequence[Column]) -> list[int]:
    """Which columns get nulls from the recent events."""
    return [place for place, recent in enumerate(recents) if recent.mask is not None]


def copy_recents(segments: Segments, decoded: DecodedArrays, recents: Sequence[Column]) -> None:
    """Carry out the segments for decoded columns. Args: recents: the recent events, column by column."""
    if not len(segments):
        return
    copied = [
        (target, recent.values.ctypes.data if len(recent.values) else 0, recent.values.itemsize)
        for target, recent in zip(decoded.described[:, VALUES].tolist(), recents, strict=True)
    ]
    marks = {place: _mask_of(recents[place]) for place in decoded.masks}
    copied += [(int(decoded.described[place, MASK]), mark.ctypes.data, 1) for place, mark in marks.items()]
    copy_by_address(segments, copied)


def decode(work: Work, wanted: Wanted, recents: Sequence[TraitColumn]) -> DecodedColumns:
    """All columns of the batch. Args: recents: the recent events, column by column.

    Shapes: recents (r,) → values (events,), mask (events,) or None.
    Raises: CorruptionError: a damaged block; the message names the file and the place in it.
    """
    pairs = list(zip(wanted.columns, recents, strict=True))
    by_name = {want.name: recent for want, recent in pairs if isinstance(recent, Column)}
    columns, *touched = _decode_plain(work, wanted.stored, by_name)
    for want, recent in pairs:
        if isinstance(recent, Lists):
            columns[want.name], *cost = _decode_lists(work, want, recent)
            touched = [a + b for a, b in zip(touched, cost, strict=True)]
        elif want.column is None:
            columns[want.name] = _nulls(work, want, recent)
    return DecodedColumns({want.name: columns[want.name] for want in wanted.columns}, *touched)


def _decode_plain(
    work: Work, stored: StoredColumns, recents: Mapping[str, Column]
) -> tuple[dict[str, TraitColumn], int, int]:
    """The stored columns that are no lists, and stripes and bytes touched."""
    plan, columns = work.plan, [recents[name] for name in stored.names]
    ranges, masked = plan.ranges.matrix, columns_with_nulls(columns)
    decoded = decode_stored(work.tables, ranges, plan.size, stored, work.pool, work.verify, masked)
    copy_recents(work.segments, decoded, columns)
    made: dict[str, TraitColumn] = {}
    for place, (name, values) in enumerate(zip(stored.names, decoded.values, strict=True)):
        mask = decoded.masks.get(place)
        made[name] = Column(values[: work.events], None if mask is None else _if_any(mask[: work.events]))
    return made, decoded.stripe_count, decoded.size_bytes


def _nulls(work: Work, want: WantedColumn, recent: Column) -> Column:
    """A column that the generation is older than: null, but for recent events."""
    size = work.plan.size
    values, mask = work.pool.empty(size, want.dtype), np.ones(size, np.bool_)
    values[:] = 0
    copy_segments(work.segments, [(values, recent.values), (mask, _mask_of(recent))])
    return Column(values[: work.events], _if_any(mask[: work.events]))


def _decode_lists(work: Work, want: WantedColumn, recent: Lists) -> tuple[Lists, int, int]:
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
    work: Work,
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


def _may_be_null(tables: Tables, wanted: WantedColumn) -> bool:
    """Whether a mask has to be written."""
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
