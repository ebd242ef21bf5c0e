"""One segment of the log: an LMDB file with a state and numbered batches.

LMDB brings atomic, durable commits that any number of processes can share, and checks nothing of what it reads: a broken
page can crash the process. So every value here carries a checksum of its own, a file's structure is verified before LMDB is
let near it, and the numbers of the batches must be consecutive.
"""

import ctypes
import errno
import os
import struct
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
from lmdb import verify

from latewood.errors import CorruptionError
from latewood.mutable.log import LogState

STATE = b"state"
NUMBER = b"number"  # the segment's own: a file in another's place is found out
# The start of a page of LMDB 0.9 that holds a meta: page header, magic and version, map address and size, page size (kept
# in the free list's record), the rest of both records, last page, commit number
_META = struct.Struct("=16s24sI92sQQ")
_HEADROOM = 1 << 16
_READERS_MAX = 1022  # read transactions at a time, of all processes
_LOCK_BYTES = 1 << 16  # of the table of so many readers
_BROKEN = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.PanicError, lmdb.InvalidError, lmdb.VersionMismatchError)


@contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """LMDB's errors as ours: damage is a CorruptionError, anything the system refused an OSError."""
    try:
        yield
    except (lmdb.MapFullError, lmdb.MapResizedError):
        raise
    except lmdb.Error as error:
        raise _translated(error, path) from error


def _translated(error: lmdb.Error, path: Path) -> Exception:
    if isinstance(error, _BROKEN):
        return CorruptionError(f"{path}: {error}")
    return OSError(errno.ENOSPC if isinstance(error, lmdb.DiskError) else errno.EIO, str(error), str(path))


def batch_key(number: int) -> bytes:
    return b"b" + number.to_bytes(8, "big")


def number_record(number: int) -> bytes:
    return number.to_bytes(8, "big")


def verify_structure(path: Path) -> None:
    """Walk the pages of a file that nobody is writing to. Raises: CorruptionError: it is broken or cut off."""
    try:
        problems = verify.verify(str(path), subdir=False)
    except verify.VerifyError as error:
        problems = [str(error)]
    except Exception as error:  # the walker met what it did not foresee
        problems = [repr(error)]
    problems = problems or verify_turns(path)
    if problems:
        raise CorruptionError(f"segment {path}: {problems[0]}")


def verify_turns(path: Path) -> list[str]:
    """Whether the two meta pages are those of the last two commits.

    Commits take turns between the pages and the later one counts. Damage that makes it look older, or unlike a meta page,
    would take the last commit back without a word.
    """
    with path.open("rb") as file:
        first = file.read(_META.size)
        page_bytes = _META.unpack(first)[2]
        file.seek(page_bytes)
        second = file.read(_META.size)
    turns = [_META.unpack(page)[-1] for page in (first, second)]
    if turns == [0, 0] or (turns[0] % 2 == 0 and abs(turns[0] - turns[1]) == 1):
        return []
    return [f"its meta pages are of commits {turns[0]} and {turns[1]}"]


def _reserve_lock(path: Path) -> None:
    """Make room for LMDB's table of readers, which it writes through a map: on a full disk that would kill the process.

    The caller holds the log's lock, so that nobody else makes the file meanwhile.
    """
    with path.with_name(path.name + "-lock").open("ab", buffering=0) as file:
        while (missing := _LOCK_BYTES - file.tell()) > 0:
            file.write(bytes(missing))


class SegmentFile:
    """An open segment.

    Args:
        path: the file; its lock file lies beside it.
        number: the segment's.
        map_size: bytes to map at least; None opens a sealed segment for reading only.
        remap: called when another process made the file outgrow what is mapped here.
    """

    def __init__(self, path: Path, number: int, map_size: int | None, remap: "Callable[[SegmentFile], None]") -> None:
        self.path, self.number, self._remap, self._record = path, number, remap, number_record(number)
        _reserve_lock(path)
        with lmdb_errors(path):
            self.env = lmdb.open(
                str(path),
                subdir=False,
                readonly=map_size is None,
                map_size=map_size or 0,
                max_readers=_READERS_MAX,
                max_spare_txns=1,
                readahead=map_size is None,
            )
            _open_files.add(self)
            self.env.reader_check()  # a reader that was killed keeps pages from being reused
        self._page_bytes = int(self.env.stat()["psize"])
        self._known_bytes = 0  # how long the file is at least: it never gets shorter
        self._check_size()

    def _check_size(self) -> None:
        """LMDB maps more than the file: touching a page past its end would kill the process."""
        used = self._used()
        size = self.path.stat().st_size  # asked for last: another process's commit makes the file longer
        if size < used:
            self.env.close()
            raise CorruptionError(f"segment {self.path}: it is cut off, {size} bytes of {used}")

    def _used(self) -> int:
        """Bytes of the pages up to the last one in use, as of the last commit."""
        return int(self.env.info()["last_pgno"] + 1) * self._page_bytes

    def make_room(self, size: int) -> None:
        """Before a commit of `size` bytes: let the file end past its last page.

        LMDB leaves pages at the end unwritten that were freed before they were committed; a file that is too short is
        then no longer a sign of damage, which it should stay.
        """
        needed = self._used() + 2 * size + _HEADROOM
        if self._known_bytes < needed:
            self._known_bytes = self.path.stat().st_size
        if self._known_bytes < needed:
            longer = -(-(needed + needed // 8) // 4096) * 4096
            os.truncate(self.path, longer)
            self._known_bytes = longer

    @contextmanager
    def reading(self) -> Iterator["lmdb.Transaction[bytes]"]:
        """A read transaction. The caller holds the log's lock, since mapping anew ends every other one."""
        with lmdb_errors(self.path):
            while True:
                try:
                    transaction = self.env.begin()
                    break
                except lmdb.MapResizedError:
                    self._remap(self)
            with transaction:
                yield transaction

    def state(self) -> bytes | None:
        """The state as of the last commit. Raises: CorruptionError: it is another segment's."""
        data, number = self._heads()
        if data is not None and number != self._record:
            raise CorruptionError(f"segment {self.path}: it is not the segment of that number")
        return data

    def _heads(self) -> tuple[bytes | None, bytes | None]:
        """The state and the number. Every capture reads them, so no `reading`, which takes longer than to read."""
        while True:
            try:
                with self.env.begin() as transaction:
                    return transaction.get(STATE), transaction.get(NUMBER)
            except lmdb.MapResizedError:
                self._remap(self)
            except lmdb.Error as error:
                raise _translated(error, self.path) from error

    def decode_state(self, data: bytes | None) -> LogState:
        if data is None:
            raise CorruptionError(f"segment {self.path}: it has no state")
        return LogState.from_bytes(data, f"segment {self.path}")

    def batches(self, first: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The batches [first, stop), all of them. Raises: CorruptionError: one is missing; it names it."""
        expected = first
        with self.reading() as transaction:
            cursor = transaction.cursor()
            found = cursor.set_range(batch_key(first))
            while found and expected < stop:
                key, value = cursor.item()
                if key != batch_key(expected):
                    break
                yield expected, value
                expected += 1
                found = cursor.next()
        if expected < stop:
            raise CorruptionError(f"segment {self.path}: batch {expected} is missing")

    def close(self) -> None:
        self.env.close()


_open_files: "weakref.WeakSet[SegmentFile]" = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Keep for ever what a forked process has inherited: LMDB closes what is let go of, and with it gives away the places
    among the readers that are the parent's."""
    for file in _open_files:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(file.env))


os.register_at_fork(after_in_child=_leave_to_parent)
