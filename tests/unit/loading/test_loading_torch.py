"""Batches as torch tensors, without copies."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from latewood.batch import Batch
from latewood.errors import SchemaError

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


def test_what_must_not_be_written_to_is_copied() -> None:
    values = np.arange(3)
    values.flags.writeable = False
    make_batch(values).to_torch().values["trait"].add_(1)
    assert values.tolist() == [0, 1, 2]


def test_tensors_outlive_the_batch() -> None:
    tensors = make_batch(np.arange(3)).to_torch(layout="jagged")
    assert tensors.values["trait"].tolist() == [0, 1, 2]


def test_jagged_is_what_torch_nested_takes() -> None:
    tensors = make_batch(np.arange(3)).to_torch()
    nested = torch.nested.nested_tensor_from_jagged(tensors.values["trait"], tensors.offsets)
    assert [row.tolist() for row in nested.unbind()] == [[0], [1, 2]]


def test_its_repr_says_what_it_holds() -> None:
    assert repr(make_batch(np.arange(3)).to_torch()) == "<TorchBatch of 2 examples: 3 events, trait>"


def sequences() -> Batch:
    """Three examples, of 2, 0 and 3 events."""
    values = {"item": np.array([1, 2, 3, 4, 5]), "place": np.arange(10, dtype=np.float32).reshape(5, 2)}
    types = {"item": pa.int64(), "place": pa.list_(pa.float32(), 2)}
    features = pa.table(
        {
            "label": pa.chunked_array([[1.5], [0.0, 2.0]]),
            "seen": [True, False, True],
            "at": pa.array([1, 2, 3], pa.timestamp("ms", "UTC")),
            "word": ["a", "b", "c"],
            "hole": [1, None, 3],
        }
    )
    masks = {"item": np.array([False, True, False, False, False])}
    return Batch(np.array([0, 2, 2, 5]), values, masks, {}, np.ones(3, np.float32), features, types)


@pytest.mark.parametrize(
    ("options", "items"),
    [
        ({}, [[1, 2, 0], [0, 0, 0], [3, 4, 5]]),
        ({"side": "left", "value": -1}, [[-1, 1, 2], [-1, -1, -1], [3, 4, 5]]),
        ({"max_len": 2}, [[1, 2], [0, 0], [4, 5]]),
        ({"max_len": 4, "side": "left"}, [[0, 0, 1, 2], [0, 0, 0, 0], [0, 3, 4, 5]]),
        ({"max_len": 0}, [[], [], []]),
    ],
)
def test_padded_rows_hold_the_newest_events(options: dict[str, object], items: list[list[int]]) -> None:
    batch, plain = sequences(), sequences().to_torch("padded", **options)
    assert plain.values["item"].tolist() == items
    width = len(items[0])
    assert plain.values["place"].shape == (3, width, 2)
    assert plain.lengths.tolist() == [min(n, width) for n in batch.lengths]
    for i, n in enumerate(plain.lengths.tolist()):
        newest = slice(int(batch.offsets[i + 1]) - n, int(batch.offsets[i + 1]))
        assert plain.values["item"][i][plain.present[i]].tolist() == batch.values["item"][newest].tolist()
        assert plain.values["place"][i][plain.present[i]].tolist() == batch.values["place"][newest].tolist()
        assert plain.masks["item"][i][plain.present[i]].tolist() == batch.masks["item"][newest].tolist()
    assert not plain.masks["item"][~plain.present].any()


def test_nested_rows_share_memory() -> None:
    batch = sequences()
    nested = batch.to_torch("nested")
    assert [row.tolist() for row in nested.values["item"].unbind()] == [[1, 2], [], [3, 4, 5]]
    assert nested.values["item"].values().data_ptr() == batch.values["item"].ctypes.data


@pytest.mark.parametrize("layout", ["jagged", "padded", "nested"])
def test_features_that_are_numbers_become_tensors(layout: str) -> None:
    features = sequences().to_torch(layout).features
    assert {name: column.tolist() for name, column in features.items()} == {
        "label": [1.5, 0.0, 2.0],
        "seen": [True, False, True],
        "at": [1_000, 2_000, 3_000],
    }


@pytest.mark.parametrize("layout", ["jagged", "padded"])
def test_a_batch_moves_as_one(layout: str) -> None:
    moved = sequences().to_torch(layout).to("meta")
    assert type(moved) is type(sequences().to_torch(layout))
    assert {tensor.device.type for tensor in (moved.weights, *moved.values.values(), *moved.features.values())} == {
        "meta"
    }


@pytest.mark.parametrize("value", [-1, 256, 0.5, float("nan"), float("inf")])
def test_padding_that_a_column_cannot_hold_is_refused(value: float) -> None:
    batch = make_batch(np.arange(3, dtype=np.uint8))
    with pytest.raises(SchemaError, match="column of uint8, which cannot hold it"):
        batch.to_torch("padded", value=value)
    floats = make_batch(np.arange(3, dtype=np.float32)).to_torch("padded", value=value)
    assert np.array_equal(floats.values["trait"][0, 1].item(), value, equal_nan=True)


@pytest.mark.parametrize("max_len", [-1, 2.5])
def test_a_width_that_is_none_is_refused(max_len: float) -> None:
    with pytest.raises(SchemaError, match="max_len"):
        make_batch(np.arange(3)).to_torch("padded", max_len=max_len)


def test_padded_and_nested_refuse_lists_of_any_length() -> None:
    batch = sequences()
    batch.values["tags"], batch.lists["tags"] = np.arange(4), np.array([0, 1, 1, 4, 4, 4])
    for layout in ("padded", "nested"):
        with pytest.raises(SchemaError, match="'tags' has lists of any length"):
            batch.to_torch(layout)


def test_sides_that_do_not_exist_are_refused() -> None:
    with pytest.raises(SchemaError, match="side 'top' does not exist; these do: 'right', 'left'"):
        sequences().to_torch("padded", side="top")


def test_keyed_has_each_traits_values_by_example() -> None:
    pytest.importorskip(
        "torchrec", reason="torchrec asks for another torch: it goes in without its dependencies, by hand"
    )
    batch = sequences()
    batch.values["tags"], batch.lists["tags"] = np.arange(4), np.array([0, 1, 1, 4, 4, 4])
    keyed = batch.to_torch("kjt")
    assert {dtype: part.keys() for dtype, part in keyed.values.items()} == {
        "int64": ["item", "tags"],
        "float32": ["place"],
    }
    assert [row.tolist() for row in keyed.values["int64"]["item"].to_dense()] == [[1, 2], [], [3, 4, 5]]
    assert [row.tolist() for row in keyed.values["int64"]["tags"].to_dense()] == [[0], [], [1, 2, 3]]
    assert [row.tolist() for row in keyed.values["float32"]["place"].to_dense()] == [
        [0, 1, 2, 3],
        [],
        [4, 5, 6, 7, 8, 9],
    ]
    assert keyed.masks["item"].tolist() == batch.masks["item"].tolist()
    assert len(keyed) == 3
    assert keyed.to("cpu").values["int64"].keys() == ["item", "tags"]


def test_without_torchrec_the_layout_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchrec", None)
    monkeypatch.setitem(sys.modules, "torchrec.sparse", None)
    monkeypatch.setitem(sys.modules, "torchrec.sparse.jagged_tensor", None)
    with pytest.raises(ImportError, match="'kjt' needs torchrec"):
        sequences().to_torch("kjt")
