"""Why an event is in a sequence or not: every kind of verdict, by its facts, over real stores."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.clock import EARLIEST_TS
from latewood.users import user_keys
from moments import START
from small_world import SECOND, World


@pytest.fixture
def world() -> World:
    return World()


def test_an_event_that_is_in_by_the_pointer(world: World) -> None:
    world.at(10, 7, 1, 2, 3)
    world.at(20, 7, 20)
    world.store.compact()
    verdict = world.one(2, 30)
    assert (verdict.kind, verdict.tier, verdict.position, verdict.length, verdict.newer) == ("in", "stored", 1, 4, 2)
    assert (verdict.generation, verdict.stripe, verdict.ordinal) == (1, 0, 0)
    assert verdict.shard == world.store.reader().locate(user_keys(pa.array([7]))).shard[0]
    assert "event 1 of 4, by its pointer; it is in generation 1" in str(verdict)


def test_the_stripe_is_counted_in_the_users_history(world: World) -> None:
    world.at(1000, 7, *range(600))
    world.store.compact()
    assert [world.one(second, 2000).stripe for second in (0, 255, 256, 599)] == [0, 0, 1, 2]


def test_an_event_that_is_in_as_a_recent_one(world: World) -> None:
    world.at(10, 7, 1)
    world.store.compact()
    world.at(20, 7, 15)
    verdict = world.one(15, 30)
    assert (verdict.kind, verdict.tier, verdict.generation, verdict.position) == ("in", "recent", None, 1)
    assert verdict.message == "event 1 of 2, as a recent event, not in a generation yet"


def test_what_happened_before_but_was_learned_of_after_is_late_by_so_much(world: World) -> None:
    receipt = world.at(44, 7, 5)
    verdict = world.one(5, 30)
    assert (verdict.kind, verdict.late_by) == ("late", 14 * SECOND)
    assert verdict.ingest_ts == receipt.ingest_ts[0]
    assert "14 s after the cutoff" in verdict.message
    assert world.one(5, 44).message.startswith("learned of at the very cutoff")
    assert world.one(5, 30, cutoff=START + 45 * SECOND).kind == "in"


def test_what_happened_at_or_after_the_end(world: World) -> None:
    world.at(5, 7, 30, 40)  # of the future, so that only the end keeps them out
    assert "at the request's own time" in world.one(30, 30).message
    assert "10 s after the request's end" in world.one(40, 30).message
    assert [world.one(second, 30).kind for second in (30, 40)] == ["after", "after"]


def test_what_max_len_cuts_off(world: World) -> None:
    world.at(10, 7, 1, 2, 3)
    verdict = world.one(1, 20, max_len=2)
    assert (verdict.kind, verdict.newer, verdict.max_len) == ("cut", 2, 2)
    kept = world.one(2, 20, max_len=2)
    assert (kept.kind, kept.position, kept.length) == ("in", 0, 2)


def test_an_event_that_the_store_does_not_have(world: World) -> None:
    world.at(10, 7, 1, 9)
    verdict = world.one(5, 20)
    assert (verdict.kind, verdict.before, verdict.after) == ("unknown", START + SECOND, START + 9 * SECOND)
    assert "the one before is of" in verdict.message
    stranger = lw.why(world.store, 99, START, START)
    assert [v.kind for v in stranger] == ["unknown"]
    assert "no event of user 99 at all" in stranger[0].message


def test_each_version_of_a_time_gets_a_verdict(world: World) -> None:
    world.at(10, 7, 1)
    world.at(25, 7, 1)
    assert [v.kind for v in world.why(1, 20)] == ["in", "late"]
    first = world.why(1, 20)[0]
    assert world.why(1, 20, ingest_ts=first.ingest_ts, ordinal=0) == [first]
    assert world.one(1, 20, ordinal=3).kind == "unknown"


def test_an_anchor_ends_within_its_tie(world: World) -> None:
    receipt = world.at(1, 7, 5, 5, 5)
    world.store.compact()
    middle = int(receipt.ingest_ts[1])
    found = world.why(5, 5, anchor=(middle, int(receipt.ordinal[1])))
    assert [v.kind for v in found] == ["in", "after", "after"]
    assert "does not sort before where it ends" in found[1].message


class TestExamples:
    def test_a_logged_example_says_itself_what_it_could_see(self, world: World) -> None:
        world.at(10, 7, 1, 2)
        world.store.compact()
        world.at(20, 7, 12)
        example = world.capture(30)
        world.at(40, 7, 13)
        for _ in range(2):
            assert [world.one(s, example=example).kind for s in (1, 2, 12, 13)] == ["in", "in", "in", "late"]
            world.store.compact()
        recent = world.one(12, example=example)  # in a generation since, but the example carries its own copy
        assert (recent.tier, recent.generation) == ("recent", 2)

    def test_an_anchor_is_told_by_its_pointer_and_recents(self, world: World) -> None:
        world.at(1, 7, 5, 5)
        world.store.compact()
        world.at(2, 7, 5, 5)
        requests = lw.anchors(world.store, min_history=3)
        examples = lw.backfill(world.store, requests, complete=True)
        assert len(examples) == 1
        assert [v.kind for v in world.why(5, example=examples)] == ["in", "in", "in", "after"]

    def test_a_store_opened_read_only_takes_the_recents_from_the_example(self, world: World) -> None:
        world.at(10, 7, 1)
        world.store.compact()
        world.at(20, 7, 15)
        example = world.capture(30)
        with lw.Store.open(world.store.path, read_only=True) as store:
            verdicts = [lw.why(store, example=example, event_ts=START + s * SECOND)[0] for s in (1, 15)]
        assert [(v.kind, v.tier, v.position) for v in verdicts] == [("in", "stored", 0), ("in", "recent", 1)]

    def test_of_another_store_is_refused(self, world: World) -> None:
        example = World().capture(30)
        with pytest.raises(lw.PointerError, match="epoch"):
            world.why(1, example=example)

    def test_one_row_at_a_time(self, world: World) -> None:
        example = world.capture(30)
        with pytest.raises(lw.SchemaError, match="of one row, not of 2"):
            world.why(1, example=pa.concat_tables([example, example]))
        with pytest.raises(lw.SchemaError, match="pass either"):
            world.why(1, 5, example=example)


def test_what_is_asked_must_be_a_request_and_an_event(world: World) -> None:
    with pytest.raises(lw.SchemaError, match="say whose request"):
        world.why(1)
    with pytest.raises(lw.SchemaError, match="say which event"):
        lw.why(world.store, 7, START)
    with pytest.raises(lw.SchemaError, match="the store's are int64"):
        lw.why(world.store, "seven", START, START)


@pytest.mark.parametrize("option", ["request_ts", "event_ts", "ingest_ts", "cutoff"])
def test_a_moment_beyond_all_years_is_refused(option: str, world: World) -> None:
    asked = {"user_id": 7, "request_ts": START, "event_ts": START}
    with pytest.raises(lw.SchemaError, match="a moment is in µs"):
        lw.why(world.store, **asked | {option: 2**63})


@pytest.mark.parametrize("anchor", [5, (START,), (START, "x"), (START, None), (START, 2**31), (START, -1)])
def test_an_anchor_is_an_ingest_time_and_an_ordinal(anchor: Any, world: World) -> None:
    with pytest.raises(lw.SchemaError, match="anchor="):
        lw.why(world.store, 7, START, START, anchor=anchor)


def test_before_all_years_nobody_was_scrubbed(world: World) -> None:
    assert lw.why(world.store, 7, START, EARLIEST_TS)[0].kind == "unknown"


def test_moments_are_datetimes_too(world: World) -> None:
    world.at(10, 7, 1)
    second = [datetime.fromtimestamp(START / 1e6 + s, UTC) for s in (1, 20)]
    assert lw.why(world.store, 7, second[1], second[0])[0].kind == "in"


def test_asking_leaves_no_trace(world: World) -> None:
    world.at(10, 7, 1)
    assert world.store.tier is not None
    before = world.store.tier.state()
    world.why(1, 900)
    assert world.store.tier.state() == before


def test_a_materializer_that_gives_something_else_is_no_matter_of_opinion(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.at(10, 7, 1, 2)
    honest = lw.Materializer.__call__

    def wrong(self: lw.Materializer, examples: Any) -> lw.Batch:
        batch = honest(self, examples)
        return replace(batch, values={name: values[1:] for name, values in batch.values.items()})

    monkeypatch.setattr(lw.Materializer, "__call__", wrong)
    with pytest.raises(lw.CorruptionError, match="mistake of latewood's") as raised:
        world.why(1, 20)
    assert "by the rows themselves: in: event 0 of 2" in raised.value.__notes__[0]


def test_verdicts_agree_with_what_is_served_whatever_was_asked(world: World) -> None:
    rng = np.random.default_rng(11)
    for now in range(1, 60):
        world.at(now, 7, *rng.integers(0, 60, 4).tolist())
        if now % 20 == 0:
            world.store.compact()
    for request in rng.integers(0, 70, 12).tolist():
        served = world.store.history(7, as_of=START + request * SECOND)["item"].to_pylist()
        verdicts = [v for s in range(60) for v in world.why(s, request) if v.kind == "in"]
        assert sorted((v.event_ts - START) // SECOND for v in verdicts) == served
        assert [v.position for v in verdicts] == list(range(len(served)))


def test_verdicts_are_json(world: World) -> None:
    document = world.one(5, 20).to_json()
    assert (document["kind"], document["before"], document["position"]) == ("unknown", None, None)
