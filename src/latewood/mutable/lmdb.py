"""The mutable tier in a local directory: durable, shared by threads and processes."""

import os
import threading
from pathlib import Path

import pyarrow as pa

from latewood.mutable.logged import DEFAULTS, LoggedTier, Settings
from latewood.mutable.segmented import MAP_SIZE, SegmentedLog
from latewood.mutable.tier import WasPublished


class LmdbTier(LoggedTier):
    """A durable `MutableTier` over LMDB. Several may be open on one directory, in this process and in others.

    Args:
        path: the directory, on a local disk.
        user_type: the schema's user id type.
        settings: see `Settings`.
        create: make a new tier if there is none yet.
        was_published: tells whether the generation of a bulk load's token came to be; asked when its owner died.
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
        map_size: int = MAP_SIZE,
    ) -> None:
        self._key, log = _LOGS.open(Path(path), create, map_size)
        try:
            super().__init__(log, user_type, settings, was_published)
        except BaseException:
            _LOGS.close(self._key)
            raise

    def _close_log(self) -> None:
        _LOGS.close(self._key)


class _OpenLogs:
    """The logs this process has open, each once, whoever uses it: LMDB must not open a file twice in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[SegmentedLog, int]] = {}

    def open(self, path: Path, create: bool, map_size: int) -> tuple[str, SegmentedLog]:
        with self._lock:
            key = os.path.realpath(path)
            log, users = self._open.get(key) or (SegmentedLog(Path(key), create=create, map_size=map_size), 0)
            self._open[key] = log, users + 1
            return key, log

    def close(self, key: str) -> None:
        with self._lock:
            log, users = self._open.pop(key)
            if users > 1:
                self._open[key] = log, users - 1
            else:
                log.close()


_LOGS = _OpenLogs()
