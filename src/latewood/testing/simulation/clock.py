"""A clock of one process: the world's time, as wrong as clocks are."""

from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.host import Host


class WorldTime:
    """What time it is. Units: µs."""

    def __init__(self, start: int) -> None:
        self.now = start


class SimulatedClock:
    """Tells the world's time with a constant error, and now and then another one, which makes it jump back or ahead."""

    def __init__(self, time: WorldTime, host: Host, chance: Chance, error: int) -> None:
        self._time, self._host, self._chance, self._error = time, host, chance, error
        self._shift = 0
        self.told = time.now  # the last answer

    def now(self) -> int:
        self._host.step("clock.now")
        if self._error and self._chance.happens(0.2):
            self._shift = self._chance.between(-self._error, self._error)
        self.told = self._time.now + self._shift
        return self.told
