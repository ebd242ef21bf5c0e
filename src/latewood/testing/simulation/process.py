"""A process of the simulated world: it opens the store, acts on it, dies, and comes back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from latewood.errors import ConflictError
from latewood.testing.simulation.broken import BrokenLawError
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.clock import SimulatedClock
from latewood.testing.simulation.host import CrashedError, Faults, Host
from latewood.testing.simulation.log import LogHandle
from latewood.testing.simulation.model import Row, Version
from latewood.testing.simulation.storage import SimulatedStorage
from latewood.testing.simulation.store import SimulatedStore

if TYPE_CHECKING:
    from latewood.testing.simulation.world import World

T = TypeVar("T")
Action = Callable[["Process"], None]


@dataclass(slots=True)
class Asked:
    """What a process has asked a store to take in, and what became durable of it, as the log or the catalog tells."""

    rows: list[Row]
    explicit: bool = False
    stamp_late: bool = False
    taken: dict[int, Version] = field(default_factory=dict)  # by row number


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
        self.asked = None
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

    def attempt(self, call: Callable[[], T], refused: Callable[[], bool] = lambda: False) -> T | None:
        """Make a call that may fail because a fault was injected, or for a reason that `refused` knows.

        Returns: None if it failed so. Raises: BrokenLawError: it failed without a reason.
        """
        errors, loads = self.host.errors, self.world.loads.ended
        try:
            return call()
        except ConflictError as error:
            if not (self.host.errors > errors or self.world.loads.went_on_since(loads) or refused()):
                raise BrokenLawError(f"{self.name}: refused without a reason: {error}") from error
            self.world.trace.note(self.name, f"refused: {error}")
        except OSError as error:
            if self.host.errors == errors:
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
        self._store = self.attempt(lambda: SimulatedStore.start(storage, self.clock, log, world.settings))
        if self._store is None:
            self.host.crash()
        return self._store is not None
