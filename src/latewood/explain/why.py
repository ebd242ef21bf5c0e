"""Why: from the raw rows of both tiers to a verdict on each version of an event.

The rules are applied in the order in which they settle the matter: forgotten, after the end, learned of too late,
superseded, cut off by length. What passes all of them is in. Then the request is materialized, and if the sequence
is another than the rows say it must be, that is an error, and nobody's to explain away.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.clock import show_span, show_ts, to_us
from latewood.consistency import read_consistently
from latewood.errors import CorruptionError, ExpiredError, LatewoodError, SchemaError, ScrubbedError, refuse_path
from latewood.events import NEVER, Events, concat_events
from latewood.explain.request import Request, as_asked, as_logged
from latewood.explain.verdict import Verdict
from latewood.histories import RECENT, Histories, Place, places, read_histories, superseded
from latewood.immutable.scrubs import NOT_SCRUBBED
from latewood.materialize import Materializer
from latewood.projection import Projection
from latewood.schema import EVENT_TS
from latewood.store import Store
from latewood.stripes.layout import STRIPE_EVENTS

Moment = int | datetime


def why(
    store: Store,
    user_id: int | str | None = None,
    request_ts: Moment | None = None,
    event_ts: Moment | None = None,
    *,
    example: Any = None,
    ingest_ts: Moment | None = None,
    ordinal: int | None = None,
    anchor: tuple[Moment, int] | None = None,
    cutoff: Moment | None = None,
    max_len: int | None = None,
) -> list[Verdict]:
    """Say why an event is, or is not, in the sequence of a request.

    Args:
        user_id, request_ts: the request; or
        example: a table of one row, as it was logged.
        event_ts: when the event happened. Every version that the store has of that time gets a verdict, or those of
        ingest_ts, ordinal: only.
        anchor: where the request is an event, its ingest_ts and ordinal.
        cutoff: what was learned of before it counts; by default as in a backfill.
        max_len: the model's, if it is to be asked whether the event was cut.
    Returns: at least one verdict: of an event that the store does not have, one that says so.
    Raises: SchemaError: not a request. PointerError: an example of another store. ConflictError: a live store whose
        generations are replaced too fast. CorruptionError: damaged bytes, or the rows say one thing and the materializer
        gives another, which would be a mistake of latewood's: please report it.
    """
    refuse_path(store, read_only=True)
    if event_ts is None:
        raise SchemaError("say which event: event_ts, when it happened")
    if example is not None and (user_id, request_ts, anchor, cutoff) != (None,) * 4:
        raise SchemaError("an example says itself whose request it is and of when: pass either it or a request")
    request = as_asked(store, user_id, request_ts, cutoff, anchor) if example is None else as_logged(store, example)
    wanted = to_us(event_ts), None if ingest_ts is None else to_us(ingest_ts), ordinal

    def judge() -> list[Verdict]:
        store.scrubs.refresh()
        evidence = Evidence(store, request, read_histories(store, request.keys), max_len)
        rows = evidence.rows_of(*wanted).tolist()
        return _compare(store, evidence, [evidence.verdict(row) for row in rows] or [evidence.absence(wanted[0])])

    return read_consistently(store, judge, until=request.cutoff)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of one request and its user's events."""

    store: Store
    request: Request
    histories: Histories
    max_len: int | None

    @cached_property
    def _all(self) -> tuple[Events, NDArray[np.int64]]:
        """The user's events; with those that only the example carries, as where the store is open without its tier."""
        events, row = self.histories.of(0)
        carried = self.request.carried(events)
        both, rows = concat_events([events, carried]), np.append(row, np.full(len(carried), RECENT))
        order = both.order()
        return both.take(order), rows[order]

    @property
    def events(self) -> Events:
        return self._all[0]

    @property
    def row(self) -> NDArray[np.int64]:
        return self._all[1]

    @cached_property
    def places(self) -> list[Place]:
        return places(self.events)

    @cached_property
    def superseded_at(self) -> NDArray[np.int64]:
        return superseded(self.events)

    @cached_property
    def scrubbed_at(self) -> int:
        return int(self.store.scrubs.scrubbed_at(self.request.keys)[0])

    @cached_property
    def watermark(self) -> int:
        """Of the request's pointer."""
        own = self.request.watermark
        return min(self.request.cutoff, self.histories.reader.generation.watermark) if own is None else own

    @cached_property
    def before(self) -> NDArray[np.bool_]:
        """Which events sort before the request's end."""
        return self.request.before(self.events, self._known_by_pointer)

    @cached_property
    def _known_by_pointer(self) -> NDArray[np.bool_]:
        """Which events a pointer of this watermark is made of, wherever they lie."""
        return (self.events.ingest_ts < self.watermark) & (self.superseded_at >= self.watermark)

    @cached_property
    def forgotten(self) -> NDArray[np.bool_]:
        """Which events a scrub has taken: not yet the bytes, perhaps, but nobody is given them. Their tier may hold some
        back until the next compaction has told those that stay from those that go."""
        taken = self.store.scrubs.forgotten(self.events, self.histories.reader.generation.scrubs)
        held = self.events.ingest_ts <= self.scrubbed_at if self.scrubbed_at >= self.watermark else np.False_
        return taken | held | (self.request.cutoff <= self.scrubbed_at)

    @cached_property
    def missing_then(self) -> NDArray[np.bool_]:
        """Which stored events the example was made without, though they are older than those that its pointer counts:
        retention had taken them, and a rollback has brought them back."""
        missing = np.zeros(len(self.events), np.bool_)
        if self.request.length is not None:
            meant = np.flatnonzero(self._known_by_pointer & self.before)
            missing[meant[: max(0, len(meant) - self.request.length)]] = True
        return missing

    @cached_property
    def seen(self) -> NDArray[np.int64]:
        """The rows of the sequence, before it is cut."""
        cutoff = self.request.cutoff
        known = (self.events.ingest_ts < cutoff) & (self.superseded_at >= cutoff)
        return np.flatnonzero(known & self.before & ~self.forgotten & ~self.missing_then)

    @property
    def sequence(self) -> NDArray[np.int64]:
        """The event times that the model must be given."""
        kept = self.seen if self.max_len is None else self.seen[max(0, len(self.seen) - self.max_len) :]
        return self.events.event_ts[kept]

    def rows_of(self, event_ts: int, ingest_ts: int | None, ordinal: int | None) -> NDArray[np.int64]:
        """The versions asked for."""
        wanted = self.events.event_ts == event_ts
        if ingest_ts is not None:
            wanted &= self.events.ingest_ts == ingest_ts
        if ordinal is not None:
            wanted &= self.events.ordinal == ordinal
        return np.flatnonzero(wanted)

    def verdict(self, i: int) -> Verdict:
        """On one event that the store has."""
        ingest_ts, cutoff = self.places[i][1], self.request.cutoff
        facts = self._facts(i)
        if self.forgotten[i]:
            return replace(facts, kind="scrubbed", message=self._scrubbed(i))
        if not self.before[i]:
            return replace(facts, kind="after", message=self._after(facts.event_ts))
        if ingest_ts >= cutoff:
            return replace(facts, kind="late", message=self._late(ingest_ts), late_by=ingest_ts - cutoff)
        if facts.superseded_at is not None and facts.superseded_at < cutoff:
            return replace(facts, kind="superseded", message=f"{self._superseded(i)}, before the cutoff")
        if self.missing_then[i]:
            message = "retention had taken it when the example was made; a rollback has brought it back since"
            return replace(facts, kind="expired", message=message)
        return self._seen(i, facts)

    def _seen(self, i: int, facts: Verdict) -> Verdict:
        place = int(np.searchsorted(self.seen, i))
        newer = len(self.seen) - 1 - place
        if self.max_len is not None and newer >= self.max_len:
            message = f"{newer:,} newer events are there, and max_len keeps the newest {self.max_len:,}"
            return replace(facts, kind="cut", message=message, newer=newer)
        length = len(self.sequence)
        position = length - 1 - newer
        message = f"event {position:,} of {length:,}, {self._where(facts)}"
        if facts.superseded_at is not None:
            message += f"; {self._superseded(i)}, which this request could not know"
        return replace(facts, kind="in", message=message, position=position, length=length, newer=newer)

    def _facts(self, i: int) -> Verdict:
        event_ts, ingest_ts, ordinal = self.places[i]
        row, reader, at = int(self.row[i]), self.histories.reader, int(self.superseded_at[i])
        verdict = Verdict(
            kind="in", message="", event_ts=event_ts, request_ts=self.request.end_ts, cutoff=self.request.cutoff,
            ingest_ts=ingest_ts, ordinal=ordinal, max_len=self.max_len,
            tier="stored" if ingest_ts < self.watermark else "recent",
            scrubbed_at=None if self.scrubbed_at == NOT_SCRUBBED else self.scrubbed_at,
        )  # fmt: skip
        if row != RECENT:
            shard = int(self.histories.located.shard[0])
            verdict = replace(verdict, generation=reader.generation.id, shard=shard, stripe=row // STRIPE_EVENTS)
        if at == NEVER:
            return verdict
        by = self._newer(i)
        return replace(verdict, superseded_at=at, superseded_by=by[0] if len(by) == 1 else None)

    def _newer(self, i: int) -> list[Place]:
        """What may have taken an event's place: only imported ingest times tie, and then nobody can tell which it was."""
        by = np.flatnonzero(self.events.ingest_ts == self.superseded_at[i])
        return [self.places[row] for row in by.tolist() if row != i]

    def _where(self, facts: Verdict) -> str:
        how = "by its pointer" if facts.tier == "stored" else "as a recent event"
        if facts.generation is None:
            return f"{how}, not in a generation yet"
        return f"{how}; it is in generation {facts.generation}, shard {facts.shard}, stripe {facts.stripe}"

    def _after(self, event_ts: int) -> str:
        end = self.request.end_ts
        if event_ts > end:
            return f"it happened {show_span(event_ts - end)} after the request's end {show_ts(end)}"
        if self.request.anchor is None and self.request.example is None:
            return f"it happened at the request's own time, {show_ts(end)}, before which a request ends"
        return f"it happened at the request's own time, {show_ts(end)}, and does not sort before where it ends"

    def _late(self, ingest_ts: int) -> str:
        cutoff = self.request.cutoff
        if ingest_ts == cutoff:
            return f"learned of at the very cutoff, {show_ts(cutoff)}, which is excluded"
        late_by = show_span(ingest_ts - cutoff)
        return f"learned of at {show_ts(ingest_ts)}, {late_by} after the cutoff {show_ts(cutoff)}"

    def _superseded(self, i: int) -> str:
        when, by = show_ts(int(self.superseded_at[i])), self._newer(i)
        if not by:
            return f"deleted at {when}"
        if len(by) > 1:
            return f"superseded at {when}, when {len(by):,} others were learned of"
        return f"superseded at {when} by the version of {show_ts(by[0][0])}"

    def _scrubbed(self, i: int) -> str:
        when = show_ts(self.scrubbed_at)
        if self.request.cutoff <= self.scrubbed_at:
            return f"the user was scrubbed at {when}, at or after this request's cutoff: it is refused as a whole"
        if self.store.scrubs.forgotten(self.events, self.histories.reader.generation.scrubs)[i]:
            return f"it was scrubbed at {when}; its bytes go with the next compaction"
        return f"the user was scrubbed in part at {when}; until a compaction after that, older events are held back"

    def absence(self, event_ts: int) -> Verdict:
        """On an event that the store does not have."""
        request, generation = self.request, self.histories.reader.generation
        times = self.events.event_ts
        before = int(times[times < event_ts].max()) if (times < event_ts).any() else None
        after = int(times[times > event_ts].min()) if (times > event_ts).any() else None
        verdict = Verdict(
            "unknown", "", event_ts, request.end_ts, request.cutoff, before=before, after=after,
            horizon=generation.horizon, max_len=self.max_len,
        )  # fmt: skip
        if self.scrubbed_at != NOT_SCRUBBED and event_ts < self.scrubbed_at:
            message = f"there is none at {show_ts(event_ts)}: the user was scrubbed at {show_ts(self.scrubbed_at)}"
            return replace(verdict, kind="scrubbed", message=message, scrubbed_at=self.scrubbed_at)
        stored = times[self.row != RECENT]
        oldest = int(stored.min()) if len(stored) else None
        if generation.expired and (oldest is None or event_ts < oldest):
            reach = "no event of this user is left" if oldest is None else f"the oldest left is of {show_ts(oldest)}"
            if generation.horizon is not None:
                reach += f", and retention by age reaches back to {show_ts(generation.horizon)}"
            return replace(verdict, kind="expired", message=f"if it was ever there, retention has taken it: {reach}")
        return replace(verdict, message=_unknown(request.user_id, event_ts, before, after))


def _unknown(user_id: Any, event_ts: int, before: int | None, after: int | None) -> str:
    message = f"the store has no event of user {user_id!r} at {show_ts(event_ts)}"
    near = [
        f"the {which} is of {show_ts(ts)}" for which, ts in (("one before", before), ("next", after)) if ts is not None
    ]
    return f"{message}; {' and '.join(near)}" if near else f"the store has no event of user {user_id!r} at all"


def _compare(store: Store, evidence: Evidence, verdicts: list[Verdict]) -> list[Verdict]:
    """Hold the rows' answer against what a model would be given."""
    projection = Projection(max_len=evidence.max_len, traits=[EVENT_TS])
    try:
        batch = Materializer(store, projection)(evidence.request.examples(store, evidence.events))
    except ScrubbedError:
        if evidence.request.cutoff <= evidence.scrubbed_at:
            return verdicts
        raise
    except ExpiredError as error:
        gone = f"it is still stored, but others are not, and the request is refused: {error}"
        return [replace(v, kind="expired", message=gone) if v.kind in ("in", "cut") else v for v in verdicts]
    except LatewoodError as error:
        for verdict in verdicts:
            error.add_note(f"by the rows themselves: {verdict}")
        raise
    given = batch.values[EVENT_TS]
    if evidence.request.cutoff <= evidence.scrubbed_at or not np.array_equal(given, evidence.sequence):
        raise _disagreement(evidence, given, verdicts)
    return verdicts


def _disagreement(evidence: Evidence, given: NDArray[np.int64], verdicts: list[Verdict]) -> CorruptionError:
    by_rows = evidence.sequence
    error = CorruptionError(
        f"user {evidence.request.user_id!r}: by the rows of both tiers the sequence has {len(by_rows):,} events, but the "
        f"materializer gives {len(given):,}, or others; this is a mistake of latewood's, please report it"
    )
    for verdict in verdicts:
        error.add_note(f"by the rows themselves: {verdict}")
    return error
