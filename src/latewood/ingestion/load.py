"""Ingest: look at what is there, agree on a schema, load it in bulk, say what was loaded.

Everything that can be refused by looking at columns is refused before anything is created. What only reading shows (a null
in row 3,000,000, a full disk) comes later; a store that this call created is then taken away again, and one that was there
before is as it was.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from latewood.clock import Clock, show_ts
from latewood.columns import first_row, one_array
from latewood.compaction import bulk_load
from latewood.compaction.attempt import attempt_uuid
from latewood.errors import ConflictError, SchemaError, StoreNotFoundError
from latewood.events import Events
from latewood.ingestion.blame import blame, check
from latewood.ingestion.mapping import EventMapping, check_times, csv_types
from latewood.ingestion.report import IngestReport, Tally, doubt_of_report, show
from latewood.ingestion.source import Source
from latewood.intake import read_events
from latewood.mutable import TierState
from latewood.mutable.rules import too_old
from latewood.progress import Bar, progress_bar
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import keys, open_storage
from latewood.storage.local import UNFINISHED, LocalStorage
from latewood.store import Store
from latewood.tiers import delete_tier

_NUMBER = r"^\s*-?\d+\s*$"


def ingest(
    events: Any,
    path: str | Path,
    *,
    user: str,
    time: str,
    ingest_time: str | timedelta | None = None,
    unit: str | None = None,
    superseded_time: str | None = None,
    traits: Sequence[str] | None = None,
    schema: Schema | None = None,
    shards: int = 16,
    clock: Clock | None = None,
    mutable: str | Path | None = None,
    memory_bytes: int = 1 << 30,
    quiet: bool = False,
) -> Store:
    """Load old interactions into a store, which is created if there is none.

    Args:
        events: a path, folder, glob or list of these (Parquet, CSV, Arrow); a table; a pyarrow dataset or record batch
            reader. In any order.
        user, time: the columns of the user id and of when the event happened.
        ingest_time: when the store would have learned of each event: a column (`time` itself if there was no delay), or a
            timedelta, the assumed delay. It must be given: with a wrong one, histories are empty or leak.
        unit: of integer time columns: "s", "ms" or "us" (the default).
        superseded_time: when each event was corrected or deleted: a column, null where it was not. `lw.export_events`
            writes one where there are such events.
        traits: the other columns to keep; all of them by default.
        schema: instead of the inferred one, for feature groups or other types; the columns kept must fit it. A store that
            is there already has its own.
        shards, clock, mutable: see `Store.create`.
        memory_bytes: about how much memory sorting may take.
        quiet: print nothing. Warnings come all the same.
    Returns: the store, open for writing.
    Warns: UserWarning: all times lie in early 1970, as they do in a wrong unit.
    Raises: SchemaError: names the column, and the file and row of a bad value. ConflictError: the store has already been
        read up to a time past these events (R7). Nothing is loaded then, and no store left behind that was not there.
    """
    return ingest_with_report(
        events, path, user=user, time=time, ingest_time=ingest_time, unit=unit,
        superseded_time=superseded_time, traits=traits, schema=schema, shards=shards, clock=clock, mutable=mutable,
        memory_bytes=memory_bytes, console=Console(quiet=quiet), stacklevel=3,
    )[0]  # fmt: skip


def ingest_with_report(
    events: Any,
    path: str | Path,
    *,
    user: str,
    time: str,
    ingest_time: str | timedelta | None = None,
    unit: str | None = None,
    superseded_time: str | None = None,
    traits: Sequence[str] | None = None,
    schema: Schema | None = None,
    shards: int = 16,
    clock: Clock | None = None,
    mutable: str | Path | None = None,
    memory_bytes: int = 1 << 30,
    console: Console,
    stacklevel: int = 2,
) -> tuple[Store, IngestReport]:
    """`ingest`, with what it found out; prints to the console given. Args: stacklevel: whom a warning is about."""
    check_times(ingest_time, unit)
    with ExitStack() as undo:
        store = _open_if_any(path, schema, clock, mutable, undo)
        known = store.schema if store is not None else schema
        taken = [user, time, ingest_time, superseded_time]
        source = Source(events, csv_types(known, user, taken) if known is not None else None)
        mapping = EventMapping(
            source.schema, user=user, time=time, ingest_time=ingest_time, unit=unit, superseded_time=superseded_time,
            traits=traits,
        )  # fmt: skip
        if known is None:
            known = mapping.infer()
            console.print(f"inferred schema:\n\n{known.to_code()}", highlight=False, markup=False, soft_wrap=True)
        _check_columns(source, mapping, known)
        existed = store is not None
        if store is None:
            store = create(path, known, shards, clock, mutable, undo)
        read_by, tally = store.generation, Tally()
        with progress_bar(console, "reading events", source.row_count()) as bar:
            batches = _read(store, read_by.schema, source, mapping, tally, bar)
            if existed:
                batches = _refuse_old(store, batches)
            bulk_load(
                store, batches, change=read_by.change, memory_bytes=memory_bytes,
                progress=lambda done, total: bar.update(done, total, "writing the generation"),
            )  # fmt: skip
        undo.pop_all()
    report = tally.report(store)
    guessed = unit is None and any(pa.types.is_integer(source.schema.field(name).type) for name in mapping.times)
    doubt = doubt_of_report(report) if guessed else None
    show(console, store, report)
    if doubt:
        warnings.warn(doubt, UserWarning, stacklevel=stacklevel)
    return store, report


def _check_columns(source: Source, mapping: EventMapping, schema: Schema) -> None:
    """Raises: SchemaError: the columns do not fit the schema, whatever their rows say."""
    if extra := [name for name in mapping.traits if name not in schema]:
        raise SchemaError(f"the store has no trait {extra[0]!r}: choose the columns to load with traits=[...]")
    if missing := [trait.name for trait in schema if trait.name not in mapping.traits]:
        have = ", ".join(mapping.traits) or "no other column"
        raise SchemaError(f"the events lack column {missing[0]!r}, a trait of the store; there is: {have}")
    for name in mapping.times:
        if pa.types.is_string(source.schema.field(name).type):
            _refuse_text(source, name)
    try:
        check(source.schema.empty_table(), mapping, schema)
    except SchemaError as error:
        raise SchemaError(mapping.in_its_words(str(error))) from None


def _refuse_text(source: Source, name: str) -> None:
    """Text where times belong: in a CSV file one bad value makes a column text, so look for it. Raises: SchemaError."""
    for rows in source.batches([name]):
        column = one_array(rows.table[name])
        is_number = pc.match_substring_regex(column, _NUMBER)
        row = first_row(pc.invert(pc.fill_null(is_number, True)))
        if row >= 0:
            value, mixed = column[row].as_py(), pc.any(is_number).as_py()
            what = f"{value!r} is not a time" if mixed else f"text such as {value!r} is not a time: parse it first"
            raise SchemaError(f"{rows.path}, row {rows.first + row:,}: column {name!r}: {what}")
    raise SchemaError(f"column {name!r} is text; a time is a timestamp, or an integer with a unit")


def _read(
    store: Store, schema: Schema, source: Source, mapping: EventMapping, tally: Tally, bar: Bar
) -> Iterator[Events]:
    for rows in source.batches(mapping.names):
        try:
            intake = read_events(mapping.apply(rows.table), schema, store.encode, corrections=False)
            events = mapping.marked(rows.table, intake.events)
        except SchemaError as error:
            raise blame(error, rows, mapping, schema) from None
        tally.add(events)
        bar.advance(len(rows.table))
        yield events


def _refuse_old(store: Store, batches: Iterator[Events]) -> Iterator[Events]:
    """Raises: ConflictError: the store has been read past some event (R7). Said at the first one, not after sorting all."""
    state = store.tier.state() if store.tier is not None else TierState()
    for events in batches:
        if len(events) and too_old(state, events.ingest_ts).any():
            until = (
                f"{show_ts(state.last)} by a capture" if state.captured else f"{show_ts(state.frontier)} (its frontier)"
            )
            raise ConflictError(
                f"{store.path} exists and has been read up to {until}, and some of these events were learned of before, "
                f"such as at {show_ts(int(events.ingest_ts.min()))}. If they are in it already, open it with "
                f"lw.Store.open({store.path!r}); if not, load into another path, or make a store of all feeds with "
                "lw.rebuild. Feeds that follow each other are split by when events were learned of, not when they happened"
            )
        yield events


def _open_if_any(
    path: str | Path, schema: Schema | None, clock: Clock | None, mutable: str | Path | None, undo: ExitStack
) -> Store | None:
    try:
        store = Store.open(path, clock=clock, mutable=mutable)
    except StoreNotFoundError:
        return None
    undo.callback(store.close)
    if schema is not None and schema != store.schema:
        raise SchemaError(f"{path} is a store of another schema, {store.schema!r}; given is {schema!r}")
    return store


def create(
    path: str | Path,
    schema: Schema,
    shards: int,
    clock: Clock | None,
    mutable: str | Path | None,
    undo: ExitStack,
    retention: Retention | None = None,
) -> Store:
    """A new store, which is taken away again if the rest fails."""
    storage = open_storage(str(path))
    root = storage.root if isinstance(storage, LocalStorage) else None
    tier = Path(mutable) if mutable is not None else root / "mutable" if root else None
    made = [folder for folder in (root and root / UNFINISHED, tier, root) if folder and not folder.exists()]
    store = Store.create(path, schema, shards, clock, mutable, retention)
    undo.callback(_take_away, store, tier, made)
    return store


def _state_unused(store: Store) -> TierState:
    """Where the mutable tier stands after nothing but the load of the store's generation, if that was loaded."""
    assert store.tier is not None
    if not store.generation.id:
        return TierState()
    watermark, floor = store.generation.watermark, store.tier.state().floor
    return TierState(last=watermark - 1, frontier=watermark, floor=floor)


def _take_away(store: Store, tier: Path | None, made: list[Path]) -> None:
    """Delete a store that was created a moment ago, and the folders made for it, unless someone has begun to use it.

    From looking to deleting a bulk load is under way that nobody ends, so that nothing is acknowledged that goes then.
    """
    assert store.tier is not None
    token, now = attempt_uuid(), store.clock.now()
    moment = max(now, store.generation.watermark)
    try:
        store.tier.begin_load(moment, moment, token, now=now)
    except (ConflictError, OSError):  # someone loads, or has taken a later moment; or ours may still come through
        store.close()
        return
    newest, state = store.catalog.latest(), replace(store.tier.state(), load_token=None)
    # Also where that is only the one that keeps a late manifest out: without it, that would come to whatever is here then.
    used = newest.id > store.generation.id or state != _state_unused(store)
    if used or store.changes.latest(newest).number > 0:
        store.tier.end_load(token, published=False)
        store.close()
        return
    _delete(store, tier, made)
    store.tier.end_load(token, published=None)
    store.close()


def _delete(store: Store, tier: Path | None, made: list[Path]) -> None:
    stored = [found.key for found in store.storage.list("")]
    # What says that it is a store goes last: an interruption leaves an empty store, not a riddle.
    for part in (keys.VOCABULARY, keys.GENERATIONS, keys.MANIFESTS, keys.STORE):
        store.storage.delete(key for key in stored if key == part or key.startswith(f"{part}/"))
    if tier is not None:
        delete_tier(tier)
    for folder in made:
        with suppress(OSError):  # not empty: it has become someone else's too
            folder.rmdir()
