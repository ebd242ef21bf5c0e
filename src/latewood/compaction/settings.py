"""How a compaction or a bulk load goes about its work: settings that change its cost, never its result."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from latewood.schema import Schema

Progress = Callable[[str, int, int | None], None]
"""Called with a stage ("read" or "write"), the events done and, where known, the events in all; from any thread."""

MEMORY_BYTES = 1 << 30
_READ_SHARE = 4  # held, copied once to bring it into buckets, and room for the input
_MERGE_COPIES = 4  # of a run's rows: as read, as sorted, merged with the old ones, encoded
_ROWS_MIN = 4096  # smaller runs would spend their time on calls


@dataclass(frozen=True, slots=True)
class Settings:
    """Tunable values.

    Args:
        workers: shards that are written at the same time, each by a thread.
        memory_bytes: what all of them together may hold, about. A user's events are never split while they are merged,
            so that one user of extreme length needs what it needs.
        keep: generations whose files stay, for readers that are behind.
        spill_directory: where events go that do not fit into memory; None is the system's place for temporary files.
    """

    workers: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
    memory_bytes: int = MEMORY_BYTES
    keep: int = 2
    spill_directory: str | None = None

    @property
    def held_bytes(self) -> int:
        """New events held in memory before they are spilled."""
        return self.memory_bytes // _READ_SHARE

    def rows_max(self, schema: Schema) -> int:
        """Rows that one worker merges at once."""
        row_bytes = 64 + sum(trait.dtype.itemsize + trait.nullable for trait in schema)  # 64: keys, times, ordinal, user
        return max(_ROWS_MIN, self.memory_bytes // (2 * _MERGE_COPIES * row_bytes * self.workers))


class Meter:
    """Counts events of all workers and tells."""

    def __init__(self, progress: Progress | None, stage: str, total: int | None = None) -> None:
        self._progress, self._stage, self._total = progress, stage, total
        self._done = 0
        self._lock = threading.Lock()

    def add(self, events: int) -> None:
        with self._lock:
            self._done += events
            if self._progress is not None:
                self._progress(self._stage, self._done, self._total)
