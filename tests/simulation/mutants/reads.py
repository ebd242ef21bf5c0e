"""R2 to R4, R11 and R12: what a request sees, how it is logged, and how it is read again."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from latewood import sealing
from latewood.capture import examples
from latewood.capture.examples import Reading
from latewood.capture.places import read_anchors
from latewood.compaction import publish
from latewood.events import NO_TIE, Events
from latewood.immutable import Catalog, Generation
from latewood.immutable.resolve import Status
from latewood.materialize.look_up import Lookup
from latewood.materialize.resolved import Resolved
from latewood.mutable.arena import Arena
from latewood.mutable.logged_tier import LoggedTier
from latewood.store import Store
from latewood.testing.simulation import changing

from .mutant import Patches, look_around, mutant, often, planned

ALL_OF_TIME = 2**62


@mutant("R2", within=50)
def no_cutoff() -> Patches:
    """Recent events are read whenever they were ingested."""
    gather = Arena.gather

    def gather_all(self: Arena, keys: Any, end_ts: Any, min_ingest: Any, cutoff: Any, *ties: Any) -> Any:
        return gather(self, keys, end_ts, min_ingest, np.full(len(cutoff), ALL_OF_TIME), *ties)

    return [patch.object(Arena, "gather", gather_all)]


@mutant("R2", within=600)
def anchors_end_at_their_own_place() -> Patches:
    """A corrected event has its earlier versions in its own history."""

    def own(events: Events, first: Any, cutoff: Any) -> Any:
        return np.arange(len(events))

    return [patch("latewood.capture.anchors.ends_of", own)]


@mutant("R2", within=200)
def anchors_end_before_their_ties() -> Patches:
    """An anchor sees nothing of its own time."""

    def without_ties(column: Any, request_ts: Any) -> Any:
        (end_ts, _, tie_ordinal), cutoff = read_anchors(column, request_ts)
        return (end_ts, np.full(len(end_ts), NO_TIE), tie_ordinal), cutoff

    return [patch("latewood.capture.requests.read_anchors", without_ties)]


@mutant("R3", within=50)
def capped_at_capture() -> Patches:
    """The pointer counts no more than what today's model wants: 3 events."""
    read_once = examples._read_once

    def capped(*arguments: Any) -> Reading:
        reading = read_once(*arguments)
        measured = replace(reading.measured, length=np.minimum(reading.measured.length, 3))
        return replace(reading, measured=measured)

    return [patch("latewood.capture.examples._read_once", capped)]


@mutant("R3", within=50)
def pointers_without_a_watermark() -> Patches:
    """A pointer means what the generation holds that it is resolved in, whenever ingested."""
    resolve = Lookup._look_up

    def look_up(self: Lookup, keys: Any, pointers: Any, newest: int, unstored: Any) -> Any:
        reader, _ = resolve(self, keys, pointers, newest, unstored)
        of_now = np.full(len(pointers), reader.generation.watermark)
        return reader, reader.resolve(keys, replace(pointers, watermark=of_now), unstored)

    return [patch.object(Lookup, "_look_up", look_up)]


@mutant("R4", within=100)
def append_instead_of_merge() -> Patches:
    """Recent events come after the stored ones, wherever they sort."""

    def after_all(self: Resolved) -> NDArray[np.int64]:
        return np.repeat(self.stored.counts, np.diff(self.logged.recents.offsets))

    return [patch.object(Resolved, "ranks", property(after_all))]


@mutant("R11", within=100, story=(often(changing.compact),))
def floor_after_delete() -> Patches:
    """Eviction frees the segments first, and raises the floor afterwards."""
    evict = LoggedTier.evict

    def delete_first(self: LoggedTier, floor: int) -> None:
        with self._replica.reading:
            state = self._replica.refresh()
        if state.tier.floor < floor <= state.tier.frontier:
            self._log.forget(replace(state, tier=replace(state.tier, floor=floor)).evicted())
            look_around(self)
        evict(self, floor)

    return [patch.object(LoggedTier, "evict", delete_first)]


@mutant("R11", within=100)
def captures_without_a_look_at_the_floor() -> Patches:
    """A capture takes what it read, whatever was evicted or loaded in between."""
    return [patch("latewood.capture.examples._newest", lambda store, reader, recent: reader)]


@mutant("R11", within=50)
def evict_before_publishing() -> Patches:
    """The mutable tier lets go of events before the generation that holds them is there."""
    publish_ = Catalog.publish
    tiers: list[LoggedTier] = []
    build = publish.build

    def noting(store: Any, *arguments: Any, **options: Any) -> Generation:
        tiers[:] = [store.tier]
        return build(store, *arguments, **options)

    def evict_first(self: Catalog, generation: Generation) -> None:
        if tiers and generation.id:
            tiers[0].evict(generation.watermark)
        publish_(self, generation)

    return [patch.object(publish, "build", noting), patch.object(Catalog, "publish", evict_first)]


@mutant("R11", within=200)
def readers_stay_where_they_are() -> Patches:
    """A reader looks for no newer generation, whatever a pointer asks for."""

    def look_up(self: Lookup, keys: Any, pointers: Any, newest: int, unstored: Any) -> Any:
        reader = self._store.reader()
        return reader, reader.resolve(keys, pointers, unstored)

    return [patch.object(Lookup, "_look_up", look_up)]


@mutant("R11", within=50)
def readers_find_older_generations() -> Patches:
    """Another look at the catalog finds what was found before."""
    return [patch.object(Store, "refresh", lambda self: self.reader())]


@mutant("R12", within=100, story=(often(changing.seal_examples), planned(busy=5, max_events=3)))
def seal_by_recount() -> Patches:
    """A sealed pointer counts what is there, not what the example says."""

    def counted(reader: Any, keys: Any, pointers: Any, cutoff: Any, recents: Any, old: Any) -> Any:
        measured = reader.measure(keys, pointers.end_ts, cutoff)
        return replace(
            pointers,
            watermark=cutoff,
            start_ts=measured.start_ts,
            end_ties=measured.end_ties,
            length=measured.length,
            checksum=measured.checksum,
        )

    return [patch("latewood.sealing._summed", counted)]


@mutant("R12", within=150)
def seal_before_it_is_covered() -> Patches:
    """An example is sealed by a generation that does not hold its recents yet."""

    def at_cutoff(store: Any, logged: Any, rows: Any) -> Any:
        keys, pointers, cutoff = logged.keys.take(rows), logged.pointers.take(rows), logged.cutoff[rows]
        reader = store.refresh()
        old = reader.resolve(keys, pointers)
        new = sealing._summed(reader, keys, pointers, cutoff, logged.recents.take(rows), old)
        return np.full(len(rows), sealing._SEALED), new

    return [patch.object(sealing, "_at_cutoff", at_cutoff)]


@mutant("R12", within=200, story=(often(changing.seal_examples), planned(busy=5, max_events=3)))
def seal_what_is_short() -> Patches:
    """An example is sealed though retention has taken some of what it means."""
    at_cutoff = sealing._at_cutoff

    def whatever(store: Any, logged: Any, rows: Any) -> Any:
        class Reader:
            def __init__(self, reader: Any) -> None:
                self.reader, self.generation = reader, reader.generation

            def resolve(self, keys: Any, pointers: Any) -> Any:
                found = self.reader.resolve(keys, pointers)
                status = np.where(found.status == Status.EXPIRED, np.uint8(Status.OK), found.status)
                return replace(found, status=status)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.reader, name)

        class Lenient:
            def refresh(self) -> Reader:
                return Reader(store.refresh())

        return at_cutoff(Lenient(), logged, rows)

    return [patch.object(sealing, "_at_cutoff", whatever)]
