"""Fat Rows: what is written comes back, only what is asked for is read."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latewood.batch import Batch
from latewood.errors import CorruptionError, SchemaError
from latewood.examples import FatRows, FatRowWriter, write_fat_rows

TIME = pa.timestamp("us", "UTC")


def rows(count: int, *, nulls: bool = False, start: int = 0) -> pa.Table:
    """Rows whose history grows with their number."""
    lengths = [(start + i) % 5 for i in range(count)]
    histories = [
        {
            "event_ts": [10 * j for j in range(n)],
            "item_id": [2**40 + j for j in range(n)],
            "level": list(range(n)),
            "like": [j % 2 == 0 for j in range(n)],
            "score": [None if nulls and j == 1 else float("nan") if j == 2 else j / 3 for j in range(n)],
            "action": ["aé"[j % 2] for j in range(n)],
        }
        for n in lengths
    ]
    types = [("event_ts", TIME), ("item_id", pa.int64()), ("level", pa.int8())]
    types += [("like", pa.bool_()), ("score", pa.float32()), ("action", pa.string())]
    type_ = pa.struct([(name, pa.list_(value)) for name, value in types])
    ids = pa.array(range(start, start + count), pa.int64())
    return pa.table({"user_id": ids, "level": ids, "history": pa.array(histories, type_)})


def joined(batches: list[Batch]) -> pa.Table:
    return pa.concat_tables([batch.to_arrow() for batch in batches]).combine_chunks()


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_what_is_written_comes_back(tmp_path: Path, nulls: bool, batch_size: int) -> None:
    parts = [rows(13, nulls=nulls), rows(6, nulls=nulls, start=13), rows(0), rows(21, nulls=nulls, start=19)]
    fat = write_fat_rows(tmp_path / "fat.parquet", parts, row_group_size=10)
    assert (len(fat), fat.traits) == (40, ["event_ts", "item_id", "level", "like", "score", "action"])
    batches = list(fat.batches(batch_size))
    assert [len(batch) for batch in batches] == [min(batch_size, 40 - i) for i in range(0, 40, batch_size)]
    expected = rows(40, nulls=nulls)
    got = joined(batches)
    assert got.schema == expected.schema
    for name in expected.column_names[:2]:
        assert got[name].equals(expected[name])
    # NaN differs from itself, so values are compared as text
    assert str(got["history"].to_pylist()) == str(expected["history"].to_pylist())


def test_columns_are_what_numpy_wants(tmp_path: Path) -> None:
    (batch,) = write_fat_rows(tmp_path / "fat.parquet", [rows(5, nulls=True)]).batches()
    dtypes = {name: values.dtype.name for name, values in batch.values.items()}
    assert dtypes == {
        "event_ts": "int64", "item_id": "int64", "level": "int8", "like": "bool", "score": "float32", "action": "int32"
    }  # fmt: skip
    assert batch.offsets.tolist() == [0, 0, 1, 3, 6, 10]
    assert list(batch.masks) == ["score"]
    assert batch.masks["score"].sum() == 3
    assert batch.dictionaries["action"].take(pa.array(batch.values["action"]))[:3].to_pylist() == ["a", "a", "é"]


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    fat = write_fat_rows(tmp_path / "fat.parquet", [rows(2000)])
    (batch, *_) = fat.batches(traits=["level", "event_ts"], features=["level"])
    assert list(batch.values) == ["level", "event_ts"]
    assert batch.features.column_names == ["level"]
    first = fat.bytes_read
    assert 0 < first < fat.size_bytes
    for _ in fat.batches(traits=["level"], features=[]):
        pass
    narrow = fat.bytes_read - first
    for _ in fat.batches():
        pass
    assert narrow < fat.bytes_read - first - narrow
    assert [batch.lengths.sum() for batch in fat.batches(1000, traits=[], features=[])] == [2000, 2000]


def test_an_unknown_column_is_named(tmp_path: Path) -> None:
    fat = write_fat_rows(tmp_path / "fat.parquet", [rows(3)])
    with pytest.raises(SchemaError, match="no trait 'prize'"):
        fat.batches(traits=["prize"])
    with pytest.raises(SchemaError, match="no feature 'history'"):
        fat.batches(features=["history"])


def test_a_null_that_comes_late_is_refused_unless_foretold(tmp_path: Path) -> None:
    parts = [rows(5), rows(5, nulls=True)]
    with pytest.raises(SchemaError, match="'score' has a null"):
        write_fat_rows(tmp_path / "fat.parquet", parts)
    assert not list(tmp_path.iterdir())
    fat = write_fat_rows(tmp_path / "fat.parquet", parts, nullable=["score"])
    assert sum(int(batch.masks["score"].sum()) for batch in fat.batches()) == 3


def test_rows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fat.parquet"
    with pytest.raises(SchemaError, match="lack a struct column 'history'"):
        write_fat_rows(path, [pa.table({"user_id": [1]})])
    with pytest.raises(SchemaError, match="no rows"):
        write_fat_rows(path, [])
    with pytest.raises(SchemaError, match="columns of this file"):
        write_fat_rows(path, [rows(2), rows(2).drop_columns(["level"])])
    assert not list(tmp_path.iterdir())
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(SchemaError, match="holds no Fat Rows"):
        FatRows(path)


def histories_of(**lists: list[list[int] | None]) -> pa.Table:
    return pa.table({"history": pa.StructArray.from_arrays([pa.array(x) for x in lists.values()], names=list(lists))})


def test_lists_of_a_row_that_differ_in_length_are_damage(tmp_path: Path) -> None:
    fat = write_fat_rows(tmp_path / "fat.parquet", [histories_of(a=[[1, 2], [3]], b=[[1], [2, 3]])])
    with pytest.raises(CorruptionError, match="the lists of 'b' are not as long as the others"):
        list(fat.batches())


def test_a_row_without_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match=r"field 'a' .* has nulls"):
        write_fat_rows(tmp_path / "fat.parquet", [histories_of(a=[[1], None])])


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "fat.parquet"
    with FatRowWriter(path, row_group_size=1) as writer:
        writer.write(rows(5))
        assert not path.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["fat.parquet"]


def test_lists_are_stored_without_needless_levels(tmp_path: Path) -> None:
    path = tmp_path / "fat.parquet"
    write_fat_rows(path, [rows(5)])
    schema = pq.ParquetFile(path).schema
    levels = {schema.column(i).path: schema.column(i).max_definition_level for i in range(len(schema.names))}
    assert {level for name, level in levels.items() if name.startswith("history")} == {1}


def test_batches_of_a_loader_can_be_written(tmp_path: Path) -> None:
    (batch,) = write_fat_rows(tmp_path / "a.parquet", [rows(9)]).batches()
    (again,) = write_fat_rows(tmp_path / "b.parquet", [batch]).batches()
    assert np.array_equal(batch.values["item_id"], again.values["item_id"])
    assert batch.features.equals(again.features)
