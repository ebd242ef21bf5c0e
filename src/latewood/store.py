"""Store: the facade that wires the parts below, and the object that everything else is called with.

A store is a place (a local path or a URI) that holds the vocabulary and the generations, and a mutable tier beside it for
what is recent. Trainers open it `read_only`, which needs no mutable tier and writes nothing.
"""

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import xxhash

from latewood.capture import Capture, capture, read_examples
from latewood.clock import LATEST_TS, Clock, as_clock, to_us
from latewood.columns import Column, column_from_arrow
from latewood.compaction import compact
from latewood.errors import ConflictError, CorruptionError, SchemaError, StoreNotFoundError
from latewood.immutable import Catalog, Generation, GenerationReader
from latewood.intake import read_events
from latewood.materialize import Materializer
from latewood.mutable import AppendReceipt, LmdbTier, MutableTier
from latewood.projection import Projection
from latewood.schema import Schema, Trait
from latewood.storage import Storage, keys, open_storage, probe
from latewood.vocabulary import Vocabulary

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """What `store.json` says: written once, at creation; what changes later stands in the manifests."""

    epoch: bytes  # 128 random bits that name the store, so that a pointer from elsewhere is recognised
    schema: Schema
    shards: int
    created_ts: int

    def to_bytes(self) -> bytes:
        body = {
            "format": FORMAT_VERSION,
            "epoch": self.epoch.hex(),
            "schema": self.schema.to_json(),
            "shards": self.shards,
            "created_ts": self.created_ts,
        }
        return json.dumps(body | {"xxh3": _digest(body)}, indent=2).encode()

    @classmethod
    def from_bytes(cls, data: bytes, place: str) -> "StoreDescription":
        """Raises: CorruptionError: damaged; SchemaError: a format version from the future."""
        try:
            body = json.loads(data)
            digest = body.pop("xxh3")
            version = body["format"]
            if version == FORMAT_VERSION and digest == _digest(body):
                return cls(
                    bytes.fromhex(body["epoch"]), Schema.from_json(body["schema"]), body["shards"], body["created_ts"]
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(f"{place}: not a store description: {error!r}") from error
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise SchemaError(f"{place}: format version {version}; this latewood reads up to {FORMAT_VERSION}")
        raise CorruptionError(f"{place}: the checksum differs from what was written")


def _digest(body: dict[str, Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(body, sort_keys=True).encode())


class Store:
    """Histories, stored once. Made by `Store.create`, `Store.open` or `lw.ingest`; a context manager."""

    def __init__(
        self, path: str, storage: Storage, description: StoreDescription, tier: MutableTier | None, clock: Clock
    ) -> None:
        self.path, self.storage, self.clock, self.tier = path, storage, clock, tier
        self.schema, self.epoch, self.shards = description.schema, description.epoch, description.shards
        self.read_only = tier is None
        self.vocabulary = Vocabulary(storage, self.schema, read_only=self.read_only)
        self.catalog = Catalog(storage, self.epoch)
        self._reader: GenerationReader | None = None
        self._lock = threading.Lock()

    # ---- opening and closing

    @classmethod
    def create(
        cls,
        path: str | Path,
        schema: Schema,
        shards: int = 16,
        clock: Clock | Callable[[], int | datetime] | None = None,
        mutable: str | Path | None = None,
    ) -> "Store":
        """Create an empty store.

        Args:
            path: a local folder, or a URI such as s3://bucket/prefix.
            shards: files per generation; a shard of one to a few GiB is good.
            clock: what tells the time in µs; None is the wall clock.
            mutable: the local folder of the mutable tier; for a local store, `<path>/mutable` unless given.
        Raises: ConflictError: there is a store already. SchemaError: not a number of shards.
        """
        if not 1 <= shards <= 65_536:
            raise SchemaError(f"shards is {shards}; a store has 1 to 65,536")
        place, clock = str(path), as_clock(clock)
        storage = open_storage(place)
        probe(storage)
        description = StoreDescription(secrets.token_bytes(16), schema, shards, clock.now())
        if not storage.create(keys.STORE, description.to_bytes()):
            raise ConflictError(f"{place}: there is a store already; open it with Store.open")
        return cls.open(path, clock=clock, mutable=mutable)

    @classmethod
    def open(
        cls,
        path: str | Path,
        read_only: bool = False,
        clock: Clock | Callable[[], int | datetime] | None = None,
        mutable: str | Path | None = None,
    ) -> "Store":
        """Open a store; `read_only` (for trainers) needs no mutable tier.

        Raises: StoreNotFoundError: no store there. CorruptionError, SchemaError: one that cannot be read.
        """
        place, clock = str(path), as_clock(clock)
        storage = open_storage(place)
        try:
            data = storage.read(keys.STORE)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreNotFoundError(f"{place} is not a store: it has no {keys.STORE}") from None
        description = StoreDescription.from_bytes(data, f"{place}/{keys.STORE}")
        tier = None if read_only else _open_tier(storage, place, mutable, description)
        store = cls(place, storage, description, tier, clock)
        store.catalog.ensure_first(description.schema, description.shards)
        return store

    def close(self) -> None:
        """Let go of files and memory; idempotent."""
        if self.tier is not None:
            self.tier.close()
        self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.path}{' (read only)' if self.read_only else ''}, epoch {self.epoch.hex()[:8]}>"

    # ---- writing

    def append(self, data: Any, *, late: Literal["raise", "stamp"] = "raise") -> AppendReceipt:
        """Append events; durable when it returns, in any order of time.

        Args:
            data: a table with user_id, event_ts and every trait. Optional columns: ingest_ts, for a replay that brings its
                own (else the store stamps); event_id, by which a repetition is recognised.
            late: what to do with a given ingest_ts that the store has already passed: "raise", or "stamp" it as of now.
        Returns: how many were new, how many were duplicates, and per row its ingest_ts and ordinal.
        Raises: SchemaError: the table does not fit. ConflictError: an ingest_ts below what has been seen (R7), or an
            event_id with other content.
        """
        tier = self._writable()
        intake = read_events(data, self.schema, self.encode)
        return tier.append(
            intake.events,
            ids=intake.ids,
            content=intake.content,
            explicit=intake.explicit,
            late=late,
            now=self.clock.now(),
        )

    def compact(
        self,
        watermark: int | datetime | None = None,
        *,
        keep: int = 2,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Build a new generation from the newest one and the mutable tier, and publish it.

        Args:
            watermark: the cut; None takes all that is known. A replay with a coarse clock holds back its open tick.
            keep: how many generations keep their data files.
            workers: threads that build shards.
            progress: called with (shards done, shards in all).
        Returns: the new generation, or the current one if there was nothing new.
        Raises: ConflictError: another compaction published first; nothing is lost.
        """
        self._writable()
        cut = None if watermark is None else to_us(watermark)
        generation = compact(self, watermark=cut, keep=keep, workers=workers, progress=progress)
        self.refresh()
        return generation

    # ---- reading

    def capture(self, requests: Any) -> Capture:
        """Read what the store knows now about each request's user: what the model is fed, and what to log.

        Args: requests: user_id, request_ts and any columns of your own (features, labels).
        Raises: SchemaError: a column that is missing, reserved or of the wrong type.
        """
        self._writable()
        return capture(self, requests, self._materialize)

    def history(self, user_id: int | str, as_of: int | datetime | None = None) -> pa.Table:
        """A user's events, oldest first: all that is known, or as of one moment for both clocks.

        Returns: event_ts and every trait; empty for a user without events.
        """
        user = pa.table({"user_id": pa.array([user_id], self.schema.user_id)})
        moment = LATEST_TS if as_of is None else to_us(as_of)
        examples = read_examples(self, user, end_ts=moment, cutoff=None if as_of is None else moment)
        history = self._materialize(examples, Projection()).to_arrow()["history"].combine_chunks()
        lists = history.chunk(0) if isinstance(history, pa.ChunkedArray) else history
        names = [field.name for field in lists.type]
        return pa.table({name: column.flatten() for name, column in zip(names, lists.flatten(), strict=True)})

    def reader(self) -> GenerationReader:
        """The newest generation that this store has seen, opened for reading."""
        with self._lock:
            if self._reader is None:
                self._reader = GenerationReader(self.storage, self.catalog.latest())
            return self._reader

    def refresh(self) -> GenerationReader:
        """Look for a newer generation; the one to read from now on."""
        current, newest = self.reader(), self.catalog.latest()
        if newest.id == current.generation.id:
            return current
        with self._lock:
            self._reader = GenerationReader(self.storage, newest)
            return self._reader

    @property
    def generation(self) -> Generation:
        """The generation that reads are answered from."""
        return self.reader().generation

    # ---- inside

    def _writable(self) -> MutableTier:
        if self.tier is None:
            raise ConflictError(f"{self.path} was opened read_only, which has no mutable tier")
        return self.tier

    def encode(self, trait: Trait, values: pa.Array) -> Column:
        return self.vocabulary.encode(trait, values) if trait.coded else column_from_arrow(values)

    def _materialize(self, examples: pa.Table, projection: Projection) -> Any:
        return Materializer(self, projection)(examples)


def _open_tier(
    storage: Storage, place: str, mutable: str | Path | None, description: StoreDescription
) -> MutableTier:
    local = getattr(storage, "root", None)
    if mutable is None and local is None:
        raise SchemaError(f"{place}: a store that is not a local folder needs mutable=<folder> for its recent events")
    folder = Path(mutable) if mutable is not None else Path(local) / "mutable"
    return LmdbTier(folder, description.schema, clock=None)  # adapted to the tier's signature


