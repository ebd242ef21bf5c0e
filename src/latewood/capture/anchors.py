"""Anchors: events used as requests. Each event that meets a condition asks for the history that precedes it.

A data set of interactions has no request log, but each interaction can stand for a request made the moment before it.
"Before" is the user's total order, which settles ties, and "known before" is docs/protocol.md R8: an anchor's cutoff is
`min(event_ts, ingest_ts) + 1 µs`, so that an event which arrived late does not bring along what arrived meanwhile.

How many events an anchor sees is counted without looking back from each: where nothing came late before it, the count
is its place; elsewhere the running k-th smallest ingest time tells whether at least k were known.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.capture.store import CaptureStore
from latewood.clock import LATEST_TS
from latewood.columns import column_to_arrow, times_to_arrow
from latewood.conditions import Condition
from latewood.errors import ConflictError, SchemaError
from latewood.events import Events, concat_events, no_events
from latewood.immutable.reader import GenerationReader
from latewood.schema import EVENT_TS, TIME_TYPE, Schema

ANCHOR_TYPE = pa.struct([("ingest_ts", TIME_TYPE), ("ordinal", pa.int32())])


def anchors(store: CaptureStore, where: Condition | None = None, min_history: int = 1) -> pa.Table:
    """The events that meet a condition, as requests for what precedes each of them.

    Args:
        where: for example `lw.col("action") == "like"`; None takes every event.
        min_history: leave out events that see fewer than this many before them.
    Returns: user_id, request_ts (the event's own time), its traits, and `anchor`, which tells `lw.backfill` which event
        it is; sorted by time, then user, then place among ties.
    Raises: SchemaError: the condition does not fit the store's schema, or min_history is negative.
    """
    if where is not None and not isinstance(where, Condition):
        raise SchemaError(f"where is a condition such as lw.col('trait') == 1, not {where!r}")
    if min_history < 0:
        raise SchemaError(f"min_history is {min_history}; it counts events")
    if where is not None:
        where.validate(store.schema)
    tables = [_empty(store.schema)]
    for events in _histories(store):
        rows = np.flatnonzero(_matching(store, events, where) & _with_history(events, min_history))
        tables.append(_as_requests(store, events.take(rows)))
    return _sorted(pa.concat_tables(tables))


def _histories(store: CaptureStore) -> Iterator[Events]:
    """Whole users at a time, in key order, each user's events in the total order: both tiers merged."""
    reader, recent = _read_both(store)
    for events in reader.scan(list(store.schema)):
        if not len(events):
            continue
        if len(recent):
            due = _up_to(recent, events)
            events, recent = _merge(events, recent.take(np.flatnonzero(due))), recent.take(np.flatnonzero(~due))
        yield events
    if len(recent):
        yield recent.take(recent.order())


def _read_both(store: CaptureStore) -> tuple[GenerationReader, Events]:
    """The newest generation, opened as a whole, and the recent events that it lacks."""
    while True:
        reader = store.refresh()
        watermark = reader.generation.watermark
        try:
            reader.open()
            if store.tier is None:
                return reader, no_events(store.schema)
            return reader, concat_events([no_events(store.schema), *store.tier.scan(watermark, LATEST_TS + 1)])
        except (ConflictError, FileNotFoundError):
            # a compaction published, and evicted or collected in between (R11): the newer generation has what is gone
            if store.refresh().generation.watermark == watermark:
                raise


def _up_to(recent: Events, events: Events) -> NDArray[np.bool_]:
    """Which recent events belong to users up to the last of a run in key order."""
    last_hash, last_check = events.keys.hash[-1], events.keys.check[-1]
    hashes, checks = recent.keys
    due: NDArray[np.bool_] = (hashes < last_hash) | ((hashes == last_hash) & (checks <= last_check))
    return due


def _merge(events: Events, recent: Events) -> Events:
    if not len(recent):
        return events
    both = concat_events([events, recent])
    return both.take(both.order())


def _matching(store: CaptureStore, events: Events, where: Condition | None) -> NDArray[np.bool_]:
    if where is None:
        return np.ones(len(events), np.bool_)
    return where.evaluate({name: _column(store, events, name) for name in where.names})


def _column(store: CaptureStore, events: Events, name: str) -> pa.Array:
    """A trait as Arrow; coded ones as dictionary arrays, so that conditions look at each value once."""
    if name == EVENT_TS:
        return times_to_arrow(events.event_ts)
    trait = store.schema[name]
    column = events.traits.get(trait.id)
    if column is None:
        return pa.nulls(len(events), trait.value_type)
    if not trait.coded:
        return column_to_arrow(column, trait.type)
    codes = pa.array(column.values, pa.int32(), mask=column.mask)
    known = pc.max(codes).as_py()
    values = store.vocabulary.values(trait.id, at_least=0 if known is None else known + 1)
    return pa.DictionaryArray.from_arrays(codes, values)


def _with_history(events: Events, at_least: int) -> NDArray[np.bool_]:
    """Which events see at least so many before them. The events are sorted: users together, each in the total order."""
    n = len(events)
    if at_least == 0 or n == 0:
        return np.ones(n, np.bool_)
    row = np.arange(n)
    new = np.ones(n, np.bool_)
    hashes, checks = events.keys
    new[1:] = (hashes[1:] != hashes[:-1]) | (checks[1:] != checks[:-1])
    place = row - np.maximum.accumulate(np.where(new, row, 0))
    # Ingest times as ranks, so that a user's number can be put before them: one running maximum serves all users.
    rank = np.empty(n, np.int64)
    rank[np.argsort(events.ingest_ts, kind="stable")] = row
    limit = np.searchsorted(np.sort(events.ingest_ts), np.minimum(events.event_ts, events.ingest_ts) + 1)
    user = np.cumsum(new) - 1
    latest = _shift(np.maximum.accumulate(user * (n + 1) + rank) - user * (n + 1), new, -1)
    enough = place >= at_least
    late = enough & (latest >= limit)  # something before it was not known in time: count exactly
    if late.any():
        rows = np.flatnonzero(np.isin(user, user[late]))  # whole users
        enough[rows] &= _kth_smallest_before(rank[rows], user[rows], new[rows], at_least, n) < limit[rows]
    return enough


def _kth_smallest_before(
    rank: NDArray[np.int64], user: NDArray[np.int64], new: NDArray[np.bool_], k: int, nothing: int
) -> NDArray[np.int64]:
    """Before each row, the k-th smallest rank of its user so far; `nothing` where there are fewer.

    A cascade: what a running minimum gives up when a smaller one comes is the next running minimum's input.
    """
    base = (user.max() - user) * (nothing + 1)  # falls from user to user, so that a minimum starts anew
    smallest = rank
    for _ in range(k):
        smallest = _shift(np.minimum.accumulate(base + rank) - base, new, nothing)
        rank = np.maximum(rank, smallest)
    return smallest


def _shift(values: NDArray[np.int64], new: NDArray[np.bool_], first: int) -> NDArray[np.int64]:
    """The value of the row before, `first` on each user's first row."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[new] = first
    return shifted


def _as_requests(store: CaptureStore, events: Events) -> pa.Table:
    columns = {"user_id": events.user_ids, "request_ts": times_to_arrow(events.event_ts)}
    for trait in store.schema:
        column = _column(store, events, trait.name)
        columns[trait.name] = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    place = [times_to_arrow(events.ingest_ts), pa.array(events.ordinal, pa.int32())]
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
