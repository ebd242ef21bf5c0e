"""The mutable tier as a log and an arena: all its rules, and nothing about where the log is kept.

Writes: appends of concurrent threads queue up; whoever gets the write lock takes the whole queue into one commit. Reads
see one state of the log, see `replica`. What a dead owner left half done, a bulk load or a scrub, is settled by whoever
comes next: the load by asking whether its generation was published, the scrub by writing its record.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import DAY_US, HOUR_US, show_ts
from latewood.columns import filled
from latewood.errors import ConflictError
from latewood.events import Events, Suppressions
from latewood.mutable import rules
from latewood.mutable.admission import Appending, admit, find_repeats, of_itself
from latewood.mutable.book import PendingScrub, ScrubBook, read_up_to
from latewood.mutable.event_ids import remember
from latewood.mutable.log import Log, LogState, LogTransaction
from latewood.mutable.replica import Replica, UnsettledError
from latewood.mutable.supersedes import StoredTargets, Supersedes
from latewood.mutable.targets import Known
from latewood.mutable.tier import (
    AppendReceipt,
    Blanking,
    Late,
    Recent,
    StaleCodesError,
    StaleSchemaError,
    TierState,
    UnseenTargetsError,
    WasPublished,
)
from latewood.mutable.view import EventsView
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
        self,
        log: Log,
        user_type: pa.DataType,
        settings: Settings = DEFAULTS,
        was_published: WasPublished | None = None,
        scrubs: ScrubBook | None = None,
    ) -> None:
        self._log, self._settings, self._was_published, self._book = log, settings, was_published, scrubs
        self._replica = Replica(log, user_type)
        self._queue: deque[Appending] = deque()
        with self._replica.writing:
            self._settle_load()
            if scrubs is not None:
                with self._replica.reading:
                    self._replica.refresh()
                self._finish_scrub()

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
        changes: int | None = None,
        blanked: int | None = None,
        uncoded: NDArray[np.bool_] | None = None,
        stored: StoredTargets | None = None,
        now: int,
    ) -> AppendReceipt:
        if not len(events):
            return AppendReceipt(0, 0, 0, np.zeros(0, np.int64), np.zeros(0, np.int32))
        if (ids is None) != (content is None):
            raise ValueError("ids= and content= come together")
        ahead = self._settings.max_ahead_us
        asked = Appending(
            events, ids, content, supersedes, explicit, late, changes, blanked, uncoded, stored, now, ahead
        )
        self._queue.append(asked)
        with self._replica.writing:
            if asked.outcome is None:
                self._append_queued()
        if isinstance(asked.outcome, BaseException):
            raise asked.outcome
        assert isinstance(asked.outcome, AppendReceipt)
        return asked.outcome

    def repeats(
        self, ids: NDArray[np.uint64], content: NDArray[np.uint64], supersedes: Supersedes | None = None
    ) -> NDArray[np.bool_]:
        with self._replica.reading:
            state = self._replica.refresh()
            known = Known(state, self._replica.arena, self._replica.runs, self._book)
            found, _, clash = find_repeats(ids, content, known)
        return (found >= 0) | (clash & (found == -1) & ~of_itself(ids, supersedes))

    def _append_queued(self) -> None:
        group: list[Appending] = []
        while self._queue:
            group.append(self._queue.popleft())
        try:
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
                with self._replica.reading:
                    known = Known(state, self._replica.arena, self._replica.runs, self._book)
                    batch, outcome = admit(appending, known)
                if batch is not None:
                    transaction.put(state.next_batch, batch)
                    state = state.appended(batch.latest_ingest)
            except (ConflictError, StaleSchemaError, StaleCodesError, UnseenTargetsError) as error:
                outcome = error
            outcomes.append(outcome)
        return state, outcomes

    # Writing

    def _write(self, change: Callable[[LogTransaction], tuple[LogState, T]]) -> T:
        """Commit a change, after any scrub that was begun. The caller holds the write lock."""

        def after_scrubs(transaction: LogTransaction) -> tuple[LogState, T]:
            if self._is_behind(transaction.state):
                raise UnsettledError
            return change(transaction)

        while True:
            self._finish_scrub()
            with suppress(UnsettledError):
                return self._replica.write(after_scrubs)

    def _change(self, change: Callable[[LogTransaction], tuple[LogState, T]]) -> T:
        """Like `_write`, but first sees to a bulk load whose owner died."""
        with self._replica.writing:
            self._settle_load()
            return self._write(change)

    # Reading

    def _read(self, read: Callable[[LogState], T], *, settle_load: bool = False) -> T:
        """Read the newest state under the read lock, with every scrub that was begun in the book.

        Args: settle_load: first see to a bulk load whose owner died; it is no business of who reads what is here anyway.
        """
        while True:
            with self._replica.reading:
                state = self._replica.refresh()
                is_behind, is_loading = self._is_behind(state), state.tier.load_token is not None
                if not is_behind and not (settle_load and is_loading):
                    return read(state)
            with self._replica.writing:
                if is_loading and settle_load:
                    self._settle_load()
                    settle_load = False
                self._finish_scrub()

    def state(self) -> TierState:
        with self._replica.reading:
            return self._replica.refresh().tier

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
        end_ts = np.ascontiguousarray(end_ts, np.int64)
        if tie_ingest is not None:
            tie_ingest = np.ascontiguousarray(tie_ingest, np.int64)
        if tie_ordinal is not None:
            tie_ordinal = np.ascontiguousarray(tie_ordinal, np.int32)

        def read(log_state: LogState) -> Recent:
            state, arena = log_state.tier, self._replica.arena
            rules.check_no_load(state)
            wanted = min_ingest if isinstance(min_ingest, np.ndarray) else filled(len(end_ts), min_ingest)
            earliest = self._earliest(keys, np.maximum(wanted, state.floor))
            cutoffs = filled(len(end_ts), state.closed) if cutoff is None else np.ascontiguousarray(cutoff, np.int64)
            offsets, rows = arena.gather(keys, end_ts, earliest, cutoffs, tie_ingest, tie_ordinal)
            suppressed = arena.suppressed(keys, end_ts, min_ingest, earliest, cutoffs)
            return Recent(state, cutoffs, offsets, arena.view(), rows, *suppressed)

        return self._read(read, settle_load=True)

    def _earliest(self, keys: UserKeys, min_ingest: NDArray[np.int64]) -> NDArray[np.int64]:
        """From when on events are wanted, and of scrubbed users only what came after."""
        if self._book is None or not len(self._book):
            return min_ingest
        return np.maximum(min_ingest, self._book.scrubbed_at(keys) + 1)

    def scan(self, start_ingest: int, end_ingest: int) -> Iterator[Events]:
        return map(self._remembered, self.view(start_ingest, end_ingest).runs(SCAN_ROWS))

    def view(self, start_ingest: int, end_ingest: int) -> EventsView:
        def read(state: LogState) -> EventsView:
            return self._view(state, start_ingest, end_ingest)

        return self._read(read)

    def _view(self, state: LogState, start_ingest: int, end_ingest: int) -> EventsView:
        """The caller holds the read lock."""
        _check_there(state.tier, start_ingest)
        arena = self._replica.arena
        return EventsView(arena.view(), arena.rows_between(start_ingest, end_ingest))

    def _remembered(self, events: Events) -> Events:
        """Without what was scrubbed."""
        if self._book is None or not len(self._book):
            return events
        gone = self._book.forgotten(events, 0)
        return events.take(np.flatnonzero(~gone)) if gone.any() else events

    def suppressions(self, start_ingest: int, end_ingest: int) -> Suppressions:
        def read(state: LogState) -> Suppressions:
            _check_there(state.tier, start_ingest)
            return self._replica.arena.superseded_between(start_ingest, end_ingest)

        return self._read(read)

    def scan_with_suppressions(self, start_ingest: int) -> tuple[Iterator[Events], Suppressions]:
        def read(state: LogState) -> tuple[EventsView, Suppressions]:
            end = state.tier.closed
            return self._view(state, start_ingest, end), self._replica.arena.superseded_between(start_ingest, end)

        events, suppressed = self._read(read)
        return map(self._remembered, events.runs(SCAN_ROWS)), suppressed

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

        with self._replica.reading:
            known = self._replica.refresh().tier
        if known.load_token is None and rules.raised(known, cutoff, last) == known:
            return known  # nothing to promise that is not promised: no commit
        return self._change(change)

    def mark_captured(self) -> None:
        def change(transaction: LogTransaction) -> tuple[LogState, None]:
            state = transaction.state
            rules.check_no_load(state.tier)
            return (state if state.tier.captured else state.changed(captured=True)), None

        if not self._replica.state.tier.captured:  # it is never unset, so what we last saw is enough
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
            return self._evicted(before, before.changed(floor=floor))

        with self._replica.writing:
            self._log.forget(self._write(change))

    def _evicted(self, before: LogState, raised: LogState) -> tuple[LogState, LogState]:
        """With a floor that was raised: the state to commit, twice: what it lacks is freed once it is committed."""
        after = raised.evicted()
        self._remember_ids(before, after)
        return after, after

    def _remember_ids(self, before: LogState, after: LogState) -> None:
        """Before the segments go: the ids of their events, less what was scrubbed."""
        last, window = after.tier.last, self._settings.id_window_us
        with self._replica.reading:
            runs = self._replica.runs
            if after.first_batch > before.first_batch:
                run = self._replica.arena.ids_before(after.first_batch, latest=last)
                runs = remember(runs, run, last, window)
        if self._book is not None:
            book = self._book
            runs = [run if run.scrubs == len(book) else run.forgetting(book) for run in runs]
        if runs is not self._replica.runs:
            self._log.keep_ids(runs)

    # Forgetting

    def scrub(self, body: dict[str, Any], *, now: int) -> tuple[int, int]:
        if self._book is None:
            raise ValueError("the mutable tier was opened without a book of scrubs")

        def begin(transaction: LogTransaction) -> tuple[LogState, PendingScrub]:
            state = transaction.state
            rules.check_no_load(state.tier)
            scrub_ts = max(now, state.tier.last + 1)
            pending = PendingScrub(state.tier.scrubs, scrub_ts, body)
            # At the scrub everything is closed: what came with its very time would be taken by it.
            after = replace(state.changed(last=scrub_ts, frontier=scrub_ts + 1), scrub=pending)
            return after.rotated(even_if_empty=True), pending

        pending = self._change(begin)
        with self._replica.writing:
            self._finish_scrub()
        return pending.number, pending.scrub_ts

    def _is_behind(self, state: LogState) -> bool:
        """Whether a scrub has no record yet, or one that the book has not read."""
        return self._book is not None and (state.scrub is not None or len(self._book) < state.tier.scrubs)

    def _finish_scrub(self) -> None:
        """Record a scrub that was begun, here or by who died, and read those of others. The caller holds the write lock."""
        if self._book is None:
            return
        with self._replica.reading:
            state = self._replica.state
        if (pending := state.scrub) is not None:
            self._book.write(pending.number, pending.scrub_ts, pending.body)
            self._replica.write(lambda transaction: (transaction.state.recorded(pending.number), None))
        with self._replica.reading:
            state = self._replica.state
        read_up_to(self._book, state.tier.scrubs)

    def blank(
        self,
        candidates: Mapping[int, NDArray[np.int32]],
        put: Callable[[int, dict[int, list[int]]], None],
        still: Callable[[], bool] | None = None,
    ) -> int | None:
        def change(transaction: LogTransaction) -> tuple[LogState, Blanking | None]:
            state = transaction.state
            rules.check_no_load(state.tier)
            if still is not None and not still():
                return state, None
            if state.blanking is not None:
                put(*state.blanking)  # before there is a later one
            with self._replica.reading:
                left = {
                    trait: np.setdiff1d(codes, self._codes_in_use(trait, codes)) for trait, codes in candidates.items()
                }
            codes = {trait: unused.tolist() for trait, unused in left.items() if len(unused)}
            if not codes:
                return state, None
            blanking = Blanking(state.tier.blanked, codes)
            return replace(state.changed(blanked=blanking.number + 1), blanking=blanking), blanking

        blanking = self._change(change)
        if blanking is None:
            return None
        put(*blanking)
        return blanking.number

    def _codes_in_use(self, trait: int, among: NDArray[np.int32]) -> NDArray[np.int32]:
        """The codes that events here have. What was scrubbed and not evicted yet does not count: nobody reads it again."""
        rows = self._replica.arena.rows_with(trait, among)
        column = self._remembered(self._replica.arena.view().take(rows)).traits.get(trait)
        return np.zeros(0, np.int32) if column is None else np.unique(column.known)

    def catch_up(self, least: TierState) -> None:
        def change(transaction: LogTransaction) -> tuple[LogState, LogState]:
            before = transaction.state
            if (after := rules.caught_up(before.tier, least)) == before.tier:
                return before, before
            return self._evicted(before, before.changed(**asdict(after)))

        if (known := self.state()) == rules.caught_up(known, least):
            return
        with self._replica.writing:
            self._settle_load()
            self._log.forget(self._write(change))

    # Bulk loads

    def begin_load(self, min_ingest: int, max_ingest: int, token: str, *, now: int) -> int:
        def change(transaction: LogTransaction) -> tuple[LogState, int]:
            state = transaction.state
            rules.check_no_load(state.tier)
            rules.check_load_range(state.tier, min_ingest, max_ingest, now, self._settings.max_ahead_us)
            watermark = max(state.tier.closed, max_ingest + 1)
            return replace(state.changed(load_token=token), load_watermark=watermark), watermark

        with self._replica.writing:
            self._settle_load()
            if not self._log.claim_load():
                raise ConflictError("a bulk load is under way")
            try:
                return self._write(change)
            except BaseException:
                self._log.release_load()
                raise

    def end_load(self, token: str, *, published: bool | None) -> None:
        with self._replica.writing:
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
        with self._replica.reading:
            return self._replica.refresh().tier.load_token

    def close(self) -> None:
        self._replica.close(self._close_log)

    def _close_log(self) -> None:
        self._log.close()


def _check_there(state: TierState, start_ingest: int) -> None:
    """Raises: ConflictError: events from then on may be gone."""
    if start_ingest < state.floor:
        raise ConflictError(
            f"events from {show_ts(start_ingest)} on were asked for, but those below {show_ts(state.floor)} were evicted: "
            f"a newer generation has them"
        )
