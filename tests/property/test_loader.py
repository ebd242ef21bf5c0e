"""The loader: whatever the order, the ranks and the point of interruption, every example is seen exactly once.

Law 5: from any step, on any number of trainers, the rest of the epoch is the same examples, none lost, none twice.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from latewood.batch import Batch
from latewood.examples import ExampleLog
from latewood.loading import Loader
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.store import Store
from latewood.testing import ManualClock

START = 1_700_000_000_000_000
COUNT = 61
PROJECTION = Projection(max_len=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, pa.Table, Path]]:
    """A store with stored and recent events, examples numbered by `row`, and the same examples in a log."""
    folder, rng, clock = tmp_path_factory.mktemp("world"), np.random.default_rng(0), ManualClock(START)
    traits = pa.schema([("item_id", pa.int64()), ("action", pa.dictionary(pa.int32(), pa.string()))])
    with Store.create(folder / "store", Schema(user_id=pa.int64(), traits=traits), shards=2, clock=clock) as store:
        parts = []
        for start in range(0, COUNT, 10):
            n = min(10, COUNT - start)
            users, action = rng.integers(0, 6, 30), pa.array(["view", "like", "buy"] * 10)
            events = {
                "user_id": users,
                "event_ts": clock.now() - rng.integers(1, 10**6, 30),
                "item_id": rng.integers(0, 99, 30),
            }
            store.append(pa.table({**events, "action": action}))
            requests = {
                "user_id": rng.integers(0, 7, n),
                "request_ts": np.full(n, clock.now()),
                "row": start + np.arange(n),
            }
            parts.append(store.capture(pa.table(requests)).columns)
            clock.advance(10**6 * 3600 * 5)
            if start % 20:
                store.compact()
        examples = pa.concat_tables(parts)
        with ExampleLog(folder / "log", bucket_count=2, row_group_size=4) as log:
            log.append(examples)
        yield store, examples, folder / "log"


def loader(world: tuple[Store, pa.Table, Path], *, place: str = "log", **options: Any) -> Loader:
    store, table, log = world
    return Loader(store, log if place == "log" else table, PROJECTION, **{"prefetch": 0, "window": 16} | options)


def rows(batch: Batch) -> list[int]:
    """The examples of a batch that count."""
    return [row for row, weight in zip(batch.features["row"].to_pylist(), batch.weights, strict=True) if weight]


def epoch(one: Loader) -> list[list[int]]:
    return [rows(batch) for batch in one]


def flat(steps: list[list[int]]) -> list[int]:
    return [row for step in steps for row in step]


orders = st.sampled_from(["shuffle", "user", "time"])
shapes = st.fixed_dictionaries(
    {"batch_size": st.integers(1, 20), "world_size": st.integers(1, 4)}
) | st.fixed_dictionaries({"batch_tokens": st.integers(1, 40), "world_size": st.integers(1, 4)})
few_steps = st.fixed_dictionaries(
    {"batch_size": st.integers(8, 20), "world_size": st.integers(1, 4)}
) | st.fixed_dictionaries({"batch_tokens": st.integers(16, 50), "world_size": st.integers(1, 4)})


@given(
    order=orders,
    shape=shapes,
    seed=st.integers(0, 99),
    place=st.sampled_from(["log", "table"]),
    window=st.integers(1, 70),
)
@settings(max_examples=12)
def test_every_example_is_seen_once_over_all_ranks(
    world: Any, order: str, shape: dict[str, int], seed: int, place: str, window: int
) -> None:
    seen = []
    for rank in range(shape["world_size"]):
        one = loader(world, place=place, order=order, seed=seed, rank=rank, window=window, **shape)
        steps = epoch(one)
        assert len(steps) == len(one)
        seen += flat(steps)
    assert sorted(seen) == list(range(COUNT))


@given(order=orders, before=few_steps, after=few_steps, number=st.integers(0, 3))
@settings(max_examples=5)
def test_restoring_at_every_step_gives_the_identical_rest(
    world: Any, order: str, before: dict[str, int], after: dict[str, int], number: int
) -> None:
    ranks = [loader(world, order=order, seed=1, rank=rank, **before) for rank in range(before["world_size"])]
    whole = epoch_of_all(ranks, number)
    iterators = [iter(one) for one in ranks]
    done: list[int] = []
    for step in range(len(ranks[0]) + 1):
        states = [json.loads(json.dumps(one.state_dict())) for one in ranks]
        assert all(state == states[0] for state in states)
        others = [loader(world, order=order, seed=1, rank=rank, **after) for rank in range(after["world_size"])]
        for other in others:
            other.load_state_dict(states[0])
            assert other.state_dict() == states[0]
        assert done + together(others) == whole, f"step {step}"
        if step < len(ranks[0]):
            done += flat([rows(next(iterator)) for iterator in iterators])
    assert all(next(iterator, None) is None for iterator in iterators)


def epoch_of_all(ranks: list[Loader], number: int) -> list[int]:
    for one in ranks:
        one.set_epoch(number)
    return together(ranks)


def together(ranks: list[Loader]) -> list[int]:
    """What all ranks see, step by step: the order of the epoch, whatever the number of ranks."""
    return [row for step in zip(*ranks, strict=True) for batch in step for row in rows(batch)]


@given(order=orders, shape=shapes, prefetch=st.integers(0, 4))
@settings(max_examples=6)
def test_batches_do_not_depend_on_prefetch_and_equal_their_examples(
    world: Any, order: str, shape: dict[str, int], prefetch: int
) -> None:
    truth = pa.concat_tables(batch.to_arrow() for batch in loader(world, place="table", order="user")).to_pylist()
    for batch in loader(world, order=order, prefetch=prefetch, rank=shape["world_size"] - 1, **shape):
        for got, weight in zip(batch.to_arrow().to_pylist(), batch.weights, strict=True):
            assert got == truth[got["row"]]
            assert weight in (0, 1)


def test_time_and_user_orders(world: Any, tmp_path: Path) -> None:
    _, table, log = world
    times = table["request_ts"].to_pylist()
    assert [times[row] for row in flat(epoch(loader(world, order="time")))] == sorted(times)
    logged = [row for file in sorted(log.rglob("*.parquet")) for row in pq.read_table(file)["row"].to_pylist()]
    assert flat(epoch(loader(world, order="user"))) == logged
