"""Event ids that outlive their events: how a repeated append is known after its first copy was evicted (R14).

A run is the ids of some evicted batches, sorted, with what a duplicate's receipt needs. Runs are merged as they come,
so that there are about `RUNS` for the whole window, and forgotten whole once the window has passed them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from latewood.errors import CorruptionError

RUNS = 8
_COLUMNS = {"high": "<u8", "low": "<u8", "content": "<u8", "ingest_ts": "<i8", "ordinal": "<i4"}
_MAGIC = b"LWid0001"


@dataclass(frozen=True, slots=True)
class IdRun:
    """Sorted ids. Shapes: the columns (n,). Units: µs; `earliest` and `latest` say by when the ids were given."""

    earliest: int
    latest: int
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    content: NDArray[np.uint64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def sort(cls, high: Any, low: Any, content: Any, ingest_ts: Any, ordinal: Any, *, latest: int) -> "IdRun":
        """A run of these ids, all of them given by `latest`."""
        return cls(latest, latest, *_sorted([high, low, content, ingest_ts, ordinal]))

    def merge(self, other: "IdRun") -> "IdRun":
        both = [np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS]
        return IdRun(min(self.earliest, other.earliest), max(self.latest, other.latest), *_sorted(both))

    def find(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Each id's place in the run, -1 where unknown."""
        n = len(self)
        found = np.full(len(high), -1, np.int64)
        if not n:
            return found
        place = np.searchsorted(self.high, high)
        while True:  # more than one round only where the first halves of ids collide
            here = np.minimum(place, n - 1)
            same = (place < n) & (self.high[here] == high)
            hit = same & (self.low[here] == low)
            found[hit] = here[hit]
            if not (same & ~hit).any():
                return found
            place = np.where(same & ~hit, place + 1, n)

    def to_bytes(self) -> bytes:
        head = np.array([self.earliest, self.latest, len(self)], "<i8").tobytes()
        body = b"".join([_MAGIC, head, *(getattr(self, name).tobytes() for name in _COLUMNS)])
        return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "IdRun":
        """The inverse. Raises: CorruptionError: not those bytes; the message says `where`."""
        body = data[:-8]
        if body[:8] != _MAGIC or xxhash.xxh3_64_intdigest(body).to_bytes(8, "little") != data[-8:]:
            raise CorruptionError(f"{where}: the checksum of the event ids differs")
        earliest, latest, count = np.frombuffer(body, "<i8", 3, 8).tolist()
        columns, offset = [], 32
        for dtype in _COLUMNS.values():
            columns.append(np.frombuffer(body, dtype, count, offset))
            offset += columns[-1].nbytes
        return cls(earliest, latest, *columns)


def remember(runs: list[IdRun], run: IdRun, last: int, window_us: int) -> list[IdRun]:
    """The runs to keep when another comes: those within the window, the newest few merged."""
    kept = [old for old in runs if last - old.latest <= window_us]
    if not len(run):
        return kept
    if kept and run.latest - kept[-1].earliest <= window_us // RUNS:
        return [*kept[:-1], kept[-1].merge(run)]
    return [*kept, run]


def _sorted(columns: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """In order, and each id once: a crash between writing a run and deleting the segment brings it twice."""
    order = np.lexsort((columns[1], columns[0]))
    high, low = columns[0][order], columns[1][order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    return [np.ascontiguousarray(column[order[new]]) for column in columns]
