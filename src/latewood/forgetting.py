"""Forgetting: users, or events that meet a condition, leave no trace in the store (docs/protocol.md R16).

    record      who is to be forgotten, and when: from here on everything logged before is refused
    compact     a generation without them; the mutable tier lets go of its segments
    collect     older generations' files are deleted, pinned or not; values that only they had are blanked

What is not in the store is out of reach: the receipt says so.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from latewood.clock import EARLIEST_TS, LATEST_TS, show_ts
from latewood.compaction import CompactionStore, compact
from latewood.compaction.store import tier_of
from latewood.conditions import Condition, check_condition
from latewood.errors import ConflictError, SchemaError
from latewood.events import Events, concat_events, no_events
from latewood.histories import HistoryStore, Scan, scan_histories
from latewood.immutable import Generation, read_newest
from latewood.intake import read_user_ids
from latewood.schema import EVENT_TS, Schema, Trait
from latewood.storage import keys
from latewood.users import UserKeys, user_keys, user_starts
from latewood.vocabulary import Vocabulary

USERS_AT_ONCE = 1000  # a scrub is kept in the mutable tier's state for a moment
_TRIES = 20
OUT_OF_REACH = (
    "example logs: recent events copied into examples logged before (refused; `latewood examples rewrite` removes them)",
    "upstream topics and files that the events came from (appending them again is refused)",
    "memory of processes that still map deleted files, until they read a newer generation",
    "free blocks of the file system or the object store, and backups",
)


class ForgettingStore(CompactionStore, HistoryStore, Protocol):
    """What forgetting needs of a store."""

    vocabulary: Vocabulary

    @property
    def schema(self) -> Schema:
        """Of the generation that reads are answered from: what a user id is never changes."""


@dataclass(frozen=True, slots=True)
class ScrubReceipt:
    """What was forgotten, where it is gone, and where it cannot be reached. Units: µs since epoch, UTC."""

    scrub_ts: int | None  # everything logged of the users up to it is refused; None: there was nothing to forget
    numbers: tuple[int, ...]  # of the records, scrubs/<number>.json
    users: int
    unknown_users: int  # of them, those of whom there was nothing: was the id right?
    events: int | None  # how many events met the condition; None: users were forgotten whole
    generation: int | None  # the first that does not hold them; None: the next compaction makes it
    purged_generations: tuple[int, ...]  # whose files are deleted
    purged_files: int
    mutable_tier: bool  # whether the recent events' files that held some are deleted
    blanked_values: int  # of vocabularies, that nobody else had
    moved_pins: tuple[str, ...]
    out_of_reach: tuple[str, ...] = OUT_OF_REACH

    @property
    def done(self) -> bool:
        """Whether nothing of them is left in the store."""
        return self.scrub_ts is None or (self.generation is not None and self.mutable_tier)

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self) | {"done": self.done}

    def __repr__(self) -> str:
        if self.scrub_ts is None:
            return "<ScrubReceipt: nothing to forget>"
        what = f"{self.users:,} users" if self.events is None else f"{self.events:,} events of {self.users:,} users"
        what += f" ({self.unknown_users:,} of them unknown)" if self.unknown_users else ""
        state = f"gone from generation {self.generation} on" if self.done else "gone with the next compaction"
        return f"<ScrubReceipt: {what}, scrubbed at {show_ts(self.scrub_ts)}, {state}>"


def scrub(
    store: ForgettingStore,
    user_ids: Iterable[int | str] | None = None,
    where: Condition | None = None,
    *,
    compact_now: bool = True,
) -> ScrubReceipt:
    """Forget users, or the events that meet a condition.

    From the moment it is recorded every example logged before of the users it touches is refused (`ScrubbedError`), and
    until the next compaction their stored history is withheld. Users who come back later have valid new examples.

    Args:
        user_ids: to forget whole, known or not; or
        where: forget these events, for example `lw.col("item_id") == 17`. Of their users the rest is kept.
        compact_now: build the generation without them at once, and delete what held them. Otherwise the next compaction
            does, and the receipt says that it is still to come.
    Raises: SchemaError: neither or both, user ids of another type, or a condition that does not fit the schema.
        ConflictError: a bulk load is under way, or other compactions kept winning.
    """
    if (user_ids is None) == (where is None):
        raise SchemaError("scrub takes either user_ids= or where=")
    if where is None:
        assert user_ids is not None
        parts: Iterable[tuple[UserKeys, Events | None]] = _users(store, user_ids)
    else:
        parts = _matching(store, where)
    before = _State.of(store)
    numbers, scrub_ts, users, unknown, events = [], None, 0, 0, 0
    tier = tier_of(store)
    for touched, listed in parts:
        unknown += _count_unknown(store, touched)
        number, scrub_ts = tier.scrub(store.scrubs.body(touched, listed), now=store.clock.now())
        numbers.append(number)
        users += len(touched.hash)
        events += 0 if listed is None else len(listed)
    store.scrubs.refresh()
    if numbers and compact_now:
        _purge(store, numbers[-1])
    after = _State.of(store)
    return ScrubReceipt(
        scrub_ts,
        tuple(numbers),
        users,
        unknown,
        None if where is None else events,
        _first_without(store, numbers[-1]) if numbers else None,
        tuple(sorted(before.generations - after.generations)),
        len(before.files - after.files),
        scrub_ts is not None and tier.state().floor > scrub_ts,
        after.blanked - before.blanked,
        tuple(sorted(name for name, _ in after.moved - before.moved)),
    )


def _users(store: ForgettingStore, user_ids: Iterable[int | str]) -> Iterator[tuple[UserKeys, None]]:
    if isinstance(user_ids, str):
        raise SchemaError(f"user_ids={user_ids!r} is one string; pass a list")
    try:
        given = pa.array(list(user_ids))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise SchemaError(f"user_ids are of one type, the store's, {store.schema.user_id}: {error}") from None
    ids = read_user_ids(given, store.schema).unique()
    for start in range(0, len(ids), USERS_AT_ONCE):
        yield user_keys(ids.slice(start, USERS_AT_ONCE)), None


def _count_unknown(store: ForgettingStore, users: UserKeys) -> int:
    """How many of some users have no event in either tier."""
    _, located = read_newest(store, lambda reader: reader.locate(users))
    recent = tier_of(store).recent(users, end_ts=np.full(len(located.user), LATEST_TS + 1), min_ingest=EARLIEST_TS)
    return int(((located.user < 0) & (np.diff(recent.offsets) == 0)).sum())


def _matching(store: ForgettingStore, where: Condition) -> list[tuple[UserKeys, Events]]:
    """The events that meet a condition, a few users at a time: all found before the first is recorded."""

    def choose(schema: Schema) -> list[Trait]:
        check_condition(where, schema)
        return [schema[name] for name in where.names if name != EVENT_TS]

    def find(scan: Scan) -> list[Events]:
        found = [no_events(scan.schema)]
        for events in scan.events:
            rows = np.flatnonzero(where.evaluate(store.vocabulary.columns(scan.schema, events, where.names)))
            found.append(events.take(rows))
        return found

    matching = concat_events(scan_histories(store, find, choose))
    matching = matching.take(matching.order())
    starts = np.append(user_starts(matching.keys), len(matching))
    parts = []
    for first in range(0, len(starts) - 1, USERS_AT_ONCE):
        bounds = starts[first : first + USERS_AT_ONCE + 1]
        parts.append((matching.keys.take(bounds[:-1]), matching.slice(int(bounds[0]), int(bounds[-1]))))
    return parts


def _purge(store: ForgettingStore, number: int) -> None:
    """Compact until a generation knows the scrub and what held its events is gone."""
    for _ in range(_TRIES):
        try:
            generation = compact(store)
        except ConflictError:  # another compaction was first, perhaps one that knew it already
            continue
        if generation.scrubs > number:
            return
    raise ConflictError(
        f"{_TRIES} compactions in a row lost to others; the scrub is recorded, and the next one applies it"
    )


def _first_without(store: ForgettingStore, number: int) -> int | None:
    newest: Generation = store.catalog.latest()
    if newest.scrubs <= number:
        return None
    while newest.parent is not None and (older := store.catalog.load(newest.id - 1)).scrubs > number:
        newest = older
    return newest.id


@dataclass(frozen=True, slots=True)
class _State:
    """Where data lies, to compare before with after."""

    generations: set[int]  # of which all files are there
    files: set[str]
    blanked: int
    moved: set[tuple[str, int]]  # pins that a scrub moved, and to which generation

    @classmethod
    def of(cls, store: ForgettingStore) -> "_State":
        files = {stored.key for stored in store.storage.list(keys.GENERATIONS)}
        newest, attempts = store.catalog.latest().id, (keys.parse_attempt_file(key) for key in files)
        oldest = min((attempt[0] for attempt in attempts if attempt is not None), default=newest)
        known = map(store.catalog.load, range(oldest, newest + 1))
        whole = {one.id for one in known if all(shard.key in files for shard in one.shards if shard.exists)}
        moved = {(pin.name, pin.generation) for pin in store.catalog.held_pins(store.clock.now()) if pin.moved}
        store.vocabulary.refresh_blanked()
        return cls(whole, files, store.vocabulary.blanked_codes, moved)
