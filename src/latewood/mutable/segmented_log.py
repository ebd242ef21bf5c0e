"""The log in a local directory: LMDB segments that any number of processes append to, read, seal and delete.

    lock                     held while segments are opened, created or deleted: LMDB would create what was just deleted
    open                     shared by all who have the log open: whoever gets it alone may verify files at rest
    load                     held by the owner of a bulk load as long as it lives
    segments/<number>.lmdb   one per cut, the highest one current
    ids/<...>.ids            event ids that outlived their segments

A cut creates the next segment, with the state after the cut, and then commits that state to the current one too, which
seals it: it names a current segment other than itself. A crash in between leaves a next segment that nobody was sent to;
the next cut replaces it.
"""

import fcntl
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import lmdb
import xxhash

from latewood.errors import ConflictError, CorruptionError, StoreNotFoundError
from latewood.mutable.event_batch import EventBatch, decode_batch, encode_batch
from latewood.mutable.event_ids import IdRun
from latewood.mutable.log import LogBusyError, LogFullError, LogState, Segment, SegmentGoneError
from latewood.mutable.segment_file import (
    NUMBER,
    STATE,
    SegmentFile,
    batch_key,
    lmdb_errors,
    number_record,
    verify_structure,
)

MAP_SIZE = 1 << 30


class SegmentedLog:
    """A log over one directory.

    One per process and directory, since LMDB forbids opening a file twice: `lmdb_tier` sees to it.

    Args:
        path: the directory.
        create: make a new log if there is none.
        map_size: what LMDB maps of a segment at first; it grows as needed.
    Raises: StoreNotFoundError: there is no log and `create` is false. CorruptionError: a file is damaged.
    """

    def __init__(self, path: Path, *, create: bool, map_size: int = MAP_SIZE) -> None:
        self.path, self._map_size, self._pid = path, map_size, os.getpid()
        self._segments, self._ids = path / "segments", path / "ids"
        self._mapping = threading.RLock()  # held by read transactions, and by whoever replaces a map or a file
        self._turn = threading.RLock()  # held by the one writer of this process, taken before the other
        self._retired: list[SegmentFile] = []  # sealed, but a writer may still be waiting for their lock
        self._next: SegmentFile | None = None  # made by a cut that has not sealed the current one yet
        self._known: tuple[bytes, LogState] = (b"", LogState(version=-1))
        self._load: IO[bytes] | None = None
        self.closed = False
        if not create and not self._segments.is_dir():
            raise StoreNotFoundError(f"{path} holds no mutable tier")
        for folder in (self._segments, self._ids):
            folder.mkdir(parents=True, exist_ok=True)
        self._presence = (path / "open").open("ab")
        self._identity = self._identify()
        try:
            with self._files():
                self._current = self._open_newest(create)
        except BaseException:
            self._presence.close()
            raise

    # Opening, creating and deleting files

    @contextmanager
    def _files(self) -> Iterator[None]:
        """Nobody else opens, creates or deletes segments meanwhile."""
        with self._mapping, (self.path / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _segment_path(self, number: int) -> Path:
        return self._segments / f"{number:08d}.lmdb"

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._segments.glob("*.lmdb"))

    def _open_newest(self, create: bool) -> SegmentFile:
        numbers = self._numbers()
        if not numbers:
            if not create:
                raise StoreNotFoundError(f"{self.path} holds no mutable tier: {self._segments} is empty")
            return self._create(0, LogState().to_bytes())
        try:
            fcntl.flock(self._presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
            at_rest = True
        except BlockingIOError:
            at_rest = False
        try:
            return self._walk(numbers, at_rest)
        finally:
            fcntl.flock(self._presence, fcntl.LOCK_SH)

    def _walk(self, numbers: list[int], at_rest: bool) -> SegmentFile:
        """The newest segment: usually the highest, unless a cut crashed before it sealed the one below."""
        number = numbers[-2] if len(numbers) > 1 and numbers[-2] == numbers[-1] - 1 else numbers[-1]
        while True:
            file = self._open(number, at_rest)
            data = file.state()
            if data is None and number == 0 and numbers == [0]:  # a crash on the very first opening
                file.close()
                return self._create(0, LogState().to_bytes())
            try:
                state = file.decode_state(data)
            except BaseException:
                file.close()
                raise
            if state.segment.number == number:
                self._delete_below(state)
                return file
            file.close()
            number = state.segment.number

    def _open(self, number: int, at_rest: bool, *, sealed: bool = False) -> SegmentFile:
        path = self._segment_path(number)
        if not path.exists():
            raise CorruptionError(f"segment {path} is missing")
        if at_rest:
            verify_structure(path)
        return SegmentFile(path, number, None if sealed else self._map_size, self._remap)

    def _create(self, number: int, state: bytes) -> SegmentFile:
        path = self._segment_path(number)
        self._unlink(number)
        file = SegmentFile(path, number, self._map_size, self._remap)
        try:
            with lmdb_errors(path), file.env.begin(write=True) as transaction:
                transaction.put(NUMBER, number_record(number))
                transaction.put(STATE, state)
                file.make_room(0)
            sync_folder(self._segments)
        except BaseException:
            file.close()
            raise
        return file

    def _delete_below(self, state: LogState) -> None:
        for number in self._numbers():
            if number < state.segments[0].number:
                self._unlink(number)

    def _unlink(self, number: int) -> None:
        path = self._segment_path(number)
        path.unlink(missing_ok=True)
        path.with_name(path.name + "-lock").unlink(missing_ok=True)

    def forget(self, after: LogState) -> None:
        with self._files():
            self._delete_below(after)

    def _advance(self) -> None:
        """Go on to the segment that is current now: this or another process cut."""
        with self._files():
            while (number := self._current_state().segment.number) != self._current.number:
                self._swap(self._successor(number))
        self._close_retired()

    def _successor(self, number: int) -> SegmentFile:
        if self._next is not None and self._next.number == number:  # our own cut, not quite over
            return self._next
        later = [other for other in self._numbers() if other > number]
        if later and not self._segment_path(number).exists():  # evicted already: we are several cuts behind
            return self._walk(later, at_rest=False)
        return self._open(number, at_rest=False)

    def _swap(self, file: SegmentFile) -> None:
        self._retired.append(self._current)
        self._current, self._next = file, None

    def _close_retired(self) -> None:
        with self._mapping, suppress(LogBusyError), self._no_writer():
            while self._retired:
                self._retired.pop().close()

    # Reading

    def head(self) -> LogState:
        with self._mapping:
            while True:
                state = self._current_state()
                if state.segment.number == self._current.number:
                    return state
                self._advance()

    def _current_state(self) -> LogState:
        self.check_process()
        return self.decode_state(self._current.state(), self._current)

    def decode_state(self, data: bytes | None, file: SegmentFile) -> LogState:
        """The state that a segment has, which is parsed once for all who ask."""
        with self._mapping:
            if data != self._known[0] or data is None:
                self._known = data or b"", file.decode_state(data)
            return self._known[1]

    def read(self, first_batch: int, state: LogState) -> Iterator[EventBatch]:
        stops = [*(segment.first_batch for segment in state.segments[1:]), state.next_batch]
        for segment, stop in zip(state.segments, stops, strict=True):
            if (first := max(first_batch, segment.first_batch)) < stop:
                yield from self._read_segment(segment, first, stop)

    def _read_segment(self, segment: Segment, first: int, stop: int) -> Iterator[EventBatch]:
        with self._mapping:
            mine = {file.number: file for file in (*self._retired, self._current)}
            file = mine.get(segment.number) or self._open_sealed(segment.number)
            try:
                for number, blob in file.batches(first, stop):
                    yield decode_batch(blob, number, f"segment {file.path}")
            finally:
                if file.number not in mine:
                    file.close()

    def _open_sealed(self, number: int) -> SegmentFile:
        with self._files():
            if not self._segment_path(number).exists():
                raise SegmentGoneError(self._segment_path(number))
            return self._open(number, at_rest=True, sealed=True)

    # Writing

    @contextmanager
    def begin(self) -> Iterator["SegmentTransaction"]:
        self.check_process()
        with self._turn:
            transaction = self._begin()
            try:
                yield transaction
            finally:
                transaction.abort()
                self._close_retired()

    def _begin(self) -> "SegmentTransaction":
        while True:
            file = self._current
            try:
                with lmdb_errors(file.path):
                    raw = file.env.begin(write=True)
            except lmdb.MapResizedError:
                with self._mapping:
                    self._remap(file)
                continue
            transaction = SegmentTransaction(self, file, raw)
            if transaction.state.segment.number == file.number:
                return transaction
            transaction.abort()
            self._advance()

    def _remap(self, file: SegmentFile) -> None:
        """Map what another process made grow. LMDB cannot while a writer of this process is at it, or waits to be."""
        with self._no_writer(), lmdb_errors(file.path):
            file.env.set_mapsize(0)

    @contextmanager
    def _no_writer(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):  # waiting could be for ever: the writer may want what we hold
            raise LogBusyError
        try:
            yield
        finally:
            self._turn.release()

    def enlarge(self, file: SegmentFile) -> None:
        with self._mapping, lmdb_errors(file.path):
            file.env.set_mapsize(2 * file.env.info()["map_size"])

    def create_next(self, number: int, state: bytes) -> None:
        with self._files():
            self._next = self._create(number, state)

    def note(self, data: bytes, state: LogState) -> None:
        """What was just committed need not be parsed."""
        with self._mapping:
            self._known = data, state

    def move_on(self, *, sealed: bool) -> None:
        """Go on to the segment made by `create_next`, or drop it if the current one could not be sealed."""
        with self._mapping:
            if self._next is not None and sealed:
                self._swap(self._next)
            elif self._next is not None:
                self._next.close()
                self._next = None

    # Event ids

    def id_runs(self) -> list[IdRun]:
        while True:
            with suppress(FileNotFoundError):  # merged away by another process meanwhile
                paths = self._id_paths()
                runs = [IdRun.from_bytes(path.read_bytes(), str(path)) for path in paths]
                if self._id_paths() == paths:  # else the listing may lack the merged one, and the old ones are gone
                    return sorted(runs, key=lambda run: run.latest)

    def _id_paths(self) -> list[Path]:
        return sorted(self._ids.glob("*.ids"))

    def keep_ids(self, runs: list[IdRun]) -> None:
        names = {_run_name(run): run for run in runs}
        for name, run in names.items():
            if not (self._ids / name).exists():
                write_durably(self._ids / name, run.to_bytes())
        for path in self._ids.glob("*"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    # Bulk loads

    def claim_load(self) -> bool:
        with self._mapping:
            if self._load is not None:
                return False
            self._check_there()
            file = (self.path / "load").open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            try:
                self._check_there()  # else the lock may be a new one: who deletes the log holds the one that was
            except BaseException:
                file.close()
                raise
            self._load = file
            return True

    def release_load(self) -> None:
        with self._mapping:
            if self._load is not None:
                self._load.close()
                self._load = None

    def close(self) -> None:
        with self._mapping:
            self.closed = True
            for file in (*self._retired, self._current):
                file.close()
            self._retired = []
            self.release_load()
            self._presence.close()

    def is_there(self) -> bool:
        """Whether the directory still holds the log that was opened, neither deleted nor replaced."""
        return self._identify() == self._identity

    def _check_there(self) -> None:
        if not self.is_there():
            raise StoreNotFoundError(f"{self.path} holds this mutable tier no more: it was deleted")

    def _identify(self) -> list[tuple[int, int] | None]:
        """What tells the log from another that takes its place: the file is held open, so that no other gets its number."""
        return [identity(self._segments), identity(self.path / "open")]

    @property
    def is_inherited(self) -> bool:
        """Whether it is the parent's of this process, which was forked."""
        return os.getpid() != self._pid

    def check_process(self) -> None:
        if self.is_inherited:
            raise ConflictError(
                f"{self.path} was opened before this process was forked, which LMDB does not allow: "
                f"start the process by spawn, or before the store is opened"
            )


class SegmentTransaction:
    """The only writer of all processes, until committed or aborted."""

    def __init__(self, log: SegmentedLog, file: SegmentFile, raw: "lmdb.Transaction[bytes]") -> None:
        self._log, self._file, self._raw = log, file, raw
        self._open, self._bytes = True, 0
        try:
            self.state = log.decode_state(raw.get(STATE), file)
        except BaseException:
            self.abort()
            raise

    def put(self, number: int, batch: EventBatch) -> None:
        blob = encode_batch(batch, number)
        self._bytes += len(blob)
        with self._growing():
            self._raw.put(batch_key(number), blob, overwrite=False)

    def commit(self, state: LogState) -> None:
        data = state.to_bytes()
        sealed = False
        try:
            with self._growing():
                self._raw.put(STATE, data)
                self._file.make_room(self._bytes)
                if state.segment.number != self._file.number:
                    self._log.create_next(state.segment.number, data)
                self._open = False
                self._raw.commit()
                self._log.note(data, state)
                sealed = True
        finally:
            self._log.move_on(sealed=sealed)

    @contextmanager
    def _growing(self) -> Iterator[None]:
        try:
            with lmdb_errors(self._file.path):
                yield
        except lmdb.MapFullError as error:
            self.abort()
            self._log.enlarge(self._file)
            raise LogFullError from error

    def abort(self) -> None:
        if self._open:
            self._open = False
            self._raw.abort()


def _run_name(run: IdRun) -> str:
    digest = xxhash.xxh3_64_hexdigest(run.low.tobytes() + run.content.tobytes() + run.ordinal.tobytes())
    return f"{run.latest + 2**63:020d}-{run.earliest + 2**63:020d}-{len(run)}-{digest}.ids"


def delete_log(path: Path) -> None:
    """Delete a log, and nothing else that lies in its directory. The caller owns a bulk load, which nobody settles then.

    The lock of the load goes last: who gets one of that name from then on sees that the log is there no more.
    """
    (path / "open").unlink(missing_ok=True)
    for name in ("segments", "ids"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in ("lock", "load"):
        (path / name).unlink(missing_ok=True)


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file or a folder from another of its name, as long as it is there; None if there is none."""
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_dev, found.st_ino
    return None


def write_durably(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
