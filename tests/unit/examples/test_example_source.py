"""Examples by row, wherever they lie."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from latewood.errors import ConflictError, CorruptionError, SchemaError
from latewood.examples import ExampleLog, ExampleSource, open_examples


@pytest.fixture(scope="session")
def table(recent_examples: Callable[..., pa.Table]) -> pa.Table:
    return recent_examples(100)


@pytest.fixture
def folder(tmp_path: Path, table: pa.Table) -> Path:
    """Three files of 40, 40 and 20 rows, in row groups of 15, beside what is not data."""
    for i in range(3):
        pq.write_table(table.slice(40 * i, 40), tmp_path / f"part-{i}.parquet", row_group_size=15)
    (tmp_path / "_started.parquet").write_text("unfinished")
    (tmp_path / "README").write_text("text")
    return tmp_path


def sources(folder: Path, table: pa.Table) -> dict[str, object]:
    feather.write_feather(table, folder / "table.arrow")
    return {
        "folder": folder,
        "string": str(folder),
        "glob": f"{folder}/part-*.parquet",
        "globs": [str(folder / "part-[01].parquet"), folder / "part-2.parquet"],
        "uri": f"file://{folder}",
        "dataset": ds.dataset(sorted(folder.glob("part*"))),
        "ipc dataset": ds.dataset(table),
        "arrow file": folder / "table.arrow",
        "table": table,
        "batches": table.to_batches(30),
        "stream": pa.RecordBatchReader.from_batches(table.schema, table.to_batches(30)),
    }


def test_all_kinds_of_places_hold_the_same_examples(folder: Path, table: pa.Table) -> None:
    rows = np.random.default_rng(0).integers(0, 100, 250)
    for kind, place in sources(folder, table).items():
        source = open_examples(place)
        assert len(source) == 100, kind
        assert source.take(rows).equals(table.take(rows).combine_chunks()), kind
        assert source.column("row").to_pylist() == list(range(100)), kind


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_take_gives_any_rows_in_any_order(folder: Path, cache_bytes: int, table: pa.Table) -> None:
    source = open_examples(folder, cache_bytes=cache_bytes)
    assert source.offsets.tolist() == [0, 15, 30, 40, 55, 70, 80, 95, 100]
    for rows in ([], [99], [0, 99, 50], [14, 15, 16], [5, 5, 5], list(range(100)), list(range(99, -1, -1)), [0, 14]):
        taken = source.take(np.array(rows, np.int64))
        assert taken.equals(table.take(pa.array(rows, pa.int64())).combine_chunks())
        assert all(column.num_chunks <= 1 for column in taken.columns)


def test_groups_are_read_once_while_there_is_room(folder: Path) -> None:
    source = open_examples(folder)
    source.take(np.arange(100))
    size = source.bytes_read
    assert size > 0
    source.take(np.arange(100))
    assert source.bytes_read == size


def test_columns_that_are_not_needed_are_not_read(folder: Path, table: pa.Table) -> None:
    full, part = open_examples(folder), open_examples(folder, without=["recent.price", "recent.action", "row", "none"])
    for source in (full, part):
        source.take(np.arange(100))
    assert part.bytes_read < full.bytes_read
    assert [field.name for field in part.schema.field("recent").type] == ["event_ts", "ingest_ts", "ordinal", "item_id"]
    assert "row" not in part.schema.names
    in_memory = open_examples(table, without=["recent.price", "recent.action", "row"])
    assert in_memory.take(np.arange(100)).equals(part.take(np.arange(100)))


@pytest.mark.parametrize("kept", ["price.net", "price.list", "price"])
def test_names_with_dots_are_told_apart(tmp_path: Path, table: pa.Table, kept: str) -> None:
    recent = table["recent"].combine_chunks()
    lists = [*recent.flatten(), recent.field("item_id"), recent.field("item_id")]
    names = [*(field.name for field in recent.type), "price.net", "price.list"]
    dotted = pa.StructArray.from_arrays(lists, names=names)
    table = table.set_column(table.column_names.index("recent"), "recent", dotted)
    pq.write_table(table, tmp_path / "a.parquet")
    without = [f"recent.{name}" for name in names if name.startswith("price") and name != kept]
    whole = open_examples(tmp_path, without=without).take(np.arange(100))["recent"].combine_chunks()
    assert [name for name in names if name not in (field.name for field in whole.type)] == [n[7:] for n in without]
    assert whole.field(kept).equals(dotted.field(kept))


def test_a_trait_that_came_later_is_null_in_earlier_recents(folder: Path, table: pa.Table) -> None:
    early = open_examples(table, without=["recent.price", "row"]).take(np.arange(100))
    pq.write_table(early, folder / "early.parquet")
    source = open_examples([folder / "early.parquet", folder / "part-0.parquet"])
    prices = source.take(np.arange(140))["recent"].combine_chunks().field("price")
    assert prices.null_count == 0
    assert pc.list_value_length(prices[:100]).equals(
        pc.list_value_length(table["recent"].combine_chunks().field("price"))
    )
    assert prices[:100].flatten().null_count == len(prices[:100].flatten())
    assert prices[100:].flatten().null_count == 0
    assert source.column("row").to_pylist() == [None] * 100 + list(range(40))


@pytest.mark.parametrize("is_large", [(True, True), (True, False), (False, True)])
def test_a_trait_that_came_later_is_null_in_earlier_recents_with_large_lists(
    tmp_path: Path, table: pa.Table, is_large: tuple[bool, bool]
) -> None:
    files = [open_examples(table, without=["recent.price"]).take(np.arange(100)), table]
    for i, (file, large) in enumerate(zip(files, is_large, strict=True)):
        pq.write_table(with_large_lists(file) if large else file, tmp_path / f"{i}.parquet")
    recent = open_examples(tmp_path).take(np.arange(200))["recent"].combine_chunks()
    price, events = recent.field("price"), len(recent.field("item_id").flatten())
    assert price.null_count == 0
    assert pc.list_value_length(price).to_pylist() == pc.list_value_length(recent.field("item_id")).to_pylist()
    assert price.flatten().null_count == events // 2


def with_large_lists(table: pa.Table) -> pa.Table:
    type_ = table.schema.field("recent").type
    large = pa.struct([(field.name, pa.large_list(field.type.value_type)) for field in type_])
    place = table.column_names.index("recent")
    return table.set_column(place, "recent", table["recent"].cast(large))


def test_tables_that_were_made_at_different_times(table: pa.Table) -> None:
    earlier = open_examples(table, without=["recent.price"]).take(np.arange(100))
    later = table.append_column("label", pa.array(range(100), pa.int32()))
    source = open_examples([earlier, later])
    assert source.column("label").to_pylist() == [None] * 100 + list(range(100))
    recent = source.take(np.arange(100, 200))["recent"].combine_chunks()
    assert recent.field("price").equals(later["recent"].combine_chunks().field("price"))
    with pytest.raises(SchemaError, match=r"table 1 does not fit what comes before it: .*label"):
        open_examples([later, table.append_column("label", pa.array(["a"] * 100))])


@pytest.mark.parametrize("known", [pa.array([{"a": 1}] * 100), pa.array([[1]] * 100), pa.array(["a"] * 100)])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_column_of_nothing_but_nulls_is_of_any_type(
    tmp_path: Path, table: pa.Table, known: pa.Array, is_first: bool
) -> None:
    for i, column in enumerate([pa.nulls(100), known] if is_first else [known, pa.nulls(100)]):
        pq.write_table(table.append_column("context", column), tmp_path / f"{i}.parquet")
    assert open_examples(tmp_path).column("context").drop_null().equals(known)


def test_text_of_one_kind_and_another(tmp_path: Path, table: pa.Table) -> None:
    text = pa.array(["a"] * 100)
    pq.write_table(table.append_column("text", text), tmp_path / "0.parquet")
    pq.write_table(table.append_column("text", text.cast(pa.string_view())), tmp_path / "1.parquet")
    assert open_examples(tmp_path).column("text").to_pylist() == ["a"] * 200


def test_values_that_no_common_type_holds_are_refused(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table.append_column("label", pa.array([2**60 + 1] * 100)), tmp_path / "0.parquet")
    pq.write_table(table.append_column("label", pa.array([0.5] * 100)), tmp_path / "1.parquet")
    with pytest.raises(SchemaError, match="column 'label' does not fit double"):
        open_examples(tmp_path).read(0)


def test_places_that_recents_supersede_are_none_in_earlier_files(tmp_path: Path, table: pa.Table) -> None:
    """They are a list beside the traits, but not one of as many elements."""
    recent = table["recent"].combine_chunks()
    place = pa.array([[{"event_ts": 1, "ingest_ts": 2, "ordinal": 0}]] * len(table))
    fields = [*recent.flatten(), place]
    later = pa.StructArray.from_arrays(fields, names=[*(field.name for field in recent.type), "supersedes"])
    pq.write_table(table.slice(40), tmp_path / "a.parquet")
    pq.write_table(table.set_column(table.column_names.index("recent"), "recent", later), tmp_path / "b.parquet")
    found = open_examples(tmp_path).take(np.arange(160))["recent"].combine_chunks().field("supersedes")
    assert pc.list_value_length(found).to_pylist() == [0] * 60 + [1] * 100


def test_files_that_do_not_fit_together_are_named(folder: Path, table: pa.Table) -> None:
    other = table.set_column(2, "row", pa.array([["list"]] * 100))
    pq.write_table(other, folder / "part-9.parquet")
    with pytest.raises(SchemaError, match=r"part-9\.parquet does not fit"):
        open_examples(folder)


def test_errors_name_the_place(folder: Path, table: pa.Table) -> None:
    (folder / "text.parquet").write_text("this is no Parquet file at all")
    with pytest.raises(SchemaError, match=r"text\.parquet is not a Parquet file"):
        open_examples(folder / "text.parquet")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_examples(folder / "nowhere.parquet")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        open_examples(f"{folder}/nowhere/*.parquet")
    for missing in ("nowhere.parquet", "nowhere.arrow"):
        with pytest.raises(SchemaError, match=f"of examples at .*{missing}") as caught:
            open_examples(folder / missing)
        assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(SchemaError, match="not <class 'int'>"):
        open_examples(5)
    with pytest.raises(SchemaError, match="part-0"):
        open_examples(folder / "part-0.parquet").require(["absent"])
    with pytest.raises(SchemaError, match="absent"):
        open_examples(table).column("absent")


def test_arrow_files_that_are_none_are_refused_by_name(tmp_path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    (tmp_path / "text.arrow").write_text("text")
    for name in ("stream.arrow", "text.arrow"):
        with pytest.raises(CorruptionError, match=f"{name} cannot be read"):
            open_examples(tmp_path / name)


def test_arrow_files_whose_lists_lie_anywhere_are_refused_by_name(tmp_path: Path) -> None:
    where, offsets = tmp_path / "lists.arrow", np.array([0, 2, 3, 6], np.int32).tobytes()
    feather.write_feather(pa.table({"tags": [[1, 2], [3], [4, 5, 6]]}), where, compression="uncompressed")
    data = where.read_bytes()
    assert data.count(offsets) == 1
    for wrong in ([0, 5, 2, 6], [0, 2, 3, 2**20]):
        where.write_bytes(data.replace(offsets, np.array(wrong, np.int32).tobytes()))
        with pytest.raises(CorruptionError, match=r"lists\.arrow cannot be read"):
            open_examples(where)


def test_a_filtered_or_partitioned_dataset_keeps_its_meaning(folder: Path, table: pa.Table) -> None:
    files = sorted(map(str, folder.glob("part*")))
    filtered = open_examples(ds.dataset(files).filter(pc.field("row") < 10))
    assert filtered.column("row").to_pylist() == list(range(10))
    ds.write_dataset(table, folder / "by_user", format="parquet", partitioning=["user_id"], partitioning_flavor="hive")
    partitioned = open_examples(ds.dataset(folder / "by_user", partitioning="hive"))
    assert "user_id" in partitioned.schema.names
    assert len(partitioned) == 100


def fingerprint(place: object) -> str:
    source = open_examples(place)
    assert isinstance(source, ExampleSource)
    return source.fingerprint


def test_fingerprints_tell_examples_apart_and_survive_a_move(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, table: pa.Table
) -> None:
    before = fingerprint(folder)
    moved = tmp_path_factory.mktemp("moved") / "there"
    folder.rename(moved)
    assert fingerprint(moved) == before
    pq.write_table(table.slice(80), moved / "part-2.parquet", row_group_size=5)
    assert fingerprint(moved) != before
    assert fingerprint(table) == fingerprint(pa.concat_tables([table.slice(0, 30), table.slice(30)]))
    assert fingerprint(table) != fingerprint(table.slice(1))
    assert fingerprint(table) != fingerprint(table.take(list(range(99, -1, -1))))


def test_a_file_that_is_replaced_while_it_is_read_is_noticed(
    folder: Path, table: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latewood.examples.source._OPEN_FILES", 1)
    source = open_examples(folder, cache_bytes=0)
    rewritten = table.slice(40, 40).set_column(2, "row", pa.array(np.arange(40)))
    pq.write_table(rewritten, folder / "part-1.parquet", row_group_size=15)
    assert source.take(np.arange(40, 80))["row"].to_pylist() == list(range(40))  # the same requests
    source.take(np.arange(40))
    for others in (table, table.slice(0, 40), table.slice(40, 39)):
        pq.write_table(others, folder / "part-1.parquet", row_group_size=15)
        with pytest.raises(ConflictError, match=r"part-1\.parquet was replaced by other examples"):
            source.take(np.arange(40, 80))


def test_no_examples(tmp_path: Path, table: pa.Table) -> None:
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    for place in (table.slice(0, 0), tmp_path):
        source = open_examples(place)
        assert len(source) == 0
        assert source.take(np.arange(0)).schema.names == table.schema.names
        assert len(source.column("row")) == 0
    with pytest.raises(SchemaError, match="an empty list"):
        open_examples([])


def test_features_of_any_type_survive_the_log(tmp_path: Path) -> None:
    n = 40
    features = {
        "category": pa.array([f"c{i % 7}" if i % 5 else None for i in range(n)]).dictionary_encode(),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(4 * n, dtype=np.float32)), 4),
        "candidates": pa.array(
            [[{"id": j, "title": "x" * j} for j in range(i % 3)] if i % 4 else None for i in range(n)]
        ),
        "nothing": pa.nulls(n),
        "weights": pa.array([[("k", i)] for i in range(n)], pa.map_(pa.string(), pa.int64())),
        "views": pa.array([["a", None]] * n, pa.list_(pa.string_view())),
        "bytes": pa.array([b"x" * (i % 4) for i in range(n)], pa.large_binary()),
    }
    keys = {"user_id": np.arange(n) % 3, "request_ts": np.arange(n) * 10**10, "row": np.arange(n)}
    table = pa.table(keys | features)
    with ExampleLog(tmp_path, row_group_size=7) as log:
        log.append(table)
    rows, expected = np.random.default_rng(0).permutation(n), table.to_pylist()
    for place in (tmp_path, table):
        taken = open_examples(place).take(rows).to_pylist()
        assert sorted(row["row"] for row in taken) == list(range(n))
        assert all(row == expected[row["row"]] for row in taken)
