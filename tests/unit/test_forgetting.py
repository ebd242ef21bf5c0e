"""Forgetting: refused at once, gone with the next compaction, and the receipt tells."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from latewood import store as store_module
from latewood.histories import read_histories
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Located
from latewood.materialize.look_up import Lookup
from latewood.storage import keys
from latewood.testing import ManualClock
from latewood.users import UserKeys, user_keys

SCHEMA = lw.Schema(user_id=pa.string(), traits=pa.schema([("item", pa.int64()), ("shop", pa.string())]))
EVERYTHING = lw.Projection()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> lw.Store:
    """Two users, each with a stored and a recent event; u1 alone has been to "little shop"."""
    store = lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock)
    append(store, clock, "u1", 1, "little shop")
    append(store, clock, "u2", 2, "big shop")
    store.compact()
    append(store, clock, "u1", 3, "big shop")
    append(store, clock, "u2", 4, "big shop")
    return store


def append(store: lw.Store, clock: ManualClock, user: str, item: int, shop: str, event_ts: int | None = None) -> Any:
    clock.advance(10)
    times = [clock.now() if event_ts is None else event_ts]
    return store.append(pa.table({"user_id": [user], "event_ts": times, "item": [item], "shop": [shop]}))


def capture(store: lw.Store, clock: ManualClock, *users: str) -> pa.Table:
    clock.advance(10)
    requests = pa.table({"user_id": list(users), "request_ts": [clock.now()] * len(users)})
    return store.capture(requests).columns


def items(store: lw.Store, examples: pa.Table, **how: Any) -> list[list[int]]:
    rows = lw.Materializer(store, EVERYTHING, **how)(examples).to_arrow()["history"].to_pylist()
    return [row["item"] for row in rows]


def files_of(store: lw.Store) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(store.path).rglob("*") if path.is_file()}


def test_who_is_scrubbed_while_an_example_is_looked_up_is_refused_as_scrubbed(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: a PointerError, which no mask forgives, of a generation that had forgotten the user."""
    examples, reader = capture(store, clock, "u1"), lw.Store.open(store.path, read_only=True)
    look_up = Lookup._look_up

    def scrub_first(self: Lookup, *arguments: Any) -> Any:
        monkeypatch.setattr(Lookup, "_look_up", look_up)
        store.scrub(["u1"])
        reader.refresh()
        return look_up(self, *arguments)

    monkeypatch.setattr(Lookup, "_look_up", scrub_first)
    with pytest.raises(lw.ScrubbedError, match="row 0, user 'u1': the user was scrubbed at"):
        items(reader, examples)


@pytest.mark.parametrize("compact", [True, False])
def test_a_user_is_refused_at_once_and_gone_with_compaction(store: lw.Store, clock: ManualClock, compact: bool) -> None:
    examples = capture(store, clock, "u1", "u2")
    trainer = lw.Store.open(store.path, read_only=True)
    assert items(trainer, examples) == [[1, 3], [2, 4]]
    receipt = store.scrub(["u1"], compact=compact)
    for reader in (store, trainer):
        with pytest.raises(lw.ScrubbedError, match="row 0, user 'u1'"):
            items(reader, examples)
        assert items(reader, examples.slice(1)) == [[2, 4]]
        batch = lw.Materializer(reader, EVERYTHING, on_missing="mask")(examples)
        assert (batch.lengths.tolist(), batch.weights.tolist()) == ([0, 2], [0, 1])
    assert store.history("u1").num_rows == 0
    assert receipt.done == compact
    if not compact:
        assert any(b"u1" in data for data in files_of(store).values())
        assert receipt.generation is None
        assert "next compaction" in repr(receipt)
        store.compact()
    assert not [path for path, data in files_of(store).items() if b"u1" in data or b"little shop" in data]
    assert store.history("u2")["shop"].to_pylist() == ["big shop", "big shop"]


def test_the_receipt_says_what_was_done(store: lw.Store, clock: ManualClock) -> None:
    store.pin("run", timedelta(days=1))
    receipt = store.scrub(["u1", "u1", "stranger"])
    assert (receipt.users, receipt.unknown_users, receipt.events, receipt.numbers) == (2, 1, None, (0,))
    assert "2 users (1 of them unknown)" in repr(receipt)
    assert (receipt.generation, receipt.purged_generations, receipt.mutable_tier) == (2, (1,), True)
    assert (receipt.blanked_values, receipt.moved_pins, receipt.purged_files) == (1, ("run",), 1)
    assert receipt.to_json()["done"] is True
    assert any("example logs" in place for place in receipt.out_of_reach)
    assert store.at("run").generation.id == 2


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("read_only", [True, False])
def test_the_history_of_who_is_scrubbed_while_it_is_read_is_empty(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, read_only: bool, compact: bool
) -> None:
    """Nobody asked for it by a pointer, so that there is nothing to refuse."""
    reader = lw.Store.open(store.path, read_only=read_only, clock=clock)
    read = store_module.read_examples

    def scrub_after(*arguments: Any, **options: Any) -> pa.Table:
        examples = read(*arguments, **options)
        monkeypatch.setattr(store_module, "read_examples", read)
        store.scrub(["u1"], compact=compact)
        return examples

    monkeypatch.setattr(store_module, "read_examples", scrub_after)
    assert reader.history("u1").num_rows == 0


def test_who_comes_back_has_valid_examples_and_a_replay_does_not_bring_the_past(
    store: lw.Store, clock: ManualClock
) -> None:
    before = clock.now()
    receipt = store.scrub(["u1"], compact=False)
    replayed = append(store, clock, "u1", 1, "little shop", event_ts=before)
    assert (replayed.count, replayed.skipped) == (0, 1)
    append(store, clock, "u1", 9, "new shop")
    examples = capture(store, clock, "u1")
    assert items(store, examples) == [[9]]
    store.compact()
    assert items(store, examples) == [[9]]
    assert receipt.scrub_ts is not None
    assert store.history("u1")["item"].to_pylist() == [9]


def test_events_that_meet_a_condition(store: lw.Store, clock: ManualClock) -> None:
    examples = capture(store, clock, "u1", "u2")
    receipt = store.scrub(where=(lw.col("shop") == "little shop") | (lw.col("item") == 3))
    assert (receipt.users, receipt.events, receipt.done) == (1, 2, True)
    assert store.history("u1").num_rows == 0
    assert not [path for path, data in files_of(store).items() if b"little shop" in data]
    with pytest.raises(lw.ScrubbedError, match="user 'u1'"):
        items(store, examples)
    assert items(store, examples.slice(1)) == [[2, 4]]
    assert store.scrubs.refresh() == 1
    assert next(iter(lw.Store.open(store.path, read_only=True).scrubs), None) is None  # read when first asked
    append(store, clock, "u1", 5, "big shop")
    receipt = store.scrub(where=lw.col("item") == 2)
    assert (receipt.users, receipt.events) == (1, 1)
    assert store.history("u2")["item"].to_pylist() == [4]
    assert store.history("u1")["item"].to_pylist() == [5]


def test_nothing_to_forget(store: lw.Store) -> None:
    receipt = store.scrub(where=lw.col("item") == 77)
    assert (receipt.scrub_ts, receipt.numbers, receipt.events, receipt.done) == (None, (), 0, True)
    assert repr(receipt) == "<ScrubReceipt: nothing to forget>"
    assert store.storage.list(keys.SCRUBS) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either user_ids= or where="),
        ({"user_ids": ["a"], "where": lw.col("item") == 1}, "either user_ids= or where="),
        ({"user_ids": "u1"}, "is one string"),
        ({"user_ids": [1]}, "'user_id' is int64"),
        ({"user_ids": [1, "a"]}, "of one type"),
        ({"where": "item == 1"}, "where is a condition"),
        ({"where": lw.col("nope") == 1}, "nope"),
    ],
)
def test_what_is_no_scrub_is_refused(store: lw.Store, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(lw.SchemaError, match=message):
        store.scrub(**arguments)
    assert store.storage.list(keys.SCRUBS) == []


def test_recents_are_read_whose_values_a_scrub_of_others_blanked(store: lw.Store, clock: ManualClock) -> None:
    """Found by the simulation: retention had taken the event with the value, so that nobody seemed to have it."""
    store.alter(retention=lw.Retention(max_events=1))
    append(store, clock, "u3", 5, "little shop")
    examples = capture(store, clock, "u3")
    append(store, clock, "u3", 6, "big shop")
    store.scrub(["u1"])
    assert not any(b"little shop" in data for data in files_of(store).values())
    for reader in (store, lw.Store.open(store.path, read_only=True)):
        batch = lw.Materializer(reader, EVERYTHING)(examples)
        assert batch.to_arrow()["history"].to_pylist()[0]["shop"] == ["little shop"]


def test_what_only_expired_events_had_goes_too(store: lw.Store, clock: ManualClock) -> None:
    store.alter(retention=lw.Retention(max_age=timedelta(microseconds=60)))
    clock.advance(60)
    append(store, clock, "u2", 5, "big shop")
    store.compact()
    assert store.history("u1").num_rows == 0
    assert any(b"little shop" in data for data in files_of(store).values())
    store.scrub(["u1"])
    assert not [path for path, data in files_of(store).items() if b"u1" in data or b"little shop" in data]
    assert store.history("u2")["shop"].to_pylist() == ["big shop"]


def test_a_value_that_came_back_while_a_compactor_slept_is_not_blanked(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had found nobody else with the value; by the time it acts, two generations later, someone has."""
    append(store, clock, "ann", 1, "of ann alone")
    store.scrub(user_ids=["ann"], compact=False)
    tier = store.tier
    assert tier is not None
    blank = tier.blank

    def late(*args: Any) -> int | None:
        monkeypatch.setattr(tier, "blank", blank)
        with lw.Store.open(store.path, clock=clock) as other:
            append(other, clock, "bob", 8, "of ann alone")
            other.compact()
            append(other, clock, "bob", 9, "elsewhere")
            other.compact()
        return blank(*args)

    monkeypatch.setattr(tier, "blank", late)
    store.compact()
    assert store.history("bob").to_pylist()[-2]["shop"] == "of ann alone"
    with lw.Store.open(store.path, clock=clock) as again:
        assert again.history("bob").to_pylist()[-2]["shop"] == "of ann alone"


def test_a_scrub_after_retention_finds_values_of_new_traits_and_of_other_writers(
    tmp_path: Path, store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: the vocabulary of who compacts need know neither."""
    assert len(store.vocabulary.values(SCHEMA["shop"].id)) == 2
    other = lw.Store.open(store.path, clock=clock)
    append(other, clock, "u1", 5, "hidden shop")
    append(other, clock, "u2", 6, "big shop")
    store.alter(retention=lw.Retention(max_events=1), add=pa.schema([("city", pa.string())]))
    store.scrub(["u1"])
    assert store.generation.expired
    assert not any(b"hidden shop" in data for data in files_of(store).values())


def test_an_event_id_is_known_again_though_its_value_was_blanked(store: lw.Store, clock: ManualClock) -> None:
    """Found by killing processes: a batch that is sent again, of a time after the scrub that took it."""
    times = {"event_ts": [clock.now() + 1_000] * 2, "item": [5, 6], "event_id": ["a", "b"]}
    batch = pa.table({"user_id": ["u2", "u3"], "shop": ["hidden shop", "big shop"], **times})
    store.append(batch)
    store.scrub(where=lw.col("shop") == "hidden shop")
    again = store.append(batch)
    assert (again.count, again.duplicates) == (0, 2)
    assert not any(b"hidden shop" in data for data in files_of(store).values())
    assert store.history("u2")["item"].to_pylist() == [2, 4]
    with pytest.raises(lw.ConflictError, match="row 1: its event_id was used for an event with other content"):
        store.append(batch.set_column(1, "shop", pa.array(["hidden shop", "little shop"])))
    with pytest.raises(lw.ConflictError, match="row 0: its event_id was used for an event with other content"):
        store.append(batch.set_column(3, "item", pa.array([7, 6])))
    assert not any(b"hidden shop" in data for data in files_of(store).values())


def test_a_row_of_before_the_scrub_does_not_claim_its_event_id_for_a_later_one(
    store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: the row was taken for a repetition and not coded, and as a new one refused, for ever."""
    append(store, clock, "u1", 5, "hidden shop")
    scrubbed_at = store.scrub(["u1"]).scrub_ts
    assert scrubbed_at is not None
    clock.advance(10)
    times = {"event_ts": [scrubbed_at - 5, clock.now()], "item": [6, 7], "event_id": ["a", "a"]}
    receipt = store.append(pa.table({"user_id": ["u1", "u1"], "shop": ["hidden shop", "new shop"], **times}))
    assert (receipt.count, receipt.skipped) == (1, 1)
    assert store.history("u1")["shop"].to_pylist() == ["new shop"]
    assert not any(b"hidden shop" in data for data in files_of(store).values())


def test_users_are_counted_though_their_generation_is_collected_meanwhile(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: a FileNotFoundError, where the scrub only wants to know who is unknown."""
    locate = GenerationReader.locate

    def collect_first(self: GenerationReader, keys: UserKeys) -> Located:
        monkeypatch.setattr(GenerationReader, "locate", locate)
        for item in (5, 6):
            append(store, clock, "u2", item, "big shop")
            store.compact(keep=1)
        return locate(self, keys)

    with lw.Store.open(store.path, clock=clock) as other:
        monkeypatch.setattr(GenerationReader, "locate", collect_first)
        assert other.scrub(["u1", "u9"]).unknown_users == 1


def take_of_u3(store: lw.Store, clock: ManualClock) -> None:
    """Retention takes what u3 did in the hidden shop; a scrub of another user then takes the shop's name."""
    append(store, clock, "u3", 6, "big shop")
    store.alter(retention=lw.Retention(max_events=1))
    store.scrub(["u1"])


def test_a_reader_of_an_older_generation_does_not_take_a_blanked_value_for_null(
    store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: retention takes an event, a scrub of another user its value, and the reader has both."""
    append(store, clock, "u3", 5, "hidden shop")
    store.compact()
    examples = capture(store, clock, "u3")
    reader = lw.Store.open(store.path, read_only=True)
    trainer = lw.Materializer(reader, EVERYTHING)
    resolved = trainer.resolve(examples)
    assert trainer.batch(resolved).to_arrow()["history"].to_pylist()[0]["shop"] == ["hidden shop"]
    take_of_u3(store, clock)
    assert trainer.batch(resolved).to_arrow()["history"].to_pylist()[0]["shop"] == ["hidden shop"]
    reader.vocabulary.refresh_blanked()  # as other examples may make it do
    with pytest.raises(lw.ExpiredError, match="u3"):
        trainer.batch(resolved)


def test_a_blanking_that_shows_in_the_values_alone_makes_a_reader_look_again(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: a reader of an older generation looks for blankings just before one, for values after it."""
    append(store, clock, "u3", 5, "hidden shop")
    store.compact()
    examples = capture(store, clock, "u3")
    reader = lw.Store.open(store.path, read_only=True)
    trainer = lw.Materializer(reader, EVERYTHING)
    resolved = trainer.resolve(examples)  # maps its files, and reads no values yet
    take_of_u3(store, clock)
    monkeypatch.setattr(reader.vocabulary, "refresh_blanked", lambda: None)
    with pytest.raises(lw.ExpiredError, match="u3"):
        trainer.batch(resolved)


def test_what_was_looked_up_is_given_as_it_was_though_a_trait_is_added_and_a_value_blanked(
    store: lw.Store, clock: ManualClock
) -> None:
    """A window of a loader is looked up once; what comes to the schema later is not in the recent events that were read."""
    append(store, clock, "u3", 5, "hidden shop")
    examples = capture(store, clock, "u2")
    reader = lw.Store.open(store.path, read_only=True)
    trainer = lw.Materializer(reader, EVERYTHING)
    resolved = trainer.resolve(examples)
    before = trainer.batch(resolved).to_arrow()
    store.alter(add=pa.schema([("price", pa.int64())]), rename={"item": "item_id"})
    store.compact()
    store.scrub(["u3"])
    reader.vocabulary.refresh_blanked()  # as other examples may make it do
    assert trainer.batch(resolved).to_arrow().equals(before)
    assert reader.generation.scrubs == 1
    assert trainer(examples).to_arrow()["history"].to_pylist()[0]["price"] == [None, None]


def test_a_scrub_that_another_finished_and_settled_is_the_same_scrub(store: lw.Store, clock: ManualClock) -> None:
    """Found by the simulation: its own process slept from the commit to the record."""
    users = user_keys(pa.array(["u1"]))
    events = read_histories(store, users).events.slice(0, 1)
    body = store.scrubs.body(users, events)
    receipt = store.scrub(where=lw.col("item") == 1)
    assert receipt.scrub_ts is not None
    store.scrubs.write(0, receipt.scrub_ts, body)
    with pytest.raises(lw.ConflictError, match="another scrub's"):
        store.scrubs.write(0, receipt.scrub_ts + 1, body)


def test_who_compacts_erases_values_of_a_trait_that_it_did_not_know(store: lw.Store, clock: ManualClock) -> None:
    with lw.Store.open(store.path, clock=clock) as behind:
        assert "city" not in behind.schema
        store.alter(add=pa.schema([("city", pa.string())]))
        store.compact()
        for user, city in (("u1", "hidden town"), ("u2", "Oslo")):
            clock.advance(10)
            row = {"user_id": [user], "event_ts": [clock.now()], "item": [5], "shop": ["big shop"], "city": [city]}
            store.append(pa.table(row))
        store.scrub(["u1"], compact=False)
        behind.compact()
    assert store.storage.list(keys.UNUSED) == []
    assert not any(b"hidden town" in data for data in files_of(store).values())
    assert store.history("u2")["city"].to_pylist() == [None, None, "Oslo"]


def test_a_scrub_finds_values_of_rows_that_were_coded_and_not_added(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier = store.tier
    assert tier is not None
    add, before = tier.append, clock.now()

    def scrub_first(*args: Any, **how: Any) -> Any:
        monkeypatch.setattr(tier, "append", add)
        with lw.Store.open(store.path, clock=clock) as other:
            other.scrub(["u1"])
        return add(*args, **how)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tier, "append", scrub_first)
    assert append(store, clock, "u1", 5, "skipped shop", event_ts=before).skipped == 1
    capture(store, clock, "u1")
    row = {"user_id": ["u1"], "event_ts": [clock.now()], "item": [6], "shop": ["refused shop"]}
    with pytest.raises(lw.ConflictError, match="ingest"):
        store.append(pa.table(row | {"ingest_ts": [5]}))
    with monkeypatch.context() as patched:
        patched.setattr(tier, "append", die)
        with pytest.raises(KeyboardInterrupt):
            store.append(pa.table(row | {"shop": ["lost shop"]}))
    append(store, clock, "u2", 7, "new shop")
    store.scrub(["u1"])
    for shop in (b"skipped shop", b"refused shop", b"lost shop"):
        assert not any(shop in data for data in files_of(store).values())
    assert store.history("u2")["shop"].to_pylist() == ["big shop", "big shop", "new shop"]
    blanked = store.vocabulary.blanked
    store.scrub(["u1"])
    assert store.vocabulary.blanked == blanked, "what is blanked is not blanked again"


@pytest.mark.parametrize("early", [True, False])
def test_what_a_scrub_took_is_unknown_by_its_place_too_whenever_a_process_heard_of_it(
    store: lw.Store, clock: ManualClock, early: bool
) -> None:
    """One that read the record when it was settled counted a deletion, and corrections were refused from then on."""
    place = {"event_ts": 1010, "ingest_ts": 1010, "ordinal": 0}
    with lw.Store.open(store.path, clock=clock) as other:
        receipt = store.scrub(where=lw.col("item") == 1, compact=False)
        assert receipt.events == 1
        if early:
            other.scrubs.refresh()
        store.compact()
        for writer in (other, store):
            clock.advance(10)
            deleted = writer.append(pa.table({"user_id": ["u1"], "supersedes": [place]}))
            assert (deleted.count, deleted.skipped) == (0, 1)
        for writer in (other, store):
            clock.advance(10)
            row = {"user_id": ["u1"], "event_ts": [clock.now()], "item": [9], "shop": ["big shop"]}
            assert writer.append(pa.table(row | {"supersedes": [place]})).count == 1
    assert store.history("u1")["item"].to_pylist() == [3, 9, 9]


def test_what_retention_took_of_a_scrubbed_user_is_superseded_where_it_still_shows(
    store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: taken for forgotten, the old version stood beside the new one in an older generation."""
    place = {"event_ts": 1010, "ingest_ts": 1010, "ordinal": 0}
    assert store.scrub(where=lw.col("item") == 3).events == 1
    with lw.Store.open(store.path, clock=clock) as behind:
        assert behind.history("u1")["item"].to_pylist() == [1]
        store.alter(retention=lw.Retention(max_age=timedelta(microseconds=1)))
        assert store.compact(behind.generation.watermark).watermark == behind.generation.watermark
        assert store.history("u1")["item"].to_pylist() == []
        clock.advance(10)
        row = {"user_id": ["u1"], "event_ts": [clock.now()], "item": [9], "shop": ["big shop"]}
        assert store.append(pa.table(row | {"supersedes": [place]})).count == 1
        clock.advance(10)
        assert items(behind, capture(behind, clock, "u1")) == [[9]]
