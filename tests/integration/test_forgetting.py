"""After a scrub, a compaction and its collection, no file of the store holds a trace of what was forgotten.

A byte search over the whole folder, whatever the files are: for user ids, for words that nobody else had, for numbers in
the encodings that keep them whole. The same search finds each of them before, or it would prove nothing.
"""

import json
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.testing import ManualClock
from latewood.users import user_keys
from moments import START

SCHEMA = lw.Schema(
    user_id=pa.string(),
    groups={
        "core": pa.schema(
            [("item", pa.int64()), ("word", pa.string()), ("kind", pa.dictionary(pa.int32(), pa.string()))]
        ),
        "rest": pa.schema([("score", pa.float64()), ("weight", pa.float32()), ("seen_at", pa.timestamp("us"))]),
        "lists": pa.schema([("tags", pa.list_(pa.string())), ("vector", pa.list_(pa.float64(), 3))]),
    },
)
VICTIM, OTHERS = "victim-5b1f0c", ["alice", "bob", "carol"]
ITEM, SCORE, WEIGHT, SEEN_AT = 0x5EC2_E7A1_1CE0_FFEE, -1.2345678912345e-77, 1.2345678e-17, 1_234_567_890_123_457
VECTOR = [0.25, 8.7654321987654e-99, -1.0]
FIRST_TS = START - 987_654_321_123  # of the victim's events: a time that nobody else has
SECRETS = {
    "user id": VICTIM.encode(),
    "word": b"only-the-victim-said-this",
    "kind": b"only-the-victim-did-this",
    "tag": b"only-the-victim-was-tagged",
    "item": struct.pack("<q", ITEM),
    "score": struct.pack("<d", SCORE),
    "vector": struct.pack("<d", VECTOR[1]),
    "weight": struct.pack("<f", WEIGHT),
    "seen_at": struct.pack("<q", SEEN_AT),
    "event_ts": struct.pack("<q", FIRST_TS),
    "event_ts in words": str(FIRST_TS).encode(),
    "event_id": b"event-id-of-the-victim",
    "key": struct.pack("<Q", int(user_keys(pa.array([VICTIM])).hash[0])),
    "other half of the key": struct.pack("<Q", int(user_keys(pa.array([VICTIM])).check[0])),
}
# Nothing writes these as they are, before or after: times and ids are searched for all the same.
NEVER_THERE = {"event_ts in words", "event_id"}


def events(user: str, count: int, *, secret: bool = False, first_ts: int = START - 10**9) -> pa.Table:
    """Events of one user; secret ones have what nobody else has, in every trait."""
    numbers = np.arange(count)
    return pa.table(
        {
            "user_id": pa.array([user] * count),
            "event_ts": first_ts + numbers,
            "event_id": [f"event-id-of-the-{user.split('-')[0]}-{first_ts + k}" for k in range(count)],
            "item": np.full(count, ITEM) if secret else numbers,
            "word": ["only-the-victim-said-this" if secret else f"word-{k % 7}" for k in range(count)],
            "kind": pa.array(["only-the-victim-did-this" if secret else "view"] * count).dictionary_encode(),
            "score": np.full(count, SCORE) if secret else numbers / 3,
            "weight": pa.array(np.full(count, WEIGHT, np.float32) if secret else numbers.astype(np.float32)),
            "seen_at": pa.array(np.full(count, SEEN_AT) if secret else numbers).view(pa.timestamp("us")),
            "tags": [["a", "only-the-victim-was-tagged"] if secret else ["a", "b"][: k % 3] for k in range(count)],
            "vector": pa.array([VECTOR if secret else [k, 0, 0.5] for k in range(count)], pa.list_(pa.float64(), 3)),
        }
    )


SEARCH = """
    import json, pathlib, sys
    folder, secrets = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for name, secret in secrets.items():
            if bytes.fromhex(secret) in data:
                print(name, path.relative_to(folder).as_posix(), sep=":")
"""


def found_in(folder: Path) -> dict[str, list[str]]:
    """Which secrets are in which files.

    Another process looks: to close a file of LMDB's locks would give up the locks of all who hold it open in this one.
    """
    secrets = json.dumps({name: secret.hex() for name, secret in SECRETS.items()})
    command = [sys.executable, "-I", "-c", textwrap.dedent(SEARCH), str(folder), secrets]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for name, file in (line.split(":", 1) for line in lines):
        found.setdefault(name, []).append(file)
    return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Iterator[lw.Store]:
    """A store that has the victim in three generations, of which two are kept, and in the mutable tier."""
    with lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock) as store:
        for day in range(3):
            store.append(events(VICTIM, 300, secret=True, first_ts=FIRST_TS + 1000 * day))
            store.append(events(VICTIM, 5, first_ts=START - 5000 + 10 * day))  # the victim's, but not secret
            for user in OTHERS:
                store.append(events(user, 200, first_ts=START - 10**9 + 1000 * day))
            store.compact()
            clock.advance(timedelta(days=1))
        store.append(events(VICTIM, 20, secret=True, first_ts=FIRST_TS + 1000 * 3))
        store.append(events("alice", 20, first_ts=START))
        yield store


def requests(users: list[str], clock: ManualClock) -> pa.Table:
    return pa.table({"user_id": users, "request_ts": [clock.now()] * len(users)})


def corrected(store: lw.Store) -> pa.Table:
    """A correction of what is not secret by what is."""
    target = f"event-id-of-the-victim-{START - 5000}"
    table = events(VICTIM, 1, secret=True, first_ts=FIRST_TS + 500)
    return table.append_column("supersedes", pa.array([target]))


def everything_of(store: lw.Store, users: list[str]) -> list[pa.Table]:
    return [store.history(user) for user in users]


def test_the_search_finds_what_is_there(store: lw.Store) -> None:
    """In shards and in the log of the mutable tier; all but what is never written as it is."""
    found = found_in(Path(store.path))
    assert found.keys() == SECRETS.keys() - NEVER_THERE
    for name in ("user id", "score"):
        assert any(file.endswith(".stripes") for file in found[name])
        assert any(file.endswith(".lmdb") for file in found[name])
    assert any(file.startswith("vocabulary/") for file in found["word"])


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("what", ["user", "predicate"])
@pytest.mark.parametrize("pinned", [False, True])
def test_nothing_is_left_anywhere(store: lw.Store, clock: ManualClock, what: str, at_once: bool, pinned: bool) -> None:
    store.append(corrected(store))
    logged = store.capture(requests([VICTIM, *OTHERS], clock)).columns
    before = everything_of(store, OTHERS)
    if pinned:
        store.pin("run", timedelta(days=365))
    scrub: dict[str, Any] = {"user_ids": [VICTIM]} if what == "user" else {"where": lw.col("item") == ITEM}
    receipt = store.scrub(**scrub, compact=at_once)
    if not at_once:
        assert found_in(Path(store.path))
        store.compact()
    # a predicate leaves the user itself
    kept = {"user id", "key", "other half of the key"} if what == "predicate" else set()
    assert found_in(Path(store.path)).keys() == kept
    assert receipt.done == at_once
    assert everything_of(store, OTHERS) == before
    left = store.history(VICTIM)
    assert len(left) == (0 if what == "user" else 14)  # the one that was corrected is still superseded
    with pytest.raises(lw.ScrubbedError):
        lw.Materializer(store, lw.Projection())(logged.slice(0, 1))
    others = lw.Materializer(store, lw.Projection())(logged.slice(1)).to_arrow()["history"]
    assert [len(history["item"]) for history in others.to_pylist()] == [620, 600, 600]
    if pinned:
        assert lw.Materializer(store.at("run"), lw.Projection())(logged.slice(1)).to_arrow()["history"] == others


def test_nothing_comes_back_with_what_comes_later(store: lw.Store, clock: ManualClock) -> None:
    """The topic is replayed, the user returns, and more generations follow."""
    store.scrub(user_ids=[VICTIM])
    again = events(VICTIM, 300, secret=True, first_ts=FIRST_TS)
    assert store.append(again).skipped == 300
    clock.advance(timedelta(days=1))
    store.append(events(VICTIM, 3, first_ts=clock.now()))
    for user in OTHERS:
        store.append(events(user, 3, first_ts=clock.now()))
        store.compact()
    assert found_in(Path(store.path)).keys() == {"user id", "key", "other half of the key"}
    clock.advance(timedelta(days=1))
    capture = store.capture(requests([VICTIM], clock))
    assert capture.history(lw.Projection()).lengths.tolist() == [3]


READER = """
    import sys
    import latewood as lw
    import pyarrow.parquet as pq
    examples = pq.read_table(sys.argv[2])
    with lw.Store.open(sys.argv[1], read_only=True) as store:
        materialize = lw.Materializer(store, lw.Projection())
        for line in sys.stdin:
            try:
                print(*materialize(examples.slice(int(line), 1)).lengths.tolist(), flush=True)
            except lw.ScrubbedError:
                print("scrubbed", flush=True)
"""
SERVER = """
    import sys
    import latewood as lw
    import pyarrow as pa
    with lw.Store.open(sys.argv[1], clock=lambda: int(sys.argv[2])) as store:
        for line in sys.stdin:
            request = pa.table({"user_id": [line.strip()], "request_ts": [int(sys.argv[2])]})
            print(*store.capture(request).history(lw.Projection()).lengths.tolist(), flush=True)
"""


class Process:
    """Another process, which answers a line with a line."""

    def __init__(self, script: str, *arguments: object) -> None:
        command = [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


def test_with_processes_that_go_on_reading(store: lw.Store, clock: ManualClock, tmp_path: Path) -> None:
    """A trainer on an old generation, and a server with the mutable tier open: they forget, too, and at once."""
    logged = store.capture(requests([VICTIM, "bob"], clock)).columns
    pq.write_table(logged, tmp_path / "logged.parquet")
    with (
        Process(READER, store.path, tmp_path / "logged.parquet") as trainer,
        Process(SERVER, store.path, clock.now()) as server,
    ):
        assert [trainer.ask(0), trainer.ask(1)] == ["935", "600"]
        assert [server.ask(VICTIM), server.ask("bob")] == ["935", "600"]
        store.scrub(user_ids=[VICTIM], compact=False)
        assert [trainer.ask(0), trainer.ask(1)] == ["scrubbed", "600"]
        assert [server.ask(VICTIM), server.ask("bob")] == ["0", "600"]
        store.compact()
        assert found_in(Path(store.path)) == {}
        assert [trainer.ask(0), trainer.ask(1)] == ["scrubbed", "600"]
        assert [server.ask(VICTIM), server.ask("bob")] == ["0", "600"]
    assert found_in(Path(store.path)) == {}


DYING = """
    import os, signal, sys
    import latewood as lw
    with lw.Store.open(sys.argv[1], clock=lambda: int(sys.argv[2])) as store:
        write = store.storage.create
        def die(key, data):
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[3] == "publishing":
            store.storage.create = die
            store.compact()
        else:
            with store.storage.writer("generations/0000000009/x/shard-00000.stripes") as writer:
                writer.write(sys.argv[4].encode() * 1_000_000)
                die("", b"")
"""


@pytest.mark.parametrize("while_", ["publishing", "writing"])
def test_what_a_killed_compaction_left_goes_too(store: lw.Store, clock: ManualClock, while_: str) -> None:
    """Whole shards of an attempt that was never published, or half of one that has no name."""
    script = textwrap.dedent(DYING)
    command = [sys.executable, "-c", script, store.path, str(clock.now()), while_, VICTIM]
    before = found_in(Path(store.path))["user id"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(found_in(Path(store.path))["user id"]) > len(before)
    store.scrub(user_ids=[VICTIM])
    assert found_in(Path(store.path)) == {}
