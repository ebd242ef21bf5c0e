"""The oracle: what every request must see, computed from the raw events alone by docs/protocol.md R2.

It shares no code with the store, knows neither tiers nor pointers, and compares each event of a user with each request:
so plain that it can be believed. An event is visible to a request iff it sorts before the request's end in the user's
total order (event_ts, ingest_ts, ordinal) and `ingest_ts < cutoff`. Events are sorted once; after that a request costs
a few passes over its user's events, so a million of them are checked in minutes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.errors import SchemaError
from latewood.projection import Projection

_TIME = pa.timestamp("us", "UTC")
_NO_TRAITS = ("user_id", "event_ts", "ingest_ts", "event_id", "supersedes", "superseded_at")
_NEVER = 2**63 - 1
_NO_FEATURES = ("uih", "recent", "cutoff", "anchor")
_CHUNK_EVENTS = 8_000_000  # history events per Arrow chunk: far from the 2 GiB that one string array can hold


def fat_rows(
    events: Any, requests: Any, projection: Projection, *, groups: Mapping[str, Sequence[str]] | None = None
) -> pa.Table:
    """The Fat Rows of some requests: their features, and the history as each of them saw it.

    Args:
        events: a table of user_id, event_ts, ingest_ts and traits. Row order is arrival: it decides between events that
            are equal in all three. Every event counts; duplicates are the caller's to remove. `superseded_at`, where
            given, is the ingest time of the correction or deletion that took an event's place, null for most.
        requests: a table of user_id, request_ts and features; `cutoff` where a request saw events ingested before
            another time than request_ts (a capture logs it); `anchor`, struct<ingest_ts, ordinal>, where a request
            is an event: its cutoff is then min(event_ts, ingest_ts) + 1 µs, and it ends before the first of its versions
            that was known by then.
        groups: the traits of each feature group, if the projection names groups.
    Returns: as `Batch.to_arrow()`: the features, and `history`: struct<trait: list<...>>, oldest first, never null.
    """
    return Oracle(events, groups=groups).fat_rows(requests, projection)


class Oracle:
    """Raw events, sorted once, to answer any number of requests. See `fat_rows`."""

    def __init__(self, events: Any, *, groups: Mapping[str, Sequence[str]] | None = None) -> None:
        table = events if isinstance(events, pa.Table) else pa.table(events)
        for name in ("user_id", "event_ts", "ingest_ts"):
            if name not in table.column_names:
                raise SchemaError(f"the oracle needs column {name!r} of the events")
        self._groups = groups
        user_ids = _user_ids(table["user_id"])
        self._users = pc.unique(user_ids)
        user = _codes(user_ids, self._users)
        event_ts, ingest_ts = _us(table["event_ts"]), _us(table["ingest_ts"])
        order = np.lexsort((ingest_ts, event_ts, user))  # a stable sort: arrival decides the rest
        self._event_ts, self._ingest_ts = event_ts[order], ingest_ts[order]
        self._superseded_at = _superseded(table)[order]
        self._bounds = np.searchsorted(user[order], np.arange(len(self._users) + 1))
        self._ordinal = _places(user[order], self._event_ts, self._ingest_ts)
        self._values = {
            name: _plain(table[name]).take(pa.array(order)) for name in table.column_names if name not in _NO_TRAITS
        }
        self._values["event_ts"] = pa.array(self._event_ts).view(_TIME)

    def fat_rows(self, requests: Any, projection: Projection) -> pa.Table:
        """The Fat Rows of some requests, in their order."""
        table = requests if isinstance(requests, pa.Table) else pa.table(requests)
        if projection.kinds:
            raise SchemaError("the oracle knows no streams: take whole histories, and choose from them")
        names = self._names(projection)
        features = table.drop_columns([name for name in _NO_FEATURES if name in table.column_names])
        type_ = pa.struct([(name, pa.list_(self._values[name].type)) for name in names])
        chunks: list[pa.Array] = []
        pending: list[NDArray[np.int64]] = []
        waiting = 0
        for rows in self._visible(table, projection.max_len):
            pending.append(rows)
            waiting += len(rows)
            if waiting >= _CHUNK_EVENTS:
                chunks.append(self._histories(pending, type_))
                pending, waiting = [], 0
        chunks.append(self._histories(pending, type_))
        return features.append_column("history", pa.chunked_array(chunks, type_))

    def _names(self, projection: Projection) -> list[str]:
        if projection.traits is not None:
            names = list(projection.traits)
        elif projection.groups is None:
            names = ["event_ts", *(name for name in self._values if name != "event_ts")]
        elif self._groups is None:
            raise SchemaError("a table of events has no feature groups: give the oracle groups={group: [traits]}")
        else:
            if unknown := [group for group in projection.groups if group not in self._groups]:
                raise SchemaError(f"unknown feature group {unknown[0]!r}")
            names = ["event_ts", *(name for group in projection.groups for name in self._groups[group])]
        if unknown := [name for name in names if name not in self._values]:
            raise SchemaError(f"unknown trait {unknown[0]!r}")
        return names

    def _visible(self, requests: pa.Table, max_len: int | None) -> Iterator[NDArray[np.int64]]:
        """For each request the rows (of the sorted events) that it saw, the newest max_len, oldest first."""
        user = _codes(_user_ids(requests["user_id"]), self._users)
        ends = _us(requests["request_ts"])
        cutoffs = _us(requests["cutoff"]) if "cutoff" in requests.column_names else ends
        anchors = requests["anchor"].to_pylist() if "anchor" in requests.column_names else None
        anchor_ts = _anchor_ts(requests) if anchors is not None else None
        for i, (u, end, cutoff) in enumerate(zip(user.tolist(), ends.tolist(), cutoffs.tolist(), strict=True)):
            if u < 0:
                yield np.zeros(0, np.int64)
                continue
            start, stop = self._bounds[u], self._bounds[u + 1]
            event_ts, ingest_ts = self._event_ts[start:stop], self._ingest_ts[start:stop]
            before = event_ts < end
            if anchors is not None and anchors[i] is not None:
                own, place = int(anchor_ts[i]), anchors[i]["ordinal"]  # type: ignore[index]
                cutoff = min(end, own) + 1
                before = np.arange(stop - start) < self._first_version(start, stop, (end, own, place), cutoff)
            seen = before & (ingest_ts < cutoff) & (self._superseded_at[start:stop] >= cutoff)
            rows = np.flatnonzero(seen) + start
            yield rows if max_len is None else rows[max(0, len(rows) - max_len) :]

    def _first_version(self, start: int, stop: int, anchor: tuple[int, int, int], cutoff: int) -> int:
        """Where an anchor's history ends: the first place of its versions known by then, or its own.

        A version came before another if it was superseded at the other's ingest time.
        """
        end, own, place = anchor
        event_ts, ingest_ts = self._event_ts[start:stop], self._ingest_ts[start:stop]
        tie = (ingest_ts < own) | ((ingest_ts == own) & (self._ordinal[start:stop] < place))
        first = int(((event_ts < end) | ((event_ts == end) & tie)).sum())
        versions, found = np.zeros(stop - start, np.bool_), np.array([own])
        while len(found):
            earlier = np.isin(self._superseded_at[start:stop], found) & ~versions
            versions |= earlier
            found = ingest_ts[earlier]
        known = np.flatnonzero(versions & (ingest_ts < cutoff))
        return min([first, *known.tolist()])

    def _histories(self, rows: list[NDArray[np.int64]], type_: pa.StructType) -> pa.Array:
        if not len(type_):
            return pa.array([{}] * len(rows), type_)
        offsets = pa.array(np.cumsum([0, *map(len, rows)]), pa.int32())
        taken = pa.array(np.concatenate(rows) if rows else np.zeros(0, np.int64))
        lists = [pa.ListArray.from_arrays(offsets, self._values[field.name].take(taken)) for field in type_]
        return pa.StructArray.from_arrays(lists, fields=list(type_))


def _plain(column: pa.ChunkedArray) -> pa.Array:
    """One array of plain values: dictionaries decoded, text as string, times in µs; of lists the items."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(_plain_type(array.type))


def _plain_type(type_: pa.DataType) -> pa.DataType:
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(_plain_type(type_.value_type), type_.list_size)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        return pa.list_(_plain_type(type_.value_type))
    if pa.types.is_dictionary(type_):
        return _plain_type(type_.value_type)
    if pa.types.is_timestamp(type_):
        return pa.timestamp("us", type_.tz)
    return pa.string() if pa.types.is_large_string(type_) or pa.types.is_string_view(type_) else type_


def _user_ids(column: pa.ChunkedArray) -> pa.Array:
    array = _plain(column)
    return array.cast(pa.int64()) if pa.types.is_integer(array.type) else array


def _us(column: pa.ChunkedArray) -> NDArray[np.int64]:
    array = _plain(column)
    if array.null_count or not (pa.types.is_timestamp(array.type) or pa.types.is_int64(array.type)):
        raise SchemaError(f"a time is int64 µs or an Arrow timestamp without nulls, not {array.type}")
    times: NDArray[np.int64] = array.cast(pa.int64()).to_numpy()
    return times


def _anchor_ts(requests: pa.Table) -> NDArray[np.int64]:
    """The anchors' ingest times; 0 where a request is no anchor."""
    times = _plain(pc.struct_field(requests["anchor"], "ingest_ts")).cast(pa.int64())
    filled: NDArray[np.int64] = pc.fill_null(times, 0).to_numpy()
    return filled


def _superseded(events: pa.Table) -> NDArray[np.int64]:
    """When each event was superseded; the end of time for most."""
    if "superseded_at" not in events.column_names:
        return np.full(len(events), _NEVER)
    times = _plain(events["superseded_at"]).cast(pa.int64())
    filled: NDArray[np.int64] = pc.fill_null(times, _NEVER).to_numpy()
    return filled


def _codes(users: pa.Array, known: pa.Array) -> NDArray[np.int64]:
    """Each user's place in `known`; -1 for a stranger."""
    found = pc.fill_null(pc.index_in(users, known), -1)
    codes: NDArray[np.int64] = found.to_numpy().astype(np.int64)
    return codes


def _places(*keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each sorted row's place among the rows equal to it in every key."""
    row = np.arange(len(keys[0]))
    first = np.ones(len(row), np.bool_)
    for key in keys:
        first[1:] &= key[1:] == key[:-1]
    first[1:] = ~first[1:]
    return row - np.maximum.accumulate(np.where(first, row, 0))
