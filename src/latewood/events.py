"""A run of events as columns: what the tiers store, compaction merges and scans return.

Every column is fixed-width (strings and dictionaries are codes of the store's vocabulary; of lists, two numbers say where
the items are), so that kernels can work on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS
from latewood.columns import TraitColumn, concat_columns, null_column, nulls_like
from latewood.schema import Schema
from latewood.users import UserKeys, no_keys

PLACE = ("event_ts", "ingest_ts", "ordinal")  # what an event's place in the total order of its user's consists of
NEVER = 2**63 - 1  # the time at which an event is superseded that is not
NO_TIE = EARLIEST_TS - 1  # the ingest time of a request that is no event: before every event's at the same event_ts


@dataclass(frozen=True, slots=True)
class Events:
    """n events. Shapes: every column (n,). Units: µs since epoch, UTC.

    `ordinal` is an event's place by arrival among those of its user with equal (event_ts, ingest_ts): docs/protocol.md R1.
    """

    user_ids: pa.Array  # of the schema's user type
    keys: UserKeys
    event_ts: NDArray[np.int64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]
    traits: dict[int, TraitColumn]  # by trait id; a trait that is absent is null for all of these events
    superseded_at: NDArray[np.int64] | None = None  # by which ingest time a newer version replaced it, or NEVER (R13)

    def __len__(self) -> int:
        return len(self.event_ts)

    def take(self, rows: NDArray[np.int64]) -> "Events":
        return Events(
            self.user_ids.take(pa.array(rows)),
            self.keys.take(rows),
            self.event_ts[rows],
            self.ingest_ts[rows],
            self.ordinal[rows],
            {trait: column.take(rows) for trait, column in self.traits.items()},
            None if self.superseded_at is None else self.superseded_at[rows],
        )

    def slice(self, start: int, stop: int) -> "Events":
        """The rows from `start` to `stop`, as views."""
        return Events(
            self.user_ids.slice(start, stop - start),
            self.keys.slice(start, stop),
            self.event_ts[start:stop],
            self.ingest_ts[start:stop],
            self.ordinal[start:stop],
            {trait: column.slice(start, stop) for trait, column in self.traits.items()},
            None if self.superseded_at is None else self.superseded_at[start:stop],
        )

    def order(self) -> NDArray[np.int64]:
        """The rows sorted by user key and, within a user, by the total order (event_ts, ingest_ts, ordinal)."""
        keys = (self.ordinal, self.ingest_ts, self.event_ts, self.keys.check, self.keys.hash)
        return np.lexsort(keys).astype(np.int64, copy=False)

    def stamped(self, ingest_ts: NDArray[np.int64], ordinal: NDArray[np.int32]) -> "Events":
        return replace(self, ingest_ts=ingest_ts, ordinal=ordinal)

    def marked(self, suppressions: "Suppressions") -> "Events":
        """With `superseded_at` set where a suppression names the event; the earliest counts."""
        rows, of = _matches(self, suppressions)
        if not len(rows):
            return self
        known = self.superseded_at
        superseded_at = np.full(len(self), NEVER, np.int64) if known is None else known.copy()
        np.minimum.at(superseded_at, rows, suppressions.at[of])
        return replace(self, superseded_at=superseded_at)


@dataclass(frozen=True, slots=True)
class Suppressions:
    """n events that newer versions took the place of, corrections or deletions, by their places in the total order.

    Shapes: all (n,). Units: µs since epoch, UTC.
    """

    keys: UserKeys
    event_ts: NDArray[np.int64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]
    at: NDArray[np.int64]  # the ingest time of the version that supersedes

    def __len__(self) -> int:
        return len(self.at)

    def take(self, rows: NDArray[np.int64]) -> "Suppressions":
        places = self.event_ts[rows], self.ingest_ts[rows], self.ordinal[rows]
        return Suppressions(self.keys.take(rows), *places, self.at[rows])


def no_suppressions() -> Suppressions:
    """None."""
    times = np.zeros(0, np.int64)
    return Suppressions(no_keys(), times, times, np.zeros(0, np.int32), times)


def _matches(events: Events, suppressions: Suppressions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which events (rows) are named by which suppressions. Suppressions are few, and few events share their times."""
    nothing = np.zeros(0, np.int64), np.zeros(0, np.int64)
    if not len(events) or not len(suppressions):
        return nothing
    near = np.flatnonzero(
        np.isin(events.keys.hash, suppressions.keys.hash) & np.isin(events.event_ts, suppressions.event_ts)
    )
    if not len(near):
        return nothing
    places: dict[tuple[int, ...], list[int]] = {}
    for of, place in enumerate(_places(suppressions, slice(None))):
        places.setdefault(place, []).append(of)
    pairs = [
        (row, of)
        for row, place in zip(near.tolist(), _places(events, near), strict=True)
        for of in places.get(place, ())
    ]
    if not pairs:
        return nothing
    rows, named = np.array(pairs, np.int64).T
    return rows, named


def _places(of: Events | Suppressions, rows: Any) -> list[tuple[int, ...]]:
    columns = (*of.keys, of.event_ts, of.ingest_ts, of.ordinal)
    return list(zip(*(column[rows].tolist() for column in columns), strict=True))


def no_events(schema: Schema) -> Events:
    """A run of length 0, with every trait."""
    times = np.zeros(0, np.int64)
    traits = {trait.id: null_column(trait, 0) for trait in schema}
    return Events(pa.array([], schema.user_id), no_keys(), times, times, np.zeros(0, np.int32), traits)


def concat_events(parts: Sequence[Events]) -> Events:
    """Several runs as one, in the order given. A trait that a part lacks is null there."""
    if len(parts) == 1:
        return parts[0]
    kinds = {trait: column for part in parts for trait, column in part.traits.items()}
    return Events(
        pa.concat_arrays([part.user_ids for part in parts]),
        UserKeys(*(np.concatenate(halves) for halves in zip(*(part.keys for part in parts), strict=True))),
        np.concatenate([part.event_ts for part in parts]),
        np.concatenate([part.ingest_ts for part in parts]),
        np.concatenate([part.ordinal for part in parts]),
        {
            trait: concat_columns([part.traits.get(trait) or nulls_like(kind, len(part)) for part in parts])
            for trait, kind in kinds.items()
        },
        _concat_superseded(parts),
    )


def _concat_superseded(parts: Sequence[Events]) -> NDArray[np.int64] | None:
    if all(part.superseded_at is None for part in parts):
        return None
    return np.concatenate(
        [np.full(len(part), NEVER, np.int64) if part.superseded_at is None else part.superseded_at for part in parts]
    )
