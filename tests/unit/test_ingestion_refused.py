"""lw.ingest refuses: whatever is wrong is named with its column, file and row, and nothing is left behind."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
import latewood.files as files
import latewood.ingestion.load as load_module
from few_events import AS_USUAL, EVENTS, FIRST_S, GROUPED, KEPT, items, load, place, schema_of, with_value
from latewood.storage import keys
from latewood.storage.local import LocalStorage
from latewood.testing import ManualClock

# What is wrong with columns


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"schema": schema_of(item=pa.int64())}, "no trait 'action'.*traits="),
        ({"schema": GROUPED, "traits": ["item"]}, "lack column 'action'"),
        ({"schema": schema_of(pa.string(), item=pa.int64(), action=pa.string())}, "'uid' is int64; the store has string"),
        ({"schema": schema_of(item=pa.bool_(), action=pa.string())}, "'item' is int64; the store has bool"),
        ({"user": "nope"}, "no column 'nope'; there are: uid, ts, known, item, action"),
        ({"time": "nope"}, "no column 'nope'"),
        ({"ingest_time": "nope"}, "no column 'nope'"),
        ({"traits": ["item", "nope"]}, "no column 'nope'"),
        ({"traits": "item"}, "is one string"),
        ({"time": "action"}, "the table, row 0: column 'action': text such as 'view' is not a time"),
        ({"user": "score"}, "no column 'score'"),
        ({"unit": "h"}, "unit 'h': one of s, ms, us"),
        ({"unit": "ns"}, "unit 'ns': one of s, ms, us. A store keeps µs: divide nanoseconds by 1,000"),
        ({"ingest_time": timedelta(days=-1)}, "before it happens"),
        ({"shards": 0}, "shards is 0"),
    ],
)  # fmt: skip
def test_columns_that_do_not_fit_are_refused_by_name(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(lw.SchemaError, match=message):
        load(EVENTS, tmp_path / "store", **changed)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("given", [{}, {"ingest_time": None}, {"ingest_time": 0}])
def test_a_missing_ingest_time_is_refused_with_an_explanation(given: dict[str, Any], tmp_path: Path) -> None:
    options = {name: value for name, value in AS_USUAL.items() if name != "ingest_time"} | given
    with pytest.raises(lw.SchemaError, match=r"when the store would have learned of each event.*timedelta"):
        lw.ingest(EVENTS, tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("known", [False, True])
def test_corrections_do_not_go_into_a_load(known: bool, tmp_path: Path) -> None:
    changed: dict[str, Any] = {"schema": schema_of(item=pa.int64(), action=pa.string())} if known else {}
    with pytest.raises(lw.SchemaError, match="'supersedes': corrections and deletions go through append"):
        load(EVENTS.append_column("supersedes", pa.nulls(len(EVENTS), pa.int64())), tmp_path / "store", **changed)
    assert not (tmp_path / "store").exists()


# What is wrong with rows


NS = "A store keeps µs: divide nanoseconds by 1,000, or cast the column to a timestamp"
BAD_ROWS = [
    ("uid", None, "column 'uid' has a null"),
    ("ts", None, "column 'ts' has a null; a time is required"),
    ("known", None, "column 'known' has a null; a time is required"),
    ("ts", 2**63 - 1, "column 'ts': 9223372036854775807 as s is outside the years 1 to 9999; is it a time?"),
    ("ts", 1722056355000, "column 'ts': 1722056355000 as s is outside the years 1 to 9999; is it ms?"),
    ("ts", 1722056355000000, "column 'ts': 1722056355000000 as s is outside the years 1 to 9999; is it us?"),
    ("ts", 1722056355 * 10**9, f"column 'ts': 1722056355000000000 as s is outside the years 1 to 9999; is it ns? {NS}"),
    ("known", -(10**12), "column 'known': -1000000000000 as s is outside the years 1 to 9999; is it a time?"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD_ROWS)
@pytest.mark.parametrize("row", [0, 3, 4])
def test_a_bad_row_is_named_with_its_file(
    name: str, value: Any, message: str, row: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 4)  # the last row is in another batch
    pq.write_table(EVENTS, tmp_path / "a.parquet")
    pq.write_table(with_value(name, row, value), tmp_path / "b.parquet")
    with pytest.raises(lw.SchemaError) as caught:
        load(str(tmp_path / "*.parquet"), tmp_path / "store")
    assert str(caught.value) == f"{tmp_path}/b.parquet, row {row}: {message}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_bad_row_of_a_table_is_named() -> None:
    with pytest.raises(lw.SchemaError, match=r"^the table, row 3: column 'uid' has a null$"):
        load(with_value("uid", 3, None))
    with pytest.raises(lw.SchemaError, match="row 2: column 'item' does not fit int8"):
        load(with_value("item", 2, 1000), schema=schema_of(item=pa.int8(), action=pa.string()))
    strict = [pa.field("item", pa.int64()), pa.field("action", pa.string(), nullable=False)]
    with pytest.raises(lw.SchemaError, match="row 2: column 'action' has a null; it is not nullable"):
        load(EVENTS, schema=lw.Schema(user_id=pa.int64(), traits=strict))


def test_the_bounds_of_time_hold_in_every_unit() -> None:
    last, first = 253_402_300_799, -62_135_596_800
    for unit, per_second in (("s", 1), ("ms", 1000), ("us", 10**6)):
        ends = pa.array([(last + 1) * per_second - 1, first * per_second])
        events = pa.table({"uid": [1, 1], "ts": ends, "known": [0, 1], "item": [1, 2]})
        with load(events, unit=unit) as store:
            assert items(store, 1) == [2, 1]
        for row, step in ((0, 1), (1, -1)):
            past = pa.array([end.as_py() + step * (k == row) for k, end in enumerate(ends)])
            with pytest.raises(lw.SchemaError, match=f"row {row}: column 'ts': .* as {unit} is outside the years"):
                load(events.set_column(1, "ts", past), unit=unit)
    unsigned = pa.table({"uid": [1], "ts": pa.array([2**64 - 1], pa.uint64()), "known": [0]})
    with pytest.raises(lw.SchemaError, match="18446744073709551615 as s is outside"):
        load(unsigned)


def test_a_bad_time_in_a_csv_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("uid,ts,item\n1,1700000000,1\n1,17oo,2\n")
    with pytest.raises(lw.SchemaError, match=r"a\.csv, row 1: column 'ts': '17oo' is not a time$"):
        load(tmp_path / "a.csv", tmp_path / "store", ingest_time="ts")
    (tmp_path / "a.csv").write_text("uid,ts,item\n1,14.11.2023,1\n")
    with pytest.raises(
        lw.SchemaError, match=r"row 0: column 'ts': text such as '14\.11\.2023' is not a time: parse it"
    ):
        load(tmp_path / "a.csv", tmp_path / "store", ingest_time="ts")
    assert not (tmp_path / "store").exists()


def test_text_that_is_not_utf8_is_named_with_its_row(tmp_path: Path) -> None:
    words = pa.array([b"a", b"b", b"\xff", b"c", b"d"])
    broken = pa.Array.from_buffers(pa.string(), 5, words.buffers())
    pq.write_table(EVENTS.set_column(4, "action", broken), tmp_path / "a.parquet")
    with pytest.raises(lw.SchemaError, match=r"a\.parquet, row 2: column 'action' holds text that is not UTF-8"):
        load(tmp_path / "a.parquet", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_files_of_different_columns_are_refused_by_name(tmp_path: Path) -> None:
    pq.write_table(EVENTS, tmp_path / "a.parquet")
    pq.write_table(EVENTS.drop_columns(["action"]), tmp_path / "b.parquet")
    with pytest.raises(lw.SchemaError, match=r"b\.parquet lacks column 'action', which .*a\.parquet has.*dataset"):
        load(tmp_path, tmp_path / "store")
    pq.write_table(EVENTS.set_column(3, "item", pa.array(list("abcde"))), tmp_path / "b.parquet")
    with pytest.raises(lw.SchemaError, match=r"b\.parquet: its columns do not fit those of .*a\.parquet"):
        load(str(tmp_path / "*.parquet"), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_files_of_widening_types_are_joined(tmp_path: Path) -> None:
    narrow = EVENTS.set_column(3, "item", EVENTS["item"].cast(pa.int16())).select(
        ["item", "uid", "ts", "known", "action"]
    )
    pq.write_table(narrow, tmp_path / "a.parquet")
    pq.write_table(EVENTS.set_column(0, "uid", pa.array([4, 5, 6, 7, 8])), tmp_path / "b.parquet")
    with load(tmp_path, place()) as store:
        assert store.schema["item"].type == pa.int64()
        assert (items(store, 1), items(store, 4)) == ([50, 30, 10], [10])


def test_a_damaged_file_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    big = pa.concat_tables([EVENTS] * 2000)
    pq.write_table(big, tmp_path / "a.parquet", compression="none", write_page_checksum=True, use_dictionary=False)
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    data[5000] ^= 0x10
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(lw.SchemaError, match=r"a\.parquet: cannot be read"):
        load(tmp_path / "a.parquet", tmp_path / "store")
    (tmp_path / "a.parquet").write_bytes(data[:100])
    with pytest.raises(lw.SchemaError, match=r"a\.parquet: cannot be read"):
        load(tmp_path / "a.parquet", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


# What a failure leaves


def snapshot(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and "mutable" not in p.parts
    }


def test_a_folder_that_was_there_stays_with_what_was_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(lw.SchemaError):
        load(with_value("uid", 4, None), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_recent_tier_elsewhere_is_taken_away_too(tmp_path: Path) -> None:
    with pytest.raises(lw.SchemaError):
        load(with_value("uid", 4, None), tmp_path / "store", mutable=tmp_path / "recent")
    assert list(tmp_path.iterdir()) == []


def test_after_a_failure_another_schema_may_be_tried() -> None:
    where = place()
    with pytest.raises(lw.SchemaError):
        load(with_value("uid", 4, None), where)
    with load(EVENTS.set_column(0, "uid", pa.array(list("abcde"))), where, traits=["item"]) as store:
        assert items(store, "e") == [50]


def test_a_store_that_was_there_stays_as_it_was(tmp_path: Path) -> None:
    load(EVENTS, tmp_path / "store").close()
    before = snapshot(tmp_path)
    for bad in (with_value("uid", 4, None), with_value("ts", 4, None), EVENTS.drop_columns(["item"])):
        with pytest.raises(lw.SchemaError):
            load(bad.set_column(bad.column_names.index("action"), "action", pa.array(["view"] * 5)), tmp_path / "store")
    assert snapshot(tmp_path) == before
    with load(
        EVENTS, tmp_path / "store", ingest_time=timedelta(days=30), traits=KEPT
    ) as store:  # it is not locked either
        assert store.generation.id == 2


def test_a_full_disk_is_an_os_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: LocalStorage, key: str) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LocalStorage, "writer", full)
    with pytest.raises(OSError, match="No space left"):
        load(EVENTS, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lasts", [False, True])
def test_a_store_whose_load_may_still_come_through_is_not_taken_away(
    lasts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = LocalStorage.create
    puts: list[Any] = []

    def times_out(self: LocalStorage, key: str, data: Any) -> bool:
        if key == keys.manifest(1):
            puts.append(data)
            if lasts or len(puts) == 1:
                raise OSError(f"put {len(puts)} timed out")
        return create(self, key, data)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStorage, "create", times_out)
        with pytest.raises(OSError, match="put 1 timed out"):
            load(EVENTS, tmp_path / "store")
    with load(EVENTS, tmp_path / "store") as store:
        assert store.generation.event_count == len(EVENTS)
        assert store.generation.id == 2


def test_a_store_that_someone_has_begun_to_use_is_not_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def someone_appends(*_: Any, **__: Any) -> None:
        with lw.Store.open(tmp_path / "store") as other:
            other.append({"user_id": [9], "event_ts": [5], "item": [1], "action": ["x"]})
        raise lw.ConflictError("someone was first")

    monkeypatch.setattr("latewood.ingestion.load.bulk_load", someone_appends)
    with pytest.raises(lw.ConflictError):
        load(EVENTS, tmp_path / "store")
    with lw.Store.open(tmp_path / "store") as store:
        assert items(store, 9) == [1]


@pytest.mark.parametrize("where", ["folder", "memory", "folder beside"])
def test_nothing_is_acknowledged_by_a_store_that_is_being_taken_away(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, delete = (place() if where == "memory" else tmp_path / "store"), load_module._delete
    recent = tmp_path / "recent" if where == "folder beside" else None
    row = {"user_id": [9], "event_ts": [5], "item": [1], "action": ["x"]}
    asked: list[Any] = []

    def someone_appends(*arguments: Any) -> None:
        other = lw.Store.open(path, mutable=recent)
        for act in (delete, lambda *_: None):  # before it is gone, and after
            with pytest.raises((lw.ConflictError, OSError)):
                other.append(row)
            act(*arguments)
        asked.append(other)

    if recent:
        recent.mkdir()  # and so it stays
    monkeypatch.setattr(load_module, "_delete", someone_appends)
    with pytest.raises(lw.SchemaError, match="null"):
        load(with_value("uid", 4, None), path, mutable=recent)
    (other,) = asked
    if where != "memory":
        with pytest.raises(lw.StoreNotFoundError):  # nobody settles the load that took it away
            other.append(row)
    other.close()
    assert list(tmp_path.rglob("*")) == ([recent] if recent else [])


@pytest.mark.parametrize("where", ["folder", "memory"])
def test_a_folder_for_recent_events_that_was_there_can_be_used_again(where: str, tmp_path: Path) -> None:
    recent = tmp_path / "recent"
    recent.mkdir()
    (recent / "mine").touch()
    path = tmp_path / "store" if where == "folder" else place()
    with pytest.raises(lw.SchemaError, match="null"):
        load(with_value("uid", 4, None), path, mutable=recent)
    assert list(tmp_path.rglob("*")) == [recent, recent / "mine"]
    with load(EVENTS, path, mutable=recent) as store:
        assert store.generation.event_count == len(EVENTS)


def test_a_store_that_someone_has_altered_is_not_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def someone_alters(*_: Any, **__: Any) -> None:
        with lw.Store.open(tmp_path / "store") as other:
            other.alter(shards=3)
        raise lw.ConflictError("someone was first")

    monkeypatch.setattr("latewood.ingestion.load.bulk_load", someone_alters)
    with pytest.raises(lw.ConflictError):
        load(EVENTS, tmp_path / "store")
    with lw.Store.open(tmp_path / "store") as store:
        assert store.compact().change == 1


@pytest.mark.parametrize("change", [{"drop": ["item"]}, {"drop": ["item"], "add": pa.schema([("item", pa.int64())])}])
@pytest.mark.parametrize("moment", ["_check_columns", "bulk_load"])
def test_rows_read_by_a_schema_that_counts_no_more_are_not_loaded(
    change: dict[str, Any], moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, then = place(), getattr(load_module, moment)

    def after_a_change_was_applied(*arguments: Any, **options: Any) -> Any:
        with lw.Store.open(path) as other:
            other.alter(**change)
            other.compact()
        return then(*arguments, **options)

    lw.Store.create(path, schema_of(item=pa.int64(), action=pa.string())).close()
    monkeypatch.setattr(load_module, moment, after_a_change_was_applied)
    with pytest.raises(lw.ConflictError, match="altered"):
        load(EVENTS, path)
    monkeypatch.setattr(load_module, moment, then)
    kept = [name for name in KEPT if name in lw.Store.open(path).schema]
    with load(EVENTS, path, traits=kept) as store:
        assert store.generation.event_count == len(EVENTS)
        assert "item" not in kept or items(store, 1) == items(load(EVENTS), 1)


def test_events_from_the_future_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    clock = ManualClock(FIRST_S * 10**6)
    with pytest.raises(lw.ConflictError, match="ahead of the clock"):
        load(EVENTS, tmp_path / "store", clock=clock)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()])
def test_a_date_beyond_all_years_is_refused_with_its_row(type_: pa.DataType) -> None:
    days = pa.array([0, 2_000_000_000], pa.int32()).cast(pa.date32()).cast(type_)
    with pytest.raises(lw.SchemaError, match="the table, row 1: column 'day'"):
        lw.ingest({"uid": [1, 1], "day": days}, "memory://dates", user="uid", time="day", ingest_time="day", quiet=True)


def test_a_date_is_midnight_unless_it_says_more() -> None:
    days = pa.array([86_400_000, 86_400_005]).view(pa.date64())
    store = lw.ingest(
        {"uid": [1, 1], "day": days}, "memory://days", user="uid", time="day", ingest_time="day", quiet=True
    )
    assert store.history(1)["event_ts"].cast(pa.int64()).to_pylist() == [86_400_000_000, 86_400_005_000]
