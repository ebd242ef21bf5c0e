"""What examples must materialize to, by brute force: whole histories, all rows at once, no index and no prefix sums.

The pointer's rules (docs/protocol.md R2, R3, R4, R15) as plainly as numpy says them, one example at a time: which stored
events did the pointer mean; is their checksum, computed from the decoded times, the one logged; which of them were
superseded before the cutoff; does the example carry every recent event that it should, and as the store has it now. Then
both are merged by the total order and cut.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.batch import Batch
from latewood.clock import show_ts
from latewood.columns import Column, Lists, TraitColumn, null_column, nulls_like
from latewood.events import Events, concat_events
from latewood.histories import RECENT, Histories, places, superseded
from latewood.materialize.logged import Logged
from latewood.schema import EVENT_TS, Schema
from latewood.stripes.identity import identities

Unified = Callable[[int, TraitColumn], TraitColumn]


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What one example must give: the sequence, or that it is refused; and what is wrong with the example itself."""

    refused: str | None = None  # "scrubbed" or "expired"
    events: Events | None = None  # the sequence, oldest first
    problem: str | None = None


def rederive(
    logged: Logged,
    i: int,
    histories: Histories,
    user: int,
    scrubbed_at: int,
    max_len: int | None,
    unified: Unified,
) -> Expected:
    """Derive one example anew.

    Args: i: its row. user: its user's place in `histories`. unified: a trait's column with one code per value.
    """
    if int(logged.cutoff[i]) <= scrubbed_at:
        return Expected("scrubbed")
    events, row = histories.of(user)
    example = _Example.of(logged, i)
    stored = example.means(events, row)
    length, kept = example.length, stored[superseded(events)[stored] >= example.cutoff]
    recents = example.recents(logged, i)
    if len(stored) < length:
        return _short(example, events, stored, kept, recents, max_len, histories.reader.generation.expired)
    checksum = int(np.sum(identities(events.keys, events.event_ts, events.ingest_ts, events.ordinal)[stored]))
    problem = None
    if checksum != example.checksum:
        problem = f"the {length} events of its pointer have the checksum {checksum:#018x}, not {example.checksum:#018x}"
    problem = problem or example.lacks(events, recents, scrubbed_at) or _misquotes(recents, events, unified)
    return Expected(None, _merged(events.take(kept), recents, max_len), problem)


@dataclass(frozen=True, slots=True)
class _Example:
    """The numbers of one example."""

    cutoff: int
    watermark: int
    start_ts: int
    end_ts: int
    end_ties: int
    length: int
    checksum: int

    @classmethod
    def of(cls, logged: Logged, i: int) -> "_Example":
        p = logged.pointers
        columns: list[NDArray[Any]] = [
            logged.cutoff,
            p.watermark,
            p.start_ts,
            p.end_ts,
            p.end_ties,
            p.length,
            p.checksum,
        ]
        return cls(*(int(column[i]) for column in columns))

    def means(self, events: Events, row: NDArray[np.int64]) -> NDArray[np.int64]:
        """The stored events that the pointer means."""
        known = (row != RECENT) & (events.ingest_ts < self.watermark) & (superseded(events) >= self.watermark)
        at_end = np.flatnonzero(known & (events.event_ts == self.end_ts))[: self.end_ties]
        inside = np.flatnonzero(known & (events.event_ts < self.end_ts) & (events.event_ts >= self.start_ts))
        meant = np.concatenate([inside, at_end])
        return meant[len(meant) - min(self.length, len(meant)) :]

    def recents(self, logged: Logged, i: int) -> Events:
        """The recent events that the example carries."""
        start, stop = int(logged.recents.offsets[i]), int(logged.recents.offsets[i + 1])
        event_ts, ingest_ts, ordinal = logged.recents.order[:, start:stop]
        traits = {trait: column.slice(start, stop) for trait, column in logged.recents.columns.items()}
        owner = np.full(stop - start, i)
        users, keys = logged.user_ids.take(owner), logged.keys.take(owner)
        return Events(users, keys, event_ts, ingest_ts, ordinal.astype(np.int32), traits)

    def lacks(self, events: Events, recents: Events, scrubbed_at: int) -> str | None:
        """What the example should carry and does not. Ties at the very end are the anchor's own matter."""
        due = (events.ingest_ts >= self.watermark) & (events.ingest_ts < self.cutoff) & (events.event_ts < self.end_ts)
        due &= (superseded(events) >= self.cutoff) & (events.ingest_ts > scrubbed_at)
        lost = sorted(set(places(events.take(np.flatnonzero(due)))).difference(places(recents)))
        if not lost:
            return None
        event_ts, ingest_ts = show_ts(lost[0][0]), show_ts(lost[0][1])
        return f"it carries {len(recents)} recent events, but not that of {event_ts}, ingested {ingest_ts}"


def _misquotes(recents: Events, events: Events, unified: Unified) -> str | None:
    """A recent event that the store has, too, and with other values. One value may have two codes."""
    row_of = {place: row for row, place in enumerate(places(events))}
    known = [(j, row_of[place]) for j, place in enumerate(places(recents)) if place in row_of]
    own, rows = np.array(known, np.int64).reshape(-1, 2).T
    copies, originals = recents.take(own), events.take(rows)
    for trait, column in copies.traits.items():
        original = originals.traits.get(trait) or nulls_like(column, len(rows))
        different = _different(unified(trait, column), unified(trait, original))
        if len(different):
            event_ts = show_ts(int(copies.event_ts[different[0]]))
            return f"it carries other values than the store has, first in its recent event of {event_ts}"
    return None


def _short(
    example: _Example, events: Events, stored: NDArray[np.int64], kept: NDArray[np.int64], recents: Events,
    max_len: int | None, expired: bool,
) -> Expected:  # fmt: skip
    """Events that the pointer means are gone: served only where the newest `max_len` surely are not among them (R15)."""
    merged = _merged(events.take(kept), recents, max_len)
    if not expired:
        found = f"only {len(stored)} of the {example.length} events of its pointer are stored"
        return Expected(None, merged, f"{found}, and retention never took any")
    oldest = int(events.event_ts[stored[0]]) if len(stored) else None
    enough = max_len == 0
    if oldest is not None and max_len is not None:
        enough |= len(kept) + int(np.sum(recents.event_ts >= oldest)) >= max_len
    return Expected(None, merged) if enough else Expected("expired")


def _merged(stored: Events, recents: Events, max_len: int | None) -> Events:
    both = concat_events([stored, recents]) if len(recents) else stored
    order = np.lexsort((both.ordinal, both.ingest_ts, both.event_ts))
    return both.take(order if max_len is None else order[max(0, len(order) - max_len) :])


def differences(expected: Expected, batch: Batch, i: int, schema: Schema) -> Iterator[str]:
    """What the materializer gives otherwise for example i of a batch."""
    if expected.problem is not None:
        yield expected.problem
        return
    refused, start, stop = batch.weights[i] == 0, int(batch.offsets[i]), int(batch.offsets[i + 1])
    if refused != (expected.refused is not None):
        yield "it is refused, and need not be" if refused else f"it is {expected.refused}, and is not refused"
    if refused or expected.events is None:
        return
    if stop - start != len(expected.events):
        yield f"it is given {stop - start} events; there are {len(expected.events)}"
        return
    for name in batch.values:
        different = _different(batch.column(name, start, stop), _column(expected.events, name, schema))
        if len(different):
            event_ts = show_ts(int(expected.events.event_ts[different[0]]))
            yield f"{len(different)} values of {name!r} differ, first at event {different[0]} of {event_ts}"


def _column(events: Events, name: str, schema: Schema) -> TraitColumn:
    if name == EVENT_TS:
        return Column(events.event_ts)
    trait = schema[name]
    return events.traits.get(trait.id) or null_column(trait, len(events))


def _different(given: TraitColumn, wanted: TraitColumn) -> NDArray[np.int64]:
    """The places where two columns differ in a bit, or one is null."""
    n = given.event_count
    nulls = [np.zeros(n, np.bool_) if column.mask is None else column.mask for column in (given, wanted)]
    if isinstance(given, Lists) and isinstance(wanted, Lists):
        return np.flatnonzero((nulls[0] != nulls[1]) | (_differ_in_items(given, wanted) & ~nulls[0]))
    assert isinstance(given, Column)
    assert isinstance(wanted, Column)
    return np.flatnonzero((nulls[0] != nulls[1]) | ((_bits(given.values) != _bits(wanted.values)) & ~nulls[0]))


def _differ_in_items(given: Lists, wanted: Lists) -> NDArray[np.bool_]:
    differ = given.lengths != wanted.lengths
    alike = np.flatnonzero(~differ)  # in length
    pair = given.take(alike).compact(), wanted.take(alike).compact()
    other = _bits(pair[0].items) != _bits(pair[1].items)
    differ[np.repeat(alike, pair[0].lengths)[other]] = True
    return differ


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values).view(f"u{values.itemsize}")
