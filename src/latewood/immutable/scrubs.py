"""Who was to be forgotten, and when: the scrubs of a store (docs/protocol.md R16).

A scrub is a record of its own on the storage, numbered without gaps, so that every reader can apply it at once. It names
users by a keyed hash, so that the list of the forgotten does not tell who they were. A scrub of *users* takes all that was
learned of them up to its time; a scrub of *events* takes those it lists, by place, and the list goes too once a generation
without them is published. Either way the record stays, as the tombstone of every user it touched: whatever was logged
of them up to its time is refused.
"""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError
from latewood.events import Events
from latewood.storage import Storage, keys
from latewood.storage.documents import whole
from latewood.storage.records import Records
from latewood.users import UserKeys, splitmix

KIND = "scrub"
FORMAT_VERSION = 1
NOT_SCRUBBED = EARLIEST_TS - 1


@dataclass(frozen=True, slots=True)
class Scrub:
    """One scrub. Shapes: users (m, 2) keyed hashes; events (k, 4): index in `users`, event_ts, ingest_ts, ordinal.

    `events` is None in a scrub of users; in one of events it is empty once they are gone.
    """

    number: int
    scrub_ts: int
    users: NDArray[np.uint64]
    events: NDArray[np.int64] | None


class Scrubs:
    """The scrubs of one store, as far as they were read. Thread-safe.

    Args: epoch: the store's, which is the key of the hash; a record of another is damage.
    """

    def __init__(self, storage: Storage, epoch: bytes) -> None:
        self._storage, self._epoch = storage, epoch
        self._records = Records(storage, epoch, KIND, FORMAT_VERSION, keys.scrub)
        self._key = np.frombuffer(epoch, "<u8").astype(np.uint64)
        self._known: tuple[Scrub, ...] = ()
        self._latest = _LatestScrubs.of(())
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Scrub]:
        return iter(self._known)

    def refresh(self) -> int:
        """Read the records that were added; how many there are. Costs one read of a key that is not there."""
        with self._lock:
            if (record := self._records.read_if_any(len(self._known), _from_document)) is None:
                return len(self._known)
            records = list(self._known)
            while record is not None:
                records.append(record)
                record = self._records.read_if_any(len(records), _from_document)
            self._known, self._latest = tuple(records), _LatestScrubs.of(records)
            return len(records)

    def as_of_now(self) -> "Scrubs":
        """The records of now and no later ones, whoever refreshes these."""
        with self._lock:
            frozen = Scrubs(self._storage, self._epoch)
            frozen._known, frozen._latest = self._known, self._latest
            return frozen

    def scrubbed_at(self, users: UserKeys) -> NDArray[np.int64]:
        """When each user was last scrubbed, wholly or in part; NOT_SCRUBBED for most. Shapes: (n,)."""
        return self._latest.find(self.hash(users)) if self._known else np.full(len(users.hash), NOT_SCRUBBED)

    def touched(self, users: UserKeys, since: int) -> NDArray[np.bool_]:
        """Which users the records from number `since` on name. Shapes: (n,)."""
        newer = self._known[since:]
        if not newer:
            return np.zeros(len(users.hash), np.bool_)
        return _LatestScrubs.of(newer).find(self.hash(users)) > NOT_SCRUBBED

    def forgotten(self, events: Events, since: int) -> NDArray[np.bool_]:
        """Which events the records from number `since` on take. Shapes: (n,)."""
        newer = self._known[since:]
        if not newer or not len(events):
            return np.zeros(len(events), np.bool_)
        hashed = self.hash(events.keys)
        wholly = _LatestScrubs.of([record for record in newer if record.events is None])
        gone = events.ingest_ts <= wholly.find(hashed)
        listed = {place for record in newer if record.events is not None for place in _listed(record)}
        if listed:
            near = np.flatnonzero(_LatestScrubs.of(newer).find(hashed) > NOT_SCRUBBED)
            columns = (*hashed[near].T, events.event_ts[near], events.ingest_ts[near], events.ordinal[near])
            places = zip(*(column.tolist() for column in columns), strict=True)
            gone[near] |= np.fromiter((place in listed for place in places), np.bool_, len(near))
        return gone

    def body(self, users: UserKeys, events: Events | None = None) -> dict[str, Any]:
        """What a record says besides its number and time: distinct users, and of a scrub of events, which of theirs."""
        hashed = self.hash(users)
        body: dict[str, Any] = {"users": _to_hex(hashed)}
        if events is not None:
            place = {pair: i for i, pair in enumerate(map(tuple, hashed.tolist()))}
            index = [place[pair] for pair in map(tuple, self.hash(events.keys).tolist())]
            columns = (events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist())
            body["events"] = [list(row) for row in zip(index, *columns, strict=True)]
        return body

    def write(self, number: int, scrub_ts: int, body: dict[str, Any]) -> None:
        """Put a record, durably. Writing the same one again is fine, though it was settled meanwhile.

        Raises: ConflictError: another has that number.
        """
        record = {"scrub_ts": scrub_ts, **body}
        if not self._records.ensure(number, record) and not self._records.has(number, record | _settled(body)):
            raise ConflictError(f"{keys.scrub(number)} is another scrub's")
        self.refresh()

    def settle(self, count: int) -> None:
        """Forget what the first `count` scrubs of events list: a generation without them is published."""
        for record in self._known[:count]:
            if record.events is not None and len(record.events):
                body = {"scrub_ts": record.scrub_ts, "users": _to_hex(record.users), "events": []}
                self._records.replace(record.number, body)

    def hash(self, users: UserKeys) -> NDArray[np.uint64]:
        """The keyed hashes by which records name users. Shapes: (n, 2). Part of the format: never changes."""
        first = splitmix(splitmix(users.hash ^ self._key[0]) + users.check)
        second = splitmix(splitmix(users.check ^ self._key[1]) + users.hash + first)
        return np.stack([first, second], axis=1)


def _settled(body: dict[str, Any]) -> dict[str, Any]:
    return {"events": []} if "events" in body else {}


def _to_hex(hashed: NDArray[np.uint64]) -> list[str]:
    return ["".join(f"{half:016x}" for half in pair) for pair in hashed.tolist()]


def _from_document(document: dict[str, Any]) -> Scrub:
    halves = [[int(user[:16], 16), int(user[16:], 16)] for user in document["users"]]
    users = np.array(halves, np.uint64).reshape(-1, 2)
    listed = document.get("events")
    events = None if listed is None else np.array(listed, np.int64).reshape(-1, 4)
    if events is not None and len(events) and not 0 <= events[:, 0].min() <= events[:, 0].max() < len(users):
        raise ValueError("an event of a user that is not named")
    return Scrub(whole(document["number"]), whole(document["scrub_ts"]), users, events)


def _listed(record: Scrub) -> list[tuple[int, ...]]:
    assert record.events is not None
    columns = (*record.users[record.events[:, 0]].T, *record.events[:, 1:].T)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@dataclass(frozen=True, slots=True)
class _LatestScrubs:
    """The users of some scrubs, sorted, each once, with the time of the last. Shapes: users (m, 2), scrub_ts (m,)."""

    users: NDArray[np.uint64]
    scrub_ts: NDArray[np.int64]

    @classmethod
    def of(cls, records: Iterable[Scrub]) -> "_LatestScrubs":
        latest: dict[tuple[int, int], int] = {}
        for record in records:
            for first, second in record.users.tolist():
                latest[first, second] = max(record.scrub_ts, latest.get((first, second), NOT_SCRUBBED))
        rows = sorted(latest)
        return cls(np.array(rows, np.uint64).reshape(-1, 2), np.array([latest[row] for row in rows], np.int64))

    def find(self, hashed: NDArray[np.uint64]) -> NDArray[np.int64]:
        found = np.full(len(hashed), NOT_SCRUBBED, np.int64)
        if not len(self.users):
            return found
        first = np.ascontiguousarray(self.users[:, 0])
        place = np.searchsorted(first, hashed[:, 0])
        while True:  # once, but for users whose first halves are equal
            inside = np.flatnonzero(place < len(first))
            inside = inside[first[place[inside]] == hashed[inside, 0]]
            if not len(inside):
                return found
            same = inside[self.users[place[inside], 1] == hashed[inside, 1]]
            found[same] = self.scrub_ts[place[same]]
            place[inside] += 1
