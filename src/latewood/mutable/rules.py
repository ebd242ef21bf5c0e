"""The rules of time, as pure functions: which ingest times may be given, and what may be promised (docs/protocol.md R5-R7).

Nothing here knows where the tier keeps its events; both backends decide by these.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latewood.clock import LATEST_TS, show_ts
from latewood.errors import ConflictError
from latewood.mutable.tier import Late, TierState


def first_stamp(state: TierState, now: int, kept: NDArray[np.int64]) -> int:
    """The stamp of each user's first event in a batch (R5); `kept` are the explicit times of the same batch."""
    return max(now, state.last + 1, int(kept.max()) + 1 if len(kept) else now)


def too_old(state: TierState, ingest_ts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which explicit ingest times would change what a generation, a backfill or a capture has already seen (R7)."""
    limit = state.last + 1 if state.captured else state.frontier
    return ingest_ts < limit


def check_not_ahead(ingest_ts: NDArray[np.int64], now: int, max_ahead_us: int, rows: NDArray[np.int64]) -> None:
    """Refuse ingest times further ahead of the clock than allowed (R5): one bad stamp would drag every later one along.

    Raises: ConflictError: naming the row, as numbered in `rows`.
    """
    limit = min(now + max_ahead_us, LATEST_TS)
    if not len(ingest_ts) or int(ingest_ts.max()) <= limit:
        return
    at = int(np.argmax(ingest_ts > limit))
    raise ConflictError(
        f"row {rows[at]}: ingest time {show_ts(int(ingest_ts[at]))} is more than {max_ahead_us / 1e6:g} s ahead of the "
        f"clock, {show_ts(now)}. Did the clock jump back? A replay brings its own clock"
    )


def late_rows(state: TierState, ingest_ts: NDArray[np.int64], late: Late, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows of an explicit batch are to be stamped now because their own ingest time is too old (R7).

    Raises: ConflictError: there are some and `late` is "raise"; it names the first.
    """
    old = too_old(state, ingest_ts)
    if late == "raise" and old.any():
        at = int(np.argmax(old))
        raise ConflictError(
            f"row {rows[at]}: ingest time {show_ts(int(ingest_ts[at]))} is too old: {_since_when(state)}. "
            f'Pass late="stamp" to add such events as known from now on, which no past request sees then; '
            "or make a store of all feeds with lw.rebuild"
        )
    return old


def check_load_range(state: TierState, min_ingest: int, max_ingest: int, now: int, max_ahead_us: int) -> None:
    """R7 and R5 for events that go straight into a generation. Raises: ConflictError."""
    if min_ingest > max_ingest:
        raise ValueError(f"ingest times from {min_ingest} to {max_ingest} are no range")
    if too_old(state, np.array([min_ingest], np.int64))[0]:
        raise ConflictError(
            f"the earliest ingest time, {show_ts(min_ingest)}, is too old: {_since_when(state)}. "
            f"Older data needs a store of its own, or a rebuild"
        )
    if max_ingest > min(now + max_ahead_us, LATEST_TS):
        raise ConflictError(
            f"the latest ingest time, {show_ts(max_ingest)}, is ahead of the clock, {show_ts(now)}, by more than "
            f"{max_ahead_us / 1e6:g} s"
        )


def choose_cut(state: TierState, watermark: int | None) -> int:
    """The watermark of the next generation: from the frontier to closed (R6). Raises: ConflictError."""
    cut = state.closed if watermark is None else watermark
    if not state.frontier <= cut <= state.closed:
        raise ConflictError(
            f"the cut {show_ts(cut)} is outside what can be cut now: from the frontier, {show_ts(state.frontier)}, "
            f"to the closed time, {show_ts(state.closed)}"
        )
    return cut


def raised(state: TierState, cutoff: int, last: int | None) -> TierState:
    """With the frontier at least at `cutoff`, and everything up to `last` declared in (R8).

    Raises: ConflictError: the cutoff lies past the closed time, so that events below it may still come.
    """
    raised_last = state.last if last is None else max(state.last, last)
    if cutoff > raised_last + 1:
        raise ConflictError(
            f"the cutoff {show_ts(cutoff)} lies past the closed time, {show_ts(raised_last + 1)}: events below it may "
            f"still come, unless the history is declared complete"
        )
    return replace(state, last=raised_last, frontier=max(state.frontier, cutoff))


def caught_up(state: TierState, least: TierState) -> TierState:
    """With at least what `least` counts, and everything closed that is so there: see `MutableTier.catch_up`."""
    counts = {name: max(getattr(state, name), getattr(least, name)) for name in ("scrubs", "blanked", "changes")}
    counted = replace(state, **counts)
    is_told = state.frontier >= least.floor and state.last >= least.last
    if is_told or state.load_token is not None:  # a load that has just published ends by itself
        return counted
    return replace(
        counted,
        last=max(state.last, least.last),
        frontier=max(state.frontier, least.frontier),
        floor=max(state.floor, least.floor),
        captured=True,  # it may have been
    )


def check_no_load(state: TierState) -> None:
    """Raises: ConflictError: a bulk load is under way."""
    if state.load_token is not None:
        raise ConflictError(f"a bulk load is under way (token {state.load_token}); try again when it has ended")


def _since_when(state: TierState) -> str:
    if state.captured:
        return f"captures have seen everything up to {show_ts(state.last)}"
    return f"generations or backfills exist up to the frontier, {show_ts(state.frontier)}"
