"""Pointers as a column of examples: there and back, also through other libraries; foreign and broken are refused."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.errors import PointerError
from latewood.pointer import POINTER_TYPE, Pointers

EPOCH = bytes(range(16))
TIME = st.integers(EARLIEST_TS, LATEST_TS)
ROW = st.tuples(TIME, TIME, TIME, st.integers(0, 3), st.integers(3, 2**63 - 1), st.integers(0, 2**64 - 1))
FIELDS = ["watermark", "start_ts", "end_ts", "end_ties", "length", "checksum"]
DTYPES = [np.int64, np.int64, np.int64, np.int32, np.int64, np.uint64]


def pointers_of(rows: list[tuple[int, ...]]) -> Pointers:
    columns = zip(*rows, strict=True) if rows else [()] * 6
    return Pointers(EPOCH, *(np.array(c, dtype) for c, dtype in zip(columns, DTYPES, strict=True)))  # type: ignore[arg-type]


def same(left: Pointers, right: Pointers) -> bool:
    return left.epoch == right.epoch and all(np.array_equal(getattr(left, f), getattr(right, f)) for f in FIELDS)


def column(**changes: Any) -> pa.StructArray:
    """One good pointer, changed."""
    row = {
        "epoch": EPOCH,
        "watermark": 9,
        "start_ts": 1,
        "end_ts": 5,
        "end_ties": 1,
        "length": 2,
        "checksum": 3,
    } | changes
    fields = [pa.field(f.name, f.type) for f in POINTER_TYPE if f.name in row]
    return pa.array([{name: value for name, value in row.items() if value is not ...}], pa.struct(fields))


@given(st.lists(ROW, max_size=8))
def test_there_and_back(rows: list[tuple[int, ...]]) -> None:
    pointers = pointers_of(rows)
    array = pointers.to_arrow()
    assert array.type == POINTER_TYPE
    assert len(array) == len(pointers) == len(rows)
    assert same(Pointers.from_arrow(array, EPOCH), pointers)
    assert same(Pointers.from_arrow(array.slice(1), EPOCH), pointers_of(rows[1:]))


def test_the_size_does_not_grow_with_the_history() -> None:
    short, long = (pointers_of([(1, 1, 1, 0, length, 5)]).to_arrow().nbytes for length in (1, 2**62))
    assert short == long


def test_through_parquet_and_polars(tmp_path: Any) -> None:
    pointers = pointers_of([(9, 1, 5, 0, 4, 2**64 - 1), (9, -(10**15), 5, 1, 1, 0)])
    table = pa.table({"uih": pointers.to_arrow()})
    pq.write_table(table, tmp_path / "x.parquet")
    for again in (pq.read_table(tmp_path / "x.parquet"), pa.table(pl.from_arrow(table))):
        assert same(Pointers.from_arrow(again["uih"].combine_chunks(), EPOCH), pointers)


def test_another_store_s_pointer_names_both_epochs() -> None:
    both = pa.concat_arrays([column(), column(epoch=bytes(16))])
    with pytest.raises(PointerError, match=f"row 1: the pointer is of epoch {'00' * 16}, the store is {EPOCH.hex()}"):
        Pointers.from_arrow(both, EPOCH)


@pytest.mark.parametrize(
    ("uih", "message"),
    [
        (pa.array([1]), "'uih' is int64; a pointer also has epoch, watermark"),
        (column().cast(pa.struct([f for f in POINTER_TYPE if f.name != "length"])), "a pointer also has length"),
        (column(length=None), "'uih.length' has a null in row 0"),
        (pa.array([None], pa.struct([pa.field(f.name, f.type) for f in POINTER_TYPE])), "has a null in row 0"),
        (column(length=-1), "row 0: length -1 with 1 end ties"),
        (column(end_ties=-1), "row 0: length 2 with -1 end ties"),
        (column(end_ties=3), "row 0: length 2 with 3 end ties"),
    ],
    ids=["no struct", "a field less", "a null", "a null pointer", "length", "end_ties", "more ties than events"],
)
def test_what_is_no_pointer(uih: pa.Array, message: str) -> None:
    with pytest.raises(PointerError, match=message):
        Pointers.from_arrow(uih, EPOCH)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("epoch", pa.array([b"xx"])),
        ("checksum", pa.array([-1])),
        ("end_ties", pa.array([2**40])),
        ("length", pa.array(["many"])),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(name: str, array: pa.Array) -> None:
    fields = {f.name: column().field(f.name) for f in POINTER_TYPE} | {name: array}
    uih = pa.StructArray.from_arrays(list(fields.values()), names=list(fields))
    with pytest.raises(PointerError, match=f"uih.{name}"):
        Pointers.from_arrow(uih, EPOCH)
