"""Whatever the values, what is decoded is what was encoded, bit for bit, for any range of any column."""

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latewood.columns import Column, Lists
from latewood.stripes.layout import DTYPES
from made_shards import (
    columns_for,
    decode_user,
    decode_user_lists,
    open_bytes,
    run_of,
    same,
    same_lists,
    write_shard,
)

LENGTHS = st.one_of(st.integers(1, 600), st.sampled_from([1, 2, 31, 32, 33, 255, 256, 257, 511, 512, 513]))


def patterns(dtype: np.dtype[Any]) -> list[int]:
    """Bit patterns where encodings change their mind: extremes, NaN payloads, -0.0, widths' edges."""
    bits = dtype.itemsize * 8
    if dtype.kind == "b":
        return [0, 1]
    top = (1 << bits) - 1
    edges = [1 << k for k in range(bits)] + [(1 << k) - 1 for k in range(bits + 1)]
    return sorted({0, 1, 2, top, top >> 1, (top >> 1) + 1, *edges})


@st.composite
def arrays(draw: st.DrawFn, dtype: np.dtype[Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Values of one column, most of one shape with a few odd ones, and a mask."""
    count, seed = draw(LENGTHS), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    top = (1 << (dtype.itemsize * 8)) - 1 if dtype.kind != "b" else 1
    base, factor = draw(st.integers(0, top)), draw(st.sampled_from([1, 1, 2, 3, 10, 1000, 86_400_000_000]))
    spread = draw(st.integers(0, top))
    raw = rng.integers(0, spread, count, np.uint64, endpoint=True) * np.uint64(factor) + np.uint64(base)
    if dtype.kind == "b":
        raw &= np.uint64(1)
    values = raw.astype(unsigned)
    if draw(st.booleans()):
        odd = rng.random(count) < draw(st.sampled_from([0.01, 0.05, 0.5]))
        values[odd] = rng.choice(np.array(patterns(dtype), np.uint64).astype(unsigned), odd.sum())
    share = draw(st.sampled_from([None, None, 0.0, 0.02, 0.5, 1.0]))
    return values.view(dtype), None if share is None else rng.random(count) < share


def events(count: int) -> list[Column]:
    """The built-in columns of so many events."""
    times = np.arange(count, dtype=np.int64) * 1000
    return [Column(times), Column(np.zeros(count, np.int64)), Column(np.zeros(count, np.int32))]


@pytest.mark.parametrize("name", DTYPES)
@given(data=st.data())
def test_any_values_come_back(name: str, data: st.DataObject) -> None:
    dtype = np.dtype(name)
    values, mask = data.draw(arrays(dtype))
    written = values.copy()
    if mask is not None and data.draw(st.booleans()):
        written[mask] = 0  # what stands under a null does not matter
    shard = open_bytes(
        write_shard(columns_for({"x": dtype}), run_of({1: [*events(len(values)), Column(written, mask)]}))[0]
    )
    shard.verify()
    assert same(decode_user(shard, 0, 3), values, mask)
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    assert same(decode_user(shard, 0, 3, start, stop), values[start:stop], None if mask is None else mask[start:stop])


STEPS = st.sampled_from([0, 0, 1, 7, 1000, 60_000_000, 2**31, 2**32, 2**40])


@given(LENGTHS, st.integers(-(2**62), 2**61), st.integers(0, 2**32 - 1), st.lists(STEPS, min_size=1, max_size=4))
@example(600, -(2**62), 0, [0])
@example(600, 0, 0, [2**40])
def test_any_times_come_back(count: int, start: int, seed: int, steps: list[int]) -> None:
    rng = np.random.default_rng(seed)
    times = start + np.cumsum(rng.choice(np.array(steps), count) * rng.choice([1, 1, 3], count))
    delays = rng.integers(-(2**40), 2**40, count) * rng.choice([0, 1], count)
    ordinals = rng.integers(0, 3, count).astype(np.int32)
    columns = [Column(times), Column(delays), Column(ordinals)]
    shard = open_bytes(write_shard(columns_for({}), run_of({"u": columns}))[0])
    for index, column in enumerate(columns):
        assert same(decode_user(shard, 0, index), column.values)
    first, last = sorted(rng.integers(0, count + 1, 2).tolist())
    for index, column in enumerate(columns):
        assert same(decode_user(shard, 0, index, first, last), column.values[first:last])


def test_extreme_times_come_back() -> None:
    times = np.array([-(2**63), -(2**63), 0, 2**63 - 2], np.int64)  # the last moment is that of a stripe never clean
    columns = [Column(times), Column(np.zeros(4, np.int64)), Column(np.zeros(4, np.int32))]
    shard = open_bytes(write_shard(columns_for({}), run_of({1: columns}))[0])
    assert same(decode_user(shard, 0, 0), times)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("count", [1, 31, 256, 300])
def test_special_patterns_come_back(name: str, count: int) -> None:
    dtype = np.dtype(name)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    for pattern in patterns(dtype):
        values = np.full(count, pattern, np.uint64).astype(unsigned).view(dtype)
        shard = open_bytes(write_shard(columns_for({"x": dtype}), run_of({1: [*events(count), Column(values)]}))[0])
        assert same(decode_user(shard, 0, 3), values), (name, pattern)


@st.composite
def lists(draw: st.DrawFn, dtype: np.dtype[Any]) -> Lists:
    """Lists of any values in a pool in which they lie in any order, some on top of others."""
    values, _ = draw(arrays(dtype))
    count, seed = draw(LENGTHS), draw(st.integers(0, 2**32 - 1))
    longest = draw(st.sampled_from([0, 1, 3, 30, len(values)]))
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, min(longest, len(values)), count, np.int32, endpoint=True)
    if draw(st.booleans()):  # as embeddings are
        lengths[:] = min(longest, len(values), 40)
    starts = rng.integers(0, len(values) - lengths, endpoint=True)
    mask = rng.random(count) < draw(st.sampled_from([0.02, 0.5, 1.0])) if draw(st.booleans()) else None
    if mask is not None:
        lengths[mask] = 0
    return Lists(values, starts, lengths, mask)


@pytest.mark.parametrize("name", DTYPES)
@given(data=st.data())
def test_any_lists_come_back(name: str, data: st.DataObject) -> None:
    written = data.draw(lists(np.dtype(name)))
    count = written.event_count
    shard = open_bytes(write_shard(columns_for({"x": [name]}), run_of({1: [*events(count), written]}))[0])
    shard.verify()
    assert same_lists(decode_user_lists(shard, 0, 3), written)
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    assert same_lists(decode_user_lists(shard, 0, 3, start, stop), written.slice(start, stop))
