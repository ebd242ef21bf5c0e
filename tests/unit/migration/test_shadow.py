"""Fat Rows beside a store: equal ones are found equal, and every kind of difference gets its name. Over real stores."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.histories import places, read_histories
from latewood.testing import ManualClock
from latewood.users import user_keys
from moments import START

SECOND = 1_000_000
SCHEMA = lw.Schema(
    user_id=pa.int64(),
    traits=pa.schema([("item", pa.int64()), ("word", pa.string()), ("score", pa.float32()), ("like", pa.bool_())]),
)
Event = tuple[int, int]  # when it happened, and its item


class World:
    """A store whose events are told by their second and item: word, score and like follow from the item."""

    def __init__(self, path: Path) -> None:
        self.clock = ManualClock(START)
        self.store = lw.Store.create(path, SCHEMA, shards=2, clock=self.clock)

    def at(self, now: int, *events: Event) -> None:
        """Append events of user 1 at `now`."""
        self.clock.set(START + now * SECOND)
        times = [START + second * SECOND for second, _ in events]
        self.store.append({"user_id": [1] * len(events), "event_ts": times, **traits([item for _, item in events])})

    def row(self, request: int, *events: Event, **changed: Any) -> pa.Table:
        """A Fat Row of user 1, as `lw.write_fat_rows` writes them."""
        history: dict[str, pa.Array] = {
            "event_ts": pa.array([START + s * SECOND for s, _ in events], pa.timestamp("us", "UTC"))
        }
        history |= {
            name: pa.array(values, SCHEMA[name].type) for name, values in traits([i for _, i in events]).items()
        }
        history |= changed
        n = len(events)
        lists = [pa.ListArray.from_arrays(pa.array([0, n], pa.int32()), values) for values in history.values()]
        columns = {"user_id": pa.array([1]), "request_ts": pa.array([START + request * SECOND])}
        return pa.table(columns | {"history": pa.StructArray.from_arrays(lists, names=list(history))})

    def kinds(self, row: pa.Table, **options: Any) -> dict[str, int]:
        """How many events of each kind of difference."""
        return {found.kind: found.events for found in lw.shadow(self.store, row, **options).kinds}


def traits(items: list[int]) -> dict[str, pa.Array]:
    return {
        "item": pa.array(items, pa.int64()),
        "word": pa.array([f"w{item}" for item in items], pa.string()),
        "score": pa.array([item / 10 for item in items], pa.float32()),
        "like": pa.array([item % 2 == 0 for item in items], pa.bool_()),
    }


@pytest.fixture
def world(tmp_path: Path) -> World:
    """User 1 has, when asked at second 30, items 1, 2, 3, 4 of seconds 10, 20, 20, 25; the last one is recent."""
    world = World(tmp_path / "store")
    world.at(20, (10, 1), (20, 2), (20, 3))
    world.store.compact()
    world.at(25, (25, 4))
    return world


SEEN = ((10, 1), (20, 2), (20, 3), (25, 4))


def test_equal_rows_are_the_same(world: World) -> None:
    report = lw.shadow(world.store, world.row(30, *SEEN))
    assert (report.rows, report.compared, report.same, report.leaking) == (1, 1, 1, 0)
    assert (report.their_events, report.our_events, report.kinds) == (4, 4, ())
    assert report.traits == ("item", "word", "score", "like")
    assert report.not_compared == ()


def test_an_empty_history_is_the_same_as_none(world: World) -> None:
    assert world.kinds(world.row(5)) == {}


def test_a_late_event_in_the_row_is_a_leak(world: World) -> None:
    world.at(44, (15, 9))
    report = lw.shadow(world.store, world.row(30, (10, 1), (15, 9), *SEEN[1:]))
    assert (report.count("late"), report.leaking, report.same) == (1, 1, 0)
    [found] = report.kinds[0].examples
    assert found.note == "learned of 14 s after the request"
    assert found.event_ts == START + 15 * SECOND


def test_an_event_of_the_future_is_a_leak_even_if_the_store_lacks_it(world: World) -> None:
    world.at(31, (31, 9))
    assert world.kinds(world.row(30, *SEEN, (31, 9))) == {"future": 1}
    assert world.kinds(world.row(30, *SEEN, (30, 7))) == {"future": 1}


def test_the_same_events_of_one_time_in_another_order(world: World) -> None:
    assert world.kinds(world.row(30, SEEN[0], SEEN[2], SEEN[1], SEEN[3])) == {"tie_order": 1}


def test_events_twice(world: World) -> None:
    assert world.kinds(world.row(30, SEEN[0], SEEN[0], *SEEN[1:])) == {"duplicate": 1}
    assert world.kinds(world.row(30, SEEN[0], (11, 7), (11, 7), *SEEN[1:])) == {"extra": 1, "duplicate": 1}


def test_lists_of_another_length(world: World) -> None:
    assert world.kinds(world.row(30, *SEEN[2:])) == {"cap": 2}
    assert world.kinds(world.row(30, *SEEN), max_len=3) == {"cap": 1}
    assert world.kinds(world.row(30, *SEEN[1:]), max_len=3) == {}


def test_missing_events(world: World) -> None:
    assert world.kinds(world.row(30, *SEEN[:3])) == {"stale": 1}
    assert world.kinds(world.row(30, SEEN[0], SEEN[1], SEEN[3])) == {"missing": 1}
    assert world.kinds(world.row(30)) == {"missing": 4}
    world.at(28, (15, 9))
    report = lw.shadow(world.store, world.row(30, *SEEN))
    assert report.count("late_missing") == 1
    assert report.kinds[0].examples[0].note == "learned of 2 s before the request"


def test_events_that_the_store_does_not_have(world: World) -> None:
    assert world.kinds(world.row(30, SEEN[0], (12, 8), *SEEN[1:])) == {"extra": 1}


def test_another_value(world: World) -> None:
    report = lw.shadow(world.store, world.row(30, *SEEN, word=pa.array(["w1", "other", "w3", "w4"])))
    [found] = report.kinds
    assert (found.kind, found.events, found.by_trait) == ("value", 1, {"word": 1})
    [example] = found.examples
    assert (example.theirs, example.ours, example.trait) == ("other", "w2", "word")
    assert "word 'other' there, 'w2' here" in str(example)


def test_an_event_alone_at_its_time_is_the_same_whatever_its_values(world: World) -> None:
    changed = {
        "item": pa.array([9, 2, 3, 4]),
        "word": pa.array(["x", "w2", "w3", "w4"]),
        "score": pa.array([7.0, 0.2, 0.3, 0.4], pa.float32()),
        "like": pa.array([True, True, False, True]),
    }
    assert world.kinds(world.row(30, *SEEN, **changed)) == {"value": 4}


@pytest.mark.parametrize(
    ("trait", "values", "same"),
    [
        ("score", pa.array([0.1, 0.2, 0.3, 0.4], pa.float64()), False),
        ("item", pa.array(["1", "2", "3", "4"]), False),
        ("item", pa.array([1, 2, 3, 4], pa.int16()), True),
        ("item", pa.array([1, 2, 3, 4], pa.float32()), True),
        ("like", pa.array([0, 1, 0, 1], pa.int8()), True),
        ("like", pa.array([None, True, None, True]), False),
        ("word", pa.array(["w1", "w2", "w3", "w4"]).dictionary_encode(), True),
    ],
)
def test_another_representation(world: World, trait: str, values: pa.Array, same: bool) -> None:
    report = lw.shadow(world.store, world.row(30, *SEEN, **{trait: values}))
    assert (report.same, report.same_but_type) == (same, not same)
    assert {found.kind: found.by_trait.keys() for found in report.kinds} == ({} if same else {"type": {trait}})


def test_nothing_is_nothing_however_it_was_written(world: World) -> None:
    world.clock.set(START + 29 * SECOND)
    nothing = {"item": [None], "word": [None], "score": [None], "like": [None]}
    world.store.append({"user_id": [1], "event_ts": [START + 29 * SECOND], **nothing})
    zeros: dict[str, Any] = {
        "word": pa.array(["w1", "w2", "w3", "w4", ""]),
        "like": pa.array([False, True, False, True, False]),
    }
    zeros |= {"score": pa.array([0.1, 0.2, 0.3, 0.4, np.nan], pa.float32()), "item": pa.array([1, 2, 3, 4, 0])}
    report = lw.shadow(world.store, world.row(30, *SEEN, (29, 0), **zeros))
    assert report.same_but_type == 1
    assert report.kinds[0].by_trait == {"item": 1, "word": 1, "score": 1, "like": 1}


def test_a_coarser_clock_is_a_representation(world: World) -> None:
    world.store.append({"user_id": [1], "event_ts": [START + 27 * SECOND + 250_000], **traits([5])})
    report = lw.shadow(world.store, world.row(30, *SEEN, (27, 5)))
    assert report.kinds[0].by_trait == {"event_ts": 1}
    assert report.same_but_type == 1


def test_lists_that_are_newest_first(world: World) -> None:
    assert world.kinds(world.row(30, *SEEN[::-1])) == {"tie_order": 1, "order": 2}


def test_of_several_kinds_each_is_counted(world: World) -> None:
    world.at(44, (15, 9))
    row = world.row(30, (15, 9), SEEN[2], SEEN[1], SEEN[1], (22, 8))
    assert world.kinds(row) == {"late": 1, "tie_order": 1, "duplicate": 1, "extra": 1, "stale": 1, "cap": 1}


class TestMapping:
    def columns(self, world: World) -> pa.Table:
        row = world.row(30, *SEEN)
        fields = dict(
            zip(("event_ts", "item", "word", "score", "like"), row["history"].combine_chunks().flatten(), strict=True)
        )
        return pa.table(
            {
                "uid": row["user_id"],
                "asked": pc.divide(row["request_ts"], SECOND),
                **{f"h_{n}": v for n, v in fields.items()},
            }
        )

    def test_lists_of_their_own_and_seconds(self, world: World) -> None:
        table = self.columns(world)
        seconds = pc.divide(table["h_event_ts"].combine_chunks().flatten().cast(pa.int64()), SECOND)
        table = table.set_column(2, "h_event_ts", pa.ListArray.from_arrays(pa.array([0, 4], pa.int32()), seconds))
        history = {name: f"h_{name}" for name in ("event_ts", "item", "score")}
        mapping = {"user_id": "uid", "request_ts": "asked", "history": history}
        report = lw.shadow(world.store, table, mapping, unit="s")
        assert (report.same, report.traits, report.not_compared) == (1, ("item", "score"), ("word", "like"))

    def test_lists_of_structs(self, world: World) -> None:
        events = [{"when": START + s * SECOND, "what": {"id": i}} for s, i in SEEN]
        table = pa.table({"user_id": [1, 1], "request_ts": [START + 30 * SECOND] * 2, "log": [events, None]})
        report = lw.shadow(world.store, table, {"history": {"event_ts": "log.when", "item": "log.what.id"}})
        assert report.same == 1
        assert report.count("missing") == 4

    def test_a_cutoff_of_their_own(self, world: World) -> None:
        world.at(44, (15, 9))
        row = world.row(30, (10, 1), (15, 9), *SEEN[1:]).append_column("seen", pa.array([START + 50 * SECOND]))
        assert world.kinds(row, mapping={"cutoff": "seen"}) == {}

    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"user_id": "nobody"}, "no column 'nobody'"),
            ({"history": {"item": "history.item"}}, "without times"),
            ({"history": {"event_ts": "history.nothing"}}, "there is no field 'nothing'"),
            ({"history": {"event_ts": "history.event_ts", "price": "history.item"}}, "unknown trait 'price'"),
            ({"history": {"event_ts": "user_id"}}, "a history is a list"),
            ({"users": "user_id"}, "mapping has 'users'"),
        ],
    )
    def test_mistakes(self, world: World, mapping: dict[str, Any], message: str) -> None:
        with pytest.raises(lw.SchemaError, match=message):
            lw.shadow(world.store, world.row(30, *SEEN), mapping)

    def test_rows_of_no_known_layout(self, world: World) -> None:
        with pytest.raises(lw.SchemaError, match="say where their lists are"):
            lw.shadow(world.store, pa.table({"user_id": [1], "request_ts": [START]}))
        with pytest.raises(lw.SchemaError, match="unit 'hours'"):
            lw.shadow(world.store, world.row(30), unit="hours")


def test_it_leaves_no_trace(world: World) -> None:
    assert world.store.tier is not None
    before = world.store.tier.state()
    lw.shadow(world.store, world.row(900, *SEEN))
    assert world.store.tier.state() == before


def test_what_the_store_itself_writes_is_the_same(tmp_path: Path) -> None:
    world, rng = World(tmp_path / "store"), np.random.default_rng(1)
    asked = []
    for now in range(10, 400, 10):
        world.at(now, *((now - int(rng.integers(-2, 90)), int(rng.integers(0, 9))) for _ in range(20)))
        asked.append(now)
        if now % 150 == 0:
            world.store.compact()
    times = pa.array([START + now * SECOND for now in asked]).view(pa.timestamp("us", "UTC"))
    examples = lw.backfill(world.store, pa.table({"user_id": [1] * len(asked), "request_ts": times}))
    lw.export_fat_rows(world.store, examples, lw.Projection(max_len=300), tmp_path / "fat.parquet")
    report = lw.shadow(world.store, str(tmp_path / "fat.parquet"), max_len=300, sample=None)
    assert (report.same, report.kinds) == (len(asked), ())
    sampled = lw.shadow(world.store, str(tmp_path / "fat.parquet"), max_len=300, sample=7, seed=3)
    assert (sampled.compared, sampled.rows) == (7, len(asked))


def test_a_row_overwritten_by_a_later_truth_is_full_of_leaks(tmp_path: Path) -> None:
    """Fat Rows made afterwards, by event time alone, as most are."""
    world, rng = World(tmp_path / "store"), np.random.default_rng(5)
    for now in range(10, 200, 10):
        world.at(now, *((now - int(rng.integers(0, 60)), int(rng.integers(0, 99))) for _ in range(10)))
    world.store.compact()
    whole = world.store.history(1)
    before = whole.filter(pc.less(whole["event_ts"], pa.scalar(START + 100 * SECOND, pa.timestamp("us", "UTC"))))
    events = [
        ((ts - START) // SECOND, item)
        for ts, item in zip(before["event_ts"].cast(pa.int64()).to_pylist(), before["item"].to_pylist(), strict=True)
    ]
    report = lw.shadow(world.store, world.row(100, *events))
    known = len(world.store.history(1, as_of=START + 100 * SECOND))
    assert {found.kind for found in report.kinds} == {"late"}
    assert report.count("late") == len(events) - known
    assert report.our_events == known


def test_files_may_be_many(world: World, tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(world.row(30, *SEEN), tmp_path / f"part-{number}.parquet")
    assert lw.shadow(world.store, str(tmp_path / "part-*.parquet")).same == 3


def test_the_report_is_json(world: World) -> None:
    document = lw.shadow(world.store, world.row(30, *SEEN[2:]), examples=1).to_json()
    [kind] = document["kinds"]
    assert (kind["kind"], kind["events"], len(kind["examples"])) == ("cap", 2, 1)


class TestCorrections:
    """Item 2 of second 20 is corrected at second 40 to item 7 of the same time."""

    @pytest.fixture
    def corrected(self, world: World) -> World:
        world.clock.set(START + 40 * SECOND)
        events = read_histories(world.store, user_keys(pa.array([1]))).events
        place = places(events)[1]
        names = ("event_ts", "ingest_ts", "ordinal")
        version = {"user_id": [1], "event_ts": [START + 20 * SECOND], **traits([7])}
        world.store.append(version | {"supersedes": [dict(zip(names, place, strict=True))]})
        return world

    def test_a_row_as_of_its_time_is_the_same(self, corrected: World) -> None:
        assert corrected.kinds(corrected.row(30, *SEEN)) == {}
        assert corrected.kinds(corrected.row(50, SEEN[0], SEEN[2], (20, 7), SEEN[3])) == {}

    def test_a_row_with_the_later_truth_leaks_it(self, corrected: World) -> None:
        report = lw.shadow(corrected.store, corrected.row(30, SEEN[0], (20, 7), SEEN[2], SEEN[3]))
        assert {found.kind: found.events for found in report.kinds} == {"late": 1}
        assert report.kinds[0].examples[0].note.endswith("a correction")

    def test_a_row_with_what_was_corrected_before(self, corrected: World) -> None:
        assert corrected.kinds(corrected.row(50, *SEEN)) == {"superseded": 1}


def test_a_scrubbed_users_rows_are_refused(world: World) -> None:
    world.store.scrub([1])
    report = lw.shadow(world.store, world.row(24, *SEEN))
    assert (report.count("refused"), report.same) == (4, 0)


def test_what_retention_took(world: World) -> None:
    world.store.alter(retention=lw.Retention(max_events=2))
    world.store.compact()
    assert world.kinds(world.row(30, *SEEN)) == {"expired": 1}  # a tie is never cut: two events of second 20 stay


@pytest.mark.parametrize("first", [[], [(1_700_006_400 - START // SECOND, 9)]])
def test_a_coarse_clock_is_told_by_all_rows_and_not_by_the_first_ones(tmp_path: Path, first: list[Event]) -> None:
    """The first rows, as many as are compared at once, have no event, or one at midnight."""
    clock = ManualClock(START + SECOND)
    store = lw.Store.create(tmp_path / "finer", SCHEMA, shards=2, clock=clock)
    store.append({"user_id": [1, 1], "event_ts": [START + 500, START + SECOND // 2], **traits([4, 5])})
    clock.advance(SECOND)
    world = World(tmp_path / "store")
    others = pc.replace_with_mask(world.row(2, *first)["user_id"], pa.array([True]), pa.array([2]))
    other = world.row(2, *first).set_column(0, "user_id", others)
    report = lw.shadow(store, pa.concat_tables([other] * 128 + [world.row(2, (0, 4), (0, 5))]))
    assert {found.kind: found.events for found in report.kinds if found.kind != "future"} == {"type": 2}


@pytest.mark.parametrize(
    ("type_", "theirs", "kinds"),
    [
        (pa.float64(), [float(2**63 + 2048), 5.0], {}),
        (pa.int64(), [2048 - 2**63, 5], {"type": 1}),  # the same bits, and another number
        (pa.int64(), [~(2048 - 2**63), 5], {"value": 1}),
        (pa.uint64(), [2**63 + 2048, 5], {}),
        (pa.bool_(), [True, False], {"value": 2}),
    ],
)
def test_numbers_beyond_int64(type_: pa.DataType, theirs: list[Any], kinds: dict[str, int], tmp_path: Path) -> None:
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("hash", pa.uint64())]))
    store = lw.Store.create(tmp_path / "store", schema, shards=1, clock=ManualClock(START))
    hashes = pa.array([2**63 + 2048, 5], pa.uint64())
    store.append({"user_id": [1, 1], "event_ts": [START, START + 1], "hash": hashes})
    rows = {"user_id": [1], "request_ts": [START + SECOND], "times": [[START, START + 1]]}
    values = pa.ListArray.from_arrays(pa.array([0, 2], pa.int32()), pa.array(theirs, type_))
    report = lw.shadow(store, rows | {"hashes": values}, {"history": {"event_ts": "times", "hash": "hashes"}})
    assert {found.kind: found.events for found in report.kinds} == kinds


def test_a_time_beyond_int64_is_no_time_before_1970(world: World) -> None:
    row = {"user_id": [1], "request_ts": pa.array([2**64 - 5], pa.uint64()), "times": [[START]]}
    with pytest.raises(lw.SchemaError, match="'request_ts' has a time outside the years"):
        lw.shadow(world.store, row, {"history": {"event_ts": "times"}})
