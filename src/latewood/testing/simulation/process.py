"""A process of the simulated world: it opens the store, acts on it, dies, and comes back."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from latewood.errors import ConflictError, ExpiredError, LatewoodError, PointerError, SchemaError, ScrubbedError
from latewood.immutable import Pin
from latewood.schema import Schema
from latewood.testing.simulation.admission import Judgement
from latewood.testing.simulation.broken import BrokenLawError
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.clock import SimulatedClock
from latewood.testing.simulation.host import CrashedError, Faults, Host
from latewood.testing.simulation.log import LogHandle
from latewood.testing.simulation.model import Row, Version, has_name
from latewood.testing.simulation.storage import SimulatedStorage
from latewood.testing.simulation.store import SimulatedStore

if TYPE_CHECKING:
    from latewood.testing.simulation.world import World

T = TypeVar("T")
Action = Callable[["Process"], None]


@dataclass(slots=True)
class Asked:
    """What a process has asked a store to take in, and what became of it, as the log tells."""

    rows: list[Row]
    schema: Schema  # of the columns
    stamp_late: bool = False
    by_place: bool = False  # how rows name what they supersede
    judged: list[Judgement] | None = None  # None: nothing was committed


@dataclass(slots=True)
class AskedScrub:
    """Whom or what a process has asked a store to forget."""

    users: frozenset[Any] | None
    meets: Callable[[Version], bool] = lambda version: True
    known: list[Version] = field(default_factory=list)  # what met the condition when it was asked


class Process:
    """A process, over all its lives.

    Args: read_only: it has no mutable tier, as a trainer.
    """

    def __init__(self, name: str, world: "World", chance: Chance, *, read_only: bool, clock_error: int) -> None:
        self.name, self.world, self.chance, self.read_only = name, world, chance, read_only
        self._clock_error = clock_error
        self._store: SimulatedStore | None = None
        self.host = Host(name, world.scheduler, chance, world.trace)
        self.host.crash()
        self.asked: Asked | None = None
        self.asked_scrub: AskedScrub | None = None
        self.pinned: Pin | None = None  # what it was told when it set its pin; None: it may have none

    @property
    def store(self) -> SimulatedStore:
        assert self._store is not None
        return self._store

    @property
    def told(self) -> int:
        """What its clock said last."""
        return self.clock.told

    def act(self, action: Action, faults: Faults) -> None:
        """Do one thing, after opening the store if need be. A crash ends it, and this life."""
        self.asked = self.asked_scrub = None
        self.host.faults = faults
        try:
            if self.read_only and not self.world.generations:
                return  # there is a store once a writer has made its first generation
            if self._store is None and not self._start(faults):
                return
            self.world.trace.note(self.name, f"-- {action.__name__}")
            action(self)
        except CrashedError:
            self.world.trace.note(self.name, "-- dead")
        if not self.host.alive:
            self._store = None

    def stop(self) -> None:
        """Close the store, if it is open, and end this life in order."""
        if self._store is not None and self.host.alive:
            self._store.close()
        self._store = None
        self.host.crash()

    def attempt(
        self,
        call: Callable[[], T],
        refused: Callable[[], bool] = lambda: False,
        *,
        fits: Collection[str] = (),
        outdated: Callable[[], bool] = lambda: False,
        lacks: Callable[[], bool] = lambda: False,
        forgot: Callable[[], bool] = lambda: False,
    ) -> T | None:
        """Make a call that may fail because a fault was injected, or for a good reason.

        Args:
            refused: whether there is a reason for a ConflictError; a bulk load always is one.
            fits: names that the schema must have, for there to be no reason for a SchemaError.
            outdated: whether there is another reason for one.
            lacks: whether there is a reason for a PointerError or an ExpiredError.
            forgot: whether there is one for a ScrubbedError.
        Returns: None if it failed. Raises: BrokenLawError: it failed without a reason.
        """
        errors, claims, published = self.host.errors, len(self.world.log.claims), len(self.world.generations)
        try:
            return call()
        except (LatewoodError, OSError) as error:
            is_excused = self.host.errors > errors if isinstance(error, OSError) else False
            if isinstance(error, ConflictError):
                is_excused = self.host.errors > errors or self.world.others_loaded(self.host, claims) or refused()
            elif isinstance(error, SchemaError):
                newest, came_since = self.world.generations[-1].schema, len(self.world.generations) > published
                is_excused = outdated() or came_since or not all(map(partial(has_name, newest), fits))
            elif isinstance(error, (PointerError, ExpiredError)):
                is_excused = lacks()
            elif isinstance(error, ScrubbedError):
                is_excused = forgot()
            if not is_excused:
                raise BrokenLawError(f"{self.name}: failed without a reason: {error!r}") from error
            self.world.trace.note(self.name, f"failed: {error}")
            return None

    def _start(self, faults: Faults) -> bool:
        world = self.world
        self.host = Host(self.name, world.scheduler, self.chance, world.trace, faults)
        self.clock = SimulatedClock(world.time, self.host, self.chance, self._clock_error)
        storage = SimulatedStorage(world.disk, self.host)
        log = None if self.read_only else LogHandle(world.log, self.host)
        world.trace.note(self.name, "-- start")

        def start() -> SimulatedStore:
            store = SimulatedStore.start(storage, self.clock, log, world.settings)
            store.reader()  # what generation it reads is looked for now, and not in the middle of an action
            return store

        self._store = self.attempt(start)
        if self._store is None:
            self.host.crash()
        return self._store is not None
