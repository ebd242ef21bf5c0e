"""What bad input gets: an error of the tree that names the column, row or file, and nothing half-written.

One test per line of the list of what can go wrong. "Nothing half-written" is checked the same way every time: after the
error the store, also when opened anew, holds exactly what it held before, and goes on working.
"""

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.storage.documents import encode_document
from latewood.testing import ManualClock

NOW = 1_700_000_000_000_000
SCHEMA = lw.Schema(
    user_id=pa.int64(),
    traits=[
        pa.field("item", pa.int64(), nullable=False),
        pa.field("action", pa.dictionary(pa.int32(), pa.string())),
        pa.field("watch_ms", pa.int32()),
        pa.field("seen_at", pa.timestamp("us")),
    ],
)


def events(n: int = 6, **changes: Any) -> pa.Table:
    """Good events, with columns replaced, added, or (`None`) left out."""
    columns = {
        "user_id": pa.array([k % 2 for k in range(n)], pa.int64()),
        "event_ts": pa.array([NOW + k for k in range(n)], pa.int64()),
        "item": pa.array(range(n), pa.int64()),
        "action": pa.array(["like"] * n).dictionary_encode(),
        "watch_ms": pa.array([k * 100 for k in range(n)], pa.int32()),
        "seen_at": pa.array([NOW] * n, pa.int64()).view(pa.timestamp("us")),
    }
    return pa.table({name: column for name, column in (columns | changes).items() if column is not None})


def requests(**changes: Any) -> pa.Table:
    return pa.table({"user_id": [0, 1], "request_ts": [NOW + 100, NOW + 100]} | changes)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[lw.Store]:
    """A store with some events in both tiers."""
    with lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock) as store:
        store.append(events())
        store.compact()
        clock.advance(1_000)
        store.append(events(4))
        yield store


def everything(store: lw.Store) -> tuple[Any, ...]:
    """All that a store says of itself."""
    return tuple(store.history(user).to_pydict() for user in (0, 1)), store.generation.id, store.generation.watermark


@contextmanager
def nothing_changes(store: lw.Store, clock: ManualClock) -> Iterator[None]:
    before = everything(store)
    yield
    assert everything(store) == before
    with lw.Store.open(store.path, clock=clock) as again:
        assert everything(again) == before


BAD_EVENTS = {
    "missing trait": (events(item=None), "'item'"),
    "missing user_id": (events(user_id=None), "'user_id'"),
    "missing event_ts": (events(event_ts=None), "'event_ts'"),
    "extra column": (events(colour=["red"] * 6), "'colour'"),
    "float user": (events(user_id=[0.5] * 6), "'user_id' is double"),
    "string user": (events(user_id=["a"] * 6), "'user_id' is string"),
    "user too large": (events(user_id=pa.array([2**63 + 1] * 6, pa.uint64())), "'user_id'"),
    "string time": (events(event_ts=["2024-01-01"] * 6), "'event_ts' is string"),
    "float time": (events(event_ts=[1.5] * 6), "'event_ts' is double"),
    "nanoseconds": (events(event_ts=pa.array([1] * 6).view(pa.timestamp("ns"))), "'event_ts'"),
    "seconds taken for µs": (events(event_ts=[2**62] * 6), "'event_ts', row 0"),
    "trait of another type": (events(item=["a"] * 6), "'item' is string"),
    "trait that does not fit": (events(watch_ms=pa.array([2**40] * 6)), "'watch_ms'"),
    "float for integer": (events(watch_ms=[0.5] * 6), "'watch_ms' is double"),
    "zone for none": (events(seen_at=pa.array([1] * 6).view(pa.timestamp("us", "UTC"))), "'seen_at'"),
    "null user": (events(user_id=pa.array([0, 1, None, 1, 0, 1])), "'user_id' has a null in row 2"),
    "null time": (events(event_ts=pa.array([NOW, None, NOW, NOW, NOW, NOW])), "'event_ts' has a null in row 1"),
    "null trait": (events(item=pa.array([0, 1, 2, 3, 4, None])), "'item' has a null in row 5"),
    "null ingest time": (events(ingest_ts=pa.array([None] * 6, pa.int64())), "'ingest_ts' has a null in row 0"),
    "float event id": (events(event_id=[0.5] * 6), "'event_id' is double"),
    "two of one name": (events().append_column("item", pa.array(range(6))), "two columns 'item'"),
}


@pytest.mark.parametrize(("table", "message"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
def test_events_that_do_not_fit(store: lw.Store, clock: ManualClock, table: pa.Table, message: str) -> None:
    with nothing_changes(store, clock), pytest.raises(lw.SchemaError, match=message):
        store.append(table)


def test_what_is_no_table(store: lw.Store, clock: ManualClock) -> None:
    for data in ([1, 2], "events.parquet", None):
        with nothing_changes(store, clock), pytest.raises(lw.SchemaError, match="expected a table"):
            store.append(data)


BAD_REQUESTS = {
    "missing user_id": (requests().drop_columns(["user_id"]), "the column user_id;"),
    "missing request_ts": (requests().drop_columns(["request_ts"]), "the column request_ts;"),
    "null user": (requests(user_id=pa.array([0, None])), "'user_id' has a null in row 1"),
    "null time": (requests(request_ts=pa.array([None, NOW])), "'request_ts' has a null in row 0"),
    "reserved column": (requests(recent=[1, 2]), "'recent'"),
    "string user": (requests(user_id=["a", "b"]), "'user_id' is string"),
    "string time": (requests(request_ts=["a", "b"]), "'request_ts' is string"),
    "no anchor": (requests(anchor=[1, 2]), "'anchor' is int64"),
}


@pytest.mark.parametrize(("table", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_requests_that_do_not_fit(store: lw.Store, clock: ManualClock, table: pa.Table, message: str) -> None:
    with nothing_changes(store, clock):
        with pytest.raises(lw.SchemaError, match=message):
            store.capture(table)
        with pytest.raises(lw.SchemaError, match=message):
            lw.backfill(store, table)


BAD_EXAMPLES = {
    "no uih": (lambda t: t.drop_columns(["uih"]), "uih"),
    "no recent": (lambda t: t.drop_columns(["recent"]), "recent"),
    "no cutoff": (lambda t: t.drop_columns(["cutoff"]), "cutoff"),
    "no user_id": (lambda t: t.drop_columns(["user_id"]), "user_id"),
    "recent of another type": (
        lambda t: t.set_column(t.column_names.index("recent"), "recent", pa.array([1, 2])),
        "recent",
    ),
    "null user": (lambda t: t.set_column(0, "user_id", pa.array([None, 1], pa.int64())), "user_id"),
}


@pytest.mark.parametrize(("change", "message"), BAD_EXAMPLES.values(), ids=BAD_EXAMPLES.keys())
def test_examples_that_do_not_fit(store: lw.Store, change: Any, message: str) -> None:
    examples = store.capture(requests()).columns
    with pytest.raises(lw.SchemaError, match=message):
        lw.Materializer(store, lw.Projection())(change(examples))


def test_events_before_the_frontier(store: lw.Store, clock: ManualClock) -> None:
    times = pa.array([NOW + 5_000] * 3 + [store.generation.watermark - 1] + [NOW + 5_000] * 2)
    with nothing_changes(store, clock), pytest.raises(lw.ConflictError, match=r"row 3\b"):
        store.append(events(ingest_ts=times))
    receipt = store.append(events(ingest_ts=times), late="stamp")
    assert receipt.ingest_ts[3] > store.generation.watermark
    assert (np.delete(receipt.ingest_ts, 3) == NOW + 5_000).all()


def test_events_below_a_capture(store: lw.Store, clock: ManualClock) -> None:
    store.capture(requests())
    with nothing_changes(store, clock), pytest.raises(lw.ConflictError, match=r"row 0\b"):
        store.append(events(ingest_ts=pa.array([NOW + 1_001] * 6)))


def test_events_from_the_future(store: lw.Store, clock: ManualClock) -> None:
    ahead = pa.array([NOW + 5_000] * 5 + [NOW + 2 * 3_600_000_000])
    with nothing_changes(store, clock), pytest.raises(lw.ConflictError, match=r"row 5\b"):
        store.append(events(ingest_ts=ahead))


def test_unsorted_input_is_fine(tmp_path: Path, clock: ManualClock) -> None:
    order = pa.array(np.random.default_rng(0).permutation(200))
    histories = []
    for name, table in (("a", events(200)), ("b", events(200).take(order))):
        with lw.Store.create(tmp_path / name, SCHEMA, clock=clock) as store:
            store.append(table)
            store.compact()
            histories.append(store.history(1).to_pydict())
    assert histories[0] == histories[1]


def test_an_event_id_with_other_content(store: lw.Store, clock: ManualClock) -> None:
    ids = [f"e{k}" for k in range(6)]
    store.append(events(event_id=ids))
    repeated = store.append(events(event_id=ids))
    assert (repeated.count, repeated.duplicates) == (0, 6)
    other = events(event_id=ids, item=pa.array([0, 1, 2, 99, 4, 5]))
    with nothing_changes(store, clock), pytest.raises(lw.ConflictError, match=r"row 3\b"):
        store.append(other)
    twice = events(event_id=["x", "y", "x", "z", "w", "v"])
    with nothing_changes(store, clock), pytest.raises(lw.ConflictError, match=r"row 2\b"):
        store.append(twice)


def test_unknown_traits(store: lw.Store) -> None:
    examples = store.capture(requests()).columns
    for projection in (lw.Projection(traits=["item", "nope"]), lw.Projection(groups=["nope"])):
        with pytest.raises(lw.SchemaError, match="'nope'"):
            lw.Materializer(store, projection)(examples)
        with pytest.raises(lw.SchemaError, match="'nope'"):
            lw.Loader(store, examples, projection)
    with pytest.raises(lw.SchemaError, match="'nope'"):
        lw.anchors(store, where=lw.col("nope") == 1)
    with pytest.raises(lw.SchemaError, match="'item'"):
        lw.anchors(store, where=lw.col("item") == "one")


def test_a_pointer_from_another_store(tmp_path: Path, store: lw.Store, clock: ManualClock) -> None:
    examples = store.capture(requests()).columns
    with lw.Store.create(tmp_path / "other", SCHEMA, clock=clock) as other:
        other.append(events())
        other.compact()
        with pytest.raises(lw.PointerError, match=store.epoch.hex()):
            lw.Materializer(other, lw.Projection())(examples)


def test_a_pointer_newer_than_the_store(tmp_path: Path, store: lw.Store, clock: ManualClock) -> None:
    examples = store.capture(requests()).columns
    rows = examples["uih"].to_pylist()
    later = rows[0]["watermark"].replace(year=2100)
    uih = pa.array([row | {"watermark": later} for row in rows], examples["uih"].type)
    changed = examples.set_column(examples.column_names.index("uih"), "uih", uih)
    with pytest.raises(lw.LatewoodError, match=r"row 0\b"):
        lw.Materializer(store, lw.Projection())(changed)


def test_a_recent_event_that_the_request_could_not_know(store: lw.Store) -> None:
    examples = store.capture(requests()).columns
    assert examples["recent"].to_pylist()[0]["item"]
    earlier = pa.array([store.generation.watermark] * 2, pa.int64()).view(pa.timestamp("us", "UTC"))
    leaking = examples.set_column(examples.column_names.index("cutoff"), "cutoff", earlier)
    with pytest.raises(lw.LeakageError, match=r"row 0\b"):
        lw.Materializer(store, lw.Projection())(leaking)


# ---- damage


def shards_of(store: lw.Store) -> list[Path]:
    return [Path(store.path) / shard.key for shard in store.generation.shards if shard.key]


def damaged(path: Path, places: int) -> Iterator[tuple[str, bytes]]:
    """One file's bytes, cut short here and with one bit flipped there."""
    data = path.read_bytes()
    for at in np.linspace(0, len(data) - 1, places).astype(int).tolist():
        yield f"cut at {at} of {len(data)}", data[:at]
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        yield f"bit flipped at {at} of {len(data)}", bytes(flipped)


def read_again(path: str, examples: pa.Table) -> Any:
    with lw.Store.open(path, read_only=True) as store:
        return lw.Materializer(store, lw.Projection())(examples).to_arrow()


def check_damage(store: lw.Store, path: Path, places: int) -> list[str]:
    """Read examples from a store with one broken file after another; what was noticed. A wrong answer fails."""
    examples = store.capture(requests()).columns
    expected, whole, noticed = read_again(store.path, examples), path.read_bytes(), []
    for what, data in damaged(path, places):
        path.write_bytes(data)
        try:
            answer = read_again(store.path, examples)
        except lw.CorruptionError as error:
            noticed.append(what if path.name in str(error) else f"{what}: {error} does not name {path.name}")
        else:
            assert answer.equals(expected), what
    path.write_bytes(whole)
    assert read_again(store.path, examples).equals(expected)
    assert [what for what in noticed if "does not name" in what] == []
    return noticed


def test_a_damaged_shard(store: lw.Store) -> None:
    store.append(events(3_000))
    store.compact()
    for path in shards_of(store):
        noticed = check_damage(store, path, 60)
        assert sum("cut" in what for what in noticed) == 60
        assert sum("flipped" in what for what in noticed) > 50  # the rest lies where nothing is stored


def test_a_missing_shard(store: lw.Store) -> None:
    examples = store.capture(requests()).columns
    path = shards_of(store)[0]
    path.unlink()
    with pytest.raises(lw.CorruptionError, match=path.name):
        read_again(store.path, examples)


def test_a_damaged_manifest_or_description(store: lw.Store) -> None:
    examples = store.capture(requests()).columns
    manifests = sorted((Path(store.path) / "manifests").iterdir())
    for path in (manifests[-1], Path(store.path) / "store.json"):
        whole = path.read_bytes()
        for what, data in damaged(path, 40):
            path.write_bytes(data)
            with pytest.raises(lw.CorruptionError, match=path.name):
                pytest.fail(f"{what}: {read_again(store.path, examples)}")
        path.write_bytes(whole)


def test_a_damaged_vocabulary(store: lw.Store) -> None:
    (path,) = (Path(store.path) / "vocabulary").rglob("*.arrow")
    assert len(check_damage(store, path, 40)) == 80


@pytest.mark.parametrize("which", ["store.json", "manifest", "shard"])
def test_a_format_from_the_future(store: lw.Store, which: str) -> None:
    examples = store.capture(requests()).columns
    path = Path(store.path) / "store.json"
    if which == "manifest":
        path = sorted((Path(store.path) / "manifests").iterdir())[-1]
    if which == "shard":
        path = shards_of(store)[0]
        data = bytearray(path.read_bytes())
        assert data[:8] == b"LATEWOOD"
        version = data.index((1).to_bytes(4, "little"), 8)
        data[version] = 99
        path.write_bytes(data)
    else:
        body = json.loads(path.read_bytes())
        kind = body.pop("kind")
        body.pop("format")
        body.pop("xxh3")
        path.write_bytes(encode_document(kind, 99, body))
    with pytest.raises(lw.SchemaError, match=rf"{path.name}.*99"):
        read_again(store.path, examples)


# ---- places


def test_a_path_that_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    for name in ("nowhere", "empty", "file"):
        for read_only in (False, True):
            with pytest.raises(lw.StoreNotFoundError, match=name):
                lw.Store.open(tmp_path / name, read_only=read_only)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_read_only_refuses_to_write(store: lw.Store) -> None:
    with lw.Store.open(store.path, read_only=True) as trainer:
        for act in (
            lambda: trainer.append(events()),
            lambda: trainer.compact(),
            lambda: trainer.capture(requests()),
            lambda: lw.backfill(trainer, requests()),
        ):
            with pytest.raises(lw.ConflictError):
                act()


# ---- a full disk


@contextmanager
def full_disk(free_bytes: int = 1) -> Iterator[None]:
    """Every write past this place in any file fails, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_while_appending(store: lw.Store, clock: ManualClock) -> None:
    many = events(50_000)
    with nothing_changes(store, clock), full_disk(200_000), pytest.raises(OSError, match=r".+") as caught:
        store.append(many)
    assert not isinstance(caught.value, lw.LatewoodError)
    assert store.append(many).count == 50_000


def test_a_full_disk_while_compacting(store: lw.Store, clock: ManualClock) -> None:
    store.append(events(20_000))
    files = {path for path in Path(store.path).rglob("*") if path.suffix in (".stripes", ".json")}
    with nothing_changes(store, clock), full_disk(60_000), pytest.raises(OSError, match=r".+") as caught:
        store.compact()
    assert not isinstance(caught.value, lw.LatewoodError)
    assert {path for path in Path(store.path).rglob("*") if path.suffix in (".stripes", ".json")} == files
    assert store.compact().event_count == 20_010


def test_a_full_disk_while_ingesting(tmp_path: Path) -> None:
    table = events(20_000).drop_columns(["action"])
    arguments: dict[str, Any] = {"user": "user_id", "time": "event_ts", "ingest_time": "event_ts", "quiet": True}
    with full_disk(60_000), pytest.raises(OSError, match=r".+"):
        lw.ingest(table, tmp_path / "store", **arguments)
    with lw.ingest(table, tmp_path / "store", **arguments) as store:
        assert store.generation.event_count == 20_000


# ---- two at once


def test_two_processes_compacting_at_once(store: lw.Store, clock: ManualClock) -> None:
    """Another process publishes while we have written our shards and not yet our manifest."""
    before = everything(store)[0]
    other = (
        "import latewood as lw\n"
        f"with lw.Store.open({store.path!r}, clock=lambda: {NOW + 1_000}) as store:\n"
        "    print(store.compact().id)\n"
    )
    answers: list[str] = []

    def interrupt(done: int, total: int) -> None:
        if not answers:
            run = subprocess.run([sys.executable, "-c", other], check=False, capture_output=True, text=True)
            answers.append(run.stdout.strip() or f"the other process ended with {run.returncode}: {run.stderr}")

    with pytest.raises(lw.ConflictError):
        store.compact(progress=interrupt)
    assert answers == ["2"]
    store.refresh()
    assert (store.generation.id, store.compact().id) == (2, 2)
    assert everything(store)[0] == before
    assert len({path.parent for path in Path(store.path).rglob("*.stripes") if "/0000000002/" in str(path)}) == 1


def test_many_threads_at_once(store: lw.Store) -> None:
    """Appends, captures and compactions side by side: each event once, each example whole."""
    errors: list[BaseException] = []

    def run(act: Any) -> None:
        try:
            for _ in range(5):
                act()
        except lw.ConflictError:
            pass
        except BaseException as error:
            errors.append(error)

    def capture_and_check() -> None:
        captured = store.capture(requests())
        served = captured.history(lw.Projection()).to_arrow()
        assert lw.Materializer(store, lw.Projection())(captured.columns).to_arrow().equals(served)

    acts = [
        lambda: store.append(events(20)),
        lambda: store.append(events(7)),
        capture_and_check,
        lambda: store.compact(),
    ]
    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    store.compact()
    assert store.generation.event_count == 10 + 5 * 27
    assert store.history(0).num_rows + store.history(1).num_rows == 10 + 5 * 27


# ---- files


def test_files_that_ingest_refuses(tmp_path: Path) -> None:
    good = pa.table({"user_id": [1, 2], "event_ts": [NOW, NOW + 1], "item": [1, 2]})
    pq.write_table(good, tmp_path / "a.parquet")
    pq.write_table(good.set_column(1, "event_ts", pa.array([NOW, None])), tmp_path / "b.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is not Parquet")
    arguments: dict[str, Any] = {"user": "user_id", "time": "event_ts", "ingest_time": "event_ts", "quiet": True}
    with pytest.raises(lw.SchemaError, match=r"(?s)b\.parquet.*event_ts|event_ts.*b\.parquet"):
        lw.ingest([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")], tmp_path / "store", **arguments)
    with pytest.raises(lw.LatewoodError, match="broken"):
        lw.ingest(str(tmp_path / "broken.parquet"), tmp_path / "store", **arguments)
    with pytest.raises(lw.SchemaError, match="nope"):
        lw.ingest(str(tmp_path / "a.parquet"), tmp_path / "store", **(arguments | {"user": "nope"}))
    with pytest.raises(lw.LatewoodError, match="nothing"):
        lw.ingest(str(tmp_path / "nothing*.parquet"), tmp_path / "store", **arguments)
    with lw.ingest(str(tmp_path / "a.parquet"), tmp_path / "store", **arguments) as store:
        assert store.generation.event_count == 2
