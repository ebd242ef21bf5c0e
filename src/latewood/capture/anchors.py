"""Anchors: events used as requests. Each event that meets a condition asks for the history that precedes it.

A data set of interactions has no request log, but each interaction can stand for a request made the moment before it.
"Before" is the user's total order, which settles ties, and "known before" is docs/protocol.md R8: an anchor's cutoff is
`min(event_ts, ingest_ts) + 1 µs`, so that an event which arrived late does not bring along what arrived meanwhile.

An event that was corrected is an anchor as it is now. Its earlier versions may sort before it, and must not be in its
history; so that ends at the first of them that was known by then (R2).
"""

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.batch import count_of
from latewood.capture.counting import seen_before
from latewood.capture.places import ANCHOR_TYPE
from latewood.capture.store import CaptureStore
from latewood.columns import plain_array, times_to_arrow
from latewood.conditions import Condition, check_condition
from latewood.errors import SchemaError, refuse_path
from latewood.events import NEVER, Events
from latewood.histories import Scan, scan_histories
from latewood.pointer import places_to_arrow
from latewood.schema import TIME_TYPE, Schema
from latewood.users import user_starts


def anchors(store: CaptureStore, where: Condition | None = None, min_history: int = 1) -> pa.Table:
    """The events that meet a condition, as requests for what precedes each of them.

    Args:
        where: for example `lw.col("action") == "like"`; None takes every event.
        min_history: leave out events that see fewer than this many before them.
    Returns: user_id, request_ts (the event's own time), its traits, and `anchor`, which tells `lw.backfill` which event
        it is, and where its history ends if that is not at the event itself; sorted by time, then user, then place among
        ties. Events that a correction or deletion took the place of are left out, and so are those of scrubbed users.
    Warns: UserWarning: events meet the condition, and none sees `min_history` events.
    Raises: SchemaError: the condition does not fit the store's schema, or min_history is negative.
    """
    refuse_path(store, read_only=True)
    if min_history < 0:
        raise SchemaError(f"min_history is {min_history}; it counts events")

    def find(scan: Scan) -> tuple[int, pa.Table]:
        if where is not None:
            check_condition(where, scan.schema)
        histories = (events for events in scan.events if len(events))
        found = [_anchors_among(store, scan.schema, events, where, min_history) for events in histories]
        tables = [requests for _, requests in found]
        return sum(chosen for chosen, _ in found), _sorted(pa.concat_tables([_empty(scan.schema), *tables]))

    chosen, requests = scan_histories(store, find)
    if chosen and not len(requests):
        warnings.warn(
            f"none of {chosen:,} events sees {count_of(min_history, 'event')} before it that was known by then: were they "
            "imported without their ingest times, and so stamped with the time of the import?",
            UserWarning,
            stacklevel=2,
        )
    return requests


def _anchors_among(
    store: CaptureStore, schema: Schema, events: Events, where: Condition | None, min_history: int
) -> tuple[int, pa.Table]:
    """How many events among whole histories would be anchors, were all of them long enough; and those that are."""
    first, cutoff = first_of_users(events), np.minimum(events.event_ts, events.ingest_ts) + 1
    end = ends_of(events, first, cutoff)
    chosen = _matching(store, schema, events, where) & (store.scrubs.scrubbed_at(events.keys) < cutoff)
    if events.superseded_at is not None:
        chosen &= events.superseded_at == NEVER
    count = int(chosen.sum())
    if min_history:
        chosen &= seen_before(first, end, cutoff, events.ingest_ts, events.superseded_at) >= min_history
    rows = np.flatnonzero(chosen)
    return count, _as_requests(store, schema, events, rows, end[rows])


def _matching(store: CaptureStore, schema: Schema, events: Events, where: Condition | None) -> NDArray[np.bool_]:
    if where is None:
        return np.ones(len(events), np.bool_)
    return where.evaluate(store.vocabulary.columns(schema, events, where.names))


def first_of_users(events: Events) -> NDArray[np.int64]:
    """Of each event, the first of its user. The events are sorted: users together."""
    starts = user_starts(events.keys)
    return np.repeat(starts, np.diff(starts, append=len(events)))


def ends_of(events: Events, first: NDArray[np.int64], cutoff: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each event's history ends: at the first of itself and of its versions that were known by then.

    An earlier version of an event is one that was superseded at its ingest time.
    """
    end = np.arange(len(events))
    if events.superseded_at is None:
        return end
    older: dict[tuple[int, int], list[int]] = {}  # by user and by when they were superseded
    for row in np.flatnonzero(events.superseded_at < NEVER).tolist():
        older.setdefault((int(first[row]), int(events.superseded_at[row])), []).append(row)
    times = np.array(sorted({at for _, at in older}), np.int64)
    for anchor in np.flatnonzero(np.isin(events.ingest_ts, times)).tolist():
        waiting, versions = [anchor], {anchor}
        while waiting:
            of = waiting.pop()
            found = set(older.get((int(first[of]), int(events.ingest_ts[of])), ())) - versions
            versions |= found
            waiting += found
        end[anchor] = min([anchor, *(row for row in versions if events.ingest_ts[row] < cutoff[anchor])])
    return end


def _as_requests(
    store: CaptureStore, schema: Schema, history: Events, rows: NDArray[np.int64], end: NDArray[np.int64]
) -> pa.Table:
    events = history.take(rows)
    columns = {"user_id": events.user_ids, "request_ts": times_to_arrow(events.event_ts)}
    for trait in schema:
        columns[trait.name] = plain_array(store.vocabulary.trait_to_arrow(trait, events))
    ends = places_to_arrow(history.event_ts[end], history.ingest_ts[end], history.ordinal[end], null=end == rows)
    place = [times_to_arrow(events.ingest_ts), pa.array(events.ordinal, pa.int32()), ends]
    columns["anchor"] = pa.StructArray.from_arrays(place, fields=list(ANCHOR_TYPE))
    return pa.table(columns)


def _sorted(requests: pa.Table) -> pa.Table:
    keys = {name: requests[name] for name in ("request_ts", "user_id")}
    keys |= {name: pc.struct_field(requests["anchor"], name) for name in ("ingest_ts", "ordinal")}
    return requests.take(pc.sort_indices(pa.table(keys), [(name, "ascending") for name in keys]))


def _empty(schema: Schema) -> pa.Table:
    traits = [(trait.name, trait.value_type) for trait in schema]
    return pa.schema(
        [("user_id", schema.user_id), ("request_ts", TIME_TYPE), *traits, ("anchor", ANCHOR_TYPE)]
    ).empty_table()
