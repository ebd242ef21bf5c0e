"""The only source of time: every stamp in a store comes from the clock it was opened with.

A clock is anything that tells the time in microseconds: a callable that returns it, or an object with `now()`.
"""

import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from numbers import Integral
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.errors import SchemaError

# The times a store accepts are those that Python's datetime can show, so that no message and no table can fail on them.
EARLIEST_TS = -62_135_596_800_000_000  # 0001-01-01T00:00:00Z
LATEST_TS = 253_402_300_799_999_999  # 9999-12-31T23:59:59.999999Z
HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
# Milliseconds that are taken for microseconds stay below the first until 2298, seconds for ever.
# A clock that has not reached the second is a test's.
_SPRING_1970, _A_YEAR_ON = 120 * DAY_US, 365 * DAY_US


class Clock(Protocol):
    """Tells the time. Units: µs since epoch, UTC."""

    def now(self) -> int: ...


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        return time.time_ns() // 1000


class CallableClock:
    """A function that returns µs or a datetime, used as a clock."""

    def __init__(self, function: Callable[[], int | datetime]) -> None:
        self._function = function

    def now(self) -> int:
        return to_us(self._function())


def as_clock(clock: "Clock | Callable[[], int | datetime] | None") -> Clock:
    """Accept whatever tells the time; None is the wall clock. Raises: SchemaError: it tells no time."""
    if clock is None:
        return SystemClock()
    function = getattr(clock, "now", clock)
    if not callable(function):
        raise SchemaError(f"a clock is a function that tells the time, or an object with now(), not {clock!r}")
    return CallableClock(function)


def look_like_another_unit(first: int, last: int) -> bool:
    """Whether all times lie where seconds and milliseconds end up that are taken for microseconds. Units: µs."""
    return 0 <= first <= last < _SPRING_1970


def warn_of_unit(name: str, times: NDArray[np.int64], clock: Clock) -> None:
    """Warn if all times look like those of another unit, and the clock does not."""
    if not len(times) or not 0 <= times[0] < _SPRING_1970:  # nearly always this look is enough
        return
    if look_like_another_unit(int(times.min()), int(times.max())) and clock.now() >= _A_YEAR_ON:
        message = f"all of {name} lie in early 1970: are they seconds or milliseconds? Integers are µs since epoch"
        warnings.warn(message, UserWarning, stacklevel=4)


def doubt_of_unit(name: str, *moments: int | datetime) -> str:
    """What to add to a message that nothing was found at these moments, as they were given; mostly nothing."""
    for moment in moments:  # a datetime has no unit, and 0 is 0 in all of them
        if isinstance(moment, Integral) and moment and look_like_another_unit(int(moment), int(moment)):
            return f"; was {name} given in seconds or milliseconds? Integers are µs since epoch"
    return ""


def to_us(moment: int | datetime) -> int:
    """One moment as µs since epoch; a naive datetime is UTC.

    Raises: SchemaError: neither a datetime nor an integer, or one outside of the years 1 to 9999.
    """
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = aware - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    if not isinstance(moment, Integral):
        raise SchemaError(f"a moment is a datetime, or an integer of µs since epoch, not {moment!r}")
    if not EARLIEST_TS <= moment <= LATEST_TS + 1:  # what is before the latter is all there can be
        raise SchemaError(
            f"a moment is in µs since epoch, and {moment} is outside of the years 1 to 9999: was it given in nanoseconds?"
        )
    return int(moment)


def show_ts(ts: int) -> str:
    """A time as people read it, for messages; any int64."""
    if EARLIEST_TS <= ts <= LATEST_TS:
        seconds, us = divmod(ts - EARLIEST_TS, 1_000_000)
        days, seconds = divmod(seconds, 86_400)
        moment = datetime.fromordinal(1 + days).replace(hour=seconds // 3600, minute=seconds // 60 % 60)
        return moment.replace(second=seconds % 60, microsecond=us, tzinfo=UTC).isoformat().replace("+00:00", "Z")
    return f"{ts} µs"


def show_span(us: int) -> str:
    """A length of time as people say it: its two largest units."""
    units = (("d", DAY_US), ("h", HOUR_US), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("µs", 1))
    parts, rest = list[str](), us
    for name, size in units:
        count, rest = divmod(rest, size)
        if count and len(parts) < 2:
            parts.append(f"{count:,} {name}")
    return " ".join(parts) or "0 s"
