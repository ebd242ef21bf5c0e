"""Whole histories, raw: every version of every event in both tiers, as tools look at them and no model ever does.

Nothing here knows of pointers, cutoffs or projections: what is decided from these rows is decided by the tool, so that it
can judge the code that trains models. Both tiers are read so that they fit together: if a generation was published while
they were read, they are read again.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from latewood.errors import ConflictError, ScrubbedError
from latewood.events import NEVER, Events, Suppressions, concat_events, no_events, no_suppressions
from latewood.immutable import Generation, GenerationReader, Scrubs
from latewood.immutable.resolve import Located, Rows
from latewood.lists import positions
from latewood.mutable import MutableTier
from latewood.schema import Schema, Trait
from latewood.users import UserKeys
from latewood.vocabulary import Vocabulary

Place = tuple[int, int, int]  # event_ts, ingest_ts, ordinal
RECENT = -1  # as the row of an event that no generation has yet
_TRIES = 20
T = TypeVar("T")


class HistoryStore(Protocol):
    """What reading raw histories needs of a store. Its schema is not among that: a generation has its own."""

    vocabulary: Vocabulary

    @property
    def scrubs(self) -> Scrubs:
        """Who was to be forgotten."""

    @property
    def tier(self) -> MutableTier | None:
        """None in a store opened read-only: only what generations hold is seen then."""

    def refresh(self) -> GenerationReader:
        """Look for a newer generation; the newest."""


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """The events of some users, each user's in the total order.

    Shapes: located (u,); bounds (u + 1,): user i owns the events bounds[i] to bounds[i + 1]; row (n,): an event's place
    among its user's stored ones, RECENT where it is in the mutable tier.
    """

    reader: GenerationReader
    located: Located
    bounds: NDArray[np.int64]
    events: Events
    row: NDArray[np.int64]

    def of(self, user: int) -> tuple[Events, NDArray[np.int64]]:
        """One user's events and rows, as views."""
        start, stop = int(self.bounds[user]), int(self.bounds[user + 1])
        return self.events.slice(start, stop), self.row[start:stop]


def read_histories(store: HistoryStore, users: UserKeys, traits: Sequence[Trait] = ()) -> Histories:
    """Everything that both tiers hold of some users. Args: users: distinct. Raises: CorruptionError: damaged bytes."""

    def stored(reader: GenerationReader) -> tuple[Located, Events, NDArray[np.int64]]:
        located = reader.locate(users)
        counts = reader.event_counts(located)
        runs = Rows(*(column[counts > 0] for column in (*located, np.zeros_like(counts), counts)))
        return located, reader.read(runs, traits), positions(np.zeros_like(counts), counts)

    reader, (located, events, row), recent = read_both(store, stored, lambda events: _of_users(events, users))
    both, rows = recent.with_stored(events), np.append(row, np.full(len(recent.events), RECENT))
    user = _indices(both.keys, users)
    order = np.lexsort((both.ordinal, both.ingest_ts, both.event_ts, user))
    bounds = np.searchsorted(user[order], np.arange(len(users.hash) + 1))
    return Histories(reader, located, bounds, both.take(order), rows[order])


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """Everything that both tiers hold, as of one generation: what events say, they say by its schema and by no other."""

    generation: Generation
    scrubs: int  # how many were known when both tiers had been read
    events: Iterator[Events]  # whole users, in key order, each user's events in the total order

    @property
    def schema(self) -> Schema:
        """Of the generation."""
        return self.generation.schema


def scan_histories(
    store: HistoryStore, use: Callable[[Scan], T], choose: Callable[[Schema], Sequence[Trait]] = tuple
) -> T:
    """Hand everything that both tiers hold to `use`; again from the start, should a value be blanked meanwhile.

    Not what a scrub took: its bytes may be there until the next compaction, and are nobody's to copy. Bounded by the
    size of the mutable tier, of the largest history and of the vocabulary of the traits: their values are read before
    the scan begins, so that a trait that is dropped meanwhile is read to the end.

    Args: choose: which traits to read, of the schema of the generation that is read; all unless given.
    Returns: what `use` does.
    Raises: what `use` and `choose` raise. ConflictError: generations come faster than they can be read, or a bulk load
        is under way. CorruptionError: damaged bytes.
    """
    for _ in range(_TRIES):
        scan = _begin_scan(store, choose)
        try:
            return use(scan)
        except ScrubbedError:  # of events that retention took, and a scrub then their values: a newer one lacks them
            if store.refresh().generation.id == scan.generation.id:
                raise
    raise ConflictError(f"values were forgotten {_TRIES} times in a row while they were read; try again")


def _begin_scan(store: HistoryStore, choose: Callable[[Schema], Sequence[Trait]]) -> Scan:
    for _ in range(_TRIES):
        reader, _, both = read_both(store, GenerationReader.open, lambda events: events)
        generation, traits = reader.generation, choose(reader.generation.schema)
        for trait in traits:
            if trait.coded:
                store.vocabulary.refresh(trait.id)
        scrubs = store.scrubs.refresh()  # before the last look: a newer generation may have emptied the lists of scrubs
        if store.refresh().generation.id == generation.id:  # else a trait may be dropped, and its values collected
            return Scan(generation, scrubs, _remembered(store, _scan(reader, traits, both)))
    raise ConflictError(f"{_TRIES} generations in a row were replaced while they were read; try again")


def _remembered(store: HistoryStore, runs: Iterator[Events]) -> Iterator[Events]:
    """Without what is known to be scrubbed."""
    for events in runs:
        forgotten = store.scrubs.forgotten(events, 0)
        yield events.take(np.flatnonzero(~forgotten)) if forgotten.any() else events


def _scan(reader: GenerationReader, traits: Sequence[Trait], both: "RecentEvents") -> Iterator[Events]:
    recent = both.events.take(both.events.order())
    for stored in reader.scan(traits):
        if not len(stored):
            continue
        due = _up_to(recent, stored)
        events = RecentEvents(recent.slice(0, due), both.suppressed).with_stored(stored)
        yield events.take(events.order()) if due else events
        recent = recent.slice(due, len(recent))
    if len(recent):
        yield recent.marked(both.suppressed)


@dataclass(frozen=True, slots=True, eq=False)
class RecentEvents:
    """What the mutable tier has that a generation lacks: events, and which others, stored or not, they superseded."""

    events: Events
    suppressed: Suppressions

    def with_stored(self, stored: Events) -> Events:
        """Both tiers' events, first the stored ones, each with when it was superseded."""
        return concat_events([stored, self.events]).marked(self.suppressed)


def read_both(
    store: HistoryStore, stored: Callable[[GenerationReader], T], wanted: Callable[[Events], Events]
) -> tuple[GenerationReader, T, RecentEvents]:
    """Read the newest generation, and what of the mutable tier it lacks.

    Args: stored: what to read of a generation. wanted: which of some recent events to keep.
    Raises: ConflictError: generations come faster than they can be read, or a bulk load is under way.
    """
    for _ in range(_TRIES):
        reader = store.refresh()
        try:
            found, recent = stored(reader), _recent(store, reader.generation, wanted)
        except (ConflictError, FileNotFoundError):
            # published and evicted, or collected, in between (docs/protocol.md R11): the newer one has what is gone
            if store.refresh().generation.id == reader.generation.id:
                raise
        else:
            if store.refresh().generation.id == reader.generation.id:
                return reader, found, recent
    raise ConflictError(f"{_TRIES} generations in a row were replaced while they were read; try again")


def _recent(store: HistoryStore, generation: Generation, wanted: Callable[[Events], Events]) -> RecentEvents:
    none = no_events(generation.schema)
    if store.tier is None:
        return RecentEvents(none, no_suppressions())
    runs, suppressed = store.tier.scan_with_suppressions(generation.watermark)
    return RecentEvents(concat_events([none, *map(wanted, runs)]), suppressed)


def _of_users(events: Events, users: UserKeys) -> Events:
    near = np.flatnonzero(np.isin(events.keys.hash, users.hash))
    return events.take(near[_indices(events.keys.take(near), users) >= 0])


def _indices(keys: UserKeys, users: UserKeys) -> NDArray[np.int64]:
    """Which of some users each key is, -1 where it is none of them."""
    known = {pair: i for i, pair in enumerate(zip(users.hash.tolist(), users.check.tolist(), strict=True))}
    pairs = zip(keys.hash.tolist(), keys.check.tolist(), strict=True)
    return np.fromiter((known.get(pair, -1) for pair in pairs), np.int64, len(keys.hash))


def _up_to(recent: Events, events: Events) -> int:
    """How many of the sorted recent events are of users up to the last of a run in key order."""
    last_hash, last_check = events.keys.hash[-1], events.keys.check[-1]
    start, stop = (int(np.searchsorted(recent.keys.hash, last_hash, side)) for side in ("left", "right"))
    return start + int(np.searchsorted(recent.keys.check[start:stop], last_check, "right"))


def distinct_users(keys: UserKeys) -> tuple[UserKeys, NDArray[np.int64]]:
    """The users among some keys, each once, and which of them each key is."""
    pairs, of = np.unique(np.stack(keys), axis=1, return_inverse=True)
    return UserKeys(*np.ascontiguousarray(pairs)), of.reshape(-1)


def places(events: Events) -> list[Place]:
    """The events' places in the total order."""
    return list(zip(events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist(), strict=True))


def superseded(events: Events) -> NDArray[np.int64]:
    """When each event was superseded, NEVER where it was not."""
    known = events.superseded_at
    return np.full(len(events), NEVER, np.int64) if known is None else known
