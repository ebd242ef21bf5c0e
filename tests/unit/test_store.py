"""The facade: what a place must hold to be a store, what is opened, what is shared, and what is refused."""

import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.clock import EARLIEST_TS
from latewood.immutable import Catalog
from latewood.mutable.replica import Replica
from latewood.storage import keys
from latewood.storage.remote import ObstoreStorage
from latewood.store import StoreDescription
from latewood.testing import ManualClock
from moments import START

SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("action", pa.string())]))
DAY_US = 86_400_000_000
_numbers = itertools.count()


def events(*items: int, user: int = 1, at: int = START) -> dict[str, Any]:
    n = len(items)
    return {
        "user_id": pa.array([user] * n, pa.int64()),
        "event_ts": pa.array([at + i for i in range(n)], pa.int64()),
        "item": pa.array(items, pa.int64()),
        "action": pa.array([f"word {item}" for item in items], pa.string()),
    }


def items(store: lw.Store, user: int = 1, **options: Any) -> list[int]:
    found: list[int] = store.history(user, **options)["item"].to_pylist()
    return found


@pytest.fixture(params=["folder", "text", "uri", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    places: dict[str, str | Path] = {
        "folder": tmp_path / "deep" / "store",
        "text": str(tmp_path / "store ü"),
        "uri": f"file://{tmp_path}/store",
        "memory": f"memory://store-{next(_numbers)}",
    }
    return places[request.param]


def test_wherever_it_lies_a_store_keeps_what_it_is_given(path: str | Path, clock: ManualClock) -> None:
    with lw.Store.create(path, SCHEMA, shards=2, clock=clock) as store:
        assert store.append(events(1, 2)).count == 2
        assert items(store) == [1, 2]
    with lw.Store.open(path, clock=clock) as store:
        assert items(store) == [1, 2]
        assert store.compact().event_count == 2
        store.append(events(3, at=START + 10))
        assert items(store) == [1, 2, 3]
    with lw.Store.open(path, read_only=True) as store:
        assert store.read_only
        assert store.generation.event_count == 2
        with pytest.raises(lw.ConflictError, match="read_only"):
            store.append(events(4))


def test_creating_twice_is_a_conflict(path: str | Path) -> None:
    lw.Store.create(path, SCHEMA).close()
    with pytest.raises(lw.ConflictError, match="there is a store already"):
        lw.Store.create(path, SCHEMA)
    with lw.Store.open(path) as store:
        assert store.schema == SCHEMA


def test_a_new_store_is_empty_and_has_a_generation(store_path: Path) -> None:
    with lw.Store.create(store_path, SCHEMA, shards=np.int64(3)) as store:
        generation = store.generation
        assert (generation.id, generation.watermark, generation.event_count) == (0, EARLIEST_TS, 0)
        assert len(generation.shards) == store.shards == 3
        assert store.compact() == generation
        assert store.history(5).column_names == ["event_ts", "item", "action"]
        assert store.history(5).num_rows == 0


@pytest.mark.parametrize("shards", [0, -1, 65_537, 2.5])
def test_a_number_of_shards_that_makes_no_sense(shards: Any, store_path: Path) -> None:
    with pytest.raises(lw.SchemaError, match=f"shards is {shards}"):
        lw.Store.create(store_path, SCHEMA, shards=shards)
    assert not store_path.exists()


def test_a_schema_or_a_retention_that_is_none(store_path: Path) -> None:
    with pytest.raises(lw.SchemaError, match=r"created of a lw\.Schema"):
        lw.Store.create(store_path, pa.schema([("item", pa.int64())]))  # type: ignore[arg-type]
    with pytest.raises(lw.SchemaError, match=r"retention is a lw\.Retention"):
        lw.Store.create(store_path, SCHEMA, retention=timedelta(1))  # type: ignore[arg-type]
    assert not store_path.exists()


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in (".", "absent", "file", "file/deeper"):
        for read_only in (False, True):
            with pytest.raises(lw.StoreNotFoundError, match=r"is not a store: it has no store\.json"):
                lw.Store.open(tmp_path / name, read_only=read_only)
    with pytest.raises(lw.StoreNotFoundError):
        lw.Store.open("memory://never-created")
    with pytest.raises(lw.StoreNotFoundError):
        lw.Store.open("gopher://somewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_store_elsewhere_needs_a_place_for_recent_events(monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = ObstoreStorage.in_memory(f"bucket-{next(_numbers)}")
    monkeypatch.setattr("latewood.store.open_storage", lambda place: bucket)
    with pytest.raises(lw.SchemaError, match="needs mutable="):
        lw.Store.create("s3://bucket/store", SCHEMA)
    assert bucket.list("") == []


def test_recent_events_may_lie_elsewhere(tmp_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(tmp_path / "store", SCHEMA, mutable=tmp_path / "recent", clock=clock) as store:
        store.append(events(1))
    assert not (tmp_path / "store" / "mutable").exists()
    with lw.Store.open(tmp_path / "store", mutable=tmp_path / "recent", clock=clock) as store:
        assert items(store) == [1]


def test_recent_events_of_another_store_are_refused(tmp_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(tmp_path / "one", SCHEMA, mutable=tmp_path / "recent", clock=clock) as store:
        store.append(events(1))
    lw.Store.create(tmp_path / "two", SCHEMA).close()
    with pytest.raises(lw.ConflictError, match="recent events of another store"):
        lw.Store.open(tmp_path / "two", mutable=tmp_path / "recent")
    with pytest.raises(lw.ConflictError, match="recent events of another store"):
        lw.Store.create(tmp_path / "three", SCHEMA, mutable=tmp_path / "recent")
    assert not (tmp_path / "three").exists()
    with lw.Store.open(tmp_path / "one", mutable=tmp_path / "recent", clock=clock) as store:
        assert items(store) == [1]


def test_a_create_that_was_cut_off_is_completed_on_opening(store_path: Path) -> None:
    lw.Store.create(store_path, SCHEMA, shards=2).close()
    for name in ("manifests", "mutable"):
        shutil.rmtree(store_path / name)
    with lw.Store.open(store_path) as store:
        assert store.generation.id == 0
        assert store.append(events(1)).count == 1


def test_a_store_that_is_just_being_created_is_not_there_yet_for_a_reader(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_first = Catalog.ensure_first

    def read_before(*arguments: Any) -> None:
        with pytest.raises(lw.StoreNotFoundError, match="not a store yet"):
            lw.Store.open(store_path, read_only=True)
        ensure_first(*arguments)

    monkeypatch.setattr(Catalog, "ensure_first", read_before)
    lw.Store.create(store_path, SCHEMA).close()
    assert lw.Store.open(store_path, read_only=True).generation.id == 0


def test_a_copy_without_recent_events_goes_on_where_its_generations_end(store_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=clock) as store:
        store.append(events(1, 2))
        store.compact()
        store.append(events(3))
    copied = shutil.copytree(store_path, store_path.with_name("copy"), ignore=shutil.ignore_patterns("mutable"))
    behind = ManualClock(START - 60_000_000)  # a machine whose clock is behind
    with lw.Store.open(copied, clock=behind) as copy:
        assert items(copy) == [1, 2]
        assert copy.append(events(4, at=START + 5)).ingest_ts[0] >= copy.generation.watermark
        assert items(copy) == [1, 2, 4]
        with pytest.raises(lw.ConflictError, match="too old"):
            copy.append(events(5) | {"ingest_ts": [START - 1]})


def test_a_copy_without_recent_events_knows_what_was_scrubbed_and_blanked(store_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=clock) as store:
        store.append(events(1))
        store.append(events(2, user=2))
        receipt = store.scrub(user_ids=[1])
        assert receipt.blanked_values == 1
    copied = shutil.copytree(store_path, store_path.with_name("copy"), ignore=shutil.ignore_patterns("mutable"))
    behind = ManualClock(START - 60_000_000)
    with lw.Store.open(copied, clock=behind) as copy:
        assert copy.append(events(1)).skipped == 1
        added = copy.append(events(3, user=2, at=START + 5))  # it waited for ever
        assert receipt.scrub_ts is not None
        assert added.ingest_ts[0] > receipt.scrub_ts
        again = copy.scrub(user_ids=[2])
        assert (again.numbers, again.blanked_values) == ((1,), 2)
        assert items(copy) == items(copy, user=2) == []


@pytest.mark.parametrize("step", range(4))
def test_a_new_folder_for_recent_events_is_brought_up_to_its_store_whole_or_not_at_all(
    step: int, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash in between, a rollback lost what only the generations had."""
    with lw.Store.create(tmp_path / "store", SCHEMA, clock=clock) as store:
        for item in (1, 2):
            store.append(events(item, at=START + item))
            store.compact()
    write, steps = Replica.write, iter(range(step))

    def die(self: Replica, change: Any) -> Any:
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return write(self, change)

    recent = tmp_path / "recent"
    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        patched.setattr(Replica, "write", die)
        lw.Store.open(tmp_path / "store", mutable=recent, clock=clock).close()
    with lw.Store.open(tmp_path / "store", mutable=recent, clock=clock) as store:
        assert store.tier is not None
        state = store.tier.state()
        assert (state.floor, state.captured) == (store.generation.watermark, True)
        with pytest.raises(lw.ConflictError, match="gone from the mutable tier"):
            store.rollback(1)
        assert items(store) == [1, 2]


def test_history_as_of(store_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=clock) as store:
        store.append(events(1, 2))
        clock.advance(DAY_US)
        store.append(events(3))  # happened with the first, learned of a day later
        for _ in range(2):
            assert items(store) == [1, 3, 2]
            assert items(store, as_of=START + 10) == [1, 2]
            assert items(store, as_of=START + 1) == [1]
            assert items(store, as_of=START) == []
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START + 10)
            assert items(store, as_of=moment) == items(store, as_of=moment.replace(tzinfo=None)) == [1, 2]
            store.compact()


@pytest.mark.parametrize("user", ["one", 2**63, None, 1.5])
def test_history_of_what_is_no_user(user: Any, store_path: Path) -> None:
    with lw.Store.create(store_path, SCHEMA) as store, pytest.raises(lw.SchemaError):
        store.history(user)


def test_a_reader_sees_new_generations_when_it_looks(store_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=clock) as store:
        trainer = lw.Store.open(store_path, read_only=True)
        assert trainer.generation.id == 0
        store.append(events(1))
        store.compact()
        assert store.generation.id == 1
        assert trainer.generation.id == 0
        assert trainer.refresh().generation.id == 1
        assert trainer.refresh() is trainer.reader()


def test_a_watermark_may_hold_back_the_open_tick(store_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=clock) as store:
        stamps = store.append(events(1, 2, 3)).ingest_ts
        assert store.compact(int(stamps[2])).event_count == 2
        assert store.compact().event_count == 3


@pytest.mark.parametrize(
    "make_clock",
    [
        lambda: ManualClock(START),
        lambda: lambda: START,
        lambda: lambda: datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC),
    ],
)
def test_anything_that_tells_the_time_is_a_clock(make_clock: Callable[[], Any], store_path: Path) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=make_clock()) as store:
        assert store.append(events(1)).ingest_ts.tolist() == [START]


def test_closing_is_idempotent_and_a_store_says_what_it_is(store_path: Path) -> None:
    store = lw.Store.create(store_path, SCHEMA)
    assert repr(store) == f"<Store {store_path}, epoch {store.epoch.hex()[:8]}>"
    store.close()
    store.close()
    assert repr(store) == f"<Store {store_path} (closed), epoch {store.epoch.hex()[:8]}>"
    assert "read only" in repr(lw.Store.open(store_path, read_only=True))


def test_a_closed_store_says_so_whatever_is_asked(path: str | Path, clock: ManualClock) -> None:
    requests = pa.table({"user_id": [1], "request_ts": [START + 10]})
    with lw.Store.create(path, SCHEMA, clock=clock) as store:
        store.append(events(1, 2))
        examples = store.capture(requests).columns
        loader = lw.Loader(store, examples, lw.Projection(), prefetch=0)
    uses: list[Callable[[], Any]] = [
        lambda: store.append(events(3)),
        lambda: store.compact(),
        lambda: store.capture(requests),
        lambda: store.history(1),
        lambda: store.generation,
        lambda: store.refresh(),
        lambda: lw.backfill(store, requests),
        lambda: lw.anchors(store),
        lambda: lw.Materializer(store, lw.Projection())(examples),
        lambda: list(loader),
        lambda: lw.Loader(store, examples, lw.Projection()),
    ]
    for use in uses:
        with pytest.raises(lw.ConflictError, match=f"{path} is closed; open it again"):
            use()
    with lw.Store.open(path, clock=clock) as again:
        assert items(again) == [1, 2]


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("recent", lambda store: store.history(1)),
        ("append", lambda store: store.append(events(3))),
        ("scan", lambda store: store.compact()),
    ],
)
def test_a_store_that_is_closed_under_a_call_says_so(
    name: str, use: Callable[[lw.Store], Any], store_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = lw.Store.create(store_path, SCHEMA, clock=clock)
    store.append(events(1))
    call = getattr(store.tier, name)

    def close_first(*arguments: Any, **options: Any) -> Any:
        store.close()
        return call(*arguments, **options)

    monkeypatch.setattr(store.tier, name, close_first)
    with pytest.raises(lw.ConflictError, match="was closed"):
        use(store)


def test_what_is_printed_of_what_a_store_gives(store_path: Path, clock: ManualClock) -> None:
    with lw.Store.create(store_path, SCHEMA, clock=clock) as store:
        receipt = store.append(events(1, 2) | {"event_id": ["a", "b"]})
        assert repr(receipt) == "<AppendReceipt: 2 added, ingest_ts up to 2023-11-14T22:13:20.000001Z>"
        assert ": 0 added, 1 duplicates, ingest" in repr(store.append(events(1) | {"event_id": ["a"]}))
        assert repr(store.append(events())) == "<AppendReceipt: 0 added>"
        generation = repr(store.compact())
        assert generation == "<Generation 1: 2 events of 1 users, watermark 2023-11-14T22:13:20.000002Z>"
        batch = store.capture({"user_id": [1], "request_ts": [START + 1]}).history(lw.Projection())
        assert repr(batch) == "<Batch of 1 example: 1 event, event_ts, item, action; 2 features>"


def test_a_store_whose_answer_to_its_creation_was_lost_is_created(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object store that repeats a put is told, of its own, that somebody was first."""
    create = ObstoreStorage.create

    def repeated(storage: ObstoreStorage, key: str, data: Any) -> bool:
        created = create(storage, key, data)
        return created if key != keys.STORE else create(storage, key, data)

    monkeypatch.setattr(ObstoreStorage, "create", repeated)
    path = f"memory://store-{next(_numbers)}"
    with lw.Store.create(path, SCHEMA, clock=clock) as store:
        store.append(events(1))
        assert items(store) == [1]
    with pytest.raises(lw.ConflictError, match="there is a store already"):
        lw.Store.create(path, SCHEMA, clock=clock)


def test_a_deleted_store_in_memory_is_forgotten_with_its_recent_events(clock: ManualClock) -> None:
    path = f"memory://store-{next(_numbers)}"
    store = lw.Store.create(path, SCHEMA, clock=clock)
    store.append(events(1))
    store.storage.delete(found.key for found in store.storage.list(""))
    text = lw.Schema(user_id=pa.string(), traits=[])
    again = lw.Store.create(path, text, clock=clock)
    assert again.history("1").num_rows == 0
    assert again.append({"user_id": ["1"], "event_ts": [5]}).count == 1


def test_a_store_in_memory_that_is_opened_while_it_is_created_has_one_mutable_tier(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, create, others = f"memory://store-{next(_numbers)}", ObstoreStorage.create, list[lw.Store]()

    def open_after(storage: ObstoreStorage, key: str, data: Any) -> bool:
        created = create(storage, key, data)
        if key == keys.STORE:
            monkeypatch.setattr(ObstoreStorage, "create", create)
            others.append(lw.Store.open(path, clock=clock))
            others[0].append(events(1))
        return created

    monkeypatch.setattr(ObstoreStorage, "create", open_after)
    store = lw.Store.create(path, SCHEMA, clock=clock)
    others[0].append(events(2, at=START + 1))
    assert items(store) == items(others[0]) == [1, 2]


def test_the_description_survives_its_own_bytes() -> None:
    description = StoreDescription(bytes(range(16)), SCHEMA, 7, START)
    assert StoreDescription.from_bytes(description.to_bytes(), "store.json") == description
