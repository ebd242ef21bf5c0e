"""Rows: what is encoded anew of some users, merged, and what is then done to it: marking, forgetting, letting expire. Pure.

Everything here is exact where the plan only knew the index: which rows a suppression names, a scrub takes, a horizon or
a count cuts off.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import TraitColumn
from latewood.compaction.bisect import bisect
from latewood.compaction.plan import locate
from latewood.events import NEVER, Events, Suppressions
from latewood.stripes import DELAY, EVENT_TS, ORDINAL, plain
from latewood.users import UserKeys


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of consecutive users, each user's in the total order.

    Shapes: offsets (users + 1,); columns: event_ts, delay, ordinal and the traits, (rows,) each; superseded_at (rows,), or
    None where no event is.
    """

    offsets: NDArray[np.int64]
    columns: list[TraitColumn]
    superseded_at: NDArray[np.int64] | None = None

    @property
    def event_ts(self) -> NDArray[np.int64]:
        return self.built_in(EVENT_TS)

    def built_in(self, place: int) -> NDArray[Any]:
        """The values of event_ts, delay or ordinal."""
        return plain(self.columns[place]).values

    def without(self, gone: NDArray[np.bool_]) -> "Rows":
        """The rows that are not `gone`. A user may be left with none."""
        kept = ~gone
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        columns = [column.take(kept) for column in self.columns]
        superseded_at = None if self.superseded_at is None else self.superseded_at[kept]
        return Rows(before[self.offsets], columns, superseded_at)

    def as_events(self, keys: UserKeys) -> Events:
        """Which events they are: nothing but their places."""
        users = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        ingest_ts = self.event_ts + self.built_in(DELAY)
        return Events(pa.nulls(len(users)), keys.take(users), self.event_ts, ingest_ts, self.built_in(ORDINAL), {})


def marked(rows: Rows, keys: UserKeys, suppressions: Suppressions) -> Rows:
    """With `superseded_at` where a suppression names a row, the earliest of several.

    What a suppression names may be gone: expired or forgotten.
    """
    user, known = locate(keys, suppressions.keys)
    suppressions = suppressions.take(np.flatnonzero(known))
    if not len(suppressions) or not len(rows.event_ts):
        return rows
    row = find_rows(rows, user[known], suppressions)
    superseded_at = np.full(len(rows.event_ts), NEVER) if rows.superseded_at is None else rows.superseded_at.copy()
    np.minimum.at(superseded_at, row[row >= 0], suppressions.at[row >= 0])
    return replace(rows, superseded_at=superseded_at)


def expired(
    rows: Rows, complete: NDArray[np.bool_], horizon: int | None, max_events: int | None
) -> NDArray[np.bool_] | None:
    """Which rows are too old or too many, of the users whose rows are complete; None if none is (docs/protocol.md R15).

    A user's oldest, and never a part of those of one event_ts. Shapes: (users,) → (rows,).
    """
    start, stop = rows.offsets[:-1], rows.offsets[1:]
    cut = start.copy()
    if max_events is not None:
        over = np.flatnonzero(complete & (stop - start > max_events))
        oldest_kept = rows.event_ts[stop[over] - max_events]
        cut[over] = rows_before(rows, over, oldest_kept)
    if horizon is not None:
        users = np.flatnonzero(complete)
        cut[users] = np.maximum(cut[users], rows_before(rows, users, np.full(len(users), horizon)))
    if (cut == start).all():
        return None
    # a user's rows before its cut, all at once: one up where they begin, one down where they end
    steps = np.zeros(len(rows.event_ts) + 1, np.int64)
    np.add.at(steps, start, 1)
    np.subtract.at(steps, cut, 1)
    return np.cumsum(steps[:-1]) > 0


def rows_before(rows: Rows, users: NDArray[np.int64], event_ts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each user that is not before a time."""
    return bisect(rows.offsets[users], rows.offsets[users + 1], lambda row: rows.event_ts[row] < event_ts)


def find_rows(rows: Rows, users: NDArray[np.int64], events: Suppressions) -> NDArray[np.int64]:
    """The row of each event of a user, -1 where there is none: looked for in the total order."""
    event_ts, delay, ordinal = (rows.built_in(column) for column in (EVENT_TS, DELAY, ORDINAL))
    wanted = events.ingest_ts - events.event_ts

    def is_before(row: NDArray[np.int64]) -> NDArray[np.bool_]:
        tied = event_ts[row] == events.event_ts
        earlier = (delay[row] < wanted) | ((delay[row] == wanted) & (ordinal[row] < events.ordinal))
        return (event_ts[row] < events.event_ts) | (tied & earlier)

    stop = rows.offsets[users + 1]
    row = bisect(rows.offsets[users], stop, is_before)
    at = np.minimum(row, len(event_ts) - 1)
    same = (event_ts[at] == events.event_ts) & (delay[at] == wanted) & (ordinal[at] == events.ordinal)
    return np.where((row < stop) & same, row, -1)
