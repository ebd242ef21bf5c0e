"""Verifying a store: what is whole is found whole, and what is damaged is named. Over real stores on disk."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.immutable import GenerationReader
from latewood.mutable import InMemoryTier, LmdbTier
from latewood.storage.documents import encode_document
from latewood.testing import ManualClock
from moments import START

SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("word", pa.string())]))


@pytest.fixture
def store(tmp_path: Path) -> lw.Store:
    """Three generations of three users, with events in the mutable tier both cut off and not."""
    clock = ManualClock(START)
    store = lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock)
    rng = np.random.default_rng(2)
    for round_ in range(4):
        clock.advance(1_000_000)
        items = rng.integers(0, 9, 300)
        events = {"user_id": rng.integers(0, 3, 300), "event_ts": START + rng.integers(0, 10**6, 300), "item": items}
        store.append(events | {"word": [None if item == 3 else f"w{item}" for item in items.tolist()]})
        if round_ < 3:
            store.compact()
    return store


def shard_file(store: lw.Store) -> Path:
    return Path(store.path) / next(shard.key for shard in store.generation.shards if shard.exists)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def reopened(store: lw.Store) -> lw.Store:
    store.close()
    return lw.Store.open(store.path, clock=store.clock)


def test_a_whole_store_is_ok(store: lw.Store) -> None:
    report = lw.verify(store)
    assert report.ok, report.differences
    assert (report.generation, report.generations, report.shards) == (3, 4, 2)
    assert (report.users, report.events, report.values) == (3, 900, 8)
    assert report.recent >= 300


def test_an_empty_store_is_ok(tmp_path: Path) -> None:
    report = lw.verify(lw.Store.create(tmp_path / "store", SCHEMA))
    assert report.ok, report.differences
    assert (report.generations, report.shards, report.events, report.recent) == (1, 0, 0, 0)


def test_a_store_opened_read_only_is_verified_without_its_recent_events(store: lw.Store) -> None:
    store.close()
    with lw.Store.open(store.path, read_only=True) as opened:
        report = lw.verify(opened)
    assert (report.ok, report.events, report.recent) == (True, 900, 0)


def test_progress_ends_with_all_events(store: lw.Store) -> None:
    told: list[tuple[int, int]] = []
    lw.verify(store, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (900, 900)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_flipped_byte_is_found_and_its_file_named(store: lw.Store, place: float) -> None:
    file = shard_file(store)
    flip(file, int(file.stat().st_size * place))
    store = reopened(store)
    report = lw.verify(store)
    assert report.difference_count >= 1
    assert report.differences[0].what == "shard"
    assert file.name in report.differences[0].where
    assert not report.ok
    assert json.dumps(report.to_json())


def replace_while_shards_are_checked(store: lw.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a generation of other files, after the first shard was looked at."""
    latest, shard = store.catalog.latest(), GenerationReader.shard

    def replace_after(reader: GenerationReader, number: int) -> Any:
        monkeypatch.setattr(GenerationReader, "shard", shard)
        try:
            return shard(reader, number)
        finally:
            files = tuple(replace(file, key=f"{file.key}-new") for file in latest.shards)
            store.catalog.publish(replace(latest, id=4, parent=3, uuid="new", shards=files))
            store.storage.delete(file.key for file in latest.shards)

    monkeypatch.setattr(GenerationReader, "shard", replace_after)


def test_damage_is_told_though_a_newer_generation_comes_meanwhile(
    store: lw.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = shard_file(store)
    flip(file, file.stat().st_size // 2)
    store = reopened(store)
    replace_while_shards_are_checked(store, monkeypatch)
    report = lw.verify(store)
    assert [difference.what for difference in report.differences] == ["shard"]
    assert file.name in report.differences[0].where


def test_files_of_a_generation_that_is_replaced_meanwhile_are_not_missing(
    store: lw.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = reopened(store)
    replace_while_shards_are_checked(store, monkeypatch)
    with pytest.raises(lw.ConflictError, match="generation 3 was replaced while it was verified"):
        lw.verify(store)


def test_a_missing_file_is_found(store: lw.Store) -> None:
    shard_file(store).unlink()
    report = lw.verify(reopened(store))
    assert [difference.what for difference in report.differences] == ["shard"]


def rewrite_manifest(store: lw.Store, number: int, **changed: Any) -> None:
    """Change what a manifest says, with a checksum that fits."""
    path = sorted((Path(store.path) / "manifests").iterdir())[number]
    frame = ("kind", "format", "xxh3")
    body = {name: value for name, value in json.loads(path.read_bytes()).items() if name not in frame}
    path.chmod(0o644)
    path.write_bytes(encode_document("manifest", 1, body | changed))


def test_a_damaged_manifest_is_found_even_an_old_one(store: lw.Store) -> None:
    manifests = sorted((Path(store.path) / "manifests").iterdir())
    flip(manifests[1], 30)
    report = lw.verify(reopened(store))
    assert [difference.what for difference in report.differences] == ["manifest"]
    assert manifests[1].name in report.differences[0].where


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"watermark": 5}, "is before that of the one before it"),
        ({"parent": 0}, "its parent is 0, not the one before it"),
        ({"parent": None}, "its parent is None"),
    ],
)
def test_manifests_that_do_not_follow_from_one_another(store: lw.Store, changed: dict[str, Any], message: str) -> None:
    rewrite_manifest(store, 2, **changed)
    report = lw.verify(reopened(store))
    assert any(message in difference.message for difference in report.differences)


def test_a_count_that_the_manifest_has_wrong(store: lw.Store) -> None:
    path = sorted((Path(store.path) / "manifests").iterdir())[3]
    shards = json.loads(path.read_bytes())["shards"]
    shards[0]["event_count"] += 1
    rewrite_manifest(store, 3, shards=shards)
    report = lw.verify(reopened(store))
    assert any("its manifest says otherwise" in difference.message for difference in report.differences)


def test_an_event_that_compaction_lost_is_found(store: lw.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the newest generation did not have what the mutable tier still remembers."""
    honest = LmdbTier.scan

    def with_another(self: Any, start: int, stop: int) -> Any:
        for events in honest(self, start, stop):
            moved = np.flatnonzero(events.ingest_ts < store.generation.watermark)[:1]
            if len(moved):
                extra = events.take(moved)
                yield extra.stamped(extra.ingest_ts, extra.ordinal + np.int32(7))
            yield events

    monkeypatch.setattr(LmdbTier, "scan", with_another)
    report = lw.verify(store)
    assert [difference.what for difference in report.differences] == ["recent"]
    assert "1 events that compaction moved are not in generation 3" in report.differences[0].message


def test_events_in_the_tier_twice_are_found(store: lw.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = LmdbTier.scan
    monkeypatch.setattr(LmdbTier, "scan", lambda self, a, b: [*honest(self, a, b), *honest(self, a, b)])
    report = lw.verify(store)
    assert "have the place of the one before" in report.differences[0].message


def test_a_tier_of_another_age_is_found(store: lw.Store) -> None:
    tier = InMemoryTier(SCHEMA.user_id)
    tier.raise_frontier(START + 10**12, last=START + 10**12)
    tier.evict(START + 10**12)
    other = lw.Store.open(store.path, read_only=True)
    other.tier = tier
    report = lw.verify(other)
    assert any("has let go of what was ingested before" in difference.message for difference in report.differences)


def test_a_code_without_a_value_is_found(store: lw.Store) -> None:
    chunk = next((Path(store.path) / "vocabulary").rglob("*.arrow"))
    flip(chunk, chunk.stat().st_size // 2)
    store.close()
    with pytest.raises(lw.CorruptionError):  # an open store would not even begin
        lw.verify(lw.Store.open(store.path, read_only=True))
