"""What an attack on a store found: each test is named for what once went wrong."""

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from latewood.clock import LATEST_TS
from latewood.compaction import bulk_load
from latewood.immutable import Catalog, GenerationReader
from latewood.intake import read_events
from latewood.mutable.segmented_log import SegmentedLog
from latewood.testing import ManualClock

SCHEMA = lw.Schema(
    user_id=pa.int64(), traits=pa.schema([("x", pa.int64()), ("a", pa.dictionary(pa.int32(), pa.string()))])
)


def events(users: list[int], times: list[int], words: list[str] | None = None) -> pa.Table:
    n = len(users)
    return pa.table({"user_id": users, "event_ts": pa.array(times, pa.int64()), "x": range(n), "a": words or ["w"] * n})


@pytest.fixture
def store(store_path: Path) -> Iterator[lw.Store]:
    with lw.Store.create(store_path, SCHEMA, shards=4, clock=ManualClock(10**6)) as store:
        yield store


def test_a_history_has_the_event_of_the_last_moment_there_is(store: lw.Store) -> None:
    store.append(events([1, 1, 2], [5, LATEST_TS, 5]))
    assert store.history(1)["x"].to_pylist() == [0, 1]
    store.compact()
    assert store.history(1)["x"].to_pylist() == [0, 1]
    store.append(events([1], [LATEST_TS]))
    assert store.history(1)["x"].to_pylist() == [0, 1, 0]


def test_anchors_read_on_when_their_generation_is_collected(store: lw.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    users, scan = list(range(100)), GenerationReader.scan

    def late(reader: GenerationReader, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(GenerationReader, "scan", scan)
        for time in (6, 7):
            store.append(events(users, [time] * 100))
            store.compact(keep=1)
        return reader.scan(*args, **options)

    store.append(events(users, [5] * 100))
    store.compact()
    monkeypatch.setattr(GenerationReader, "scan", late)
    assert len(lw.anchors(store, min_history=0)) == 100


def test_a_bulk_load_that_could_not_be_ended_does_not_bar_the_store(
    store: lw.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = Catalog.publish

    def full(_: SegmentedLog) -> None:
        raise OSError(errno.ENOSPC, "full")

    def publish_and_fill(catalog: Catalog, generation: lw.Generation) -> None:
        publish(catalog, generation)
        monkeypatch.setattr(SegmentedLog, "begin", full)

    monkeypatch.setattr(Catalog, "publish", publish_and_fill)
    table = events([1], [5]).append_column("ingest_ts", pa.array([6]))
    with pytest.raises(OSError, match="full"):
        bulk_load(store, [read_events(table, SCHEMA, store.encode).events])
    monkeypatch.undo()
    store.append(events([1], [7]))
    assert len(store.history(1)) == 2
    assert store.compact().event_count == 2


def test_a_lost_chunk_of_the_vocabulary_does_not_give_its_codes_to_other_words(store: lw.Store) -> None:
    for word in ("one", "two"):
        store.append(events([1], [5], [word]))
    store.compact()
    store.close()
    Path(store.path, "vocabulary/1/00000001.arrow").unlink()
    for read_only in (True, False):
        with pytest.raises(lw.CorruptionError, match=r"vocabulary/1/00000001\.arrow is missing"):
            lw.Store.open(store.path, read_only).reader()


def test_a_store_that_lost_its_manifests_does_not_begin_anew(store: lw.Store) -> None:
    store.append(events([1], [5]))
    store.compact()
    store.close()
    shutil.rmtree(Path(store.path) / "manifests")
    with pytest.raises(lw.CorruptionError, match="manifests/0000000000"):
        lw.Store.open(store.path)
