"""The LMDB tier keeps the contract, and its promises about files: reopening, growth, crashes halfway, damage."""

import errno
import json
import resource
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pyarrow as pa
import pytest
import xxhash

from latewood.clock import EARLIEST_TS
from latewood.columns import Column
from latewood.errors import CorruptionError, SchemaError, StoreNotFoundError
from latewood.immutable import Scrubs
from latewood.mutable import LmdbTier, MutableTier, Settings
from latewood.mutable.segment_file import STATE, batch_key
from latewood.storage import open_storage
from latewood.testing.mutable_contract import MutableTierContract
from latewood.testing.recent_events import (
    NOW,
    SETTINGS,
    append_ids,
    deletions_of,
    make_events,
    of_ids,
    of_places,
    places_of,
    recent_of,
    scanned,
)
from latewood.users import user_keys


class TestLmdbTier(MutableTierContract):
    def open_tier(
        self, path: Path, user_type: pa.DataType, settings: Settings, scrubs: Scrubs | None = None
    ) -> MutableTier:
        return LmdbTier(path, user_type, settings, scrubs=scrubs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mutable"


def open_tier(folder: Path, **options: Any) -> LmdbTier:
    return LmdbTier(folder, pa.int64(), SETTINGS, **options)


def segment(folder: Path, number: int) -> Path:
    return folder / "segments" / f"{number:08d}.lmdb"


@pytest.fixture
def filled(folder: Path) -> list[tuple[Any, ...]]:
    """A tier with a sealed and a current segment, closed; its rows."""
    tier = open_tier(folder)
    append_ids(tier, ["a", "b"], make_events([1, 2], [5, 6]))
    tier.cut()
    for i in range(5):
        tier.append(make_events([1, 3] * 300, [i] * 600), now=NOW + 1000 * i)
    rows = scanned(tier)
    tier.close()
    return rows


# Opening and closing


def test_everything_is_there_again_after_reopening(folder: Path, filled: list[Any]) -> None:
    tier = open_tier(folder)
    assert scanned(tier) == filled
    state = tier.state()
    assert (state.frontier, state.last) == (NOW + 1, NOW + 4299)
    assert append_ids(tier, ["b"], make_events([2, 2], [6, 6]).take(np.array([1]))).duplicates == 1
    tier.close()


def test_two_tiers_of_one_process_share_a_directory(folder: Path) -> None:
    first, second = open_tier(folder), open_tier(folder / ".." / folder.name)
    first.append(make_events([1], [5]), now=NOW)
    assert second.append(make_events([1], [6]), now=NOW).ingest_ts.tolist() == [NOW + 1]
    first.evict(first.cut())
    second.append(make_events([1], [7]), now=NOW)
    first.close()
    second.cut()
    assert [row[1] for row in recent_of(second, [1])[0]] == [7]
    second.close()
    lmdb.open(str(segment(folder, 2)), subdir=False).close()  # nobody holds it any more


def test_a_tier_that_is_dropped_lets_go(folder: Path) -> None:
    tier = open_tier(folder)
    tier.append(make_events([1], [5]), now=NOW)
    del tier
    lmdb.open(str(segment(folder, 0)), subdir=False).close()


def test_a_directory_deleted_and_made_anew_is_another_tier(folder: Path) -> None:
    forgotten = open_tier(folder)
    forgotten.append(make_events([1], [5]), now=NOW)
    shutil.rmtree(folder)
    tier = open_tier(folder)
    assert scanned(tier) == []
    tier.append(make_events([1], [6]), now=NOW)
    assert [row[1] for row in scanned(tier)] == [6]
    forgotten.close()
    tier.close()


def test_opening_what_is_not_there(folder: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        open_tier(folder, create=False)
    assert not folder.exists()
    open_tier(folder).close()
    open_tier(folder, create=False).close()
    for path in (folder / "segments").iterdir():
        path.unlink()
    with pytest.raises(StoreNotFoundError, match="empty"):
        open_tier(folder, create=False)


def test_versions_are_there_again_after_reopening(folder: Path) -> None:
    tier = open_tier(folder)
    append_ids(tier, ["a", "b", "c"], make_events([1, 2, 3], [5, 6, 7], item=[10, 20, 30]))
    tier.cut()
    append_ids(tier, ["a"], make_events([1], [5], item=[11]), of_ids(["a"]), now=2 * NOW)
    append_ids(tier, ["x"], deletions_of([2]), of_ids(["b"], [True]), now=2 * NOW)
    append_ids(
        tier, ["y", "z"], make_events([3, 1], [7, 9], item=[31, 12]), of_places([(7, NOW, 0), None]), now=2 * NOW
    )
    superseded, seen = places_of(tier.suppressions(EARLIEST_TS, 3 * NOW)), recent_of(tier, [1, 2, 3])
    tier.close()
    tier = open_tier(folder)
    assert places_of(tier.suppressions(EARLIEST_TS, 3 * NOW)) == superseded
    assert len(superseded) == 3
    assert recent_of(tier, [1, 2, 3]) == seen
    again = append_ids(tier, ["x"], deletions_of([2]), of_ids(["b"], [True]))
    assert (again.duplicates, again.ingest_ts.tolist(), again.ordinal.tolist()) == (1, [2 * NOW + 1], [-1])
    tier.close()


# Forgetting


def test_a_repeated_deletion_of_what_was_deleted_has_the_time_of_the_first(folder: Path) -> None:
    tier = open_tier(folder)
    append_ids(tier, ["a"], make_events([1], [5]))
    deleted = append_ids(tier, ["x"], deletions_of([1]), of_ids(["a"], [True]))
    again = append_ids(tier, ["y", "y"], deletions_of([1, 1]), of_ids(["a", "a"], [True, True]))
    assert (again.count, again.duplicates) == (0, 2)
    assert again.ingest_ts.tolist() == [*deleted.ingest_ts.tolist()] * 2
    tier.close()


def test_after_a_scrub_and_an_eviction_no_byte_is_left(folder: Path) -> None:
    book = Scrubs(open_storage("memory://no-byte-is-left"), bytes(range(16)))
    tier = LmdbTier(folder, pa.string(), SETTINGS, scrubs=book, map_size=1 << 16)
    name, event_ts, item = "somebody-to-be-forgotten", 0x0123456789ABCD, 0x7EDCBA9876543210
    trace = [name.encode(), event_ts.to_bytes(8, "little"), item.to_bytes(8, "little")]
    key = user_keys(pa.array([name]))
    trace += [half.tobytes() for half in key]

    def found() -> int:
        files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
        return sum(word in data for data in files for word in trace)

    append_ids(tier, ["a", "b"], make_events([name, "other"], [event_ts, 5], item=[item, 2]))
    tier.evict(tier.cut())
    for i in range(20):  # many commits, so that pages are freed and used again
        append_ids(tier, [f"a{i}", f"b{i}"], make_events([name, "other"], [event_ts, 5], item=[item, i]), now=NOW + i)
    append_ids(tier, ["a"], make_events([name], [event_ts], item=[item]), of_ids(["a"]), now=NOW + 30)
    append_ids(tier, ["d"], deletions_of([name]), of_ids(["a3"], [True]), now=NOW + 31)
    with file_size_limit((folder / "segments" / "00000001.lmdb").stat().st_size + 4096), pytest.raises(OSError):
        tier.append(make_events([name] * 40_000, [event_ts] * 40_000, item=[item] * 40_000), now=NOW + 32)
    assert found() > 0
    tier.scrub(book.body(key), now=NOW + 40)
    tier.append(make_events([name, "other"], [event_ts, 6], item=[item, 3]), now=NOW + 41)
    tier.evict(tier.cut())
    assert found() == 0
    assert len(list((folder / "segments").glob("*.lmdb"))) == 1
    replayed = append_ids(tier, ["a3", "b3"], make_events([name, "other"], [event_ts, 5], item=[item, 3]), now=NOW + 42)
    assert replayed.duplicates + replayed.skipped == 2
    tier.close()


def test_a_scrub_leaves_nothing_of_a_commit_that_failed(folder: Path) -> None:
    """A segment without a batch may hold bytes of one all the same: a cut would keep it."""
    book = Scrubs(open_storage("memory://commit-that-failed"), bytes(range(16)))
    tier = LmdbTier(folder, pa.int64(), SETTINGS, scrubs=book)
    first = segment(folder, 0)
    tier.scrub(book.body(user_keys(pa.array([1]))), now=NOW)
    tier.evict(tier.cut())
    assert not first.exists()
    tier.close()


# Growth and full disks


def test_a_segment_grows_beyond_its_map(folder: Path) -> None:
    tier, other = open_tier(folder, map_size=1 << 16), open_tier(folder)
    for i in range(20):
        tier.append(make_events([1, 2] * 500, [i] * 1000), now=NOW + 1000 * i)
    assert len(scanned(tier)) == len(scanned(other)) == 20_000
    assert segment(folder, 0).stat().st_size > 4 << 16
    tier.close()
    other.close()


def test_writers_of_one_process_do_not_meet_at_a_map_that_grows(folder: Path) -> None:
    tiers = [open_tier(folder, map_size=1 << 16) for _ in range(2)]
    failed: list[BaseException] = []

    def write(tier: LmdbTier, user: int) -> None:
        try:
            for i in range(15):
                tier.append(make_events([user] * 200, [i] * 200), now=NOW)
                if i % 4 == 0:
                    tier.cut()
                recent_of(tier, [1, 2])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(tiers[user % 2], user)) for user in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert scanned(tiers[0]) == scanned(tiers[1])
    assert len(scanned(tiers[0])) == 4 * 15 * 200
    for tier in tiers:
        tier.close()


@contextmanager
def file_size_limit(limit: int) -> Iterator[None]:
    """What a full disk feels like: no file may grow beyond the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_an_os_error_and_leaves_nothing_half_written(folder: Path) -> None:
    tier = open_tier(folder)
    append_ids(tier, ["a"], make_events([1], [5]))
    before = tier.state()
    big = make_events([1, 2] * 20_000, [6] * 40_000)
    with file_size_limit(1 << 18), pytest.raises(OSError) as caught:
        append_ids(tier, [str(i) for i in range(len(big))], big)
    assert caught.value.errno in (errno.ENOSPC, errno.EIO, errno.EFBIG)
    assert tier.state() == before
    assert len(scanned(tier)) == len(recent_of(tier, [1])[0]) == 1
    assert append_ids(tier, ["1"], make_events([1], [7])).ingest_ts.tolist() == [NOW + 1]
    tier.close()
    tier = open_tier(folder)
    assert [row[1] for row in scanned(tier)] == [5, 7]
    tier.close()


# Crashes halfway


def test_the_table_of_readers_has_its_room_before_it_is_mapped(folder: Path) -> None:
    tier = open_tier(folder)
    append_ids(tier, ["a"], make_events([1], [5]))
    tier.cut()
    for number in (0, 1):  # where pages are missing, and the disk is full, the process dies of writing to them
        found = segment(folder, number).with_name(f"{segment(folder, number).name}-lock").stat()
        assert found.st_blocks * 512 >= found.st_size > 0
    tier.close()


def test_a_cut_that_crashed_before_it_sealed_is_forgotten(folder: Path, filled: list[Any], tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "before")
    tier = open_tier(folder)
    tier.cut()
    tier.close()
    shutil.copy(segment(tmp_path / "before", 1), segment(folder, 1))  # its seal never happened, but segment 2 is there
    tier = open_tier(folder)
    assert scanned(tier) == filled
    assert tier.state().frontier == NOW + 1
    tier.append(make_events([9], [9]), now=NOW)
    tier.cut()
    tier.append(make_events([9], [10]), now=NOW)
    assert len(scanned(tier)) == len(filled) + 2
    tier.close()


def test_an_eviction_that_crashed_before_it_deleted_is_finished_on_opening(folder: Path, filled: list[Any]) -> None:
    saved = segment(folder, 0).read_bytes()
    tier = open_tier(folder)
    tier.evict(tier.cut())
    tier.close()
    segment(folder, 0).write_bytes(saved)
    tier = open_tier(folder)
    assert not segment(folder, 0).exists()
    assert scanned(tier, tier.state().floor) == []
    assert append_ids(tier, ["a"], make_events([1], [5])).duplicates == 1
    tier.close()


def test_a_first_opening_that_crashed_is_repeated(folder: Path) -> None:
    (folder / "segments").mkdir(parents=True)
    lmdb.open(str(segment(folder, 0)), subdir=False).close()
    tier = open_tier(folder)
    assert tier.append(make_events([1], [5]), now=NOW).count == 1
    tier.close()


# Damage


def read_all(folder: Path) -> list[tuple[Any, ...]]:
    tier = open_tier(folder)
    try:
        return scanned(tier, tier.state().floor)
    finally:
        tier.close()


@pytest.mark.parametrize("number", [0, 1])
def test_no_flipped_bit_goes_unnoticed(folder: Path, filled: list[Any], number: int) -> None:
    path = segment(folder, number)
    data = path.read_bytes()
    rng = np.random.default_rng(number)
    pages = [start for start in range(0, len(data), 4096) if any(data[start : start + 4096])]
    heads = (np.array(pages)[:, None] + np.arange(0, 160)).ravel()  # where pages keep their structure
    places = np.concatenate([rng.choice(heads, 80), rng.integers(0, len(data), 30)])
    noticed = 0
    for place in places[places < len(data)].tolist():
        broken = bytearray(data)
        broken[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(broken)
        try:
            rows = read_all(folder)
        except CorruptionError as error:
            noticed += str(path) in str(error)
        else:
            assert rows == filled  # a byte that means nothing
    assert noticed > 5


@pytest.mark.parametrize("number", [0, 1])
def test_a_truncated_segment_is_noticed(folder: Path, filled: list[Any], number: int) -> None:
    path = segment(folder, number)
    data = path.read_bytes()
    with lmdb.open(str(path), subdir=False) as env:
        used = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    for size in (0, 1, 4095, 4096, 8192, used // 2, used - 4096, used - 1):
        path.write_bytes(data[:size])
        with pytest.raises(CorruptionError, match=path.name):
            read_all(folder)
        (folder / "segments" / f"{path.name}-lock").unlink(missing_ok=True)
    path.write_bytes(data)
    assert read_all(folder) == filled


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_segment_is_noticed(folder: Path, filled: list[Any], number: int) -> None:
    segment(folder, number).unlink()
    with pytest.raises(CorruptionError, match=f"{number:08d}.lmdb is missing"):
        read_all(folder)


@pytest.mark.parametrize(("number", "other"), [(0, 1), (1, 0)])
def test_a_segment_in_the_place_of_another_is_noticed(folder: Path, filled: list[Any], number: int, other: int) -> None:
    shutil.copy(segment(folder, other), segment(folder, number))
    with pytest.raises(CorruptionError, match=f"{number:08d}.lmdb"):
        read_all(folder)


def test_damage_names_segment_and_batch(folder: Path, filled: list[Any]) -> None:
    with lmdb.open(str(segment(folder, 1)), subdir=False) as env, env.begin(write=True) as transaction:
        third, fourth = transaction.get(batch_key(3)), transaction.get(batch_key(4))
        transaction.put(batch_key(3), fourth)  # whole in itself, but not what belongs there
        transaction.put(batch_key(4), third)
    with pytest.raises(CorruptionError, match=r"segment .*00000001\.lmdb: .*batch 3"):
        read_all(folder)
    with lmdb.open(str(segment(folder, 1)), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(batch_key(3), third)
        transaction.delete(batch_key(4))
    with pytest.raises(CorruptionError, match=r"segment .*00000001\.lmdb: batch 4 is missing"):
        read_all(folder)


def test_a_broken_state_is_noticed(folder: Path, filled: list[Any]) -> None:
    with lmdb.open(str(segment(folder, 1)), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(STATE, transaction.get(STATE).replace(b'"captured":false', b'"captured":true '))
    with pytest.raises(CorruptionError, match="state"):
        read_all(folder)


def test_event_ids_are_found_though_their_files_are_merged_meanwhile(
    folder: Path, filled: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing may come too late for the old files and too early for the new one."""
    tier = LmdbTier(folder, pa.int64(), SETTINGS)
    tier.evict(tier.cut())
    listed, glob = [], Path.glob

    def overtaken(path: Path, pattern: str) -> Any:
        if pattern == "*.ids":
            listed.append(pattern)
        return iter(()) if pattern == "*.ids" and len(listed) == 1 else glob(path, pattern)

    monkeypatch.setattr(Path, "glob", overtaken)
    assert tier._log.id_runs()
    tier.close()


def test_broken_event_ids_are_noticed(folder: Path, filled: list[Any]) -> None:
    tier = open_tier(folder)
    tier.evict(tier.cut())
    tier.close()
    (path,) = (folder / "ids").iterdir()
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptionError, match="event ids"):
        read_all(folder)


def test_event_ids_of_an_earlier_format_are_refused(folder: Path, filled: list[Any]) -> None:
    tier = open_tier(folder)
    tier.evict(tier.cut())
    tier.close()
    (path,) = (folder / "ids").iterdir()
    body = path.read_bytes()[:-8].replace(b"LWid0002", b"LWid0001")
    path.write_bytes(body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little"))
    with pytest.raises(SchemaError, match=r"\.ids: event ids of format version 0001"):
        read_all(folder)


@pytest.mark.parametrize("version", [1, 2])
def test_a_state_of_an_earlier_format_is_read(folder: Path, filled: list[Any], version: int) -> None:
    tier = open_tier(folder)
    state = json.loads(tier._log.head().to_bytes()[:-8])
    tier.close()
    state["format"] = version
    del state["tier"]["changes"]
    if version == 1:
        del state["scrub"], state["tier"]["scrubs"], state["tier"]["blanked"]
    older = json.dumps(state, separators=(",", ":")).encode()
    with lmdb.open(str(segment(folder, 1)), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(STATE, older + xxhash.xxh3_64_intdigest(older).to_bytes(8, "little"))
    assert read_all(folder) == filled


def test_a_format_from_the_future_is_refused(folder: Path, filled: list[Any]) -> None:
    tier = open_tier(folder)
    newer = tier._log.head().to_bytes()[:-8].replace(b'"format":3', b'"format":4')
    tier.close()
    with lmdb.open(str(segment(folder, 1)), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(STATE, newer + xxhash.xxh3_64_intdigest(newer).to_bytes(8, "little"))
    with pytest.raises(SchemaError, match="version 4"):
        read_all(folder)


def test_columns_that_are_not_contiguous_are_fine(folder: Path) -> None:
    events = make_events([1, 2, 3, 4], [1, 2, 3, 4]).take(np.array([0, 2]))
    events.traits[0] = Column(np.arange(4)[::2])
    tier = open_tier(folder)
    tier.append(events, now=NOW)
    tier.close()
    assert [row[4] for row in read_all(folder)] == [0, 2]
