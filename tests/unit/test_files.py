"""Files of tables: what names a file, in which order they are read, and what an unreadable one is called."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

import latewood.files as files
from latewood.errors import SchemaError
from latewood.files import expand, format_of, open_fragments, read_files, read_rows, rows_at_once

TABLE = pa.table({"n": [1, 2, 3], "s": ["a", None, "ü"]})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.parquet", "deep/c.parquet", "_temporary/d.parquet", ".hidden.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        pq.write_table(TABLE, tmp_path / name)
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / "readme.txt").write_text("not data")
    return tmp_path


def names(paths: list[str], folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in paths]


def test_a_folder_is_its_data_files_sorted_without_hidden_ones(folder: Path) -> None:
    assert names(expand(folder), folder) == ["a.parquet", "b.parquet", "deep/c.parquet"]


def test_globs_and_lists_name_a_file_once(folder: Path) -> None:
    assert names(expand(str(folder / "*.parquet")), folder) == ["a.parquet", "b.parquet"]
    assert names(expand(str(folder / "**/c.parquet")), folder) == ["deep/c.parquet"]
    assert names(expand([folder / "b.parquet", str(folder / "*.parquet")]), folder) == ["b.parquet", "a.parquet"]


def test_a_file_may_have_a_globs_marks_in_its_name(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "day[1].parquet")
    assert names(expand(tmp_path / "day[1].parquet"), tmp_path) == ["day[1].parquet"]


@pytest.mark.parametrize("name", ["absent.parquet", "absent/*.parquet", "empty"])
def test_what_names_nothing_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(SchemaError, match=name.replace("*", r"\*")):
        expand(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.parquet", "parquet"),
        ("A.PARQUET", "parquet"),
        ("a.csv", "csv"),
        ("a.csv.gz", "csv"),
        ("a.b.feather", "ipc"),
        ("a.parquet.gz", None),
        ("a.txt", None),
        ("a", None),
    ],
)
def test_the_name_tells_the_format(name: str, expected: str | None) -> None:
    assert format_of(name) == expected


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    feather.write_feather(TABLE, str(tmp_path / "t.feather"))
    filled = TABLE.set_column(1, "s", pa.array(["a", "b", "ü"]))
    csv.write_csv(filled, tmp_path / "t.csv")
    with gzip.open(tmp_path / "z.csv.gz", "wb") as file:
        csv.write_csv(filled, file)
    for name, expected in {"t.parquet": TABLE, "t.feather": TABLE, "t.csv": filled, "z.csv.gz": filled}.items():
        assert [rows.table for rows in read_files(tmp_path / name)] == [expected], name


def test_rows_know_their_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "ROWS_AT_ONCE", 2)
    places = [(Path(rows.path).name, rows.first, len(rows.table)) for rows in read_files(folder)]
    assert places == [
        (name, first, n) for name in ("a.parquet", "b.parquet", "c.parquet") for first, n in ((0, 2), (2, 1))
    ]


def test_rows_with_lists_are_read_fewer_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = pa.schema([("n", pa.int64()), ("s", pa.string())])
    assert rows_at_once(plain) == files.ROWS_AT_ONCE
    assert rows_at_once(plain.append(pa.field("pair", pa.list_(pa.int8(), 2)))) == files.ROWS_AT_ONCE
    wide = plain.append(pa.field("vector", pa.list_(pa.float32(), 768)))
    assert rows_at_once(wide) == files.ITEMS_AT_ONCE // 768
    assert rows_at_once(wide.append(pa.field("tags", pa.large_list(pa.string())))) < files.ITEMS_AT_ONCE // 768
    assert rows_at_once(pa.schema([("huge", pa.list_(pa.int8(), 2**25))])) == 1
    monkeypatch.setattr(files, "ITEMS_AT_ONCE", 4)
    pq.write_table(pa.table({"pair": pa.array([[1, 2]] * 5, pa.list_(pa.int8(), 2))}), tmp_path / "t.parquet")
    assert [(rows.first, len(rows.table)) for rows in read_files(tmp_path / "t.parquet")] == [(0, 2), (2, 2), (4, 1)]


def test_types_of_csv_columns_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,x\n007,1\n")
    (fragment,) = open_fragments(str(tmp_path / "t.csv"), {"id": pa.string(), "x": pa.float64()})
    assert [rows.table.to_pylist() for rows in read_rows(fragment)] == [[{"id": "007", "x": 1.0}]]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    pq.write_table(TABLE, tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "not.arrow").write_bytes(whole)
    (tmp_path / "t.xlsx").write_bytes(whole)
    for name in ("cut.parquet", "not.arrow", "t.xlsx"):
        with pytest.raises(SchemaError, match=name):
            list(read_files(tmp_path / name))


def test_a_bad_value_in_a_csv_file_is_named_with_its_row(tmp_path: Path) -> None:
    lines = "".join(f"{i},{i}\n" for i in range(200_000))  # past what types are guessed from
    (tmp_path / "t.csv").write_text(f"a,b\n{lines}7,seven\n")
    with pytest.raises(SchemaError, match=r"t\.csv: .*#200002.*'seven'"):
        list(read_files(tmp_path / "t.csv"))


def test_page_checksums_are_verified_where_a_file_has_them(tmp_path: Path) -> None:
    table = pa.table({"n": pa.array(range(1000), pa.int64())})
    pq.write_table(table, tmp_path / "t.parquet", write_page_checksum=True, compression="none", use_dictionary=False)
    data = bytearray((tmp_path / "t.parquet").read_bytes())
    data[2000] ^= 1
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(SchemaError, match=r"t\.parquet: cannot be read"):
        list(read_files(tmp_path / "t.parquet"))


def test_what_the_disk_says_stays_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_fragments(str(tmp_path / "gone.parquet"))
