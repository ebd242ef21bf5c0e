"""Store: the facade that wires the parts below, and the object that everything else is called with.

A store is a place (a local path or a URI) that holds the vocabulary and the generations, and a mutable tier beside it for
what is recent. Trainers open it `read_only`, which needs no mutable tier and writes nothing.
"""

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa

from latewood.appending import append
from latewood.batch import Batch
from latewood.capture import Capture, capture, read_examples
from latewood.clock import EARLIEST_TS, LATEST_TS, Clock, as_clock, show_ts, to_us
from latewood.columns import TraitColumn, one_array, read_table
from latewood.compaction import compact, rollback, settle_load
from latewood.conditions import Condition
from latewood.errors import (
    ConflictError,
    CorruptionError,
    ExpiredError,
    PointerError,
    SchemaError,
    ScrubbedError,
    StoreNotFoundError,
)
from latewood.forgetting import ScrubReceipt, scrub
from latewood.immutable import (
    Alteration,
    Catalog,
    Change,
    Changes,
    Generation,
    GenerationReader,
    Pin,
    Scrubs,
    StoreDescription,
)
from latewood.materialize import Materializer
from latewood.mutable import AppendReceipt, MutableTier
from latewood.projection import Projection
from latewood.retention import Retention
from latewood.schema import Schema, Trait
from latewood.storage import Storage, keys, open_storage, probe
from latewood.tiers import align_tier, close_tier, open_tier, refuse_used, tier_folder
from latewood.vocab import Vocab, count_values
from latewood.vocabulary import Vocabulary, check_extent


class Store:
    """Histories, stored once. Made by `Store.create`, `Store.open` or `lw.ingest`; a context manager."""

    def __init__(self, path: str, storage: Storage, description: StoreDescription, clock: Clock) -> None:
        self.path, self.storage, self.clock = path, storage, clock
        self.epoch, self._description = description.epoch, description
        self.catalog = Catalog(storage, self.epoch)
        self.changes, self.scrubs = Changes(storage, self.epoch), Scrubs(storage, self.epoch)
        self._tier: MutableTier | None = None
        self._closed = False
        self.vocabulary = self._new_vocabulary(description.schema, read_only=True)
        self._reader: GenerationReader | None = None
        self._pin: str | None = None  # the name of the pin whose generation is read instead of the newest
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
        retention: Retention | None = None,
    ) -> "Store":
        """Create an empty store.

        Args:
            path: a local folder, or a URI such as s3://bucket/prefix.
            shards: files per generation; a shard of one to a few GiB is good.
            clock: what tells the time in µs; None is the wall clock.
            mutable: the local folder of the mutable tier; for a local store, `<path>/mutable` unless given.
            retention: how much of every history to keep; None keeps all.
        Raises: ConflictError: there is a store already. SchemaError: not a number of shards.
        """
        shards = check_shards(shards)
        check_retention(retention)
        if not isinstance(schema, Schema):
            raise SchemaError(f"a store is created of a lw.Schema, not of {schema!r}")
        place, clock = str(path), as_clock(clock)
        storage = open_storage(place)
        folder = tier_folder(place, storage, mutable)  # what is wrong shows now, and not when there is half a store
        # asked before the probe too, which another's collection may delete once there is a store
        if _description(storage) is not None:
            raise ConflictError(_taken(place))
        refuse_used(folder)
        probe(storage)
        ours = StoreDescription(secrets.token_bytes(16), schema, shards, clock.now(), retention).to_bytes()
        if not storage.create(keys.STORE, ours) and _description(storage) != ours:
            raise ConflictError(_taken(place))
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
        store = cls(place, storage, description, clock)
        if not read_only:
            store._open_for_writing(mutable)
        elif not store.catalog.has_begun():
            raise StoreNotFoundError(f"{place} is not a store yet: it is being created, and has no generation")
        return store

    def _open_for_writing(self, mutable: str | Path | None) -> None:
        first = self._description
        self.catalog.ensure_first(first.schema, first.shards, first.retention)
        self.vocabulary = self._new_vocabulary(first.schema, read_only=False)
        self.vocabulary.refresh_blanked()
        self._tier = self._open_tier(mutable)
        try:
            self.scrubs.refresh()
            align_tier(self._tier, self.generation, self.scrubs, self.vocabulary.blanked)
        except BaseException:
            close_tier(self._tier)
            raise

    def close(self) -> None:
        """Let go of files and memory; idempotent. What uses the store from then on gets a ConflictError."""
        if self._tier is not None:
            close_tier(self._tier)
        with self._lock:
            self._closed, self._reader = True, None

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the store anew. Raises: ConflictError: it is open for writing, or was closed."""
        self._check_open()
        if self._tier is not None:
            raise ConflictError(f"{self.path} is open for writing: for another process, open it with read_only=True")
        return _reopen, (self.path, self._pin, self.clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def tier(self) -> MutableTier | None:
        """The mutable tier; None in a store opened read-only. Raises: ConflictError: the store is closed."""
        self._check_open()
        return self._tier

    @tier.setter
    def tier(self, tier: MutableTier | None) -> None:
        self._tier = tier

    @property
    def read_only(self) -> bool:
        return self._tier is None

    @property
    def schema(self) -> Schema:
        """Of the generation that reads are answered from: a change counts once it was applied."""
        return self.generation.schema

    @property
    def shards(self) -> int:
        """Files per generation."""
        return len(self.generation.shards)

    def __repr__(self) -> str:
        state = " (closed)" if self._closed else " (read only)" if self.read_only else ""
        return f"<Store {self.path}{state}, epoch {self.epoch.hex()[:8]}>"

    # ---- writing

    def append(self, data: Any, *, late: Literal["raise", "stamp"] = "raise") -> AppendReceipt:
        """Append events, corrections and deletions; durable when it returns, in any order of time.

        Args:
            data: a table with user_id, event_ts and every trait. Optional columns: ingest_ts, for a replay that brings its
                own (else the store stamps); event_id, by which a repetition is recognised; supersedes, the event_id of
                what a row corrects, or its place, struct(event_ts, ingest_ts, ordinal), as its append's receipt told
                them. A row that supersedes something and has no event_ts deletes it; a table of only user_id and
                supersedes is all deletions. Corrections hold from their ingest time on: what was logged before stays.
            late: what to do with a given ingest_ts that the store has already passed: "raise", or "stamp" it as of now.
        Returns: how many were new, how many were duplicates, and per row its ingest_ts and ordinal.
        Warns: UserWarning: all times lie in early 1970, as they do in a wrong unit.
        Raises: SchemaError: the table does not fit. ConflictError: an ingest_ts below what has been seen (R7), an
            event_id with other content, or a row that supersedes what the store does not have, or what was superseded
            before: name the newest version.
        """
        return append(self, self._writable(), read_table(data), late)

    def compact(
        self,
        watermark: int | datetime | None = None,
        *,
        keep: int = 2,
        workers: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> Generation:
        """Build a new generation from the newest one and the mutable tier, and publish it.

        Args:
            watermark: the cut; None takes all that is known. A replay with a coarse clock holds back its open tick.
            keep: how many generations keep their data files.
            workers: threads that build shards; 0: one per processor.
            progress: called with (events written, events in all), from any thread.
        Returns: the new generation, or the current one if there was nothing new.
        Raises: ConflictError: another compaction published first; nothing is lost.
        """
        self._writable()
        cut = None if watermark is None else to_us(watermark)
        generation = compact(self, watermark=cut, keep=keep, workers=workers, progress=progress)
        self.refresh()
        return generation

    def rollback(self, generation_id: int, *, keep: int = 2, workers: int = 0) -> Generation:
        """Build the next generation anew from an older one and the mutable tier, as if those between had not been.

        For a generation that turned out bad. Pointers made since stay valid: what they mean is built again. Changes of the
        schema are not undone, and those that wait are applied: a dropped trait's values do not come back.

        Args: generation_id: one whose files are still kept, and that the mutable tier reaches back to.
        Raises: ConflictError: events between it and now are in the mutable tier no more, or never were.
        """
        self._writable()
        generation = rollback(self, generation_id, keep=keep, workers=workers)
        self.refresh()
        return generation

    # ---- changing

    def alter(
        self,
        *,
        add: Mapping[str, pa.Schema] | pa.Schema | Iterable[pa.Field] = (),
        drop: Iterable[str] = (),
        rename: Mapping[str, str] | None = None,
        retention: Retention | Literal["unchanged"] | None = "unchanged",
        shards: int | None = None,
        preview: bool = False,
    ) -> Alteration:
        """Change what the store is like, from the next compaction on.

        Args:
            add: nullable traits, by group or of the first group; null in all events that are there.
            drop, rename: traits by name. Stored projections go on finding a renamed one by its old name; a name that is
                dropped and added again is a new trait.
            retention: what to keep of every history; None keeps all.
            shards: files per generation.
            preview: only say what would change.
        Returns: what changes; print it.
        Raises: SchemaError: an unknown, repeated or reserved name, a trait that is added and not nullable.
            ConflictError: someone else made a change meanwhile.
        """
        before = self.changes.latest(self.refresh().generation)
        schema = before.schema.altered(add=add, drop=drop, rename=rename)
        kept = before.retention if retention == "unchanged" else retention
        check_retention(kept)
        after = Change(before.number + 1, schema, check_shards(before.shards if shards is None else shards), kept)
        if not preview and replace(after, number=before.number) != before:
            self._writable()
            self.changes.add(after)
        return Alteration(before, after)

    def scrub(
        self, user_ids: Iterable[int | str] | None = None, where: Condition | None = None, *, compact: bool = True
    ) -> ScrubReceipt:
        """Forget users, or the events that meet a condition; `compact` removes them at once.

        See `latewood.forgetting.scrub`, which says what happens when, and what it raises.
        """
        self._writable()
        receipt = scrub(self, user_ids, where, compact_now=compact)
        self.refresh()
        return receipt

    def pin(self, name: str, ttl: timedelta) -> Pin:
        """Keep the data of the current generation for a while, for a run that reads it with `at(name)`.

        Args: ttl: how long; pinning again extends it, on the generation that is current then. timedelta.max is for ever.
        Raises: SchemaError: a name that cannot be a file's, or no timedelta. CorruptionError: files of the generation are
            lost.
        """
        if not isinstance(ttl, timedelta):
            raise SchemaError(f"ttl is a timedelta, how long to keep the data, not {ttl!r}")
        while True:
            generation = self.refresh().generation
            until = self.clock.now() + ttl // timedelta(microseconds=1)
            pin = Pin(name, generation.id, min(max(until, EARLIEST_TS), LATEST_TS))
            self.catalog.pins.write(pin)
            # Else it was collected before the pin was there; or is about to be, by who looked for pins before. Who saw an
            # older pin of that name, expired long ago, may have deleted this one in its place.
            if self._newest().id != generation.id:
                continue
            if not self.catalog.is_stored(generation):
                if self._newest().id == generation.id:  # the newest is never collected
                    raise CorruptionError(f"{self.path}: files of generation {generation.id} are missing")
                continue
            if self.catalog.pins.read(name) is not None:
                return pin

    def unpin(self, name: str) -> None:
        """Let go of a pin; one that is gone already is fine."""
        self.catalog.pins.delete(name)

    def at(self, name: str) -> "Store":
        """The store as of a pin, read-only: its generation, whatever is published meanwhile.

        Should the generation be scrubbed, the one that forgot is read from then on (a scrub goes before pins).
        Raises: PointerError: no pin of that name. ExpiredError: its time is over.
        """
        view = Store(self.path, self.storage, self._description, self.clock)
        view._pin, view.scrubs = name, self.scrubs
        view.reader()
        return view

    # ---- reading

    def capture(self, requests: Any) -> Capture:
        """Read what the store knows now about each request's user: what the model is fed, and what to log.

        Args: requests: user_id, request_ts and any columns of your own (features, labels).
        Warns: UserWarning: all times lie in early 1970, as they do in a wrong unit.
        Raises: SchemaError: a column that is missing, reserved or of the wrong type.
        """
        self._writable()
        return capture(self, requests, self._materialize)

    def history(self, user_id: int | str, as_of: int | datetime | None = None) -> pa.Table:
        """A user's events, oldest first: all that is known, or as of one moment for both clocks.

        Returns: event_ts and every trait; empty for a user without events.
        Raises: SchemaError: a user id of another type than the store's.
        """
        moment, user = None if as_of is None else to_us(as_of), self._one_user(user_id)
        while True:
            before = self.generation.id, len(self.scrubs)
            examples = read_examples(self, user, end_ts=moment, cutoff=moment)
            try:
                history = one_array(self._materialize(examples, Projection()).to_arrow()["history"])
                break
            except (ExpiredError, ScrubbedError):  # a newer generation, or a scrub, came between the two: there is less
                if before == (self.generation.id, len(self.scrubs)):
                    raise
        names = [field.name for field in history.type]
        return pa.table({name: column.flatten() for name, column in zip(names, history.flatten(), strict=True)})

    def vocab(self, trait: str, until: int | datetime | None = None, min_count: int = 1) -> Vocab:
        """The values of a trait as dense ids, for an embedding table: 0 padding, 1 unknown, then by falling count.

        Args:
            until: count what had happened, was known and was not superseded before this; None: all there is. With the
                start of the test period, nothing of it leaks into what is trained.
            min_count: values in fewer events than this are unknown. Of a list trait, items are counted.
        Warns: UserWarning: no value is left, before `until`.
        Raises: SchemaError: the store has no such trait, or min_count below 1.
        """
        return count_values(self, trait, until, min_count)

    def reader(self) -> GenerationReader:
        """The newest generation that this store has seen, opened for reading."""
        with self._lock:
            self._check_open()
            if self._reader is None:
                self._reader = self._open_generation(self._newest())
            return self._reader

    def refresh(self) -> GenerationReader:
        """Look for a newer generation; the one to read from now on."""
        current, newest = self.reader(), self._newest()
        if newest.id == current.generation.id:
            return current
        with self._lock:
            if self._reader is None or self._reader.generation.id < newest.id:  # else another thread saw more
                self._reader = self._open_generation(newest)
            return self._reader

    @property
    def generation(self) -> Generation:
        """The generation that reads are answered from."""
        return self.reader().generation

    # ---- inside

    def _newest(self) -> Generation:
        if self._pin is None:
            return self.catalog.latest()
        pin = self.catalog.pins.read(self._pin)
        if pin is None:
            raise PointerError(f"{self.path} has no pin {self._pin!r}: it expired, or was never set")
        if pin.expires_ts <= self.clock.now():
            raise ExpiredError(f"pin {pin.name!r} expired at {show_ts(pin.expires_ts)}")
        return self.catalog.pinned(pin)

    def _open_generation(self, generation: Generation) -> GenerationReader:
        """Open the newest generation, or one that came meanwhile, where the values of a trait it dropped are collected."""
        while True:
            try:
                check_extent(self.storage, generation.vocabulary)
                break
            except CorruptionError:
                newest = self._newest()
                if newest.id == generation.id:
                    raise
                generation = newest
        self.vocabulary.follow(generation.schema)
        return GenerationReader(self.storage, generation)

    def _new_vocabulary(self, schema: Schema, *, read_only: bool) -> Vocabulary:
        def is_live(trait_id: int) -> bool:
            return any(trait.id == trait_id for trait in self.catalog.latest().schema)

        return Vocabulary(self.storage, schema, read_only, epoch=self.epoch, is_live=is_live)

    def _open_tier(self, mutable: str | Path | None) -> MutableTier:
        folder, published = tier_folder(self.path, self.storage, mutable), partial(settle_load, self.catalog)
        return open_tier(folder, self.epoch, self.schema.user_id, published, self.scrubs)

    def _check_open(self) -> None:
        if self._closed:
            raise ConflictError(f"{self.path} is closed; open it again with lw.Store.open")

    def _writable(self) -> MutableTier:
        tier = self.tier
        if tier is None:
            raise ConflictError(f"{self.path} was opened read_only, which has no mutable tier")
        return tier

    def encode(self, trait: Trait, values: pa.Array) -> TraitColumn:
        return self.vocabulary.encode(trait, values)

    def _one_user(self, user_id: int | str) -> pa.Table:
        try:
            # of its own type: asked for the store's, Arrow would make 1 of 1.5
            return pa.table({"user_id": pa.array([user_id])})
        except (pa.ArrowException, ValueError, OverflowError):
            raise SchemaError(f"user id {user_id!r}: the store's are {self.schema.user_id}") from None

    def _materialize(self, examples: pa.Table, projection: Projection) -> Batch:
        return Materializer(self, projection)(examples)


def _reopen(path: str, pin: str | None, clock: Clock) -> Store:
    store = Store.open(path, read_only=True, clock=clock)
    return store if pin is None else store.at(pin)


def check_shards(shards: int) -> int:
    """As it can be written down. Raises: SchemaError: not a number of shards."""
    if not isinstance(shards, Integral) or not 1 <= shards <= 65_536:
        raise SchemaError(f"shards is {shards!r}; a store has 1 to 65,536")
    return int(shards)


def check_retention(retention: Retention | None) -> None:
    """Raises: SchemaError: no retention."""
    if retention is not None and not isinstance(retention, Retention):
        raise SchemaError(f"retention is a lw.Retention, or None to keep everything, not {retention!r}")


def _description(storage: Storage) -> bytes | None:
    """What is written of the store; None if there is none."""
    try:
        return storage.read(keys.STORE)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _taken(place: str) -> str:
    return f"{place}: there is a store already; open it, or choose another place"
