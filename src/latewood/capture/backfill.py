"""Backfill: examples as of each request's own time, from events that came in with their ingest times (docs/protocol.md R8).

The way in for a team with yesterday's data. Each request is answered as a capture at its time would have answered it:
its cutoff is the request's time, so that an event which happened earlier but was learned of later stays out. For an
anchor, a request that is an event itself, the cutoff is just after the earlier of its two times, and its history ends
before the first of its versions that was known by then.

The cutoffs become the frontier before anything is read: nothing can be added below them any more, so that a rerun gives
the same answer.
"""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.capture.doubts import HistoryCounts, doubt_of_grids
from latewood.capture.examples import make_in_parts
from latewood.capture.requests import Requests, read_requests
from latewood.capture.store import CaptureStore
from latewood.clock import show_ts
from latewood.errors import ConflictError, SchemaError, refuse_path
from latewood.mutable import MutableTier


def backfill(
    store: CaptureStore, requests: Any, complete: bool = False, allow_empty: bool = False, *, at_once: int = 1 << 14
) -> pa.Table:
    """Make examples of past requests.

    Args:
        store: opened for writing, since what is answered is fixed in the mutable tier.
        requests: user_id, request_ts and any columns of your own; `anchor` where a request is an event (`lw.anchors`).
        complete: all events up to the latest request are in. Declares what the store cannot know: that no event is
            still on its way with an ingest time below. Needed where requests are later than the last event.
        allow_empty: accept that most histories are empty because their events were ingested after the request.
        at_once: how many requests to read at a time, which bounds the recent events held.
    Returns: the requests' columns (without `anchor`), `uih`, `recent` and `cutoff`.
    Warns: UserWarning: no request has any history, or requests are dated more finely than events are.
    Raises: SchemaError: the requests do not fit. ConflictError: a request past what the store knows to be complete, or
        most requests would lose their history to ingest time. TypeError: not a store.
    """
    refuse_path(store)
    if not hasattr(store, "tier"):
        raise TypeError(f"backfill(store, requests): a {type(store).__name__} is no store; are the two swapped?")
    if at_once < 1:
        raise SchemaError(f"at_once={at_once} must be at least 1")
    tier_to_fix(store)
    checked = read_requests(requests, store.schema)
    fix_for_requests(store, checked, complete)
    return answer(store, checked, allow_empty, at_once)


def fix_for_requests(store: CaptureStore, requests: Requests, complete: bool) -> None:
    """Raise the frontier to the latest cutoff of some requests, or refuse."""
    if len(requests):
        latest = int(np.argmax(requests.cutoff))
        what = f"row {latest}: the request at {show_ts(int(requests.end_ts[latest]))}"
        fix_the_past(store, int(requests.cutoff[latest]), what, complete)


def answer(store: CaptureStore, requests: Requests, allow_empty: bool, at_once: int) -> pa.Table:
    """Make examples of requests whose past is fixed. Warns, and raises: as `backfill`."""
    for is_first, part, reading, examples in make_in_parts(store, requests, at_once):
        if is_first:
            histories, tables = HistoryCounts(tier_to_fix(store)), list[pa.Table]()
            doubt = doubt_of_grids(part, reading)
        histories.add(part, reading)
        tables.append(examples)
    if not allow_empty:
        histories.require_few()
    histories.warn_if_none()
    if doubt and histories.found:
        warnings.warn(doubt, UserWarning, stacklevel=3)
    return pa.concat_tables(tables)


def tier_to_fix(store: CaptureStore) -> MutableTier:
    """Raises: ConflictError: the store is open for reading only, and nothing can be fixed."""
    if store.tier is None:
        raise ConflictError("backfill fixes the past in the mutable tier, and this store was opened without it")
    return store.tier


def fix_the_past(store: CaptureStore, cutoff: int, what: str, complete: bool) -> None:
    """Raise the frontier to a cutoff, durably, or refuse. Args: what: has that cutoff, for errors."""
    tier = tier_to_fix(store)
    closed = tier.state().closed
    if cutoff > closed and not complete:
        raise ConflictError(
            f"{what} is past {show_ts(closed)}, up to which the store knows that its events are complete. If none is "
            "still on its way with an earlier ingest time, pass complete=True"
        )
    if cutoff > closed and cutoff - 1 > (now := store.clock.now()):
        raise ConflictError(f"{what} is later than the store's clock, {show_ts(now)}: more events may come")
    tier.raise_frontier(cutoff, last=cutoff - 1 if complete else None)
    store.refresh()  # a bulk load may have been published since; from here on none can add below the cutoffs
