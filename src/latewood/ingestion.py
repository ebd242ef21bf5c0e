"""The first hour's way in: files or tables of old interactions → a store, in bounded memory.

Reads Parquet, CSV, Arrow files or tables batch by batch, infers the schema and prints it as code to paste, and bulk-loads
straight into a generation. When each event was *learned* is never guessed: the caller names a column or an assumed delay
(PROTOCOL.md R8).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from latewood.clock import Clock, show_ts
from latewood.columns import read_table
from latewood.compaction import bulk_load
from latewood.errors import SchemaError, StoreNotFoundError
from latewood.events import Events
from latewood.files import ROWS_AT_ONCE, expand, open_fragment
from latewood.intake import read_events
from latewood.schema import RESERVED, Schema
from latewood.store import Store

_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingest loaded. Units: times in µs since epoch, UTC."""

    events: int
    users: int
    first_ts: int | None
    last_ts: int | None
    length_p50: int
    length_p90: int
    length_p99: int
    length_max: int
    late_hour_share: float  # of events learned more than an hour after they happened
    late_day_share: float
    size_bytes: int
    generation: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def ingest(
    events: Any,
    path: str | Path,
    *,
    user: str,
    time: str,
    ingest_time: str | timedelta,
    unit: str | None = None,
    traits: Sequence[str] | None = None,
    schema: Schema | None = None,
    shards: int = 16,
    clock: Clock | None = None,
    memory_bytes: int = 1 << 30,
    quiet: bool = False,
) -> Store:
    """Load old interactions into a store, which is created if there is none.

    Args:
        events: a path, glob or list of paths (Parquet, CSV, Arrow), or a table. In any order.
        user, time: the columns of the user id and of when the event happened.
        ingest_time: when the store would have learned of each event: a column (`time` itself if there was no delay), or a
            timedelta, the assumed delay. There is no default: with the wrong one, histories are empty or leak.
        unit: of integer time columns: "s", "ms" or "us" (the default).
        traits: the other columns to keep; all of them by default.
        schema: instead of the inferred one; then the files' columns must fit it.
        memory_bytes: about how much memory sorting may take.
        quiet: print nothing.
    Returns: the store, open for writing.
    Raises: SchemaError: names the column, and the row and file of a bad value. ConflictError: the store has already been
        read up to a time past these events (R7).
    """
    return ingest_with_report(
        events, path, user=user, time=time, ingest_time=ingest_time, unit=unit, traits=traits, schema=schema,
        shards=shards, clock=clock, memory_bytes=memory_bytes, console=Console(quiet=quiet),
    )[0]  # fmt: skip


def ingest_with_report(
    events: Any,
    path: str | Path,
    *,
    user: str,
    time: str,
    ingest_time: str | timedelta,
    unit: str | None = None,
    traits: Sequence[str] | None = None,
    schema: Schema | None = None,
    shards: int = 16,
    clock: Clock | None = None,
    memory_bytes: int = 1 << 30,
    console: Console,
) -> tuple[Store, IngestReport]:
    """`ingest`, with what it found out; prints to the console given."""
    source = _Source(events)
    mapping = _Mapping(source.schema, user, time, ingest_time, unit, traits)
    if schema is None:
        schema = mapping.infer()
        console.print(f"inferred schema:\n\n{schema.to_code()}\n", highlight=False, markup=False, soft_wrap=True)
    store = _open_or_create(path, schema, shards, clock)
    late = _Lateness()
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console,
        transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("reading events", total=source.rows)

        def runs() -> Iterator[Events]:
            for place, row, batch in source.batches():
                try:
                    intake = read_events(mapping.apply(batch), store.schema, store.encode)
                except SchemaError as error:
                    raise SchemaError(f"{place}, in the rows from {row:,} on: {error}") from None
                late.add(intake.events)
                progress.advance(task, batch.num_rows)
                yield intake.events

        generation = bulk_load(store, runs(), memory_bytes=memory_bytes)
    store.refresh()
    report = late.report(store, generation.id)
    _print(console, store, report)
    return store, report


def _open_or_create(path: str | Path, schema: Schema, shards: int, clock: Clock | None) -> Store:
    try:
        store = Store.open(path, clock=clock)
    except StoreNotFoundError:
        return Store.create(path, schema, shards=shards, clock=clock)
    if store.schema != schema:
        store.close()
        raise SchemaError(f"{path} is a store of another schema: {store.schema!r}; these events have {schema!r}")
    return store


class _Source:
    """Files or a table, as batches with the place they come from."""

    def __init__(self, events: Any) -> None:
        self._table: pa.Table | None = None
        self._fragments: list[Any] = []
        if isinstance(events, str | Path) or (
            isinstance(events, list | tuple) and events and isinstance(events[0], str | Path)
        ):
            self._open(expand(events))
        elif isinstance(events, ds.Dataset):
            self._fragments, self.schema = list(events.get_fragments()), events.schema
        else:
            self._table = read_table(events)
            self.schema = self._table.schema
        self.rows = self._table.num_rows if self._table is not None else sum(f.count_rows() for f in self._fragments)

    def _open(self, paths: list[str]) -> None:
        for path in paths:
            self._fragments += open_fragment(path)
        try:
            schemas = [fragment.physical_schema for fragment in self._fragments]
            self.schema = pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"the files do not have the same columns: {error}") from error

    def batches(self) -> Iterator[tuple[str, int, pa.Table]]:
        """(place, first row, rows) for every batch."""
        if self._table is not None:
            row = 0
            for batch in self._table.to_batches(max_chunksize=ROWS_AT_ONCE):
                yield "the table", row, pa.Table.from_batches([batch])
                row += batch.num_rows
        for fragment in self._fragments:
            row = 0
            try:
                for batch in fragment.to_batches(schema=self.schema, batch_size=ROWS_AT_ONCE):
                    yield fragment.path, row, pa.Table.from_batches([batch])
                    row += batch.num_rows
            except (pa.ArrowInvalid, OSError) as error:
                raise SchemaError(f"{fragment.path}, after row {row:,}: {error}") from error


class _Mapping:
    """From the files' columns to a store's: user_id, event_ts, ingest_ts and the traits."""

    def __init__(
        self, schema: pa.Schema, user: str, time: str, ingest_time: str | timedelta, unit: str | None,
        traits: Sequence[str] | None,
    ) -> None:  # fmt: skip
        if not isinstance(ingest_time, str | timedelta):
            raise SchemaError(
                "ingest_time: say when the store would have learned of each event: a column, or a timedelta, the assumed delay"
            )
        if unit is not None and unit not in _UNITS:
            raise SchemaError(f"unit {unit!r}: one of {', '.join(_UNITS)}")
        self.user, self.time, self.ingest_time, self.unit = user, time, ingest_time, unit
        taken = {user, time, ingest_time} if isinstance(ingest_time, str) else {user, time}
        if unknown := [name for name in [*sorted(taken), *(traits or [])] if name not in schema.names]:
            raise SchemaError(f"no column {unknown[0]!r}; there are: {', '.join(schema.names)}")
        self.traits = list(traits) if traits is not None else [name for name in schema.names if name not in taken]
        self._schema = schema

    def infer(self) -> Schema:
        fields = [self._schema.field(name) for name in self.traits]
        if clash := [field.name for field in fields if field.name in RESERVED]:
            raise SchemaError(f"column {clash[0]!r} has a reserved name: rename it, or leave it out with traits=[...]")
        try:
            return Schema(user_id=self._user_type(), traits=pa.schema([f.with_nullable(True) for f in fields]))
        except SchemaError as error:
            raise SchemaError(f"{error}; choose the columns to keep with traits=[...]") from None

    def _user_type(self) -> pa.DataType:
        type_ = self._schema.field(self.user).type
        return type_.value_type if pa.types.is_dictionary(type_) else type_

    def apply(self, batch: pa.Table) -> pa.Table:
        times = self._times(batch, self.time)
        columns = {"user_id": batch[self.user], "event_ts": times}
        if isinstance(self.ingest_time, timedelta):
            delay = self.ingest_time // timedelta(microseconds=1)
            columns["ingest_ts"] = pc.add(times, pa.scalar(delay, pa.int64()))
        else:
            columns["ingest_ts"] = times if self.ingest_time == self.time else self._times(batch, self.ingest_time)
        return pa.table(columns | {name: batch[name] for name in self.traits})

    def _times(self, batch: pa.Table, name: str) -> pa.ChunkedArray:
        """A time column as int64 µs; what is not a time is left for `read_events` to refuse."""
        column = batch[name]
        if pa.types.is_integer(column.type):
            try:
                return pc.multiply_checked(column.cast(pa.int64()), pa.scalar(_UNITS[self.unit or "us"], pa.int64()))
            except pa.ArrowInvalid as error:
                raise SchemaError(f"column {name!r} in {self.unit or 'us'} does not fit int64 µs: {error}") from None
        if pa.types.is_date(column.type):
            return column.cast(pa.timestamp("us"))
        return column


class _Lateness:
    """Counts while the events stream past."""

    def __init__(self) -> None:
        self.events = self.late_hour = self.late_day = 0
        self.first: int | None = None
        self.last: int | None = None

    def add(self, events: Events) -> None:
        if not len(events):
            return
        delay = events.ingest_ts - events.event_ts
        self.events += len(delay)
        self.late_hour += int(np.count_nonzero(delay > HOUR_US))
        self.late_day += int(np.count_nonzero(delay > DAY_US))
        low, high = int(events.event_ts.min()), int(events.event_ts.max())
        self.first = low if self.first is None else min(low, self.first)
        self.last = high if self.last is None else max(high, self.last)

    def report(self, store: Store, generation: int) -> IngestReport:
        lengths = store.reader().history_lengths()
        quantiles = np.quantile(lengths, [0.5, 0.9, 0.99, 1.0]) if len(lengths) else np.zeros(4)
        p50, p90, p99, longest = quantiles.astype(int).tolist()
        return IngestReport(
            events=self.events,
            users=len(lengths),
            first_ts=self.first,
            last_ts=self.last,
            length_p50=p50,
            length_p90=p90,
            length_p99=p99,
            length_max=longest,
            late_hour_share=self.late_hour / max(self.events, 1),
            late_day_share=self.late_day / max(self.events, 1),
            size_bytes=store.generation.size_bytes,
            generation=generation,
        )


def _print(console: Console, store: Store, report: IngestReport) -> None:
    none = report.first_ts is None or report.last_ts is None
    span = "no time at all" if none else f"{show_ts(report.first_ts or 0)} to {show_ts(report.last_ts or 0)}"
    per_event = report.size_bytes / max(store.generation.event_count, 1)
    console.print(
        f"loaded {report.events:,} events, {span}; the store has {report.users:,} users\n"
        f"history length: median {report.length_p50:,}, p90 {report.length_p90:,}, p99 {report.length_p99:,}, "
        f"max {report.length_max:,}\n"
        f"late: {report.late_hour_share:.1%} of events were learned over an hour after they happened, "
        f"{report.late_day_share:.1%} over a day\n"
        f"stored: {report.size_bytes:,} bytes, {per_event:.1f} per event, generation {report.generation}",
        highlight=False,
        soft_wrap=True,
    )
