"""Columns: from Arrow and back without changing a bit, and what input is refused by name and row."""

import struct
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.columns import (
    column_from_arrow,
    column_to_arrow,
    conform,
    filled,
    one_array,
    plain_array,
    plain_from_arrow,
    portions,
    read_table,
    times_from_arrow,
    times_to_arrow,
)
from latewood.errors import SchemaError
from latewood.schema import Schema, Trait
from latewood.testing import strategies


def trait_of(type_: pa.DataType, nullable: bool = True) -> Trait:
    return Schema(user_id=pa.int64(), traits=[pa.field("x", type_, nullable)])["x"]


PLAIN = [pa.bool_(), *strategies.INTEGERS, *strategies.FLOATS, *strategies.TIMES]


@given(st.data(), st.sampled_from(PLAIN))
def test_a_column_goes_there_and_back(data: st.DataObject, type_: pa.DataType) -> None:
    trait = trait_of(type_)
    array = strategies.column(trait, data.draw(st.lists(strategies.values(trait), max_size=20)))
    start = data.draw(st.integers(0, len(array)))
    array = array.slice(start)
    column = plain_from_arrow(array)
    assert column.values.dtype == trait.dtype
    assert column.mask is None or column.mask.tolist() == array.is_null().to_pylist()
    assert (column.mask is None) == (array.null_count == 0)
    if column.mask is not None:
        assert not column.values[column.mask].any()
    assert bits(column_to_arrow(column, type_)) == bits(array)
    assert bits(column_to_arrow(column_from_arrow(array), type_)) == bits(array)


def bits(array: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    if pa.types.is_floating(array.type):
        code = "f" if array.type == pa.float32() else "d"
        return [None if value is None else struct.pack(code, value) for value in array.to_pylist()]
    return array.to_pylist()


def test_a_slice_of_flags_is_of_its_rows() -> None:
    flags = [i % 3 == 0 or i % 7 == 0 for i in range(70)]
    array = pa.array(flags)
    for start in range(20):
        for count in (0, 1, 7, 8, 9, 50):
            found = plain_from_arrow(array.slice(start, count)).values
            assert found.dtype == np.bool_
            assert found.tolist() == flags[start : start + count]


def test_a_nan_s_payload_survives() -> None:
    raw = np.array([0x7FF8_0000_0000_0001, 0xFFF0_0000_0000_0001, 0x8000_0000_0000_0000], np.uint64)
    for mask in (None, np.array([False, False, False]), np.array([False, False, True])):
        column = column_from_arrow(pa.array(raw.view(np.float64), mask=mask, from_pandas=False))
        assert column.values[:2].view(np.uint64).tolist() == raw[:2].tolist()
        again = column_to_arrow(column, pa.float64())
        assert again.null_count == (0 if mask is None else mask.sum())
        assert np.frombuffer(again.buffers()[1], np.uint64)[:2].tolist() == raw[:2].tolist()


def test_any_number_of_chunks_becomes_one() -> None:
    assert one_array(pa.array([1])).to_pylist() == [1]
    assert one_array(pa.chunked_array([[1], [2]])).to_pylist() == [1, 2]
    assert one_array(pa.chunked_array([], pa.int8())).type == pa.int8()
    assert isinstance(one_array(pa.chunked_array([[1]])), pa.Array)


def test_any_table_is_read() -> None:
    expected = {"x": [1, 2]}
    for table in (
        pa.table(expected),
        pa.record_batch(expected),
        pl.DataFrame(expected),
        pd.DataFrame(expected),
        {"x": pa.array([1, 2])},
        pa.RecordBatchReader.from_batches(pa.schema([("x", pa.int64())]), [pa.record_batch(expected)]),
    ):
        assert read_table(table).to_pydict() == expected
    with pytest.raises(SchemaError, match="expected a table"):
        read_table([1, 2])


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
def test_times_of_any_unit_and_zone(unit: str, zone: str | None) -> None:
    seconds = pa.array([-5, 0, 7], pa.int64())
    scale = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    array = pa.array([k * scale for k in seconds.to_pylist()], pa.int64()).view(pa.timestamp(unit, zone))
    assert times_from_arrow(array, "t").tolist() == [-5_000_000, 0, 7_000_000]
    assert times_from_arrow(pa.chunked_array([array]), "t").dtype == np.int64


@given(st.lists(st.integers(EARLIEST_TS, LATEST_TS)))
def test_times_go_there_and_back(times: list[int]) -> None:
    array = times_to_arrow(np.array(times, np.int64))
    assert array.type == pa.timestamp("us", "UTC")
    assert times_from_arrow(array, "t").tolist() == times
    assert times_from_arrow(pa.array(times, pa.int64()), "t").tolist() == times


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([0, None], pa.timestamp("us")), "'t' has a null in row 1"),
        (pa.array([0.5]), "'t' is double"),
        (pa.array(["2024-01-01"]), "'t' is string"),
        (pa.array([1], pa.int32()), "'t' is int32"),
        (pa.array([datetime(2024, 1, 1, tzinfo=UTC).date()]), "'t' is date32"),
        (pa.array([1_001], pa.timestamp("ns")), "'t' cannot be kept in µs"),
        (pa.array([2**62], pa.timestamp("s")), "'t' cannot be kept in µs"),
        (pa.array([0, EARLIEST_TS - 1]), "'t', row 1.*years 1 to 9999"),
        (pa.array([0, 0, LATEST_TS + 1]), "'t', row 2.*is the unit µs"),
    ],
    ids=str,
)
def test_times_that_are_refused(array: pa.Array, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        times_from_arrow(array, "t")


LOSSLESS = [
    (pa.array([1, None], pa.int8()), pa.int64()),
    (pa.array([1, None], pa.uint64()), pa.int8()),
    (pa.array([1.5, None], pa.float32()), pa.float64()),
    (pa.array(["a", None], pa.large_string()), pa.string()),
    (pa.array(["a", None]).dictionary_encode(), pa.string()),
    (pa.array(["a", None]), pa.dictionary(pa.int32(), pa.string())),
    (pa.array(["a", None], pa.large_string()).dictionary_encode(), pa.dictionary(pa.int32(), pa.string())),
    (pa.array([5, None], pa.int8()).dictionary_encode(), pa.dictionary(pa.int32(), pa.int64())),
    (pa.array([5, None], pa.timestamp("s")), pa.timestamp("us")),
    (pa.array([5, None], pa.timestamp("ms", "Asia/Tokyo")), pa.timestamp("us", "UTC")),
    (pa.nulls(2), pa.float32()),
    (pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]), pa.string()),
]


@pytest.mark.parametrize(("array", "type_"), LOSSLESS, ids=str)
def test_conform_accepts_what_changes_no_value(array: pa.Array, type_: pa.DataType) -> None:
    trait = trait_of(type_)
    kept = conform(array, trait)
    assert kept.type == trait.value_type
    if pa.types.is_timestamp(type_):
        assert kept.cast(pa.int64()).to_pylist() == [5_000_000 if str(array.type) == "timestamp[s]" else 5_000, None]
    else:
        assert kept.to_pylist() == array.to_pylist()


@pytest.mark.parametrize(
    ("array", "type_", "message"),
    [
        (pa.array([300]), pa.int8(), "'x' does not fit int8"),
        (pa.array([-1]), pa.uint32(), "'x' does not fit uint32"),
        (pa.array([1.0]), pa.int32(), "'x' is double; the store has int32"),
        (pa.array([1.0]), pa.float32(), "'x' is double; the store has float"),
        (pa.array([1]), pa.bool_(), "'x' is int64; the store has bool"),
        (pa.array([1]), pa.string(), "'x' is int64; the store has string"),
        (pa.array(["1"]), pa.int64(), "'x' is string; the store has int64"),
        (pa.array([5], pa.timestamp("us")), pa.timestamp("us", "UTC"), "'x' is timestamp"),
        (pa.array([1], pa.timestamp("ns")), pa.timestamp("us"), "'x' cannot be kept in µs"),
        (pa.array([5]), pa.timestamp("us"), "'x' is int64"),
    ],
    ids=str,
)
def test_conform_refuses_what_would_change_one(array: pa.Array, type_: pa.DataType, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        conform(array, trait_of(type_))


def test_a_null_where_none_may_be() -> None:
    with pytest.raises(SchemaError, match="'x' has a null in row 1; it is not nullable"):
        conform(pa.array([1, None, 2]), trait_of(pa.int64(), nullable=False))
    with pytest.raises(SchemaError, match="row 0"):
        conform(pa.nulls(2), trait_of(pa.int64(), nullable=False))
    assert conform(pa.array([1, 2]), trait_of(pa.int64(), nullable=False)).to_pylist() == [1, 2]


@pytest.mark.parametrize("type_", [pl.Categorical, pl.Enum(["a", "b"])], ids=["categorical", "enum"])
def test_categories_as_polars_has_them_are_read(type_: Any) -> None:
    column = read_table(pl.DataFrame({"x": pl.Series(["b", None, "a", "b"], dtype=type_)}))["x"]
    assert plain_array(column).to_pylist() == ["b", None, "a", "b"]
    for wanted in (pa.string(), pa.dictionary(pa.int32(), pa.string())):
        assert conform(column, trait_of(wanted)).equals(pa.array(["b", None, "a", "b"]))


@given(st.lists(st.integers(0, 9), max_size=30), st.integers(1, 20))
def test_portions_are_as_long_as_they_may_be(cost: list[int], most: int) -> None:
    runs = portions(np.array(cost, np.int64), most)
    assert [k for start, stop in runs for k in range(start, stop)] == list(range(len(cost)))
    assert all(stop - start == 1 or sum(cost[start:stop]) <= most for start, stop in runs)
    assert all(sum(cost[start : stop + 1]) > most for start, stop in runs[:-1])


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_filled(count: int) -> None:
    array = filled(count, EARLIEST_TS)
    assert (array.dtype, array.tolist()) == (np.int64, [EARLIEST_TS] * count)
