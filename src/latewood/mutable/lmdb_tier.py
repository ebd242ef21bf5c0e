"""The mutable tier in a local directory: durable, shared by threads and processes."""

import os
import threading
import weakref
from collections import Counter
from pathlib import Path

import pyarrow as pa

from latewood.mutable.book import ScrubBook
from latewood.mutable.logged_tier import DEFAULTS, LoggedTier, Settings
from latewood.mutable.segmented_log import MAP_SIZE, SegmentedLog
from latewood.mutable.tier import WasPublished


class LmdbTier(LoggedTier):
    """A durable `MutableTier` over LMDB. Several may be open on one directory, in this process and in others.

    Args:
        path: the directory, on a local disk.
        user_type: the schema's user id type.
        settings: see `Settings`.
        create: make a new tier if there is none yet.
        was_published: decides whether the generation of a bulk load's token came to be; asked when its owner died.
        scrubs: the book of scrubs; None: a tier that knows of none.
        map_size: what is mapped of a segment at first; it grows as needed.
    Raises: StoreNotFoundError: there is no tier and `create` is false. CorruptionError: a file is damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        user_type: pa.DataType,
        settings: Settings = DEFAULTS,
        *,
        create: bool = True,
        was_published: WasPublished | None = None,
        scrubs: ScrubBook | None = None,
        map_size: int = MAP_SIZE,
    ) -> None:
        log = self._opened = _LOGS.open(Path(path), create, map_size)
        self._release = weakref.finalize(self, _LOGS.close, log)  # a tier that is dropped without close lets go too
        try:
            super().__init__(log, user_type, settings, was_published, scrubs)
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        if not self._opened.is_inherited:  # the parent closes it
            super().close()

    def _close_log(self) -> None:
        self._release()


class _OpenLogs:
    """The logs this process has open, each once, whoever uses it: LMDB must not open a file twice in a process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: the garbage collector may close a log while another is opened
        self._open: dict[str, SegmentedLog] = {}
        self._users: Counter[SegmentedLog] = Counter()

    def open(self, path: Path, create: bool, map_size: int) -> SegmentedLog:
        with self._lock:
            real = os.path.realpath(path)
            log = self._open.get(real)
            if log is not None:
                log.check_process()
                self._users[log] += 1  # before asking, so that the garbage collector cannot close it any more
                if log.is_there() and not log.closed:
                    return log
                self.close(log)
            log = self._open[real] = SegmentedLog(Path(real), create=create, map_size=map_size)
            self._users[log] += 1
            return log

    def close(self, log: SegmentedLog) -> None:
        if log.is_inherited:  # the parent closes it
            return
        with self._lock:
            self._users[log] -= 1
            if not self._users[log]:
                del self._users[log]
                if self._open.get(str(log.path)) is log:
                    del self._open[str(log.path)]
                if not log.closed:
                    log.close()


_LOGS = _OpenLogs()
