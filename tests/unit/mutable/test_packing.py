"""Columns as bytes: whatever their type, width and order, they come back as they were."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from latewood.mutable.packing import Packer, Unpacker

WIDE = ["<i8", "<i4", "<u4"]
OTHERS = ["<u8", "<i2", "<u2", "<u1", "?", "<f4", "<f8"]
SPANS = [0, 1, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1]


def packed(columns: list[NDArray[Any]]) -> bytes:
    packer = Packer(sum(column.nbytes for column in columns), len(columns))
    for column in columns:
        packer.put_narrow(column)
    return bytes(packer.packed)


def between(dtype: str, span: int, count: int) -> NDArray[Any]:
    """Numbers of a type with so much between the smallest and the largest, or all that it has, around zero where it can."""
    limits = np.iinfo(dtype)
    low = max(int(limits.min), -(span // 2))
    high = min(int(limits.max), low + span)
    drawn = [low + (high - low) * i // max(count - 1, 1) for i in range(count)]
    return np.array(drawn[::2] + drawn[1::2][::-1], dtype)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("dtype", WIDE)
def test_wide_integers_survive_narrow(dtype: str, span: int) -> None:
    columns = [between(dtype, span, count) for count in (1, 2, 3, 1_000, 0)]
    body = packed(columns)
    assert len(body) % 8 == 0
    reader = Unpacker(memoryview(body), 0, narrow=True)
    for column in columns:
        again = reader.take_narrow(dtype, len(column))
        assert again.dtype == column.dtype
        assert again.tolist() == column.tolist()


@pytest.mark.parametrize(("span", "width"), list(zip(SPANS, [0, 1, 1, 2, 2, 4, 4, 8, 8], strict=True)))
def test_values_take_as_many_bytes_as_they_need(span: int, width: int) -> None:
    assert len(packed([between("<i8", span, 800)])) == 16 + 800 * width


@pytest.mark.parametrize("dtype", OTHERS)
def test_other_types_stand_as_they_are_in_memory(dtype: str) -> None:
    rng = np.random.default_rng(1)
    columns = [rng.integers(0, 256, count * np.dtype(dtype).itemsize).astype(np.uint8) for count in (5, 1, 0, 8)]
    columns = [(column % 2).astype(dtype) if dtype == "?" else column.view(dtype) for column in columns]
    body = packed([*columns, np.array([1, 2])])
    reader = Unpacker(memoryview(body), 0, narrow=True)
    assert [reader.take_narrow(dtype, len(column)).tobytes() for column in columns] == [c.tobytes() for c in columns]
    assert reader.take_narrow("<i8", 2).tolist() == [1, 2]


def test_columns_that_do_not_lie_end_to_end_are_packed_as_they_read() -> None:
    grid = np.arange(40, dtype=np.int64).reshape(10, 4)
    body = packed([grid[:, 1], grid[::-1, 2].astype(np.float64)])
    reader = Unpacker(memoryview(body), 0, narrow=True)
    assert reader.take_narrow("<i8", 10).tolist() == grid[:, 1].tolist()
    assert reader.take_narrow("<f8", 10).tolist() == grid[::-1, 2].tolist()
