"""The order of an epoch is a permutation, a pure function of (seed, epoch, index), and mixes what it should."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray

from latewood.errors import SchemaError
from latewood.loading.order import ShuffleOrder, order_of, permutation


def offsets_of(sizes: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(-5, 5), st.integers(0, 3), st.integers(1, 12), st.data())
def test_shuffle_is_a_permutation_that_any_range_agrees_with(
    sizes: list[int], seed: int, epoch: int, window: int, data: st.DataObject
) -> None:
    offsets, count = offsets_of(sizes), sum(sizes)
    whole = ShuffleOrder(offsets, seed, epoch, window).rows(0, count)
    assert sorted(whole.tolist()) == list(range(count))
    start = data.draw(st.integers(0, count))
    stop = data.draw(st.integers(start, count))
    assert ShuffleOrder(offsets, seed, epoch, window).rows(start, stop).tolist() == whole[start:stop].tolist()


def test_shuffle_reads_few_groups_at_a_time() -> None:
    offsets = offsets_of([100] * 50)
    rows = ShuffleOrder(offsets, 1, 0, 200).rows(0, 5000)
    for first in range(0, 5000, 200):
        assert len(np.unique(rows[first : first + 200] // 100)) == 2
    groups = rows[::200] // 100
    assert (np.diff(groups) != 1).any(), "the groups are not in a random order"


def test_shuffle_mixes_the_examples_of_a_window() -> None:
    rows = ShuffleOrder(offsets_of([4096] * 4), 3, 0, 16_384).rows(0, 16_384)
    groups = rows.reshape(32, 512) // 4096
    counts = np.array([np.bincount(batch, minlength=4) for batch in groups])
    assert counts.min() > 60
    assert (np.diff(rows) == 1).mean() < 0.01


def test_seeds_and_epochs_give_other_orders() -> None:
    offsets = offsets_of([50] * 4)
    orders = {
        tuple(ShuffleOrder(offsets, seed, epoch, 100).rows(0, 200)) for seed in (-1, 0, 1, 2**63) for epoch in range(3)
    }
    assert len(orders) == 12


def test_the_order_of_a_released_version_never_changes() -> None:
    """A run that was saved must go on with the examples that it has not seen, whatever was upgraded since."""
    assert permutation(10, 0, 0, 0).tolist() == [1, 9, 0, 8, 4, 6, 7, 2, 3, 5]
    assert permutation(6, 7, 2, 1).tolist() == [1, 5, 4, 2, 3, 0]
    assert ShuffleOrder(offsets_of([3, 4, 5]), 42, 1, 5).rows(0, 12).tolist() == [1, 2, 3, 0, 4, 8, 9, 5, 6, 7, 11, 10]


def test_the_other_orders() -> None:
    times = np.array([5, 1, 5, 0, 1])
    assert order_of("time", offsets_of([5]), lambda: times, 0, 2)(3).rows(0, 5).tolist() == [3, 1, 4, 0, 2]
    assert order_of("user", offsets_of([5]), lambda: times, 0, 2)(3).rows(1, 4).tolist() == [1, 2, 3]
    with pytest.raises(SchemaError, match="'random' does not exist; these do: 'shuffle'"):
        order_of("random", offsets_of([5]), lambda: times, 0, 2)
