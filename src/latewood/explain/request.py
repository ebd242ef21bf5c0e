"""What is asked about: a request, and until when and of which knowledge it could see. From its times, or as it was logged.

Either way there is a table of one example to give to the materializer, for comparison: the logged one, or one made as of
now, which leaves no trace in the store.
"""

from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture import read_requests
from latewood.capture.examples import make_examples
from latewood.clock import to_us
from latewood.columns import read_table
from latewood.errors import SchemaError
from latewood.events import NEVER, Events
from latewood.histories import Place, places, superseded
from latewood.intake import read_user_ids
from latewood.materialize.logged import read_logged
from latewood.pointer import PLACE_TYPE
from latewood.schema import EVENT_TS, TIME_TYPE
from latewood.store import Store
from latewood.users import UserKeys, user_keys

_PLACE = tuple(field.name for field in PLACE_TYPE)


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One request. Units: µs since epoch, UTC.

    `anchor` is the event that the request is, if it is one. What follows is known of a logged example only: the pointer's
    watermark and length, how many events at the very end it counts, and the places of its recent events.
    """

    user_id: Any
    keys: UserKeys
    end_ts: int
    cutoff: int
    anchor: Place | None = None
    example: pa.Table | None = None
    watermark: int | None = None
    length: int | None = None
    end_ties: int = 0
    recents: frozenset[Place] = frozenset()

    def before(self, events: Events, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the user's events sort before the request's end. Args: known: those that its pointer was made of."""
        before = events.event_ts < self.end_ts
        tied = np.flatnonzero(events.event_ts == self.end_ts)
        if self.example is not None:
            before[tied[known[tied]][: self.end_ties]] = True
            before[tied] |= np.array([place in self.recents for place in places(events.take(tied))], np.bool_)
        elif self.anchor is not None:
            end = first_version(self.anchor, events, self.cutoff)
            return np.fromiter((place < end for place in places(events)), np.bool_, len(events))
        return before

    def carried(self, events: Events) -> Events:
        """The recent events of the logged example that are not among those given."""
        own = sorted(self.recents.difference(places(events)))
        times = np.array([place[:2] for place in own], np.int64).reshape(-1, 2)
        ordinal = np.array([place[2] for place in own], np.int32)
        users = pa.array([self.user_id] * len(own), events.user_ids.type)
        keys = self.keys.take(np.zeros(len(own), np.int64))
        return Events(users, keys, times[:, 0].copy(), times[:, 1].copy(), ordinal, {})

    def examples(self, store: Store, events: Events) -> pa.Table:
        """The request as an example: the logged one, or one as of now. Args: events: the user's, for an anchor's end."""
        if self.example is not None:
            return self.example
        columns = {"user_id": pa.array([self.user_id], store.schema.user_id), "request_ts": _times(self.end_ts)}
        if self.anchor is not None:
            columns["anchor"] = pa.array([self._anchor(events)])
        requests = read_requests(pa.table(columns), store.schema)
        return make_examples(store, requests, np.array([self.cutoff]))[1]

    def _anchor(self, events: Events) -> pa.StructScalar:
        assert self.anchor is not None
        own, end = dict(zip(_PLACE, self.anchor, strict=True)), first_version(self.anchor, events, self.cutoff)
        fields = [field for field in PLACE_TYPE if field.name != EVENT_TS]
        if end == self.anchor:
            return pa.scalar({name: own[name] for name in _PLACE[1:]}, pa.struct(fields))
        known = {name: own[name] for name in _PLACE[1:]} | {"end": dict(zip(_PLACE, end, strict=True))}
        return pa.scalar(known, pa.struct([*fields, ("end", PLACE_TYPE)]))


def as_asked(store: Store, user_id: Any, request_ts: Any, cutoff: Any, anchor: tuple[Any, int] | None) -> Request:
    """A request by its times; for an anchor, its own ingest time and ordinal. Raises: SchemaError: not a user or a time."""
    if user_id is None or request_ts is None:
        raise SchemaError("say whose request it is, and when: user_id and request_ts, or example")
    end_ts = to_us(request_ts)
    place = None if anchor is None else _place(end_ts, anchor)
    if cutoff is None:
        cutoff = end_ts if place is None else min(end_ts, place[1]) + 1
    try:
        users = read_user_ids(pa.array([user_id]), store.schema)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"user id {user_id!r}: the store's are {store.schema.user_id}: {error}") from None
    return Request(user_id, user_keys(users), end_ts, to_us(cutoff), place)


def _place(event_ts: int, anchor: Any) -> Place:
    """Raises: SchemaError: not an ingest time and an ordinal."""
    if not isinstance(anchor, tuple | list) or len(anchor) != 2 or not isinstance(anchor[1], Integral):
        raise SchemaError(f"anchor={anchor!r}: an event's ingest_ts and its ordinal")
    ingest_ts, ordinal = to_us(anchor[0]), int(anchor[1])
    if not 0 <= ordinal < 2**31:
        raise SchemaError(f"anchor={anchor!r}: no event has that ordinal")
    return event_ts, ingest_ts, ordinal


def as_logged(store: Store, example: Any) -> Request:
    """A request as it was logged. Args: example: a table of one row. Raises: SchemaError, PointerError: no such row."""
    table = read_table(example)
    if len(table) != 1:
        raise SchemaError(f"example is a table of one row, not of {len(table):,}: slice it")
    logged = read_logged(table, store.schema, store.epoch, [], store.vocabulary)
    pointers = logged.pointers
    return Request(
        user_id=logged.user_ids[0].as_py(),
        keys=logged.keys,
        end_ts=int(pointers.end_ts[0]),
        cutoff=int(logged.cutoff[0]),
        example=table,
        watermark=int(pointers.watermark[0]),
        length=int(pointers.length[0]),
        end_ties=int(pointers.end_ties[0]),
        recents=frozenset(zip(*logged.recents.order.tolist(), strict=True)),
    )


def first_version(anchor: Place, events: Events, cutoff: int) -> Place:
    """Where an anchor's history ends: at the smallest place of its versions that were known before the cutoff (R2)."""
    waiting, versions = [anchor], {anchor}
    superseded_at = superseded(events)
    while waiting:
        of = waiting.pop()
        # but those seen before: an import may say of an event that it was superseded when it was learned of
        older = set(places(events.take(np.flatnonzero((superseded_at == of[1]) & (superseded_at < NEVER))))) - versions
        versions |= older
        waiting += older
    return min([anchor, *(place for place in versions if place[1] < cutoff)])


def _times(ts: int) -> pa.Array:
    return pa.array([ts], pa.int64()).view(TIME_TYPE)
