"""Batch: jagged columns, and their Arrow and torch forms."""

import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood.batch
from latewood.batch import Batch, SharedBatch, value_types
from latewood.columns import Column, Lists
from latewood.errors import CorruptionError, SchemaError
from latewood.schema import Schema


def make_batch(offsets: list[int] = [0, 2, 2, 3], **changes: Any) -> Batch:  # noqa: B006
    fields: dict[str, Any] = {
        "offsets": np.array(offsets, np.int64),
        "values": {
            "event_ts": np.array([-1, 5, 7], np.int64),
            "action": np.array([0, 1, 1], np.int32),
            "like": np.array([True, False, True]),
            "score": np.array([np.nan, -0.0, 1.5], np.float32),
        },
        "masks": {"action": np.array([True, False, False])},
        "dictionaries": {"action": pa.array(["view", "buy"])},
        "weights": np.ones(len(offsets) - 1, np.float32),
        "features": pa.table({"label": list(range(len(offsets) - 1))}),
        "types": {
            "event_ts": pa.timestamp("us", "UTC"),
            "action": pa.string(),
            "like": pa.bool_(),
            "score": pa.float32(),
        },
    }
    return Batch(**fields | changes)


def test_to_arrow_gives_features_and_lists_of_values() -> None:
    table = make_batch().to_arrow()
    assert table.column_names == ["label", "history"]
    history = table["history"].type
    assert history == pa.struct(
        [
            ("event_ts", pa.list_(pa.timestamp("us", "UTC"))),
            ("action", pa.list_(pa.string())),
            ("like", pa.list_(pa.bool_())),
            ("score", pa.list_(pa.float32())),
        ]
    )
    rows = table["history"].to_pylist()
    assert [row["action"] for row in rows] == [[None, "buy"], [], ["buy"]]
    assert [row["like"] for row in rows] == [[True, False], [], [True]]
    times = table["history"].combine_chunks().field("event_ts").flatten().view(pa.int64())
    assert times.to_pylist() == [-1, 5, 7]


def test_to_arrow_keeps_nan_a_value_and_minus_zero_negative() -> None:
    scores = make_batch().to_arrow()["history"].combine_chunks().field("score").flatten()
    assert scores.null_count == 0
    assert np.isnan(scores[0].as_py())
    assert np.signbit(scores[1].as_py())


@pytest.mark.parametrize("code", [2, -1, -(2**31)])
def test_a_code_without_a_value_is_damage(code: int) -> None:
    batch = make_batch()
    batch.values["action"][2] = code
    with pytest.raises(CorruptionError, match="trait 'action' has a code beyond its 2 values"):
        batch.to_arrow()


def test_an_empty_batch_has_the_types_of_a_full_one() -> None:
    full = make_batch()
    empty = make_batch(
        [0],
        values={name: values[:0] for name, values in full.values.items()},
        masks={},
        features=pa.table({"label": pa.array([], pa.int64())}),
    )
    assert len(empty) == 0
    assert empty.to_arrow().schema == full.to_arrow().schema
    assert empty.to_arrow().num_rows == 0


def test_a_batch_without_traits_still_has_its_rows() -> None:
    table = make_batch(values={}, masks={}, dictionaries={}).to_arrow()
    assert table["history"].to_pylist() == [{}, {}, {}]


def test_a_batch_past_32_bit_offsets_becomes_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latewood.batch, "_CHUNK_EVENTS", 2)
    whole = make_batch().to_arrow()
    assert whole["history"].num_chunks == 2
    monkeypatch.undo()
    for name in ("event_ts", "action", "like"):  # not scores: NaN is not equal to itself
        one, other = (table["history"].combine_chunks().field(name) for table in (whole, make_batch().to_arrow()))
        assert one.equals(other)


def test_a_slice_shares_memory_and_forgets_masks_without_nulls() -> None:
    batch = make_batch()
    part = batch.slice(1, 3)
    assert part.offsets.tolist() == [0, 0, 1]
    assert part.values["event_ts"].tolist() == [7]
    assert np.shares_memory(part.values["event_ts"], batch.values["event_ts"])
    assert not part.masks
    assert part.features["label"].to_pylist() == [1, 2]
    assert batch.slice(0, 2).masks["action"].tolist() == [True, False]
    assert len(batch.slice(3, 3)) == 0


def test_lengths_count_the_events_of_each_example() -> None:
    assert make_batch().lengths.tolist() == [2, 0, 1]


def test_value_types_follow_the_schema() -> None:
    schema = Schema(
        user_id=pa.int64(), traits=pa.schema([("a", pa.dictionary(pa.int32(), pa.string())), ("b", pa.int8())])
    )
    assert value_types(schema, ("event_ts", "b", "a")) == {
        "event_ts": pa.timestamp("us", "UTC"),
        "b": pa.int8(),
        "a": pa.string(),
    }


def test_an_unknown_layout_lists_those_that_exist() -> None:
    with pytest.raises(SchemaError, match=r"'wide' does not exist.*'jagged'"):
        make_batch().to_torch(layout="wide")


def test_its_repr_says_what_it_holds() -> None:
    assert repr(make_batch()) == "<Batch of 3 examples: 3 events, event_ts, action, like, score; 1 feature>"
    large = make_batch([0, 1157], values={"item": np.zeros(1157)}, masks={})
    assert repr(large) == "<Batch of 1 example: 1,157 events, item; 1 feature>"


def test_without_torch_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "latewood.loading.torch", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'latewood\[torch\]'"):
        make_batch().to_torch()


def with_lists() -> Batch:
    """`make_batch` with tags of any length and a pair; the second event is null in both."""
    return make_batch(
        values={"tags": np.array([1, 0, 1], np.int32), "pair": np.array([[1, -0.0], [0, 0], [3, np.nan]], np.float32)},
        masks={"tags": np.array([False, True, False]), "pair": np.array([False, True, False])},
        dictionaries={"tags": pa.array(["a", "b"])},
        types={"tags": pa.list_(pa.string()), "pair": pa.list_(pa.float32(), 2)},
        lists={"tags": np.array([0, 2, 2, 3])},
    )


@pytest.mark.parametrize("chunk", [1, 2, 2**24])
def test_lists_become_lists_of_lists(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(latewood.batch, "_CHUNK_EVENTS", chunk)
    history = with_lists().to_arrow()["history"]
    assert history.type == pa.struct(
        [("tags", pa.list_(pa.list_(pa.string()))), ("pair", pa.list_(pa.list_(pa.float32(), 2)))]
    )
    assert [row["tags"].as_py() for row in history] == [[["b", "a"], None], [], [["b"]]]
    assert repr([row["pair"].as_py() for row in history]) == "[[[1.0, -0.0], None], [], [[3.0, nan]]]"


def test_a_slice_has_its_own_items() -> None:
    whole = with_lists()
    part = whole.slice(1, 3)
    assert part.values["tags"].tolist() == [1]
    assert part.lists["tags"].tolist() == [0, 1]
    assert part.values["pair"].shape == (1, 2)
    assert np.shares_memory(part.values["tags"], whole.values["tags"])
    assert not part.masks
    assert [row["tags"].as_py() for row in part.to_arrow()["history"]] == [[], [["b"]]]


def test_a_column_is_as_the_tiers_have_it() -> None:
    batch = with_lists()
    tags, pair, plain = batch.column("tags", 1, 3), batch.column("pair"), make_batch().column("event_ts", 1)
    assert isinstance(tags, Lists)
    assert (tags.known.tolist(), tags.lengths.tolist()) == ([1], [0, 1])
    assert isinstance(pair, Lists)
    assert pair.lengths.tolist() == [2, 0, 2]
    assert pair.known[:3].tolist() == [1, 0, 3]
    assert isinstance(plain, Column)
    assert plain.values.tolist() == [5, 7]


def test_an_item_without_a_value_is_damage() -> None:
    batch = with_lists()
    batch.values["tags"][2] = 9
    with pytest.raises(CorruptionError, match="trait 'tags' has a code beyond its 2 values"):
        batch.to_arrow()


def test_examples_in_shared_memory_have_items_of_their_own_or_share_them() -> None:
    """Two examples that share an event, whose items lie out of order."""
    shared = SharedBatch(
        starts=np.array([0, 1]),
        lengths=np.array([2, 2]),
        values={"tags": np.array([5, 6, 7, 8])},
        masks={},
        dictionaries={},
        weights=np.ones(2, np.float32),
        features=pa.table({"label": [0, 1]}),
        types={"tags": pa.list_(pa.int64())},
        lists={"tags": Lists(np.array([5, 6, 7, 8]), np.array([2, 0, 3]), np.array([2, 2, 1], np.int32))},
    )
    assert [shared.history(i)["tags"].tolist() for i in (0, 1, -1)] == [[7, 8, 5, 6], [5, 6, 8], [5, 6, 8]]
    assert shared.list_offsets(1)["tags"].tolist() == [0, 2, 3]
    assert np.shares_memory(shared.history(0)["tags"], shared.values["tags"]) is False
    batch = shared.expand()
    assert batch.values["tags"].tolist() == [7, 8, 5, 6, 5, 6, 8]
    assert batch.lists["tags"].tolist() == [0, 2, 4, 6, 7]
    assert batch.to_arrow()["history"].to_pylist() == [{"tags": [[7, 8], [5, 6]]}, {"tags": [[5, 6], [8]]}]
