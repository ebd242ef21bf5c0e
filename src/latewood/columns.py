"""Between Arrow arrays and the numpy columns that stripes, tiers and batches hold.

A column is values and, where nulls occur, a mask: True where null, and the value there is 0. A column of lists is a view
of a pool of items: what permutes events moves two numbers for each and leaves the items where they are, and what writes
them down makes them `compact` first.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.errors import SchemaError
from latewood.lists import LIST_ITEMS_MAX, ListParts, is_list, join_lists, offsets_of, positions, split_lists
from latewood.schema import TIME_TYPE, Trait, is_text

_INT64 = pa.int64()
_FEW = 16  # rows: requests come one by one


class Column(NamedTuple):
    """One trait of n events. Shapes: values (n,), of the trait's dtype; mask (n,) bool, True where null, or None."""

    values: NDArray[Any]
    mask: NDArray[np.bool_] | None = None

    @property
    def event_count(self) -> int:
        """n. (The length of a tuple is the number of its fields.)"""
        return len(self.values)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    @property
    def known(self) -> NDArray[Any]:
        """The values that are not null, in no order that means anything."""
        return self.values if self.mask is None else self.values[~self.mask]

    def take(self, rows: NDArray[Any]) -> "Column":
        """The events at these rows, in this order, or those that a mask chooses."""
        return Column(self.values[rows], None if self.mask is None else self.mask[rows])

    def slice(self, start: int, stop: int) -> "Column":
        """The events from `start` to `stop`, as views."""
        return Column(self.values[start:stop], None if self.mask is None else self.mask[start:stop])


class Lists(NamedTuple):
    """A list trait of n events. Event i's items are `items[starts[i] : starts[i] + lengths[i]]`; a null's length is 0.

    Shapes: items (m,), of the trait's dtype, in any order, of which some may be of no event or of several; starts (n,)
    int64; lengths (n,) int32; mask (n,) bool, True where null, or None.
    """

    items: NDArray[Any]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    mask: NDArray[np.bool_] | None = None

    @property
    def event_count(self) -> int:
        """n."""
        return len(self.starts)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the items."""
        return self.items.dtype

    @property
    def known(self) -> NDArray[Any]:
        """The items of these events, in no order that means anything."""
        return self.compact().items

    @property
    def offsets(self) -> NDArray[np.int64]:
        """Where each event's items are once they are compact. Shapes: (n + 1,)."""
        return offsets_of(self.lengths)

    def take(self, rows: NDArray[Any]) -> "Lists":
        """The events at these rows, in this order, or those that a mask chooses; the items stay where they are."""
        mask = None if self.mask is None else self.mask[rows]
        return Lists(self.items, self.starts[rows], self.lengths[rows], mask)

    def slice(self, start: int, stop: int) -> "Lists":
        """The events from `start` to `stop`, as views."""
        mask = None if self.mask is None else self.mask[start:stop]
        return Lists(self.items, self.starts[start:stop], self.lengths[start:stop], mask)

    def compact(self) -> "Lists":
        """With the items of the events back to back, in their order, and no others."""
        offsets = self.offsets
        starts, used = offsets[:-1], self.lengths > 0
        moved = self.starts[used] - starts[used]
        if not len(moved) or (moved == moved[0]).all():
            first = int(moved[0]) if len(moved) else 0
            return Lists(self.items[first : first + offsets[-1]], starts, self.lengths, self.mask)
        return Lists(self.items[positions(self.starts, self.lengths)], starts, self.lengths, self.mask)


TraitColumn = Column | Lists


def compact_lists(items: NDArray[Any], lengths: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> Lists:
    """Lists whose items lie back to back."""
    return Lists(items, offsets_of(lengths)[:-1], lengths.astype(np.int32, copy=False), mask)


def null_column(trait: Trait, count: int) -> TraitColumn:
    """A trait of `count` events that do not have it."""
    return _nulls(count, trait.dtype, trait.is_list)


def nulls_like(column: TraitColumn, count: int) -> TraitColumn:
    """`count` nulls, of the kind of a column."""
    return _nulls(count, column.dtype, isinstance(column, Lists))


def _nulls(count: int, dtype: np.dtype[Any], are_lists: bool) -> TraitColumn:
    mask = np.ones(count, np.bool_) if count else None
    if are_lists:
        return compact_lists(np.zeros(0, dtype), np.zeros(count, np.int32), mask)
    return Column(np.zeros(count, dtype), mask)


def concat_columns(parts: Sequence[TraitColumn]) -> TraitColumn:
    """Several columns of one trait, at least one, as one, in the order given."""
    if len(parts) == 1:
        return parts[0]
    mask = None
    if any(part.mask is not None for part in parts):
        mask = np.concatenate([np.zeros(p.event_count, np.bool_) if p.mask is None else p.mask for p in parts])
    if not isinstance(parts[0], Lists):
        return Column(np.concatenate([part.values for part in parts if isinstance(part, Column)]), mask)
    lists = [_worth_keeping(part) for part in parts if isinstance(part, Lists)]
    pools = {id(part.items): part.items for part in lists}  # slices of one run share theirs
    firsts = dict(zip(pools, offsets_of(np.array([len(pool) for pool in pools.values()])).tolist(), strict=False))
    items = np.concatenate(list(pools.values())) if len(pools) > 1 else lists[0].items
    starts = np.concatenate([part.starts + firsts[id(part.items)] for part in lists])
    return Lists(items, starts, np.concatenate([part.lengths for part in lists]), mask)


def _worth_keeping(lists: Lists) -> Lists:
    """Without its pool, where these events are few of those that it was made for."""
    return lists if 2 * int(lists.lengths.sum()) >= len(lists.items) else lists.compact()


def read_table(data: Any) -> pa.Table:
    """Anything with the Arrow C stream (pyarrow, polars, pandas), or a dictionary of columns, as a table.

    Raises: SchemaError: none of these, or a column that Arrow cannot hold, such as one of mixed types.
    """
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    if not hasattr(data, "__arrow_c_stream__") and not isinstance(data, dict):
        what = "a table (pyarrow, polars, pandas: anything with the Arrow C stream)"
        raise SchemaError(f"expected {what}, not {type(data)}")
    try:
        return pa.table(data)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _unreadable(data, error) from None


def _unreadable(data: Any, error: Exception) -> SchemaError:
    """Which column it is that Arrow refuses, in a dictionary or a data frame."""
    for name, values in data.items() if hasattr(data, "items") else ():
        try:
            pa.array(values)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as refused:
            return SchemaError(f"column {name!r} is not of one type that Arrow has: {refused}")
    return SchemaError(f"not a table that Arrow can hold: {error}")


def one_array(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one chunk."""
    if not isinstance(array, pa.ChunkedArray):
        return array
    if array.num_chunks == 1:
        return array.chunk(0)
    return pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)


def require_valid(array: pa.Array | pa.ChunkedArray, name: str, *, full: bool = False) -> None:
    """Refuse a column whose memory is not as its type says, as of a damaged file: Arrow takes a file at its word.

    Args: full: look at every offset, code and character, and not only at how much there is of everything.
    Raises: SchemaError.
    """
    try:
        array.validate(full=full)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column {name!r} is not as Arrow has it: {error}") from None


def plain_array(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one chunk of its values, without a dictionary."""
    array = one_array(array)
    if not pa.types.is_dictionary(array.type):
        return array
    if pa.types.is_string_view(array.type.value_type):  # as polars has them: Arrow cannot take views by row
        array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.string()))
    return array.dictionary_decode()


def take_rows(array: pa.Array, rows: NDArray[np.int64]) -> pa.Array:
    """`Array.take`, also where string views lie within, as polars has them: those Arrow only takes run by run."""
    try:
        return array.take(pa.array(rows))
    except pa.ArrowNotImplementedError:
        starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        runs = zip(rows[starts].tolist(), np.diff(starts, append=len(rows)).tolist(), strict=True)
        return pa.concat_arrays([array.slice(0, 0), *(array.slice(row, count) for row, count in runs)])


def without_views(type_: pa.DataType) -> pa.DataType:
    """The type with string views, as polars has them, as strings: Arrow cannot take views by row."""
    if pa.types.is_string_view(type_):
        return pa.string()
    if pa.types.is_binary_view(type_):
        return pa.binary()
    if pa.types.is_dictionary(type_):
        return pa.dictionary(type_.index_type, without_views(type_.value_type), type_.ordered)
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(without_views(field.type)) for field in type_])
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(without_views(type_.value_type)))
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(type_.value_field.with_type(without_views(type_.value_type)), type_.list_size)
    if pa.types.is_large_list(type_):
        return pa.large_list(type_.value_field.with_type(without_views(type_.value_type)))
    return type_


def table_without_views(table: pa.Table) -> pa.Table:
    """The table with string views as strings; those of dictionaries stay, of which rows are codes."""
    for i, field in enumerate(table.schema):
        type_ = without_views(field.type)
        if type_ != field.type and not pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.with_type(type_), table.column(i).cast(type_))
    return table


def struct_fields(array: pa.Array) -> dict[str, pa.Array]:
    """The fields of a struct column by name, null where the struct is; none where it is no struct."""
    if not pa.types.is_struct(array.type):
        return {}
    return dict(zip((field.name for field in array.type), array.flatten(), strict=True))


def with_nulls(array: pa.Array, rows: NDArray[np.bool_]) -> pa.Array:
    """With nulls in these rows, and what stood there nowhere: a validity over it would leave the bytes in the buffer."""
    return array.take(pa.array(np.arange(len(array)), mask=rows))


def times_from_arrow(array: pa.Array | pa.ChunkedArray, name: str) -> NDArray[np.int64]:
    """Times as int64 µs: from int64 µs or any Arrow timestamp (naive = UTC).

    Raises: SchemaError: another type, a null, a nanosecond remainder, or a year outside 1 to 9999.
    """
    array = one_array(array)
    if array.null_count:
        raise SchemaError(f"column {name!r} has a null in row {first_row(pc.is_null(array))}; a time is required")
    if array.type != _INT64:
        array = _us_from_arrow(array, name)
    times: NDArray[np.int64] = array.to_numpy()
    if not _are_within(times, EARLIEST_TS, LATEST_TS):
        row = int(np.argmax((times < EARLIEST_TS) | (times > LATEST_TS)))
        raise SchemaError(
            f"column {name!r}, row {row}: {times[row]} µs is outside the years 1 to 9999; is the unit µs?"
        )
    return times


def _are_within(times: NDArray[np.int64], earliest: int, latest: int) -> bool:
    """Whether no time lies outside. numpy finds the extremes of one as slowly as those of a thousand."""
    if len(times) <= _FEW:
        return all(earliest <= time <= latest for time in times.tolist())
    return bool(times.min() >= earliest and times.max() <= latest)


def _us_from_arrow(array: pa.Array, name: str) -> pa.Array:
    if not pa.types.is_timestamp(array.type):
        raise SchemaError(f"column {name!r} is {array.type}; a time is an Arrow timestamp or int64 µs since epoch")
    return timestamps_to_us(array, name)


def times_to_arrow(times: NDArray[np.int64]) -> pa.Array:
    """int64 µs as `timestamp("us", "UTC")`, without a copy."""
    return pa.array(np.ascontiguousarray(times, np.int64)).view(TIME_TYPE)


def timestamps_to_us(array: pa.Array, name: str) -> pa.Array:
    """Arrow timestamps of any unit as int64 µs. Raises: SchemaError: a nanosecond remainder, or out of int64."""
    if array.type.unit == "us":
        return array.view(pa.int64())
    try:
        return array.cast(pa.timestamp("us", array.type.tz)).view(pa.int64())
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column {name!r} cannot be kept in µs: {error}") from None


def conform(array: pa.Array | pa.ChunkedArray, trait: Trait) -> pa.Array:
    """A column of input as its trait's value type (dictionaries decoded), or a SchemaError that names it.

    Accepted are the same type, any width of integer whose values fit, and float32 for float64; timestamps of any unit
    without remainder; lists of such, in any layout. Nothing that would change a value.
    """
    array = one_array(array)
    if array.type == trait.value_type and not trait.is_list and (trait.nullable or not array.null_count):
        return array  # as it comes, as a rule
    array = plain_array(array)
    if array.null_count and not trait.nullable:
        raise SchemaError(f"column {trait.name!r} has a null in row {first_row(pc.is_null(array))}; it is not nullable")
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), trait.value_type)
    if trait.is_list:
        return _conform_lists(array, trait)
    return _conform_plain(array, trait.value_type, trait)


def _conform_lists(array: pa.Array, trait: Trait) -> pa.Array:
    """Raises: SchemaError: no list, a list of another size or beyond measure, an item that is null or of another type."""
    if not is_list(array.type) or is_list(array.type.value_type):
        raise SchemaError(f"column {trait.name!r} is {array.type}; the store has {trait.value_type}")
    parts = split_lists(array)
    items, size = plain_array(parts.items), trait.list_size
    if items.null_count:
        at = first_row(pc.is_null(items))
        row = int(np.searchsorted(offsets_of(parts.lengths), at, side="right")) - 1
        raise SchemaError(
            f"column {trait.name!r} has a null item in row {row}; the list may be null, its items may not"
        )
    if size is not None:
        wrong = parts.lengths != size if parts.mask is None else (parts.lengths != size) & ~parts.mask
        if wrong.any():
            row = int(np.argmax(wrong))
            raise SchemaError(
                f"column {trait.name!r}, row {row}: {parts.lengths[row]} items; the store has lists of {size}"
            )
    if len(parts.lengths) and parts.lengths.max() > LIST_ITEMS_MAX:
        row = int(np.argmax(parts.lengths))
        raise SchemaError(
            f"column {trait.name!r}, row {row}: {parts.lengths[row]:,} items; a list has at most {LIST_ITEMS_MAX:,}"
        )
    if pa.types.is_null(items.type):  # every list is empty
        items = items.cast(trait.item_type)
    return join_lists(parts._replace(items=_conform_plain(items, trait.item_type, trait)), trait.value_type)


def _conform_plain(array: pa.Array, wanted: pa.DataType, trait: Trait) -> pa.Array:
    if array.type == wanted:
        return array
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(array.type):
        if (wanted.tz is None) != (array.type.tz is None):
            raise SchemaError(f"column {trait.name!r} is {array.type}; the store has {wanted}")
        return timestamps_to_us(array, trait.name).view(wanted)
    lossless = (
        (pa.types.is_integer(wanted) and pa.types.is_integer(array.type))
        or (pa.types.is_string(wanted) and is_text(array.type))
        or (wanted == pa.float64() and array.type == pa.float32())
    )
    if not lossless:
        raise SchemaError(f"column {trait.name!r} is {array.type}; the store has {wanted}")
    try:
        return array.cast(wanted)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column {trait.name!r} does not fit {wanted}: {error}") from None


def column_from_arrow(array: pa.Array) -> TraitColumn:
    """An array of a plain type, or of lists of one (no strings: those need a vocabulary), as a column.

    Timestamps become int64 µs. Bits are kept: NaN payloads and -0.0 survive.
    """
    return lists_from_arrow(array, plain_from_arrow) if is_list(array.type) else plain_from_arrow(array)


def lists_from_arrow(array: pa.Array, read: Callable[[pa.Array], Column]) -> Lists:
    """An array of lists as a column. Args: read: makes numbers of the items, whatever these are in Arrow."""
    items, lengths, mask = split_lists(array)
    return compact_lists(read(items).values, lengths, mask)


def plain_from_arrow(array: pa.Array) -> Column:
    """`column_from_arrow` of what is no list."""
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    if not array.null_count:
        return Column(_values(array))
    mask: NDArray[np.bool_] = pc.is_null(array).to_numpy(zero_copy_only=False)
    zero = pa.scalar(False if pa.types.is_boolean(array.type) else 0, array.type)
    return Column(_values(pc.if_else(pa.array(~mask), array, zero)), mask)


def _values(array: pa.Array) -> NDArray[Any]:
    return _flags(array) if pa.types.is_boolean(array.type) else array.to_numpy()


def _flags(array: pa.BooleanArray) -> NDArray[np.bool_]:
    """Arrow's bits as bytes, in a tenth of the time that a cast takes."""
    if not len(array):
        return np.zeros(0, np.bool_)
    skipped = array.offset % 8
    bits = np.frombuffer(array.buffers()[1], np.uint8, offset=array.offset // 8)
    return np.unpackbits(bits, count=skipped + len(array), bitorder="little")[skipped:].view(np.bool_)


def column_to_arrow(column: TraitColumn, type_: pa.DataType) -> pa.Array:
    """The inverse of `column_from_arrow`, to an array of `type_` (plain types and lists of them only)."""
    if isinstance(column, Lists):
        return lists_to_arrow(column, type_, lambda items: column_to_arrow(items, type_.value_type))
    if pa.types.is_timestamp(type_):
        return pa.array(column.values, pa.int64(), mask=column.mask).view(type_)
    # from_pandas=False: a NaN is a value, not a null
    return pa.array(column.values, type_, mask=column.mask, from_pandas=False)


def lists_to_arrow(lists: Lists, type_: pa.DataType, write: Callable[[Column], pa.Array]) -> pa.Array:
    """The inverse of `lists_from_arrow`, to an array of `type_`. Args: write: makes Arrow's items of the numbers."""
    items, _, lengths, mask = lists.compact()
    return join_lists(ListParts(write(Column(items)), lengths, mask), type_)


def filled(count: int, value: int) -> NDArray[np.int64]:
    """What `np.full` gives, which for a few elements takes three times as long: requests come one by one."""
    array = np.empty(count, np.int64)
    array.fill(value)
    return array


def portions(cost: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Cut a sequence into consecutive runs, each of a total cost of at most `most`, or of one element."""
    ends = np.cumsum(cost)
    cuts = [0]
    while cuts[-1] < len(cost):
        before = int(ends[cuts[-1] - 1]) if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + most, side="right"))))
    return list(pairwise(cuts))


def first_row(condition: pa.Array) -> int:
    """The first row where a boolean array is true."""
    return int(pc.index(condition, True).as_py())
