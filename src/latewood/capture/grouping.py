"""Grouped examples: one history with many requests, each of which sees a part of it that ends where the request does.

A user who opens an app ten times a day makes ten requests whose histories are nearly the same. An example for all of them
holds the history of the last, and where in it each request ends: it is read, decoded and computed once. That is right only
where histories nest (docs/protocol.md R2): the events before a request's end, as the last one saw them, have to be those
that the request saw itself. What arrived in between and sorts before the request's end, or was corrected or deleted in
between, breaks that; then the requests that did not know it are split off, into an example of their own.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch
from latewood.capture.backfill import answer, fix_for_requests
from latewood.capture.counting import seen_before
from latewood.capture.requests import Requests, read_requests
from latewood.capture.store import CaptureStore
from latewood.clock import DAY_US, HOUR_US
from latewood.columns import one_array, times_from_arrow
from latewood.errors import SchemaError, refuse_path
from latewood.events import Events
from latewood.histories import distinct_users, read_histories
from latewood.lists import offsets_of
from latewood.users import UserKeys

REQUESTS, PART = "requests", "part"
SEEN, BEHIND = "seen", "behind"  # how many events a request sees, and how many of its example's lie past its end
_PLACES = ("example", "start", "stop")  # where `requests_in` finds each
_ADDED = (REQUESTS, PART, SEEN, BEHIND, *_PLACES)
_UNITS = {"min": 60_000_000, "h": HOUR_US, "d": DAY_US}  # µs
_ROUNDS = 64  # requests that have not found their like by then are alone


def groups(
    store: CaptureStore,
    requests: Any,
    group: str = "user/1d",
    *,
    chunk: int | None = None,
    complete: bool = False,
    allow_empty: bool = False,
    at_once: int = 1 << 14,
) -> pa.Table:
    """Examples of past requests, one for many of them; `lw.requests_in(batch)` says what each one sees.

    Args:
        store: opened for writing, as for `lw.backfill`.
        requests: as for `lw.backfill`; `lw.anchors` makes them of events.
        group: whose requests may share an example: "user/1d" those of a user in the same day (UTC), with any number of d,
            h or min; "user" all of a user's.
        chunk: between the ends of the first and the last request of an example lie fewer events than this; None: any
            number. With `max_len=chunk + length` every request has its newest `length` events in the batch.
        complete, allow_empty: see `lw.backfill`.
        at_once: how many requests to answer at a time, and of how many, about, to hold whole histories.
    Returns: a row per example: user_id, request_ts (of its last request), `requests`, a list of structs of request_ts, all
        other columns of the requests, `seen` and `behind`; and `part`, 0, or which one it is of those that were
        split off since what they saw does not nest; `uih`, `recent`, `cutoff`. Every request is in one of them.
    Raises: SchemaError: the requests do not fit, or have a column that examples get; a group or chunk that is none.
        ConflictError: as `lw.backfill`.
    """
    refuse_path(store)
    period = _period(group)
    for name, count in (("chunk", chunk), ("at_once", at_once)):
        if count is not None and (not isinstance(count, Integral) or count < 1):
            raise SchemaError(f"{name}={count!r} must be an integer, and at least 1")
    checked = read_requests(requests, store.schema)
    if taken := [name for name in checked.features.column_names if name in _ADDED]:
        raise SchemaError(f"the requests have a column {taken[0]!r}, which is added to those of an example; rename it")
    fix_for_requests(store, checked, complete)
    users, user = distinct_users(checked.keys)
    order = np.argsort(user, kind="stable")
    found = _Groups(*np.zeros((4, len(checked)), np.int64))
    for portion in _portions(user[order], at_once):
        rows = order[portion]
        some, of = np.unique(user[rows], return_inverse=True)
        asked = _Asked.of(checked, rows, of, *_histories(store, users.take(some)))
        found.put(rows, _group(asked, _may_share(checked, rows, asked, period, chunk)))
    return answer(store, _as_examples(checked, found), allow_empty, at_once)


def requests_in(batch: Batch, max_len: int | None = None) -> pa.Table:
    """The requests of a batch of examples that `lw.groups` made, one after the other, and where their histories lie.

    Args: max_len: how many events one sees, the newest; None: all before it.
    Returns: `example`, its place in the batch; `start` and `stop`: the request sees those elements of every flat column of
        the batch; `seen`, how many events it sees in all; request_ts and all other columns of the requests. None of
        an example of weight 0.
    Raises: SchemaError: the batch has no such examples, or has streams, which leave events out, or the projection's max_len
        cut off what a request sees; a max_len that is none.
    """
    if max_len is not None and (not isinstance(max_len, Integral) or max_len < 0):
        raise SchemaError(f"max_len={max_len!r} must be an integer, and at least 0")
    if REQUESTS not in batch.features.column_names:
        raise SchemaError(f"the examples have no column {REQUESTS!r}: lw.groups makes it")
    if batch.streams:
        raise SchemaError("the batch has streams: requests see parts of whole sequences")
    lists = one_array(batch.features[REQUESTS])
    example = np.repeat(np.arange(len(batch)), np.diff(lists.offsets.to_numpy()))
    kept = np.flatnonzero(batch.weights[example] > 0)
    table = pa.Table.from_struct_array(lists.flatten().take(pa.array(kept)))
    example, seen = example[kept], table[SEEN].to_numpy()
    stop = batch.offsets[example + 1] - table[BEHIND].to_numpy()
    length = seen if max_len is None else np.minimum(seen, max_len)
    short = stop - length < batch.offsets[example]
    if short.any():
        row = int(np.argmax(short))
        there = max(int(stop[row] - batch.offsets[example[row]]), 0)
        raise SchemaError(
            f"a request of example {example[row]} sees {length[row]:,} events, of which the batch has {there:,}: give the "
            "projection a max_len of what one request sees and the chunk together"
        )
    columns = dict(zip(_PLACES, (example, stop - length, stop), strict=True))
    return pa.table({**columns, **{name: table[name] for name in table.column_names if name != BEHIND}})


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Of each request its example. Shapes: (n,)."""

    lead: NDArray[np.int64]  # the request whose history the example has
    part: NDArray[np.int64]
    seen: NDArray[np.int64]
    behind: NDArray[np.int64]

    def put(self, rows: NDArray[np.int64], of: "_Groups") -> None:
        """Set those of some requests. Args: of: theirs, in whose `lead` they are counted from 0."""
        self.lead[rows] = rows[of.lead]
        self.part[rows], self.seen[rows], self.behind[rows] = of.part, of.seen, of.behind


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """n requests amid the histories they are asked of. Shapes: events (m,), others (n,)."""

    events: Events
    user: NDArray[np.int64]
    first: NDArray[np.int64]  # the row of its user's first event
    end: NDArray[np.int64]  # of the first event that does not sort before its end
    cutoff: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        requests: Requests,
        rows: NDArray[np.int64],
        user: NDArray[np.int64],
        events: Events,
        bounds: NDArray[np.int64],
    ) -> "_Asked":
        """Find the rows at which histories end. Args: user, bounds: which of the users each is, and their events."""
        of_event = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        is_event = np.arange(len(rows) + len(events)) >= len(rows)
        pairs = (
            (is_event, None),  # a request comes before the event that it ends at
            (requests.tie_ordinal[rows], events.ordinal),
            (requests.tie_ingest[rows], events.ingest_ts),
            (requests.end_ts[rows], events.event_ts),
            (user, of_event),
        )
        order = np.lexsort([one if other is None else np.concatenate([one, other]) for one, other in pairs])
        end = np.empty(len(is_event), np.int64)
        end[order] = np.cumsum(is_event[order])
        return cls(events, user, bounds[user], end[: len(rows)], requests.cutoff[rows])

    def known(self, rows: NDArray[np.int64], cutoff: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of the events before the ends of some: how many had come by a cutoff, and how many of those still counted."""
        first, end, ingest_ts = self.first[rows], self.end[rows], self.events.ingest_ts
        came = seen_before(first, end, cutoff, ingest_ts, None)
        if self.events.superseded_at is None:
            return came, came
        return came, seen_before(first, end, cutoff, ingest_ts, self.events.superseded_at)


def _group(asked: _Asked, may_share: NDArray[np.int64]) -> _Groups:
    """Give each request an example. Args: may_share: requests with the same number may be in one.

    In every round the last request of those left over leads, and takes along whoever sees a part of what it sees. Two
    cutoffs show the same events before an end if by both as many had come, and as many had been superseded: either number
    only ever grows.
    """
    count = len(may_share)
    every = np.arange(count)
    came, seen = asked.known(every, asked.cutoff)
    lead, part, left, rounds = every.copy(), np.zeros(count, np.int64), every, 0
    while len(left):
        if rounds < _ROUNDS:
            leads = _last_of_each(may_share[left], asked.end[left], asked.cutoff[left])
            came_by, seen_by = asked.known(left, asked.cutoff[left[leads]])
            nests = (came_by == came[left]) & (seen_by == seen[left])
            lead[left[nests]] = left[leads][nests]
        else:
            nests = np.ones(len(left), np.bool_)
        part[left[nests]] = rounds
        left, rounds = left[~nests], rounds + 1
    return _Groups(lead, part, seen, seen[lead] - seen)


def _last_of_each(group: NDArray[np.int64], end: NDArray[np.int64], cutoff: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each of some requests the last of its group, by where it ends. Shapes: (k,) → (k,)."""
    order = np.lexsort([cutoff, end, group])
    is_last = np.append(group[order][1:] != group[order][:-1], True)
    last = np.empty(len(group), np.int64)
    last[order] = order[is_last][np.cumsum(is_last) - is_last]
    return last


def _may_share(
    requests: Requests, rows: NDArray[np.int64], asked: _Asked, period: int | None, chunk: int | None
) -> NDArray[np.int64]:
    """Numbers that are equal where requests are of the same user, period and chunk of events. Shapes: (n,)."""
    asked_ts = times_from_arrow(requests.features["request_ts"], "request_ts")[rows]
    periods = np.zeros_like(asked_ts) if period is None else asked_ts // period
    size = len(asked.events) + 1 if chunk is None else min(chunk, len(asked.events) + 1)
    chunks = (asked.end - asked.first) // size
    _, number = np.unique(np.stack([asked.user, periods, chunks]), axis=1, return_inverse=True)
    return number.reshape(-1)


def _histories(store: CaptureStore, users: UserKeys) -> tuple[Events, NDArray[np.int64]]:
    """Everything that is held of some users, and where each one's events begin; without what a scrub took."""
    histories = read_histories(store, users)
    forgotten = store.scrubs.forgotten(histories.events, 0)
    remembered_before = np.append(0, np.cumsum(~forgotten))
    return histories.events.take(np.flatnonzero(~forgotten)), remembered_before[histories.bounds]


def _as_examples(requests: Requests, of: _Groups) -> Requests:
    """The examples-to-be: the requests that lead, each with those it takes along, in the order of the former."""
    leads, example = np.unique(of.lead, return_inverse=True)
    order = np.lexsort([-of.behind, example])
    own = requests.features.drop_columns(["user_id"])
    columns = {**{name: one_array(own[name]) for name in own.column_names}, SEEN: pa.array(of.seen)}
    columns[BEHIND] = pa.array(of.behind)
    each = pa.StructArray.from_arrays(list(columns.values()), names=list(columns)).take(pa.array(order))
    offsets = offsets_of(np.bincount(example, minlength=len(leads)))
    features = requests.features.select(["user_id", "request_ts"]).take(pa.array(leads))
    features = features.append_column(REQUESTS, pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), each))
    ends = requests.end_ts[leads], requests.tie_ingest[leads], requests.tie_ordinal[leads]
    keys, cutoff = requests.keys.take(leads), requests.cutoff[leads]
    return Requests(features.append_column(PART, pa.array(of.part[leads])), keys, *ends, cutoff)


def _portions(user: NDArray[np.int64], at_once: int) -> Iterator[slice]:
    """Cut sorted requests into runs of whole users, of about `at_once` requests each."""
    starts = np.flatnonzero(np.diff(user, prepend=-1))
    begins = starts[np.diff(starts // min(at_once, len(user) + 1), prepend=-1) > 0]
    yield from map(slice, begins.tolist(), [*begins[1:].tolist(), len(user)])


def _period(group: str) -> int | None:
    """Microseconds; None: no end. Raises: SchemaError: not a group."""
    found = re.fullmatch(r"user(?:/([1-9][0-9]{0,5})(min|h|d))?", group) if isinstance(group, str) else None
    if found is None:
        raise SchemaError(f"group={group!r} is 'user', or 'user/' and a period in min, h or d, such as 'user/1d'")
    return int(found[1]) * _UNITS[found[2]] if found[1] else None
