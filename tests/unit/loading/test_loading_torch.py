"""Batches as torch tensors, without copies."""

import numpy as np
import pyarrow as pa
import pytest

from latewood.batch import Batch

torch = pytest.importorskip("torch")

DTYPES = [
    np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64, np.float32, np.float64
]  # fmt: skip


def make_batch(values: np.ndarray) -> Batch:
    offsets, weights = np.array([0, 1, len(values)], np.int64), np.ones(2, np.float32)
    masks = {"trait": np.arange(len(values)) == 1}
    return Batch(offsets, {"trait": values}, masks, {}, weights, pa.table({"x": [1, 2]}), {"trait": pa.int64()})


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_jagged_shares_memory_for_every_dtype(dtype: type) -> None:
    values = np.array([0, 1, 1], dtype)
    tensors = make_batch(values).to_torch()
    assert len(tensors) == 2
    assert tensors.values["trait"].data_ptr() == values.ctypes.data
    assert tensors.values["trait"].numpy().tolist() == values.tolist()
    assert tensors.offsets.tolist() == [0, 1, 3]
    assert tensors.masks["trait"].tolist() == [False, True, False]
    assert tensors.weights.dtype == torch.float32


def test_tensors_outlive_the_batch() -> None:
    tensors = make_batch(np.arange(3)).to_torch(layout="jagged")
    assert tensors.values["trait"].tolist() == [0, 1, 2]


def test_jagged_is_what_torch_nested_takes() -> None:
    tensors = make_batch(np.arange(3)).to_torch()
    nested = torch.nested.nested_tensor_from_jagged(tensors.values["trait"], tensors.offsets)
    assert [row.tolist() for row in nested.unbind()] == [[0], [1, 2]]


def test_its_repr_says_what_it_holds() -> None:
    assert repr(make_batch(np.arange(3)).to_torch()) == "<TorchBatch of 2 examples: 3 events, trait>"
