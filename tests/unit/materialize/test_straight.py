"""Batches of clean histories, which need no plan, hold what is stored: by the lists that the store was made of."""

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

import latewood as lw
from latewood.materialize import materializer
from latewood.materialize.straight import decode_straight
from latewood.testing import ManualClock

START = 1_700_000_000_000_000
LENGTHS = [0, 1, 255, 256, 257, 700, 3, 512]  # of users 0 to 7; nobody knows user 8
TRAITS = pa.schema([("item", pa.int64()), pa.field("like", pa.bool_(), nullable=False), ("never", pa.int16())])
Event = tuple[int, int | None, bool, int]


def history(user: int, before: int) -> list[Event]:
    """What user's event number i holds, of the first ones."""
    count = min(LENGTHS[user], before) if user < len(LENGTHS) else 0
    return [(START + i, None if (i + user) % 5 == 0 else 1000 * user + i, i % 7 == 0, i) for i in range(count)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lw.Store]:
    clock = ManualClock(START + 10_000)
    schema = lw.Schema(user_id=pa.int64(), traits=TRAITS)
    with lw.Store.create(tmp_path_factory.mktemp("straight") / "s", schema, shards=2, clock=clock) as made:
        rows = [(user, *event) for user, length in enumerate(LENGTHS) for event in history(user, length)]
        users, times, items, likes, never = (list(column) for column in zip(*rows, strict=True))
        events = {"user_id": users, "event_ts": times, "ingest_ts": times, "item": pa.array(items, pa.int64())}
        made.append(pa.table(events | {"like": likes, "never": pa.array(never, pa.int16())}))
        clock.advance(10**6)
        made.compact()
        yield made


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 800)), min_size=1, max_size=40),
    st.sampled_from([None, 0, 1, 100, 256, 300, 10_000]),
    st.sampled_from([None, ["like"], ["event_ts", "item"]]),
)
def test_they_hold_what_is_stored(
    store: lw.Store, requests: list[tuple[int, int]], max_len: int | None, traits: list[str] | None
) -> None:
    asked = {"user_id": [user for user, _ in requests], "request_ts": [START + before for _, before in requests]}
    examples = lw.backfill(store, pa.table(asked), complete=True, allow_empty=True)
    materialize = lw.Materializer(store, lw.Projection(max_len, traits))
    batch, shared = materialize(examples), materialize.shared(examples)
    expected = []
    for user, before in requests:
        events = history(user, before)
        expected.append(events[len(events) - min(len(events), max_len) :] if max_len is not None else events)
    for of in (batch, shared.expand()):
        assert of.lengths.tolist() == [len(events) for events in expected]
        flat = [event for events in expected for event in events]
        for place, name in enumerate(["event_ts", "item", "like", "never"]):
            if name in of.values:
                column = of.column_to_arrow(name)
                found = column.cast(pa.int64()) if name == "event_ts" else column
                assert found.to_pylist() == [event[place] for event in flat], name
        assert of.weights.tolist() == [1.0] * len(requests)


@pytest.mark.parametrize(("repeated", "is_straight"), [(0, True), (24, True), (25, False)])
def test_unless_nearly_all_are_of_one_user_examples_are_decoded_one_by_one(
    store: lw.Store, monkeypatch: pytest.MonkeyPatch, repeated: int, is_straight: bool
) -> None:
    calls = list[int]()

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return decode_straight(*arguments)

    monkeypatch.setattr(materializer, "decode_straight", counted)
    users = [*range(8), *[5] * repeated]
    requests = pa.table({"user_id": users, "request_ts": [START + 800] * len(users)})
    materialize = lw.Materializer(store, lw.Projection())
    batch = materialize(lw.backfill(store, requests, complete=True, allow_empty=True))
    assert bool(calls) == is_straight
    assert batch.lengths.tolist() == [*LENGTHS, *[700] * repeated]
    assert materialize.last_stats.decoded_events == sum(LENGTHS) + 700 * repeated * is_straight
    assert np.array_equal(batch.values["event_ts"][-700:], START + np.arange(700)) or not repeated


def test_a_window_is_let_go_of_with_its_last_part(store: lw.Store) -> None:
    """And not when Python looks for cycles next: by then the next windows have taken fresh memory."""
    requests = pa.table({"user_id": list(range(8)), "request_ts": [START + 800] * 8})
    materialize = lw.Materializer(store, lw.Projection())
    window = materialize.resolve(lw.backfill(store, requests, complete=True, allow_empty=True))
    held, part = weakref.ref(window.resolution.start), window.slice(2, 7).slice(1, 3)
    gc.disable()
    try:
        del window
        assert materialize.batch(part).lengths.tolist() == [*LENGTHS[3:5]]
        assert part.resolution.start.tolist() == part.whole.resolution.start.tolist()[3:5]
        assert held() is not None
        del part
        assert held() is None
    finally:
        gc.enable()
