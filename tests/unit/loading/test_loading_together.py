"""What is decoded together: runs cover every step once, histories are decoded once where that is less work, and no batch
is another one for it."""

import tracemalloc
from collections.abc import Iterator
from time import sleep
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

import latewood as lw
import latewood.loading.loader
import latewood.materialize.materializer
from latewood.loading import together
from latewood.loading.stats import LoaderStats
from latewood.loading.together import number_users, runs_of
from latewood.materialize import Resolved, Shown, Window
from latewood.materialize.buffers import BufferPool
from latewood.testing import ManualClock

START, USERS, PER_USER = 10**15, 12, 8


def shown(lengths: Any, start: Any = 0, recents: Any = 0) -> Shown:
    """Histories of stored rows from `start` on, and recents that are not shown."""
    lengths = np.asarray(lengths)
    start, recents = np.zeros_like(lengths) + start, np.zeros_like(lengths) + recents
    return Shown(lengths, start, start + lengths, recents)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4), st.integers(0, 30), st.integers(0, 3), st.sampled_from([0, 5, 600]), st.integers(0, 3)
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 80),
    st.integers(1, 80),
    st.booleans(),
    st.booleans(),
)
def test_runs_cover_every_step_once_and_keep_to_their_limits(
    steps: list[tuple[int, int, int, int, int]], events: int, window: int, later: bool, may_be_once: bool
) -> None:
    first = int(later and len(steps) > 1)
    sizes = [size for size, *_ in steps]
    lengths, users, start, recents = np.array([of for size, *of in steps for _ in range(size)]).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "BYTES_AT_ONCE", events)
        patch.setattr(together, "WINDOW_BYTES", window + 5 * max(sum(of) for of in np.split(lengths, np.cumsum(sizes))))
        runs = runs_of(sizes, shown(lengths, start, recents), users, 1, first=first, may_be_once=may_be_once)
    assert [step for run in runs for step in range(run.first, run.last)] == list(range(first, len(steps)))
    for run in runs:
        assert run.start == sum(sizes[: run.first])
        assert run.stop == sum(sizes[: run.last])
        mine = range(run.start, run.stop)
        if run.once:
            assert may_be_once
            rows = {(users[i], start[i] + row) for i in mine for row in range(lengths[i])}
            assert len(rows) + sum(recents[mine]) <= window
        else:
            assert run.last == run.first + 1 or sum(lengths[mine]) <= events


def test_histories_are_decoded_once_where_they_are_scattered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "BYTES_AT_ONCE", 100)
    lengths, users = np.full(40, 50), np.arange(40)

    def ways(users: Any, start: Any = 0, recents: int = 0) -> list[bool]:
        return [run.once for run in runs_of([2] * 20, shown(lengths, start, recents), users, 1)]

    assert ways(users % 4) == [True]  # four users, all over the window
    assert ways(users // 2) == [False] * 20  # as they lie in the log
    assert ways(users) == [False] * 20  # one example each
    assert ways(users % 4, 1000 * users) == [False] * 20  # of one user, but of nothing that another one shows
    assert ways(users % 4, 1000 * (users % 8)) == [True]  # each part of a history is shown five times
    monkeypatch.setattr(together, "WINDOW_BYTES", 150 + 5 * 100)  # beside five batches
    assert ways(users % 4) == [False] * 20  # the four do not fit
    by_halves = users // 20 * 2 + users % 2
    assert ways(by_halves) == [True, True]  # but of each half the two that it has
    assert ways(by_halves, recents=3) == [True] * 4  # with the recent events of all examples, half as many
    assert ways(by_halves, recents=30) == [False] * 20


def test_events_of_no_columns_take_no_room() -> None:
    runs = runs_of([2] * 20, shown(np.full(40, 50)), np.arange(40), 0)
    assert [(run.first, run.last) for run in runs] == [(0, 20)]


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
    """So that a few hundred events are as much as does not fit together, and windows pay off where little is shared."""
    monkeypatch.setattr(together, "BYTES_AT_ONCE", 200)
    monkeypatch.setattr(together, "_COPYING", 0.3)


def make_loader(store: Any, examples: pa.Table, traits: Any = None, **options: Any) -> lw.Loader:
    projection = lw.Projection(max_len=40, traits=traits)
    return lw.Loader(store, examples, projection, **{"batch_size": 8, "prefetch": 0, "seed": 1} | options)


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
    plain, runs = (
        make_loader(*data, traits=["item", "action", "pair"], window=window)
        for window in (len(data[1]), 8)  # the latter: so that nothing is at hand but a step's own
    )
    list(plain), list(runs)
    assert plain.stats().reuse > 1.3 * runs.stats().reuse > 0
    assert plain.stats().reuse > loader.stats().reuse > runs.stats().reuse  # lists: its first step was made by itself
    assert loader.stats().decoded_events == loader.materializer.stats.decoded_events
    assert loader.stats().made_events == loader.stats().events == by_user.stats().events
    assert loader.materializer.stats.examples == len(data[1])
    assert 1 < loader.stats().users_per_batch <= 8


def test_batches_of_features_alone_are_loaded(data: tuple[lw.Store, pa.Table]) -> None:
    batches = list(make_loader(*data, traits=[]))
    assert len(batches) == len(data[1]) // 8
    lengths = lw.Materializer(data[0], lw.Projection(max_len=40, traits=[]))(data[1]).lengths
    assert sum(int(batch.lengths.sum()) for batch in batches) == lengths.sum() > 0


WIDE = pa.schema([("item", pa.int64()), ("flag", pa.bool_()), ("pair", pa.list_(pa.int64(), 2))])
LISTS = pa.schema([("tags", pa.list_(pa.int64()))])


@pytest.mark.parametrize(
    ("traits", "recent", "limit", "fits"),
    [
        (WIDE, False, 1 << 18, False),  # each user's longest history would fit, but each request sees another part
        (WIDE, False, 1 << 20, True),
        (WIDE, True, 1 << 20, False),  # recent events are copied for every request
        (LISTS, False, 1 << 20, False),  # what lists take is not known before
        (LISTS, False, 1 << 22, True),
    ],
)
def test_no_window_takes_more_than_is_allowed(
    tmp_path: Any,
    small: None,
    monkeypatch: pytest.MonkeyPatch,
    traits: pa.Schema,
    recent: bool,
    limit: int,
    fits: bool,
) -> None:
    users, each = 6, 3_000
    rng, clock, sizes = np.random.default_rng(5), ManualClock(START), list[int]()
    monkeypatch.setattr(together, "WINDOW_BYTES", limit)
    monkeypatch.setattr(together, "_BATCHES_BESIDE", 0)
    with lw.Store.create(tmp_path / "s", lw.Schema(user_id=pa.int64(), traits=traits), shards=1, clock=clock) as store:
        number = np.arange(users * each)
        columns = {
            "item": pa.array([i if i % 7 else None for i in number.tolist()]),
            "flag": pa.array(number % 3 == 0),
            "pair": pa.array([[i, i] for i in number.tolist()], pa.list_(pa.int64(), 2)),
            "tags": pa.array([[i] * 20 for i in number.tolist()]),
        }
        times = START - each + number // users
        events = pa.table({"user_id": number % users, "event_ts": times, "ingest_ts": times})
        for name in traits.names:
            events = events.append_column(name, columns[name])
        store.append(events)
        clock.advance(10**6)
        if not recent:
            store.compact()
        requests = {"user_id": np.arange(240) % users, "request_ts": START - rng.integers(0, each, 240)}
        examples = lw.backfill(store, pa.table(requests), complete=True)
        plain = lw.Materializer(store, lw.Projection(max_len=300))
        loader = lw.Loader(store, examples, plain.projection, batch_size=8, prefetch=0, seed=2)
        make = loader.materializer.window

        def watched(part: Resolved) -> Window:
            window = make(part)
            arrays = [array for column in window.columns.values() for array in column if array is not None]
            sizes.append(sum(array.nbytes for array in arrays))
            return window

        monkeypatch.setattr(loader.materializer, "window", watched)
        order = [row for batch in loader for row in batch.to_arrow()["history"].to_pylist()]
        assert sorted(map(repr, order)) == sorted(map(repr, plain(examples).to_arrow()["history"].to_pylist()))
    assert bool(sizes) == fits
    assert max(sizes, default=0) <= limit


@pytest.mark.parametrize(("prefetch", "most"), [(4, 3), (0, 2)])
def test_a_loader_of_large_batches_takes_less_than_three_of_them(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, prefetch: int, most: int
) -> None:
    """In proportion: five batches take as much as a window may, so that there is none."""
    users, each, batch_size, steps = 14, 20_000, 16, 21
    batch_bytes = batch_size * each * 21
    monkeypatch.setattr(together, "BYTES_AT_ONCE", 1)
    monkeypatch.setattr(together, "WINDOW_BYTES", 5 * batch_bytes)
    monkeypatch.setattr(latewood.loading.loader, "AHEAD_BYTES", batch_bytes // 16)
    traits = pa.schema([pa.field(f"t{i}", type_, nullable=False) for i, type_ in enumerate([pa.int64(), pa.int32()])])
    traits = traits.append(pa.field("flag", pa.bool_(), nullable=False))
    schema, clock = lw.Schema(user_id=pa.int64(), traits=traits), ManualClock(START)
    with lw.Store.create(tmp_path / "s", schema, shards=1, clock=clock) as store:
        number = np.arange(users * each)
        columns = {"t0": number, "t1": number.astype(np.int32), "flag": number % 3 == 0}
        events = {"user_id": number % users, "event_ts": START - users * each + number}
        store.append(pa.table({**events, **columns}))
        clock.advance(10**6)
        store.compact()
        asking = np.arange(steps * batch_size) % users
        requests = {"user_id": asking, "request_ts": np.full(len(asking), clock.now())}
        examples = store.capture(pa.table(requests)).columns

        def load(part: pa.Table) -> LoaderStats:
            loader = lw.Loader(store, part, lw.Projection(), batch_size=batch_size, prefetch=prefetch)
            for batch in loader:
                sleep(0.05 * (prefetch > 0))  # a step, in which what may be made ahead is made
                del batch
            return loader.stats()

        load(examples.slice(0, batch_size))  # whatever is loaded and compiled once
        monkeypatch.setattr(latewood.materialize.materializer, "_POOL", BufferPool())
        tracemalloc.start()
        try:
            stats = load(examples)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert stats.reuse < steps * batch_size / users  # as a window would have
    assert batch_bytes < peak_bytes < most * batch_bytes


def test_ids_and_streams_and_shared_batches_do_not_depend_on_it(
    data: tuple[lw.Store, pa.Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    likes = lw.Projection(streams={"a": lw.last(5, where=lw.col("action") == "a1"), "new": lw.last(3)}, max_len=7)
    for projection, shared in ((likes, False), (lw.Projection(max_len=20), True)):
        found = []
        for events in (1 << 19, 50):
            monkeypatch.setattr(together, "BYTES_AT_ONCE", events)
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
