"""Examples as a file of Fat Rows: the same histories, in the examples' order, whatever may be null."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.testing import ManualClock, different_rows
from moments import START

SECOND = 1_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("word", pa.string())]))


@pytest.fixture
def made(tmp_path: Path) -> tuple[lw.Store, pa.Table]:
    """A store, and 700 examples of it: of the last one the history has nulls, of the first it has none."""
    clock, rng = ManualClock(START), np.random.default_rng(3)
    store = lw.Store.create(tmp_path / "store", SCHEMA, clock=clock)
    tables = []
    for step in range(7):
        now = clock.advance(SECOND)
        words: list[Any] = [f"w{i}" if step < 6 else None for i in range(20)]
        store.append({"user_id": [1, 2] * 10, "event_ts": [now] * 20, "item": rng.integers(0, 9, 20), "word": words})
        if step % 3 == 2:
            store.compact()
        requests = {"user_id": rng.integers(0, 3, 100), "request_ts": [now + 1] * 100, "label": rng.random(100)}
        tables.append(store.capture(requests).columns)
    return store, pa.concat_tables(tables)


def test_the_file_holds_what_is_materialized(made: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    store, examples = made
    for projection in (lw.Projection(), lw.Projection(max_len=7, traits=["word"]), lw.Projection(max_len=0)):
        done = lw.export_fat_rows(store, examples, projection, tmp_path / "fat.parquet", overwrite=True)
        batch = lw.Materializer(store, projection)(examples)
        expected = batch.to_arrow()
        found = pq.read_table(tmp_path / "fat.parquet")
        assert not len(different_rows(found.cast(expected.schema), expected))
        assert (done.rows, done.events, done.left_out) == (700, int(batch.offsets[-1]), 0)
        assert len(lw.FatRows(tmp_path / "fat.parquet")) == 700
    assert done.size_bytes == (tmp_path / "fat.parquet").stat().st_size


def test_examples_come_from_files_too(made: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    store, examples = made
    with lw.ExampleLog(tmp_path / "log") as log:
        log.append(examples)
    told: list[tuple[int, int]] = []
    done = lw.export_fat_rows(
        store, tmp_path / "log", lw.Projection(), tmp_path / "fat.parquet", progress=lambda *at: told.append(at)
    )
    assert (done.rows, told[-1]) == (700, (700, 700))


def test_without_examples_there_are_no_rows(made: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    store, examples = made
    done = lw.export_fat_rows(store, examples.slice(0, 0), lw.Projection(), tmp_path / "fat.parquet")
    assert (done.rows, done.events) == (0, 0)


def test_an_example_without_its_events_stops_it_or_is_left_out(made: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    store, examples = made
    columns = {
        field.name: values for field, values in zip(examples.schema.field("uih").type, _fields(examples), strict=True)
    }
    length = columns["length"].to_numpy().copy()
    length[650] += 5
    columns["length"] = pa.array(length)
    uih = pa.StructArray.from_arrays(list(columns.values()), fields=list(examples.schema.field("uih").type))
    broken = examples.set_column(examples.column_names.index("uih"), examples.schema.field("uih"), uih)
    out = tmp_path / "fat.parquet"
    with pytest.raises(lw.LatewoodError):
        lw.export_fat_rows(store, broken, lw.Projection(), out)
    assert not list(tmp_path.glob("*fat*"))
    done = lw.export_fat_rows(store, broken, lw.Projection(), out, on_missing="leave out")
    assert (done.rows, done.left_out) == (699, 1)


def _fields(examples: pa.Table) -> list[pa.Array]:
    fields: list[pa.Array] = examples["uih"].combine_chunks().flatten()
    return fields


def test_mistakes(made: tuple[lw.Store, pa.Table], tmp_path: Path) -> None:
    store, examples = made
    (tmp_path / "mine").write_bytes(b"")
    with pytest.raises(lw.ConflictError, match="exists"):
        lw.export_fat_rows(store, examples, lw.Projection(), tmp_path / "mine")
    with pytest.raises(lw.SchemaError, match="unknown trait"):
        lw.export_fat_rows(store, examples, lw.Projection(traits=["nothing"]), tmp_path / "fat.parquet")
    with pytest.raises(lw.SchemaError, match="leave out"):
        lw.export_fat_rows(store, examples, lw.Projection(), tmp_path / "fat.parquet", on_missing="mask")  # type: ignore[arg-type]
