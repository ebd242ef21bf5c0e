"""Capture: the serving read, in a store that changes meanwhile (docs/protocol.md R10, R11)."""

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood.capture.examples
from latewood.capture import recent_type
from latewood.clock import EARLIEST_TS
from latewood.compaction import bulk_load
from latewood.errors import ConflictError, SchemaError
from latewood.intake import read_events
from latewood.pointer import POINTER_TYPE
from latewood.projection import Projection
from latewood.schema import TIME_TYPE
from latewood.store import Store

USERS = ["ada", "bob", "çelik"]
SECOND = 1_000_000


def requests(users: list[str], request_ts: Any, **columns: Any) -> pa.Table:
    return pa.table({"user_id": users, "request_ts": pa.array(request_ts, pa.int64()), **columns})


def random_appends(world: Any, rng: np.random.Generator, count: int) -> None:
    """Events of the last seconds, some of much earlier and some of the future, with many ties."""
    age = np.where(rng.random(count) < 0.2, rng.integers(-3, 40, count), rng.integers(0, 4, count))
    event_ts = world.clock.now() - age * SECOND
    world.append(rng.choice(USERS, count).tolist(), event_ts.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_captures_see_what_the_rule_says_for_good(world: Any, seed: int) -> None:
    """Appends, captures and compactions in any order; every capture is looked at again after each compaction."""
    rng = np.random.default_rng(seed)
    captured: list[tuple[pa.Table, list[list[int]]]] = []
    for _ in range(30):
        world.clock.advance(int(rng.integers(0, 3)) * SECOND)
        act = rng.integers(0, 6)
        if act < 3:
            random_appends(world, rng, int(rng.integers(1, 60)))
        elif act < 5:
            users = rng.choice([*USERS, "nobody"], 5).tolist()
            end_ts = world.clock.now() - rng.integers(-2, 20, 5) * SECOND
            table = world.store.capture(requests(users, end_ts, label=[1, 2, 3, 4, 5])).columns
            cutoff = table["cutoff"].cast(pa.int64()).to_pylist()
            expected = [world.seen(*one) for one in zip(users, end_ts.tolist(), cutoff, strict=True)]
            assert world.held(table) == expected
            captured.append((table, expected))
        else:
            world.store.compact()
            for table, expected in captured:
                assert world.held(table) == expected
    assert any(any(expected) for _, expected in captured)


def test_the_columns_to_log(world: Any) -> None:
    world.append(["ada", "bob"], [world.clock.now() - 5, world.clock.now() - 4])
    given = requests(
        ["ada", "nobody"], [world.clock.now()] * 2, label=pa.array([0.5, None], pa.float32()), ingest_ts=[1, 2]
    )
    table = world.store.capture(given).columns
    assert table.select(given.column_names) == given
    assert table.column_names == [*given.column_names, "uih", "recent", "cutoff"]
    assert table.schema.field("uih").type == POINTER_TYPE
    assert table.schema.field("recent").type == recent_type(world.store.schema)
    assert table.schema.field("cutoff").type == TIME_TYPE
    assert table["cutoff"].cast(pa.int64()).to_pylist() == [world.store.tier.state().closed] * 2
    assert [len(recent["item"]) for recent in table["recent"].to_pylist()] == [1, 0]
    assert table["recent"][0].as_py()["ordinal"] == [0]


def test_an_event_ingested_later_lies_past_the_cutoff(world: Any) -> None:
    world.append(["ada"], [world.clock.now()])
    before = world.store.capture(requests(["ada"], [world.clock.now() + SECOND])).columns
    world.append(["ada"], [world.clock.now()])
    assert world.log[1][1][1] >= before["cutoff"].cast(pa.int64())[0].as_py()
    assert world.held(before) == [[0]]


def test_captures_of_an_empty_store_and_of_no_requests(world: Any) -> None:
    table = world.store.capture(requests(["ada"], [5])).columns
    assert table["uih"][0].as_py()["length"] == 0
    assert table["cutoff"].cast(pa.int64()).to_pylist() == [EARLIEST_TS]
    world.append(["ada"], [3])
    none = world.store.capture(requests([], [], label=pa.array([], pa.int8()))).columns
    assert len(none) == 0
    assert none.schema.names == ["user_id", "request_ts", "label", "uih", "recent", "cutoff"]


def test_a_capture_forbids_imports_below_it(world: Any) -> None:
    now = world.clock.now()
    world.append(["ada"], [now], [now])
    world.append(["ada"], [now], [now - 5])
    world.store.capture(requests(["ada"], [now + 1]))
    with pytest.raises(ConflictError):
        world.append(["ada"], [now], [now - 5])


def test_a_request_that_is_an_event_ends_inside_its_tied_group(world: Any) -> None:
    now = world.clock.now()
    world.append(["ada"] * 5, [now] * 5)
    anchor = pa.array([None, *({"ingest_ts": place[1], "ordinal": place[2]} for _, place in world.log)])
    table = world.store.capture(requests(["ada"] * 6, [now] * 6, anchor=anchor)).columns
    assert "anchor" not in table.column_names
    assert world.held(table) == [[], *([*range(k)] for k in range(5))]
    world.store.compact()
    stored = world.store.capture(requests(["ada"] * 6, [now] * 6, anchor=anchor)).columns
    assert stored["uih"].combine_chunks().field("end_ties").to_pylist() == [0, 0, 1, 2, 3, 4]
    assert world.held(stored) == world.held(table)


def test_the_model_is_fed_what_is_logged(world: Any) -> None:
    world.append(["ada", "ada", "bob"], [1, 2, 3])
    world.store.compact()
    world.append(["ada"], [4])
    captured = world.store.capture(requests(["ada", "bob"], [10, 10]))
    assert len(captured) == 2
    batch = captured.history(Projection(traits=["item"]))
    assert (batch.offsets.tolist(), batch.values["item"].tolist()) == ([0, 3, 4], [0, 1, 3, 2])


def test_events_evicted_meanwhile_are_read_from_the_newer_generation(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the generation and the recent events, two compactions publish and evict."""
    world.append(["ada"], [world.clock.now()])
    world.store.compact()
    world.append(["ada", "bob"], [world.clock.now() + 1] * 2)
    slow, fast = world.store, Store.open(world.store.path, clock=world.clock)
    slow.capture(requests(["ada"], [0]))  # its files are open: that they are deleted goes unnoticed
    real = latewood.capture.examples._read_recent
    happened = []

    def interrupted(*arguments: Any) -> Any:
        if not happened:
            happened.append(True)
            fast.compact()
            world.append(["bob"], [world.clock.now() + 2])
            fast.compact()
        return real(*arguments)

    monkeypatch.setattr(latewood.capture.examples, "_read_recent", interrupted)
    table = slow.capture(requests(["ada", "bob"], [world.clock.now() + SECOND] * 2)).columns
    assert happened
    assert slow.tier.state().floor > 0
    assert world.held(table) == [[0, 1], [2, 3]]


def test_events_loaded_in_bulk_meanwhile_are_seen(world: Any) -> None:
    """They were never in the mutable tier, yet the cutoff lies past them: only the newer generation has them."""
    world.append(["ada"], [world.clock.now()])
    slow, fast = world.store, Store.open(world.store.path, clock=world.clock)
    slow.reader()
    table = {"user_id": ["ada"] * 2, "event_ts": [5, 6], "ingest_ts": [world.clock.now() + 7] * 2, "item": [1, 2]}
    table |= {"action": pa.array([None, "view"]), "score": pa.array([None, 1.0], pa.float32())}
    bulk_load(fast, [read_events(pa.table(table), fast.schema, fast.encode).events])
    world.log += [("ada", (ts, world.clock.now() + 7, 0)) for ts in (5, 6)]
    captured = slow.capture(requests(["ada"], [world.clock.now() + SECOND])).columns
    assert captured["cutoff"].cast(pa.int64())[0].as_py() == world.clock.now() + 8
    assert world.held(captured) == [[1, 2, 0]]


def test_a_collected_generation_is_left_for_the_newest(world: Any) -> None:
    world.append(["ada"], [world.clock.now()])
    world.store.compact()
    slow, fast = world.store, Store.open(world.store.path, clock=world.clock)
    slow.reader()
    for _ in range(3):
        world.clock.advance(SECOND)
        world.append(["ada"], [world.clock.now()])
        fast.compact(keep=1)
    assert world.held(slow.capture(requests(["ada"], [world.clock.now() + 1])).columns) == [[0, 1, 2, 3]]


def test_captures_while_others_append_and_compact(world: Any) -> None:
    """Every capture holds a prefix of what one writer appended, whatever compaction does."""
    done = threading.Event()
    problems: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(40):
                world.append(["ada"], [world.clock.now()])
                if len(world.log) % 8 == 0:
                    world.store.compact()
        except BaseException as error:
            problems.append(error)
        finally:
            done.set()

    writer = threading.Thread(target=write)
    writer.start()
    tables = []
    while not done.is_set():
        tables.append(world.store.capture(requests(["ada"], [world.clock.now() + SECOND])).columns)
    writer.join()
    assert not problems
    for table in tables:
        cutoff = table["cutoff"].cast(pa.int64())[0].as_py()
        assert world.held(table) == [world.seen("ada", world.clock.now() + SECOND, cutoff)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user_id": ["ada"]}, "requests lack the column request_ts; they have: user_id"),
        ({"user": ["ada"], "ts": [1]}, "requests lack the columns user_id and request_ts; they have: user, ts"),
        ({}, "requests lack the columns user_id and request_ts; they have: none"),
        ({"user_id": ["ada"], "request_ts": [1], "uih": [1]}, "column 'uih'"),
        ({"user_id": ["ada"], "request_ts": [1], "history": [1]}, "column 'history'"),
        ({"user_id": [7], "request_ts": [1]}, "column 'user_id' is int64"),
        ({"user_id": [None], "request_ts": [1]}, "column 'user_id'"),
        ({"user_id": ["ada"], "request_ts": [None]}, "column 'request_ts' has a null in row 0"),
        ({"user_id": ["ada"], "request_ts": [1.5]}, "column 'request_ts' is double"),
        ({"user_id": ["ada"], "request_ts": [1], "anchor": [1]}, "column 'anchor' is int64"),
        (
            {"user_id": ["ada"] * 2, "request_ts": [1, 1], "anchor": [None, {"ingest_ts": 1, "ordinal": None}]},
            "column 'anchor.ordinal'",
        ),
    ],
)
def test_requests_that_do_not_fit(world: Any, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        world.store.capture(pa.table(columns))
    assert not world.store.tier.state().captured


def test_two_columns_of_one_name(world: Any) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["ada"]), pa.array([1]), pa.array([1]), pa.array([2])], ["user_id", "request_ts", "x", "x"]
    )
    with pytest.raises(SchemaError, match="two columns 'x'"):
        world.store.capture(table)


def test_any_time_type_and_any_integer_user() -> None:
    schema = latewood.schema.Schema(user_id=pa.int32(), traits=[])
    with Store.create("memory://capture-ints", schema) as store:
        store.append({"user_id": pa.array([-3], pa.int8()), "event_ts": pa.array([7], pa.timestamp("s"))})
        times = pa.array([8_000], pa.timestamp("ms", "Europe/Berlin"))
        table = store.capture({"user_id": pa.array([-3], pa.int16()), "request_ts": times}).columns
        assert table["request_ts"].type == times.type
        assert len(table["recent"][0].as_py()["event_ts"]) == 1


def test_a_store_opened_read_only_does_not_capture(world: Any) -> None:
    with Store.open(world.store.path, read_only=True) as store, pytest.raises(ConflictError, match=r"read.only"):
        store.capture(requests(["ada"], [1]))
