"""The mutable tier's interface: the events of the last hours or days, seconds fresh, and the store's only clock.

Think of a cash register: it takes events in, prints the time on each (the stamp, `ingest_ts`), and is the one place
that can say "up to here everything is in". Whatever has to be decided in one step with that clock (stamps, the cut, the
frontier, the floor) is decided inside the tier's own write transaction (docs/protocol.md R6), which is why these few
methods are the whole interface: LMDB implements them with a transaction, Redis can with a script.

Three times order everything, all µs since epoch, UTC:

    floor ≤ frontier ≤ closed = last + 1

`last` is the largest ingest time given so far; a capture sees what lies below `closed`. Below `frontier` nothing may be
added any more, since generations or backfills have been made up to it. Below `floor` events may be gone: evicted.

A correction or a deletion is a row that supersedes an event (R13): the tier finds out which, and keeps its place with the
time `at` which it was superseded, the ingest time of the new version. An event is superseded once: what the tier cannot
know of older ones, its caller looks up in a generation. A scrub (R16) begins here, since its time is the
clock's; it goes on in a record of its own outside, the *book* of scrubs, which the tier reads too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, show_ts
from latewood.events import Events, Suppressions
from latewood.mutable.supersedes import Places, StoredTargets, Supersedes
from latewood.mutable.view import EventsView, View
from latewood.users import UserKeys

Late = Literal["raise", "stamp"]
# Whether the generation of a bulk load's token came to be; decides it, if nothing has.
WasPublished = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class TierState:
    """Where the tier stands. Units: µs since epoch, UTC. A new tier is `TierState()`."""

    last: int = EARLIEST_TS - 1  # the largest ingest time given, or declared complete
    frontier: int = EARLIEST_TS  # no event commits below it (R7)
    floor: int = EARLIEST_TS  # events below it may be evicted (R11)
    latest_ingest: int = EARLIEST_TS - 1  # the largest of all ever appended here, deletions too (not of bulk loads)
    captured: bool = False  # from the first capture on, explicit ingest times must exceed `last` (R7)
    load_token: str | None = None  # the bulk load under way, if any
    scrubs: int = 0  # how many scrubs are recorded in the book (R16)
    blanked: int = 0  # how many times values were blanked that only forgotten events had
    changes: int = 0  # how many changes (R17) the newest generation has applied, as far as the tier was told

    @property
    def closed(self) -> int:
        """Everything below it is in: the cutoff of a capture, and the latest cut (R6)."""
        return self.last + 1


@dataclass(frozen=True, slots=True, repr=False)
class AppendReceipt:
    """What became of an append. Shapes: ingest_ts and ordinal (n,), one per row given, in its order.

    A duplicate's entry is that of what it repeats. A deletion is no event, so its ordinal is -1. A skipped row has the
    time of the scrub and the ordinal -1.
    """

    count: int  # rows added: events, corrections and deletions
    duplicates: int  # rows whose event_id was known with the same content, and deletions of what was deleted
    skipped: int  # rows of scrubbed users, from before the scrub
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]

    def __repr__(self) -> str:
        rest = {"duplicates": self.duplicates, "of scrubbed users": self.skipped}
        others = "".join(f", {count:,} {what}" for what, count in rest.items() if count)
        known = self.count + self.duplicates > 0
        newest = f", ingest_ts up to {show_ts(int(self.ingest_ts.max()))}" if known else ""
        return f"<AppendReceipt: {self.count:,} added{others}{newest}>"


@dataclass(frozen=True, slots=True)
class Recent:
    """The recent events of n requests and the state they were read with, in one atomic step.

    Request i has the events `offsets[i]:offsets[i + 1]`, in the total order, and the suppressed places
    `suppressed_offsets[i]:suppressed_offsets[i + 1]`, in the total order, each once, with the earliest `at`. They are
    complete for it only where `state.floor ≤ min_ingest`; otherwise retry with a newer generation (R11).

    The events are rows of a view, which does not change any more: whoever wants only some columns takes only those.
    """

    state: TierState
    cutoff: NDArray[np.int64]  # (n,): as given, or `state.closed`
    offsets: NDArray[np.int64]  # (n + 1,)
    view: View
    rows: NDArray[np.int64]  # (events,): none that was superseded before its request's cutoff
    suppressed_offsets: NDArray[np.int64]  # (n + 1,)
    suppressed: Suppressions  # stored events up to the end that something below the cutoff superseded here

    @property
    def events(self) -> Events:
        """All their columns."""
        return self.view.take(self.rows)

    @property
    def event_ts(self) -> NDArray[np.int64]:
        """When they happened."""
        return self.view.event_ts[self.rows]


class Blanking(NamedTuple):
    """Codes whose values nobody may use any more, by trait id."""

    number: int  # from 0 without gaps
    codes: dict[int, list[int]]


class StaleCodesError(Exception):
    """Values were blanked since the rows were coded, or a row that was not is new: refresh, code again, append again.

    `blanking` is the latest, which may not be written down yet, if who made it died just then: write it down first.
    """

    def __init__(self, coded: int | None, blanked: int, blanking: Blanking | None) -> None:
        super().__init__(f"rows coded as of blanking {coded}; it is at {blanked}")
        self.blanking = blanking


class StaleSchemaError(Exception):
    """A generation has applied changes since the rows were read: refresh, read the table again, append again."""

    def __init__(self, read: int, changes: int) -> None:
        super().__init__(f"rows read by the schema of change {read}; a generation has applied {changes}")


class UnseenTargetsError(Exception):
    """Rows supersede events that are here no more: look in a generation what became of these, and append again.

    Its watermark must be at or past `floor`: below that a newer version may be here no more either.
    """

    def __init__(self, rows: NDArray[np.int64], places: Places, floor: int) -> None:
        super().__init__(f"{len(rows)} rows supersede events that a generation from {show_ts(floor)} on must have")
        self.rows, self.places, self.floor = rows, places, floor


class MutableTier(Protocol):
    """Recent events and the clock. Safe for threads; a durable tier also for processes."""

    def append(
        self,
        events: Events,
        *,
        ids: NDArray[np.uint64] | None = None,
        content: NDArray[np.uint64] | None = None,
        supersedes: Supersedes | None = None,
        explicit: bool = False,
        late: Late = "raise",
        changes: int | None = None,
        blanked: int | None = None,
        uncoded: NDArray[np.bool_] | None = None,
        stored: StoredTargets | None = None,
        now: int,
    ) -> AppendReceipt:
        """Add events, durably, all of them or none.

        What a row supersedes must be known: by id in this table above it, here, or among the ids remembered, and of
        several events of one id the newest is meant; by place here, unless older events may be elsewhere. And it must
        not be superseded already, but to delete what is deleted is a duplicate. Rows of a user scrubbed at s with
        event_ts < s are skipped, and deletions of what the scrub took (R16).

        Args:
            events: in arrival order; ordinals are ignored, and so is `ingest_ts` unless `explicit`.
            ids: (n, 2), the two halves of each event_id's hash; (0, 0) for none. See `latewood.mutable.identify`.
            content: (n,), the hash of what each event says; required with ids.
            supersedes: which rows are corrections or deletions, and of what.
            explicit: keep `events.ingest_ts` instead of stamping.
            late: what to do with an explicit ingest time that is too old (R7): refuse, or stamp the event now.
            changes: how many changes the schema had by which the rows were read; None: it may have had any.
            blanked: how many blankings the coder of the rows knew of; None: the rows hold no codes.
            uncoded: (n,), rows whose coded traits were left out, since they would not be added.
            stored: what a generation says of the events to supersede that are elsewhere; None: whether they are there,
                and have no newer version, is taken on trust.
            now: the clock's time.
        Raises: ConflictError: an ingest time that is too old or too far ahead of `now`, a known event_id with other
            content, an event to supersede that is unknown, superseded, another user's or newer than the row, or a bulk
            load under way. StaleSchemaError: a generation has applied a change since. StaleCodesError: values were
            blanked meanwhile, or an uncoded row is new. UnseenTargetsError: `stored` is not of what the rows supersede,
            or too old. OSError: the disk is full. Nothing is added then.
        """
        ...

    def repeats(
        self, ids: NDArray[np.uint64], content: NDArray[np.uint64], supersedes: Supersedes | None = None
    ) -> NDArray[np.bool_]:
        """Which rows repeat an event id, as far as is known now: with its content, or with another and are refused.

        Shapes: ids (n, 2), content (n,) → (n,).
        """
        ...

    def state(self) -> TierState:
        """The newest committed state."""
        ...

    def recent(
        self,
        keys: UserKeys,
        *,
        end_ts: NDArray[np.int64],
        min_ingest: int | NDArray[np.int64],
        cutoff: NDArray[np.int64] | None = None,
        tie_ingest: NDArray[np.int64] | None = None,
        tie_ordinal: NDArray[np.int32] | None = None,
    ) -> Recent:
        """Each request's events that sort before its end, with `min_ingest ≤ ingest_ts < cutoff`, in the total order.

        Not those that were superseded before the cutoff, whatever the event_ts of the new version; and the places with
        `ingest_ts < min_ingest`, up to `end_ts`, of those superseded at `min_ingest ≤ at < cutoff`. Of a scrubbed user,
        only what came after the scrub.

        An event sorts before the end if its event_ts is below `end_ts`, or equal to it and, for an anchor, its
        (ingest_ts, ordinal) below (tie_ingest, tie_ordinal).

        Args:
            keys: (n,) users, known or not; a user may occur often.
            min_ingest: the watermark from which on events are wanted; one for all or one each.
            cutoff: (n,); None: the closed time of this very read (R10).
        Raises: ConflictError: a bulk load is under way.
        """
        ...

    def cut(self, watermark: int | None = None) -> int:
        """Fix the next generation's watermark W and make it the frontier (R6).

        Args:
            watermark: anywhere from the frontier to closed, which is the default.
        Raises: ConflictError: outside that range, or a bulk load under way.
        """
        ...

    def scan(self, start_ingest: int, end_ingest: int) -> Iterator[Events]:
        """The events with `start_ingest ≤ ingest_ts < end_ingest` in arrival order, in runs of bounded size.

        What is yielded is the state at the call, however long the iteration takes, less what was scrubbed since.
        `superseded_at` is not set: see `suppressions`.

        Raises: ConflictError: `start_ingest` is below the floor, so that events of the range may be gone.
        """
        ...

    def view(self, start_ingest: int, end_ingest: int) -> EventsView:
        """The same events where they lie, and of the state at the call likewise, but also those that were scrubbed.

        Only compaction asks for them, which drops what was scrubbed itself, by the scrubs that it goes by. They keep their
        memory: whoever is done with them lets go of them. Raises: as `scan`.
        """
        ...

    def suppressions(self, start_ingest: int, end_ingest: int) -> Suppressions:
        """What was superseded at `start_ingest ≤ at < end_ingest`, as of the call, in arrival order.

        Raises: ConflictError: `start_ingest` is below the floor.
        """
        ...

    def scan_with_suppressions(self, start_ingest: int) -> tuple[Iterator[Events], Suppressions]:
        """What `scan` and `suppressions` give from `start_ingest` on, of one state.

        Asked one after the other, they may disagree: an import may bring a correction in between, with an ingest time of
        before.

        Raises: ConflictError: `start_ingest` is below the floor.
        """
        ...

    def raise_frontier(self, cutoff: int, *, last: int | None = None) -> TierState:
        """Promise that nothing will be added below `cutoff`; with `last`, also that all up to it is in (R8).

        Never lowers anything. Returns the state thereafter.

        Raises: ConflictError: the cutoff lies past the closed time (and past `last + 1`), or a bulk load is under way.
        """
        ...

    def mark_captured(self) -> None:
        """Note that a capture was made (R7). Cheap when it is already noted."""
        ...

    def evict(self, floor: int) -> None:
        """Let go of the events below `floor`: raise the floor first, then free what lies wholly below it (R11).

        Raises: ConflictError: the floor lies past the frontier.
        """
        ...

    def begin_load(self, min_ingest: int, max_ingest: int, token: str, *, now: int) -> int:
        """Start a bulk load of events of these ingest times; nothing else may change the tier until it ends.

        Returns: the watermark W of the generation to publish, max(closed, max_ingest + 1). The tier's own events all
            lie below it, and `scan` goes on working.
        Raises: ConflictError: another load is under way, or the ingest times are too old (R7) or too far ahead.
        """
        ...

    def end_load(self, token: str, *, published: bool | None) -> None:
        """End it: with W as the new frontier if its generation was published, else as if it had never begun.

        None: it cannot be told now. Then, as after an error here, whoever comes next finds out, as if the owner had died.

        Raises: ConflictError: no load of this token is under way.
        """
        ...

    def scrub(self, body: dict[str, Any], *, now: int) -> tuple[int, int]:
        """Fix the moment of a scrub, and record it in the book: (its number, its scrub_ts).

        First it is made known here, as pending, with the scrub_ts as the last stamp and all below and at it closed;
        then it is recorded; then it is pending no more. If that breaks off, whoever comes next finishes it.

        Args: body: what the record says, JSON-able; kept in the tier's state meanwhile, so a few thousand users at most.
        Raises: ConflictError: a bulk load is under way. ValueError: the tier was opened without a book.
        """
        ...

    def blank(
        self,
        candidates: Mapping[int, NDArray[np.int32]],
        put: Callable[[int, dict[int, list[int]]], None],
        still: Callable[[], bool] | None = None,
    ) -> int | None:
        """Fix which codes are blanked, in one step with appends: those of `candidates` that no event here uses.

        It counts from that step on; then it is written down. Should that break off, the next blanking, or the next
        append that meets it (`StaleCodesError`), has it written down.

        Args:
            candidates: codes by trait id; they are kept in the tier's state, so a few thousand at most.
            put: called with the number of a blanking and its codes, to make them durable, perhaps again.
            still: asked in that step: whether no generation is newer than the one that does not use `candidates`. A newer
                one may have events that were here since, and are not any more: then nothing is blanked.
        Returns: its number, which is that of `TierState.blanked` before; None if no code is left to blank.
        """
        ...

    def catch_up(self, least: TierState) -> None:
        """Know what is written down beside a tier that is new, or older, or that was not told by who died: in one step.

        It counts at least so many scrubs, blankings and applied changes as `least`. Where it does not know that there are
        generations up to `least.floor`, or that all up to `least.last` is in, it takes over these times, lets go of what
        the generations have, and counts as captured. Never lowers anything. A bulk load under way sees to the times itself
        when it ends.
        """
        ...

    def close(self) -> None:
        """Let go of files and memory. Closing twice is fine."""
        ...
