"""Event ids that outlive their events: how a repeated append is known after its first copy was evicted (R14).

A run is the ids of some evicted batches, sorted, with what a duplicate's receipt needs, and with where the event stands,
for a correction that names it by its id (R13). An id may have several versions, with the content of each, in the order of
their arrival. Runs are merged as they come, so that there are about `RUNS` for the whole window, and forgotten whole once
the window has passed them. After a scrub nothing is left of its events but the hashes of id and content (R16).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from latewood.errors import CorruptionError, SchemaError
from latewood.events import Events
from latewood.mutable.book import ScrubBook
from latewood.users import UserKeys

RUNS = 8
NO_EVENT = -1  # the ordinal of a version that is a deletion, or was scrubbed
_COLUMNS = {
    "high": "<u8",
    "low": "<u8",
    "content": "<u8",
    "ingest_ts": "<i8",
    "ordinal": "<i4",
    "event_ts": "<i8",
    "user_hash": "<u8",
    "user_check": "<u8",
}
VERSION = 2
_MAGIC = b"LWid"


@dataclass(frozen=True, slots=True)
class IdRun:
    """Sorted ids. Shapes: the columns (n,). Units: µs; `earliest` and `latest` say by when the ids were given."""

    earliest: int
    latest: int
    scrubs: int  # how many scrubs of the book it has been through
    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    content: NDArray[np.uint64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]  # NO_EVENT: the three that follow are zero
    event_ts: NDArray[np.int64]
    user_hash: NDArray[np.uint64]
    user_check: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.high)

    @classmethod
    def sort(cls, columns: dict[str, Any], *, latest: int) -> "IdRun":
        """A run of these ids, in the order of their arrival, all of them given by `latest`."""
        return cls(latest, latest, 0, *_sorted([columns[name] for name in _COLUMNS]))

    def merge(self, other: "IdRun") -> "IdRun":
        """With the ids of a run that came later."""
        both = [np.concatenate([getattr(self, name), getattr(other, name)]) for name in _COLUMNS]
        times = min(self.earliest, other.earliest), max(self.latest, other.latest)
        return IdRun(*times, min(self.scrubs, other.scrubs), *_sorted(both))

    def find(
        self, high: NDArray[np.uint64], low: NDArray[np.uint64], content: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Each id's version of this content, -1 where there is none; and whether the id is known at all."""
        found, known = np.full(len(high), -1, np.int64), np.zeros(len(high), np.bool_)
        for asked, place in self._versions(high, low):
            known[asked] = True
            same = self.content[place] == content[asked]
            found[asked[same]] = place[same]
        return found, known

    def newest(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Each id's newest version that is an event, -1 where there is none."""
        found = np.full(len(high), -1, np.int64)
        for asked, place in self._versions(high, low):
            events = self.ordinal[place] != NO_EVENT
            found[asked[events]] = place[events]
        return found

    def _versions(self, high: NDArray[np.uint64], low: NDArray[np.uint64]) -> Any:
        """(which of the ids, its place) for the first versions of the ids, then for the second ones, and so on."""
        place = np.searchsorted(self.high, high) if len(self) else np.zeros(len(high), np.int64)
        asked = np.arange(len(high))
        while True:
            asked = asked[place[asked] < len(self)]
            asked = asked[self.high[place[asked]] == high[asked]]
            if not len(asked):
                return
            same = asked[self.low[place[asked]] == low[asked]]  # the first halves of ids may collide
            yield same, place[same]
            place[asked] += 1

    def forgetting(self, book: ScrubBook) -> "IdRun":
        """Without what the book's scrubs took, but for the hashes: a replay of it still is no new event."""
        count = len(book)
        gone = book.forgotten(self._events(), self.scrubs) & (self.ordinal != NO_EVENT)
        if not gone.any():
            return replace(self, scrubs=count)
        scrub_ts = book.scrubbed_at(UserKeys(self.user_hash, self.user_check))
        return replace(
            self,
            scrubs=count,
            ingest_ts=np.where(gone, scrub_ts, self.ingest_ts),
            ordinal=np.where(gone, np.int32(NO_EVENT), self.ordinal),
            event_ts=np.where(gone, np.int64(0), self.event_ts),
            user_hash=np.where(gone, np.uint64(0), self.user_hash),
            user_check=np.where(gone, np.uint64(0), self.user_check),
        )

    def _events(self) -> Events:
        """Where the events stand, as a book wants to be asked."""
        keys = UserKeys(self.user_hash, self.user_check)
        return Events(pa.nulls(len(self), pa.int64()), keys, self.event_ts, self.ingest_ts, self.ordinal, {})

    def to_bytes(self) -> bytes:
        head = np.array([self.earliest, self.latest, len(self), self.scrubs], "<i8").tobytes()
        columns = (np.ascontiguousarray(getattr(self, name), dtype).tobytes() for name, dtype in _COLUMNS.items())
        body = b"".join([_MAGIC, b"%04d" % VERSION, head, *columns])
        return body + xxhash.xxh3_64_intdigest(body).to_bytes(8, "little")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "IdRun":
        """The inverse.

        Raises: CorruptionError: not those bytes; the message says `where`. SchemaError: written by another version.
        """
        body = data[:-8]
        if body[:4] != _MAGIC or xxhash.xxh3_64_intdigest(body).to_bytes(8, "little") != data[-8:]:
            raise CorruptionError(f"{where}: the checksum of the event ids differs")
        if body[4:8] != b"%04d" % VERSION:
            raise SchemaError(
                f"{where}: event ids of format version {body[4:8].decode()}; this code reads {VERSION}. Without the file "
                f"the store goes on, and takes a repetition of what it names for a new event"
            )
        earliest, latest, count, scrubs = np.frombuffer(body, "<i8", 4, 8).tolist()
        columns, offset = [], 40
        for dtype in _COLUMNS.values():
            columns.append(np.frombuffer(body, dtype, count, offset))
            offset += columns[-1].nbytes
        return cls(earliest, latest, scrubs, *columns)


def remember(runs: list[IdRun], run: IdRun, last: int, window_us: int) -> list[IdRun]:
    """The runs to keep when another comes: those within the window, the newest few merged."""
    kept = [old for old in runs if last - old.latest <= window_us]
    if not len(run):
        return kept
    if kept and run.latest - kept[-1].earliest <= window_us // RUNS:
        return [*kept[:-1], kept[-1].merge(run)]
    return [*kept, run]


def _sorted(columns: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """By id, versions by arrival, and each once: a crash between writing a run and deleting the segment brings it twice."""
    high, low, content = columns[:3]
    same = np.lexsort((content, low, high))  # stable: of equal ones the first to arrive comes first
    new = np.ones(len(same), np.bool_)
    new[1:] = np.any([column[same[1:]] != column[same[:-1]] for column in (high, low, content)], axis=0)
    kept = np.sort(same[new])
    order = kept[np.lexsort((low[kept], high[kept]))]
    return [np.ascontiguousarray(column[order]) for column in columns]
