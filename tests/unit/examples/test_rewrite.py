"""Rewriting a log in place: whole files or nothing, and only those that change."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from latewood.errors import CorruptionError
from latewood.examples import ExampleLog, open_examples, rewrite_log
from latewood.examples.files import NoExamplesError
from latewood.storage.local import LocalStorage

Examples = Callable[..., pa.Table]


def renumber(table: pa.Table) -> tuple[pa.Table, int]:
    """Even numbers, and how many were not."""
    rows = table["row"].to_numpy()
    odd = int((rows % 2).sum())
    return (table.set_column(2, "row", pa.array(rows // 2 * 2)) if odd else table), odd


def logged(folder: Path, examples: pa.Table) -> list[Path]:
    with ExampleLog(folder, row_group_size=7) as log:
        log.append(examples)
    return sorted(folder.rglob("*.parquet"))


def test_files_keep_their_names_groups_and_columns(tmp_path: Path, recent_examples: Examples) -> None:
    files = logged(tmp_path, recent_examples(50))
    before = open_examples(tmp_path).take(np.arange(50))
    shapes = [pq.ParquetFile(path).schema for path in files]
    groups = open_examples(tmp_path).offsets.tolist()
    rewritten, told = rewrite_log(tmp_path, renumber)
    assert (rewritten, len(told), sum(told)) == ([str(path) for path in files], len(groups) - 1, 25)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == files
    assert [pq.ParquetFile(path).schema for path in files] == shapes
    assert open_examples(tmp_path).offsets.tolist() == groups
    after = open_examples(tmp_path).take(np.arange(50))
    assert after.drop_columns(["row"]).equals(before.drop_columns(["row"]))
    assert after["row"].to_pylist() == [row // 2 * 2 for row in before["row"].to_pylist()]
    assert rewrite_log(tmp_path, renumber) == ([], [0] * (len(groups) - 1))


def test_a_link_keeps_being_one(tmp_path: Path, recent_examples: Examples) -> None:
    [file, *_] = logged(tmp_path / "real", recent_examples(30))
    link = tmp_path / "link.parquet"
    link.symlink_to(file)
    rewrite_log(link, renumber)
    assert link.is_symlink()
    assert not (open_examples(link).column("row").to_numpy() % 2).any()


@pytest.mark.parametrize("remote", [False, True])
def test_what_another_rewriter_took_is_not_brought_back(
    tmp_path: Path, recent_examples: Examples, remote: bool
) -> None:
    place, asked = f"memory://{tmp_path.name}" if remote else str(tmp_path), list[int]()
    with ExampleLog(place) as log:
        log.append(recent_examples(30))

    def change_users(table: pa.Table) -> tuple[pa.Table, int]:
        if not asked:
            rewrite_log(place, renumber)
        asked.append(len(table))
        return table.set_column(0, "user_id", pa.array([77] * len(table))), len(table)

    files, told = rewrite_log(place, change_users)
    assert (len(files), sum(told)) == (len(open_examples(place).files), 30)
    assert sum(asked) > 30
    after = open_examples(place)
    assert not (after.column("row").to_numpy() % 2).any()
    assert set(after.column("user_id").to_pylist()) == {77}


def test_rewriters_replace_a_file_one_after_another(
    tmp_path: Path, recent_examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each had read the file before the other wrote it."""
    logged(tmp_path, recent_examples(30, days=1))
    write, both = LocalStorage.write, threading.Barrier(2)
    counts = [0, 0]

    def write_slowly(self: LocalStorage, key: str, data: pa.Buffer) -> None:
        time.sleep(0.1)
        write(self, key, data)

    def add(number: int) -> None:
        def change(table: pa.Table) -> tuple[pa.Table, None]:
            if not counts[number]:
                both.wait(30)
            counts[number] += 1
            rows = table["row"].to_numpy()
            return table.set_column(2, "row", pa.array(rows + 1000 * (number + 1))), None

        rewrite_log(tmp_path, change)

    monkeypatch.setattr(LocalStorage, "write", write_slowly)
    threads = [threading.Thread(target=add, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(open_examples(tmp_path).column("row").to_pylist()) == list(range(3000, 3030))


def test_a_log_in_memory(recent_examples: Examples) -> None:
    with ExampleLog("memory://rewritten") as log:
        log.append(recent_examples(30))
    assert rewrite_log("memory://rewritten", renumber)[0]
    assert not (open_examples("memory://rewritten").column("row").to_numpy() % 2).any()


def test_a_failure_leaves_whole_files(
    tmp_path: Path, recent_examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = logged(tmp_path, recent_examples(50))
    assert len(files) > 2
    contents = [path.read_bytes() for path in files]
    real, calls = LocalStorage.write, []

    def full(self: LocalStorage, key: str, data: pa.Buffer) -> None:
        calls.append(key)
        if len(calls) == 2:
            raise OSError(28, "no space left on device")
        real(self, key, data)

    monkeypatch.setattr(LocalStorage, "write", full)
    with pytest.raises(OSError, match="no space"):
        rewrite_log(tmp_path, renumber)
    changed = [path.read_bytes() != old for path, old in zip(files, contents, strict=True)]
    assert changed == [True] + [False] * (len(files) - 1)
    assert rewrite_log(tmp_path, renumber)[0] == [str(path) for path in files[1:]]


def test_damage_is_named_and_stays(tmp_path: Path, recent_examples: Examples) -> None:
    [file, *_] = logged(tmp_path, recent_examples(50))
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF  # inside a page
    file.write_bytes(data)
    with pytest.raises(CorruptionError, match="row group 0"):
        rewrite_log(file, renumber)
    assert file.read_bytes() == data


def test_no_examples(tmp_path: Path) -> None:
    with pytest.raises(NoExamplesError):
        rewrite_log(tmp_path, renumber)
