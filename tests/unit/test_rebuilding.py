"""A rebuild takes everything over into a new epoch, and what should have been there from the start."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from latewood import rebuilding
from latewood.events import Events
from latewood.testing import ManualClock

SCHEMA = lw.Schema(user_id=pa.string(), traits=pa.schema([("item", pa.int64()), ("action", pa.string())]))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(100)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> lw.Store:
    store = lw.Store.create(tmp_path / "old", SCHEMA, shards=2, clock=clock)
    store.append(table(["a", "a", "b"], [10, 20, 30], ["x", "y", "z"]))
    store.compact()
    clock.advance(100)
    store.append(table(["a"], [40], ["x"]))
    return store


def table(users: list[str], times: list[int], actions: list[str | None], **more: object) -> pa.Table:
    return pa.table({"user_id": users, "event_ts": times, "item": times, "action": actions} | more)


def test_a_rebuilt_store_has_everything_and_the_feeds(store: lw.Store, tmp_path: Path) -> None:
    with pytest.raises(lw.ConflictError, match="too old"):
        store.append(table(["a"], [15], ["late"], ingest_ts=[16]))
    feed = table(["a", "c"], [15, 5], ["older", None], ingest_ts=[16, 6])
    with lw.rebuild(store, tmp_path / "new", [feed], shards=3) as new:
        assert new.history("a")["action"].to_pylist() == ["x", "older", "y", "x"]
        assert new.history("a", as_of=150)["item"].to_pylist() == [10, 15, 20]
        assert new.history("c")["action"].to_pylist() == [None]
        assert (new.shards, new.generation.origin, new.epoch != store.epoch) == (3, "load", True)
        examples = lw.backfill(store, pa.table({"user_id": ["a"], "request_ts": [50]}), allow_empty=True)
        with pytest.raises(lw.PointerError, match="epoch"):
            lw.Materializer(new, lw.Projection())(examples)
    assert store.history("a")["action"].to_pylist() == ["x", "y", "x"]


def test_a_feed_does_not_bring_back_who_was_scrubbed(store: lw.Store, clock: ManualClock, tmp_path: Path) -> None:
    store.scrub(user_ids=["a"])
    scrub_ts = store.generation.watermark - 1
    clock.advance(100)
    known = [16, scrub_ts, scrub_ts + 1, 6]
    feed = table(["a", "a", "a", "c"], [15, scrub_ts + 1, scrub_ts + 1, 5], ["o", "p", "q", "r"], ingest_ts=known)
    with lw.rebuild(store, tmp_path / "new", [feed]) as new:
        assert new.history("a")["action"].to_pylist() == ["q"]
        assert new.history("c")["action"].to_pylist() == ["r"]
        assert {"o", "p"}.isdisjoint(new.vocabulary.values(new.schema["action"].id).to_pylist())


def test_corrections_are_taken_over(store: lw.Store, clock: ManualClock, tmp_path: Path) -> None:
    store.append(table(["b", "a"], [31, 21], ["Z", "Y"], supersedes=pa.array([place(30, 100), place(20, 101)], PLACE)))
    clock.advance(100)
    with lw.rebuild(store, tmp_path / "new") as new:
        for as_of in (None, 200, 201, 202, 250):
            for user in ("a", "b"):
                assert new.history(user, as_of).equals(store.history(user, as_of))
        assert new.history("b")["action"].to_pylist() == ["Z"]


PLACE = pa.struct([("event_ts", pa.int64()), ("ingest_ts", pa.int64()), ("ordinal", pa.int32())])


def place(event_ts: int, ingest_ts: int) -> dict[str, int]:
    return {"event_ts": event_ts, "ingest_ts": ingest_ts, "ordinal": 0}


def test_a_feed_without_ingest_times_is_refused(store: lw.Store, tmp_path: Path) -> None:
    with pytest.raises(lw.SchemaError, match="feed 0: a feed brings its ingest_ts"):
        lw.rebuild(store, tmp_path / "new", [table(["a"], [15], ["x"])])


@pytest.mark.parametrize("when", ["reading", "sorting"])
def test_who_is_scrubbed_while_a_store_is_rebuilt_is_not_in_the_new_one(
    store: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    bulk_load = rebuilding.bulk_load

    def scrub_meanwhile(new: lw.Store, batches: Iterable[Events], **options: Any) -> Any:
        def batches_and_scrub() -> Iterator[Events]:
            if when == "reading":
                store.scrub(["a"])
            yield from batches
            if when == "sorting":
                store.scrub(["a"])

        return bulk_load(new, batches_and_scrub(), **options)

    monkeypatch.setattr(rebuilding, "bulk_load", scrub_meanwhile)
    with lw.Store.open(store.path, clock=clock) as other, pytest.raises(lw.ConflictError, match="was scrubbed while"):
        lw.rebuild(other, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(rebuilding, "bulk_load", bulk_load)
    with lw.rebuild(store, tmp_path / "new") as new:
        assert (len(new.history("a")), len(new.history("b"))) == (0, 1)


def test_a_rebuild_that_failed_can_be_tried_again(store: lw.Store, tmp_path: Path) -> None:
    with pytest.raises(lw.SchemaError, match="feed 0"):
        lw.rebuild(store, tmp_path / "new", [table(["a"], [15], ["x"])])
    with lw.rebuild(store, tmp_path / "new") as new:
        assert len(new.history("a")) == 3


def test_a_rebuilt_store_that_someone_uses_already_stays(
    store: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk_load = rebuilding.bulk_load

    def use_at_once(new: lw.Store, batches: Iterable[Events], **options: Any) -> Any:
        generation = bulk_load(new, batches, **options)
        with lw.Store.open(new.path, clock=clock) as other:
            other.append(table(["d"], [clock.now()], ["x"]))
        store.scrub(["a"])
        return generation

    monkeypatch.setattr(rebuilding, "bulk_load", use_at_once)
    with pytest.raises(lw.ConflictError, match="was scrubbed while"):
        lw.rebuild(store, tmp_path / "new")
    assert len(lw.Store.open(tmp_path / "new").history("d")) == 1
