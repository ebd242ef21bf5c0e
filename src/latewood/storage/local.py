"""A store in a local folder: one file per object, durable writes, mmap reads.

Writing is done here and not by obstore, whose local put does not fsync (it leaves a file that a power cut can empty
after the manifest that names it was published). Every write goes to a file of its own under `.unfinished/`, is
synced, and is given its name by `os.replace` or, for put-if-absent, by `os.link`, which fails where the name exists;
then the folders above the name are synced, and so is the folder of a name that is deleted. A writer that dies leaves a
file that no key can name. Its lock dies with it, so that others can tell the file from one still being written: it is
removed by the next process to write for the first time, and by whoever deletes anything, as every compaction does.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latewood.storage.buffers import as_bytes, check_range
from latewood.storage.keys import check_key, check_prefix
from latewood.storage.storage import StoredObject, Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from latewood.storage.storage import Data

UNFINISHED = ".unfinished"
# Written in such pieces, a file lies in the page cache in large pages, and is mapped in them: readers of a store that was
# written a moment ago are an eighth faster (docs/decisions/0037).
_PIECE_BYTES = 2 << 20


class LocalStorage:
    """Objects as files below a root folder, which need not exist before the first write."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self._folder = str(self.root)
        self._swept = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<LocalStorage {self.root}>"

    def read(self, key: str) -> bytes:
        with self._open(key) as file:
            return file.readall()

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> Sequence[Buffer]:
        with self._open(key) as file:
            size = os.fstat(file.fileno()).st_size
            for start, length in zip(starts, lengths, strict=True):
                check_range(key, start, length, size)
            return [_pread(file.fileno(), length, start) for start, length in zip(starts, lengths, strict=True)]

    def map(self, key: str) -> NDArray[np.uint8]:
        with self._open(key) as file:
            if not os.fstat(file.fileno()).st_size:  # mmap refuses to map nothing
                return np.frombuffer(b"", np.uint8)
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def write(self, key: str, data: Data) -> None:
        with self.writer(key) as writer:
            writer.write(data)

    def create(self, key: str, data: Data) -> bool:
        path = self._path(key)
        self._sweep_once()
        if path.exists():  # spares the loser of a slow race the work; the link decides
            return False
        with self._unfinished() as (file, unfinished):
            _write_all(file, data)
            os.fsync(file.fileno())
            try:
                self._name(unfinished, path, os.link)
            except FileExistsError:
                return False
        return True

    @contextmanager
    def writer(self, key: str) -> Iterator[Writer]:
        path = self._path(key)
        with self._unfinished() as (file, unfinished):
            writer = _BufferedWriter(file)
            yield writer
            writer.flush()
            os.fsync(file.fileno())
            self._name(unfinished, path, os.replace)

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        folder = check_prefix(prefix)
        return sorted(self._walk(self.root / folder, f"{folder}/" if folder else ""))

    def delete(self, keys: Iterable[str]) -> None:
        folders: set[Path] = set()
        for path in [self._path(key) for key in keys]:
            with suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                folders.add(path.parent)
        for folder in folders:
            self._sync_what_stays(self._prune(folder))
        self._sweep()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _open(self, key: str) -> FileIO:
        try:
            # Not by a Path, which takes longer than asking for a file that is not there, as every batch does.
            return FileIO(f"{self._folder}/{check_key(key)}")
        except (IsADirectoryError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self.root}: no object {key!r}") from error

    @contextmanager
    def _unfinished(self) -> Iterator[tuple[FileIO, Path]]:
        """A locked file to write to, removed in the end; naming it moved or linked it away."""
        folder = self.root / UNFINISHED
        self._sweep_once()
        make_folder(folder)
        while True:
            path = folder / secrets.token_hex(8)
            with FileIO(path, "x+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not os.fstat(file.fileno()).st_nlink:  # swept between its creation and its lock
                    continue
                try:
                    yield file, path
                finally:
                    path.unlink(missing_ok=True)
                return

    def _sweep_once(self) -> None:
        with self._lock:
            first, self._swept = not self._swept, True
        if first:
            self._sweep()

    def _sweep(self) -> None:
        """Remove what writers that died have left."""
        folder = self.root / UNFINISHED
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            with suppress(OSError), FileIO(path, "r") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _name(self, unfinished: Path, path: Path, give: Callable[[Path, Path], object]) -> None:
        """Give a synced file its name and make the name durable."""
        while True:
            try:
                make_folder(path.parent)
                give(unfinished, path)
                break
            except FileNotFoundError:
                if not unfinished.exists():
                    raise
                # another process deleted the folder's last object, and so the folder: make it again
        with suppress(FileNotFoundError):  # deleted since: nothing to keep
            self._sync_folders(path.parent)

    def _sync_folders(self, folder: Path) -> None:
        """Sync a folder and those above it, up to the root: another writer may have made them a moment ago."""
        _sync_folder(folder)
        if folder != self.root:
            self._sync_folders(folder.parent)

    def _walk(self, folder: Path, prefix: str) -> Iterator[StoredObject]:
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from self._walk(folder / entry.name, f"{prefix}{entry.name}/")
            else:
                with suppress(FileNotFoundError):  # deleted meanwhile
                    yield StoredObject(prefix + entry.name, entry.stat().st_size)

    def _prune(self, folder: Path) -> Path:
        """Remove folders that have become empty: an object store has no folders either. Returns: the first that stays."""
        with suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent
        return folder

    def _sync_what_stays(self, folder: Path) -> None:
        """Sync a folder, or the one above it if another process has just removed it, too."""
        try:
            _sync_folder(folder)
        except FileNotFoundError:
            if folder != self.root:
                self._sync_what_stays(folder.parent)


class _BufferedWriter:
    """Writes whole pieces, whatever it is given, and the rest in the end."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._rest = bytearray()

    def write(self, buffer: Data, /) -> None:
        view = as_bytes(buffer)
        while len(view):
            if not self._rest and len(view) >= _PIECE_BYTES:
                size = len(view) // _PIECE_BYTES * _PIECE_BYTES
                _write_all(self._file, view[:size])
            else:
                size = min(len(view), _PIECE_BYTES - len(self._rest))
                self._rest += view[:size]
                if len(self._rest) == _PIECE_BYTES:
                    self.flush()
            view = view[size:]

    def flush(self) -> None:
        _write_all(self._file, self._rest)
        self._rest = bytearray()


def _write_all(file: FileIO, data: Data) -> None:
    """A write may take less than it was given."""
    rest = as_bytes(data)
    while len(rest):
        rest = rest[file.write(rest) or 0 :]


def _pread(descriptor: int, length: int, start: int) -> bytes:
    data = os.pread(descriptor, length, start)
    while len(data) < length:  # one read gives at most 2 GiB
        piece = os.pread(descriptor, length - len(data), start + len(data))
        if not piece:
            raise OSError(f"the file was cut short while it was read: no byte {start + len(data)}")
        data += piece
    return data


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, each durable in its parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
