"""Which generations there are, which is the newest, and which data nobody needs any more (docs/protocol.md R19).

Manifests are numbered without gaps and never deleted: deleting one would let a compactor that slept resurrect it. So
the newest is found by reading on from the last one known, and whoever creates manifest k has published generation k.
"""

import threading
from bisect import bisect_left
from dataclasses import replace

from latewood.clock import DAY_US, HOUR_US
from latewood.errors import ConflictError, CorruptionError, LatewoodError, PointerError
from latewood.immutable.manifest import Generation
from latewood.immutable.pins import Pin, Pins
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import Storage, StoredObject, keys

# An expired pin is ignored at once, and its file deleted only so much later: reading and deleting are two steps, and who
# renews a pin, as runs do about when it expires, must not lose it to a collection between the two.
_LEFT_US = DAY_US


class Catalog:
    """The generations of one store. Thread-safe.

    Args:
        epoch: the store's; a manifest of another is damage.

    `clock_skew_us` is how far the clocks of those who read as of pins may be apart: so much longer a pin holds its files.
    """

    clock_skew_us = HOUR_US

    def __init__(self, storage: Storage, epoch: bytes) -> None:
        self._storage = storage
        self._epoch = epoch
        self.pins = Pins(storage, epoch)
        self._latest: Generation | None = None
        self._scrubbed = (0, 0)  # so many scrubs had been applied first by that generation
        self._lock = threading.Lock()

    def ensure_first(self, schema: Schema, shards: int, retention: Retention | None = None) -> None:
        """Publish generation 0 unless there are generations: creates a store, and repairs one left half-made.

        Raises: CorruptionError: there is data but no manifest: they were lost, and to begin anew would hide it.
        """
        if self._storage.list(keys.MANIFESTS):
            return
        # listed again: whoever opens the store at the same time may have made it, and filled it, in between
        if self._storage.list(keys.GENERATIONS) and not self._storage.list(keys.MANIFESTS):
            raise CorruptionError(
                f"{keys.manifest(0)} is missing, and so are all after it; manifests are never deleted"
            )
        self.publish(Generation.first(self._epoch, schema, shards=shards, retention=retention))

    def has_begun(self) -> bool:
        """Whether there is a generation, or was: a store that is just being created has none."""
        return bool(self._storage.list(keys.MANIFESTS) or self._storage.list(keys.GENERATIONS))

    def latest(self) -> Generation:
        """The newest generation, whoever published it. Costs one read of a key that is not there.

        Raises: CorruptionError: a manifest is damaged, or there is none.
        """
        with self._lock:
            newest = self._latest or self._read_listed()
            while newer := self._read_if_any(newest.id + 1):
                newest = newer
            self._latest = newest
            return newest

    def load(self, generation_id: int) -> Generation:
        """One generation by its id. Raises: PointerError: there is none."""
        latest = self._latest
        if latest and latest.id == generation_id:
            return latest
        if generation_id < 0 or not (generation := self._read_if_any(generation_id)):
            raise PointerError(f"there is no generation {generation_id}; the newest is {self.latest().id}")
        return generation

    def publish(self, generation: Generation) -> None:
        """Make a generation, whose files are written, the newest.

        Raises:
            ConflictError: another attempt at this id was first; this one's files are garbage.
            OSError: the storage failed, and it may be published or not: leave its files to `collect`.
        """
        if generation.epoch != self._epoch:
            raise ValueError(f"a generation of epoch {generation.epoch.hex()} in a store of {self._epoch.hex()}")
        if generation.id and self.latest().id < generation.id - 1:
            raise ValueError(f"generation {generation.id} after {self.latest().id} would leave a gap")
        try:
            created = self._storage.create(keys.manifest(generation.id), generation.to_json())
        except OSError:
            # the put may have come through all the same: what is there decides
            if (winner := self._look(generation.id)) is None:
                raise
        else:
            winner = generation if created else self._read(generation.id)
        if winner.uuid != generation.uuid:
            raise ConflictError(f"generation {generation.id} was published by another compaction ({winner.uuid})")
        with self._lock:
            if self._latest is None or self._latest.id < generation.id:
                self._latest = generation

    def collect(self, keep: int = 2, *, now: int | None = None) -> list[StoredObject]:
        """Delete the data that nobody needs any more, and say what it was.

        Kept are the files that the newest `keep` generations and the pinned ones name, and those of attempts at
        generations that are not published yet. Everything else below `generations/` belongs to an older generation or
        to a lost race. A probe belongs to a creation of the store that died, a vocabulary of a trait that no kept
        generation has to a trait that was dropped. A generation that does not know a scrub which the newest has applied
        is not kept, pinned or not: its pins hold the first that does (R16).

        Args: now: pins that have expired by then, by any clock, do not count; None: all count. Units: µs.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}; the newest generation is always kept")
        stored = self._storage.list(keys.GENERATIONS)
        newest = self.latest()  # after the listing: what was published meanwhile counts as published
        pins = self._pins_left(now)
        wanted = set(range(max(0, newest.id - keep + 1), newest.id + 1))
        wanted |= {pin.generation for pin in self._held(_unexpired(pins, self._by_any_clock(now)), newest)}
        kept = [known for id_ in sorted(wanted) if (known := self.load(id_)).scrubs >= newest.scrubs]
        named = {shard.key for known in kept for shard in known.shards}
        garbage = [item for item in stored if item.key not in named and _decided(item.key, newest)]
        garbage += self._storage.list(keys.PROBES)
        live = {trait.id for known in kept for trait in known.schema}
        garbage += [item for item in self._storage.list(keys.VOCABULARY) if _of_dropped(item.key, live, newest)]
        self._storage.delete(item.key for item in garbage)
        return garbage

    def held_pins(self, now: int | None = None) -> list[Pin]:
        """The pins that hold a generation, by name, each on the one that it holds: its own, or where a scrub took that,
        the first that had applied all scrubs that there are (R16).

        Args: now: pins that have expired by then hold none; None: all do. Units: µs.
        """
        return self._held(_unexpired(self.pins.all(), now), self.latest())

    def read_as_of_pins(self, now: int) -> set[int]:
        """The generations that somebody may read as of a pin, by whichever clock. Units: µs."""
        return {pin.generation for pin in self.held_pins(self._by_any_clock(now))}

    def pinned(self, pin: Pin) -> Generation:
        """The generation that a pin holds."""
        (held,) = self._held([pin], self.latest())
        return self.load(held.generation)

    def is_stored(self, generation: Generation) -> bool:
        """Whether all files of a generation are there."""
        stored = {item.key for item in self._storage.list(keys.GENERATIONS)}
        return all(shard.key in stored for shard in generation.shards if shard.exists)

    def _by_any_clock(self, now: int | None) -> int | None:
        return None if now is None else now - self.clock_skew_us

    def _pins_left(self, now: int | None) -> list[Pin]:
        """The pins as they were set, but for those that expired long ago, which are deleted."""
        left = []
        for pin in self.pins.all():
            if now is not None and pin.expires_ts + _LEFT_US <= now:
                self.pins.delete(pin.name)
            else:
                left.append(pin)
        return left

    def _held(self, pins: list[Pin], newest: Generation) -> list[Pin]:
        first = self._first_as_scrubbed(newest)
        return [pin if pin.generation >= first else replace(pin, generation=first, moved=True) for pin in pins]

    def _first_as_scrubbed(self, newest: Generation) -> int:
        """The first generation that had applied as many scrubs as the newest. Each has applied all that those before it
        have, so that a few manifests tell; and the same one whenever it is asked, so that its files stay."""
        scrubs, first = self._scrubbed
        if scrubs != newest.scrubs:
            first = bisect_left(range(newest.id), newest.scrubs, key=lambda id_: self.load(id_).scrubs)
            self._scrubbed = newest.scrubs, first
        return first

    def _read_listed(self) -> Generation:
        listed = (keys.parse_manifest(stored.key) for stored in self._storage.list(keys.MANIFESTS))
        ids = {id_ for id_ in listed if id_ is not None}
        last = max(ids, default=0)
        # looked for each: a listing made while others publish may show a later one and not an earlier one
        if missing := {id_ for id_ in set(range(last)) - ids if self._read_if_any(id_) is None}:
            raise CorruptionError(f"{keys.manifest(min(missing))} is missing; manifests are never deleted")
        if (generation := self._read_if_any(last)) is None:
            raise CorruptionError(f"{keys.manifest(last)} is missing: a store has at least one generation")
        return generation

    def _read(self, generation_id: int) -> Generation:
        key = keys.manifest(generation_id)
        generation = Generation.from_json(self._storage.read(key), key)
        if generation.epoch != self._epoch:
            raise CorruptionError(f"{key}: is of epoch {generation.epoch.hex()}, the store is {self._epoch.hex()}")
        return generation

    def _read_if_any(self, generation_id: int) -> Generation | None:
        try:
            return self._read(generation_id)
        except FileNotFoundError:
            return None

    def _look(self, generation_id: int) -> Generation | None:
        """What is there after a failed put; None if that cannot be told."""
        try:
            return self._read(generation_id)
        except (OSError, LatewoodError):
            return None


def _unexpired(pins: list[Pin], now: int | None) -> list[Pin]:
    return [pin for pin in pins if now is None or now < pin.expires_ts]


def _decided(key: str, newest: Generation) -> bool:
    """Whether the race that this file was written for is over."""
    attempt = keys.parse_attempt_file(key)
    return attempt is not None and attempt[0] <= newest.id


def _of_dropped(key: str, live: set[int], newest: Generation) -> bool:
    """Whether this is a part of the vocabulary of a trait that was dropped, and not of one yet to be added."""
    chunk = keys.parse_vocabulary_chunk(key)
    return chunk is not None and chunk[0] not in live and chunk[0] < newest.schema.next_id
