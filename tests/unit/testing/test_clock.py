"""A clock to set by hand."""

from datetime import UTC, datetime, timedelta

from latewood.clock import as_clock
from latewood.testing import ManualClock


def test_it_stands_still_until_moved() -> None:
    clock = ManualClock(5)
    assert (clock.now(), clock.now()) == (5, 5)
    assert clock.advance(10) == clock.now() == 15
    assert clock.advance(timedelta(seconds=1, microseconds=2)) == 1_000_017
    clock.set(3)
    assert clock.now() == 3
    clock.set(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    assert clock.now() == 1_000_000
    assert ManualClock(datetime(1969, 12, 31, 23, 59, 59)).now() == -1_000_000  # noqa: DTZ001
    assert repr(clock) == "ManualClock(1000000)"


def test_a_store_takes_it() -> None:
    clock = ManualClock(7)
    taken = as_clock(clock)
    clock.advance(1)
    assert taken.now() == 8
