"""The contract, as a user would write it down: from a file of interactions to batches, and every name on the way."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.testing import ManualClock, different_rows

SECOND = 1_000_000
START = datetime(2024, 5, 1, tzinfo=UTC)
NOW = int(START.timestamp()) * SECOND
SCHEMA = lw.Schema(
    user_id=pa.int64(),
    groups={
        "core": pa.schema([("item_id", pa.int64()), ("action", pa.dictionary(pa.int32(), pa.string()))]),
        "engagement": pa.schema([("watch_ms", pa.int32()), ("like", pa.bool_()), ("score", pa.float32())]),
    },
)
GROUPS = {group: [trait.name for trait in traits] for group, traits in SCHEMA.groups.items()}


def interactions(n: int = 400, users: int = 7, seed: int = 0) -> pa.Table:
    """Interactions of the hour before NOW, by the second, with nulls."""
    rng = np.random.default_rng(seed)
    event_ts = NOW - 3_600 * SECOND + np.sort(rng.integers(0, 3_600, n)) * SECOND
    return pa.table(
        {
            "user_id": rng.integers(0, users, n),
            "event_ts": pa.array(event_ts).view(pa.timestamp("us", "UTC")),
            "item_id": rng.integers(0, 2**60, n),
            "action": pa.array(rng.choice(["view", "like", "share"], n)).dictionary_encode(),
            "watch_ms": pa.array(rng.integers(0, 10**6, n), pa.int32(), mask=rng.random(n) < 0.2),
            "like": pa.array(rng.random(n) < 0.3),
            "score": pa.array(rng.random(n), pa.float32()),
        }
    )


def requests_for(users: list[int], at: int, label: bool = True) -> pa.Table:
    times = pa.array([at] * len(users)).view(pa.timestamp("us", "UTC"))
    return pa.table({"user_id": users, "request_ts": times, "label": [label] * len(users)})


def with_ingest(events: pa.Table, ingest_ts: Any) -> pa.Table:
    return events.append_column("ingest_ts", pa.array(ingest_ts, pa.int64()).view(pa.timestamp("us", "UTC")))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Any:
    with lw.Store.create(tmp_path / "store", SCHEMA, shards=3, clock=clock) as store:
        yield store


def test_the_first_hour(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    events = interactions()
    seconds = events["event_ts"].cast(pa.int64()).to_numpy() // SECOND
    renamed = events.drop_columns(["user_id", "event_ts"])
    renamed = renamed.append_column("uid", events["user_id"]).append_column("timestamp", pa.array(seconds))
    (tmp_path / "events").mkdir()
    for part in (0, 1):
        pq.write_table(renamed.slice(part * 200, 200), tmp_path / "events" / f"{part}.parquet")
    store = lw.ingest(
        str(tmp_path / "events" / "*.parquet"), tmp_path / "store",
        user="uid", time="timestamp", unit="s", ingest_time="timestamp",
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert "schema = lw.Schema(" in printed
    assert '("item_id", pa.int64())' in printed
    known = with_ingest(events, seconds * SECOND)
    projection = lw.Projection(max_len=16, traits=["event_ts", "item_id", "action"])
    with store:
        assert store.generation.event_count == 400
        examples = lw.backfill(store, requests_for([0, 1, 2, 99], NOW - 60 * SECOND), complete=True)
        batch = lw.Materializer(store, projection)(examples)
        expected = lw.testing.fat_rows(known, requests_for([0, 1, 2, 99], NOW - 60 * SECOND), projection)
        assert not len(different_rows(batch.to_arrow(), expected))
        pq.write_table(examples, tmp_path / "examples.parquet")
        loader = lw.Loader(store, str(tmp_path / "examples.parquet"), projection, batch_size=2, seed=0)
        assert sum(len(b) for b in loader) == 4


def test_an_assumed_delay(tmp_path: Path) -> None:
    events = interactions(50)
    path = tmp_path / "events.parquet"
    pq.write_table(events.drop_columns(["like"]), path)
    delay = timedelta(minutes=5)
    with lw.ingest(path, tmp_path / "store", user="user_id", time="event_ts", ingest_time=delay, quiet=True) as store:
        ingested = events["event_ts"].cast(pa.int64()).to_numpy() + 300 * SECOND
        request = requests_for([0, 1, 2], NOW - 600 * SECOND)
        batch = lw.Materializer(store, lw.Projection())(lw.backfill(store, request, complete=True))
        known = with_ingest(events.drop_columns(["like"]), ingested)
        expected = lw.testing.fat_rows(known, request, lw.Projection())
        assert batch.to_arrow()["history"].to_pylist() == expected["history"].to_pylist()


def test_append_compact_capture_train(tmp_path: Path, store: lw.Store, clock: ManualClock) -> None:
    events = interactions()
    early, late = events.slice(0, 300), events.slice(300)
    receipt = store.append(early)
    assert (receipt.count, receipt.duplicates, receipt.skipped) == (300, 0, 0)
    assert len(receipt.ingest_ts) == len(receipt.ordinal) == 300
    known = with_ingest(early, receipt.ingest_ts)

    generation = store.compact()
    assert isinstance(generation.id, int)
    assert generation.watermark == int(receipt.ingest_ts.max()) + 1
    assert (generation.event_count, generation.user_count) == (300, 7)
    assert generation.size_bytes > 0
    assert store.compact().id == generation.id  # nothing new

    clock.advance(SECOND)
    receipt = store.append(late)
    known = pa.concat_tables([known, with_ingest(late, receipt.ingest_ts)])
    requests = requests_for([0, 1, 2, 3, 4, 5, 6, 7], NOW + 2 * SECOND)
    cap = store.capture(requests)
    assert cap.columns.column_names == ["user_id", "request_ts", "label", "uih", "recent", "cutoff"]
    asked = requests.append_column("cutoff", cap.columns["cutoff"])

    served = cap.history(lw.Projection(max_len=8))
    assert not len(different_rows(served.to_arrow(), lw.testing.fat_rows(known, asked, lw.Projection(max_len=8))))

    clock.advance(SECOND)
    store.append(interactions(100, seed=1))  # late by event time, and unknown to the requests
    store.compact()
    pq.write_table(cap.columns, tmp_path / "examples.parquet")
    with lw.Store.open(tmp_path / "store", read_only=True) as trainer:
        for projection in (lw.Projection(), lw.Projection(5, groups=["engagement"]), lw.Projection(traits=["action"])):
            expected = lw.testing.fat_rows(known, asked, projection, groups=GROUPS)
            for examples in (cap.columns, pq.read_table(tmp_path / "examples.parquet"), *cap.columns.to_batches()[:1]):
                assert not len(different_rows(lw.Materializer(trainer, projection)(examples).to_arrow(), expected))


def test_a_batch(store: lw.Store) -> None:
    receipt = store.append(interactions())
    store.compact()
    projection = lw.Projection(max_len=40)
    batch = store.capture(requests_for([3, 99, 1], NOW + SECOND)).history(projection)
    assert len(batch) == 3
    assert batch.offsets.dtype == np.int64
    assert batch.offsets.tolist() == [0, 40, 40, 80]
    assert list(batch.values) == ["event_ts", "item_id", "action", "watch_ms", "like", "score"]
    dtypes = [values.dtype for values in batch.values.values()]
    assert dtypes == [np.int64, np.int64, np.int32, np.int32, np.bool_, np.float32]
    assert all(len(values) == 80 for values in batch.values.values())
    assert set(batch.masks) == {"watch_ms"}
    assert batch.masks["watch_ms"].any()
    assert not batch.values["watch_ms"][batch.masks["watch_ms"]].any()
    codes = batch.dictionaries["action"].to_pylist()
    rows = batch.to_arrow()["history"].to_pylist()
    assert [codes[code] for code in batch.values["action"][:40]] == rows[0]["action"]
    assert batch.features.column_names == ["user_id", "request_ts", "label"]
    assert batch.weights.tolist() == [1, 1, 1]
    assert rows[1] == {name: [] for name in batch.values}
    assert len(receipt.ingest_ts) == 400
    torch = pytest.importorskip("torch")
    jagged = batch.to_torch(layout="jagged")
    assert jagged is not None
    assert torch.__version__


def test_dictionaries_only_grow(store: lw.Store, clock: ManualClock) -> None:
    first = store.capture(requests_for([1], NOW)).history(lw.Projection())
    assert len(first.dictionaries["action"]) == 0
    store.append(interactions(20))
    before = store.capture(requests_for([1], NOW)).history(lw.Projection()).dictionaries["action"].to_pylist()
    more = interactions(20).set_column(3, "action", pa.array(["new", *["view"] * 19]))
    store.append(more)
    after = store.capture(requests_for([1], NOW)).history(lw.Projection()).dictionaries["action"].to_pylist()
    assert after[: len(before)] == before
    assert "new" in after


def test_history(store: lw.Store, clock: ManualClock) -> None:
    events = interactions()
    receipt = store.append(events.slice(0, 200))
    clock.advance(60 * SECOND)
    store.append(events.slice(200))
    whole = store.history(3)
    assert whole.column_names == ["event_ts", "item_id", "action", "watch_ms", "like", "score"]
    mine = [row for row in events.to_pylist() if row["user_id"] == 3]
    assert whole["item_id"].to_pylist() == [row["item_id"] for row in mine]
    assert whole["action"].to_pylist() == [row["action"] for row in mine]
    then = int(receipt.ingest_ts.max()) + 1
    known = [row for row in events.slice(0, 200).to_pylist() if row["user_id"] == 3]
    for moment in (then, datetime.fromtimestamp(0, UTC) + timedelta(microseconds=then)):
        assert store.history(3, as_of=moment)["item_id"].to_pylist() == [row["item_id"] for row in known]
    assert store.history(3, as_of=0).num_rows == 0
    assert store.history(12345).num_rows == 0
    assert store.history(12345).schema == whole.schema
    store.compact()
    assert store.history(3).equals(whole)
    for stranger in ("3", 2**63, 2**70, 1.5, None):
        with pytest.raises(lw.SchemaError, match="user"):
            store.history(stranger)


def test_anchors(store: lw.Store) -> None:
    events = interactions()
    events = with_ingest(events, events["event_ts"].cast(pa.int64()))
    store.append(events.slice(0, 250))
    store.compact()
    store.append(events.slice(250))
    anchors = lw.anchors(store, where=lw.col("action") == "like", min_history=1)
    assert anchors.column_names == ["user_id", "request_ts", "item_id", "action", "watch_ms", "like", "score", "anchor"]
    assert set(anchors["action"].to_pylist()) == {"like"}
    assert anchors["request_ts"].to_pylist() == sorted(anchors["request_ts"].to_pylist())
    examples = lw.backfill(store, anchors)
    assert "anchor" not in examples.column_names
    projection = lw.Projection(traits=["event_ts", "item_id"])
    batch = lw.Materializer(store, projection)(examples)
    assert not len(different_rows(batch.to_arrow(), lw.testing.fat_rows(events, anchors, projection)))
    assert (batch.lengths >= 1).all()
    some = (lw.col("action") == "like") & ~(lw.col("watch_ms") < 500_000) & lw.col("item_id").is_in([1, 2, 3])
    assert lw.anchors(store, where=some).num_rows == 0


def test_backfill_leaves_out_what_was_learned_later(store: lw.Store) -> None:
    events = interactions(200, users=2)
    times = events["event_ts"].cast(pa.int64()).to_numpy()
    delay = np.where(np.arange(200) % 3 == 0, 1_800 * SECOND, 0)
    known = with_ingest(events, times + delay)
    store.append(known)
    store.compact()
    requests = pa.table({"user_id": [0, 1] * 20, "request_ts": NOW - np.arange(40) * 90 * SECOND})
    batch = lw.Materializer(store, lw.Projection())(lw.backfill(store, requests))
    expected = lw.testing.fat_rows(known, requests, lw.Projection())
    assert not len(different_rows(batch.to_arrow(), expected))
    by_time_alone = lw.testing.fat_rows(with_ingest(events, times), requests, lw.Projection())
    assert len(different_rows(by_time_alone, expected)) > 0


def test_loader_order_resume_and_ranks(tmp_path: Path, store: lw.Store) -> None:
    store.append(interactions())
    store.compact()
    requests = requests_for([k % 9 for k in range(50)], NOW + SECOND).append_column("n", pa.array(range(50)))
    pq.write_table(store.capture(requests).columns, tmp_path / "examples.parquet")
    arguments: dict[str, Any] = {"batch_size": 8, "seed": 3}
    examples, projection = str(tmp_path / "examples.parquet"), lw.Projection(max_len=10, traits=["item_id"])

    def order(loader: lw.Loader) -> list[int]:
        return [n for batch in loader for n in np.array(batch.features["n"])[batch.weights > 0].tolist()]

    loader = lw.Loader(store, examples, projection, **arguments)
    assert len(loader) == 7
    first = order(loader)
    assert sorted(first) == list(range(50))
    assert order(lw.Loader(store, examples, projection, **arguments)) == first
    loader.set_epoch(1)
    second = order(loader)
    assert sorted(second) == list(range(50))
    assert second != first

    for steps in range(8):
        loader = lw.Loader(store, examples, projection, **arguments)
        iterator = iter(loader)
        seen = [n for _ in range(steps) for n in next(iterator).features["n"].to_pylist()]
        state = json.loads(json.dumps(loader.state_dict()))
        resumed = lw.Loader(store, examples, projection, **arguments)
        resumed.load_state_dict(state)
        assert seen + order(resumed) == first

    ranks = [lw.Loader(store, examples, projection, rank=rank, world_size=3, **arguments) for rank in range(3)]
    assert len({len(loader) for loader in ranks}) == 1
    assert sorted(n for loader in ranks for n in order(loader)) == list(range(50))


def test_on_missing(tmp_path: Path, clock: ManualClock, store: lw.Store) -> None:
    store.append(interactions())
    store.compact()
    columns = store.capture(requests_for([1, 2], NOW + SECOND)).columns
    examples = columns.set_column(0, "user_id", pa.array([1, 999]))  # of whom the store has nothing
    with pytest.raises(lw.PointerError, match=r"row 1\b"):
        lw.Materializer(store, lw.Projection())(examples)
    batch = lw.Materializer(store, lw.Projection(), on_missing="mask")(examples)
    assert batch.weights.tolist() == [1, 0]
    assert batch.lengths[0] > 0
    assert batch.lengths[1] == 0


def test_tables_of_every_library(tmp_path: Path) -> None:
    plain = {"user_id": [1, 1, 2], "event_ts": [NOW, NOW + 1, NOW + 2], "item": [5, 6, 7], "word": ["a", "ü", ""]}
    schema = lw.Schema(user_id=pa.int32(), traits=pa.schema([("item", pa.int64()), ("word", pa.string())]))
    requests = {"user_id": [1, 2], "request_ts": [NOW + 3, NOW + 3]}
    histories = []
    for k, table in enumerate((pa.table, pl.DataFrame, pd.DataFrame)):
        with lw.Store.create(tmp_path / str(k), schema, clock=lambda: NOW) as store:
            store.append(table(plain))
            captured = store.capture(table(requests))
            histories.append(captured.history(lw.Projection()).to_arrow()["history"].to_pylist())
    assert histories[0][0]["word"] == ["a", "ü"]
    assert histories[0] == histories[1] == histories[2]


def test_times_of_every_kind(tmp_path: Path) -> None:
    seconds = [NOW // SECOND + k for k in range(3)]
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
    for k, type_ in enumerate((pa.timestamp("s"), pa.timestamp("ms", "UTC"), pa.timestamp("ns", "Asia/Tokyo"), None)):
        event_ts = pa.array(seconds, pa.timestamp("s")).cast(pa.timestamp(type_.unit)).view(type_) if type_ else (
            pa.array(seconds, pa.int64()).to_numpy() * SECOND
        )  # fmt: skip
        with lw.Store.create(tmp_path / str(k), schema, clock=lambda: NOW) as store:
            store.append(pa.table({"user_id": [1, 1, 1], "event_ts": event_ts, "item": [0, 1, 2]}))
            times = store.history(1)["event_ts"].cast(pa.int64()).to_pylist()
            assert times == [second * SECOND for second in seconds]


def test_create_and_open(tmp_path: Path, store: lw.Store) -> None:
    with pytest.raises(lw.ConflictError, match="already"):
        lw.Store.create(tmp_path / "store", SCHEMA)
    with pytest.raises(lw.StoreNotFoundError, match="nowhere"):
        lw.Store.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    store.append(interactions())
    store.close()
    store.close()
    with lw.Store.open(tmp_path / "store") as again:
        assert again.schema == SCHEMA
        assert again.history(1).num_rows > 0
    with lw.Store.open(str(tmp_path / "store"), read_only=True) as trainer, pytest.raises(lw.LatewoodError):
        trainer.append(interactions())
