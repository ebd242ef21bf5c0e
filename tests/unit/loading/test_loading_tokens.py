"""Batches by tokens: full, even over ranks, equally many steps, and whoever takes over goes on exactly."""

from collections.abc import Iterator
from itertools import combinations_with_replacement, pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

import latewood as lw
from latewood.examples import open_examples
from latewood.loading import tokens as module
from latewood.loading.order import LogOrder, ShuffleOrder
from latewood.loading.steps import Share, Step
from latewood.loading.tokens import TokenSteps, tokens_of
from latewood.testing import ManualClock

MOST = 10
sizes = st.lists(st.integers(1, MOST), max_size=40)
ranks = st.integers(1, 4)


def all_ranks(tokens: list[int], world_size: int, position: int = 0, **options: Any) -> list[list[Step]]:
    size = options.pop("batch_size", None)
    shares = [Share(rank, world_size, **options) for rank in range(world_size)]
    of = np.array(tokens, np.int64)
    return [list(TokenSteps(share, LogOrder(), of, MOST, size).steps(position)) for share in shares]


def by_lines(tokens: list[int], position: int, world_size: int, size: int) -> int:
    """Where a step ends: so many lines of a text, each broken before the word that would be too much."""
    for _ in range(world_size):
        line = 0
        begin = position
        while position < len(tokens) and line + tokens[position] <= MOST and position - begin < size:
            line += tokens[position]
            position += 1
    return position


def fewest(tokens: list[int], world_size: int, size: int) -> int:
    """The least that the fullest of the ranks can have, by trying every cut."""
    found = []
    for inner in combinations_with_replacement(range(len(tokens) + 1), world_size - 1):
        cuts = [0, *inner, len(tokens)]
        parts = [tokens[a:b] for a, b in pairwise(cuts)]
        if max(map(len, parts)) <= size:
            found.append(max(map(sum, parts)))
    return min(found)


@given(sizes, ranks, st.integers(1, 6) | st.none(), st.integers(1, 9))
def test_steps_are_full_and_as_even_as_can_be(
    tokens: list[int], world_size: int, size: int | None, at_once: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_AT_ONCE", at_once)  # however little is looked at together
        dealt = all_ranks(tokens, world_size, batch_size=size)
    seen = 0
    most = len(tokens) if size is None else size
    for parts in zip(*dealt, strict=True):
        assert (parts[0].first, parts[0].after) == (seen, by_lines(tokens, seen, world_size, most))
        loads = [sum(tokens[step.start : step.stop]) for step in parts]
        assert max(loads) == fewest(tokens[seen : parts[0].after], world_size, most) <= MOST
        assert [step.start for step in parts] == [seen, *(step.stop for step in parts[:-1])]
        assert max(step.stop - step.start for step in parts) <= most
        assert all(len(step) == max(1, step.stop - step.start) for step in parts)
        assert all(0 <= at < step.after - step.first for step in parts for at in step.padding())
        seen = parts[-1].stop
        assert seen == parts[0].after == parts[0].following
    assert seen == len(tokens)


@given(sizes, ranks, st.sampled_from(["pad", "drop"]), st.integers(1, 3), st.integers(0, 40))
def test_counts_skips_and_strides_agree_with_the_steps(
    tokens: list[int], world_size: int, remainder: str, stride: int, position: int
) -> None:
    of, position = np.array(tokens, np.int64), min(position, len(tokens))
    for rank in range(world_size):
        every = TokenSteps(Share(rank, world_size, remainder), LogOrder(), of, MOST)
        steps = list(every.steps(position))
        assert every.count(position) == len(steps)
        for k in range(len(steps)):
            assert every.skip(position, k) == steps[k].first
        some = TokenSteps(Share(rank, world_size, remainder, stride), LogOrder(), of, MOST)
        taken = list(some.steps(position))
        assert [(step.start, step.stop) for step in taken] == [(s.start, s.stop) for s in steps[::stride]]
        assert [step.following for step in taken[:-1]] == [step.first for step in taken[1:]]
        assert some.count(position) == len(taken)


@given(sizes, st.data())
def test_no_example_is_lost_or_doubled_even_if_the_ranks_change(tokens: list[int], data: st.DataObject) -> None:
    seen: list[int] = []
    position = 0
    while position < len(tokens):
        dealt = all_ranks(tokens, data.draw(ranks), position, batch_size=data.draw(st.integers(1, 6) | st.none()))
        done = data.draw(st.integers(1, len(dealt[0])))
        seen += [at for steps in dealt for step in steps[:done] for at in range(step.start, step.stop)]
        position = dealt[0][done - 1].after
    assert sorted(seen) == list(range(len(tokens)))


def test_drop_leaves_out_only_what_does_not_fill_a_step() -> None:
    def stops(tokens: list[int], world_size: int = 2, **options: Any) -> list[int]:
        return [step.after for step in all_ranks(tokens, world_size, remainder="drop", **options)[0]]

    assert stops([6, 6, 6, 6, 6]) == [2, 4]
    assert stops([6, 6, 6, 6]) == [2]  # the last batch had room
    assert stops([5, 5, 5, 5]) == [4]  # it has none
    assert stops([1, 1, 1, 1], batch_size=2) == [4]
    assert stops([1, 1, 1], batch_size=2) == []


def test_what_an_example_counts() -> None:
    events = np.array([0, 1, 5, 100])
    assert tokens_of(events, lw.Projection(), 50).tolist() == [1, 1, 5, 50]
    assert tokens_of(events, lw.Projection(), 2**70).tolist() == [1, 1, 5, 100]
    assert tokens_of(events, lw.Projection(max_len=4), 50).tolist() == [1, 1, 4, 4]
    assert tokens_of(events, lw.Projection(max_len=0), 50).tolist() == [1, 1, 1, 1]
    streams = {"a": lw.last(2), "b": lw.last(1)}
    assert tokens_of(events, lw.Projection(streams=streams), 50).tolist() == [1, 1, 3, 3]
    assert tokens_of(events, lw.Projection(streams=streams, scan=2), 50).tolist() == [1, 1, 2, 2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lw.Store, pa.Table, Path]]:
    """Histories of very different lengths, the newest events of some in the examples; as a table, and as two files."""
    folder, rng = tmp_path_factory.mktemp("tokens"), np.random.default_rng(1)
    users = np.minimum(rng.geometric(0.2, 600), 12)
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
    with lw.Store.create(folder / "store", schema, shards=2, clock=ManualClock(10**15)) as store:
        for i, half in enumerate((users[:400], users[400:])):
            ts = store.clock.now() - rng.integers(1, 1000, len(half))
            store.append(pa.table({"user_id": half, "event_ts": ts, "item": np.arange(len(half))}))
            if not i:
                store.compact()
        requests = {"user_id": rng.integers(1, 14, 80), "request_ts": [store.clock.now()] * 80, "row": np.arange(80)}
        examples = store.capture(pa.table(requests)).columns
        pq.write_table(examples.slice(0, 50), folder / "a.parquet", row_group_size=20)
        pq.write_table(examples.slice(50), folder / "b.parquet", row_group_size=7)
        yield store, examples, folder


def lengths_of(store: lw.Store, examples: pa.Table) -> NDArray[np.int64]:
    return lw.Materializer(store, lw.Projection())(examples).lengths


def test_examples_tell_how_many_events_they_have(data: tuple[lw.Store, pa.Table, Path]) -> None:
    store, examples, folder = data
    truth = lengths_of(store, examples).tolist()
    assert 0 in truth
    assert any(examples["uih"].combine_chunks().field("length").to_numpy() != truth)  # some of them are recent events
    for of in (examples, [examples.slice(0, 9), examples.slice(9)], folder / "*.parquet"):
        assert open_examples(of).event_counts().tolist() == truth
    with pytest.raises(lw.SchemaError, match=r"'recent\.ordinal'"):
        open_examples(examples.drop_columns(["recent"])).event_counts()
    with pytest.raises(lw.SchemaError, match=r"'uih\.length'"):
        open_examples(examples.drop_columns(["uih"])).event_counts()


@pytest.mark.parametrize("order", ["shuffle", "user", "time"])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loader_of_them_resumes_at_every_step_and_on_other_ranks(
    data: tuple[lw.Store, pa.Table, Path], order: str, world_size: int
) -> None:
    store, examples, folder = data
    truth = lengths_of(store, examples)

    def make(rank: int, ranks: int, **options: Any) -> lw.Loader:
        how = {"batch_tokens": 150, "order": order, "window": 32, "prefetch": 2, "seed": 4} | options
        loader = lw.Loader(store, folder / "*.parquet", lw.Projection(max_len=100), rank=rank, world_size=ranks, **how)
        loader.set_epoch(2)
        return loader

    def rows(batch: lw.Batch) -> list[int]:
        return np.array(batch.features["row"].to_pylist())[batch.weights > 0].tolist()

    loaders = [make(rank, world_size) for rank in range(world_size)]
    steps: list[list[int]] = []
    states = []
    for batches in zip(*loaders, strict=True):
        states.append(loaders[0].state_dict())
        assert all(loader.state_dict() == states[-1] for loader in loaders)
        assert max(batch.offsets[-1] for batch in batches) <= 150
        assert [batch.lengths[batch.weights > 0].tolist() for batch in batches] == [
            np.minimum(truth[rows(batch)], 100).tolist() for batch in batches
        ]
        steps.append([row for batch in batches for row in rows(batch)])
    assert len(steps) == len(loaders[0]) > 2
    assert sorted(row for step in steps for row in step) == list(range(len(examples)))
    for done, state in enumerate(states, 1):
        rest = [row for step in steps[done:] for row in step]
        for other, options in ((1, {}), (2, {"batch_tokens": 300}), (2, {"batch_tokens": None, "batch_size": 9})):
            again = [make(rank, other, **options) for rank in range(other)]
            for one in again:
                one.load_state_dict(state)
            found = [row for batches in zip(*again, strict=True) for batch in batches for row in rows(batch)]
            assert found == rest


@settings(max_examples=10)
@given(st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_dealt_to_workers_they_are_the_same_in_every_epoch(
    data: tuple[lw.Store, pa.Table, Path], workers: int, epoch: int, resumed: bool
) -> None:
    def make() -> lw.Loader:
        return lw.Loader(*data[:2], lw.Projection(), batch_tokens=200, batch_size=9, window=20, prefetch=0)

    def of(loader: lw.Loader) -> list[list[int]]:
        return [batch.features["row"].to_pylist() for batch in loader]

    whole = make()
    if resumed:
        steps = iter(whole)
        next(steps), next(steps)
        whole.load_state_dict(whole.state_dict())
    parts = [whole.deal(worker, workers) for worker in range(workers)]
    for _ in range(2):
        found = [of(part) for part in parts]
        assert [found[i % workers][i // workers] for i in range(sum(map(len, found)))] == of(whole)
        assert [len(own) for own in found] == [len(part) for part in parts] or resumed
        for part in (whole, *parts):
            part.set_epoch(epoch + 1)
        resumed = False


def test_one_history_that_is_longer_is_a_batch_of_its_own(data: tuple[lw.Store, pa.Table, Path]) -> None:
    store, examples, _ = data
    batches = list(lw.Loader(store, examples, lw.Projection(), batch_tokens=20))
    long = [batch for batch in batches if batch.offsets[-1] > 20]
    assert long
    assert all(len(batch) == 1 for batch in long)


def test_what_makes_no_sense_is_refused(data: tuple[lw.Store, pa.Table, Path]) -> None:
    for options in ({"batch_tokens": 0}, {"batch_tokens": 1.5}, {"batch_tokens": 9, "batch_size": 0}):
        with pytest.raises(lw.SchemaError, match="batch_"):
            lw.Loader(*data[:2], lw.Projection(), **options)  # type: ignore[arg-type]


def test_plans_of_a_million_examples_need_no_more_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch begins without its whole order being made."""
    asked: list[int] = []
    order = ShuffleOrder(np.array([0, 10**6]), 0, 0, 1000)
    rows = order.rows

    def count(start: int, stop: int) -> NDArray[np.int64]:
        asked.append(stop - start)
        return rows(start, stop)

    monkeypatch.setattr(order, "rows", count)
    steps = TokenSteps(Share(), order, np.ones(10**6, np.int64), 100)
    next(steps.steps(500_000))
    assert sum(asked) <= 2**16
