"""The mutable tier as a log and an arena: all its rules, and nothing about where the log is kept.

Writes: appends of concurrent threads queue up; whoever gets the write lock takes the whole queue into one commit. A
batch is entered in the arena as pending, the log commits, and only then do readers see it. Reads: look at the log's
head, take in the batches that other processes added since, and gather from the arena, all under one lock, so that the
events and the state they were read with belong together (R10).
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import DAY_US, HOUR_US, show_ts
from latewood.errors import ConflictError, CorruptionError
from latewood.events import Events, Suppressions, no_suppressions
from latewood.mutable import rules
from latewood.mutable.admission import Appending, admit
from latewood.mutable.arena import Arena
from latewood.mutable.event_ids import IdRun, remember
from latewood.mutable.log import Log, LogBusyError, LogFullError, LogState, LogTransaction, SegmentGoneError
from latewood.mutable.supersedes import Supersedes
from latewood.mutable.tier import (
    AppendReceipt,
    Late,
    Recent,
    TierState,
    WasPublished,
)
from latewood.users import UserKeys

T = TypeVar("T")
SCAN_ROWS = 1 << 16


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator may tune. Units: µs."""

    max_ahead_us: int = HOUR_US  # how far an ingest time may lie ahead of the clock (R5)
    id_window_us: int = 7 * DAY_US  # how long an event_id is remembered at least: the upstream's replay window (R14)


DEFAULTS = Settings()


class LoggedTier:
    """A `MutableTier` over any `Log`. See `latewood.mutable.tier` for what the methods promise."""

    def __init__(
        self, log: Log, user_type: pa.DataType, settings: Settings = DEFAULTS, was_published: WasPublished | None = None
    ) -> None:
        self._log, self._user_type, self._settings, self._was_published = log, user_type, settings, was_published
        self._writing = threading.Lock()  # taken first; held across a commit
        self._reading = threading.Lock()  # guards the arena and the log's head; never held across a commit
        self._landed = threading.Condition(self._reading)
        self._in_flight = False  # whether the arena holds rows of a commit that is not over
        self._queue: deque[Appending] = deque()
        self._state = LogState(version=-1)
        self._arena = Arena(user_type)
        self._runs: list[IdRun] = []
        self._runs_as_of = -1  # the first batch that was not evicted when the runs were read
        self._closed = False
        with self._writing:
            self._settle_load()

    # Appending

    def append(
        self,
        events: Events,
        *,
        ids: NDArray[np.uint64] | None = None,
        content: NDArray[np.uint64] | None = None,
        supersedes: Supersedes | None = None,
        explicit: bool = False,
        late: Late = "raise",
        blanked: int | None = None,
        now: int,
    ) -> AppendReceipt:
        if not len(events):
            return AppendReceipt(0, 0, 0, np.zeros(0, np.int64), np.zeros(0, np.int32))
        if supersedes is not None:
            raise NotImplementedError  # with the next commits
        if (ids is None) != (content is None):
            raise ValueError("ids= and content= come together")
        appending = Appending(events, ids, content, explicit, late, now, self._settings.max_ahead_us)
        self._queue.append(appending)
        with self._writing:
            if appending.outcome is None:
                self._append_queued()
        if isinstance(appending.outcome, BaseException):
            raise appending.outcome
        assert isinstance(appending.outcome, AppendReceipt)
        return appending.outcome

    def _append_queued(self) -> None:
        group: list[Appending] = []
        while self._queue:
            group.append(self._queue.popleft())
        try:
            if self._state.tier.load_token is not None:
                self._settle_load()
            outcomes = self._write(lambda transaction: self._append_group(transaction, group))
        except BaseException as error:
            for appending in group:
                appending.outcome = error
            if not isinstance(error, Exception):
                raise
            return
        for appending, outcome in zip(group, outcomes, strict=True):
            appending.outcome = outcome

    def _append_group(
        self, transaction: LogTransaction, group: list[Appending]
    ) -> tuple[LogState, list[AppendReceipt | Exception]]:
        state = transaction.state
        outcomes: list[AppendReceipt | Exception] = []
        for appending in group:
            outcome: AppendReceipt | Exception
            try:
                rules.check_no_load(state.tier)
                with self._reading:
                    batch, outcome = admit(appending, state.tier, self._arena, self._runs)
                if batch is not None:
                    transaction.put(state.next_batch, batch)
                    state = state.appended(int(batch.events.ingest_ts.max()))
            except ConflictError as error:
                outcome = error
            outcomes.append(outcome)
        return state, outcomes

    # Writing and following the log

    def _write(self, change: Callable[[LogTransaction], tuple[LogState, T]]) -> T:
        """Run `change` as the only writer and commit the state it returns. The caller holds the write lock."""
        self._check_open()
        while True:
            with suppress(LogFullError), self._log.begin() as transaction:
                with self._reading:
                    self._follow(transaction.state)
                    self._in_flight = True
                landed, spoilt = transaction.state, True
                try:
                    state, result = change(transaction)
                    if state is not transaction.state:
                        transaction.commit(state)
                    landed, spoilt = state, False
                except ConflictError:  # refused before anything was entered
                    spoilt = False
                    raise
                finally:
                    self._land(landed, spoilt)
                return result

    def _change(self, change: Callable[[LogTransaction], tuple[LogState, T]]) -> T:
        """Like `_write`, but first sees to a bulk load whose owner died."""
        with self._writing:
            if self._state.tier.load_token is not None:
                self._settle_load()
            return self._write(change)

    def _land(self, state: LogState, spoilt: bool) -> None:
        """The commit is over: show its rows to the readers, or take them back if it broke off halfway.

        It may have become durable all the same, if it broke off late: then the log brings them.
        """
        with self._reading:
            if spoilt:
                self._arena = self._arena.rebuilt(0)
            self._in_flight = False
            self._follow(state)
            self._landed.notify_all()

    def _follow(self, state: LogState) -> None:
        """Take in what was committed up to `state`. The caller holds the read lock."""
        if state.version <= self._state.version:
            return
        arena = self._arena
        arena.commit()
        if arena.next_batch < state.first_batch:  # all it holds was evicted, and more
            arena = Arena(self._user_type, state.first_batch)
        for batch in self._log.read(arena.next_batch, state) if arena.next_batch < state.next_batch else ():
            arena.add(batch, arena.assign(batch.events), place_ties=False)
            arena.commit()
        if arena.first_batch < state.first_batch:
            arena = arena.rebuilt(state.first_batch)
        if self._runs_as_of != state.first_batch:
            self._runs, self._runs_as_of = self._log.id_runs(), state.first_batch
        self._arena, self._state = arena, state

    def _refresh(self) -> LogState:
        """The newest state, with the arena as of it. The caller holds the read lock."""
        self._check_open()
        before = None
        while True:
            try:
                head = self._log.head()
                if head.version > self._state.version and self._in_flight:
                    self._landed.wait()  # it is our own commit, landing: a matter of microseconds
                    continue
                self._follow(head)
                return self._state
            except LogBusyError:
                self._landed.wait(0.001)
            except SegmentGoneError as error:
                if head.version == before:  # nobody evicted it
                    raise CorruptionError(f"segment {error} is missing") from None
                before = head.version

    # Reading

    def state(self) -> TierState:
        with self._reading:
            return self._refresh().tier

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
        n = len(end_ts)
        end_ts = np.ascontiguousarray(end_ts, np.int64)
        if tie_ingest is not None:
            tie_ingest = np.ascontiguousarray(tie_ingest, np.int64)
        if tie_ordinal is not None:
            tie_ordinal = np.ascontiguousarray(tie_ordinal, np.int32)
        if self._state.tier.load_token is not None:
            with self._writing:
                self._settle_load()
        with self._reading:
            state = self._refresh().tier
            rules.check_no_load(state)
            earliest = np.maximum(np.broadcast_to(np.asarray(min_ingest, np.int64), n), state.floor)
            cutoffs = np.full(n, state.closed) if cutoff is None else np.ascontiguousarray(cutoff, np.int64)
            offsets, rows = self._arena.gather(keys, end_ts, earliest, cutoffs, tie_ingest, tie_ordinal)
            view = self._arena.view()
        return Recent(state, cutoffs, offsets, view.take(rows), np.zeros(n + 1, np.int64), no_suppressions())

    def scan(self, start_ingest: int, end_ingest: int) -> Iterator[Events]:
        with self._reading:
            state = self._refresh().tier
            if start_ingest < state.floor:
                raise ConflictError(
                    f"events from {show_ts(start_ingest)} on were asked for, but those below {show_ts(state.floor)} "
                    f"were evicted: a newer generation has them"
                )
            rows, view = self._arena.rows_between(start_ingest, end_ingest), self._arena.view()
        return (view.take(rows[start : start + SCAN_ROWS]) for start in range(0, len(rows), SCAN_ROWS))

    def suppressions(self, start_ingest: int, end_ingest: int) -> Suppressions:
        return no_suppressions()

    # Changing the state

    def cut(self, watermark: int | None = None) -> int:
        def change(transaction: LogTransaction) -> tuple[LogState, int]:
            state = transaction.state
            rules.check_no_load(state.tier)
            cut = rules.choose_cut(state.tier, watermark)
            return state.changed(frontier=cut).rotated(), cut

        return self._change(change)

    def raise_frontier(self, cutoff: int, *, last: int | None = None) -> TierState:
        def change(transaction: LogTransaction) -> tuple[LogState, TierState]:
            state = transaction.state
            rules.check_no_load(state.tier)
            after = rules.raised(state.tier, cutoff, last)
            return (state, after) if after == state.tier else (state.changed(**asdict(after)), after)

        with self._reading:
            known = self._refresh().tier
        if known.load_token is None and rules.raised(known, cutoff, last) == known:
            return known  # nothing to promise that is not promised: no commit
        return self._change(change)

    def mark_captured(self) -> None:
        def change(transaction: LogTransaction) -> tuple[LogState, None]:
            state = transaction.state
            rules.check_no_load(state.tier)
            return (state if state.tier.captured else state.changed(captured=True)), None

        if not self._state.tier.captured:  # it is never unset, so what we last saw is enough
            self._change(change)

    def evict(self, floor: int) -> None:
        def change(transaction: LogTransaction) -> tuple[LogState, LogState]:
            before = transaction.state
            if floor > before.tier.frontier:
                raise ConflictError(
                    f"cannot evict up to {show_ts(floor)}: generations reach to {show_ts(before.tier.frontier)}"
                )
            if floor <= before.tier.floor:
                return before, before
            after = before.changed(floor=floor).evicted()
            if after.first_batch > before.first_batch:
                self._remember_ids(after)
            return after, after

        with self._writing:
            self._log.forget(self._write(change))

    def _remember_ids(self, after: LogState) -> None:
        """Before the segments go: the ids of their events."""
        last, window = after.tier.last, self._settings.id_window_us
        with self._reading:
            run = self._arena.ids_before(after.first_batch, latest=last)
            runs = remember(self._runs, run, last, window)
        self._log.keep_ids(runs)

    # Forgetting

    def scrub(self, body: dict[str, Any], *, now: int) -> tuple[int, int]:
        raise NotImplementedError  # with the next commits

    def blank(
        self, candidates: Mapping[int, NDArray[np.int32]], put: Callable[[int, dict[int, list[int]]], None]
    ) -> int | None:
        raise NotImplementedError  # with the next commits

    # Bulk loads

    def begin_load(self, min_ingest: int, max_ingest: int, token: str, *, now: int) -> int:
        def change(transaction: LogTransaction) -> tuple[LogState, int]:
            state = transaction.state
            rules.check_no_load(state.tier)
            rules.check_load_range(state.tier, min_ingest, max_ingest, now, self._settings.max_ahead_us)
            watermark = max(state.tier.closed, max_ingest + 1)
            return replace(state.changed(load_token=token), load_watermark=watermark), watermark

        with self._writing:
            self._settle_load()
            if not self._log.claim_load():
                raise ConflictError("a bulk load is under way")
            try:
                return self._write(change)
            except BaseException:
                self._log.release_load()
                raise

    def end_load(self, token: str, *, published: bool | None) -> None:
        with self._writing:
            try:
                if published is not None:
                    self._end_load(token, published)
            except ConflictError:  # another's load, which goes on
                raise
            except BaseException:
                self._log.release_load()
                raise
            self._log.release_load()

    def _end_load(self, token: str, published: bool) -> None:
        def change(transaction: LogTransaction) -> tuple[LogState, None]:
            state = transaction.state
            if state.tier.load_token != token:
                raise ConflictError(f"no bulk load of token {token} is under way")
            if not published:
                return state.changed(load_token=None), None
            cut = state.load_watermark
            last = max(state.tier.last, cut - 1)
            return state.changed(load_token=None, last=last, frontier=cut).rotated(), None

        self._write(change)

    def _settle_load(self) -> None:
        """End a bulk load whose owner died, by whether its generation was published. The caller holds the write lock."""
        if self._was_published is None or self._load_token() is None or not self._log.claim_load():
            return
        try:
            token = self._load_token()  # again: only now can no other process be settling it
            if token is not None:
                self._end_load(token, self._was_published(token))
        finally:
            self._log.release_load()

    def _load_token(self) -> str | None:
        with self._reading:
            return self._refresh().tier.load_token

    def close(self) -> None:
        with self._writing, self._reading:
            if not self._closed:
                self._closed = True
                self._close_log()
                self._arena, self._runs = Arena(self._user_type), []

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the mutable tier is closed")

    def _close_log(self) -> None:
        self._log.close()
