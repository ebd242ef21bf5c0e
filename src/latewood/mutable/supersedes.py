"""Which rows of a table of events are newer versions of earlier ones, and of which (docs/protocol.md R13).

And what is known of an event's newer version: an event has one at most.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS
from latewood.events import NEVER

GONE = -1  # the ordinal of a newer version that is no event: a deletion, or one that was forgotten
SEVERAL = -2  # ... of one that its time does not tell from others of its user


@dataclass(frozen=True, slots=True)
class Places:
    """Places in the total order, of the row's own user. Shapes: (n,), zero where a row has none."""

    event_ts: NDArray[np.int64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]

    def take(self, rows: NDArray[np.int64]) -> "Places":
        return Places(self.event_ts[rows], self.ingest_ts[rows], self.ordinal[rows])


@dataclass(frozen=True, slots=True)
class Supersedes:
    """Which of n rows supersede an event, and how each names it: all by event id, or all by place.

    Shapes: chosen and deletions (n,) bool, ids (n, 2) uint64, as `hash_ids` makes them.
    """

    chosen: NDArray[np.bool_]  # the row takes the place of an earlier event
    deletions: NDArray[np.bool_]  # ... and is none itself: its event_ts and its traits mean nothing
    ids: NDArray[np.uint64] | None = None  # the event id of what is superseded, where `chosen`
    places: Places | None = None  # or its place

    def __post_init__(self) -> None:
        if (self.ids is None) == (self.places is None):
            raise ValueError("what is superseded is named by ids= or by places=")
        if (self.deletions & ~self.chosen).any():
            raise ValueError("a deletion supersedes something")

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, rows: NDArray[np.int64]) -> "Supersedes":
        return Supersedes(
            self.chosen[rows],
            self.deletions[rows],
            None if self.ids is None else self.ids[rows],
            None if self.places is None else self.places.take(rows),
        )


@dataclass(frozen=True, slots=True)
class Newer:
    """The version that took the place of each of n events. Shapes: (n,). Units: µs.

    A correction is told by its time, at which its user has an event, from a deletion. So where imported times tie, a
    deletion may be taken for a correction, but never the other way round.
    """

    at: NDArray[np.int64]  # its ingest time; NEVER: the event has no newer version
    event_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]  # or GONE, or SEVERAL

    @classmethod
    def none(cls, n: int) -> "Newer":
        return cls(np.full(n, NEVER), np.zeros(n, np.int64), np.full(n, GONE, np.int32))

    def take(self, rows: NDArray[np.int64]) -> "Newer":
        return Newer(self.at[rows], self.event_ts[rows], self.ordinal[rows])

    def put(self, rows: NDArray[np.int64], newer: "Newer") -> None:
        self.at[rows], self.event_ts[rows], self.ordinal[rows] = newer.at, newer.event_ts, newer.ordinal


@dataclass(frozen=True, slots=True)
class StoredTargets:
    """What a generation says of events that are in the mutable tier no more, and that rows of a table supersede.

    Shapes: rows, places, newer, forgotten (m,).
    """

    watermark: int  # the generation knows of every version that was ingested before it
    rows: NDArray[np.int64]  # of the table
    places: Places
    newer: Newer
    forgotten: NDArray[np.bool_]  # not there: a scrub took it

    @classmethod
    def unseen(cls) -> "StoredTargets":
        """Before anybody has looked."""
        times, ordinal = np.zeros(0, np.int64), np.zeros(0, np.int32)
        return cls(EARLIEST_TS, times, Places(times, times, ordinal), Newer.none(0), np.zeros(0, np.bool_))

    def are_of(self, rows: NDArray[np.int64], places: Places) -> bool:
        """Whether these are the events that the rows supersede."""
        ours, theirs = self.places, places
        return (
            np.array_equal(self.rows, rows)
            and np.array_equal(ours.event_ts, theirs.event_ts)
            and np.array_equal(ours.ingest_ts, theirs.ingest_ts)
            and np.array_equal(ours.ordinal, theirs.ordinal)
        )


def first_of_equal(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """For each row the first one that is equal to it in every column. Shapes: (n,) each → (n,)."""
    n = len(columns[0])
    order = np.lexsort(columns)  # stable: of equal rows the first comes first
    new = np.ones(n, np.bool_)
    new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    first = np.empty(n, np.int64)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(n), 0))]
    return first
