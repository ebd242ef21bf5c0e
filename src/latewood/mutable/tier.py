"""The mutable tier's interface: the events of the last hours or days, seconds fresh, and the store's only clock.

Think of a cash register: it takes events in, prints the time on each (the stamp, `ingest_ts`), and is the one place
that can say "up to here everything is in". Whatever has to be decided in one step with that clock (stamps, the cut, the
frontier, the floor) is decided inside the tier's own write transaction (docs/protocol.md R6), which is why these few
methods are the whole interface: LMDB implements them with a transaction, Redis can with a script.

Three times order everything, all µs since epoch, UTC:

    floor ≤ frontier ≤ closed = last + 1

`last` is the largest ingest time given so far; a capture sees what lies below `closed`. Below `frontier` nothing may be
added any more, since generations or backfills have been made up to it. Below `floor` events may be gone: evicted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, show_ts
from latewood.events import Events
from latewood.users import UserKeys

Late = Literal["raise", "stamp"]
WasPublished = Callable[[str], bool]  # whether the generation of a bulk load's token came to be


@dataclass(frozen=True, slots=True)
class TierState:
    """Where the tier stands. Units: µs since epoch, UTC. A new tier is `TierState()`."""

    last: int = EARLIEST_TS - 1  # the largest ingest time given, or declared complete
    frontier: int = EARLIEST_TS  # no event commits below it (R7)
    floor: int = EARLIEST_TS  # events below it may be evicted (R11)
    latest_ingest: int = EARLIEST_TS - 1  # the largest ingest_ts of any event ever appended here (not imports in bulk)
    captured: bool = False  # from the first capture on, explicit ingest times must exceed `last` (R7)
    load_token: str | None = None  # the bulk load under way, if any

    @property
    def closed(self) -> int:
        """Everything below it is in: the cutoff of a capture, and the latest cut (R6)."""
        return self.last + 1


@dataclass(frozen=True, slots=True, repr=False)
class AppendReceipt:
    """What became of an append. Shapes: ingest_ts and ordinal (n,), one per row given, in its order.

    A duplicate's entry is that of the event it repeats.
    """

    count: int  # events added
    duplicates: int  # rows whose event_id was known with the same content
    skipped: int  # rows of scrubbed users
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]

    def __repr__(self) -> str:
        rest = {"duplicates": self.duplicates, "of scrubbed users": self.skipped}
        others = "".join(f", {count:,} {what}" for what, count in rest.items() if count)
        newest = f", ingest_ts up to {show_ts(int(self.ingest_ts.max()))}" if len(self.ingest_ts) else ""
        return f"<AppendReceipt: {self.count:,} added{others}{newest}>"


@dataclass(frozen=True, slots=True)
class Recent:
    """The recent events of n requests and the state they were read with, in one atomic step.

    Request i has the events `offsets[i]:offsets[i + 1]`, in the total order. They are complete for it only where
    `state.floor ≤ min_ingest`; otherwise retry with a newer generation (R11).
    """

    state: TierState
    cutoff: NDArray[np.int64]  # (n,): as given, or `state.closed`
    offsets: NDArray[np.int64]  # (n + 1,)
    events: Events


class MutableTier(Protocol):
    """Recent events and the clock. Safe for threads; a durable tier also for processes."""

    def append(
        self,
        events: Events,
        *,
        ids: NDArray[np.uint64] | None = None,
        content: NDArray[np.uint64] | None = None,
        explicit: bool = False,
        late: Late = "raise",
        now: int,
    ) -> AppendReceipt:
        """Add events, durably, all of them or none.

        Args:
            events: in arrival order; ordinals are ignored, and so is `ingest_ts` unless `explicit`.
            ids: (n, 2), the two halves of each event_id's hash; (0, 0) for none. See `latewood.mutable.identify`.
            content: (n,), the hash of what each event says; required with ids.
            explicit: keep `events.ingest_ts` instead of stamping.
            late: what to do with an explicit ingest time that is too old (R7): refuse, or stamp the event now.
            now: the clock's time.
        Raises: ConflictError: an ingest time that is too old or too far ahead of `now`, a known event_id with other
            content, or a bulk load under way. OSError: the disk is full. Nothing is added then.
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

        What is yielded is the state at the call, however long the iteration takes.

        Raises: ConflictError: `start_ingest` is below the floor, so that events of the range may be gone.
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

    def close(self) -> None:
        """Let go of files and memory. Closing twice is fine."""
        ...
