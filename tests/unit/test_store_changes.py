"""Living with a store: changes of schema, pins, and the view at a pin."""

import itertools
import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood import store as store_module
from latewood.capture import examples as examples_module
from latewood.clock import LATEST_TS
from latewood.compaction import bulk_load, publish
from latewood.immutable import Catalog, Pin
from latewood.immutable.pins import Pins
from latewood.intake import read_events
from latewood.storage import keys
from latewood.testing import ManualClock

SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("action", pa.string())]))
HOUR = timedelta(hours=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000_000)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> lw.Store:
    return lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock)


def append(store: lw.Store, clock: ManualClock, user: int = 1, **traits: object) -> None:
    clock.advance(10)
    row = {"user_id": [user], "event_ts": [clock.now()], "item": [clock.now()], "action": ["play"]}
    store.append(pa.table(row | {name: [value] for name, value in traits.items()}))


def test_a_change_is_previewed_then_applied_by_the_next_compaction(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    changes = {"add": pa.schema([("city", pa.string())]), "drop": ["action"], "rename": {"item": "item_id"}}
    preview = store.alter(**changes, shards=4, preview=True)
    shown = str(preview)
    for line in ("- action: string", "+ city: string", "item → item_id", "shards: 2 → 4", "the next compaction"):
        assert line in shown
    assert store.changes.latest(store.generation).number == 0
    kept = store.alter(retention=lw.Retention(timedelta(days=9), 5), preview=True).lines()
    assert kept == ["retention: keep all → keep what is younger than 9 days and of that the newest 5 of every user"]
    with pytest.raises(lw.SchemaError, match="shards is 0; a store has 1 to"):
        store.alter(shards=0)
    assert store.alter(**changes, shards=4).after == preview.after
    assert "action" in store.schema
    store.compact()
    assert [trait.name for trait in store.schema] == ["item_id", "city"]
    assert store.shards == 4
    assert store.history(1).column_names == ["event_ts", "item_id", "city"]
    clock.advance(1)
    store.append(pa.table({"user_id": [1], "event_ts": [clock.now()], "item_id": [5], "city": ["Oslo"]}))
    store.append(
        pa.table({"user_id": [1], "event_ts": [clock.now()], "item": [6]})
    )  # the old name, without what is new
    assert store.history(1)["item_id"].to_pylist()[1:] == [5, 6]
    assert store.history(1)["city"].to_pylist() == [None, "Oslo", None]


def test_a_server_that_is_behind_logs_a_trait_that_was_added_meanwhile(
    tmp_path: Path, store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: its recents lacked the trait, and so did every sequence made of them."""
    server = lw.Store.open(tmp_path / "store", clock=clock)
    append(server, clock)
    assert "city" not in server.schema
    store.alter(add=pa.schema([("city", pa.string())]))
    store.compact()
    append(store, clock, city="Oslo")
    capture = server.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]}))
    for reader in (server, lw.Store.open(tmp_path / "store", read_only=True)):
        batch = lw.Materializer(reader, lw.Projection(traits=["city"]))(capture.columns)
        assert batch.to_arrow()["history"].to_pylist() == [{"city": [None, "Oslo"]}]


def test_nothing_to_change_writes_nothing(store: lw.Store) -> None:
    assert str(store.alter(shards=2)) == "nothing changes"
    assert store.storage.list(keys.CHANGES) == []


def test_of_two_changes_at_once_one_is_refused(store: lw.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    other = lw.Store.open(store.path)
    latest = other.changes.latest(other.generation)
    store.alter(shards=3)
    monkeypatch.setattr(other.changes, "latest", lambda generation: latest)
    with pytest.raises(lw.ConflictError, match="change 1 was made by someone else"):
        other.alter(shards=5)
    other.close()


def test_a_change_whose_answer_was_lost_is_made(store: lw.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store that repeats a put is told, of its own, that somebody was first."""
    create = store.storage.create

    def repeated(key: str, data: Any) -> bool:
        create(key, data)
        return create(key, data)

    monkeypatch.setattr(store.storage, "create", repeated)
    assert store.alter(shards=3).after == store.changes.latest(store.generation)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": ["nope"]}, "unknown trait 'nope'"),
        ({"rename": {"item": "event_ts"}}, "reserved"),
        ({"add": pa.schema([("item", pa.int8())])}, "unique"),
        ({"add": [pa.field("x", pa.int8(), nullable=False)]}, "make it nullable"),
        ({"shards": 70_000}, "shards is 70000"),
        ({"shards": 2.5}, "shards is 2.5"),
        ({"shards": "2"}, "shards is '2'"),
        ({"retention": 5}, "retention is a lw.Retention"),
        ({"drop": "item"}, "is one string"),
        ({"rename": ["item"]}, "rename= maps"),
        ({"rename": {"item": 5}}, "name is text, not 5"),
        ({"rename": {"item": "\udcff"}}, "name is text"),
    ],
)
def test_a_change_that_cannot_be_is_refused(store: lw.Store, change: dict[str, object], message: str) -> None:
    with pytest.raises(lw.SchemaError, match=message):
        store.alter(**change)
    assert store.storage.list(keys.CHANGES) == []


def test_retention_is_set_at_creation_and_changed_later(tmp_path: Path, clock: ManualClock) -> None:
    kept = lw.Retention(max_events=100)
    with lw.Store.create(tmp_path / "store", SCHEMA, clock=clock, retention=kept) as store:
        assert store.generation.retention == kept
        store.alter(shards=3)
        assert store.changes.latest(store.generation).retention == kept
        assert "retention" in str(store.alter(retention=lw.Retention(max_age=timedelta(days=30))))
        store.alter(retention=None)
        assert store.changes.latest(store.generation).retention is None


@pytest.mark.parametrize(
    "bad",
    [
        *({"max_age": age} for age in (timedelta(), 5)),
        *({"max_events": count} for count in (0, 1.5, 2**63)),
    ],
)
def test_a_retention_that_is_none_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(lw.SchemaError, match="max_"):
        lw.Retention(**bad)


@pytest.mark.parametrize("most", [{"max_age": timedelta.max}, {"max_events": 2**63 - 1}, {"max_events": np.int64(9)}])
def test_a_retention_of_all_there_can_be_keeps_all(tmp_path: Path, clock: ManualClock, most: dict[str, object]) -> None:
    kept = lw.Retention(**most)
    with lw.Store.create(tmp_path / "store", SCHEMA, clock=clock, retention=kept) as store:
        for _ in range(3):
            append(store, clock)
            store.compact()
        generation = store.generation
    with lw.Store.open(tmp_path / "store", clock=clock) as store:
        assert (store.generation, store.generation.retention, len(store.history(1))) == (generation, kept, 3)


def test_a_history_is_read_again_where_retention_took_some_of_it_meanwhile(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: a reader was told ExpiredError of a history that it had not asked for by a pointer."""
    for _ in range(3):
        append(store, clock)
    store.compact()
    reader, read = lw.Store.open(store.path, read_only=True), store_module.read_examples

    def read_slowly(*arguments: Any, **options: Any) -> pa.Table:
        examples = read(*arguments, **options)
        if reader.generation.id == 1:
            store.alter(retention=lw.Retention(max_events=1))
            append(store, clock)
            store.compact()
            reader.refresh()  # as another thread may, or a value that was blanked asks for
        return examples

    monkeypatch.setattr(store_module, "read_examples", read_slowly)
    assert reader.history(1)["item"].to_pylist() == [clock.now()]


def test_a_pin_keeps_its_generation_readable(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    store.compact()
    pin = store.pin("run-1", HOUR)
    assert (pin.generation, pin.expires_ts) == (1, clock.now() + 3_600_000_000)
    view = store.at("run-1")
    for _ in range(4):
        append(store, clock)
        store.compact(keep=1)
    assert (view.refresh().generation.id, store.generation.id) == (1, 5)
    assert len(view.history(1)) == 1
    assert len(store.at("run-1").history(1)) == 1
    with pytest.raises(lw.ConflictError, match="read_only"):
        view.append(pa.table({"user_id": [1]}))
    store.unpin("run-1")
    with pytest.raises(lw.PointerError, match="no pin 'run-1'"):
        store.at("run-1")


@pytest.mark.parametrize("ttl", [timedelta.max, timedelta.min])
def test_a_pin_for_ever_or_long_ago_can_be_read(store: lw.Store, ttl: timedelta) -> None:
    pin = store.pin("run", ttl)
    assert store.catalog.pins.read("run") == pin


def test_a_pin_is_for_a_timedelta(store: lw.Store) -> None:
    with pytest.raises(lw.SchemaError, match="ttl is a timedelta"):
        store.pin("run", 5)  # type: ignore[arg-type]


def test_what_numpy_counts_is_written_down_too(store: lw.Store) -> None:
    store.alter(shards=np.int64(3), retention=lw.Retention(max_events=np.int64(5)))
    change = store.changes.latest(store.generation)
    assert (change.shards, change.retention) == (3, lw.Retention(max_events=5))


def test_a_pinned_view_moves_on_before_values_that_it_uses_are_blanked(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: values that retention had taken came as null, between their blanking and the collection."""
    for user, action in ((1, "private"), (2, "old"), (2, "new")):
        append(store, clock, user, action=action)
    store.compact()
    store.pin("run", HOUR)
    view = store.at("run")
    store.alter(retention=lw.Retention(max_events=1))
    monkeypatch.setattr(Catalog, "collect", lambda *_, **__: [])
    store.scrub([1], compact=True)
    assert view.history(2)["action"].to_pylist() == ["new"]
    assert store.at("run").history(2)["action"].to_pylist() == ["new"]


def test_a_reader_moves_on_where_the_values_of_a_dropped_trait_were_collected(
    store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: a code without a value, in a generation that was still open."""
    append(store, clock)
    store.compact()
    reader = lw.Store.open(store.path, read_only=True)
    for number in range(store.shards):
        reader.reader().shard(number)
    store.alter(drop=["action"])
    store.compact(keep=1)
    assert reader.generation.id < store.generation.id
    assert reader.history(1).column_names == ["event_ts", "item"]


@pytest.mark.parametrize("shared", [False, True])
def test_a_reader_that_is_behind_takes_the_trait_that_has_the_name_now(
    store: lw.Store, clock: ManualClock, shared: bool
) -> None:
    """Found by the simulation: a SchemaError, of a change that was long over."""
    append(store, clock)
    store.compact()
    examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]})).columns
    reader = lw.Store.open(store.path, read_only=True)
    for number in range(store.shards):
        reader.reader().shard(number)
    store.alter(drop=["action"], add=pa.schema([("action", pa.string())]))
    store.compact(keep=1)
    materializer = lw.Materializer(reader, lw.Projection(traits=["action"]))
    batch = materializer.shared(examples).expand() if shared else materializer(examples)
    assert batch.to_arrow()["history"].to_pylist() == [{"action": [None]}]


@pytest.mark.parametrize("left", [0, 1])
def test_streams_move_on_where_values_of_a_dropped_trait_were_collected(
    store: lw.Store, clock: ManualClock, left: int
) -> None:
    """The conditions look at codes whose values are gone, all or some, before anything else does."""
    for action in ("play", "like"):  # a chunk each
        append(store, clock, action=action)
    store.compact()
    examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]})).columns
    reader = lw.Store.open(store.path, read_only=True)
    for number in range(store.shards):
        reader.reader().shard(number)
    chunks = [keys.vocabulary_chunk(store.schema["action"].id, seq) for seq in range(left)]
    kept = {key: store.storage.read(key) for key in chunks}
    store.alter(drop=["action"], add=pa.schema([("action", pa.string())]))
    store.compact(keep=1)
    for key, data in kept.items():  # as if the collection were not done yet
        store.storage.write(key, data)
    streams = {"likes": lw.last(5, lw.col("action") == "like"), "none": lw.last(5, lw.col("action").is_null())}
    batch = lw.Materializer(reader, lw.Projection(traits=["event_ts"], streams=streams))(examples)
    assert batch.values["stream"].tolist() == [2, 2]


def test_a_reader_moves_on_where_recent_values_of_a_dropped_trait_were_collected(
    store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: "the store does not know the value"."""
    append(store, clock)
    examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]})).columns
    reader = lw.Store.open(store.path, read_only=True)
    reader.reader()
    store.alter(drop=["action"])
    store.compact(keep=1)
    history = lw.Materializer(reader, lw.Projection())(examples).to_arrow()["history"]
    [row] = history.to_pylist()
    assert list(row) == ["event_ts", "item"]
    assert row["item"] == [clock.now()]


def test_a_trait_dropped_before_an_example_was_logged_is_not_null_to_a_reader_that_has_it(
    store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: of two generations with one watermark, the reader had the older."""
    store.alter(add=pa.schema([("city", pa.string())]))
    store.compact()
    append(store, clock, city="Oslo")
    reader = lw.Store.open(store.path, read_only=True)
    before = reader.generation
    store.alter(drop=["city"])
    after = store.compact(before.watermark)
    assert after.watermark == before.watermark
    examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]})).columns
    [row] = lw.Materializer(reader, lw.Projection())(examples).to_arrow()["history"].to_pylist()
    assert list(row) == ["event_ts", "item", "action"]


@pytest.mark.parametrize("is_open", [False, True])
def test_values_of_a_trait_that_is_dropped_while_a_generation_is_opened_are_no_damage(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, is_open: bool
) -> None:
    reader, check = lw.Store.open(store.path, read_only=True), store_module.check_extent
    if is_open:
        reader.reader()
    append(store, clock)
    store.compact()

    def drop_first(*arguments: Any) -> None:
        monkeypatch.setattr(store_module, "check_extent", check)
        store.alter(drop=["action"])
        store.compact(keep=1)
        check(*arguments)

    monkeypatch.setattr(store_module, "check_extent", drop_first)
    assert reader.refresh().generation.id == 2
    assert reader.history(1).column_names == ["event_ts", "item"]


def test_missing_values_of_the_newest_generation_are_damage(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    store.compact()
    reader = lw.Store.open(store.path, read_only=True)
    reader.reader()
    store.storage.delete([keys.vocabulary_chunk(store.schema["action"].id, 0)])
    with pytest.raises(lw.CorruptionError, match=r"vocabulary/1/00000000\.arrow is missing"):
        reader.history(1)


@pytest.mark.parametrize("keep", [0, -1, 1.5])
def test_a_number_of_generations_to_keep_that_is_none_is_refused_before_one_is_published(
    store: lw.Store, clock: ManualClock, keep: float
) -> None:
    append(store, clock)
    with pytest.raises(lw.SchemaError, match=f"keep is {keep}"):
        store.compact(keep=keep)
    assert store.catalog.latest().id == 0


def test_an_expired_pin_is_an_error_and_lets_go(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    store.compact()
    store.pin("run", HOUR)
    clock.advance(3_600_000_000)
    with pytest.raises(lw.ExpiredError, match="pin 'run' expired"):
        store.at("run")
    assert store.catalog.held_pins(clock.now()) == []
    clock.advance(store.catalog.clock_skew_us)  # by a clock that is behind it held until now
    for _ in range(3):
        append(store, clock)
        store.compact(keep=1)
    assert {keys.parse_attempt_file(stored.key)[0] for stored in store.storage.list(keys.GENERATIONS)} == {4}


def test_a_pin_for_ever_is_one_until_the_end_of_time(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    store.compact()
    assert store.pin("run", timedelta.max).expires_ts == LATEST_TS
    append(store, clock)
    store.compact(keep=1)
    assert store.at("run").generation.id == 1


def test_a_pin_that_lost_its_files_before_it_was_there_takes_the_newer_generation(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, clock)
    store.compact()
    other, stored = lw.Store.open(store.path, clock=clock), Catalog.is_stored

    def while_another_compacts(catalog: Catalog, generation: lw.Generation) -> bool:
        monkeypatch.setattr(Catalog, "is_stored", stored)
        other.catalog.pins.delete("run")
        append(other, clock)
        other.compact(keep=1)
        return stored(catalog, generation)

    monkeypatch.setattr(Catalog, "is_stored", while_another_compacts)
    assert store.pin("run", HOUR).generation == 2
    other.close()


def test_a_pin_on_a_generation_whose_files_are_lost_is_refused(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, clock)
    store.compact()
    store.storage.delete(shard.key for shard in store.generation.shards if shard.exists)
    stored, looks = Catalog.is_stored, itertools.count()

    def is_stored(catalog: Catalog, generation: lw.Generation) -> bool:
        assert next(looks) < 3, "it looks again and again"
        return stored(catalog, generation)

    monkeypatch.setattr(Catalog, "is_stored", is_stored)
    with pytest.raises(lw.CorruptionError, match="files of generation 1 are missing"):
        store.pin("run", HOUR)


def test_a_pin_that_a_collection_has_not_seen_takes_the_newer_generation(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, clock)
    store.compact()
    other = lw.Store.open(store.path, clock=clock)
    pins, write, delete = store.catalog.pins, store.catalog.pins.write, other.storage.delete
    collecting, pinned = threading.Event(), threading.Event()

    def late_delete(garbage: Any) -> None:
        collecting.set()
        assert pinned.wait(30)
        delete(garbage)

    def compact() -> None:
        append(other, clock)
        other.compact(keep=1)

    def late_write(pin: Pin) -> None:
        monkeypatch.setattr(pins, "write", write)
        thread.start()
        assert collecting.wait(30)
        write(pin)

    thread = threading.Thread(target=compact)
    monkeypatch.setattr(other.storage, "delete", late_delete)
    monkeypatch.setattr(pins, "write", late_write)
    try:
        pin = store.pin("run", HOUR)
    finally:
        pinned.set()
        thread.join()
    assert store.catalog.is_stored(store.catalog.load(pin.generation))
    other.close()


def test_a_pin_that_is_renewed_while_files_are_collected_stays(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had expired when the collection looked at it."""
    append(store, clock)
    store.compact()
    owner, all_of_them, renewed = lw.Store.open(store.path, read_only=True, clock=clock), Pins.all, list[Pin]()
    owner.pin("run", HOUR)
    clock.advance(2 * 3_600_000_000)

    def look_and_wait(pins: Pins) -> list[Pin]:
        monkeypatch.setattr(Pins, "all", all_of_them)
        found = all_of_them(pins)
        renewed.append(owner.pin("run", HOUR))
        return found

    append(store, clock)
    monkeypatch.setattr(Pins, "all", look_and_wait)
    store.compact()
    assert owner.catalog.pins.read("run") == renewed[0]
    assert store.at("run").generation.id == renewed[0].generation


@pytest.mark.parametrize("then", ["renewed", "released"])
def test_a_pin_that_a_scrub_moves_is_its_owners_still(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    for user in (1, 2):
        append(store, clock, user)
    store.compact()
    owner, all_of_them = lw.Store.open(store.path, read_only=True, clock=clock), Pins.all
    owner.pin("run", HOUR)

    def look_and_wait(pins: Pins) -> list[Pin]:
        found = all_of_them(pins)
        if owner.refresh().generation.scrubs:
            monkeypatch.setattr(Pins, "all", all_of_them)
            owner.unpin("run") if then == "released" else owner.pin("run", 24 * HOUR)
        return found

    monkeypatch.setattr(Pins, "all", look_and_wait)
    store.scrub([2])
    pin = owner.catalog.pins.read("run")
    assert pin is None if then == "released" else pin and pin.expires_ts == clock.now() + 24 * 3_600_000_000


def test_a_pin_that_was_deleted_for_an_older_one_is_set_again(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, clock)
    store.compact()
    write = Pins.write

    def lose(pins: Pins, pin: Pin) -> None:
        monkeypatch.setattr(Pins, "write", write)
        write(pins, pin)
        pins.delete(pin.name)

    monkeypatch.setattr(Pins, "write", lose)
    pin = store.pin("run", HOUR)
    assert store.catalog.pins.read("run") == pin


def test_a_scrub_tells_of_every_pin_that_it_moves(store: lw.Store, clock: ManualClock) -> None:
    for user in (1, 2, 3):
        append(store, clock, user)
    store.compact()
    store.pin("run", HOUR)
    assert store.scrub([2]).moved_pins == ("run",)
    append(store, clock)
    store.compact()
    view = store.at("run")
    assert view.generation.id == 2
    assert store.scrub([3]).moved_pins == ("run",)
    assert view.refresh().generation.id == 4
    assert store.scrub([9], compact=False).moved_pins == ()


def test_a_correction_of_nothing_is_refused_by_who_is_behind_too(store: lw.Store, clock: ManualClock) -> None:
    with lw.Store.open(store.path, clock=clock) as other:
        for _ in range(3):
            append(other, clock)
            other.compact()
    place = {"event_ts": 1_000_010, "ingest_ts": 1_000_009, "ordinal": 0}
    with pytest.raises(lw.ConflictError, match="row 0 supersedes an event"):
        store.append(pa.table({"user_id": [1], "supersedes": [place]}))


def test_a_correction_of_nothing_is_refused(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    happened = clock.now()
    store.compact()
    clock.advance(10)
    place = {"event_ts": happened, "ingest_ts": happened, "ordinal": 0}
    row = {"user_id": [1], "event_ts": [happened], "item": [5], "action": ["corrected"]}
    for wrong in ({"event_ts": happened + 1}, {"ingest_ts": happened - 1}, {"ordinal": 1}):
        with pytest.raises(lw.ConflictError, match="row 0 supersedes an event"):
            store.append(pa.table(row | {"supersedes": [place | wrong]}))
    for user, message in ((2, "is not known: no event has that place"), (3, "user 3 has none")):
        with pytest.raises(lw.ConflictError, match=message):  # by the tier, then by the generation alone
            store.append(pa.table(row | {"user_id": [user], "supersedes": [place]}))
        append(store, clock, user=9)
        store.compact()
    assert store.append(pa.table(row | {"supersedes": [place]})).count == 1
    assert store.history(1)["action"].to_pylist() == ["corrected"]
    store.compact()
    assert store.history(1)["action"].to_pylist() == ["corrected"]
    assert store.history(1, as_of=clock.now())["action"].to_pylist() == ["play"]


def test_values_blanked_elsewhere_are_coded_again(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock, action="private")
    append(store, clock, user=2, action="play")
    other = lw.Store.open(store.path, clock=clock)
    assert other.vocabulary.encode(SCHEMA["action"], pa.array(["private"])).values.tolist() == [0]
    store.scrub([1])
    append(other, clock, user=3, action="private")
    for reader in (store, other, lw.Store.open(store.path, read_only=True)):
        reader.refresh()
    assert other.history(3)["action"].to_pylist() == ["private"]
    other.compact()
    assert lw.Store.open(store.path, read_only=True).history(3)["action"].to_pylist() == ["private"]
    other.close()


def test_a_dropped_trait_leaves_nothing(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock, action="unforgettable words")
    store.compact()
    store.alter(drop=["action"])
    for item in range(3):
        store.compact(keep=2)
        clock.advance(10)
        row = {"user_id": [1], "event_ts": [clock.now()], "item": [item]}
        store.append(pa.table(row))
    store.compact(keep=2)
    for path in Path(store.path).rglob("*"):
        assert not path.is_file() or b"unforgettable" not in path.read_bytes(), path
    assert store.history(1).column_names == ["event_ts", "item"]


def test_a_place_is_looked_up_in_the_newest_generation_where_an_older_one_is_gone(
    tmp_path: Path, store: lw.Store, clock: ManualClock
) -> None:
    """Found by the simulation: the shard that a writer wanted to look into had been deleted."""
    append(store, clock)
    happened = clock.now()
    store.compact()
    writer = lw.Store.open(tmp_path / "store", clock=clock)
    assert writer.generation.id == 1  # and no shard of it is open yet
    for _ in range(3):
        append(store, clock)
        store.compact(keep=1)
    place = {"event_ts": happened, "ingest_ts": happened, "ordinal": 0}
    row = {"user_id": [1], "event_ts": [happened], "item": [2], "action": ["play"], "supersedes": [place]}
    assert writer.append(pa.table(row)).count == 1


def test_what_a_load_leaves_out_is_not_blanked_where_a_pinned_generation_has_it(
    store: lw.Store, clock: ManualClock
) -> None:
    """A load of what was scrubbed before counts no new scrub, so that pins stay on what retention has taken since."""
    for user, action in ((1, "private"), (2, "olden"), (2, "new")):
        append(store, clock, user, action=action)
    store.scrub([1])
    before = clock.now() - 1
    store.pin("run", HOUR)
    view = store.at("run")
    store.alter(retention=lw.Retention(max_events=1))
    append(store, clock, 2, action="newest")
    store.compact()
    now = clock.advance(100)
    columns = {"event_ts": [before, before, now], "ingest_ts": [now] * 3, "item": [1, 2, 3]}
    load = pa.table({"user_id": [1, 1, 3], "action": ["olden", "private again", "new"], **columns})
    bulk_load(store, [read_events(load, store.schema, store.encode).events])
    for pinned in (view, store.at("run")):
        assert pinned.history(2)["action"].to_pylist() == ["olden", "new"]
    assert not any(b"private again" in file.read_bytes() for file in Path(store.path).rglob("*.arrow"))
    store.scrub([3])
    assert not any(b"olden" in file.read_bytes() for file in Path(store.path).rglob("*.arrow"))


def test_a_load_after_which_another_begins_at_once_is_no_conflict(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(store, clock)
    store.scrub([1])
    before, now = clock.now() - 1, clock.advance(100)
    row = {"user_id": [1], "event_ts": [before], "ingest_ts": [now], "item": [1], "action": ["secret"]}
    tier, end_load = store.tier, store.tier.end_load

    def ended(token: str, *, published: bool | None) -> None:
        end_load(token, published=published)
        moment = tier.state().closed
        tier.begin_load(moment, moment, "another", now=moment)

    monkeypatch.setattr(tier, "end_load", ended)
    generation = bulk_load(store, [read_events(pa.table(row), store.schema, store.encode).events])
    assert generation.id == store.catalog.latest().id
    end_load("another", published=False)
    append(store, clock)
    store.compact()
    assert not any(b"secret" in file.read_bytes() for file in Path(store.path).rglob("*.arrow"))


@pytest.mark.parametrize("read", ["capture", "history"])
def test_a_trait_that_is_dropped_and_collected_while_recent_events_are_read(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, read: str
) -> None:
    """Its codes were read, and its words are gone: what is read again, by the newer generation, lacks the trait."""
    append(store, clock)
    make = examples_module._to_examples

    def drop_first(*arguments: Any) -> pa.Table:
        monkeypatch.setattr(examples_module, "_to_examples", make)
        store.alter(drop=["action"])
        store.compact(keep=1)
        return make(*arguments)

    with lw.Store.open(store.path, clock=clock) as other:
        other.reader()
        monkeypatch.setattr(examples_module, "_to_examples", drop_first)
        if read == "history":
            assert other.history(1).column_names == ["event_ts", "item"]
        else:
            capture = other.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]}))
            assert [trait.name for trait in capture.columns.schema.field("recent").type][:1] == ["event_ts"]
            assert capture.history(lw.Projection()).to_arrow()["history"].to_pylist()[0]["item"] == [clock.now()]


def test_a_trainer_that_is_behind_finds_a_trait_that_was_added(store: lw.Store, clock: ManualClock) -> None:
    append(store, clock)
    trainers = [lw.Store.open(store.path, read_only=True) for _ in range(2)]
    for trainer in trainers:
        trainer.reader()
    store.alter(add=pa.schema([("city", pa.string())]))
    store.compact()
    append(store, clock, city="Oslo")
    examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.now() + 1]})).columns
    projection = lw.Projection(traits=["city"])
    batch = lw.Materializer(trainers[0], projection)(examples)
    assert batch.to_arrow()["history"].to_pylist() == [{"city": [None, "Oslo"]}]
    batch = next(iter(lw.Loader(trainers[1], examples, projection)))
    assert batch.to_arrow()["history"].to_pylist() == [{"city": [None, "Oslo"]}]
    with pytest.raises(lw.SchemaError, match="nope"):
        lw.Loader(trainers[1], examples, lw.Projection(traits=["nope"]))


ANEW: dict[str, Any] = {"drop": ["item"], "add": pa.schema([("item", pa.int64())])}


@pytest.fixture
def behind(store: lw.Store, clock: ManualClock) -> Iterator[lw.Store]:
    """A process that has the store open, and looks for newer generations only where it has to."""
    append(store, clock)
    store.compact()
    with lw.Store.open(store.path, clock=clock) as behind:
        append(behind, clock)
        yield behind


def test_who_is_behind_appends_to_the_trait_that_has_the_name_now(
    store: lw.Store, behind: lw.Store, clock: ManualClock
) -> None:
    store.alter(**ANEW)
    store.compact()
    append(behind, clock, item=77)
    append(store, clock, item=78)
    store.compact()
    assert store.history(1)["item"].to_pylist() == [None, None, 77, 78]


def test_rows_are_read_again_where_a_change_comes_to_count_between_reading_and_appending(
    store: lw.Store, behind: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_to = behind.tier.append  # type: ignore[union-attr]

    def change_first(*arguments: Any, **options: Any) -> Any:
        if not store.generation.change:
            store.alter(**ANEW)
            store.compact()
        return append_to(*arguments, **options)

    monkeypatch.setattr(behind.tier, "append", change_first)
    append(behind, clock, item=77)
    assert store.history(1)["item"].to_pylist() == [None, None, 77]


def test_the_next_compaction_tells_of_a_change_whose_compaction_died(
    store: lw.Store, behind: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.alter(**ANEW)

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(publish, "retire", die)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    append(behind, clock, item=76)  # as if before the change
    assert store.compact(watermark=store.generation.watermark).change == 1
    append(behind, clock, item=77)
    assert store.history(1)["item"].to_pylist() == [None, None, None, 77]


def test_who_is_behind_writes_no_words_of_a_dropped_trait(
    store: lw.Store, behind: lw.Store, clock: ManualClock
) -> None:
    """Two who went on with it left a list that neither could read any more."""
    store.alter(drop=["action"])
    store.compact(keep=1)
    for word in ("one", "two"):
        with pytest.raises(lw.SchemaError, match="the store has no trait 'action'"):
            append(behind, clock, action=word)
    assert store.storage.list(keys.VOCABULARY) == []


def test_a_store_that_is_older_than_its_recent_events_takes_no_more(
    tmp_path: Path, store: lw.Store, clock: ManualClock
) -> None:
    old = shutil.copytree(store.path, tmp_path / "old", ignore=shutil.ignore_patterns("mutable"))
    append(store, clock)
    store.alter(shards=3)
    store.compact()
    store.close()
    older = lw.Store.open(old, mutable=tmp_path / "store" / "mutable", clock=clock)
    with older, pytest.raises(lw.CorruptionError, match="has applied 0 changes, but the mutable tier has met one"):
        append(older, clock)


def test_a_compaction_that_meets_rows_of_a_newer_schema_has_lost_its_race(
    store: lw.Store, behind: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_recipe = publish.make_recipe

    def overtaken(*arguments: Any) -> Any:
        recipe = make_recipe(*arguments)
        monkeypatch.setattr(publish, "make_recipe", make_recipe)
        store.alter(add=pa.schema([("price", pa.int64())]))
        store.compact()
        append(store, clock, price=5)
        return recipe

    monkeypatch.setattr(publish, "make_recipe", overtaken)
    with pytest.raises(lw.ConflictError, match="generation 2 was published by another compaction first"):
        behind.compact()
    assert behind.compact().event_count == 3
