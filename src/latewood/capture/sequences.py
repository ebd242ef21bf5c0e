"""Whole sequences: each user's history once, with every event of a period as a target, predicted from what precedes it.

A model that predicts at each position (SASRec, HSTU) learns from a history of n events what n requests would teach it, at
the cost of one. But the sequence is as of the period's end, and a target must see no more than a request in its place had
seen (docs/protocol.md R8): what arrived late, or was corrected later, lies before targets that did not know it. Where the
events before a target are not exactly those that an anchor there sees, it is no target, and is counted.
"""

import warnings
from datetime import datetime
from numbers import Integral

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.batch import Batch
from latewood.capture.anchors import ends_of, first_of_users
from latewood.capture.backfill import fix_the_past
from latewood.capture.counting import seen_before
from latewood.capture.examples import make_in_parts
from latewood.capture.requests import Requests
from latewood.capture.store import CaptureStore
from latewood.clock import doubt_of_unit, show_ts, to_us
from latewood.columns import one_array, times_to_arrow
from latewood.errors import SchemaError, refuse_path
from latewood.events import NO_TIE, Events
from latewood.histories import Scan, scan_histories, superseded
from latewood.lists import offsets_of, positions
from latewood.schema import TIME_TYPE
from latewood.users import UserKeys, no_keys, user_starts

TARGETS, UNFIT = "targets", "unfit"


def sequences(
    store: CaptureStore,
    targets: tuple[int | datetime, int | datetime],
    *,
    chunk: int | None = None,
    min_history: int = 1,
    complete: bool = False,
    at_once: int = 1 << 14,
) -> pa.Table:
    """Examples for models that predict at every position, each event of a period once.

    Args:
        store: opened for writing, as for `lw.backfill`.
        targets: the period: events from the first moment on and before the second are targets.
        chunk: at most so many events of the period in one example; None: all of a user's. An example's history is as
            long as its projection says: with `max_len=chunk + overlap`, `overlap` events or more precede the first target.
        min_history: events with fewer events before them are no targets.
        complete, at_once: see `lw.backfill`.
    Returns: user_id, request_ts (where the example's history ends), `uih`, `recent`, `cutoff`, and of the example's last
        events, those of the period: `targets`, list<bool>, whether each is a target, and `unfit`, how many are none since
        what precedes them is not what a request in their place had seen. `lw.target_mask(batch)` tells them in a batch.
    Warns: UserWarning: no event is in the period, or most of those that are are no targets.
    Raises: SchemaError: a period that ends before it begins, a chunk that is none. ConflictError: as `lw.backfill`.
    """
    refuse_path(store)
    begins, ends = (to_us(moment) for moment in targets)
    if begins > ends:
        raise SchemaError(f"the period of targets ends, at {show_ts(ends)}, before it begins, at {show_ts(begins)}")
    for name, count, least in (("chunk", chunk, 1), ("min_history", min_history, 0), ("at_once", at_once, 1)):
        if count is not None and (not isinstance(count, Integral) or count < least):
            raise SchemaError(f"{name}={count!r} must be an integer, and at least {least}")
    fix_the_past(store, ends, f"the period's end, {show_ts(ends)},", complete)

    def find(scan: Scan) -> Requests:
        runs = [_requests(store, events, begins, ends, chunk, min_history) for events in scan.events if len(events)]
        return _joined(runs, scan.schema.user_id)

    requests = scan_histories(store, find, lambda schema: ())
    tables = list[pa.Table]()
    for is_first, _, _, examples in make_in_parts(store, requests, at_once):
        if is_first:
            tables.clear()
        tables.append(examples)
    unfit = sum(pc.sum(table[UNFIT]).as_py() or 0 for table in tables)
    fit = sum(pc.sum(pc.list_flatten(table[TARGETS])).as_py() or 0 for table in tables)
    if unfit > fit:
        message = (
            f"{unfit:,} of {unfit + fit:,} events of the period are no targets, since what precedes them is not what a "
            "request in their place had seen: late events lie before them. lw.groups of lw.anchors gives each its own past"
        )
        warnings.warn(message, UserWarning, stacklevel=2)
    if not any(map(len, tables)):
        message = f"no event is among the targets, from {show_ts(begins)} until before {show_ts(ends)}"
        warnings.warn(message + doubt_of_unit("targets", *targets), UserWarning, stacklevel=2)
    return pa.concat_tables(tables)


def target_mask(batch: Batch) -> NDArray[np.bool_]:
    """Which events of a batch are targets, of examples that `lw.sequences` made. Shapes: (offsets[-1],).

    None of an example of weight 0, with which a loader fills a step up: it counts where it is not repeated.
    Raises: SchemaError: the batch has no such examples, or has streams, which leave events out.
    """
    if TARGETS not in batch.features.column_names:
        raise SchemaError(f"the examples have no column {TARGETS!r}: lw.sequences makes it")
    if batch.streams:
        raise SchemaError("the batch has streams: targets are events of whole sequences")
    lists = one_array(batch.features[TARGETS])
    of_example = lists.offsets.to_numpy()
    kept = np.minimum(np.diff(of_example), batch.lengths)  # the newest, should the history be shorter
    kept = np.where(batch.weights > 0, kept, 0)
    flags = lists.values.to_numpy(zero_copy_only=False)
    mask = np.zeros(int(batch.offsets[-1]), np.bool_)
    mask[positions(batch.offsets[1:] - kept, kept)] = flags[positions(of_example[1:] - kept, kept)]
    return mask


def _requests(
    store: CaptureStore, events: Events, begins: int, ends: int, chunk: int | None, min_history: int
) -> Requests:
    """The examples-to-be of the users whose histories these are."""
    there = (events.event_ts < ends) & (events.ingest_ts < ends) & (superseded(events) >= ends)
    rows = np.flatnonzero(there & (store.scrubs.scrubbed_at(events.keys) < ends))
    held = events.take(rows)  # what the sequences hold
    fits, before = _fits(events, rows, held)
    start, stop, is_last = _cut(held, begins, chunk)
    shown = positions(start, stop - start)
    asked = before[shown] >= min_history
    offsets = offsets_of(stop - start)
    unfit = np.diff(np.append(0, np.cumsum(asked & ~fits[shown]))[offsets])
    next_ = held.take(np.where(is_last, 0, stop))  # what an example ends before, unless it is its user's last
    end_ts = np.where(is_last, ends, next_.event_ts)
    features = pa.table(
        {
            "user_id": held.user_ids.take(pa.array(start)),
            "request_ts": times_to_arrow(end_ts),
            TARGETS: pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(asked & fits[shown])),
            UNFIT: pa.array(unfit),
        }
    )
    tie_ingest, tie_ordinal = np.where(is_last, NO_TIE, next_.ingest_ts), np.where(is_last, 0, next_.ordinal)
    cutoff = np.full(len(start), ends)
    return Requests(features, held.keys.take(start), end_ts, tie_ingest, tie_ordinal.astype(np.int32), cutoff)


def _cut(
    held: Events, begins: int, chunk: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The events of the period by example: [start, stop), and whether those are its user's last. Shapes: (n,) each."""
    starts = user_starts(held.keys)
    stops = np.append(starts[1:], len(held))[: len(starts)]
    earlier = np.append(0, np.cumsum(held.event_ts < begins))  # the period is the end of every history
    first = starts + earlier[stops] - earlier[starts]
    longest = max(int((stops - first).max(initial=0)), 1)
    size = longest if chunk is None else min(chunk, longest)
    counts = -(-(stops - first) // size)
    user = np.repeat(np.arange(len(starts)), counts)
    start = first[user] + (np.arange(len(user)) - offsets_of(counts)[user]) * size
    stop = np.minimum(start + size, stops[user])
    return start, stop, stop == stops[user]


def _fits(events: Events, rows: NDArray[np.int64], held: Events) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether what precedes each event of a sequence is what an anchor there sees, and how many events that are.

    Args: rows, held: the events that sequences hold, among all and alone.
    """
    place, first = np.arange(len(held)), first_of_users(held)
    before = place - first
    cutoff = np.minimum(events.event_ts, events.ingest_ts) + 1
    of_user = first_of_users(events)
    end = ends_of(events, of_user, cutoff)
    anchored = seen_before(of_user[rows], end[rows], cutoff[rows], events.ingest_ts, events.superseded_at)
    known = seen_before(first, place, cutoff[rows], held.ingest_ts, None)
    reaches = np.searchsorted(rows, end[rows]) == place  # an earlier version, known by then, may end it before
    return (anchored == before) & (known == before) & reaches, before


def _joined(runs: list[Requests], user_type: pa.DataType) -> Requests:
    fields = [("user_id", user_type), ("request_ts", TIME_TYPE), (TARGETS, pa.list_(pa.bool_())), (UNFIT, pa.int64())]
    features = pa.concat_tables([pa.schema(fields).empty_table(), *(run.features for run in runs)])
    none = no_keys()
    return Requests(
        features,
        UserKeys(*(np.concatenate(halves) for halves in zip(none, *(run.keys for run in runs), strict=True))),
        np.concatenate([np.zeros(0, np.int64), *(run.end_ts for run in runs)]),
        np.concatenate([np.zeros(0, np.int64), *(run.tie_ingest for run in runs)]),
        np.concatenate([np.zeros(0, np.int32), *(run.tie_ordinal for run in runs)]),
        np.concatenate([np.zeros(0, np.int64), *(run.cutoff for run in runs)]),
    )
