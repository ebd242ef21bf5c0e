"""A store's parts in memory, storage that fails on demand, and a full decode of a generation."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.columns import Column
from latewood.events import Events
from latewood.immutable import Catalog, Changes, Generation, Scrubs
from latewood.mutable import InMemoryTier, MutableTier
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import Storage, keys, open_storage
from latewood.stripes import Ranges, Shard, Tables, decode_column, superseded_index
from latewood.testing import ManualClock
from latewood.users import user_keys
from latewood.vocabulary import Vocabulary

EPOCH = bytes(range(16))
START = 1_700_000_000_000_000
SCHEMA = Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
names = itertools.count()


class FaultyStorage:
    """A storage that calls `before(verb)` before, and `after(verb)` after, everything that changes it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def _around(self, verb: str, *arguments: Any) -> Any:
        self.before(verb)
        answer = getattr(self._storage, verb)(*arguments)
        self.after(verb)
        return answer

    def create(self, key: str, data: Any) -> bool:
        return self._around("create", key, data)

    def write(self, key: str, data: Any) -> None:
        self._around("write", key, data)

    def delete(self, keys: Any) -> None:
        self._around("delete", list(keys))

    @contextmanager
    def writer(self, key: str) -> Iterator["FaultyWriter"]:
        self.before("open")
        with self._storage.writer(key) as writer:
            yield FaultyWriter(self, writer)
            self.before("close")
        self.after("close")


class FaultyWriter:
    def __init__(self, storage: FaultyStorage, writer: Any) -> None:
        self._storage, self._writer = storage, writer

    def write(self, data: Any) -> None:
        self._storage.before("write")
        self._writer.write(data)


@dataclass
class Parts:
    """What `compact` and `bulk_load` work on."""

    storage: FaultyStorage
    catalog: Catalog
    tier: MutableTier
    clock: ManualClock = field(default_factory=lambda: ManualClock(START))

    def __post_init__(self) -> None:
        self.changes, self.scrubs = Changes(self.storage, EPOCH), Scrubs(self.storage, EPOCH)
        self.vocabulary = Vocabulary(self.storage, self.catalog.latest().schema, epoch=EPOCH)

    def append(self, users: list[int], event_ts: list[int], **options: Any) -> None:
        self.tier.append(self.events(users, event_ts), now=self.clock.advance(1_000_000), **options)

    def beside(self) -> "Parts":
        """The same store, seen by another process: another catalog."""
        storage = FaultyStorage(self.storage._storage)
        return Parts(storage, Catalog(storage, EPOCH), self.tier, self.clock)

    def listed(self) -> list[str]:
        return [stored.key for stored in self.storage.list("")]

    def shard_files(self) -> set[str]:
        """The keys of all shard files that are there, whatever names them."""
        return {key for key in self.listed() if key.startswith(keys.GENERATIONS)}

    @staticmethod
    def files_of(*generations: Generation) -> set[str]:
        """The keys of the shard files that generations name."""
        return {file.key for generation in generations for file in generation.shards if file.exists}

    def open(self, generation: Generation) -> list[Shard]:
        return [Shard.open(self.storage, file.key) for file in generation.shards if file.exists]

    def stored(self, generation: Generation | None = None) -> list[tuple[int, ...]]:
        """(user, event_ts, ingest_ts, ordinal, item) of all events of a generation, as they lie in its files."""
        rows: list[tuple[int, ...]] = []
        for shard in self.open(generation or Catalog(self.storage, EPOCH).latest()):
            shard.verify()
            tables, ends = Tables(1), shard.first_event
            tables.put(0, shard)
            users = np.arange(shard.user_count)
            ranges = Ranges(0 * users, users, 0 * users, np.diff(ends), ends[:-1])
            columns = [
                np.empty(shard.event_count, column.dtype) for column in shard.columns[: superseded_index(shard.columns)]
            ]
            for index, column in enumerate(columns):
                decode_column(tables, ranges, index, column)
            columns[1] = columns[0] + columns[1]
            owners = np.repeat(shard.user_ids.to_numpy(), np.diff(ends))
            rows += zip(*(column.tolist() for column in (owners, *columns)), strict=True)
        return rows

    @staticmethod
    def events(users: list[int], event_ts: list[int], ingest_ts: list[int] | None = None) -> Events:
        """Events whose item is their number."""
        ids, n = pa.array(users, pa.int64()), len(users)
        ingest = np.array(ingest_ts if ingest_ts is not None else [0] * n, np.int64)
        items = {0: Column(np.arange(n, dtype=np.int64))}
        return Events(ids, user_keys(ids), np.array(event_ts, np.int64), ingest, np.zeros(n, np.int32), items)


def parts_of(schema: Schema, shards: int = 3, retention: Retention | None = None) -> Parts:
    storage = FaultyStorage(open_storage(f"memory://compaction-{next(names)}"))
    catalog = Catalog(storage, EPOCH)
    catalog.ensure_first(schema, shards, retention)
    return Parts(storage, catalog, InMemoryTier(schema.user_id, scrubs=Scrubs(storage, EPOCH)))


@pytest.fixture
def parts() -> Parts:
    return parts_of(SCHEMA)


@pytest.fixture
def make_parts() -> Callable[..., Parts]:
    """For stores of another schema, another number of shards, or with a retention."""
    return parts_of
