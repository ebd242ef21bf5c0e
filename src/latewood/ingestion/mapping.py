"""From the columns of files to a store's: user_id, event_ts, ingest_ts and the traits."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.columns import first_row, one_array, times_from_arrow
from latewood.errors import SchemaError
from latewood.events import NEVER, Events
from latewood.schema import RESERVED, Schema

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_OUR_DAYS = 315_532_800, 4_102_444_800  # 1980 to 2100, in seconds
_NANOSECONDS = "A store keeps µs: divide nanoseconds by 1,000, or cast the column to a timestamp"
_NEEDS_INGEST_TIME = (
    "say when the store would have learned of each event: ingest_time= is a column, or a timedelta, the delay to assume. "
    "If each event was known the moment it happened, name the time column itself, or pass timedelta(0). There is no "
    "default, because a wrong one goes unnoticed: with too early a time a model trains on what it could not have known, "
    "with too late a one histories are empty"
)


class EventMapping:
    """Which column is what.

    Args:
        columns: what the source has.
        traits: the columns to keep; None: all that are not one of the others.
    Raises: SchemaError: a column that is not there, a unit or an ingest time that makes no sense.
    """

    def __init__(
        self,
        columns: pa.Schema,
        *,
        user: str,
        time: str,
        ingest_time: str | timedelta | None,
        unit: str | None = None,
        superseded_time: str | None = None,
        traits: Sequence[str] | None = None,
    ) -> None:
        check_times(ingest_time, unit)
        self.user, self.time, self.ingest_time, self.unit = user, time, ingest_time, unit
        self.superseded_time = superseded_time
        taken = [user, time, *(name for name in (ingest_time, superseded_time) if isinstance(name, str))]
        if isinstance(traits, str):
            raise SchemaError(f"traits={traits!r} is one string; pass a list")
        for name in [*taken, *(traits or [])]:
            if name not in columns.names:
                raise SchemaError(f"no column {name!r}; there are: {', '.join(columns.names)}")
            if columns.names.count(name) > 1:
                raise SchemaError(f"there are two columns {name!r}")
        self.traits = [name for name in columns.names if name not in taken] if traits is None else list(traits)
        if "supersedes" in self.traits:
            raise SchemaError(
                "column 'supersedes': corrections and deletions go through append, not into a load in bulk; if it is "
                "something else, leave it out with traits=[...]"
            )
        self.names = list(dict.fromkeys([*taken, *self.traits]))  # what to read
        self._columns = columns

    def infer(self) -> Schema:
        """The schema of a store that keeps these columns. Raises: SchemaError: names one that a store cannot keep."""
        fields = [self._columns.field(name) for name in self.traits]
        if clash := [field.name for field in fields if field.name in RESERVED]:
            meant = "name it with superseded_time=, " if clash[0] == "superseded_at" else ""
            raise SchemaError(
                f"column {clash[0]!r} has a reserved name: {meant}rename it, or leave it out with traits=[...]"
            )
        type_ = self._columns.field(self.user).type
        try:
            user_type = Schema(user_id=_value_type(type_), traits=[]).user_id
        except SchemaError:
            raise SchemaError(f"column {self.user!r} is {type_}; user ids are integers or strings") from None
        try:
            return Schema(user_id=user_type, traits=pa.schema([field.with_nullable(True) for field in fields]))
        except SchemaError as error:
            raise SchemaError(f"{error}; choose the columns to keep with traits=[...]") from None

    @property
    def times(self) -> list[str]:
        """The columns that hold times."""
        return [self.time, *(name for name in (self.ingest_time, self.superseded_time) if isinstance(name, str))]

    def in_its_words(self, message: str) -> str:
        """A message about the store's columns as one about the source's."""
        return message.replace("column 'user_id'", f"column {self.user!r}")

    def apply(self, table: pa.Table) -> pa.Table:
        """Some rows as the store takes them. Raises: SchemaError: names the source's column."""
        times = self._times(table, self.time)
        if isinstance(self.ingest_time, timedelta):
            ingest = times + min(self.ingest_time // timedelta(microseconds=1), LATEST_TS - EARLIEST_TS)
            if len(ingest) and ingest.max() > LATEST_TS:
                row = int(np.argmax(ingest > LATEST_TS))
                raise SchemaError(f"column {self.time!r}, row {row}: with the delay it is past the year 9999")
        else:
            ingest = times if self.ingest_time == self.time else self._times(table, str(self.ingest_time))
        columns = {"user_id": table[self.user], "event_ts": pa.array(times), "ingest_ts": pa.array(ingest)}
        return pa.table(columns | {name: table[name] for name in self.traits})

    def marked(self, table: pa.Table, events: Events) -> Events:
        """The events of some rows, with when they were superseded. Raises: SchemaError: before they were learned of."""
        if self.superseded_time is None:
            return events
        column = one_array(table[self.superseded_time])
        superseded_at = np.full(len(column), NEVER, np.int64)
        rows = np.flatnonzero(column.is_valid())
        if len(rows):  # else the column may be of no type at all
            superseded_at[rows] = self._to_times(column.take(pa.array(rows)), self.superseded_time)
        early = superseded_at < events.ingest_ts
        if early.any():
            row = int(np.argmax(early))
            raise SchemaError(f"column {self.superseded_time!r}, row {row}: superseded before it was learned of")
        return replace(events, superseded_at=superseded_at)

    def _times(self, table: pa.Table, name: str) -> NDArray[np.int64]:
        """A time column as int64 µs."""
        return self._to_times(one_array(table[name]), name)

    def _to_times(self, column: pa.Array, name: str) -> NDArray[np.int64]:
        if pa.types.is_integer(column.type):
            column = _to_us(column, name, self.unit or "us")
        elif pa.types.is_date(column.type):
            column = _midnights(column)
        return times_from_arrow(column, name)


def _midnights(dates: pa.Array) -> pa.Array:
    """Dates as timestamps of the coarsest unit that holds each of them, whatever was written into it."""
    unit = "ms" if pa.types.is_date64(dates.type) else "s"
    return dates.cast(pa.timestamp(unit))


def _to_us(column: pa.Array, name: str, unit: str) -> pa.Array:
    """Integers of a unit as int64 µs. Raises: SchemaError: a year outside 1 to 9999, with the unit that would fit."""
    factor = UNITS[unit]
    type_ = column.type if column.type == pa.uint64() else pa.int64()  # which of them holds all of the column
    earliest = 0 if type_ == pa.uint64() else -(-EARLIEST_TS // factor)
    too_early = pc.less(column, pa.scalar(earliest, type_))
    outside = pc.fill_null(pc.or_(too_early, pc.greater(column, pa.scalar(LATEST_TS // factor, type_))), False)
    row = first_row(outside)
    if row >= 0:
        value = column[row].as_py()
        raise SchemaError(
            f"column {name!r}, row {row}: {value} as {unit} is outside the years 1 to 9999; {_hint(value)}"
        )
    return pc.multiply(column.cast(pa.int64()), pa.scalar(factor, pa.int64()))


def _hint(value: int) -> str:
    """The unit in which a number is a time of our days, as a question."""
    for unit, per_second in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        if _OUR_DAYS[0] * per_second <= value < _OUR_DAYS[1] * per_second:
            return f"is it {unit}?" if unit in UNITS else f"is it {unit}? {_NANOSECONDS}"
    return "is it a time?"


def check_times(ingest_time: Any, unit: str | None) -> None:
    """Raises: SchemaError: no ingest time was given, or no such unit."""
    if not isinstance(ingest_time, str | timedelta):
        raise SchemaError(_NEEDS_INGEST_TIME)
    if isinstance(ingest_time, timedelta) and ingest_time < timedelta(0):
        raise SchemaError(f"ingest_time is {ingest_time}: nothing is assumed to be known before it happens")
    if unit is not None and unit not in UNITS:
        advice = f". {_NANOSECONDS}" if unit == "ns" else ""
        raise SchemaError(f"unit {unit!r}: one of {', '.join(UNITS)}{advice}")


def csv_types(schema: Schema, user: str, taken: Sequence[Any]) -> dict[str, pa.DataType]:
    """How to read the columns of CSV files for a schema that is known: 007 may be text. Lists cannot be read from there."""
    traits = {trait.name: trait.value_type for trait in schema if trait.name not in taken and not trait.is_list}
    return traits | {user: schema.user_id}


def _value_type(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_
