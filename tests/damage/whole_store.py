"""A store with one of everything, and a way to read all of it: what is damaged, and how damage would show.

The store is made by the public API alone: traits of every kind, nulls, ties, late, corrected and deleted events, a
scrubbed user with values that only he had, a trait that was added and a change that is still to be applied, a pin, two
generations of manifests and one of data, and examples in a log.
"""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

import latewood as lw
from latewood.columns import Lists, TraitColumn
from latewood.events import Events
from latewood.immutable import Catalog, Changes, GenerationReader, Scrubs
from latewood.immutable.pins import Pins
from latewood.testing import ManualClock
from latewood.vocabulary import Vocabulary
from latewood.vocabulary.blanked import Blanked

START, MINUTE = 1_700_000_000_000_000, 60_000_000
FEW = pa.schema(
    [
        ("item", pa.int64()),
        ("word", pa.string()),
        ("action", pa.dictionary(pa.int32(), pa.string())),
        ("like", pa.bool_()),
        ("tags", pa.list_(pa.string())),
    ]
)
EVERY = pa.schema(
    [
        *FEW,
        *(
            (str(type_), type_)
            for type_ in (
                *(pa.int8(), pa.int16(), pa.int32(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
                *(pa.float32(), pa.float64(), pa.timestamp("us", "UTC")),
                *(pa.list_(pa.float32(), 3), pa.list_(pa.int64())),
            )
        ),
    ]
)
EVERYTHING = lw.Projection()
FORGOTTEN = 3


def make(place: Path, log: Path, *, traits: pa.Schema = FEW, users: int = 3, events: int = 5, shards: int = 1) -> None:
    """Make the store and the log. `events`: of each user, at least 4; there is a correction and a deletion in each."""
    clock, rng = ManualClock(START), np.random.default_rng(5)
    schema = lw.Schema(user_id=pa.int64(), traits=traits)
    with lw.Store.create(place, schema, shards=shards, clock=clock) as store, lw.ExampleLog(log) as examples:
        for user in range(1, users + 1):
            store.append(_events(rng, schema, user, events, clock.now()))
        clock.advance(MINUTE)
        for table in _correction(schema, rng, clock.now()):
            store.append(table)
        examples.append(_capture(store, clock, users))
        store.compact(keep=1)
        examples.append(_capture(store, clock, users))
        store.alter(add=pa.schema([("later", pa.int16())]))
        store.scrub([FORGOTTEN])
        store.pin("run", timedelta(days=9))
        store.alter(rename={"item": "thing"})


def _events(rng: np.random.Generator, schema: lw.Schema, user: int, count: int, now: int) -> pa.Table:
    """Some tie, one is late, some values are null; the values of the forgotten user are only his."""
    event_ts = now - np.sort(rng.integers(0, 3, count)) * MINUTE - np.where(np.arange(count) == 1, 90 * MINUTE, 0)
    columns = {
        trait.name: _values(rng, trait, count, f"{trait.name}-{user if user == FORGOTTEN else 0}") for trait in schema
    }
    ids = pa.array([f"{user}.{i}" for i in range(count)])
    return pa.table({"user_id": [user] * count, "event_ts": event_ts, "event_id": ids, **columns})


def _values(rng: np.random.Generator, trait: Any, count: int, prefix: str) -> pa.Array:
    mask = rng.random(count) < 0.2
    if trait.is_list:
        lengths = rng.integers(0, 4, count) if trait.list_size is None else np.full(count, trait.list_size)
        words = [[f"{prefix}-{n}" for n in rng.integers(0, 3, length)] for length in lengths]
        numbers = [rng.integers(0, 100, length).tolist() for length in lengths]
        lists = words if trait.coded else numbers
        return pa.array([None if null else part for null, part in zip(mask, lists, strict=True)], trait.type)
    if trait.coded:
        words = [f"{prefix}-{n}" for n in rng.integers(0, 3, count)]
        return pa.array(words, pa.string(), mask=mask).cast(trait.type)
    if pa.types.is_boolean(trait.type):
        return pa.array(rng.random(count) < 0.5, mask=mask)
    if pa.types.is_timestamp(trait.type):
        return pa.array(START + rng.integers(0, 10**9, count), pa.int64(), mask=mask).cast(trait.type)
    return pa.array(rng.integers(0, 100, count), mask=mask).cast(trait.type)


def _correction(schema: lw.Schema, rng: np.random.Generator, now: int) -> Iterator[pa.Table]:
    """Of the first user one event is corrected, of the second one deleted."""
    corrected = _events(rng, schema, 1, 4, now).slice(0, 1).drop_columns(["event_id"])
    yield corrected.append_column("supersedes", pa.array(["1.2"]))
    yield pa.table({"user_id": [2], "supersedes": ["2.0"]})


def _capture(store: lw.Store, clock: ManualClock, users: int) -> pa.Table:
    now = clock.advance(MINUTE)
    asked = list(range(1, users + 2))  # one of them unknown
    return store.capture(pa.table({"user_id": asked, "request_ts": [now] * len(asked), "label": asked})).columns


# ---- reading one file of it


def probe_of(store: lw.Store, file: Path) -> Callable[[], object]:
    """Reads one file of a store as the store does, and no other; `store` is open, and knew the file when it was sound."""
    generation, first, folder = store.refresh().generation, store.catalog.load(0), file.parent.name
    if file.suffix == ".stripes":
        return lambda: list(GenerationReader(store.storage, generation).scan(list(store.schema)))
    if file.suffix == ".arrow":
        number = int(folder)
        return lambda: Vocabulary(store.storage, store.schema, read_only=True, epoch=store.epoch).values(number)
    return {
        "manifests": lambda: Catalog(store.storage, store.epoch).load(int(file.stem)),
        "changes": lambda: Changes(store.storage, store.epoch).latest(first),
        "scrubs": lambda: Scrubs(store.storage, store.epoch).refresh(),
        "blanked": lambda: Blanked(store.storage, store.epoch).refresh(),
        "pins": lambda: Pins(store.storage, store.epoch).all(),
    }.get(folder, lambda: lw.Store.open(file.parent, read_only=True))


# ---- reading all of it


def files(place: Path) -> list[Path]:
    """Every file of a store but those of the mutable tier, or of a log."""
    found = (path for path in sorted(place.rglob("*")) if path.is_file())
    return [path for path in found if path.relative_to(place).parts[0] != "mutable"]


def read_store(place: Path, examples: pa.Table) -> str:
    """A hash of everything that a store says, what finds most damage first."""
    digest = xxhash.xxh3_64()
    with lw.Store.open(place, read_only=True, clock=ManualClock(START)) as store:
        digest.update(_documents(store))
        for trait in store.schema:
            if trait.coded:
                digest.update(repr(store.vocabulary.values(trait.id).to_pylist()).encode())
        for events in store.refresh().scan(list(store.schema)):
            digest.update(_every_bit(events))
        store.scrubs.refresh()
        digest.update(batch_bytes(lw.Materializer(store, EVERYTHING, on_missing="mask")(examples)))
        digest.update(_table_bytes(store.at("run").history(1)))
    return digest.hexdigest()


def _documents(store: lw.Store) -> bytes:
    """Every generation there was, the scrubs, the change that is to come, what a pin holds."""
    generations = [store.catalog.load(number) for number in range(store.refresh().generation.id + 1)]
    scrubs = store.scrubs.refresh(), [(scrub.scrub_ts, scrub.users.tolist()) for scrub in store.scrubs]
    changes = store.changes.latest(generations[0]), store.alter(preview=True).after
    documents = [generation.to_json() for generation in generations], scrubs, changes, store.catalog.pins.all()
    return repr(documents).encode()


def _every_bit(events: Events) -> bytes:
    """Of a run of events all columns, nulls as what they are stored as."""
    superseded = b"" if events.superseded_at is None else events.superseded_at.tobytes()
    columns = [(_bits(c), b"" if c.mask is None else c.mask.tobytes()) for c in events.traits.values()]
    times = events.event_ts.tobytes() + events.ingest_ts.tobytes() + events.ordinal.tobytes() + superseded
    return repr(events.user_ids.to_pylist()).encode() + times + b"".join(part for column in columns for part in column)


def _bits(column: TraitColumn) -> bytes:
    if isinstance(column, Lists):
        return column.lengths.tobytes() + column.compact().items.tobytes()
    return column.values.tobytes()


def batch_bytes(batch: lw.Batch) -> bytes:
    """Every bit of a batch, and the words that its codes stand for."""
    parts = [batch.offsets.tobytes(), batch.weights.tobytes(), repr(batch.features.to_pydict()).encode()]
    parts += [f"{name}".encode() + values.tobytes() for name, values in batch.values.items()]
    parts += [f"{name}".encode() + mask.tobytes() for name, mask in batch.masks.items()]
    parts += [f"{name}".encode() + ends.tobytes() for name, ends in batch.lists.items()]
    return b"".join(parts) + _table_bytes(batch.to_arrow().select(["history"]))


def _table_bytes(table: pa.Table) -> bytes:
    """As Arrow writes it, which works for times out of the range of Python's, too."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()


def read_examples(log: Path) -> pa.Table:
    """All examples of a log, past the loader."""
    return pa.concat_tables([pq.read_table(file, partitioning=None) for file in files(log)])


def read_log(store: lw.Store, log: Path) -> str:
    """A hash of all examples of a log, as a training run reads them."""
    loader = lw.Loader(store, str(log), EVERYTHING, batch_size=4, order="user", on_missing="mask")
    return xxhash.xxh3_64_hexdigest(b"".join(batch_bytes(batch) for batch in loader))
