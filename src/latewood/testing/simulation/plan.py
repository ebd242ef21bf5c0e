"""What kind of case it is: drawn first, so that cases differ not only in what happens but in what can happen.

Every case has only some of the actions and some of the faults: what is rare among everything is common among little.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

import pyarrow as pa

from latewood.clock import DAY_US, HOUR_US
from latewood.retention import Retention
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.host import Faults

_LISTS, _PORTIONS, _LATE = 5, 6, 7  # the numbers of streams

CLOCK_ERROR_MAX = 12  # µs


@dataclass(frozen=True, slots=True)
class Plan:
    """A case's shape. Units: µs."""

    user_type: pa.DataType
    users: int
    shards: int
    writers: int
    readers: int
    rounds: int
    actions: int  # of each process in a round, at most
    switching: float
    faults: Faults
    clock_error: int
    max_ahead_us: int
    id_window_us: int
    retention: Retention | None
    many: bool  # whether there are appends of several stripes
    lists: bool  # whether there are traits of lists
    portions: bool  # whether what is much is done a little at a time, as large stores do it
    left_out: float  # how many of the actions are left out
    favoured: int  # how many of the actions come ten times as often

    @classmethod
    def draw(cls, chance: Chance) -> "Plan":
        faulty = chance.happens(0.75)
        return cls(
            user_type=chance.among([pa.int64(), pa.string()]),
            users=chance.between(1, 3),
            shards=chance.between(1, 3),
            writers=chance.among([1, 2, 2, 3]),
            readers=chance.between(0, 2),
            rounds=chance.between(2, 5),
            actions=chance.between(1, 4) * chance.among([1, 1, 1, 1, 4]),
            switching=chance.among([0.02, 0.1, 0.3, 0.7]),
            faults=_draw_faults(chance) if faulty else Faults(),
            clock_error=chance.among([0, 0, 3, CLOCK_ERROR_MAX]),
            max_ahead_us=chance.among([HOUR_US, HOUR_US, 40]),
            id_window_us=chance.among([7 * DAY_US, 7 * DAY_US, 20]),
            retention=draw_retention(chance) if chance.happens(0.25) else None,
            many=chance.happens(0.12),
            lists=chance.stream(_LISTS).happens(0.3),  # a stream of its own: cases without are as they were before
            portions=chance.stream(_PORTIONS).happens(0.3),
            left_out=chance.among([0.0, 0.2, 0.5]),
            favoured=chance.among([0, 0, 1, 2]),
        )


def draw_retention(chance: Chance) -> Retention:
    """Little enough to bite."""
    age = timedelta(microseconds=chance.between(3, 30)) if chance.happens(0.5) else None
    return Retention(age, chance.between(1, 8) if age is None or chance.happens(0.3) else None)


def _draw_faults(chance: Chance) -> Faults:
    """A little of each of several kinds, or much of one."""
    puts = chance.stream(_LATE)
    late = puts.among([0.02, 0.1]) if puts.happens(0.25) else 0.0
    if chance.happens(0.25):
        alone = chance.among([Faults(crash=0.01), Faults(after=0.03), Faults(refused=0.03), Faults(delay=0.2)])
        return replace(alone, late=late)
    often = chance.among([0.001, 0.004, 0.02])

    def rate() -> float:
        return often if chance.happens(0.5) else 0.0

    return Faults(
        crash=rate(),
        refused=rate(),
        after=rate(),
        denied=20 * rate(),
        late=late,
        delay=2 * rate(),
        full=10 * rate(),
        torn=0.5,
    )
