"""The loader's manners: what it keeps, refuses and tidies up. That it loses nothing is a property test."""

import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latewood.batch import Batch
from latewood.errors import PointerError, SchemaError, ScrubbedError
from latewood.examples import ExampleLog
from latewood.loading import Loader
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.store import Store
from latewood.testing import ManualClock

START = 1_700_000_000_000_000
COUNT = 50
PROJECTION = Projection(traits=["item_id"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    schema = Schema(user_id=pa.int64(), traits=pa.schema([("item_id", pa.int64()), ("price", pa.float32())]))
    with Store.create(tmp_path_factory.mktemp("store") / "s", schema, shards=1, clock=ManualClock(START)) as store:
        users = np.repeat(np.arange(10), 3)
        items = {"item_id": np.arange(30), "price": np.arange(30, dtype=np.float32)}
        store.append(pa.table({"user_id": users, "event_ts": START - 1000 + np.arange(30), **items}))
        yield store


@pytest.fixture(scope="module")
def examples(store: Store) -> pa.Table:
    users = np.arange(COUNT) % 10
    requests = {"user_id": users, "request_ts": np.full(COUNT, START + 10**6), "row": np.arange(COUNT)}
    return store.capture(pa.table(requests)).columns


def seen(loader: Loader) -> list[int]:
    return [row for batch in loader for row in batch.features["row"].to_pylist()]


def test_a_batch_is_of_its_examples(store: Store, examples: pa.Table) -> None:
    batch = next(iter(Loader(store, examples, PROJECTION, batch_size=20, order="user")))
    assert batch.features.column_names == ["user_id", "request_ts", "row"]
    assert batch.values["item_id"].tolist() == [3 * (row % 10) + i for row in range(20) for i in range(3)]
    assert batch.weights.tolist() == [1] * 20


def test_epochs_repeat_until_another_is_set(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION, batch_size=8, seed=3)
    first = seen(loader)
    assert sorted(first) == list(range(COUNT))
    assert first != list(range(COUNT))
    next(iter(loader))
    assert seen(loader) == first
    loader.set_epoch(1)
    assert loader.state_dict()["position"] == 0
    second = seen(loader)
    assert second != first
    loader.set_epoch(0)
    assert seen(loader) == first
    assert seen(Loader(store, examples, PROJECTION, batch_size=5, seed=3)) == first
    assert seen(Loader(store, examples, PROJECTION, batch_size=8, seed=4)) != first


def test_a_restored_epoch_goes_on_once(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION, batch_size=8)
    loader.set_epoch(2)
    whole = seen(loader)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (2, 16)
    other = Loader(store, examples, PROJECTION, batch_size=8)
    other.load_state_dict(state)
    other.set_epoch(2)  # as a training loop does, which starts at the saved epoch
    assert seen(other) == whole[16:]
    assert seen(other) == whole
    other.load_state_dict(state)
    other.set_epoch(3)
    assert len(seen(other)) == COUNT


def test_an_iterator_that_has_not_begun_hears_of_another_epoch_and_of_a_state(store: Store, examples: pa.Table) -> None:
    def rest(batches: Iterator[Batch]) -> list[int]:
        return [row for batch in batches for row in batch.features["row"].to_pylist()]

    loader = Loader(store, examples, PROJECTION, batch_size=8)
    zero = seen(loader)
    begun = iter(loader)
    first = next(begun).features["row"].to_pylist()
    state, waiting = loader.state_dict(), iter(loader)
    loader.set_epoch(1)
    one = rest(waiting)
    assert sorted(one) == list(range(COUNT))
    assert one != zero
    assert first + rest(begun) == zero
    waiting = iter(loader)
    loader.load_state_dict(state)
    assert rest(waiting) == zero[8:]
    assert seen(loader) == zero


def test_a_finished_epoch_has_no_rest(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION, batch_size=8)
    seen(loader)
    other = Loader(store, examples, PROJECTION, batch_size=8)
    other.load_state_dict(loader.state_dict())
    assert seen(other) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [({"seed": 1}, "another seed"), ({"order": "time"}, "another order"), ({"window": 9}, "another window")],
)
def test_a_state_of_another_order_is_refused(
    store: Store, examples: pa.Table, change: dict[str, Any], words: str
) -> None:
    state = Loader(store, examples, PROJECTION).state_dict()
    with pytest.raises(SchemaError, match=words):
        Loader(store, examples, PROJECTION, **change).load_state_dict(state)


def test_a_state_of_other_examples_or_none_is_refused(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION)
    with pytest.raises(SchemaError, match="another number of examples"):
        loader.load_state_dict(Loader(store, examples.slice(1), PROJECTION).state_dict())
    changed = examples.set_column(1, "request_ts", pa.array(np.arange(COUNT)))
    with pytest.raises(SchemaError, match="other examples"):
        loader.load_state_dict(Loader(store, changed, PROJECTION).state_dict())
    wrong = [{"position": -1}, {"position": None}, {"position": "1"}, {"position": 0.5}, {"epoch": "1"}, {"epoch": 1.5}]
    for state in ({}, {"version": 99}, {"version": 1}, *(loader.state_dict() | part for part in wrong)):
        with pytest.raises(SchemaError):
            loader.load_state_dict(state)
    assert len(seen(loader)) == COUNT


def test_padding_repeats_examples_without_weight(store: Store, examples: pa.Table) -> None:
    ranks = [list(Loader(store, examples, PROJECTION, batch_size=8, rank=r, world_size=4)) for r in range(4)]
    assert [[len(batch) for batch in batches] for batches in ranks] == [[8, 5]] * 4
    assert sum(float(batch.weights.sum()) for batches in ranks for batch in batches) == COUNT
    last = ranks[3][-1]
    assert last.weights.tolist() == [1, 1, 1, 0, 0]
    assert last.lengths.tolist() == [3] * 5


def test_more_ranks_than_examples(store: Store, examples: pa.Table) -> None:
    ranks = [list(Loader(store, examples.slice(0, 2), PROJECTION, rank=r, world_size=5)) for r in range(5)]
    assert [len(batches) for batches in ranks] == [1] * 5
    assert [batches[0].weights.tolist() for batches in ranks] == [[1], [1], [0], [0], [0]]


def test_drop_gives_full_batches_only(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION, batch_size=8, remainder="drop")
    assert [len(batch) for batch in loader] == [8] * 6
    assert len(loader) == 6


def test_no_examples(store: Store, examples: pa.Table) -> None:
    for order in ("shuffle", "user", "time"):
        loader = Loader(store, examples.slice(0, 0), PROJECTION, order=order)
        assert (len(loader), list(loader)) == (0, [])


def test_transform_is_what_the_loader_gives(store: Store, examples: pa.Table) -> None:
    where: set[str] = set()

    def transform(batch: Batch) -> int:
        where.add(threading.current_thread().name)
        return len(batch)

    assert list(Loader(store, examples, PROJECTION, batch_size=20, transform=transform)) == [20, 20, 10]
    assert where == {"latewood-prefetch"}


@pytest.mark.parametrize("prefetch", [0, 2])
def test_an_error_surfaces_after_the_batches_before_it_and_says_where(
    store: Store, examples: pa.Table, prefetch: int
) -> None:
    lengths = np.where(np.arange(COUNT) == 33, 10**6, 0)
    uih = examples["uih"].combine_chunks()
    children = [pa.array(lengths) if f.name == "length" else uih.field(f.name) for f in uih.type]
    broken = examples.set_column(
        examples.schema.get_field_index("uih"), "uih", pa.StructArray.from_arrays(children, fields=list(uih.type))
    )
    loader = Loader(store, broken, PROJECTION, batch_size=10, order="user", prefetch=prefetch)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    with pytest.raises(PointerError, match="row 3") as caught:
        next(iterator)
    assert "positions 30 to 40 of epoch 0" in caught.value.__notes__[0]
    assert loader.state_dict()["position"] == 30
    masked = Loader(store, broken, PROJECTION, batch_size=10, order="user", on_missing="mask")
    assert np.flatnonzero(np.concatenate([batch.weights for batch in masked]) == 0).tolist() == [33]


def test_an_abandoned_epoch_leaves_no_thread(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION, batch_size=2)
    for _ in loader:
        break
    iterator = iter(loader)
    next(iterator)
    iterator.close()  # type: ignore[attr-defined]
    gc.collect()
    assert "latewood-prefetch" not in {thread.name for thread in threading.enumerate()}
    assert len(seen(loader)) == COUNT


def test_only_the_recent_traits_that_are_wanted_are_read(store: Store, examples: pa.Table, tmp_path: Path) -> None:
    with ExampleLog(tmp_path) as log:
        log.append(examples)
    loader = Loader(store, tmp_path, PROJECTION)
    assert [field.name for field in loader.source.schema.field("recent").type][3:] == ["item_id", "supersedes"]
    assert sorted(seen(loader)) == list(range(COUNT))


def test_examples_without_a_pointer_are_refused_with_their_place(
    store: Store, examples: pa.Table, tmp_path: Path
) -> None:
    pq.write_table(examples.drop_columns(["uih"]), tmp_path / "bare.parquet")
    with pytest.raises(SchemaError, match=r"bare\.parquet: the examples lack uih"):
        Loader(store, tmp_path / "bare.parquet", PROJECTION)


@pytest.mark.parametrize(
    "options",
    [
        {"window": 0}, {"prefetch": -1}, {"order": "none"}, {"on_missing": "skip"}, {"batch_size": 0}, {"rank": 1},
        {"window": 9.0}, {"prefetch": None}, {"seed": "1"}, {"batch_size": 4.0}, {"world_size": 1.0}, {"rank": 0.0},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(store: Store, examples: pa.Table, options: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        Loader(store, examples, PROJECTION, **options)


def test_integers_of_any_kind(store: Store, examples: pa.Table) -> None:
    options = {"batch_size": 8, "seed": 3, "window": 20, "prefetch": 0, "rank": 0, "world_size": 1}
    loader = Loader(store, examples, PROJECTION, **{name: np.int64(number) for name, number in options.items()})
    loader.set_epoch(np.int64(1))
    batches = iter(loader)
    next(batches)
    same = Loader(store, examples, PROJECTION, **options)
    same.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert seen(same) == [row for batch in batches for row in batch.features["row"].to_pylist()]


def test_its_repr_says_what_it_will_give(store: Store, examples: pa.Table) -> None:
    loader = Loader(store, examples, PROJECTION, batch_size=20)
    loader.set_epoch(2)
    assert repr(loader) == "<Loader of 50 examples in 3 batches, shuffle, epoch 2>"
    second = Loader(store, examples, PROJECTION, batch_size=25, order="user", rank=1, world_size=2)
    assert repr(second) == "<Loader of 50 examples in 1 batch, user, epoch 0, rank 1 of 2>"


def test_a_trait_that_was_left_unread_is_not_taken_for_one_without_values(tmp_path: Path) -> None:
    """The trait that is wanted is dropped, and one that the loader does not read from the log takes its name."""
    added = pa.schema([("alpha", pa.int64()), ("beta", pa.int64())])
    schema, clock = Schema(user_id=pa.int64(), traits=pa.schema([("item_id", pa.int64())])), ManualClock(START)
    with Store.create(tmp_path / "s", schema, shards=1, clock=clock) as store:
        store.alter(add=added)
        store.compact()
        event = {"user_id": [1], "event_ts": [START - 1], "item_id": [5], "alpha": [1], "beta": [100]}
        store.append(pa.table(event))
        examples = store.capture(pa.table({"user_id": [1] * 4, "request_ts": [START] * 4})).columns
        pq.write_table(examples, tmp_path / "examples.parquet")
        projection = Projection(traits=["beta"])
        options: dict[str, Any] = {"batch_size": 2, "window": 2, "prefetch": 0}
        batches = iter(Loader(store, tmp_path / "examples.parquet", projection, **options))
        assert next(batches).values["beta"].tolist() == [100, 100]
        store.alter(drop=["beta"])
        store.compact()
        store.alter(rename={"alpha": "beta"})
        store.compact()
        with pytest.raises(SchemaError, match="trait 'beta' has become another one, which was left out"):
            next(batches)
        again = next(iter(Loader(store, tmp_path / "examples.parquet", projection, **options)))
        assert again.values["beta"].tolist() == [1, 1]


def test_a_scrub_holds_for_what_was_looked_up_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window is looked up at once, and lasts for many batches."""
    monkeypatch.setattr("latewood.loading.together.BYTES_AT_ONCE", 1)
    schema = Schema(user_id=pa.int64(), traits=pa.schema([("item_id", pa.int64())]))
    with Store.create(tmp_path / "s", schema, shards=1, clock=ManualClock(START)) as store:
        users = list(range(8))
        store.append(pa.table({"user_id": users, "event_ts": [START - 1] * 8, "item_id": users}))
        examples = store.capture(pa.table({"user_id": users, "request_ts": [START] * 8})).columns
        options: dict[str, Any] = {"batch_size": 2, "order": "user", "prefetch": 0}
        masking, raising = (
            Loader(store, examples, PROJECTION, on_missing="mask", **options),
            Loader(store, examples, PROJECTION, **options),
        )
        masked, raised = iter(masking), iter(raising)
        assert [next(batches).weights.tolist() for batches in (masked, raised)] == [[1, 1], [1, 1]]
        store.scrub(user_ids=[3, 7])
        assert [(batch.weights.tolist(), batch.values["item_id"].tolist()) for batch in masked] == [
            ([1, 0], [2]),
            ([1, 1], [4, 5]),
            ([1, 0], [6]),
        ]
        with pytest.raises(ScrubbedError, match="row 1, user 3"):
            next(raised)
