"""Batches as JAX arrays: rows of few widths, and no integer cut. Run by test_loading_jax.py."""

from dataclasses import replace

import jax
import numpy as np
import pyarrow as pa
import pytest

from latewood.batch import Batch
from latewood.errors import SchemaError


def make_batch(items: list[int], offsets: tuple[int, ...] = (0, 2, 2, 5)) -> Batch:
    values = {"item": np.array(items), "place": np.arange(2 * len(items), dtype=np.float32).reshape(-1, 2)}
    masks = {"item": np.arange(len(items)) == 1}
    types = {"item": pa.int64(), "place": pa.list_(pa.float32(), 2)}
    count = len(offsets) - 1
    features = pa.table({"label": [0.5] * count, "row": list(range(count)), "word": ["w"] * count})
    return Batch(np.array(offsets), values, masks, {}, np.ones(count, np.float32), features, types)


def test_rows_are_as_wide_as_the_next_power_of_two() -> None:
    found = make_batch([1, 2, 3, 4, 5]).to_jax()
    assert found.values["item"].tolist() == [[1, 2, *[0] * 6], [0] * 8, [3, 4, 5, *[0] * 5]]
    assert found.values["place"].shape == (3, 8, 2)
    assert found.present.tolist() == [[True] * n + [False] * (8 - n) for n in (2, 0, 3)]
    assert found.masks["item"].tolist()[0] == [False, True, *[False] * 6]
    assert found.lengths.tolist() == [2, 0, 3]
    assert set(found.features) == {"label", "row"}
    assert make_batch(list(range(9)), (0, 9)).to_jax().values["item"].shape == (1, 16)
    assert repr(found) == "<JaxBatch of 3 examples: 5 events, item, place; 8 wide>"


def test_buckets_and_rows_keep_shapes_few() -> None:
    found = make_batch([1, 2, 3, 4, 5]).to_jax(buckets=[2, 4, 6], rows=5, side="left", value=-1)
    nothing = [-1] * 4
    assert found.values["item"].tolist() == [[-1, -1, 1, 2], nothing, [-1, 3, 4, 5], nothing, nothing]
    assert found.weights.tolist() == [1, 1, 1, 0, 0]
    assert found.features["label"].tolist() == [0.5] * 3 + [0] * 2
    with pytest.raises(SchemaError, match="a history has 3 events, and the widest bucket 2"):
        make_batch([1, 2, 3, 4, 5]).to_jax(buckets=[1, 2])
    with pytest.raises(SchemaError, match="the batch has 3 examples, and rows=2"):
        make_batch([1, 2, 3, 4, 5]).to_jax(rows=2)


def test_integers_are_not_cut() -> None:
    with pytest.raises(SchemaError, match="'item' has integers past 32 bits"):
        make_batch([1, 2, 3, 4, 2**31]).to_jax()
    assert make_batch([1, 2, 3, 4, 2**31 - 1]).to_jax().values["item"].dtype == np.int32
    jax.config.update("jax_enable_x64", True)
    try:
        assert make_batch([1, 2, 3, 4, 2**40]).to_jax().values["item"].max().item() == 2**40
    finally:
        jax.config.update("jax_enable_x64", False)


def test_features_past_32_bits_are_left_out() -> None:
    """As the time of its request is, which every example has."""
    batch = make_batch([1, 2, 3, 4, 5])
    times = pa.array([1_700_000_000_000_000] * 3, pa.timestamp("us", "UTC"))
    batch = replace(batch, features=batch.features.append_column("request_ts", times))
    assert set(batch.to_jax().features) == {"label", "row"}
    jax.config.update("jax_enable_x64", True)
    try:
        assert batch.to_jax().features["request_ts"].tolist() == [1_700_000_000_000_000] * 3
    finally:
        jax.config.update("jax_enable_x64", False)


def test_a_batch_goes_through_jit_as_one() -> None:
    total = jax.jit(lambda batch: (batch.values["item"] * batch.present).sum())
    assert total(make_batch([1, 2, 3, 4, 5]).to_jax()).item() == 15


def test_lists_of_any_length_are_refused() -> None:
    batch = make_batch([1, 2, 3, 4, 5])
    batch.values["tags"], batch.lists["tags"] = np.arange(4), np.array([0, 1, 1, 4, 4, 4])
    with pytest.raises(SchemaError, match="'tags' has lists of any length, for which 'jax'"):
        batch.to_jax()
