"""lw.ingest: whatever form the events have, they arrive whole, and the report says so."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from rich.progress import Progress

import few_events
import latewood as lw
from few_events import (
    DAY_S,
    EVENTS,
    FIRST_S,
    GROUPED,
    KEPT,
    items,
    load,
    place,
    report,
    with_value,
)
from latewood.immutable import GenerationReader
from latewood.ingestion import IngestReport, ingest_with_report
from latewood.testing import ManualClock

# What comes in


def test_a_table_becomes_histories() -> None:
    with load(EVENTS) as store:
        history = store.history(1)
        assert history["item"].to_pylist() == [50, 30, 10]  # by time, then by when it was learned of
        assert history["action"].to_pylist() == ["buy ✓", None, "view"]
        assert history["event_ts"].cast(pa.int64()).to_pylist() == [(FIRST_S + s) * 10**6 for s in (1, 1, 3)]
        assert items(store, 1, as_of=(FIRST_S + 10) * 10**6) == [50, 10]  # item 30 was learned of two hours later
        assert store.generation.id == 1
        assert store.generation.event_count == 5


def test_the_report_is_made_though_the_generation_is_collected_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history_lengths = GenerationReader.history_lengths

    def collect_first(self: GenerationReader) -> Any:
        if self.generation.id == 1:
            with lw.Store.open(tmp_path / "store") as other:
                for _ in range(2):
                    other.append(pa.table({"user_id": [1, 9], "event_ts": [1, 1], "item": [1, 1]}))
                    other.compact(keep=1)
        return history_lengths(self)

    monkeypatch.setattr(GenerationReader, "history_lengths", collect_first)
    events = pa.table({"user": [1, 2], "time": [5, 6], "item": [1, 2]})
    columns: dict[str, Any] = {"user": "user", "time": "time", "unit": "us", "ingest_time": timedelta(0)}
    store, report = ingest_with_report(events, tmp_path / "store", **columns, console=Console(quiet=True))
    assert (report.events, report.users, report.generation, store.generation.id) == (2, 3, 3, 3)


FORMS: dict[str, Callable[[Path], Any]] = {
    "table": lambda folder: EVENTS,
    "batch": lambda folder: EVENTS.to_batches()[0],
    "chunks": lambda folder: pa.concat_tables([EVENTS.slice(0, 2), EVENTS.slice(2)]),
    "dict": lambda folder: {name: EVENTS[name].to_pylist() for name in EVENTS.column_names},
    "pandas": lambda folder: EVENTS.to_pandas(),
    "polars": lambda folder: pl.from_arrow(EVENTS),
    "path": lambda folder: folder / "a.parquet",
    "text": lambda folder: str(folder / "a.parquet"),
    "folder": lambda folder: folder / "parts",
    "glob": lambda folder: str(folder / "parts" / "*.parquet"),
    "list": lambda folder: [folder / "parts" / "0.parquet", str(folder / "parts" / "1.parquet")],
    "csv": lambda folder: folder / "a.csv",
    "csv.gz": lambda folder: folder / "a.csv.gz",
    "feather": lambda folder: folder / "a.feather",
    "dataset": lambda folder: ds.dataset(str(folder / "parts")),
    "filtered": lambda folder: ds.dataset(str(folder / "parts")).filter(ds.field("item") > 0),
    "in memory": lambda folder: ds.dataset(EVENTS),
    "reader": lambda folder: pa.RecordBatchReader.from_batches(EVENTS.schema, EVENTS.to_batches(max_chunksize=2)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events")
    (folder / "parts").mkdir()
    pq.write_table(EVENTS, folder / "a.parquet")
    feather.write_feather(EVENTS, str(folder / "a.feather"))
    csv.write_csv(EVENTS, folder / "a.csv")
    with pa.CompressedOutputStream(str(folder / "a.csv.gz"), "gzip") as file:
        csv.write_csv(EVENTS, file)
    for part in range(2):
        pq.write_table(EVENTS.slice(3 * part, 3), folder / "parts" / f"{part}.parquet")
    return folder


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_the_same_events(form: str, folder: Path) -> None:
    with load(FORMS[form](folder)) as store:
        assert {user: items(store, user) for user in (1, 2, 3)} == {1: [50, 30, 10], 2: [20], 3: [40]}
        null = "" if form.startswith("csv") else None  # CSV cannot tell an empty text from none
        assert store.history(1)["action"].to_pylist() == ["buy ✓", null, "view"]


@pytest.mark.parametrize(
    "users",
    [
        pa.array(["ü", "", "ü", "c", "ü"]),
        pa.array(["ü", "", "ü", "c", "ü"], pa.large_string()),
        pa.array(["ü", "", "ü", "c", "ü"]).dictionary_encode(),
    ],
)
def test_users_by_text(users: pa.Array) -> None:
    with load(EVENTS.set_column(0, "uid", users)) as store:
        assert store.schema.user_id == pa.string()
        assert {user: items(store, user) for user in ("ü", "", "c", "nobody")} == {
            "ü": [50, 30, 10],
            "": [20],
            "c": [40],
            "nobody": [],
        }


@pytest.mark.parametrize("type_", [pa.int8(), pa.uint32(), pa.int64(), pa.dictionary(pa.int32(), pa.int64())])
def test_users_by_number(type_: pa.DataType) -> None:
    users = pa.array([-1, 2, -1, 3, -1] if not pa.types.is_unsigned_integer(type_) else [1, 2, 1, 3, 1])
    users = users.dictionary_encode() if pa.types.is_dictionary(type_) else users.cast(type_)
    with load(EVENTS.set_column(0, "uid", users)) as store:
        assert store.schema.user_id == pa.int64()
        assert items(store, users[0].as_py()) == [50, 30, 10]


@pytest.mark.parametrize(("unit", "per_second"), [("s", 1), ("ms", 10**3), ("us", 10**6), (None, 10**6)])
def test_units_of_integer_times(unit: str | None, per_second: int) -> None:
    scaled = [pa.array(EVENTS[name].to_numpy() * per_second) for name in ("ts", "known")]
    events = EVENTS.set_column(1, "ts", scaled[0]).set_column(2, "known", scaled[1])
    with load(events, unit=unit) as store:
        assert store.history(3)["event_ts"].to_pylist() == [datetime.fromtimestamp(FIRST_S + 2, UTC)]


TIMES = EVENTS["ts"].combine_chunks()


@pytest.mark.parametrize(
    "times",
    [
        TIMES.cast(pa.timestamp("s")),
        TIMES.cast(pa.timestamp("s")).cast(pa.timestamp("ns")),
        TIMES.cast(pa.timestamp("s", "UTC")),
        TIMES.cast(pa.timestamp("s", "Asia/Tokyo")).cast(pa.timestamp("ms", "Asia/Tokyo")),
        pa.array((TIMES.to_numpy()).astype(np.int32)),
    ],
)
@pytest.mark.parametrize("ingest_time", ["ts", "known", timedelta(0), timedelta(days=1)])
def test_times_of_any_type(times: pa.Array, ingest_time: str | timedelta) -> None:
    with load(EVENTS.set_column(1, "ts", times), ingest_time=ingest_time) as store:
        assert store.history(3)["event_ts"].to_pylist() == [datetime.fromtimestamp(FIRST_S + 2, UTC)]
        just_after = (FIRST_S + 3) * 10**6
        assert items(store, 3, as_of=just_after) == ([] if ingest_time == timedelta(days=1) else [40])


def test_dates_are_midnights() -> None:
    events = EVENTS.set_column(1, "ts", TIMES.cast(pa.timestamp("s")).cast(pa.date32()))
    with load(events, ingest_time="ts") as store:
        assert store.history(3)["event_ts"].to_pylist() == [datetime(2023, 11, 14, tzinfo=UTC)]


def test_a_column_may_have_two_uses() -> None:
    with load(EVENTS, ingest_time="ts", traits=["item", "uid", "ts"]) as store:
        assert store.history(3).to_pylist()[0] | {"event_ts": None} == {
            "event_ts": None,
            "item": 40,
            "uid": 3,
            "ts": FIRST_S + 2,
        }


def test_an_empty_table_makes_an_empty_store() -> None:
    loaded = report(EVENTS.slice(0, 0))
    assert (loaded.events, loaded.users, loaded.first_ts, loaded.length_max, loaded.generation) == (0, 0, None, 0, 0)


def test_a_datasets_partitions_are_columns_and_its_schema_counts(tmp_path: Path) -> None:
    pq.write_to_dataset(EVENTS, tmp_path / "by", partition_cols=["action"])
    with load(ds.dataset(tmp_path / "by", partitioning="hive")) as store:
        assert store.history(1)["action"].to_pylist() == ["buy ✓", None, "view"]
    pq.write_table(EVENTS.drop_columns(["action"]), tmp_path / "older.parquet")
    pq.write_table(EVENTS.set_column(0, "uid", pa.array([9] * 5)), tmp_path / "newer.parquet")
    both = [str(tmp_path / f"{name}.parquet") for name in ("older", "newer")]
    with load(ds.dataset(both, schema=EVENTS.schema)) as store:
        assert store.history(1)["action"].to_pylist() == [None, None, None]
        assert store.history(9)["action"].null_count == 1


# The schema


def test_the_inferred_schema_is_printed_as_code_that_makes_it(capsys: pytest.CaptureFixture[str]) -> None:
    with load(EVENTS, quiet=False) as store:
        printed = capsys.readouterr().out
        code = printed[printed.index("schema = ") : printed.index("loaded 5 events")]
        names = {"lw": lw, "pa": pa}
        exec(code, names)
        assert names["schema"] == store.schema
        assert "2023-11-14T22:13:20Z to 2023-11-14T22:13:23Z" in printed


def test_quiet_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    load(EVENTS).close()
    assert capfd.readouterr() == ("", "")


def test_a_schema_with_feature_groups_can_be_given() -> None:
    with load(EVENTS, schema=GROUPED) as store:
        assert store.schema == GROUPED
        assert store.history(1)["action"].to_pylist() == ["buy ✓", None, "view"]
        requests = pa.table({"user_id": [1], "request_ts": [(FIRST_S + 7201) * 10**6]})
        batch = lw.Materializer(store, lw.Projection(groups=["core"]))(lw.backfill(store, requests))
        assert list(batch.values) == ["event_ts", "item"]
        assert batch.values["item"].tolist() == [50, 30, 10]


def test_a_given_schema_decides_how_csv_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("uid,ts,item,score\n007,5,1,2\n7,6,2,3\n")
    schema = lw.Schema(user_id=pa.string(), traits=pa.schema([("item", pa.string()), ("score", pa.float64())]))
    with load(tmp_path / "a.csv", schema=schema, ingest_time="ts") as store:
        assert store.history("007").to_pylist()[0]["item"] == "1"
        assert items(store, "7") == ["2"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[[1]]] * 5), "'odd': a store cannot hold lists of lists.*traits="),
        (pa.array([None] * 5), "'odd': a store cannot hold null"),
        (pa.array([datetime(2024, 1, 1)] * 5).cast(pa.date32()), "'odd': a store cannot hold date32"),  # noqa: DTZ001
    ],
)
def test_a_column_that_cannot_be_kept_can_be_left_out(column: pa.Array, message: str) -> None:
    events = EVENTS.append_column("odd", column)
    with pytest.raises(lw.SchemaError, match=message):
        load(events)
    load(events, traits=KEPT).close()


def test_reserved_names_are_refused_with_a_way_out() -> None:
    with pytest.raises(lw.SchemaError, match=r"'recent' has a reserved name.*traits="):
        load(EVENTS.append_column("recent", EVENTS["item"]))


def test_columns_of_the_stores_own_names_are_fine() -> None:
    renamed = EVENTS.rename_columns(["user_id", "event_ts", "ingest_ts", "item", "action"])
    with load(renamed, user="user_id", time="event_ts", ingest_time="ingest_ts") as store:
        assert items(store, 1) == [50, 30, 10]


# A second ingest


def test_a_second_ingest_adds_to_the_first(tmp_path: Path) -> None:
    load(EVENTS, tmp_path / "store").close()
    later = EVENTS.set_column(2, "known", pa.array(EVENTS["known"].to_numpy() + 30 * DAY_S))
    with load(later, tmp_path / "store") as store:
        assert store.generation.id == 2
        assert items(store, 1) == [50, 30, 50, 30, 10, 10]
    with lw.Store.open(tmp_path / "store", read_only=True) as store:
        assert store.generation.event_count == 10


def test_a_second_ingest_takes_the_schema_of_the_store(tmp_path: Path) -> None:
    load(EVENTS, tmp_path / "store", schema=GROUPED).close()
    later = EVENTS.set_column(2, "known", pa.array(EVENTS["known"].to_numpy() + 30 * DAY_S))
    narrow = later.set_column(
        3, "item", later["item"].cast(pa.int8())
    )  # any width that fits, and text for a dictionary
    with load(narrow, tmp_path / "store") as store:
        assert store.schema == GROUPED
        assert items(store, 3) == [40, 40]
    with pytest.raises(lw.SchemaError, match="store of another schema"):
        load(later, tmp_path / "store", schema=lw.Schema(user_id=pa.int64(), traits=[pa.field("item", pa.int64())]))
    with pytest.raises(lw.SchemaError, match=r"no trait 'more'.*traits="):
        load(later.append_column("more", later["item"]), tmp_path / "store")


def test_events_older_than_what_has_been_read_are_refused() -> None:
    where = place()
    load(EVENTS, where).close()
    read = (
        rf"^{where} exists and has been read up to 2023-.* \(its frontier\).*lw\.Store\.open\('{where}'\).*another path"
        r".*lw\.rebuild.*not when they happened$"
    )
    with pytest.raises(lw.ConflictError, match=read):
        load(EVENTS, where)
    with lw.Store.open(where) as store:
        assert store.generation.id == 1
        assert store.generation.event_count == 5
        requests = pa.table({"user_id": [1], "request_ts": [(FIRST_S + 90 * DAY_S) * 10**6]})
        lw.backfill(store, requests, complete=True)
    with pytest.raises(lw.ConflictError, match="has been read up to 2024-"):
        load(EVENTS, where, ingest_time=timedelta(days=89), traits=KEPT)
    load(EVENTS, where, ingest_time=timedelta(days=90), traits=KEPT).close()


def test_after_a_capture_imports_must_be_newer_than_everything() -> None:
    where = place()
    clock = ManualClock((FIRST_S + 10 * DAY_S) * 10**6)
    with load(EVENTS, where, clock=clock) as store:
        store.capture(pa.table({"user_id": [1], "request_ts": [clock.now()]}))
        store.append({"user_id": [1], "event_ts": [clock.now()], "item": [60], "action": ["view"]})
    with pytest.raises(lw.ConflictError, match=r"has been read up to 2023-11-24.* by a capture"):
        load(EVENTS, where, clock=clock, ingest_time=timedelta(days=9), traits=KEPT)


# What is reported


def test_the_report_is_right() -> None:
    where = place()
    first = report(EVENTS, where)
    assert (first.events, first.users, first.generation) == (5, 3, 1)
    assert (first.first_ts, first.last_ts) == (FIRST_S * 10**6, (FIRST_S + 3) * 10**6)
    assert (first.late_hour_share, first.late_day_share, first.early_share) == (2 / 5, 1 / 5, 0)
    assert (first.length_p50, first.length_p90, first.length_max) == (1, 2, 3)
    assert first.size_bytes > 0
    second = report(EVENTS, where, ingest_time=timedelta(days=30), traits=KEPT)
    assert (second.events, second.users, second.generation) == (5, 3, 2)
    assert (second.late_hour_share, second.late_day_share) == (1, 1)
    assert (second.length_p50, second.length_max) == (2, 6)
    assert IngestReport(**second.to_json()) == second


def test_events_that_were_learned_before_they_happened_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    load(EVENTS, quiet=False).close()
    assert "before they happened" not in capsys.readouterr().out
    load(with_value("known", 0, FIRST_S), quiet=False).close()
    assert "early: 20.0% of events were learned before they happened" in capsys.readouterr().out
    assert report(with_value("known", 0, FIRST_S)).early_share == 1 / 5


@pytest.mark.parametrize("quiet", [False, True])
def test_a_forgotten_unit_is_noticed(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="early 1970") as caught:
        load(EVENTS, unit=None, quiet=quiet).close()
    assert caught[0].filename == few_events.__file__
    assert "early 1970" not in capsys.readouterr().out  # said once, where it can be caught
    load(EVENTS, unit="us", quiet=quiet).close()
    assert "early 1970" not in capsys.readouterr().out


def test_more_than_memory_holds() -> None:
    rng = np.random.default_rng(0)
    n = 200_000
    ts = rng.integers(FIRST_S, FIRST_S + 10**6, n)
    events = pa.table({"uid": rng.integers(0, 500, n), "ts": ts, "item": np.arange(n)})
    with load(events, ingest_time="ts", memory_bytes=4 << 20) as store:
        assert store.generation.event_count == n
        mine = np.flatnonzero(events["uid"].to_numpy() == 7)
        assert items(store, 7) == mine[np.argsort(ts[mine], kind="stable")].tolist()


def test_it_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, float | None]] = []
    real = Progress.update

    def update(self: Progress, task: Any, **changed: Any) -> None:
        real(self, task, **changed)
        seen.append((self.tasks[0].description, self.tasks[0].completed, self.tasks[0].total))

    monkeypatch.setattr(Progress, "update", update)
    load(EVENTS).close()
    assert seen[-1] == ("writing the generation", 5, 5)
