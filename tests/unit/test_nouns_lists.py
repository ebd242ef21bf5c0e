"""Columns of lists: from Arrow's every layout and back, permuted, cut and joined without moving an item, and refused."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import (
    Column,
    Lists,
    column_from_arrow,
    column_to_arrow,
    compact_lists,
    concat_columns,
    conform,
    null_column,
    nulls_like,
    read_table,
)
from latewood.errors import SchemaError
from latewood.lists import LIST_ITEMS_MAX
from latewood.schema import Schema, Trait
from latewood.stripes.gather import gather_lists, gather_rows
from latewood.testing import strategies

ITEMS = [pa.bool_(), *strategies.INTEGERS, *strategies.FLOATS, *strategies.TIMES]
INT = pa.int64()


def trait_of(type_: pa.DataType, *, nullable: bool = True) -> Trait:
    return Schema(user_id=INT, traits=[pa.field("x", type_, nullable)])["x"]


def bits(array: pa.Array) -> list[Any]:
    """Lists of the integers that items are in bits."""
    items = array.flatten()
    if pa.types.is_timestamp(items.type) or pa.types.is_floating(items.type):
        items = items.view(pa.int32() if items.type.bit_width == 32 else INT)
    left = iter(items.to_pylist())
    return [
        None if of is None else [next(left) for _ in range(of)]
        for of in pa.compute.list_value_length(array).to_pylist()
    ]


def python(lists: Lists) -> list[Any]:
    nulls = np.zeros(len(lists.starts), np.bool_) if lists.mask is None else lists.mask
    parts = zip(lists.starts.tolist(), lists.lengths.tolist(), nulls.tolist(), strict=True)
    return [None if null else lists.items[start : start + length].tolist() for start, length, null in parts]


@given(st.data(), st.sampled_from(ITEMS), st.sampled_from([None, 1, 3]))
def test_a_column_goes_there_and_back(data: st.DataObject, item: pa.DataType, size: int | None) -> None:
    trait = trait_of(pa.list_(item) if size is None else pa.list_(item, size))
    array = strategies.column(trait, data.draw(st.lists(strategies.values(trait), max_size=20)))
    array = array.slice(data.draw(st.integers(0, len(array))))
    column = column_from_arrow(array)
    assert isinstance(column, Lists)
    assert column.dtype == trait.dtype
    assert (column.mask is None) == (array.null_count == 0)
    again = column_to_arrow(column, trait.value_type)
    again.validate(full=True)
    assert again.type == trait.value_type
    assert bits(again) == bits(array)


LAYOUTS = [
    *(pa.list_(INT), pa.large_list(INT), pa.list_view(INT), pa.large_list_view(INT), pa.list_(INT, 2)),
    *(pa.list_(pa.field("other", pa.int32(), nullable=False)), pa.large_list(pa.uint8()), pa.list_(pa.int8(), 2)),
]


@pytest.mark.parametrize("wanted", [pa.list_(INT), pa.list_(INT, 2)], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_is_taken(layout: pa.DataType, wanted: pa.DataType) -> None:
    values = [[1, 2], None, [3, 4], [5, 6]]
    whole = pa.array(values, layout)
    for array in (
        whole,
        whole.slice(1),
        whole.slice(2, 1),
        whole.slice(1, 1),
        pa.chunked_array([whole, whole.slice(3)]),
    ):
        given = conform(array, trait_of(wanted))
        given.validate(full=True)
        assert given.type == wanted
        assert given.to_pylist() == array.to_pylist()


def test_lists_as_polars_and_pandas_have_them_are_taken() -> None:
    words, numbers = [["a", "ü"], None, []], [[1, 2], [3, 4], None]
    frame = pl.DataFrame({"words": words, "numbers": pl.Series(numbers, dtype=pl.Array(pl.Int32, 2))})
    for table in (read_table(frame), read_table(pd.DataFrame({"words": words, "numbers": numbers}))):
        given = conform(table["words"], trait_of(pa.list_(pa.string())))
        assert given.to_pylist() == words
        assert conform(table["words"].slice(1), trait_of(pa.list_(pa.string()))).to_pylist() == [None, []]
        assert conform(table["numbers"], trait_of(pa.list_(INT, 2))).to_pylist() == numbers
    views = pa.array([["x"], ["y", "z"]], pa.list_(pa.string_view()))
    holes = pa.ListArray.from_arrays(views.offsets, views.values, mask=pa.array([True, False]))
    assert conform(holes, trait_of(pa.list_(pa.string()))).to_pylist() == [None, ["y", "z"]]


def test_what_lies_under_a_null_is_no_item() -> None:
    """Arrow may keep items there, even null ones."""
    items, mask = pa.array([1, 2, None, 3]), pa.array([False, True, False])
    array = pa.ListArray.from_arrays(pa.array([0, 1, 3, 4], pa.int32()), items, mask=mask)
    given = conform(array, trait_of(pa.list_(INT)))
    assert given.to_pylist() == [[1], None, [3]]
    assert given.values.to_pylist() == [1, 3]


def test_views_may_lie_in_any_order_and_share_items() -> None:
    offsets, sizes = pa.array([2, 0, 1], pa.int32()), pa.array([1, 2, 2], pa.int32())
    view = pa.ListViewArray.from_arrays(offsets, sizes, pa.array([7, 8, 9]))
    assert conform(view, trait_of(pa.list_(INT))).to_pylist() == [[9], [7, 8], [8, 9]]


@pytest.mark.parametrize(
    ("array", "type_", "message"),
    [
        (pa.array([[1], [2, None]]), pa.list_(INT), "column 'x' has a null item in row 1"),
        (pa.array([None, [None]], pa.list_(INT)), pa.list_(INT), "column 'x' has a null item in row 1"),
        (pa.array([[1, None]], pa.list_(INT, 2)), pa.list_(INT, 2), "column 'x' has a null item in row 0"),
        (pa.array([[1, 2], None, [1]]), pa.list_(INT, 2), "column 'x', row 2: 1 items; the store has lists of 2"),
        (pa.array([[1, 2], []]), pa.list_(INT, 2), "column 'x', row 1: 0 items; the store has lists of 2"),
        (pa.array([[[1]]]), pa.list_(INT), "column 'x' is list<item: list<item: int64>>; the store has list<"),
        (pa.array([1]), pa.list_(INT), "column 'x' is int64; the store has list<item: int64>"),
        (pa.array([[1]]), INT, "column 'x' is list<item: int64>; the store has int64"),
        (pa.array([["a"]]), pa.list_(INT), "column 'x' is string; the store has int64"),
        (pa.array([[300]]), pa.list_(pa.int8()), "column 'x' does not fit int8"),
        (pa.array([[1.5]]), pa.list_(INT), "column 'x' is double; the store has int64"),
    ],
)
def test_what_is_refused(array: pa.Array, type_: pa.DataType, message: str) -> None:
    with pytest.raises(SchemaError, match=message.replace("(", r"\(")):
        conform(array, trait_of(type_))


def test_null_and_empty_differ() -> None:
    trait = trait_of(pa.list_(INT), nullable=False)
    assert conform(pa.array([[], []]), trait).to_pylist() == [[], []]
    with pytest.raises(SchemaError, match="column 'x' has a null in row 1"):
        conform(pa.array([[], None], pa.list_(INT)), trait)
    column = column_from_arrow(conform(pa.array([[], None, [1]]), trait_of(pa.list_(INT))))
    assert column_to_arrow(column, pa.list_(INT)).to_pylist() == [[], None, [1]]


def test_a_column_of_nulls_of_any_kind() -> None:
    for type_ in (pa.list_(pa.string()), pa.list_(INT, 2)):
        trait = trait_of(type_)
        assert conform(pa.nulls(2), trait).type == trait.value_type
        assert python(lists(null_column(trait, 2))) == [None, None]
        assert null_column(trait, 0).mask is None
    assert python(lists(nulls_like(lists(null_column(trait, 0)), 1))) == [None]


def lists(column: Any) -> Lists:
    assert isinstance(column, Lists)
    return column


@st.composite
def pools(draw: st.DrawFn) -> Lists:
    """Lists anywhere in a pool, overlapping, in any order."""
    pool = np.arange(draw(st.integers(1, 12)), dtype=draw(st.sampled_from(["i1", "i2", "f4", "i8"])))
    starts = np.array(draw(st.lists(st.integers(0, len(pool) - 1), max_size=9)), np.int64)
    lengths = np.array([draw(st.integers(0, len(pool) - start)) for start in starts.tolist()], np.int32)
    mask = draw(st.none() | st.just(lengths % 2 == 0))
    if mask is not None:
        lengths[mask] = 0
    return Lists(pool, starts, lengths, mask)


@given(st.data(), pools())
def test_rows_are_taken_and_cut_like_python_does_it(data: st.DataObject, column: Lists) -> None:
    plain, n = python(column), len(column.starts)
    rows = data.draw(st.lists(st.integers(0, n - 1), max_size=9)) if n else []
    taken = column.take(np.array(rows, np.int64))
    assert python(taken) == [plain[row] for row in rows]
    assert taken.items is column.items
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert python(column.slice(start, stop)) == plain[start:stop]
    chosen = np.arange(n) % 2 == 0
    assert python(column.take(chosen)) == plain[::2]
    assert column.event_count == n


@given(pools())
def test_compact_items_are_those_of_the_events_in_their_order(column: Lists) -> None:
    wanted = [item for of in python(column) for item in of or []]
    for compact in (column.compact(), gather_lists(column), gather_lists(column, np.zeros(200, column.dtype))):
        assert python(compact) == python(column)
        assert compact.items.tolist() == wanted
        assert compact.offsets.tolist() == [*compact.starts.tolist(), len(wanted)]
    assert column.known.tolist() == wanted


@given(st.data())
def test_columns_are_joined(data: st.DataObject) -> None:
    column = data.draw(pools())
    cut = data.draw(st.integers(0, len(column.starts)))
    other = lists(column_from_arrow(pa.array([[5], None, []], pa.list_(pa.int8()))))
    other = other._replace(items=other.items.astype(column.dtype))
    parts = [column.slice(cut, len(column.starts)), other, column.slice(0, cut), nulls_like(column, 2)]
    joined = lists(concat_columns(parts))
    assert python(joined) == [value for part in parts for value in python(lists(part))]
    assert (joined.mask is None) == all(part.mask is None for part in parts)
    assert concat_columns([column]) is column


def test_slices_of_one_pool_do_not_multiply_it() -> None:
    column = compact_lists(np.arange(1000), np.full(100, 10))
    joined = lists(concat_columns([column.slice(i, i + 1) for i in range(99, -1, -1)]))
    assert len(joined.items) == 1000
    halves = lists(concat_columns([column.slice(50, 100), column.slice(0, 50)]))
    assert halves.items is column.items
    assert python(halves) == python(column)[50:] + python(column)[:50]


def test_rows_of_one_size() -> None:
    column = Lists(np.arange(6, dtype=np.float32), np.array([4, 0, 1]), np.array([2, 0, 2], np.int32))
    out = np.full((3, 2), 9, np.float32)
    gather_rows(column, 2, out)
    assert out.tolist() == [[4, 5], [0, 0], [1, 2]]
    with pytest.raises(ValueError, match="do not fit"):
        gather_rows(column, 1, out)
    with pytest.raises(ValueError, match="do not fit"):
        gather_rows(column._replace(lengths=np.array([2, 1, 2], np.int32)), 2, out)
    with pytest.raises(ValueError, match="4 items do not fit"):
        gather_lists(column, np.zeros(3, np.float32))


def test_columns_without_lists_are_joined() -> None:
    left, right = Column(np.array([1, 2])), Column(np.array([3, 0]), np.array([False, True]))
    both = concat_columns([left, right])
    assert isinstance(both, Column)
    assert both.values.tolist() == [1, 2, 3, 0]
    assert both.mask is not None
    assert both.mask.tolist() == [False, False, False, True]
    assert both.known.tolist() == [1, 2, 3]
    assert nulls_like(left, 1).mask is not None


def test_a_list_beyond_measure_is_refused_before_it_is_stored() -> None:
    """A compaction could not write it."""
    items = pa.array(np.zeros(LIST_ITEMS_MAX + 1, np.int8))
    for length, refused in ((LIST_ITEMS_MAX, False), (LIST_ITEMS_MAX + 1, True)):
        array = pa.ListArray.from_arrays(pa.array([0, 0, length], pa.int32()), items)
        if refused:
            with pytest.raises(SchemaError, match="row 1: 16,777,216 items; a list has at most 16,777,215"):
                conform(array, trait_of(pa.list_(pa.int8())))
        else:
            assert len(conform(array, trait_of(pa.list_(pa.int8())))) == 2
    with pytest.raises(SchemaError, match="lists of size 16,777,216"):
        trait_of(pa.list_(pa.int8(), LIST_ITEMS_MAX + 1))
