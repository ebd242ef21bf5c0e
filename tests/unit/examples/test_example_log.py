"""The example log: where examples go, in which order, and that damage is noticed."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from latewood.errors import CorruptionError, SchemaError
from latewood.examples import ExampleLog, open_examples
from latewood.users import user_keys

Examples = Callable[..., pa.Table]
START = 1_700_000_000_000_000  # 2023-11-14T22:13:20Z
DAY_US = 86_400_000_000


def whole(path: object) -> pa.Table:
    source = open_examples(path)
    return source.take(np.arange(len(source)))


def by_row(table: pa.Table) -> pa.Table:
    return table.sort_by("row").combine_chunks()


def test_every_example_comes_back_once_from_its_day_and_bucket(tmp_path: Path, recent_examples: Examples) -> None:
    examples = recent_examples(500)
    with ExampleLog(tmp_path, bucket_count=3, row_group_size=20) as log:
        log.append(examples.slice(0, 200))
        log.append(examples.slice(200))
    assert by_row(whole(tmp_path)).equals(examples)
    for file in tmp_path.rglob("*.parquet"):
        part = pq.read_table(file)
        day, bucket = file.parent.parent.name, file.parent.name
        assert {f"day={ts.date()}" for ts in part["request_ts"].to_pylist()} == {day}
        hashes = user_keys(part["user_id"].combine_chunks()).hash
        assert {f"bucket={int(h >> np.uint64(32)) * 3 >> 32:02d}" for h in hashes} == {bucket}
        order = np.lexsort((part["request_ts"].cast(pa.int64()).to_numpy(), hashes))
        assert (order == np.arange(len(part))).all()


def test_one_bucket_keeps_all_examples_of_a_user_and_day_together(tmp_path: Path, recent_examples: Examples) -> None:
    with ExampleLog(tmp_path) as log:
        log.append(recent_examples(300, users=5, days=1))
    users = whole(tmp_path)["user_id"].to_numpy()
    assert (np.diff(users) != 0).sum() <= 2 * 5  # START is within a day, so there are two


@pytest.mark.parametrize(
    "user_id", [["ä", "b", ""], pa.array([5, -7, 0], pa.int16()), pa.array(["x"] * 3, pa.string_view())]
)
def test_user_ids_of_any_type(tmp_path: Path, user_id: object) -> None:
    table = pa.table({"user_id": user_id, "request_ts": [START, -1, -DAY_US], "row": [0, 1, 2]})
    with ExampleLog(tmp_path, bucket_count=2) as log:
        log.append(table)
    assert by_row(whole(tmp_path))["user_id"].to_pylist() == table["user_id"].to_pylist()
    days = {path.name for path in tmp_path.iterdir()} - {".unfinished"}
    assert days == {"day=2023-11-14", "day=1969-12-31"}


def test_flush_writes_only_what_is_new(tmp_path: Path, recent_examples: Examples) -> None:
    log = ExampleLog(tmp_path)
    assert log.flush() == []
    log.append(recent_examples(10, days=1))
    log.append(recent_examples(0))
    first = log.flush()
    assert first
    assert log.flush() == []
    assert len(whole(tmp_path)) == 10
    log.append(recent_examples(10, days=1))
    log.close()
    assert len(whole(tmp_path)) == 20


def test_a_full_buffer_is_flushed(tmp_path: Path, recent_examples: Examples) -> None:
    log = ExampleLog(tmp_path, buffer_bytes=1)
    log.append(recent_examples(10))
    assert len(whole(tmp_path)) == 10


def test_an_error_inside_the_context_writes_nothing(tmp_path: Path, recent_examples: Examples) -> None:
    log = ExampleLog(tmp_path)
    with suppress(KeyError), log:
        log.append(recent_examples(10))
        raise KeyError
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_failed_flush_leaves_no_file_and_keeps_the_examples(tmp_path: Path, recent_examples: Examples) -> None:
    log = ExampleLog(tmp_path)
    log.append(recent_examples(50, days=5))
    blocked = tmp_path / "day=2023-11-16"
    blocked.write_text("a file where a folder must be")
    with pytest.raises(OSError):
        log.flush()
    assert not list(tmp_path.rglob("*.parquet"))
    blocked.unlink()
    log.flush()
    assert len(whole(tmp_path)) == 50


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns(["user_id"]), "lack column 'user_id'"),
        (lambda t: t.drop_columns(["request_ts"]), "lack column 'request_ts'"),
        (lambda t: t.set_column(0, "user_id", pa.nulls(len(t), pa.int64())), "'user_id' has a null in row 0"),
        (lambda t: t.set_column(1, "request_ts", pa.array(["x"] * len(t))), "'request_ts' is string"),
        (lambda t: t.set_column(0, "user_id", pa.array([1.5] * len(t))), "'user_id' is double"),
        (lambda t: t.set_column(0, "user_id", pa.array([2**63] * len(t), pa.uint64())), "'user_id' does not fit int64"),
        (lambda t: t.append_column("user_id", t["user_id"]), "two columns 'user_id'"),
        (lambda t: t.append_column("row", t["row"]), "two columns 'row'"),
        (lambda t: t.set_column(2, "row", pa.array(["x"] * len(t))), "'row' was int64"),
        (lambda t: t.append_column("more", pa.array(range(len(t)))), "'more' was absent"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: object, words: str, recent_examples: Examples) -> None:
    log = ExampleLog(tmp_path)
    log.append(recent_examples(3))
    with pytest.raises(SchemaError, match=words):
        log.append(change(recent_examples(3)))  # type: ignore[operator]
    log.close()
    assert len(whole(tmp_path)) == 3


@pytest.mark.parametrize(
    "column",
    [
        pa.array([{}] * 3, pa.struct([])),
        pa.nulls(3, pa.month_day_nano_interval()),
        pc.run_end_encode(pa.array([1] * 3)),
        pa.UnionArray.from_sparse(pa.array([0] * 3, pa.int8()), [pa.array([1] * 3)]),
    ],
    ids=lambda column: str(column.type),
)
def test_what_parquet_cannot_hold_is_refused_before_it_is_kept(
    tmp_path: Path, column: pa.Array, recent_examples: Examples
) -> None:
    with ExampleLog(tmp_path) as log:
        with pytest.raises(SchemaError, match=r"column 'odd' of .* cannot be logged"):
            log.append(recent_examples(3, odd=column))
        log.append(recent_examples(3))
    assert len(whole(tmp_path)) == 3


def test_categories_of_polars_are_kept(tmp_path: Path, recent_examples: Examples) -> None:
    words = pa.array(["a", "b"], pa.string_view())
    category = pa.DictionaryArray.from_arrays(pa.array([1, None, 0], pa.uint32()), words)
    with ExampleLog(tmp_path) as log:
        log.append(recent_examples(3, category=category))
    assert by_row(whole(tmp_path))["category"].to_pylist() == ["b", None, "a"]


def test_any_flipped_byte_is_noticed_or_harmless(tmp_path: Path, recent_examples: Examples) -> None:
    examples = recent_examples(200, days=1)
    with ExampleLog(tmp_path) as log:
        log.append(examples)
    file = max(tmp_path.rglob("*.parquet"), key=lambda path: path.stat().st_size)
    data, expected = file.read_bytes(), whole(tmp_path)
    rng, noticed = np.random.default_rng(0), []
    for place in rng.integers(0, len(data), 60).tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            got = whole(tmp_path)
        except CorruptionError as error:
            got, message = expected, str(error)
            noticed.append(file.name in message)
        assert got.equals(expected)
    assert all(noticed)
    assert len(noticed) > 50


def test_a_cut_file_is_noticed(tmp_path: Path, recent_examples: Examples) -> None:
    with ExampleLog(tmp_path) as log:
        log.append(recent_examples(200, days=1))
    file = next(tmp_path.rglob("*.parquet"))
    data = file.read_bytes()
    for size in (4, 11, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        with pytest.raises(CorruptionError, match=file.name):
            whole(tmp_path)


def test_a_log_in_memory(recent_examples: Examples) -> None:
    with ExampleLog("memory://an-example-log") as log:
        log.append(recent_examples(30))
    assert sorted(whole("memory://an-example-log")["row"].to_pylist()) == list(range(30))


def test_thin_days_can_share_a_folder(tmp_path: Path, recent_examples: Examples) -> None:
    with ExampleLog(tmp_path, days=7) as log:
        log.append(recent_examples(200))
    files = list(tmp_path.rglob("*.parquet"))
    for file in files:
        first = datetime.fromisoformat(file.parts[-3].removeprefix("day=")).replace(tzinfo=UTC)
        days = [(ts - first).days for ts in pq.read_table(file, partitioning=None)["request_ts"].to_pylist()]
        assert set(days) <= set(range(7))
    assert len(whole(tmp_path)) == 200
    with pytest.raises(SchemaError, match="days=0"):
        ExampleLog(tmp_path, days=0)


def test_its_repr_says_what_waits(tmp_path: Path, recent_examples: Examples) -> None:
    log = ExampleLog(tmp_path)
    assert repr(log) == f"<ExampleLog {tmp_path}>"
    log.append(recent_examples(10))
    assert repr(log) == f"<ExampleLog {tmp_path}, 10 examples not written yet>"
    log.close()
    assert repr(log) == f"<ExampleLog {tmp_path}>"


def test_recents_may_gain_and_lose_traits_while_a_log_is_open(tmp_path: Path, recent_examples: Examples) -> None:
    """A server goes on logging through the night in which a trait is added or dropped; other columns stay."""
    before = recent_examples(40)
    recent = before["recent"].combine_chunks()
    fewer = pa.StructArray.from_arrays(recent.flatten()[:-1], fields=list(recent.type)[:-1])
    after = before.set_column(before.column_names.index("recent"), "recent", fewer)
    after = after.set_column(after.column_names.index("row"), "row", pa.array(range(40, 80)))
    with ExampleLog(tmp_path, bucket_count=2) as log:
        log.append(before)
        log.append(after)
        log.append(before.slice(0, 0))
        with pytest.raises(SchemaError, match="column 'row'"):
            log.append(after.set_column(after.column_names.index("row"), "row", pa.array(["?"] * 40)))
    logged = by_row(whole(tmp_path))
    assert logged["row"].to_pylist() == list(range(80))
    assert logged.slice(0, 40).equals(before.combine_chunks())
    name = recent.type[recent.type.num_fields - 1].name
    assert not any(value for lists in logged.slice(40)["recent"].to_pylist() for value in lists[name])


def test_a_column_may_be_called_as_a_leaf_of_the_pointer_is(tmp_path: Path, recent_examples: Examples) -> None:
    named = {"uih.length": pa.string(), "uih.start_ts": pa.string(), "recent.event_ts.list.element": pa.float64()}
    examples = recent_examples(50)
    for name, type_ in named.items():
        examples = examples.append_column(name, pa.array(map(str, range(len(examples)))).cast(type_))
    with ExampleLog(tmp_path / "log", days=10**5) as log:
        log.append(examples)
    read = open_examples(tmp_path / "log").take(np.arange(len(examples)))
    assert sorted(read["uih.length"].to_pylist()) == sorted(examples["uih.length"].to_pylist())
    assert set(read["recent.event_ts.list.element"].to_pylist()) == set(map(float, range(len(examples))))


@pytest.mark.parametrize(
    "end", ["", "log.close()", "del log", "import os\nif not os.fork():\n    sys.exit()\nos.wait()"]
)
def test_what_waits_is_written_once_as_its_process_ends(tmp_path: Path, end: str) -> None:
    code = f"""
import sys, pyarrow as pa
from latewood.examples import ExampleLog
log = ExampleLog({str(tmp_path / "log")!r})
log.append(pa.table({{"user_id": [1, 2], "request_ts": [5, 6]}}))
{end}
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
    [file] = (tmp_path / "log").rglob("*.parquet")
    assert pq.read_table(file)["request_ts"].cast(pa.int64()).to_pylist() == [5, 6]
