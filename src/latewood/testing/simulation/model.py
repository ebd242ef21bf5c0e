"""What a store was given, as plain lists: every version of every event by arrival, and the examples that were logged.

The model never asks the store what is right. A version enters it at the moment of the commit, or of the publication,
that makes it durable; which it was among those that a process had asked for when it died is all that it is told.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from latewood.clock import EARLIEST_TS
from latewood.events import NEVER
from latewood.projection import Projection
from latewood.schema import TIME_TYPE, Schema, Trait
from latewood.testing.oracle import Oracle
from latewood.testing.simulation.expected import Logged

NUMBER, WORD = "number", "word"  # the traits that no change drops: what tells rows apart, and a coded one
PLACE_TYPE = pa.struct([("event_ts", TIME_TYPE), ("ingest_ts", TIME_TYPE), ("ordinal", pa.int32())])
Place = tuple[Any, int, int, int]  # user, event_ts, ingest_ts, ordinal


@dataclass(slots=True)
class Row:
    """One row as it is handed to a store: an event, a correction of `target`, or, without values, its deletion."""

    number: int
    user: Any
    event_ts: int
    values: dict[str, Any]  # by column
    ingest_ts: int | None = None  # as given; None: the store stamps
    event_id: str | None = None
    target: "Version | None" = None
    is_deletion: bool = False


@dataclass(slots=True, eq=False)
class Version:
    """An event that a store has taken in, or a correction of one."""

    index: int  # by arrival
    row: Row
    ingest_ts: int
    ordinal: int
    values: dict[int, Any]  # by trait id
    loaded: bool = False  # in bulk: it never was in the mutable tier
    superseded_at: int = NEVER
    newer: "Version | None" = None  # what took its place; None once it was deleted
    gone_by: int | None = None  # the scrub that took it

    @property
    def place(self) -> Place:
        return self.row.user, self.row.event_ts, self.ingest_ts, self.ordinal

    def __repr__(self) -> str:
        marks = [f"superseded at {self.superseded_at}"] * (self.superseded_at != NEVER)
        marks += [f"gone by scrub {self.gone_by}"] * (self.gone_by is not None)
        return f"<{self.row.number}: {self.place}{''.join(f', {mark}' for mark in marks)}>"


@dataclass(frozen=True, slots=True)
class ModelScrub:
    """A scrub whose moment is fixed."""

    number: int
    scrub_ts: int
    users: frozenset[Any]


@dataclass(slots=True)
class Model:
    """Everything that a store was given."""

    user_type: pa.DataType
    versions: list[Version] = field(default_factory=list)  # in the order of arrival
    by_id: dict[str, list[Version]] = field(default_factory=dict)
    by_place: dict[Place, Version] = field(default_factory=dict)
    superseded: dict[Place, int] = field(default_factory=dict)  # when last, also where no event is known
    scrubs: list[ModelScrub] = field(default_factory=list)
    logged: list[Logged] = field(default_factory=list)
    changes: int = 0  # grows with whatever the oracle must know
    _met: Counter[tuple[Any, int, int]] = field(default_factory=Counter)
    _oracles: dict[Any, tuple[int, Oracle]] = field(default_factory=dict)

    def add(self, row: Row, ingest_ts: int, values: dict[int, Any], *, loaded: bool = False) -> Version:
        """A row became durable with this ingest time; its ordinal follows from those before it."""
        key = row.user, row.event_ts, ingest_ts
        version = Version(len(self.versions), row, ingest_ts, self._met[key], values, loaded)
        self._met[key] += 1
        self.changes += 1
        self.versions.append(version)
        self.by_place[version.place] = version
        if row.event_id is not None:
            self.by_id.setdefault(row.event_id, []).append(version)
        return version

    def supersede(self, version: Version, at: int, newer: Version | None) -> None:
        """A newer version of an event, or its deletion, was ingested. The first counts."""
        if at < version.superseded_at:
            version.superseded_at, version.newer = at, newer
        self.changes += 1

    def named(self, row: Row, above: Sequence[Row], *, by_place: bool) -> "Version | Row | Place":
        """What a row supersedes (R13): the newest event of an id, in the table above or here, or its user's at a place.

        Where no event is known, the place is all there is to tell.
        """
        assert row.target is not None
        event_id, place = row.target.row.event_id, (row.user, *row.target.place[1:])
        if by_place or event_id is None:
            return self.by_place.get(place, place)
        own = [other for other in above if other.event_id == event_id and not other.is_deletion]
        return own[-1] if own else self.by_id[event_id][-1]

    def scrub(self, scrub: ModelScrub, taken: Iterable[Version]) -> None:
        """A scrub's moment is fixed: these are gone."""
        self.scrubs.append(scrub)
        self.changes += 1
        for version in taken:
            version.gone_by = scrub.number

    def scrubbed_at(self, user: Any, count: int | None = None) -> int:
        """When a user was last scrubbed by the first `count` scrubs, or by all; before all of time if never."""
        times = [scrub.scrub_ts for scrub in self.scrubs[:count] if user in scrub.users]
        return max(times, default=EARLIEST_TS - 1)

    def of(self, user: Any) -> list[Version]:
        """The versions of a user that no scrub took, in the total order."""
        mine = (version for version in self.versions if version.row.user == user and version.gone_by is None)
        return sorted(mine, key=lambda version: version.place[1:])

    def expected(
        self, requests: pa.Table, projection: Projection, schema: Schema, hidden: frozenset[int] = frozenset()
    ) -> pa.Table:
        """The Fat Rows, as the oracle makes them of all versions that there are by now.

        Args:
            requests: with `cutoff` and `anchor`. What came after a request must not show.
            schema: what the traits are called.
            hidden: versions that these requests could not see, by index: retention had taken them.
        """
        names = {trait.name: trait for trait in schema}
        names |= {name: schema[name] for name in projection.traits or () if name != "event_ts"}  # former ones too
        key = hidden, tuple((name, trait.id) for name, trait in names.items())
        known = self._oracles.get(key)
        if known is None or known[0] != self.changes:
            self._oracles[key] = self.changes, Oracle(self._table(names, hidden))
        return self._oracles[key][1].fat_rows(requests, projection)

    def _table(self, traits: dict[str, Trait], hidden: frozenset[int]) -> pa.Table:
        """All versions by arrival. What is not to be seen keeps its place among ties, superseded before all of time."""
        versions = self.versions
        columns = {
            name: pa.array([version.values.get(trait.id) for version in versions], trait.value_type)
            for name, trait in traits.items()
        }
        ghosts = [version.gone_by is not None or version.index in hidden for version in versions]
        superseded_at = [
            EARLIEST_TS if ghost else None if version.superseded_at == NEVER else version.superseded_at
            for version, ghost in zip(versions, ghosts, strict=True)
        ]
        return pa.table(
            {
                "user_id": pa.array([version.row.user for version in versions], self.user_type),
                "event_ts": times([version.row.event_ts for version in versions]),
                **columns,
                "ingest_ts": times([version.ingest_ts for version in versions]),
                "superseded_at": times(superseded_at),
            }
        )


def times(values: Sequence[int | None]) -> pa.Array:
    """Times as a column."""
    return pa.array(values, pa.int64()).view(TIME_TYPE)


def has_name(schema: Schema, name: str) -> bool:
    """Whether a trait goes by a name, or did."""
    return any(name == trait.name or name in trait.former for trait in schema)


def append_table(rows: Sequence[Row], schema: Schema, *, by_place: bool = False) -> pa.Table:
    """Rows as `Store.append` takes them, with the optional columns that any of them has.

    Args:
        schema: what a trait's type is; a column that no row has a value for is left out if it may be.
        by_place: how rows name what they supersede; otherwise by event id.
    """
    names = {name for row in rows for name in row.values}
    traits = [trait for trait in schema if trait.name in names or not trait.added]
    times_ = [None if row.is_deletion else row.event_ts for row in rows]
    columns = {"user_id": pa.array([row.user for row in rows], schema.user_id), "event_ts": times(times_)}
    for trait in traits:
        columns[trait.name] = pa.array([row.values.get(trait.name) for row in rows], trait.value_type)
    if any(row.ingest_ts is not None for row in rows):
        columns["ingest_ts"] = times([row.ingest_ts for row in rows])
    if any(row.event_id is not None for row in rows):
        columns["event_id"] = pa.array([row.event_id for row in rows], pa.string())
    if any(row.target is not None for row in rows):
        columns["supersedes"] = _places(rows) if by_place else _target_ids(rows)
    return pa.table(columns)


def _target_ids(rows: Sequence[Row]) -> pa.Array:
    return pa.array([None if row.target is None else row.target.row.event_id for row in rows], pa.string())


def _places(rows: Sequence[Row]) -> pa.Array:
    places = [None if row.target is None else row.target.place for row in rows]
    columns = [times([None if place is None else place[i] for place in places]) for i in (1, 2)]
    columns.append(pa.array([None if place is None else place[3] for place in places], pa.int32()))
    mask = pa.array([place is None for place in places], pa.bool_())
    return pa.StructArray.from_arrays(columns, fields=list(PLACE_TYPE), mask=mask)
