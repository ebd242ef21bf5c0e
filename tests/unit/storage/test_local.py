"""The local backend: the contract, and what only files can get wrong."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from latewood.storage import Storage, StoredObject
from latewood.storage.local import UNFINISHED, LocalStorage
from latewood.testing.storage_contract import StorageContract


class TestLocalStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return LocalStorage(tmp_path / "not yet" / "there")


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_nothing_is_created_before_the_first_write(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path / "store")
    storage.list()
    storage.delete(["a"])
    with pytest.raises(FileNotFoundError):
        storage.read("a")
    assert list(tmp_path.iterdir()) == []


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage = LocalStorage("store")
    storage.write("a", b"1")
    monkeypatch.chdir("/")
    assert storage.read("a") == b"1"


class Syncs:
    """Which paths were synced, and which names were given, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[tuple[str, str]] = []
        fsync, replace, link = os.fsync, os.replace, os.link

        def record_fsync(file: int) -> None:
            self.log.append(("fsync", str(Path(f"/proc/self/fd/{file}").readlink())))
            fsync(file)

        def record(name: str, call: object) -> object:
            def recorded(source: Path, target: Path) -> None:
                self.log.append((name, str(target)))
                call(source, target)

            return recorded

        monkeypatch.setattr(os, "fsync", record_fsync)
        monkeypatch.setattr(os, "replace", record("name", replace))
        monkeypatch.setattr(os, "link", record("name", link))

    def place(self, kind: str, path: Path) -> int:
        return len(self.log) - 1 - self.log[::-1].index((kind, str(path)))


@pytest.mark.parametrize(("gone", "stays"), [("a/b/c", "a/b"), ("a/b/d", "a/b"), ("e/f/g", "")])
def test_a_deletion_is_synced_where_the_name_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str, stays: str
) -> None:
    """A pin that was taken off came back after a power cut, when its files had been collected."""
    storage = LocalStorage(tmp_path)
    for key in ("a/b/c", "a/b/d", "e/f/g"):
        storage.write(key, b"x")
    syncs = Syncs(monkeypatch)
    storage.delete([gone])
    assert ("fsync", str(tmp_path / stays)) in syncs.log


def test_a_deletion_is_synced_though_another_removes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("a/b/c", b"x")
    monkeypatch.setattr(storage, "_prune", lambda folder: folder)
    syncs = Syncs(monkeypatch)
    unlink = Path.unlink

    def unlink_all(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        for folder in ("a/b", "a"):
            (tmp_path / folder).rmdir()

    monkeypatch.setattr(Path, "unlink", unlink_all)
    storage.delete(["a/b/c"])
    assert ("fsync", str(tmp_path)) in syncs.log


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("how", ["write", "create", "writer"])
def test_a_write_syncs_the_file_then_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    root = tmp_path / "new" / "store"
    storage = LocalStorage(root)
    syncs = Syncs(monkeypatch)
    if how == "writer":
        with storage.writer("a/b/c") as writer:
            writer.write(b"data")
    else:
        getattr(storage, how)("a/b/c", b"data")
    named = syncs.place("name", root / "a/b/c")
    content = [i for i, (kind, path) in enumerate(syncs.log) if kind == "fsync" and f"/{UNFINISHED}/" in path]
    assert content, "the bytes are synced"
    assert content[-1] < named, "before they get their name"
    for folder in (root / "a/b", root / "a", root):
        assert syncs.place("fsync", folder) > named, f"the name is synced in {folder}"
    assert ("fsync", str(tmp_path)) in syncs.log, "and so are the folders that hold the root"
    assert ("fsync", str(tmp_path / "new")) in syncs.log


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("a", b"before")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace", "link"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, no_space)
            with pytest.raises(OSError, match="No space"):
                storage.write("a", b"after") if name != "link" else storage.create("b", b"after")
    assert files(tmp_path) == ["a"]
    assert storage.read("a") == b"before"


WRITER = """
    import os, sys
    from latewood.storage.local import LocalStorage
    with LocalStorage(sys.argv[1]).writer("a/b") as writer:
        writer.write(b"x" * 3_000_000)
        print("writing", flush=True)
        sys.stdin.read()
"""


def test_what_a_killed_writer_left_is_removed_and_what_a_live_one_writes_is_not(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        LocalStorage(tmp_path).write("c", b"")
        assert len(files(tmp_path)) == 2, "the live writer's file is still there"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(files(tmp_path)) == 2
    assert LocalStorage(tmp_path).list() == [StoredObject("c", 0)], "no listing shows it"
    LocalStorage(tmp_path).write("d", b"")
    assert files(tmp_path) == ["c", "d"]


def test_deleting_removes_what_others_left_that_died_meanwhile(tmp_path: Path) -> None:
    """A process that lives for months and compacts every night: it must not leave to the next what it could see."""
    storage = LocalStorage(tmp_path)
    storage.write("c", b"")
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        storage.delete([])
        assert len(files(tmp_path)) == 2, "the live writer's file is still there"
        process.send_signal(signal.SIGKILL)
        process.wait()
    storage.delete([])
    assert files(tmp_path) == ["c"]


def test_the_first_creation_removes_what_a_killed_writer_left_even_if_it_creates_nothing(tmp_path: Path) -> None:
    LocalStorage(tmp_path).write("c", b"")
    (tmp_path / UNFINISHED / "left").write_bytes(b"x")
    assert not LocalStorage(tmp_path).create("c", b"")
    assert files(tmp_path) == ["c"]


def test_a_file_swept_before_it_was_locked_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("a", b"")
    flock, swept = fcntl.flock, []

    def sweep_first(file: object, operation: int) -> None:
        if not swept:
            swept.extend((tmp_path / UNFINISHED).iterdir())
            swept[0].unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    storage.write("b", b"whole")
    assert storage.read("b") == b"whole"
    assert swept


CREATOR = """
    import sys
    from latewood.storage.local import LocalStorage
    storage = LocalStorage(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    won = [i for i in range(100) if storage.create(f"race/{i}", sys.argv[2].encode() * 1000)]
    print(*won, flush=True)
"""


def test_of_many_processes_one_creates(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(CREATOR), str(tmp_path)]
    processes = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "abc"
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = {name: process.communicate()[0].split() for name, process in zip("abc", processes, strict=True)}
    assert sorted(int(i) for mine in won.values() for i in mine) == list(range(100))
    storage = LocalStorage(tmp_path)
    for name, mine in won.items():
        assert all(storage.read(f"race/{i}") == name.encode() * 1000 for i in mine)
    assert len(files(tmp_path)) == 100


def test_empty_folders_go_with_their_last_object(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    for key in ("a/b/c", "a/d"):
        storage.write(key, b"")
    storage.delete(["a/b/c"])
    assert not (tmp_path / "a/b").exists()
    assert (tmp_path / "a/d").exists()
    storage.delete(["a/d"])
    assert tmp_path.exists()
    assert not (tmp_path / "a").exists()


def test_a_folder_that_vanishes_under_a_write_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    replace, vanished = os.replace, []

    def vanish_first(source: Path, target: Path) -> None:
        if not vanished:
            vanished.append(target.parent)
            target.parent.rmdir()
        replace(source, target)

    monkeypatch.setattr(os, "replace", vanish_first)
    storage.write("a/b", b"1")
    assert vanished
    assert storage.read("a/b") == b"1"


def test_a_root_that_cannot_be_written_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = LocalStorage(tmp_path / "file")
    assert storage.list() == []
    with pytest.raises(OSError):
        storage.write("a", b"")
