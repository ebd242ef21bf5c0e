"""Which rows of a table of events are newer versions of earlier ones, and of which (docs/protocol.md R13)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
