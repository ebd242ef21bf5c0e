"""A process that can die: what all its handles ask before and after every operation.

It dies at an operation, before or after that has had its effect, and is dead from then on: every later operation of its
handles fails too, so that neither a `finally` nor a clean-up changes what is durable, as after a SIGKILL.
"""

import errno
from dataclasses import dataclass

from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.scheduler import Scheduler, StoppedError, StuckError
from latewood.testing.simulation.trace import Trace

OPERATIONS_MAX = 300_000  # in a case; most have a few hundred, but one that blanks code by code may have many


class CrashedError(BaseException):
    """The process is dead. Not an Exception, so that nothing handles it."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How often what goes wrong, per operation. None by default."""

    crash: float = 0.0
    refused: float = 0.0  # an error, and nothing has happened
    after: float = 0.0  # an error after success
    denied: float = 0.0  # put-if-absent says no to the one who won
    late: float = 0.0  # put-if-absent gives up, and the object may come yet
    delay: float = 0.0
    full: float = 0.0  # the log has to be enlarged
    torn: float = 0.0  # a crash leaves a part of an object that was being written, where nothing promises otherwise


NO_FAULTS = Faults()


class Host:
    """One life of a process.

    Args: faults: what may go wrong here; `NO_FAULTS` for one that only looks.
    """

    def __init__(
        self, name: str, scheduler: Scheduler, chance: Chance, trace: Trace, faults: Faults = NO_FAULTS
    ) -> None:
        self.name, self.scheduler, self.faults = name, scheduler, faults
        self._chance, self._trace = chance, trace
        self.alive = True
        self.errors = 0  # that were made here, so that an action may fail

    def step(self, what: str) -> None:
        """Before what cannot fail. Raises: CrashedError: it is not going to happen."""
        self._check_alive()
        if self._chance.happens(self.faults.delay):
            self.scheduler.sleep(self._chance.between(1, 40))
        else:
            self.scheduler.pause()
        self._check_alive()
        self._trace.note(self.name, what)
        if len(self._trace) > OPERATIONS_MAX:
            raise StuckError(f"{OPERATIONS_MAX} operations: something is tried for ever; at last, {what}")
        self._maybe_crash(what)

    def begin(self, what: str) -> None:
        """Before an operation. Raises: CrashedError, OSError: it is not going to happen."""
        self.step(what)
        if self._chance.happens(self.faults.refused):
            self.fail(f"{what}: refused")

    def end(self, what: str) -> None:
        """After an operation has had its effect. Raises: CrashedError, OSError: as if it had not."""
        self._check_alive()
        self._maybe_crash(f"after {what}")
        if self._chance.happens(self.faults.after):
            self.fail(f"{what}: an error after success")

    def happens(self, probability: float) -> bool:
        """Whether a fault is due."""
        return self._chance.happens(probability)

    def below(self, n: int) -> int:
        return self._chance.below(n)

    def note(self, what: str) -> None:
        """Leave a line in the trace."""
        self._trace.note(self.name, what)

    def fail(self, why: str) -> None:
        """Raises: OSError: always."""
        self.errors += 1
        self._trace.note(self.name, why)
        raise OSError(errno.EIO, f"simulated: {why}")

    def crash(self) -> None:
        """Die. The next operation notices."""
        self.alive = False

    def _maybe_crash(self, what: str) -> None:
        if self._chance.happens(self.faults.crash):
            self._trace.note(self.name, f"crash: {what}")
            self.alive = False
            raise CrashedError(what)

    def _check_alive(self) -> None:
        if self.scheduler.failure is not None:
            raise StoppedError
        if not self.alive:
            raise CrashedError(f"{self.name} is dead")
