"""Events go out and come in again: the same histories, the same answers to backfills. Over real stores."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.events import NEVER
from latewood.histories import places, read_histories, superseded
from latewood.testing import ManualClock, different_rows
from latewood.users import user_keys
from moments import START

TRAITS = pa.schema(
    [
        ("item", pa.int64()),
        ("word", pa.string()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("code", pa.dictionary(pa.int32(), pa.int64())),
        ("score", pa.float32()),
        ("like", pa.bool_()),
        ("seen", pa.timestamp("us")),
        ("small", pa.uint8()),
    ]
)
SECOND = 1_000_000
TWO_CLOCKS: dict[str, Any] = {"user": "user_id", "time": "event_ts", "ingest_time": "ingest_ts", "quiet": True}
AS_EXPORTED = TWO_CLOCKS | {"superseded_time": "superseded_at"}
_numbers = itertools.count()


def events(rng: np.random.Generator, users: list[Any], now: int, n: int = 80) -> dict[str, Any]:
    item = rng.integers(0, 50, n)
    return {
        "user_id": [users[i] for i in rng.integers(0, len(users), n).tolist()],
        "event_ts": now - rng.integers(-2, 30, n) * SECOND,
        "item": pa.array(item, mask=rng.random(n) < 0.1),
        "word": pa.array([f"w{i % 7}" for i in item.tolist()], mask=rng.random(n) < 0.1),
        "kind": pa.array([f"k{i % 3}" for i in item.tolist()], mask=rng.random(n) < 0.1),
        "code": pa.array(item % 5 * 10**12, mask=rng.random(n) < 0.1),
        "score": pa.array(rng.choice([0.5, -0.0, np.nan], n).astype(np.float32), mask=rng.random(n) < 0.1),
        "like": pa.array(rng.random(n) < 0.5),
        "seen": pa.array(item.astype("datetime64[us]")),
        "small": pa.array(item.astype(np.uint8)),
    }


def lived(path: Path, users: list[Any]) -> lw.Store:
    """A store with generations, and with events in the mutable tier."""
    clock, rng = ManualClock(START), np.random.default_rng(8)
    user_id = pa.array(users).type
    store = lw.Store.create(path, lw.Schema(user_id=user_id, traits=TRAITS), shards=3, clock=clock)
    for step in range(6):
        store.append(events(rng, users, clock.advance(10 * SECOND)))
        if step in (1, 3):
            store.compact()
    return store


def backfilled(store: lw.Store, users: list[Any]) -> pa.Table:
    times = [START + s * SECOND for s in (5, 12, 30, 41, 60)]
    requests = pa.table({"user_id": users * len(times), "request_ts": [t for t in times for _ in users]})
    examples = lw.backfill(store, requests, complete=True)
    return lw.Materializer(store, lw.Projection())(examples).to_arrow()


@pytest.mark.parametrize("users", [[1, -5, 2**60], ["a", "ü", ""]], ids=["integers", "text"])
def test_what_is_exported_and_ingested_again_answers_alike(users: list[Any], tmp_path: Path) -> None:
    store, out = lived(tmp_path / "store", users), tmp_path / "events.parquet"
    assert lw.export_events(store, out) == 480
    assert pq.read_table(out)["superseded_at"].null_count == 480
    again = lw.ingest(out, tmp_path / "again", clock=store.clock, schema=store.schema, **AS_EXPORTED)
    for user in users:
        assert not len(different_rows(again.history(user), store.history(user)))
    assert not len(different_rows(backfilled(again, users), backfilled(store, users)))


def test_the_schema_is_found_again_but_for_dictionaries_of_integers(tmp_path: Path) -> None:
    store, out = lived(tmp_path / "store", [1]), tmp_path / "events.parquet"
    lw.export_events(store, out)
    again = lw.ingest(out, tmp_path / "again", clock=store.clock, **AS_EXPORTED)
    assert [trait.name for trait in store.schema if again.schema[trait.name] != trait] == ["code"]
    assert again.schema["code"].type == pa.int64()


def test_ties_keep_their_order(tmp_path: Path) -> None:
    n = 40
    given = {"user_id": [1] * n, "event_ts": [START] * n, "ingest_ts": [START] * n, "item": list(range(n))}
    store = lw.ingest(pa.table(given), tmp_path / "store", **TWO_CLOCKS)
    lw.export_events(store, tmp_path / "events.parquet")
    again = lw.ingest(tmp_path / "events.parquet", tmp_path / "again", **AS_EXPORTED)
    assert again.history(1)["item"].to_pylist() == list(range(n))


def test_an_empty_store_is_a_file_without_rows(tmp_path: Path) -> None:
    store = lw.Store.create(tmp_path / "store", lw.Schema(user_id=pa.int64(), traits=TRAITS))
    assert lw.export_events(store, tmp_path / "events.parquet") == 0
    table = pq.read_table(tmp_path / "events.parquet")
    assert (len(table), table.column_names) == (0, ["user_id", "event_ts", "ingest_ts", "superseded_at", *TRAITS.names])


def test_a_store_opened_read_only_exports_its_generation(tmp_path: Path) -> None:
    lived(tmp_path / "store", [1, 2]).close()
    with lw.Store.open(tmp_path / "store", read_only=True) as store:
        assert lw.export_events(store, tmp_path / "events.parquet") == 320


def test_a_file_that_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    store, out = lived(tmp_path / "store", [1]), tmp_path / "events.parquet"
    out.write_bytes(b"mine")
    with pytest.raises(lw.ConflictError, match="exists"):
        lw.export_events(store, out)
    assert out.read_bytes() == b"mine"
    told: list[tuple[int, int]] = []
    lw.export_events(store, out, overwrite=True, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (480, 480)


def test_an_export_that_fails_leaves_no_file(tmp_path: Path) -> None:
    store, out = lived(tmp_path / "store", [1]), tmp_path / "events.parquet"
    store.close()
    file = next((tmp_path / "store" / "generations").rglob("*.stripes"))
    data = bytearray(file.read_bytes())
    data[70] ^= 1
    file.chmod(0o644)
    file.write_bytes(bytes(data))
    with lw.Store.open(tmp_path / "store") as opened, pytest.raises(lw.CorruptionError):
        lw.export_events(opened, out)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_corrections_and_deletions_go_out_and_come_in_again(tmp_path: Path) -> None:
    store, out = lived(tmp_path / "store", [1, 2]), tmp_path / "events.parquet"
    store.close()
    rng, clock = np.random.default_rng(9), ManualClock(START + 61 * SECOND)
    store = lw.Store.open(tmp_path / "store", clock=clock)
    for step in range(12):
        clock.advance(SECOND)
        history = read_histories(store, user_keys(pa.array([1 + step % 2]))).events
        live = np.flatnonzero(superseded(history) == NEVER)
        place = places(history)[int(rng.choice(live))]
        version = events(rng, [1 + step % 2], store.clock.now(), 1)
        if step % 3 == 0:
            version = {"user_id": version["user_id"]}
        version["supersedes"] = [dict(zip(("event_ts", "ingest_ts", "ordinal"), place, strict=True))]
        store.append(version)
        if step == 6:
            store.compact()
    assert lw.export_events(store, out) == 480 + 8
    assert pq.read_table(out)["superseded_at"].null_count == 488 - 12
    again = lw.ingest(out, tmp_path / "again", clock=store.clock, schema=store.schema, **AS_EXPORTED)
    assert again.schema == store.schema
    for user in (1, 2):
        assert len(store.history(user)) < len(read_histories(store, user_keys(pa.array([user]))).events)
        assert not len(different_rows(again.history(user), store.history(user)))
    times = [START + s * SECOND for s in (30, 61, 64, 68, 72)]
    requests = pa.table({"user_id": [1, 2] * 5, "request_ts": [t for t in times for _ in (1, 2)]})
    answers = [
        lw.Materializer(of, lw.Projection())(lw.backfill(of, requests, complete=True)).to_arrow()
        for of in (store, again)
    ]
    assert not len(different_rows(*answers))
    assert lw.verify(again).ok


def test_what_was_scrubbed_does_not_go_out(tmp_path: Path) -> None:
    store = lived(tmp_path / "store", [1, 2])
    store.scrub([1], compact=False)
    assert lw.export_events(store, tmp_path / "events.parquet") == len(store.history(2))
    assert set(pq.read_table(tmp_path / "events.parquet")["user_id"].to_pylist()) == {2}


@pytest.mark.parametrize(("at", "message"), [(START - 1, "superseded before it was learned of"), (10**18, "outside")])
def test_a_time_of_supersession_that_cannot_be(at: int, message: str, tmp_path: Path) -> None:
    table = pa.table(
        {"user_id": [1, 1], "event_ts": [START] * 2, "ingest_ts": [START] * 2, "at": [None, at], "item": [1, 2]}
    )
    pq.write_table(table, tmp_path / "events.parquet")
    with pytest.raises(lw.SchemaError, match=message) as raised:
        lw.ingest(tmp_path / "events.parquet", tmp_path / "store", superseded_time="at", **TWO_CLOCKS)
    assert "events.parquet, row 1" in str(raised.value)


def test_nulls_go_out_though_the_first_word_of_all_was_blanked(tmp_path: Path) -> None:
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("kind", pa.dictionary(pa.int32(), pa.string()))]))
    store = lw.Store.create(tmp_path / "store", schema, shards=1)
    store.append({"user_id": [1, 2, 2], "event_ts": [1, 2, 3], "kind": ["only theirs", "known", None]})
    store.compact()
    store.scrub([1])
    lw.export_events(store, tmp_path / "events.parquet")
    assert pq.read_table(tmp_path / "events.parquet")["kind"].to_pylist() == ["known", None]
