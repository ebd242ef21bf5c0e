"""What a store was given, as plain lists: the events by arrival, and the examples that were logged.

The model never asks the store what is right. An event enters it at the moment of the commit, or of the publication,
that makes it durable; which it was among those that a process had asked for when it died is all that it is told.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from latewood.projection import Projection
from latewood.schema import TIME_TYPE, Schema
from latewood.testing.oracle import Oracle
from latewood.testing.simulation.broken import BrokenLawError

NUMBER, WORD, KIND = "number", "word", "kind"  # the traits: what tells events apart, a coded one, a small integer


@dataclass(slots=True)
class Row:
    """One row as it is handed to a store."""

    number: int
    user: Any
    event_ts: int
    word: str | None
    kind: int | None
    ingest_ts: int | None = None  # as given; None: the store stamps
    event_id: str | None = None


@dataclass(slots=True)
class Version:
    """A row that a store has taken in."""

    row: Row
    ingest_ts: int
    ordinal: int
    loaded: bool = False  # in bulk: it never was in the mutable tier

    @property
    def place(self) -> tuple[Any, int, int, int]:
        return self.row.user, self.row.event_ts, self.ingest_ts, self.ordinal


@dataclass(frozen=True, slots=True)
class Logged:
    """Examples that were logged, and the requests that the oracle answers instead: the same rows."""

    examples: pa.Table
    requests: pa.Table


@dataclass(slots=True)
class Model:
    """Everything that a store was given."""

    schema: Schema
    versions: list[Version] = field(default_factory=list)  # in the order of arrival
    by_id: dict[str, Version] = field(default_factory=dict)
    logged: list[Logged] = field(default_factory=list)
    _met: Counter[tuple[Any, int, int]] = field(default_factory=Counter)
    _oracle: tuple[int, Oracle | None] = (-1, None)

    def add(self, row: Row, ingest_ts: int, *, loaded: bool = False) -> Version:
        """A row became durable with this ingest time; its ordinal follows from those before it."""
        key = row.user, row.event_ts, ingest_ts
        version = Version(row, ingest_ts, self._met[key], loaded)
        self._met[key] += 1
        self.versions.append(version)
        if row.event_id is not None:
            self.by_id[row.event_id] = version
        return version

    def below(self, watermark: int) -> list[Version]:
        """What a generation of this watermark holds."""
        return [version for version in self.versions if version.ingest_ts < watermark]

    def oracle(self) -> Oracle:
        """Over all versions that there are by now: what came after a request must not show."""
        if self._oracle[0] != len(self.versions):
            self._oracle = len(self.versions), Oracle(self._table())
        assert self._oracle[1] is not None
        return self._oracle[1]

    def expected(self, requests: pa.Table, projection: Projection) -> pa.Table:
        return self.oracle().fat_rows(requests, projection)

    def _table(self) -> pa.Table:
        rows = [version.row for version in self.versions]
        ingest_ts = times([version.ingest_ts for version in self.versions])
        return events_table(rows, self.schema).append_column("ingest_ts", ingest_ts)


def times(values: Sequence[int]) -> pa.Array:
    """Times as a column."""
    return pa.array(values, pa.int64()).view(TIME_TYPE)


def events_table(rows: Sequence[Row], schema: Schema) -> pa.Table:
    """Rows as a table of user_id, event_ts and the traits."""
    values: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in (NUMBER, WORD, KIND)}
    columns = {trait.name: pa.array(values[trait.name], trait.value_type) for trait in schema}
    users = pa.array([row.user for row in rows], schema.user_id)
    return pa.table({"user_id": users, "event_ts": times([row.event_ts for row in rows]), **columns})


def append_table(rows: Sequence[Row], schema: Schema) -> pa.Table:
    """Rows as `Store.append` takes them, with the optional columns that any of them has."""
    table = events_table(rows, schema)
    if any(row.ingest_ts is not None for row in rows):
        if missing := [row.number for row in rows if row.ingest_ts is None]:
            raise BrokenLawError(f"rows {missing} bring no ingest time")
        table = table.append_column("ingest_ts", times([row.ingest_ts or 0 for row in rows]))
    if any(row.event_id is not None for row in rows):
        table = table.append_column("event_id", pa.array([row.event_id for row in rows], pa.string()))
    return table
