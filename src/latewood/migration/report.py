"""What a shadow run found: how many rows and events differ in which way, with a few of each to look at."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from latewood.clock import show_ts

Kind = Literal[
    "late", "future", "superseded", "duplicate", "extra", "expired", "missing", "late_missing", "stale", "cap",
    "tie_order", "order", "value", "type", "refused",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)
WORDS: dict[Kind, str] = {
    "late": "only there: learned of at or after the request (a leak)",
    "future": "only there: happened at or after the request (a leak)",
    "superseded": "only there: had been corrected or deleted before the request",
    "duplicate": "only there: the same event once more",
    "extra": "only there: the store does not have it",
    "expired": "only there: retention has taken it here",
    "missing": "missing there",
    "late_missing": "missing there: had arrived late, but before the request",
    "stale": "missing there: newer than all that they have",
    "cap": "the lists are cut at another length",
    "tie_order": "the same events of one time in another order",
    "order": "their events are not in the order of time",
    "value": "the same event with another value",
    "type": "the same value in another representation",
    "refused": "the store refuses the request: the user was scrubbed",
}
LEAKS = ("late", "future")


@dataclass(frozen=True, slots=True)
class ShadowExample:
    """One difference. Units: µs since epoch, UTC."""

    row: int
    user_id: Any
    request_ts: int
    event_ts: int | None
    trait: str | None
    theirs: Any
    ours: Any
    note: str

    def __str__(self) -> str:
        when = "" if self.event_ts is None else f", event of {show_ts(self.event_ts)}"
        what = "" if self.trait is None else f": {self.trait} {self.theirs!r} there, {self.ours!r} here"
        note = f" ({self.note})" if self.note else ""
        return f"row {self.row}, user {self.user_id!r} at {show_ts(self.request_ts)}{when}{what}{note}"


@dataclass(frozen=True, slots=True)
class KindCount:
    """All differences of a kind. `by_trait` is of values: how many differ in which trait."""

    kind: Kind
    events: int
    rows: int
    by_trait: dict[str, int]
    examples: tuple[ShadowExample, ...]

    @property
    def words(self) -> str:
        """What the kind means."""
        return WORDS[self.kind]


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """Fat Rows beside the store. Counts are of the rows that were compared."""

    rows: int  # there are
    compared: int  # rows looked at
    same: int  # rows with the same events and the same values, bit for bit
    same_but_type: int  # rows whose only differences are of representation
    leaking: int  # rows with an event that their request could not have known
    their_events: int
    our_events: int
    traits: tuple[str, ...]  # compared, besides event_ts
    not_compared: tuple[str, ...]  # traits of the store that the mapping leaves out
    kinds: tuple[KindCount, ...]  # those that occur

    def count(self, kind: Kind) -> int:
        """How many events differ in this way."""
        return sum(found.events for found in self.kinds if found.kind == kind)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able form."""
        return asdict(self)


@dataclass(slots=True)
class Tally:
    """Gathers differences."""

    shown: int
    rows: int = 0
    same: int = 0
    same_but_type: int = 0
    leaking: int = 0
    their_events: int = 0
    our_events: int = 0
    _events: Counter[Kind] = field(default_factory=Counter)
    _rows: Counter[Kind] = field(default_factory=Counter)
    _traits: dict[Kind, Counter[str]] = field(default_factory=dict)
    _examples: dict[Kind, list[ShadowExample]] = field(default_factory=dict)
    _now: set[Kind] = field(default_factory=set)

    def add(self, kind: Kind, example: ShadowExample, events: int = 1) -> None:
        """One difference, or several that are alike."""
        self._events[kind] += events
        self._now.add(kind)
        if example.trait is not None:
            self._traits.setdefault(kind, Counter())[example.trait] += events
        shown = self._examples.setdefault(kind, [])
        if len(shown) < self.shown:
            shown.append(example)

    def end_row(self) -> None:
        """A row is done."""
        self.rows += 1
        self.same += not self._now
        self.same_but_type += self._now == {"type"}
        self.leaking += not self._now.isdisjoint(LEAKS)
        self._rows.update(self._now)
        self._now = set()

    def report(self, rows: int, traits: tuple[str, ...], not_compared: tuple[str, ...]) -> ShadowReport:
        """What was gathered. Args: rows: how many there are in the files."""
        kinds = tuple(
            KindCount(
                kind,
                self._events[kind],
                self._rows[kind],
                dict(self._traits.get(kind, {})),
                tuple(self._examples[kind]),
            )
            for kind in KINDS
            if kind in self._events
        )
        return ShadowReport(
            rows, self.rows, self.same, self.same_but_type, self.leaking, self.their_events, self.our_events, traits,
            not_compared, kinds,
        )  # fmt: skip
