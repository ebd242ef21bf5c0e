"""Admitting one append: which rows are new, what time they get, and their place among ties. No I/O.

In order: rows that repeat an event_id drop out (R14), explicit ingest times are checked (R7), the rest is stamped (R1,
R5), and the arena takes the rows in as pending.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.errors import ConflictError
from latewood.events import Events
from latewood.mutable import rules
from latewood.mutable.arena import Arena
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.event_ids import IdRun
from latewood.mutable.tier import AppendReceipt, Late, TierState


@dataclass(slots=True)
class Appending:
    """One call of `append`, waiting for its turn."""

    events: Events
    ids: NDArray[np.uint64] | None
    content: NDArray[np.uint64] | None
    explicit: bool
    late: Late
    now: int
    max_ahead_us: int
    outcome: AppendReceipt | BaseException | None = None


def admit(
    appending: Appending, state: TierState, arena: Arena, runs: list[IdRun]
) -> tuple[EventBatch | None, AppendReceipt]:
    """Enter the new rows of an append in the arena, pending.

    Returns: what the log must keep (None if every row is a duplicate), and the receipt.
    Raises: ConflictError: naming the row; the arena is as before.
    """
    n = len(appending.events)
    ingest_ts, ordinal = np.empty(n, np.int64), np.empty(n, np.int32)
    repeats = _Repeats.find(appending, arena, runs)
    rows = np.arange(n) if repeats is None else np.flatnonzero(repeats.found == -1)
    batch = None
    if len(rows):
        batch, users = _stamp(appending, rows, state, arena)
        ingest_ts[rows] = batch.events.ingest_ts
        ordinal[rows] = arena.add(batch, users, place_ties=True)
        batch.events.ordinal[:] = ordinal[rows]
    if repeats is not None:
        repeats.fill(ingest_ts, ordinal, arena)
    return batch, AppendReceipt(len(rows), n - len(rows), 0, ingest_ts, ordinal)


def _stamp(
    appending: Appending, rows: NDArray[np.int64], state: TierState, arena: Arena
) -> tuple[EventBatch, NDArray[np.int64]]:
    """The new rows with their ingest times, and their user numbers."""
    events = appending.events if len(rows) == len(appending.events) else appending.events.take(rows)
    n, now = len(rows), appending.now
    if appending.explicit:
        ingest_ts = events.ingest_ts.copy()
        stamped = rules.late_rows(state, ingest_ts, appending.late, rows)
        rules.check_not_ahead(ingest_ts[~stamped], now, appending.max_ahead_us, rows[~stamped])
    else:
        ingest_ts, stamped = np.empty(n, np.int64), np.ones(n, np.bool_)
    kept = ingest_ts[~stamped]
    users = arena.assign(events)
    if len(kept) < n:
        ranks = arena.rank(users, stamped)
        ingest_ts[stamped] = rules.first_stamp(state, now, kept) + ranks[stamped]
        rules.check_not_ahead(ingest_ts[stamped], now, appending.max_ahead_us, rows[stamped])
    ids, content = appending.ids, appending.content
    if ids is not None and content is not None:
        ids, content = ids[rows], content[rows]
    return EventBatch(events.stamped(ingest_ts, np.zeros(n, np.int32)), ids, content), users


@dataclass(slots=True)
class _Repeats:
    """The rows that repeat an event id.

    `found` per row: -1 new; ≥ 0 a row of the arena; -2 - j row j of the batch; where `run` ≥ 0, a place in that run of
    evicted ids instead.
    """

    found: NDArray[np.int64]
    run: NDArray[np.int64]
    runs: list[IdRun]

    @classmethod
    def find(cls, appending: Appending, arena: Arena, runs: list[IdRun]) -> "_Repeats | None":
        """None where nothing repeats. Raises: ConflictError: an id with other content than before."""
        if appending.ids is None or appending.content is None:
            return None
        found, conflict = arena.match(appending.ids, appending.content)
        run = np.full(len(found), -1, np.int64)
        conflicts = [conflict] if conflict >= 0 else []
        for number, known in enumerate(runs):
            unknown = np.flatnonzero((found < 0) & (run < 0) & appending.ids.any(axis=1))
            place = known.find(appending.ids[unknown, 0], appending.ids[unknown, 1])
            unknown, place = unknown[place >= 0], place[place >= 0]
            other = known.content[place] != appending.content[unknown]
            conflicts += unknown[other][:1].tolist()
            found[unknown], run[unknown] = place, number
        if conflicts:
            raise ConflictError(f"row {min(conflicts)}: its event_id was used for an event with other content")
        return None if (found == -1).all() else cls(found, run, runs)

    def fill(self, ingest_ts: NDArray[np.int64], ordinal: NDArray[np.int32], arena: Arena) -> None:
        """Give each repeated row the ingest time and ordinal of its original."""
        known = np.flatnonzero((self.found >= 0) & (self.run < 0))
        ingest_ts[known], ordinal[known] = arena.stamps_of(self.found[known])
        for number, run in enumerate(self.runs):
            rows = np.flatnonzero(self.run == number)
            ingest_ts[rows], ordinal[rows] = run.ingest_ts[self.found[rows]], run.ordinal[self.found[rows]]
        within = np.flatnonzero(self.found <= -2)
        originals = -2 - self.found[within]
        ingest_ts[within], ordinal[within] = ingest_ts[originals], ordinal[originals]
