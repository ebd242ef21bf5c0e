"""What is decoded together: runs cover every step once, histories are decoded once where that is less work, and no batch
is another one for it."""

from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

import latewood as lw
from latewood.loading import together
from latewood.loading.together import number_users, runs_of
from latewood.testing import ManualClock

START, USERS, PER_USER = 10**15, 12, 8


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30), st.integers(0, 3)), min_size=1, max_size=30),
    st.integers(1, 80),
    st.integers(1, 80),
    st.booleans(),
)
def test_runs_cover_every_step_once_and_keep_to_their_limits(
    steps: list[tuple[int, int, int]], events: int, window: int, may_be_once: bool
) -> None:
    sizes = [size for size, *_ in steps]
    lengths = np.array([length for size, length, _ in steps for _ in range(size)])
    users = np.array([user for size, _, user in steps for _ in range(size)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "EVENTS_AT_ONCE", events)
        patch.setattr(together, "WINDOW_BYTES", window)
        runs = runs_of(sizes, lengths, users, 1, may_be_once=may_be_once)
    assert [step for run in runs for step in range(run.first, run.last)] == list(range(len(steps)))
    for run in runs:
        assert run.start == sum(sizes[: run.first])
        assert run.stop == sum(sizes[: run.last])
        mine, whose = lengths[run.start : run.stop], users[run.start : run.stop]
        if run.once:
            assert may_be_once
            assert sum(max(mine[whose == user]) for user in set(whose)) <= window
        else:
            assert run.last == run.first + 1 or mine.sum() <= events


def test_histories_are_decoded_once_where_they_are_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "EVENTS_AT_ONCE", 100)
    lengths, users = np.full(40, 50), np.arange(40)

    def ways(users: Any) -> list[bool]:
        return [run.once for run in runs_of([2] * 20, lengths, users, 1)]

    assert ways(users % 4) == [True]  # four users, all over the window
    assert ways(users // 2) == [False] * 20  # as they lie in the log
    assert ways(users) == [False] * 20  # one example each
    monkeypatch.setattr(together, "WINDOW_BYTES", 150)
    assert ways(users % 4) == [False] * 20  # the four do not fit
    assert ways(users // 20 * 2 + users % 2) == [True, True]  # but of each half the two that it has


@pytest.mark.parametrize("ids", [pa.array([5, 5, None, 7]), pa.chunked_array([["b"], ["b", None, "a"]])])
def test_users_are_numbered(ids: Any) -> None:
    assert number_users(ids).tolist() == [0, 0, 2, 1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lw.Store, pa.Table]]:
    """Stored, late and recent events with nulls, lists and text; users who ask often."""
    rng, clock = np.random.default_rng(2), ManualClock(START)
    traits = pa.schema(
        [
            ("item", pa.int64()),
            ("action", pa.dictionary(pa.int32(), pa.string())),
            ("tags", pa.list_(pa.string())),
            ("pair", pa.list_(pa.int16(), 2)),
        ]
    )
    with lw.Store.create(
        tmp_path_factory.mktemp("together") / "store",
        lw.Schema(user_id=pa.int64(), traits=traits),
        shards=2,
        clock=clock,
    ) as store:
        parts = []
        for hour in range(4):
            n = 150
            number = rng.integers(0, 50, n).tolist()
            columns = {
                "user_id": rng.integers(0, USERS, n),
                "event_ts": clock.now() - rng.integers(1, 5_000_000_000, n),
                "item": pa.array([i if i % 7 else None for i in number]),
                "action": [f"a{i % 5}" for i in number],
                "tags": pa.array([None if i < 5 else [f"t{i}"] * (i % 3) for i in number]),
                "pair": pa.array([[i, -i] for i in number], pa.list_(pa.int16(), 2)),
            }
            store.append(pa.table(columns))
            if hour % 2:
                store.compact()
            clock.advance(3_600_000_000)
            users = np.repeat(np.arange(USERS), PER_USER // 4)
            requests = {"user_id": users, "request_ts": np.full(len(users), clock.now())}
            parts.append(
                store.capture(pa.table({**requests, "row": hour * len(users) + np.arange(len(users))})).columns
            )
        yield store, pa.concat_tables(parts)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few hundred events are as much as does not fit together."""
    monkeypatch.setattr(together, "EVENTS_AT_ONCE", 200)


def make_loader(store: Any, examples: pa.Table, **options: Any) -> lw.Loader:
    return lw.Loader(
        store, examples, lw.Projection(max_len=40), **{"batch_size": 8, "prefetch": 0, "seed": 1} | options
    )


def of(batch: lw.Batch) -> list[dict[str, Any]]:
    return batch.to_arrow().to_pylist()


def test_batches_are_the_same_and_each_history_is_decoded_once(data: tuple[lw.Store, pa.Table], small: None) -> None:
    apart = {row["row"]: row for row in of(lw.Materializer(data[0], lw.Projection(max_len=40))(data[1]))}
    loader, by_user = make_loader(*data), make_loader(*data, order="user")
    batches = list(loader)
    assert [row for batch in batches for row in of(batch)] == [
        apart[row] for batch in batches for row in batch.features["row"].to_pylist()
    ]
    assert sorted(row for batch in batches for row in batch.features["row"].to_pylist()) == list(range(len(data[1])))
    for batch in batches:
        assert all(mask.any() for mask in batch.masks.values())
    list(by_user)
    runs = make_loader(*data, window=8)  # so that nothing is at hand but a step's own
    list(runs)
    assert loader.stats().reuse > 1.3 * runs.stats().reuse > 0
    assert loader.stats().decoded_events == loader.materializer.stats.decoded_events
    assert loader.stats().made_events == loader.stats().events == by_user.stats().events
    assert loader.materializer.stats.examples == len(data[1])
    assert 1 < loader.stats().users_per_batch <= 8


def test_ids_and_streams_and_shared_batches_do_not_depend_on_it(
    data: tuple[lw.Store, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    likes = lw.Projection(streams={"a": lw.last(5, where=lw.col("action") == "a1"), "new": lw.last(3)}, max_len=7)
    for projection, shared in ((likes, False), (lw.Projection(max_len=20), True)):
        found = []
        for events in (1 << 19, 50):
            monkeypatch.setattr(together, "EVENTS_AT_ONCE", events)
            batches = list(lw.Loader(*data, projection, batch_size=8, prefetch=0, shared=shared))
            found.append([of(batch.expand() if shared else batch) for batch in batches])
        assert found[0] == found[1]


def test_what_cannot_be_had_fails_or_is_masked_in_its_own_batch(data: tuple[lw.Store, pa.Table], small: None) -> None:
    store, examples = data
    bad = 33
    lengths = np.where(
        np.arange(len(examples)) == bad, 10**6, examples["uih"].combine_chunks().field("length").to_numpy()
    )
    uih = examples["uih"].combine_chunks()
    children = [pa.array(lengths) if f.name == "length" else uih.field(f.name) for f in uih.type]
    broken = examples.set_column(
        examples.schema.get_field_index("uih"), "uih", pa.StructArray.from_arrays(children, fields=list(uih.type))
    )
    order = [row for batch in make_loader(*data) for row in batch.features["row"].to_pylist()]
    good, batches = order.index(bad) // 8, iter(make_loader(store, broken))
    for _ in range(good):
        next(batches)
    with pytest.raises(lw.PointerError, match=f"row {order.index(bad) % 8}") as caught:
        next(batches)
    assert f"positions {8 * good} to" in caught.value.__notes__[0]
    masked = [batch.weights for batch in make_loader(store, broken, on_missing="mask")]
    assert np.flatnonzero(np.concatenate(masked) == 0).tolist() == [order.index(bad)]


def test_damage_fails_only_the_batches_that_need_it(
    data: tuple[lw.Store, pa.Table], small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window cannot be decoded as a whole; its batches are tried one by one."""
    expected = [of(batch) for batch in make_loader(*data)]
    loader = make_loader(*data)

    def damaged(_: Any) -> None:
        raise lw.CorruptionError("one block of many")

    monkeypatch.setattr(loader.materializer, "window", damaged)
    assert [of(batch) for batch in loader] == expected


def test_a_scrub_holds_for_what_was_decoded_before_it(
    tmp_path: Any, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, clock = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())])), ManualClock(START)
    with lw.Store.create(tmp_path / "s", schema, shards=1, clock=clock) as store:
        users, times = np.repeat(np.arange(4), 50), START - 1 - np.arange(200)
        store.append(pa.table({"user_id": users, "event_ts": times, "item": np.arange(200)}))
        clock.advance(10**6)
        store.compact()
        requests = {"user_id": np.tile(np.arange(4), 8), "request_ts": [clock.now()] * 32}
        examples = store.capture(pa.table(requests)).columns
        loader = lw.Loader(store, examples, lw.Projection(), batch_size=4, order="user", prefetch=0, on_missing="mask")
        batches = iter(loader)
        assert next(batches).weights.tolist() == [1] * 4
        assert loader.stats().decoded_events == 200  # all of the window
        store.scrub(user_ids=[2])
        rest = list(batches)
        assert [batch.weights.tolist() for batch in rest] == [[1, 1, 0, 1]] * 7
        assert [batch.lengths.tolist() for batch in rest] == [[50, 50, 0, 50]] * 7
