"""R19 and R20: generations, their files, and shards."""

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from latewood.compaction import bulk
from latewood.immutable import Catalog, Generation, GenerationReader, lookup
from latewood.immutable.resolve import Located
from latewood.mutable.logged_tier import LoggedTier
from latewood.storage import keys
from latewood.testing.simulation import changing, writing
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.storage import SimulatedStorage
from latewood.users import UserKeys, shard_of

from .mutant import Patches, faults, mutant, often, planned, slow


@mutant("R19", within=900)
def attempts_share_a_name() -> Patches:
    """Every attempt at a generation writes to the same files."""
    token = Chance.token

    def same(self: Chance) -> str:
        return "0" * len(token(self))  # drawn all the same, so that the story stays as it is

    return [patch.object(Chance, "token", same)]


@mutant("R19", within=100)
def manifests_are_overwritten() -> Patches:
    """The manifest is put, whatever is there."""
    create = SimulatedStorage.create

    def put(self: SimulatedStorage, key: str, data: Any) -> bool:
        if key.startswith("manifests/") and self._disk.objects.pop(key, None) is not None:
            return create(self, key, data)
        return create(self, key, data)

    return [patch.object(SimulatedStorage, "create", put)]


@mutant("R19", within=450, story=(faults(after=0.02),))
def an_ambiguous_put_has_failed() -> Patches:
    """After an error of the put the manifest counts as not published, and its files are deleted."""
    publish = Catalog.publish

    def publish_once(self: Catalog, generation: Generation) -> None:
        self.__dict__["_look"] = lambda number: None
        try:
            publish(self, generation)
        except OSError:
            files = [stored.key for stored in self._storage.list(keys.attempt_folder(generation.id, generation.uuid))]
            self._storage.delete(files)
            raise

    return [patch.object(Catalog, "publish", publish_once)]


@mutant("R19", within=250)
def a_denied_put_has_lost() -> Patches:
    """Who is told that the manifest is there already believes to have lost, and deletes its files."""
    publish = Catalog.publish

    def publish_denied(self: Catalog, generation: Generation) -> None:
        if not generation.id:  # many may create a store at once, and all have done so
            return publish(self, generation)
        self.__dict__["_read"] = lambda number: replace(Catalog._read(self, number), uuid="another's")
        try:
            publish(self, generation)
        finally:
            del self.__dict__["_read"]

    return [patch.object(Catalog, "publish", publish_denied)]


@mutant("R19", within=150, story=(often(changing.compact, changing.scrub_users), planned(busy=4)))
def undecided_attempts_are_collected() -> Patches:
    """Collection deletes the files of attempts that are still under way."""
    return [patch("latewood.immutable.catalog._decided", lambda key, newest: True)]


@mutant("R19", within=50)
def nothing_is_collected() -> Patches:
    """What lost races and crashes leave stays for ever."""
    return [patch.object(Catalog, "collect", lambda self, keep=2, *, now=None: [])]


@mutant("R19", within=2200, story=(often(writing.load_in_bulk), faults(crash=0.005), slow(LoggedTier, "end_load")))
def a_dead_load_never_happened() -> Patches:
    """A bulk load whose owner died counts as not published."""
    return [
        patch("latewood.testing.simulation.store.settle_load", lambda catalog, token: False),
        patch.object(bulk, "settle_load", lambda catalog, token: False),
    ]


@mutant("R19", within=150, story=(often(writing.load_in_bulk), faults(late=0.1)))
def a_load_that_is_not_there_will_never_be() -> Patches:
    """A bulk load without a manifest counts as not published, though its put may come through yet."""

    def settle(catalog: Catalog, token: str) -> bool:
        return any(catalog.load(number).uuid == token for number in range(catalog.latest().id + 1))

    return [patch("latewood.testing.simulation.store.settle_load", settle), patch.object(bulk, "settle_load", settle)]


@mutant("R20", within=600, story=(often(changing.alter),))
def readers_know_one_number_of_shards() -> Patches:
    """Users are looked for by the number of shards that the store was created with."""
    known: dict[bytes, int] = {}

    def locate(self: GenerationReader, users: UserKeys) -> Located:
        shards = len(self.generation.shards)
        first = min(shards, known.setdefault(self.generation.epoch, shards))
        users = UserKeys(*(np.ascontiguousarray(half, np.uint64) for half in users))
        located = Located(shard_of(users.hash, first), np.empty(len(users.hash), np.int64))
        self._open(np.unique(located.shard).tolist())
        lookup.locate(self.tables.rows, *users, *located)
        return located

    return [patch.object(GenerationReader, "locate", locate)]
