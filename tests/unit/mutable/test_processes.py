"""The LMDB tier among processes: appends, cuts and evictions at once, kills, and bulk loads whose owner dies."""

import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError
from latewood.immutable import Scrubs
from latewood.mutable import LmdbTier
from latewood.mutable.segment_file import SegmentFile
from latewood.mutable.segmented_log import SegmentTransaction
from latewood.storage import open_storage
from latewood.testing.recent_events import NOW, SETTINGS, append_ids, make_events, recent_of, scanned
from latewood.users import user_keys

Spawn = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "mutable"


@pytest.fixture
def spawn(folder: Path) -> Iterator[Spawn]:
    """Start a worker of `tier_worker.py`; it waits for a line."""
    running: list[subprocess.Popen[str]] = []

    def start(task: str, *numbers: int) -> "subprocess.Popen[str]":
        command = [sys.executable, str(Path(__file__).parent / "tier_worker.py"), task, str(folder), *map(str, numbers)]
        running.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.communicate()


def expect(process: "subprocess.Popen[str]", word: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    assert line.startswith(word), f"the worker said {line!r}"
    return line


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def finish(process: "subprocess.Popen[str]") -> list[str]:
    assert process.stdout is not None
    lines = process.stdout.read().split("\n")
    assert lines[-2] == "done"
    return lines


def test_processes_append_cut_evict_and_read_at_once(folder: Path, spawn: Spawn) -> None:
    tier = LmdbTier(folder, pa.int64(), SETTINGS)
    append_ids(tier, ["mine"], make_events([7], [1]))
    workers = [spawn("append", 1, 15), spawn("append", 2, 15), spawn("cut", 8)]
    for worker in workers:
        expect(worker, "ready")
    for worker in workers:
        go(worker)
    seen: set[tuple[int, ...]] = set()
    mine = 0
    while any(worker.poll() is None for worker in workers):
        state = tier.state()
        for rows in recent_of(tier, [0, 1, 2], min_ingest=state.floor):
            assert rows == sorted(rows, key=lambda row: row[1:4])
            seen |= set(rows)
        if mine < 20:
            tier.append(make_events([3, 0], [5, 3]), now=NOW)
            mine += 1
        time.sleep(0.01)  # two cores for everybody
    for worker in workers:
        finish(worker)
    kept = scanned(tier, tier.state().floor)
    assert tier.state().floor > EARLIEST_TS
    assert len(set(kept)) == len(kept)
    stamps = Counter((row[0], row[2]) for row in {*kept, *seen})
    assert max(stamps.values()) == 1  # unique per user, whoever gave them, and however often cut
    assert append_ids(tier, ["mine"], make_events([7], [1])).duplicates == 1
    fresh = LmdbTier(folder, pa.int64(), SETTINGS)
    assert scanned(fresh, tier.state().floor) == scanned(tier, tier.state().floor)
    tier.close()
    fresh.close()


def test_a_reader_that_slept_through_evictions_catches_up(folder: Path, spawn: Spawn) -> None:
    tier = LmdbTier(folder, pa.int64(), SETTINGS)
    tier.append(make_events([7], [1]), now=NOW)
    worker = spawn("cut", 4)
    expect(worker, "ready")
    go(worker)
    finish(worker)
    assert len(list((folder / "segments").glob("*.lmdb"))) == 2  # the last cut's and the current one
    assert [row[1] for row in recent_of(tier, [99])[0]] == [3]
    assert append_ids(tier, ["cut-0", "cut-3"], make_events([99, 99], [0, 3], item=[0, 0])).duplicates == 2
    assert tier.append(make_events([99], [9]), now=0).ingest_ts[0] == tier.state().last
    tier.close()


def test_a_process_maps_what_another_made_grow(folder: Path, spawn: Spawn) -> None:
    tier = LmdbTier(folder, pa.int64(), SETTINGS, map_size=1 << 16)
    worker = spawn("grow", 3)
    expect(worker, "ready")
    go(worker)
    for i in range(3):
        expect(worker, f"grown {i}")
        if i % 2:
            tier.append(make_events([2], [i]), now=NOW)
        assert len(recent_of(tier, [1])[0]) >= 5_000 * (i + 1)
    finish(worker)
    assert len(scanned(tier)) == 15_001
    tier.close()


def test_a_killed_process_loses_nothing_it_acknowledged(folder: Path, spawn: Spawn) -> None:
    acknowledged = 7
    worker = spawn("append", 1, 10_000)
    expect(worker, "ready")
    go(worker)
    for i in range(acknowledged):
        expect(worker, f"appended {i}")
    worker.send_signal(signal.SIGKILL)
    assert worker.stdout is not None
    rest = worker.stdout.read()  # and not `communicate`, which does not see what was read ahead
    worker.wait()
    said = acknowledged + rest.count("appended")
    with_tier = LmdbTier(folder, pa.int64(), SETTINGS)
    counts = Counter(row[4] for row in scanned(with_tier))
    assert len(counts) in (said, said + 1)  # the one in flight may have landed
    assert sorted(counts) == list(range(len(counts)))
    assert set(counts.values()) == {3}  # each whole, and once
    assert with_tier.append(make_events([1], [5]), now=NOW).ingest_ts[0] == NOW + 2 * len(counts)
    with_tier.close()


@pytest.mark.parametrize("published", [True, False])
def test_a_load_whose_owner_died_is_settled(folder: Path, spawn: Spawn, published: bool) -> None:
    asked: list[str] = []

    def was_published(token: str) -> bool:
        asked.append(token)
        return published

    tier = LmdbTier(folder, pa.int64(), SETTINGS, was_published=was_published)
    worker = spawn("load")
    expect(worker, "ready")
    go(worker)
    assert expect(worker, "loading") == f"loading {NOW + 21}"
    with pytest.raises(ConflictError, match="bulk load"):
        tier.append(make_events([1], [5]), now=NOW)
    assert not asked  # its owner is alive
    worker.kill()
    worker.communicate()
    receipt = tier.append(make_events([1], [5]), now=NOW)
    assert asked == ["token"]
    assert receipt.ingest_ts.tolist() == [NOW + 21 if published else NOW]
    assert tier.state().frontier == (NOW + 21 if published else EARLIEST_TS)
    tier.close()


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("opened", [False, True])
def test_a_scrub_whose_process_was_killed_is_finished_by_the_next(
    folder: Path, spawn: Spawn, recorded: bool, opened: bool
) -> None:
    book = Scrubs(open_storage(f"{folder}-book"), bytes(range(16)))
    tier = LmdbTier(folder, pa.int64(), SETTINGS, scrubs=book)
    tier.append(make_events([1, 2], [5, 6]), now=NOW)
    worker = spawn("scrub", int(recorded))
    expect(worker, "ready")
    go(worker)
    assert expect(worker, "scrubbing") == f"scrubbing {NOW + 1}"
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert tier.state().scrubs == 0  # begun, and not over
    assert (tier.state().last, len(book)) == (NOW + 1, 0)
    assert Scrubs(book._storage, bytes(range(16))).refresh() == recorded
    if opened:
        tier.close()
        tier = LmdbTier(folder, pa.int64(), SETTINGS, scrubs=book)
    assert recent_of(tier, [1, 2]) == [[], [(2, 6, NOW, 0, 1)]]
    assert [(scrub.number, scrub.scrub_ts) for scrub in book] == [(0, NOW + 1)]
    assert tier.state().scrubs == 1
    assert tier.append(make_events([1], [5]), now=NOW).skipped == 1
    tier.close()


def test_a_process_heeds_what_another_scrubbed(folder: Path) -> None:
    first, second = (
        LmdbTier(folder, pa.int64(), SETTINGS, scrubs=Scrubs(open_storage(f"{folder}-book"), bytes(range(16))))
        for _ in range(2)
    )
    first.append(make_events([1, 2], [5, 6]), now=NOW)
    assert len(scanned(second)) == 2
    first.scrub(Scrubs(open_storage(f"{folder}-book"), bytes(range(16))).body(user_keys(pa.array([1]))), now=NOW)
    assert [row[0] for row in scanned(second)] == [2]
    assert second.append(make_events([1], [5]), now=NOW).skipped == 1
    first.close()
    second.close()


@pytest.mark.parametrize("first", ["append", "recent", "cut"])
def test_whoever_comes_first_after_the_owner_of_a_load_died_settles_it(folder: Path, spawn: Spawn, first: str) -> None:
    """Though it had never heard of the load."""
    tier = LmdbTier(folder, pa.int64(), SETTINGS, was_published=lambda token: False)
    tier.append(make_events([1], [5]), now=NOW)
    worker = spawn("load")
    expect(worker, "ready")
    go(worker)
    expect(worker, "loading")
    worker.kill()
    worker.communicate()
    if first == "append":
        assert tier.append(make_events([1], [6]), now=NOW).count == 1
    elif first == "recent":
        assert len(recent_of(tier, [1])[0]) == 1
    else:
        assert tier.cut() == NOW + 1
    assert tier.state().load_token is None
    tier.close()


def test_a_forked_process_is_told_to_open_its_own(folder: Path) -> None:
    tier = LmdbTier(folder, pa.int64(), SETTINGS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(ConflictError, match="fork"):
                tier.state()
            with pytest.raises(ConflictError, match="fork"):
                LmdbTier(folder, pa.int64(), SETTINGS)
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    tier.append(make_events([1], [5]), now=NOW)
    tier.close()


@pytest.mark.parametrize("how", ["close", "drop", "exit"])
def test_a_forked_process_lets_go_and_its_parent_keeps_what_is_open(folder: Path, how: str) -> None:
    script = f"""
import gc, os, sys
import pyarrow as pa
from pathlib import Path
from latewood.errors import ConflictError
from latewood.mutable import LmdbTier
from latewood.testing.recent_events import NOW, SETTINGS, make_events

tier = LmdbTier(Path({str(folder)!r}), pa.int64(), SETTINGS)
tier.append(make_events([1], [5]), now=NOW)
before = tier.state()
child = os.fork()
if child == 0:
    if {how!r} == "close":
        tier.close()
    if {how!r} == "drop":
        del tier
        gc.collect()
    try:
        LmdbTier(Path({str(folder)!r}), pa.int64(), SETTINGS)
    except ConflictError:
        sys.exit(0)
    sys.exit(1)
assert os.waitpid(child, 0)[1] == 0
tier.append(make_events([1], [7]), now=NOW)
assert sum(map(len, tier.scan(before.floor, tier.state().closed))) == 2
tier.close()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


def test_a_fork_in_the_middle_of_a_commit_is_told_so_and_waits_for_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier, put = LmdbTier(folder, pa.int64(), SETTINGS), SegmentTransaction.put
    statuses: list[int] = []

    def fork_first(*args: Any) -> None:  # by who holds the write lock
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # ends it, should it wait
            status = 1
            try:
                for call in (tier.state, lambda: tier.append(make_events([1], [6]), now=NOW)):
                    with pytest.raises(ConflictError, match="fork"):
                        call()
                tier.close()
                status = 0
            finally:
                os._exit(status)
        statuses.append(os.waitpid(child, 0)[1])
        put(*args)

    monkeypatch.setattr(SegmentTransaction, "put", fork_first)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        tier.append(make_events([1], [5]), now=NOW)
    assert statuses == [0]
    tier.close()


GROW = """
import lmdb, sys
with lmdb.open(sys.argv[1], subdir=False, map_size=1 << 24) as env, env.begin(write=True) as transaction:
    transaction.put(b"key", bytes(1 << 20))
"""


def test_a_segment_that_grows_while_it_is_opened_is_not_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, used = tmp_path / "segment.lmdb", SegmentFile._used

    def append_first(file: SegmentFile) -> int:
        subprocess.run([sys.executable, "-c", GROW, str(path)], check=True)
        return used(file)

    monkeypatch.setattr(SegmentFile, "_used", append_first)
    file = SegmentFile(path, 1, 1 << 24, remap=lambda _: None)
    assert used(file) > 1 << 20
    file.close()
