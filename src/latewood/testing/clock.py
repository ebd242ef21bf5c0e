"""A clock that stands still until it is told to move: for tests, and for replaying the past."""

from datetime import datetime, timedelta

from latewood.clock import to_us


class ManualClock:
    """Tells the time it was set to. It may go backwards: stores must cope with that (docs/protocol.md R5).

    Args: start: µs since epoch, UTC, or a datetime (naive = UTC).
    """

    def __init__(self, start: int | datetime = 0) -> None:
        self._now = to_us(start)

    def now(self) -> int:
        return self._now

    def set(self, moment: int | datetime) -> None:
        self._now = to_us(moment)

    def advance(self, by: int | timedelta) -> int:
        """Move by µs or a timedelta, and tell the new time."""
        self._now += by // timedelta(microseconds=1) if isinstance(by, timedelta) else int(by)
        return self._now

    def __repr__(self) -> str:
        return f"ManualClock({self._now})"
