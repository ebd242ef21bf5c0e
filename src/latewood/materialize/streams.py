"""Streams: of every history, the newest events of each kind, in the order of time.

Filter first, cut last: an event is in a stream if it meets the stream's condition and fewer than so many later ones do.
What no stream holds is left out; what several hold is there once.

Which events these are is found from the newest backwards (find.py); then the columns are picked for these alone.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, column_to_arrow, concat_columns
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import Candidates
from latewood.materialize.compile import compile_conditions
from latewood.materialize.decode import WantedColumn
from latewood.materialize.find import BeyondError, Found, find_events
from latewood.materialize.ids import UnknownCodeError
from latewood.projection import Projection
from latewood.stripes.decode import Output
from latewood.stripes.lists import decode_list_column
from latewood.stripes.pick import Picks, group_rows, pick_columns
from latewood.stripes.search import Search
from latewood.stripes.shard import Tables


class LookedAt(NamedTuple):
    """What conditions look at: a column as the generation stores it, its recent events, and what its values are."""

    wanted: WantedColumn
    recent: TraitColumn
    type: pa.DataType
    words: pa.Array | None  # code → value, where it is coded


class Streams:
    """A projection's streams, compiled for the generation that was read last. Thread-safe."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._counts = np.array([stream.count for _, stream in projection.kinds], np.int64)
        self._compiled: tuple[list[LookedAt], Search] | None = None

    def find(
        self,
        tables: Tables,
        candidates: Candidates,
        merged: tuple[NDArray[np.int64], NDArray[np.int64]],
        columns: Sequence[LookedAt],
        pool: BufferPool,
        verify: bool,
    ) -> Found:
        """The events that the streams hold.

        Args: merged: what `merge` says. columns: what the conditions look at.
        Raises: CorruptionError: a damaged block. UnknownCodeError.
        """
        search, max_len = self._compile(columns), self._projection.max_len
        recent_count = int(candidates.recent_stop.max(initial=0))
        bits = _bits_of_recents(columns, self._projection, recent_count)
        try:
            return find_events(tables, candidates, merged, search, self._counts, bits, max_len, verify, pool)
        except BeyondError as error:
            raise _beyond(next(of for of in columns if of.wanted.column == error.column)) from None

    def _compile(self, columns: Sequence[LookedAt]) -> Search:
        """Anew where columns or their values are others than before."""
        known = self._compiled
        if known is not None and all(map(_mean_the_same, known[0], columns)):
            return known[1]
        wanted = {column.wanted.name: column.wanted for column in columns}
        words = {column.wanted.name: column.words for column in columns if column.words is not None}
        search = compile_conditions([stream.where for _, stream in self._projection.kinds], wanted, words)
        self._compiled = list(columns), search
        return search


def _mean_the_same(one: LookedAt, other: LookedAt) -> bool:
    return one.wanted == other.wanted and one.words is other.words


def _bits_of_recents(columns: Sequence[LookedAt], projection: Projection, count: int) -> NDArray[np.int64]:
    """Whose streams' conditions each recent event meets. Shapes: (r,)."""
    bits = np.zeros(count, np.int64)
    if not count:
        return bits
    arrays = {column.wanted.name: _to_arrow(column) for column in columns}
    for i, (_, stream) in enumerate(projection.kinds):
        meets = np.True_ if stream.where is None else stream.where.evaluate(arrays)
        bits |= meets.astype(np.int64) << i
    return bits


def _to_arrow(column: LookedAt) -> Any:
    """Recent values for conditions: codes stay codes, so that each value is looked at once."""
    recent = column.recent
    if isinstance(recent, Lists):  # of which nothing is asked but whether they are null
        return pa.array(np.zeros(recent.event_count, np.bool_), mask=recent.mask)
    if column.words is None:
        return column_to_arrow(recent, column.type)
    try:
        return pa.DictionaryArray.from_arrays(pa.array(recent.values, mask=recent.mask), column.words)
    except (pa.ArrowIndexError, pa.ArrowInvalid):
        raise _beyond(column) from None


def _beyond(column: LookedAt) -> UnknownCodeError:
    count = 0 if column.words is None else len(column.words)
    return UnknownCodeError(f"trait {column.wanted.name!r} has a code beyond its {count} values")


class PickedColumns(NamedTuple):
    """The columns of the events found, and what they cost: rows picked, stripes touched, and their bytes."""

    columns: dict[str, TraitColumn]
    row_count: int
    stripe_count: int
    size_bytes: int


def pick_found(
    tables: Tables,
    candidates: Candidates,
    found: Found,
    columns: Sequence[tuple[WantedColumn, TraitColumn]],
    pool: BufferPool,
    verify: bool,
) -> PickedColumns:
    """Columns of the events found alone. Args: columns: each with its recent events.

    Raises: CorruptionError: a damaged block.
    """
    picks = group_rows(tables, candidates.rows.shard, candidates.rows.user, found.offsets, found.source, pool.empty)
    made: dict[str, TraitColumn] = {}
    plain = [(want, recent) for want, recent in columns if isinstance(recent, Column)]
    buffers = [_buffers(tables, len(picks.rows), want, recent, pool) for want, recent in plain]
    stored = [
        Output(want.column, *buffer)
        for (want, _), buffer in zip(plain, buffers, strict=True)
        if want.column is not None
    ]
    decoded = pick_columns(tables, picks, stored, verify)
    nulls = iter(decoded.nulls)
    recents = np.flatnonzero(picks.rows < 0)
    for (want, recent), (values, mask) in zip(plain, buffers, strict=True):
        met_nulls = want.column is None or next(nulls)
        made[want.name] = _with_recents(values, mask, recent, recents, ~picks.rows[recents], met_nulls=met_nulls)
    for want, of_lists in columns:
        if isinstance(of_lists, Lists):
            made[want.name] = _pick_lists(tables, picks, want, of_lists, verify)
    in_order = {want.name: made[want.name] for want, _ in columns}
    return PickedColumns(in_order, picks.stored_count, decoded.stripe_count, decoded.size_bytes)


def _buffers(
    tables: Tables, size: int, want: WantedColumn, recent: Column, pool: BufferPool
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Room for a column and, if it can have nulls, for its mask; filled where nothing is stored."""
    values = pool.empty(size, want.dtype)
    if want.column is None:
        values[:] = 0
        return values, np.ones(size, np.bool_)
    may_be_null = want.nullable and bool(tables.has_nulls[want.column : want.column + 1].any())
    return values, pool.empty(size, np.bool_) if may_be_null or recent.mask is not None else None


def _with_recents(
    values: NDArray[Any],
    mask: NDArray[np.bool_] | None,
    recent: Column,
    places: NDArray[np.int64],
    of_recents: NDArray[np.int64],
    *,
    met_nulls: bool,
) -> Column:
    """A column with the recent events at their places; its mask only if there is a null."""
    if len(places):
        values[places] = recent.values[of_recents]
        if mask is not None:
            mask[places] = False if recent.mask is None else recent.mask[of_recents]
    any_null = mask is not None and (met_nulls or recent.mask is not None) and mask.any()
    return Column(values, mask if any_null else None)


def _pick_lists(tables: Tables, picks: Picks, want: WantedColumn, recent: Lists, verify: bool) -> Lists:
    """Lists are decoded from each stripe's first to its last that is wanted; what is between stays out."""
    size, stored = 0, picks.rows >= 0
    places = ~picks.rows
    if want.column is None or not len(picks.groups):
        parts: list[TraitColumn] = [_no_lists(recent), recent]
        places = np.where(stored, 0, places + 1)
    else:
        ranges, decoded_at = picks.ranges()
        size = int((ranges.stop - ranges.start).sum())
        parts = [decode_list_column(tables, ranges, want.column, size, want.list_size, verify), recent]
        places = np.where(stored, decoded_at, places + size)
    lists = concat_columns(parts).take(places)
    assert isinstance(lists, Lists)
    return lists if lists.mask is None or lists.mask.any() else lists._replace(mask=None)


def _no_lists(like: Lists) -> Lists:
    """One null."""
    return Lists(like.items[:0], np.zeros(1, np.int64), np.zeros(1, np.int32), np.ones(1, np.bool_))
