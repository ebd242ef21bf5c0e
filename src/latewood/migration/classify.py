"""Why an event of theirs has no counterpart among ours, or the other way round.

One request at a time. First what the store has but hides from this request: it was learned of too late, happened too
late, was corrected, or is cut off. Then what they have twice. Then events of one time that agree in some value and differ
in another are the same event. What is left has no explanation but its place: older or newer than all that they have, or
in between.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import show_span, show_ts
from latewood.migration.match import match
from latewood.migration.report import Kind
from latewood.migration.values import Values
from latewood.schema import EVENT_TS


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """Events of many requests or users, as numbers to compare and as values to show. Shapes: all (n,)."""

    event_ts: NDArray[np.int64]
    time: NDArray[np.int64]  # the same, floored to the coarser of both clocks
    values: dict[str, Values]  # by trait
    signature: NDArray[np.uint64]  # loosely equal values have equal ones
    shown: dict[str, pa.Array]


@dataclass(frozen=True, slots=True, eq=False)
class Ours:
    """What the store has of one user, and what one request sees of it. Shapes: all (n,), in the total order."""

    rows: NDArray[np.int64]  # in the side
    event_ts: NDArray[np.int64]
    ingest_ts: NDArray[np.int64]
    superseded_at: NDArray[np.int64]
    seen: NDArray[np.bool_]  # given to the model: visible, and not cut off
    end_ts: int
    cutoff: int
    expired: bool  # whether retention may have taken older events


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference: rows of the sides, or None; the trait, if it is about a value."""

    kind: Kind
    theirs: int | None
    ours: int | None
    trait: str | None = None
    note: str = ""
    events: int = 1


def classify(their_side: Side, rows: NDArray[np.int64], our_side: Side, ours: Ours) -> Iterator[Finding]:
    """All differences of one request. Args: rows: of their events, in the order of their list."""
    seen = ours.rows[ours.seen]
    matched = match(their_side.time[rows], their_side.signature[rows], our_side.time[seen], our_side.signature[seen])
    yield from _values(their_side, rows[matched.theirs], our_side, seen[matched.ours])
    for time in matched.tied.tolist():
        yield Finding("tie_order", None, int(seen[np.searchsorted(our_side.time[seen], time)]))
    if matched.unsorted:
        yield Finding("order", int(rows[0]), None, events=matched.unsorted, note="is it newest first?")
    left, missing = rows[matched.only_theirs], np.flatnonzero(ours.seen)[matched.only_ours]
    both = _Both(their_side, rows, our_side, ours)
    theirs, places = _alone(both, left, missing)
    yield from _values(their_side, theirs, our_side, ours.rows[places])
    left, missing = np.setdiff1d(left, theirs), np.setdiff1d(missing, places)
    if len(left) or len(missing):
        yield from _Leftovers(both, left, missing).explain()


class _Both(NamedTuple):
    """One request on both sides."""

    their_side: Side
    rows: NDArray[np.int64]
    our_side: Side
    ours: Ours


def _alone(
    both: _Both, left: NDArray[np.int64], missing: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Their events that are alone at their time, in their list and in the store: the same, whatever their values are.

    Where one trait is another throughout, these are all of them: found at once, and not one by one. Returns: rows of
    theirs and places in ours.
    """
    their_side, rows, our_side, ours = both
    times, counts = np.unique(their_side.time[rows], return_counts=True)
    ours_times, ours_counts = np.unique(our_side.time[ours.rows], return_counts=True)
    alone = np.intersect1d(times[counts == 1], ours_times[ours_counts == 1])
    theirs = left[np.isin(their_side.time[left], alone)]
    place_times = our_side.time[ours.rows[missing]]
    _, first, second = np.intersect1d(their_side.time[theirs], place_times, return_indices=True)
    return theirs[first], missing[second]


def _values(their_side: Side, theirs: NDArray[np.int64], our_side: Side, ours: NDArray[np.int64]) -> Iterator[Finding]:
    """Where the times and values of pairs of events differ, by trait."""
    different: list[tuple[Kind, str, NDArray[np.bool_]]] = [
        ("type", EVENT_TS, their_side.event_ts[theirs] != our_side.event_ts[ours])
    ]
    for trait, values in their_side.values.items():
        mine = our_side.values[trait]
        other = values.loose[theirs] != mine.loose[ours]
        different += [("value", trait, other), ("type", trait, ~other & values.differ(theirs, mine, ours))]
    for kind, trait, where in different:
        found = np.flatnonzero(where)
        if len(found):
            yield Finding(kind, int(theirs[found[0]]), int(ours[found[0]]), trait, events=len(found))


class _Leftovers:
    """The events of one request that have no counterpart, by their times."""

    def __init__(self, both: _Both, left: NDArray[np.int64], missing: NDArray[np.int64]) -> None:
        their_side, rows, our_side, ours = both
        self._theirs, self._side, self._ours = their_side, our_side, ours
        self._rows, self._left = rows, left.tolist()
        self._open = set(missing.tolist())  # places in ours that have no counterpart yet
        self._matched = np.setdiff1d(np.flatnonzero(ours.seen), missing)
        self._at: dict[int, list[int]] = defaultdict(list)  # places in ours by time
        wanted = {int(their_side.time[row]) for row in self._left}
        times = our_side.time[ours.rows]
        for place in np.flatnonzero(np.isin(times, np.array(sorted(wanted), np.int64))).tolist():
            self._at[int(times[place])].append(place)
        self._used: set[int] = set()
        self._crowd: Counter[int] = Counter()  # how many of theirs are left at each time

    def explain(self) -> Iterator[Finding]:
        for find in (self._hidden, self._twice, self._other_value, self._hidden_with_other_value):
            left = []
            self._crowd = Counter(self._theirs.time[self._left].tolist())
            for row in self._left:
                found = find(row)
                if found is None:
                    left.append(row)
                else:
                    yield from found
            self._left = left
        yield from (self._unknown(row) for row in self._left)
        yield from self._missing()

    def _places(self, row: int, wanted: Callable[[int], bool]) -> Iterator[int]:
        return (place for place in self._at[int(self._theirs.time[row])] if wanted(place))

    def _alike(self, row: int, place: int) -> bool:
        return bool(self._theirs.signature[row] == self._side.signature[self._ours.rows[place]])

    def _hidden(self, row: int) -> list[Finding] | None:
        """Something that the store has just so, and does not show to this request."""
        for place in self._places(
            row, lambda p: not self._ours.seen[p] and p not in self._used and self._alike(row, p)
        ):
            return self._hide(row, place)
        return None

    def _hide(self, row: int, place: int) -> list[Finding]:
        self._used.add(place)
        (kind, note), ours = self._reason(place), self._ours
        # the other version of it is not missing besides
        if kind == "late":
            versions = {p for p in self._open if ours.superseded_at[p] == ours.ingest_ts[place]}
            note += ", a correction" if versions else ""
        else:
            versions = {p for p in self._open if ours.ingest_ts[p] == ours.superseded_at[place]}
        self._open -= versions
        return [Finding(kind, row, int(self._ours.rows[place]), note=note)]

    def _reason(self, place: int) -> tuple[Kind, str]:
        ours = self._ours
        event_ts, ingest_ts, at = (int(c[place]) for c in (ours.event_ts, ours.ingest_ts, ours.superseded_at))
        if event_ts >= ours.end_ts:
            return "future", f"happened {show_span(event_ts - ours.end_ts)} after the request"
        if ingest_ts >= ours.cutoff:
            return "late", f"learned of {show_span(ingest_ts - ours.cutoff)} after the request"
        if at < ours.cutoff:
            return "superseded", f"since {show_ts(at)}"
        return "cap", "older than the list here reaches"

    def _twice(self, row: int) -> list[Finding] | None:
        """Something that is accounted for already."""
        for place in self._places(row, lambda p: self._alike(row, p)):
            return [Finding("duplicate", row, int(self._ours.rows[place]))]
        tied = self._rows[self._theirs.time[self._rows] == self._theirs.time[row]]
        if any(self._same(row, int(other)) for other in tied):
            return [Finding("duplicate", row, None, note="the store does not have it at all")]
        return None

    def _same(self, row: int, other: int) -> bool:
        return bool(other < row and self._theirs.signature[row] == self._theirs.signature[other])

    def _other_value(self, row: int) -> list[Finding] | None:
        """An event of the same time that agrees in some trait, or is the only one left on both sides."""
        places = list(self._places(row, lambda p: p in self._open))
        alone = len(places) == 1 and self._crowd[int(self._theirs.time[row])] == 1
        place = self._closest(row, places, alone)
        if place is None:
            return None
        self._open.discard(place)
        pair = np.array([row]), self._ours.rows[[place]]
        return list(_values(self._theirs, pair[0], self._side, pair[1]))

    def _hidden_with_other_value(self, row: int) -> list[Finding] | None:
        places = self._places(row, lambda p: not self._ours.seen[p] and p not in self._used)
        place = self._closest(row, list(places), alone=False)
        return None if place is None else self._hide(row, place)

    def _closest(self, row: int, places: list[int], alone: bool) -> int | None:
        """The place with the most traits in common; without any, only if there is no other choice."""
        best, most = None, 0 if not alone else -1
        for place in places:
            ours = self._ours.rows[place]
            common = sum(
                v.loose[row] == self._side.values[trait].loose[ours] for trait, v in self._theirs.values.items()
            )
            if common > most:
                best, most = place, int(common)
        return best

    def _unknown(self, row: int) -> Finding:
        event_ts, ours = int(self._theirs.event_ts[row]), self._ours
        if event_ts >= ours.end_ts:
            return Finding("future", row, None, note="and the store does not have it")
        if ours.expired and (not len(ours.event_ts) or event_ts < ours.event_ts[0]):
            return Finding("expired", row, None)
        return Finding("extra", row, None)

    def _missing(self) -> Iterator[Finding]:
        if not self._open:
            return
        ours, times = self._ours, self._theirs.time[self._rows]
        # of everything behind an event that they have, too, the earliest that was learned of
        known = np.full(len(ours.rows) + 1, np.iinfo(np.int64).max)
        known[self._matched] = ours.ingest_ts[self._matched]
        earliest = np.minimum.accumulate(known[::-1])[::-1]
        for place in sorted(self._open):
            row, ingest_ts = int(ours.rows[place]), int(ours.ingest_ts[place])
            time, note = (
                int(self._side.time[row]),
                f"learned of {show_span(max(0, ours.cutoff - ingest_ts))} before the request",
            )
            kind: Kind = "missing"
            if len(times) and time <= times.min():
                kind = "cap"
            elif len(times) and time > times.max():
                kind = "stale"
            elif earliest[place + 1] < ingest_ts:
                kind = "late_missing"
            yield Finding(kind, None, row, note="" if kind == "cap" else note)


def shown(side: Side, row: int | None, trait: str | None) -> Any:
    """A value as people read it."""
    if row is not None and trait == EVENT_TS:
        return show_ts(int(side.event_ts[row]))
    return None if row is None or trait is None else side.shown[trait][row].as_py()
