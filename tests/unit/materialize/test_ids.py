"""Ids instead of codes, on request."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.materialize.buffers import BufferPool
from latewood.materialize.ids import ids_of_codes
from latewood.storage import keys
from latewood.testing import ManualClock

IDS = pa.dictionary(pa.int32(), pa.uint64())
TRAITS = pa.schema(
    [("item", IDS), ("shop", pa.string()), ("tags", pa.list_(IDS)), ("pair", pa.list_(IDS, 2)), ("price", pa.int32())]
)
SCHEMA = lw.Schema(user_id=pa.int64(), traits=TRAITS)
ITEMS = [2**64 - 1, 7, None, 7]
TAGS = [[7, 2**63], [], None, [9]]
PAIRS = [[1, 2], [2, 1], None, [3, 3]]
EVERY = ["item", "tags", "pair"]


@pytest.fixture
def examples(tmp_path: Path) -> tuple[lw.Store, pa.Table]:
    """Of user 1: two stored events and two recent ones; of user 2, nothing."""
    clock = ManualClock(1_000)
    store = lw.Store.create(tmp_path / "store", SCHEMA, shards=1, clock=clock)
    for first in (0, 2):
        clock.advance(10)
        rows = slice(first, first + 2)
        columns: dict[str, Any] = {"item": ITEMS[rows], "tags": TAGS[rows], "pair": PAIRS[rows], "price": [5, 6]}
        arrays = {name: pa.array(values, SCHEMA[name].value_type) for name, values in columns.items()}
        store.append(pa.table({"user_id": [1, 1], "event_ts": [first, first + 1], "shop": ["a", "b"], **arrays}))
        if not first:
            store.compact()
    clock.advance(10)
    return store, store.capture(pa.table({"user_id": [1, 2, 1], "request_ts": [500, 500, 500]})).columns


@pytest.mark.parametrize("shared", [False, True])
def test_ids_are_the_integers_themselves(examples: tuple[lw.Store, pa.Table], shared: bool) -> None:
    store, logged = examples
    materializer = lw.Materializer(store, lw.Projection(ids=EVERY))
    batch = materializer.shared(logged).expand() if shared else materializer(logged)
    assert batch.values["item"].dtype == batch.values["tags"].dtype == np.uint64
    assert batch.values["item"].tolist() == [2**64 - 1, 7, 0, 7] * 2
    assert batch.masks["item"].tolist() == [False, False, True, False] * 2
    assert batch.values["tags"].tolist() == [7, 2**63, 9] * 2
    assert batch.values["pair"].tolist() == [[1, 2], [2, 1], [0, 0], [3, 3]] * 2
    assert list(batch.dictionaries) == ["shop"]
    history = {"item": ITEMS, "tags": TAGS, "pair": PAIRS, "shop": ["a", "b", "a", "b"]}
    rows = batch.to_arrow()["history"].to_pylist()
    assert [{name: row[name] for name in history} for row in rows] == [history, {name: [] for name in history}, history]
    codes = lw.Materializer(store, lw.Projection())(logged)
    assert codes.to_arrow()["history"].to_pylist() == rows
    assert codes.dictionaries["item"].take(pa.array(codes.values["item"])).to_pylist()[:2] == ITEMS[:2]


def test_a_loader_hands_them_out(examples: tuple[lw.Store, pa.Table]) -> None:
    store, logged = examples
    [batch] = lw.Loader(store, logged, lw.Projection(max_len=1, traits=["item"], ids=["item"]), order="time")
    assert batch.values["item"].tolist() == [7, 7]


Make = Callable[[lw.Materializer, pa.Table], lw.Batch]


def in_a_window(materializer: lw.Materializer, examples: pa.Table) -> lw.Batch:
    return materializer.window_batch(materializer.window(materializer.resolve(examples)), 0, len(examples))


def in_halves(materializer: lw.Materializer, examples: pa.Table) -> lw.Batch:
    return materializer.batch(materializer.resolve(examples))


def shared(materializer: lw.Materializer, examples: pa.Table) -> lw.Batch:
    return materializer.shared(examples).expand()


def behind(tmp_path: Path, left: int, trait: str, **change: Any) -> tuple[lw.Store, pa.Table]:
    """A store and examples, where a trait was dropped since: its values are gone, but so many chunks of them."""
    clock = ManualClock(1_000)
    store = lw.Store.create(tmp_path / "store", SCHEMA, shards=1, clock=clock)
    for item in (5, 6):  # a chunk each
        clock.advance(10)
        row = {"item": [item], "shop": ["a"], "tags": [[item]], "pair": [[item, 1]], "price": [item]}
        arrays = {name: pa.array(values, SCHEMA[name].value_type) for name, values in row.items()}
        store.append(pa.table({"user_id": [1], "event_ts": [item], **arrays}))
    store.compact()
    examples = store.capture(pa.table({"user_id": [1], "request_ts": [500]})).columns
    reader = lw.Store.open(store.path, read_only=True)
    assert reader.reader().shard(0) is not None
    chunks = [keys.vocabulary_chunk(SCHEMA[trait].id, number) for number in range(left)]
    kept = {key: store.storage.read(key) for key in chunks}
    store.alter(drop=[trait], **change)
    store.compact(keep=1)
    for key, data in kept.items():  # as if the collection were not done yet
        store.storage.write(key, data)
    return reader, examples


@pytest.mark.parametrize("make", [lw.Materializer.__call__, shared])
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("trait", EVERY)
def test_ids_are_of_the_trait_that_has_the_name_now(tmp_path: Path, trait: str, left: int, make: Make) -> None:
    """A reader that is behind has codes whose values were collected."""
    store, examples = behind(tmp_path, left, trait, add=pa.schema([TRAITS.field(trait)]))
    batch = make(lw.Materializer(store, lw.Projection(traits=[trait, "price"], ids=[trait])), examples)
    assert batch.values["price"].tolist() == [5, 6]
    assert batch.to_arrow()["history"].to_pylist() == [{trait: [None, None], "price": [5, 6]}]
    assert not batch.values[trait].any()


@pytest.mark.parametrize("make", [in_halves, in_a_window])
@pytest.mark.parametrize("left", [0, 1])
def test_examples_that_were_read_before_their_trait_became_another_are_refused(
    tmp_path: Path, left: int, make: Make
) -> None:
    store, examples = behind(tmp_path, left, "item", add=pa.schema([TRAITS.field("item")]))
    with pytest.raises(lw.SchemaError, match="a trait has become another one"):
        make(lw.Materializer(store, lw.Projection(traits=["item"], ids=["item"])), examples)


@pytest.mark.parametrize("make", [lw.Materializer.__call__, shared, in_halves, in_a_window])
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("trait", EVERY)
def test_ids_of_a_trait_that_is_no_more_are_refused(tmp_path: Path, trait: str, left: int, make: Make) -> None:
    store, examples = behind(tmp_path, left, trait)
    materializer = lw.Materializer(store, lw.Projection(traits=[trait, "price"], ids=[trait]))
    with pytest.raises(lw.SchemaError, match=f"unknown trait '{trait}'"):
        make(materializer, examples)


@pytest.mark.parametrize(
    ("projection", "message"),
    [
        (
            lw.Projection(ids=["shop"]),
            "ids of 'shop' are wanted, but only dictionaries of integers have ids; it is string",
        ),
        (lw.Projection(ids=["price"]), "only dictionaries of integers have ids; it is int32"),
        (lw.Projection(ids=["event_ts"]), "only dictionaries of integers have ids; it is a time"),
        (lw.Projection(traits=["price"], ids=["item"]), "it is not among the projection's traits: price"),
    ],
)
def test_what_has_no_ids_is_refused(
    examples: tuple[lw.Store, pa.Table], projection: lw.Projection, message: str
) -> None:
    with pytest.raises(lw.SchemaError, match=message):
        lw.Materializer(examples[0], projection)
    with pytest.raises(lw.SchemaError, match="pass a list"):
        lw.Projection(ids="item")


def test_a_code_without_a_value_is_damage() -> None:
    words, pool = pa.array([5, None], pa.int64()), BufferPool()
    mask = np.array([False, False, True])
    for codes in ([0, 2, 0], [0, -1, 0]):
        with pytest.raises(lw.CorruptionError, match="trait 'item' has a code beyond its 2 values"):
            ids_of_codes("item", np.array(codes, np.int32), mask, words, pool, all_used=True)
        assert ids_of_codes("item", np.array(codes, np.int32), mask, words, pool, all_used=False)[0] == 5
    nothing = pa.array([], pa.int64())
    assert ids_of_codes("item", np.zeros(2, np.int32), np.ones(2, np.bool_), nothing, pool, all_used=True).tolist() == [
        0,
        0,
    ]
    with pytest.raises(lw.CorruptionError, match="its 0 values"):
        ids_of_codes("item", np.zeros(2, np.int32), None, nothing, pool, all_used=True)
