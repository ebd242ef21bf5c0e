"""The catalog: one winner per generation, and only garbage is deleted (docs/protocol.md R19)."""

import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from latewood.clock import DAY_US
from latewood.errors import ConflictError, CorruptionError, PointerError, SchemaError
from latewood.immutable import Catalog, Generation, Pin, ShardFile
from latewood.schema import Schema
from latewood.storage import Storage, StoredObject, keys, open_storage
from latewood.storage.local import LocalStorage

SCHEMA = Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
EPOCH = bytes(range(16))
SHARDS = 2


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(tmp_path if request.param == "local" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def catalog(storage: Storage) -> Catalog:
    catalog = Catalog(storage, EPOCH)
    catalog.ensure_first(SCHEMA, SHARDS)
    return catalog


def build(storage: Storage, id_: int, attempt: str, carried: ShardFile | None = None) -> Generation:
    """Write an attempt's files; `carried` stands in for the second."""
    shards = []
    for index in range(SHARDS):
        key = keys.shard(id_, attempt, index)
        if index and carried:
            shards.append(carried)
            continue
        storage.write(key, attempt.encode())
        shards.append(ShardFile(key, len(attempt), 1, 1, 0))
    return Generation(id_, id_ * 10, attempt, EPOCH, SCHEMA, tuple(shards), parent=id_ - 1)


def data(storage: Storage) -> set[tuple[int, str]]:
    """The attempts that have files: (generation, uuid)."""
    found = [keys.parse_attempt_file(stored.key) for stored in storage.list(keys.GENERATIONS)]
    return {attempt for attempt in found if attempt}


def test_a_new_store_has_generation_0(storage: Storage, catalog: Catalog) -> None:
    assert catalog.latest() == Generation.first(EPOCH, SCHEMA, shards=SHARDS)
    catalog.ensure_first(SCHEMA, SHARDS)
    Catalog(storage, EPOCH).ensure_first(SCHEMA, SHARDS)
    assert catalog.latest().id == 0


def test_many_may_make_the_first_generation(storage: Storage) -> None:
    barrier = threading.Barrier(6)

    def ensure(_: int) -> Generation:
        catalog = Catalog(storage, EPOCH)
        barrier.wait()
        catalog.ensure_first(SCHEMA, SHARDS)
        return catalog.latest()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(ensure, range(6))) == {Generation.first(EPOCH, SCHEMA, shards=SHARDS)}


def test_a_store_that_others_make_and_fill_meanwhile_is_not_damaged(storage: Storage) -> None:
    """Found by the simulation: between the two listings all of it came to be."""

    class Meanwhile:
        def __init__(self) -> None:
            self.listed = 0

        def __getattr__(self, name: str) -> object:
            return getattr(storage, name)

        def list(self, prefix: str = "") -> object:
            self.listed += 1
            found = storage.list(prefix)
            if self.listed == 1:
                other = Catalog(storage, EPOCH)
                other.ensure_first(SCHEMA, SHARDS)
                other.publish(build(storage, 1, "a"))
            return found

    catalog = Catalog(Meanwhile(), EPOCH)  # type: ignore[arg-type]
    catalog.ensure_first(SCHEMA, SHARDS)
    assert catalog.latest().id == 1


def test_a_store_without_manifests_is_damaged(storage: Storage) -> None:
    with pytest.raises(CorruptionError, match=keys.manifest(0)):
        Catalog(storage, EPOCH).latest()


def test_what_is_published_is_the_newest_for_everyone(storage: Storage, catalog: Catalog) -> None:
    other = Catalog(storage, EPOCH)
    assert other.latest().id == 0
    for id_ in (1, 2):
        generation = build(storage, id_, "a")
        catalog.publish(generation)
        assert catalog.latest() == other.latest() == Catalog(storage, EPOCH).latest() == generation
    assert [other.load(id_).id for id_ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("id_", [-1, 1, 99])
def test_a_generation_that_does_not_exist_is_named(catalog: Catalog, id_: int) -> None:
    with pytest.raises(PointerError, match=f"no generation {id_}; the newest is 0"):
        catalog.load(id_)


def test_the_loser_gets_a_conflict_and_does_no_harm(storage: Storage, catalog: Catalog) -> None:
    winner, loser = build(storage, 1, "winner"), build(storage, 1, "loser")
    Catalog(storage, EPOCH).publish(winner)
    with pytest.raises(ConflictError, match="generation 1"):
        catalog.publish(loser)
    assert catalog.latest() == winner
    assert data(storage) == {(1, "winner"), (1, "loser")}


def test_of_many_publishers_one_wins(storage: Storage, catalog: Catalog) -> None:
    barrier = threading.Barrier(6)

    def publish(i: int) -> str | None:
        mine = Catalog(storage, EPOCH)
        generation = build(storage, 1, f"attempt{i}")
        barrier.wait()
        try:
            mine.publish(generation)
        except ConflictError:
            return None
        return generation.uuid

    with ThreadPoolExecutor(6) as pool:
        won = [uuid_ for uuid_ in pool.map(publish, range(6)) if uuid_]
    assert won == [catalog.latest().uuid]


def test_a_gap_and_another_epoch_are_refused(storage: Storage, catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="gap"):
        catalog.publish(build(storage, 2, "a"))
    with pytest.raises(ValueError, match="epoch"):
        Catalog(storage, bytes(16)).publish(build(storage, 1, "a"))
    assert catalog.latest().id == 0


class Faulty:
    """A storage whose next `create` fails before, after or instead of reaching the other side."""

    def __init__(self, storage: Storage, before: Callable[[], None] | None = None, *, reach: bool) -> None:
        self._storage, self._before, self._reach = storage, before, reach

    def __getattr__(self, name: str) -> object:
        return getattr(self._storage, name)

    def create(self, key: str, data: bytes) -> bool:
        if self._before:
            self._before()
        if self._reach:
            self._storage.create(key, data)
        raise OSError("the answer was lost")


def test_a_put_whose_answer_was_lost_is_published(storage: Storage, catalog: Catalog) -> None:
    generation = build(storage, 1, "a")
    Catalog(Faulty(storage, reach=True), EPOCH).publish(generation)
    assert catalog.latest() == generation


def test_a_put_that_was_lost_is_an_os_error_and_can_be_repeated(storage: Storage, catalog: Catalog) -> None:
    generation = build(storage, 1, "a")
    with pytest.raises(OSError, match="the answer was lost"):
        Catalog(Faulty(storage, reach=False), EPOCH).publish(generation)
    assert catalog.latest().id == 0
    catalog.publish(generation)
    catalog.publish(generation)  # who does not know whether it went through may ask again
    assert catalog.latest() == generation


@pytest.mark.parametrize("reach", [True, False])
def test_a_lost_put_behind_a_winner_is_a_conflict(storage: Storage, catalog: Catalog, reach: bool) -> None:
    winner, loser = build(storage, 1, "winner"), build(storage, 1, "loser")
    faulty = Faulty(storage, before=lambda: Catalog(storage, EPOCH).publish(winner), reach=reach)
    with pytest.raises(ConflictError):
        Catalog(faulty, EPOCH).publish(loser)
    assert catalog.latest() == winner


def test_a_repeated_put_that_was_told_it_lost_to_itself_has_won(storage: Storage, catalog: Catalog) -> None:
    """An object store's client repeats a put whose answer was lost, and finds its own object there."""

    class Repeating(Faulty):
        def create(self, key: str, data: bytes) -> bool:
            self._storage.create(key, data)
            return self._storage.create(key, data)

    generation = build(storage, 1, "a")
    Catalog(Repeating(storage, reach=True), EPOCH).publish(generation)
    assert catalog.latest() == generation


@pytest.mark.parametrize("keep", [1, 2, 3, 100])
def test_collect_keeps_the_newest_generations_and_every_manifest(storage: Storage, catalog: Catalog, keep: int) -> None:
    for id_ in range(1, 6):
        catalog.publish(build(storage, id_, "a"))
    garbage = catalog.collect(keep)
    assert data(storage) == {(id_, "a") for id_ in range(max(1, 6 - keep), 6)}
    assert {keys.parse_attempt_file(item.key)[0] for item in garbage} == set(range(1, max(1, 6 - keep)))
    assert all(item.size_bytes == 1 for item in garbage)
    assert [stored.key for stored in storage.list(keys.MANIFESTS)] == [keys.manifest(id_) for id_ in range(6)]
    assert [Catalog(storage, EPOCH).load(id_).uuid for id_ in range(1, 6)] == ["a"] * 5
    assert catalog.collect(keep) == []


def test_collect_deletes_lost_attempts_only_when_the_race_is_over(storage: Storage, catalog: Catalog) -> None:
    catalog.publish(build(storage, 1, "winner"))
    build(storage, 1, "loser")
    under_way = build(storage, 2, "under way")
    build(storage, 3, "far ahead")
    catalog.collect()
    assert data(storage) == {(1, "winner"), (2, "under way"), (3, "far ahead")}
    Catalog(storage, EPOCH).publish(under_way)
    build(storage, 2, "too late")
    catalog.collect()
    assert data(storage) == {(1, "winner"), (2, "under way"), (3, "far ahead")}


def test_collect_deletes_the_probe_of_a_creation_that_died(storage: Storage, catalog: Catalog) -> None:
    storage.write(keys.probe("left"), b"first")
    assert [item.key for item in catalog.collect()] == [keys.probe("left")]
    assert storage.list(keys.PROBES) == []


def test_collect_keeps_a_file_that_a_newer_generation_still_names(storage: Storage, catalog: Catalog) -> None:
    first = build(storage, 1, "a")
    catalog.publish(first)
    for id_ in (2, 3, 4):
        catalog.publish(build(storage, id_, "a", carried=first.shards[1]))
    catalog.collect(keep=1)
    assert [item.key for item in storage.list(keys.GENERATIONS)] == [first.shards[1].key, keys.shard(4, "a", 0)]


def publish(storage: Storage, catalog: Catalog, ids: range, scrubs: int = 0) -> None:
    for id_ in ids:
        catalog.publish(replace(build(storage, id_, "one"), scrubs=scrubs))


def test_a_pinned_generation_stays_until_the_pin_expires(storage: Storage, catalog: Catalog) -> None:
    publish(storage, catalog, range(1, 5))
    catalog.pins.write(Pin("run", 1, expires_ts=100))
    assert catalog.held_pins(now=100) == []
    last = 99 + catalog.clock_skew_us  # by a clock that is behind, the pin may still be read from
    assert catalog.read_as_of_pins(last) == {1}
    catalog.collect(now=last)
    assert data(storage) == {(1, "one"), (3, "one"), (4, "one")}
    catalog.collect()  # without a clock no pin has expired
    assert (1, "one") in data(storage)
    catalog.collect(now=last + 1)
    assert data(storage) == {(3, "one"), (4, "one")}
    assert catalog.read_as_of_pins(last + 1) == set()


def test_an_expired_pin_is_left_to_be_renewed_for_a_day(storage: Storage, catalog: Catalog) -> None:
    catalog.pins.write(Pin("run", 0, expires_ts=100))
    catalog.collect(now=99 + DAY_US)
    assert catalog.pins.read("run") == Pin("run", 0, 100)
    catalog.collect(now=100 + DAY_US)
    assert catalog.pins.read("run") is None


def test_a_scrub_goes_before_pins_and_before_the_generations_to_keep(storage: Storage, catalog: Catalog) -> None:
    publish(storage, catalog, range(1, 4))
    catalog.pins.write(Pin("run", 1, expires_ts=100))
    publish(storage, catalog, range(4, 5), scrubs=1)
    catalog.collect(keep=3, now=0)
    assert data(storage) == {(4, "one")}
    assert catalog.held_pins(now=0) == [Pin("run", 4, 100, moved=True)]
    publish(storage, catalog, range(5, 8), scrubs=1)
    catalog.collect(keep=1, now=0)
    assert data(storage) == {(4, "one"), (7, "one")}
    assert catalog.pinned(Pin("run", 1, 100)).id == 4
    publish(storage, catalog, range(8, 10), scrubs=3)
    assert Catalog(storage, EPOCH).held_pins(now=0) == [Pin("run", 8, 100, moved=True)]
    assert catalog.pins.read("run") == Pin("run", 1, 100)  # as it was set: its file is its owner's alone


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "a b", "ä", "-x"])
def test_a_pin_has_a_name_that_a_file_can_have(catalog: Catalog, name: str) -> None:
    with pytest.raises(SchemaError, match="a name is of letters"):
        catalog.pins.write(Pin(name, 0, 0))
    assert catalog.pins.read(name) is None


def test_a_damaged_pin_is_an_error(storage: Storage, catalog: Catalog) -> None:
    catalog.pins.write(Pin("run", 0, 10))
    storage.write(keys.pin("run"), storage.read(keys.pin("run")).replace(b"run", b"ran"))
    with pytest.raises(CorruptionError, match=r"pins/run\.json"):
        catalog.collect()


def test_collect_leaves_what_it_does_not_know(storage: Storage, catalog: Catalog) -> None:
    for id_ in (1, 2):
        catalog.publish(build(storage, id_, "a"))
    for key in ("generations/README", "store.json", "vocabulary/0/00000000.arrow", "examples/day=1/x.parquet"):
        storage.write(key, b"")
    catalog.collect(1)
    for key in ("generations/README", "store.json", "vocabulary/0/00000000.arrow", "examples/day=1/x.parquet"):
        assert storage.read(key) == b""


def test_collect_without_a_generation_to_keep_is_refused(catalog: Catalog) -> None:
    with pytest.raises(ValueError, match="always kept"):
        catalog.collect(0)


def test_what_is_published_during_a_collect_is_kept(storage: Storage, catalog: Catalog) -> None:
    catalog.publish(build(storage, 1, "a"))
    second = build(storage, 2, "b")

    class PublishingMeanwhile(Faulty):
        def list(self, prefix: str = "") -> object:
            found = self._storage.list(prefix)
            if prefix == keys.GENERATIONS:
                Catalog(storage, EPOCH).publish(second)
            return found

    late = Catalog(PublishingMeanwhile(storage, reach=True), EPOCH)
    late.latest()
    late.collect(1)
    assert data(storage) == {(2, "b")}


def test_damaged_manifests_are_named(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    catalog = Catalog(storage, EPOCH)
    catalog.ensure_first(SCHEMA, SHARDS)
    for id_ in (1, 2):
        catalog.publish(build(storage, id_, "a"))
    whole = storage.read(keys.manifest(2))
    storage.write(keys.manifest(2), whole[:-30])
    with pytest.raises(CorruptionError, match=keys.manifest(2)):
        Catalog(storage, EPOCH).latest()
    storage.write(keys.manifest(2), whole)
    storage.write(keys.manifest(1), whole)
    with pytest.raises(CorruptionError, match=keys.manifest(1)):
        Catalog(storage, EPOCH).load(1)
    storage.delete([keys.manifest(1)])
    with pytest.raises(CorruptionError, match=rf"{keys.manifest(1)} is missing"):
        Catalog(storage, EPOCH).latest()


class Overtaken(LocalStorage):
    """Lists a folder while others create files in it: what is created behind the reader's back is not listed."""

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        return [item for item in super().list(prefix) if item.key != keys.manifest(1)]


def test_a_listing_that_is_overtaken_is_no_damage(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    catalog = Catalog(storage, EPOCH)
    catalog.ensure_first(SCHEMA, SHARDS)
    for id_ in (1, 2):
        catalog.publish(build(storage, id_, "a"))
    assert Catalog(Overtaken(tmp_path), EPOCH).latest().id == 2


def test_a_manifest_of_another_epoch_is_damage(storage: Storage, catalog: Catalog) -> None:
    with pytest.raises(CorruptionError, match=f"manifests/0000000000.json.*{EPOCH.hex()}"):
        Catalog(storage, bytes(16)).latest()
