"""Why, in a store whose events were corrected, deleted, scrubbed or let go of by retention."""

from datetime import timedelta

import pyarrow as pa
import pytest

import latewood as lw
from changing_store import Life
from moments import START
from small_world import SCHEMA, SECOND, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize("compacted", [False, True])
def test_a_corrected_event_is_superseded_from_then_on(world: World, compacted: bool) -> None:
    world.at(10, 7, 1, 2, 3)
    world.store.compact()
    receipt = world.supersede(20, 2, by=4)
    if compacted:
        world.store.compact()
    old, new = world.one(2, 30), world.one(4, 30)
    assert (old.kind, old.superseded_at) == ("superseded", receipt.ingest_ts[0])
    assert old.superseded_by == (START + 4 * SECOND, receipt.ingest_ts[0], 0)
    assert "by the version of 2023-11-14T22:13:24Z, before the cutoff" in old.message
    assert (new.kind, new.position, new.length) == ("in", 2, 3)
    before = world.one(2, 15)
    assert (before.kind, before.superseded_at) == ("in", receipt.ingest_ts[0])
    assert "which this request could not know" in before.message


@pytest.mark.parametrize("compacted", [False, True])
def test_a_deleted_event_says_so(world: World, compacted: bool) -> None:
    world.at(10, 7, 1, 2)
    world.supersede(20, 2, by=None)
    if compacted:
        world.store.compact()
    verdict = world.one(2, 30)
    assert (verdict.kind, verdict.superseded_by) == ("superseded", None)
    assert verdict.message.startswith("deleted at ")


def test_an_example_logged_before_and_one_logged_after_a_correction(world: World) -> None:
    world.at(10, 7, 1, 2)
    world.store.compact()
    before = world.capture(15)
    world.supersede(20, 2, by=3)
    after = world.capture(25)
    for _ in range(2):
        assert [world.one(s, example=before).kind for s in (1, 2, 3)] == ["in", "in", "late"]
        assert [world.one(s, example=after).kind for s in (1, 2, 3)] == ["in", "superseded", "in"]
        world.store.compact()


def test_a_corrected_anchor_is_not_in_its_own_history(world: World) -> None:
    world.at(1, 7, 5, 6)
    world.store.compact()
    world.supersede(2, 6, by=7)
    requests = lw.anchors(world.store, min_history=1)
    anchor = requests.slice(requests.num_rows - 1)
    assert anchor["request_ts"][0].value == START + 7 * SECOND
    place = anchor["anchor"][0].as_py()
    found = [
        world.one(s, 7, anchor=(place["ingest_ts"], place["ordinal"]), cutoff=START + 8 * SECOND).kind
        for s in (5, 6, 7)
    ]
    assert found == ["in", "after", "after"]


class TestScrubs:
    def test_what_was_asked_before_is_refused_and_what_is_gone_is_scrubbed(self, world: World) -> None:
        world.at(10, 7, 1, 2)
        example = world.capture(15)
        world.clock.set(START + 20 * SECOND)
        world.store.scrub([7])
        verdict = world.one(2, 30)
        assert (verdict.kind, verdict.ingest_ts) == ("scrubbed", None)
        assert verdict.scrubbed_at is not None
        assert [world.one(2, **asked).kind for asked in ({"request": 12}, {"example": example})] == ["scrubbed"] * 2

    def test_bytes_that_are_still_there_are_nobodys(self, world: World) -> None:
        world.at(10, 7, 1, 2)
        world.store.compact()
        world.clock.set(START + 20 * SECOND)
        world.store.scrub([7], compact=False)
        world.at(25, 7, 24)
        assert [world.one(s, 30).kind for s in (1, 24)] == ["scrubbed", "in"]
        assert "bytes go with the next compaction" in world.one(1, 30).message
        world.store.compact()
        assert [world.one(s, 30).kind for s in (1, 24)] == ["scrubbed", "in"]

    def test_of_a_user_scrubbed_in_part_the_rest_is_held_back_for_a_while(self, world: World) -> None:
        world.at(10, 7, 1, 2)
        world.store.compact()
        world.clock.set(START + 20 * SECOND)
        world.store.scrub(where=lw.col("item") == 2, compact=False)
        assert [world.one(s, 30).kind for s in (1, 2)] == ["scrubbed", "scrubbed"]
        assert "held back" in world.one(1, 30).message
        world.store.compact()
        assert [world.one(s, 30).kind for s in (1, 2)] == ["in", "scrubbed"]


class TestRetention:
    def kept(self, world: World, retention: lw.Retention) -> pa.Table:
        """An example of before retention took events."""
        world.at(100, 7, *range(10))
        world.store.compact()
        example = world.capture(150)
        world.store.alter(retention=retention)
        world.at(200, 7, 199)
        world.store.compact()
        return example

    def test_by_age(self, world: World) -> None:
        self.kept(world, lw.Retention(max_age=timedelta(seconds=195)))
        verdict = world.one(2, 250)
        assert (verdict.kind, verdict.horizon) == ("expired", world.store.generation.horizon)
        assert "retention by age reaches back to" in verdict.message
        assert world.one(9, 250).kind == "in"

    def test_by_count(self, world: World) -> None:
        self.kept(world, lw.Retention(max_events=4))
        verdict = world.one(2, 250)
        assert (verdict.kind, verdict.horizon) == ("expired", None)
        assert world.one(8, 250).kind == "in"

    def test_an_example_that_needs_what_is_gone(self, world: World) -> None:
        example = self.kept(world, lw.Retention(max_events=4))
        refused = world.one(9, example=example)
        assert refused.kind == "expired"
        assert "it is still stored, but others are not" in refused.message
        assert world.one(9, example=example, max_len=2).kind == "in"

    def test_what_a_rollback_brought_back_was_not_there_for_an_example_made_meanwhile(self, world: World) -> None:
        """Found by the simulation."""
        self.kept(world, lw.Retention(max_events=4))
        example = world.capture(250)
        world.store.alter(retention=None)
        world.store.rollback(1)
        assert [world.one(s, 250).kind for s in (2, 8)] == ["in", "in"]
        assert [world.one(s, example=example).kind for s in (2, 6, 8, 199)] == ["expired", "expired", "in", "in"]
        assert "when the example was made" in world.one(2, example=example).message

    def test_an_event_between_those_that_are_kept_was_never_there(self, world: World) -> None:
        self.kept(world, lw.Retention(max_events=4))
        assert world.one(50, 250).kind == "unknown"


def test_an_anchor_whose_version_was_superseded_when_it_was_learned_of() -> None:
    events = {"user": [7, 7], "ts": [5, 5], "known": [6, 6], "until": pa.array([6, None], pa.int64())}
    store = lw.ingest(
        events, "memory://superseded-at-once", user="user", time="ts", unit="us", ingest_time="known",
        superseded_time="until", quiet=True,
    )  # fmt: skip
    [verdict] = lw.why(store, 7, 5, 5, anchor=(6, 1), ordinal=1)
    assert verdict.kind == "after"
    [example] = lw.backfill(store, lw.anchors(store, min_history=0), complete=True)["uih"].to_pylist()
    assert example["length"] == 0


def test_of_several_learned_of_when_it_was_superseded_none_is_named(world: World) -> None:
    receipt = world.at(10, 7, 1)
    world.clock.set(START + 20 * SECOND)
    place = {"event_ts": START + SECOND, "ingest_ts": int(receipt.ingest_ts[0]), "ordinal": 0}
    events = {"user_id": [7, 7], "event_ts": [START, START + 2 * SECOND], "item": [0, 2]}
    events |= {"ingest_ts": [START + 15 * SECOND] * 2, "supersedes": pa.array([None, place])}
    world.store.append(pa.table(events))
    verdict = world.one(1, 30)
    assert (verdict.kind, verdict.superseded_by) == ("superseded", None)
    assert "when 2 others were learned of, before the cutoff" in verdict.message


def test_a_trait_that_was_dropped_or_added_changes_nothing(world: World) -> None:
    world.at(10, 7, 1)
    world.store.alter(add=pa.schema([("more", pa.string())]), drop=["item"])
    world.store.compact()
    assert world.one(1, 20).kind == "in"
    assert SCHEMA["item"] not in world.store.schema.traits


@pytest.mark.parametrize("retention", [None, lw.Retention(max_events=20)])
@pytest.mark.parametrize("seed", [21, 22, 23])
def test_verdicts_agree_with_the_materializer_whatever_happened(seed: int, retention: lw.Retention | None) -> None:
    """`why` compares by itself, and raises where they disagree."""
    life = Life(seed, retention)
    life.live(70, *["append"] * 4, "supersede", "supersede", "capture", "capture", "compact", "scrub")
    life.live(15, "append", "supersede", "capture", "compact")
    kinds = set()
    for _ in range(60):
        table = life.examples[int(life.rng.integers(len(life.examples) // 2, len(life.examples)))]
        example = table.slice(int(life.rng.integers(0, 4)), 1)
        event_ts = example["request_ts"][0].value - int(life.rng.integers(-2, 40)) * SECOND
        max_len = [None, 3][int(life.rng.integers(0, 2))]
        kinds |= {verdict.kind for verdict in lw.why(life.store, example=example, event_ts=event_ts, max_len=max_len)}
        user, now = int(life.rng.integers(0, 4)), example["cutoff"][0].value
        kinds |= {verdict.kind for verdict in lw.why(life.store, user, now, event_ts, max_len=max_len)}
    assert "in" in kinds
    assert kinds & {"scrubbed", "expired"}
