"""Admitting one append: which rows are new, what time they get, and their place among ties. No I/O.

In order: rows of scrubbed users from before the scrub are skipped (R16), rows that repeat an event_id drop out (R14), what
the rest supersedes is found, which nothing did before (R13), explicit ingest times are checked (R7), the rest is stamped
(R1, R5), and the arena takes the rows in as pending.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latewood.errors import ConflictError
from latewood.events import Events, Suppressions
from latewood.mutable import rules
from latewood.mutable.arena import Arena
from latewood.mutable.event_batch import EventBatch, Versions
from latewood.mutable.event_ids import NO_EVENT
from latewood.mutable.superseded_once import DeletedAgain, check_superseded_once
from latewood.mutable.supersedes import StoredTargets, Supersedes
from latewood.mutable.targets import Known, Targets, find_targets
from latewood.mutable.tier import AppendReceipt, Late, StaleCodesError, StaleSchemaError


@dataclass(slots=True)
class Appending:
    """One call of `append`, waiting for its turn."""

    events: Events
    ids: NDArray[np.uint64] | None
    content: NDArray[np.uint64] | None
    supersedes: Supersedes | None
    explicit: bool
    late: Late
    changes: int | None
    blanked: int | None
    uncoded: NDArray[np.bool_] | None
    stored: StoredTargets | None
    now: int
    max_ahead_us: int
    outcome: AppendReceipt | BaseException | None = None


@dataclass(slots=True)
class _Entry:
    """What becomes of each row. Shapes: (n,)."""

    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]
    skipped: NDArray[np.bool_]

    def put(
        self,
        rows: NDArray[np.int64],
        *,
        ingest_ts: NDArray[np.int64] | None = None,
        ordinal: NDArray[np.int32] | None = None,
    ) -> None:
        """What became of these rows."""
        at = slice(None) if len(rows) == len(self.skipped) else rows  # all, as a rule: that needs no looking up
        if ingest_ts is not None:
            self.ingest_ts[at] = ingest_ts
        if ordinal is not None:
            self.ordinal[at] = ordinal


def admit(appending: Appending, known: Known) -> tuple[EventBatch | None, AppendReceipt]:
    """Enter the new rows of an append in the arena, pending.

    Returns: what the log must keep (None if no row is new), and the receipt.
    Raises: ConflictError: naming the row; StaleSchemaError; StaleCodesError; UnseenTargetsError. The arena is as before.
    """
    n = len(appending.events)
    if appending.changes is not None and appending.changes < known.state.tier.changes:
        raise StaleSchemaError(appending.changes, known.state.tier.changes)
    if appending.blanked is not None and appending.blanked != known.state.tier.blanked:
        raise StaleCodesError(appending.blanked, known.state.tier.blanked, known.state.blanking)
    entry = _skip(appending, known)
    repeats = _Repeats.find(appending, entry.skipped, known)
    fresh = ~entry.skipped if repeats is None else ~entry.skipped & (repeats.found == -1)
    targets = again = None
    if appending.supersedes is not None:
        targets, pointless = find_targets(appending.events, appending.ids, appending.supersedes, fresh, known)
        entry.skipped[pointless], fresh[pointless] = True, False
        targets, again, pointless = check_superseded_once(
            targets, appending.events, appending.supersedes, known, appending.stored
        )
        entry.skipped[pointless], fresh[pointless] = True, False
        fresh[again.rows] = False
    if appending.uncoded is not None and (appending.uncoded & fresh).any():
        raise StaleCodesError(appending.blanked, known.state.tier.blanked, known.state.blanking)
    batch = _enter(appending, np.flatnonzero(fresh), targets, entry, known) if fresh.any() else None
    if again is not None:
        _fill_deleted(entry, again)
    if repeats is not None:  # last: what is repeated may be a deletion of what was deleted
        repeats.fill(entry, known.arena)
    count, skipped = int(fresh.sum()), int(entry.skipped.sum())
    return batch, AppendReceipt(count, n - count - skipped, skipped, entry.ingest_ts, entry.ordinal)


def _fill_deleted(entry: _Entry, again: DeletedAgain) -> None:
    """Give each row that deletes what is deleted the time of the first deletion."""
    entry.ingest_ts[again.rows] = np.where(again.above >= 0, entry.ingest_ts[again.above], again.at)
    entry.ordinal[again.rows] = NO_EVENT


def _skip(appending: Appending, known: Known) -> _Entry:
    """With the rows skipped that tell of the time before their user's scrub: a topic that is replayed brings them back."""
    n = len(appending.events)
    entry = _Entry(np.zeros(n, np.int64), np.full(n, -1, np.int32), np.zeros(n, np.bool_))
    if known.book is not None and len(known.book):
        entry.ingest_ts = known.book.scrubbed_at(appending.events.keys)  # a skipped row keeps it
        entry.skipped = appending.events.event_ts < entry.ingest_ts
        if appending.supersedes is not None:
            entry.skipped &= ~appending.supersedes.deletions
    return entry


def _enter(
    appending: Appending, rows: NDArray[np.int64], targets: Targets | None, entry: _Entry, known: Known
) -> EventBatch:
    """Give the new rows their times and places, and put them in the arena."""
    events, arena = appending.events, known.arena
    chosen = events if len(rows) == len(events) else events.take(rows)
    users = arena.assign(chosen.keys, chosen.user_ids)
    ingest_ts = _stamp(appending, chosen, users, rows, known)
    entry.put(rows, ingest_ts=ingest_ts)
    ids, content = appending.ids, appending.content
    if targets is not None and appending.supersedes is not None:
        _check_earlier(targets, events, entry)
        is_event = ~appending.supersedes.deletions[rows]
        if not is_event.all():
            rows, users, ingest_ts = rows[is_event], users[is_event], ingest_ts[is_event]
            chosen = events.take(rows)
    if ids is not None and content is not None and len(rows) < len(events):
        ids, content = ids[rows], content[rows]
    batch = EventBatch(chosen.stamped(ingest_ts, np.zeros(len(rows), np.int32)), ids, content)
    # what is stamped ties with nothing: it is later than all that is here, and each of a user's rows than the one above
    ordinal = arena.add(batch, users, place_ties=appending.explicit)
    batch.events.ordinal[:] = ordinal
    entry.put(rows, ordinal=ordinal)
    if targets is None or not len(targets):
        return batch
    versions = _versions(appending, targets, entry)
    arena.supersede(versions, arena.assign(versions.suppressions.keys, versions.user_ids))
    return batch._replace(versions=versions)


def _stamp(
    appending: Appending, chosen: Events, users: NDArray[np.int64], rows: NDArray[np.int64], known: Known
) -> NDArray[np.int64]:
    """The ingest times of the new rows."""
    n, now, state = len(rows), appending.now, known.state.tier
    if not appending.explicit:
        ingest_ts = known.arena.count_earlier(users, np.ones(n, np.bool_))
        ingest_ts += rules.first_stamp(state, now, ingest_ts[:0])
        rules.check_not_ahead(ingest_ts, now, appending.max_ahead_us, rows)
        return ingest_ts
    ingest_ts = chosen.ingest_ts.copy()
    stamped = rules.late_rows(state, ingest_ts, appending.late, rows)
    kept = ingest_ts[~stamped]
    rules.check_not_ahead(kept, now, appending.max_ahead_us, rows[~stamped])
    if len(kept) < n:
        earlier = known.arena.count_earlier(users, stamped)
        ingest_ts[stamped] = rules.first_stamp(state, now, kept) + earlier[stamped]
        rules.check_not_ahead(ingest_ts[stamped], now, appending.max_ahead_us, rows[stamped])
    return ingest_ts


def _check_earlier(targets: Targets, events: Events, entry: _Entry) -> None:
    """Raises: ConflictError: a row supersedes an event that was learned of after it."""
    later = targets.placed(events.event_ts, entry.ingest_ts, entry.ordinal).ingest_ts > entry.ingest_ts[targets.rows]
    if later.any():
        row = targets.rows[np.argmax(later)]
        raise ConflictError(f"row {row} supersedes an event with a later ingest time than its own")


def _versions(appending: Appending, targets: Targets, entry: _Entry) -> Versions:
    """What the new rows supersede, as the log keeps it."""
    events, supersedes, rows = appending.events, appending.supersedes, targets.rows
    assert supersedes is not None
    places = targets.placed(events.event_ts, entry.ingest_ts, entry.ordinal)
    at = entry.ingest_ts[rows]
    suppressions = Suppressions(events.keys.take(rows), places.event_ts, places.ingest_ts, places.ordinal, at)
    ids, content = np.zeros((len(rows), 2), np.uint64), np.zeros(len(rows), np.uint64)
    if appending.ids is not None and appending.content is not None:
        deletions = supersedes.deletions[rows]
        ids[deletions], content[deletions] = appending.ids[rows[deletions]], appending.content[rows[deletions]]
    return Versions(events.user_ids.take(rows), suppressions, ids, content)


@dataclass(slots=True)
class _Repeats:
    """The rows that repeat an event id.

    `found` per row: -1 new; ≥ 0 an entry of the arena's ids; -2 - j row j of the batch; where `run` ≥ 0, a place in that
    run of evicted ids instead.
    """

    found: NDArray[np.int64]
    run: NDArray[np.int64]
    known: Known

    @classmethod
    def find(cls, appending: Appending, skipped: NDArray[np.bool_], known: Known) -> "_Repeats | None":
        """None where nothing repeats.

        Raises: ConflictError: an id with other content than before, in a row that does not supersede that very id.
        """
        if appending.ids is None or appending.content is None:
            return None
        ids = np.where(skipped[:, None], np.uint64(0), appending.ids) if skipped.any() else appending.ids
        found, run, clash = find_repeats(ids, appending.content, known)
        if (conflict := clash & (found == -1) & ~of_itself(appending.ids, appending.supersedes)).any():
            raise ConflictError(
                f"row {np.argmax(conflict)}: its event_id was used for an event with other content, and the row does not "
                f"supersede that very event_id"
            )
        return None if (found == -1).all() else cls(found, run, known)

    def fill(self, entry: _Entry, arena: Arena) -> None:
        """Give each repeated row the ingest time and ordinal of its original."""
        here = np.flatnonzero((self.found >= 0) & (self.run < 0))
        originals = self.found[here]
        entry.ingest_ts[here], entry.ordinal[here] = (
            arena.ids.ingest_ts.array[originals],
            arena.ids.ordinal.array[originals],
        )
        for number, run in enumerate(self.known.runs):
            rows = np.flatnonzero(self.run == number)
            entry.ingest_ts[rows], entry.ordinal[rows] = run.ingest_ts[self.found[rows]], run.ordinal[self.found[rows]]
        within = np.flatnonzero(self.found <= -2)
        originals = -2 - self.found[within]
        entry.ingest_ts[within], entry.ordinal[within] = entry.ingest_ts[originals], entry.ordinal[originals]


def find_repeats(
    ids: NDArray[np.uint64], content: NDArray[np.uint64], known: Known
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """`found` and `run` of `_Repeats`, and which ids are known with other content."""
    found, clash = known.arena.ids.match(ids, content)
    run = np.full(len(found), -1, np.int64)
    for number, remembered in enumerate(known.runs):
        asked = np.flatnonzero((found < 0) & (run < 0) & ids.any(axis=1))
        place, before = remembered.find(ids[asked, 0], ids[asked, 1], content[asked])
        clash[asked] |= before
        found[asked[place >= 0]], run[asked[place >= 0]] = place[place >= 0], number
    return found, run, clash


def of_itself(ids: NDArray[np.uint64], supersedes: Supersedes | None) -> NDArray[np.bool_]:
    """Which rows supersede an event of their own event id."""
    if supersedes is None or supersedes.ids is None:
        return np.zeros(len(ids), np.bool_)
    return supersedes.chosen & (supersedes.ids == ids).all(axis=1)
