"""How a compaction or a bulk load goes about its work: settings that change its cost, never its result."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

from latewood.errors import SchemaError
from latewood.schema import Schema

Progress = Callable[[int, int], None]
"""Called with (events done, events in all) while shards are written; from any thread, one call at a time."""

MEMORY_BYTES = 1 << 30
_READ_SHARE = 4  # held, copied once to bring it into buckets, and room for the input
_MERGE_SHARE = 16  # a run's rows as read, sorted, decoded beside it, merged, encoded; the means to do so; the index
_LIST_BYTES, _ITEMS = 13, 8  # of a list, besides its items; and how many these are if nobody knows
_ROWS_MIN = 4096  # smaller runs would spend their time on calls,
_LONG_BYTES = 4096  # unless rows are so long
_ROWS_MAX = 1 << 23  # larger ones gain nothing, and the offsets of an Arrow string array end at 2 GiB


@dataclass(frozen=True, slots=True)
class Settings:
    """Tunable values.

    Args:
        workers: shards that are written at the same time, each by a thread; 0: one per processor.
        memory_bytes: what all of them together may hold, about, beside what the mutable tier has in memory. A user's
            events are never split while they are merged, so that one user of extreme length needs what it needs.
        keep: generations whose files stay, for readers that are behind.
        spill_directory: where a bulk load's events go that do not fit into memory; None is the system's place for
            temporary files.
    Raises: SchemaError: not a number of generations. Said before anything is built, since it counts only afterwards.
    """

    workers: int = 0
    memory_bytes: int = MEMORY_BYTES
    keep: int = 2
    spill_directory: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.keep, Integral) or self.keep < 1:
            raise SchemaError(f"keep is {self.keep!r}; the newest generation is always kept")

    @property
    def threads(self) -> int:
        """Workers, counted."""
        return self.workers if self.workers > 0 else _processors()

    @property
    def added_bytes(self) -> int:
        """A bulk load's events that are held in memory before they are spilled; what sorting a view may take, too."""
        return self.memory_bytes // _READ_SHARE

    def rows_max(self, schema: Schema, item_bytes: int = 0) -> int:
        """Rows that one worker merges at once.

        Args: item_bytes: of the lists of one event, on the average, as far as that is known.
        """
        traits = sum(trait.dtype.itemsize + trait.nullable for trait in schema if not trait.is_list)
        lists = [trait for trait in schema if trait.is_list]
        expected = sum((trait.list_size or _ITEMS) * trait.dtype.itemsize for trait in lists)
        traits += len(lists) * _LIST_BYTES + max(expected, item_bytes)
        row_bytes = 72 + traits  # keys, times, ordinal, user id, when it was superseded
        rows = self.memory_bytes // (_MERGE_SHARE * row_bytes * self.threads)
        least = max(_ROWS_MIN // (1 + row_bytes // _LONG_BYTES), 1)
        return min(max(rows, least), _ROWS_MAX)


class Meter:
    """Adds up what all workers have done, and tells."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total = progress, total
        self._done = 0
        self._lock = threading.Lock()

    def add(self, events: int) -> None:
        if not events:
            return
        with self._lock:
            self._done += events
            if self._progress is not None:
                self._progress(self._done, self._total)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
