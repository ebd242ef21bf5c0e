"""Sealing: what is rewritten and what is left, in tables and in logs. That nothing else changes is a property test."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.examples import open_examples
from latewood.schema import TIME_TYPE
from latewood.sealing import SealReport, forget_recents, purge_log, seal_with_report
from latewood.testing import ManualClock, different_rows

START = 1_700_000_000_000_000
SECOND = 1_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("word", pa.string())]))
VIEW = lw.Projection()


def events(users: list[int], seconds: list[int], **columns: Any) -> pa.Table:
    table = {
        "user_id": users,
        "event_ts": pa.array([START + s * SECOND for s in seconds], TIME_TYPE),
        "item": seconds,
        "word": [f"word of {user}" for user in users],
    }
    return pa.table(table | columns)


@pytest.fixture
def store(store_path: Path, clock: ManualClock) -> lw.Store:
    """Users 0, 1 and 2, of whom 0 and 1 have recent events; the first event of 0 was deleted lately."""
    store = lw.Store.create(store_path, SCHEMA, shards=2, clock=clock)
    clock.set(START + 60 * SECOND)
    receipt = store.append(events([0, 1, 2] * 5, list(range(15))))
    store.compact()
    store.append(events([0, 1, 1], [50, 51, 3]))
    place = {"event_ts": START, "ingest_ts": int(receipt.ingest_ts[0]), "ordinal": 0}
    store.append(pa.table({"user_id": [0], "supersedes": [place]}))
    return store


@pytest.fixture
def examples(store: lw.Store) -> pa.Table:
    return capture(store, [0, 1, 2, 9])


def capture(store: lw.Store, users: list[int], second: int = 60) -> pa.Table:
    times = pa.array([START + second * SECOND] * len(users), TIME_TYPE)
    return store.capture(pa.table({"user_id": users, "request_ts": times, "label": users})).columns


def batch(store: lw.Store, examples: pa.Table, **options: Any) -> pa.Table:
    return lw.Materializer(store, VIEW, **options)(examples).to_arrow()


def recents(examples: pa.Table) -> list[int]:
    return [len(row["event_ts"]) + len(row["supersedes"]) for row in examples["recent"].to_pylist()]


def test_what_a_generation_holds_becomes_a_pointer(store: lw.Store, examples: pa.Table) -> None:
    before = batch(store, examples)
    assert recents(examples) == [2, 2, 0, 0]
    store.compact()
    sealed, report = seal_with_report(store, examples)
    assert report == SealReport(sealed=2, already=2)
    assert sealed.schema == examples.schema
    assert recents(sealed) == [0, 0, 0, 0]
    cutoff = examples["cutoff"][0].as_py()
    old, new = examples["uih"].to_pylist(), sealed["uih"].to_pylist()
    assert [(row["watermark"], row["length"]) for row in new[:2]] == [(cutoff, 5), (cutoff, 7)]
    assert new[2:] == old[2:]
    assert different_rows(batch(store, sealed), before).tolist() == []
    assert lw.seal(store, examples).equals(sealed)
    assert lw.seal(store, sealed) is sealed


def test_what_no_generation_holds_yet_waits(store: lw.Store, examples: pa.Table, clock: ManualClock) -> None:
    assert seal_with_report(store, examples) == (examples, SealReport(already=2, not_covered=2))
    store.compact()
    clock.set(START + 100 * SECOND)
    store.append(events([2], [90]))
    both = pa.concat_tables([capture(store, [2], 100), examples])
    sealed, report = seal_with_report(store, both)
    assert report == SealReport(sealed=2, already=2, not_covered=1)
    assert recents(sealed) == [1, 0, 0, 0, 0]


def test_a_store_opened_before_the_compaction_seals_too(store: lw.Store, store_path: Path, examples: pa.Table) -> None:
    other = lw.Store.open(store_path, read_only=True)
    assert other.generation.id == 1
    store.compact(keep=1)
    assert seal_with_report(other, examples)[1].sealed == 2


@pytest.mark.parametrize("change", [{"checksum": 5}, {"length": 4}, {"length": 6}])
def test_what_does_not_add_up_is_left_alone(store: lw.Store, examples: pa.Table, change: dict[str, int]) -> None:
    store.compact()
    rows = examples["uih"].to_pylist()
    rows[0] |= change
    broken = examples.set_column(examples.column_names.index("uih"), "uih", pa.array(rows, examples["uih"].type))
    sealed, report = seal_with_report(store, broken)
    assert report == SealReport(sealed=1, already=2, refused=1)
    assert recents(sealed) == [2, 0, 0, 0]
    assert sealed["uih"][0] == broken["uih"][0]


def test_a_recent_event_that_is_not_so_in_the_store_is_left_alone(store: lw.Store, examples: pa.Table) -> None:
    store.compact()
    rows = examples["recent"].to_pylist()
    rows[1]["ordinal"][0] += 1
    column = pa.array(rows, examples["recent"].type)
    broken = examples.set_column(examples.column_names.index("recent"), "recent", column)
    assert seal_with_report(store, broken)[1] == SealReport(sealed=1, already=2, refused=1)


def test_what_retention_took_is_left_alone(store: lw.Store, examples: pa.Table) -> None:
    store.alter(retention=lw.Retention(max_events=3))
    store.compact()
    sealed, report = seal_with_report(store, examples)
    assert report == SealReport(already=2, refused=2)
    assert sealed is examples


def test_scrubbed_users_recents_are_dropped_unchecked(store: lw.Store, examples: pa.Table) -> None:
    rows = examples["recent"].to_pylist()
    rows[0]["ordinal"][0] += 1
    column = pa.array(rows, examples["recent"].type)
    broken = examples.set_column(examples.column_names.index("recent"), "recent", column)
    store.scrub([0])
    dropped, count = forget_recents(store, broken)
    assert (recents(dropped), count) == ([0, 2, 0, 0], 1)
    sealed, report = seal_with_report(store, broken)
    assert report == SealReport(sealed=1, already=2, scrubbed=1)
    assert recents(sealed) == [0, 0, 0, 0]
    assert sealed["uih"][0] == examples["uih"][0]
    with pytest.raises(lw.ScrubbedError, match="row 0"):
        batch(store, sealed)
    assert batch(store, sealed, on_missing="mask").num_rows == 4
    assert forget_recents(store, sealed) == (sealed, 0)


def test_who_is_scrubbed_while_a_generation_is_chosen_is_scrubbed(
    store: lw.Store, store_path: Path, examples: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be left as it is, with the recent events, for want of what the scrub took."""
    store.compact()
    other, refresh = lw.Store.open(store_path, read_only=True), lw.Store.refresh

    def scrub_first(self: lw.Store) -> Any:
        monkeypatch.setattr(lw.Store, "refresh", refresh)
        store.scrub([0])
        return refresh(self)

    monkeypatch.setattr(lw.Store, "refresh", scrub_first)
    sealed, report = seal_with_report(other, examples)
    assert report == SealReport(sealed=1, already=2, scrubbed=1)
    assert recents(sealed) == [0, 0, 0, 0]


def test_anchors_keep_their_ties(store: lw.Store, clock: ManualClock) -> None:
    clock.set(START + 70 * SECOND)
    store.append(events([3] * 3, [60] * 3))
    store.compact()
    store.append(events([3] * 4, [60] * 4))
    clock.set(START + 80 * SECOND)
    anchors = lw.anchors(store, where=lw.col("item") == 60, min_history=0).drop_columns(["item", "word"])
    late = anchors.set_column(1, "request_ts", pa.array([START + 60 * SECOND] * 7, TIME_TYPE))
    captured = store.capture(late).columns
    before = batch(store, captured)
    store.compact()
    sealed, report = seal_with_report(store, captured)
    assert report.sealed == 3
    assert sealed["uih"].combine_chunks().field("end_ties").to_pylist() == list(range(7))
    assert different_rows(batch(store, sealed), before).tolist() == []


def test_later_corrections_do_not_reach_what_was_sealed(
    store: lw.Store, examples: pa.Table, clock: ManualClock
) -> None:
    before = batch(store, examples)
    store.compact()
    sealed = lw.seal(store, examples)
    for run in list(store.reader().scan([])):
        places = [
            {"event_ts": ts, "ingest_ts": at, "ordinal": n}
            for ts, at, n in zip(run.event_ts.tolist(), run.ingest_ts.tolist(), run.ordinal.tolist(), strict=True)
        ]
        store.append(pa.table({"user_id": run.user_ids, "supersedes": places}))
    store.compact()
    assert store.history(1).num_rows == 0
    assert different_rows(batch(store, sealed), before).tolist() == []


def test_columns_keep_their_types(store: lw.Store, examples: pa.Table) -> None:
    """Whatever a log was rewritten by in between."""
    store.compact()
    at = examples.column_names.index("recent")
    fields = list(
        zip((f.name for f in examples["recent"].type), examples["recent"].combine_chunks().flatten(), strict=True)
    )
    wide = [array.cast(pa.large_list(array.type.value_type)) for _, array in fields[:-1]]
    older = pa.StructArray.from_arrays(wide, names=[name for name, _ in fields[:-1]])  # without `supersedes`
    other = examples.set_column(at, "recent", older).slice(1)
    sealed, report = seal_with_report(store, other)
    assert report == SealReport(sealed=1, already=2)
    assert sealed.schema == other.schema


def test_no_examples(store: lw.Store, examples: pa.Table) -> None:
    assert seal_with_report(store, examples.slice(0, 0)) == (examples.slice(0, 0), SealReport())
    with pytest.raises(lw.SchemaError, match="lack user_id, uih"):
        lw.seal(store, pa.table({"a": [1]}))
    with pytest.raises(lw.SchemaError, match="struct of lists"):
        lw.seal(store, examples.set_column(examples.column_names.index("recent"), "recent", pa.array([1] * 4)))


def test_a_log_is_sealed_in_place(store: lw.Store, tmp_path: Path, clock: ManualClock) -> None:
    folder = tmp_path / "log"
    with lw.ExampleLog(folder, row_group_size=5, bucket_count=2) as log:
        log.append(capture(store, list(range(23))))
    untouched = folder / "day=1990-01-01" / "part.parquet"
    untouched.parent.mkdir()
    pq.write_table(capture(store, [2]), untouched)  # nothing recent: another writer's file stays as it is
    before = batch(store, open_examples(folder).take(np.arange(24)))
    files = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    groups = {path: _groups(path) for path in files}
    assert lw.seal(store, folder) == SealReport(already=22, not_covered=2)
    assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == files
    store.compact()
    reader = open_examples(folder)  # a trainer, in the middle of it
    reader.take(np.arange(3))
    assert lw.seal(store, str(folder)) == SealReport(sealed=2, already=22)
    assert reader.take(np.arange(24)).num_rows == 24
    assert {path: _groups(path) for path in folder.rglob("*.parquet")} == groups
    changed = {path for path, data in files.items() if path.read_bytes() != data}
    assert changed
    assert untouched not in changed
    assert all(pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD" for path in changed)
    after = open_examples(folder).take(np.arange(24))
    assert sum(recents(after)) == 0
    assert different_rows(batch(store, after), before).tolist() == []
    assert lw.seal(store, [path for path in sorted(files) if path in changed]).sealed == 0


@pytest.mark.parametrize("writer", ["ours", "another's"])
def test_a_run_is_resumed_on_a_log_that_was_sealed_or_purged(
    store: lw.Store, tmp_path: Path, clock: ManualClock, writer: str
) -> None:
    folder, examples = tmp_path / "log", capture(store, list(range(23)))
    if writer == "ours":
        with lw.ExampleLog(folder, row_group_size=5, bucket_count=2) as log:
            log.append(examples)
    else:
        folder.mkdir()
        pq.write_table(examples, folder / "part.parquet", row_group_size=5)

    def loader() -> lw.Loader:
        return lw.Loader(store, folder, VIEW, batch_size=4, seed=5, on_missing="mask")

    expected = [batch.features["label"].to_pylist() for batch in loader()]
    run = iter(running := loader())
    taken = [next(run).features["label"].to_pylist() for _ in range(2)]
    state = running.state_dict()
    run.close()
    store.scrub(user_ids=[0])
    assert len(purge_log(store, folder).files) == 1
    assert lw.seal(store, folder).sealed == 1
    resumed = loader()
    resumed.load_state_dict(state)
    assert taken + [batch.features["label"].to_pylist() for batch in resumed] == expected


def _groups(path: Path) -> list[int]:
    metadata = pq.ParquetFile(path).metadata
    return [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]


def test_examples_of_polars_are_sealed_and_refused_as_others_are(store: lw.Store, examples: pa.Table) -> None:
    """Their text is string views, which Arrow cannot take by row."""
    theirs = pa.table(pl.from_arrow(examples))
    store.compact()
    store.scrub([1])
    mine, same = seal_with_report(store, examples), seal_with_report(store, theirs)
    assert (same[0].schema, same[0].to_pylist(), same[1]) == (theirs.schema, mine[0].to_pylist(), mine[1])
    assert same[1].sealed == same[1].scrubbed == 1
    assert batch(store, theirs, on_missing="mask").to_pylist() == batch(store, examples, on_missing="mask").to_pylist()
