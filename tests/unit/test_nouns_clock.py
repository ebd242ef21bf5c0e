"""Time: what tells it, how it is read and shown."""

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.clock import EARLIEST_TS, LATEST_TS, SystemClock, as_clock, show_span, show_ts, to_us
from latewood.errors import SchemaError


def test_the_wall_clock_tells_microseconds() -> None:
    before = time.time_ns() // 1000  # noqa: TID251
    now = SystemClock().now()
    assert before <= now <= time.time_ns() // 1000  # noqa: TID251
    assert isinstance(as_clock(None), SystemClock)


def test_whatever_tells_the_time_is_a_clock() -> None:
    class Clock:
        def now(self) -> int:
            return 7

    class Moment:
        def now(self) -> datetime:
            return datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)

    assert as_clock(Clock()).now() == 7
    assert as_clock(Moment()).now() == 1_000_000  # type: ignore[arg-type]
    assert as_clock(lambda: 5).now() == 5
    assert as_clock(lambda: datetime(1970, 1, 1, tzinfo=UTC)).now() == 0


def test_a_naive_datetime_is_utc_and_zones_are_converted() -> None:
    assert to_us(datetime(2024, 2, 29, 12)) == to_us(datetime(2024, 2, 29, 12, tzinfo=UTC))  # noqa: DTZ001
    assert to_us(datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == -3_600_000_000
    assert to_us(12) == to_us(np.int64(12)) == 12


@pytest.mark.parametrize("moment", ["2024-02-29", 1.5, None, 2**63])
def test_what_is_no_moment_is_refused(moment: Any) -> None:
    with pytest.raises(SchemaError, match=r"a moment is (a datetime|in µs)"):
        to_us(moment)


def test_what_tells_no_time_is_no_clock() -> None:
    with pytest.raises(SchemaError, match="a clock is a function"):
        as_clock(5)  # type: ignore[arg-type]


def test_the_ends_of_time_are_those_of_datetime() -> None:
    assert to_us(datetime.min.replace(tzinfo=UTC)) == EARLIEST_TS
    assert to_us(datetime.max.replace(tzinfo=UTC)) == LATEST_TS
    assert show_ts(EARLIEST_TS) == "0001-01-01T00:00:00Z"
    assert show_ts(LATEST_TS) == "9999-12-31T23:59:59.999999Z"


@given(st.integers(EARLIEST_TS, LATEST_TS))
def test_shown_times_read_back(ts: int) -> None:
    assert to_us(datetime.fromisoformat(show_ts(ts))) == ts


@pytest.mark.parametrize("ts", [EARLIEST_TS - 1, LATEST_TS + 1, -(2**63), 2**63 - 1])
def test_a_time_beyond_the_calendar_is_shown_as_a_number(ts: int) -> None:
    assert show_ts(ts) == f"{ts} µs"


def test_spans() -> None:
    spans = [show_span(us) for us in (0, 7, 1_500, 14_000_000, 90_061_000_000, 86_400_000_000 * 1200)]
    assert spans == ["0 s", "7 µs", "1 ms 500 µs", "14 s", "1 d 1 h", "1,200 d"]
