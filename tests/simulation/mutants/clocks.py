"""R1 and R5 to R10: the total order, and the two clocks."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from latewood.capture.examples import make_examples
from latewood.capture.places import read_anchors
from latewood.clock import LATEST_TS
from latewood.columns import times_to_arrow
from latewood.compaction import merge
from latewood.events import Events
from latewood.mutable import rules
from latewood.mutable.arena import Arena
from latewood.mutable.log import LogState
from latewood.mutable.logged_tier import LoggedTier

from .mutant import Patches, look_around, mutant

ALL_OF_TIME = 2**62


@mutant("R1", within=50)
def one_stamp_per_batch() -> Patches:
    """A batch's events of one user share an ingest time."""
    return [patch.object(Arena, "count_earlier", lambda self, users, chosen: np.zeros(len(users), np.int64))]


@mutant("R1", within=50)
def no_ordinals() -> Patches:
    """Events that are equal in both times get no place by arrival."""
    add = Arena.add

    def add_unplaced(self: Arena, batch: Any, users: Any, *, place_ties: bool) -> Any:
        return add(self, batch, users, place_ties=False)

    return [patch.object(Arena, "add", add_unplaced)]


@mutant("R1", within=50)
def order_by_event_ts_alone() -> Patches:
    """Compaction sorts by event_ts alone: ties stand as they arrived."""

    def order(events: Events, rank: Any) -> Any:
        return np.lexsort((events.event_ts, events.keys.check, events.keys.hash)).astype(np.int64)

    return [patch.object(merge, "_order", order)]


@mutant("R5", within=50)
def clock_goes_back() -> Patches:
    """A stamp is the wall clock's time, whatever was stamped before."""
    return [patch.object(rules, "first_stamp", lambda state, now, kept: now)]


@mutant("R5", within=50)
def last_is_not_kept() -> Patches:
    """The largest stamp is not written down with the append."""
    appended = LogState.appended

    def forgetful(self: LogState, latest_ingest: int) -> LogState:
        after = appended(self, latest_ingest)
        return replace(after, tier=replace(after.tier, last=self.tier.last))

    return [patch.object(LogState, "appended", forgetful)]


@mutant("R5", within=150)
def any_time_ahead() -> Patches:
    """An ingest time far ahead of the clock is accepted."""
    return [patch.object(rules, "check_not_ahead", lambda *arguments: None)]


@mutant("R6", within=50)
def cutoff_past_closed() -> Patches:
    """A capture's cutoff is a moment that is not closed yet."""
    recent = LoggedTier.recent

    def ahead(self: LoggedTier, keys: Any, **options: Any) -> Any:
        found = recent(self, keys, **options)
        return found if options.get("cutoff") is not None else replace(found, cutoff=found.cutoff + 3)

    return [patch.object(LoggedTier, "recent", ahead)]


@mutant("R6", within=250)
def cut_outside_the_transaction() -> Patches:
    """The cut is chosen from a state that was read before, and the frontier is raised to it afterwards."""

    def cut(self: LoggedTier, watermark: int | None = None) -> int:
        chosen = rules.choose_cut(self.state(), watermark)
        self.state()  # somebody else may come in between
        return self._change(lambda transaction: (transaction.state.changed(frontier=chosen).rotated(), chosen))

    return [patch.object(LoggedTier, "cut", cut)]


@mutant("R6", within=100)
def stamps_outside_the_transaction() -> Patches:
    """Stamps go by the state that was known before the write lock was held."""
    append_group = LoggedTier._append_group

    def by_what_was_known(self: LoggedTier, transaction: Any, group: Any) -> Any:
        known, first_stamp = self.__dict__.pop("_known", transaction.state), rules.first_stamp
        with patch.object(rules, "first_stamp", lambda state, now, kept: first_stamp(known.tier, now, kept)):
            return append_group(self, transaction, group)

    append_queued = LoggedTier._append_queued

    def knowing(self: LoggedTier) -> None:
        with self._replica.reading:
            self.__dict__["_known"] = self._replica.refresh()
        append_queued(self)

    return [
        patch.object(LoggedTier, "_append_group", by_what_was_known),
        patch.object(LoggedTier, "_append_queued", knowing),
    ]


@mutant("R7", within=50)
def no_frontier() -> Patches:
    """Imports below what generations and backfills have seen are accepted."""
    return [patch.object(rules, "too_old", lambda state, ingest_ts: np.zeros(len(ingest_ts), np.bool_))]


@mutant("R7", within=200)
def imports_below_captures() -> Patches:
    """After the first capture imports may still lie anywhere above the frontier."""
    return [patch.object(rules, "too_old", lambda state, ingest_ts: ingest_ts < state.frontier)]


@mutant("R7", within=50)
def cut_keeps_no_frontier() -> Patches:
    """The cut is chosen, and not written down."""

    def cut(self: LoggedTier, watermark: int | None = None) -> int:
        def change(transaction: Any) -> Any:
            return transaction.state.changed().rotated(), rules.choose_cut(transaction.state.tier, watermark)

        return self._change(change)

    return [patch.object(LoggedTier, "cut", cut)]


@mutant("R8", within=50)
def backfill_keeps_no_frontier() -> Patches:
    """A backfill's cutoffs do not become the frontier."""
    return [patch.object(LoggedTier, "raise_frontier", lambda self, cutoff, *, last=None: self.state())]


@mutant("R8", within=150)
def backfill_of_the_future() -> Patches:
    """Requests past the closed time are answered without a word."""

    def fix(store: Any, cutoff: int, what: str, complete: bool) -> None:
        store.tier.raise_frontier(min(cutoff, store.tier.state().closed))
        store.refresh()

    return [patch("latewood.capture.backfill.fix_the_past", fix)]


@mutant("R8", within=100)
def anchors_see_what_came_late() -> Patches:
    """An anchor's cutoff is past the later of its two times, not the earlier."""

    def read(anchors: Any, request_ts: Any) -> Any:
        ends, cutoff = read_anchors(anchors, request_ts)
        ingest_ts = anchors.field("ingest_ts").cast("int64").fill_null(-(2**62)).to_numpy(zero_copy_only=False)
        return ends, np.where(ingest_ts > -(2**62), np.maximum(request_ts, ingest_ts) + 1, cutoff)

    return [patch("latewood.capture.requests.read_anchors", read)]


@mutant("R9", within=50)
def coarse_ingest_times() -> Patches:
    """Compaction keeps ingest times to 4 µs."""
    scan = LoggedTier.scan

    def coarse(self: LoggedTier, start: int, end: int, **options: Any) -> Any:
        runs = scan(self, start, end, **options)
        if end > LATEST_TS:  # not a compaction's
            return runs
        return (events.stamped(np.maximum(events.ingest_ts // 4 * 4, start), events.ordinal) for events in runs)

    return [patch.object(LoggedTier, "scan", coarse)]


@mutant("R10", within=50)
def logged_by_a_second_read() -> Patches:
    """What is logged is as of a moment after what was read."""

    def read_twice(store: Any, requests: Any, cutoff: Any) -> Any:
        reading, table = make_examples(store, requests, cutoff)
        look_around(store.tier)
        place = table.column_names.index("cutoff")
        later = times_to_arrow(np.full(len(table), store.tier.state().closed))
        return reading, table.set_column(place, table.schema.field(place), later)

    return [patch("latewood.capture.capture.make_examples", read_twice)]
