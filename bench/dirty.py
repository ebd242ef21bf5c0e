"""The same histories as they come in life: some events late, some at the same time as the one before, some recent.

A twentieth of the events happen at the time of the event before them, and a twentieth are learned of hours to days after
they happened. Every request holds its 16 newest events itself, by when they were learned of, as if a compaction had run
just before them: its pointer ends there. So nearly every history has stored events that its request must not see, and
recent events that belong between stored ones.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.histories import HOUR, MS, Histories

LATE_SHARE = TIED_SHARE = 0.05
LATE_HOURS = (1, 120)  # log-uniform
RECENT = 16


@dataclass(frozen=True, slots=True, eq=False)
class DirtyHistories:
    """All users' events, user after user, in the total order. Shapes: ingest_ts (events,). Units: µs."""

    histories: Histories
    ingest_ts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What n requests see: rows of the columns, oldest first, and since when their events are recent. Units: µs."""

    rows: list[NDArray[np.int64]]
    recent: list[NDArray[np.int64]]  # of these rows, those that the example holds itself
    recent_since: NDArray[np.int64]


def soil(clean: Histories) -> DirtyHistories:
    """Make ties and late events."""
    rng = np.random.default_rng(np.random.SeedSequence(clean.seed, spawn_key=(2,)))
    event_ts, count = clean.columns["event_ts"].copy(), clean.event_count
    tied = np.flatnonzero(rng.random(count) < TIED_SHARE)
    tied = tied[~np.isin(tied, clean.offsets)]  # a user's first event has none before it
    event_ts[tied] = clean.columns["event_ts"][tied - 1]
    shortest, longest = LATE_HOURS
    hours = np.exp(rng.uniform(np.log(shortest), np.log(longest), count))
    delay_ms = np.where(rng.random(count) < LATE_SHARE, hours * HOUR, 0).astype(np.int64)
    ingest_ts = event_ts + delay_ms * MS
    owner = np.repeat(np.arange(clean.user_count), clean.lengths)
    order = np.lexsort((ingest_ts, event_ts, owner))
    columns = {name: column[order] for name, column in (clean.columns | {"event_ts": event_ts}).items()}
    return DirtyHistories(Histories(clean.seed, clean.offsets, columns), ingest_ts[order])


def write_dirty_store(dirty: DirtyHistories, path: Path) -> lw.Store:
    """Ingest all events, each learned of in its own time."""
    events = sources.events_table(dirty.histories)
    events = events.append_column("learned", pa.array(dirty.ingest_ts).view(sources.US_UTC))
    end = int(dirty.ingest_ts.max()) + 10 * MS
    return lw.ingest(
        events, path, user="user_id", time="event_ts", ingest_time="learned", clock=lw.testing.ManualClock(end),
        traits=[name for name in dirty.histories.columns if name != "event_ts"], quiet=True,
    )  # fmt: skip


def look(dirty: DirtyHistories, user: NDArray[np.int64], times: NDArray[np.int64]) -> Seen:
    """What was visible to requests, from the raw arrays: it happened before, and was known before."""
    event_ts, ingest_ts, offsets = dirty.histories.columns["event_ts"], dirty.ingest_ts, dirty.histories.offsets
    rows, recent, since = [], [], np.empty(len(user), np.int64)
    for i, (a, b, ts) in enumerate(
        zip(offsets[user].tolist(), offsets[user + 1].tolist(), times.tolist(), strict=True)
    ):
        stop = a + int(np.searchsorted(event_ts[a:b], ts))
        seen = a + np.flatnonzero(ingest_ts[a:stop] < ts)
        learned = ingest_ts[seen]
        last = len(seen) - min(RECENT, len(seen))
        since[i] = np.partition(learned, last)[last] if len(seen) else ts
        rows.append(seen)
        recent.append(seen[learned >= since[i]])
    return Seen(rows, recent, since)


def dirty_examples(store: lw.Store, dirty: DirtyHistories, requests: pa.Table, seen: Seen) -> pa.Table:
    """Examples whose pointers end where their recent events begin."""
    since = pa.array(seen.recent_since).view(sources.US_UTC)
    at = requests.column_names.index("request_ts")
    pointed = lw.backfill(store, requests.set_column(at, "request_ts", since), complete=True, allow_empty=True)
    recent = _recent_column(dirty, seen.recent, pointed.schema.field("recent").type)
    columns = {name: pointed[name] for name in pointed.column_names}
    times = requests["request_ts"].combine_chunks()
    # what was known by then had happened by then, so that the request's own end means the same events
    fields = dict(zip(("epoch", "watermark", "start_ts", "end_ts", "end_ties", "length", "checksum"),
                      pointed["uih"].combine_chunks().flatten(), strict=True)) | {"end_ts": times}  # fmt: skip
    uih = pa.StructArray.from_arrays(list(fields.values()), fields=list(pointed.schema.field("uih").type))
    return pa.table(columns | {"request_ts": times, "uih": uih, "recent": recent, "cutoff": times})


def _recent_column(dirty: DirtyHistories, rows: list[NDArray[np.int64]], type_: pa.StructType) -> pa.Array:
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(part) for part in rows], out=offsets[1:])
    flat = np.concatenate(rows)
    ordinals = [np.arange(len(part), dtype=np.int32) for part in rows]  # in the total order already
    known: dict[str, NDArray[Any]] = {"ingest_ts": dirty.ingest_ts[flat], "ordinal": np.concatenate(ordinals)}
    fields = []
    for field in type_:
        if field.name == "supersedes":
            none = pa.array(np.zeros(len(rows) + 1, np.int32))
            fields.append(pa.ListArray.from_arrays(none, pa.array([], field.type.value_type)))
            continue
        values = known[field.name] if field.name in known else dirty.histories.columns[field.name][flat]
        array = pa.array(values)
        array = array.view(field.type.value_type) if pa.types.is_timestamp(field.type.value_type) else array
        fields.append(pa.ListArray.from_arrays(pa.array(offsets), array))
    return pa.StructArray.from_arrays(fields, fields=list(type_))
