"""Ways in which a backfill can be legal and yet not what anyone wants, told before a model is trained on it.

*Lost histories*: events imported without ingest times were all learned of today, so that no past request saw any.
*No histories*: times in another unit, or users of another kind, find nothing at all.
*Coarse event times*: where events are dated to the second and requests to the microsecond, the event that a request led
to (its label) is dated before the request, and sits in its own history.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from latewood.capture.examples import Reading
from latewood.capture.requests import Requests
from latewood.clock import DAY_US, EARLIEST_TS, LATEST_TS, look_like_another_unit, show_ts
from latewood.errors import ConflictError
from latewood.mutable import MutableTier
from latewood.users import UserKeys

_SAMPLE_USERS, _SAMPLE_EVENTS = 256, 16
_USERS_AT_ONCE = 1 << 12
# Clocks that people date events by, coarsest first, in µs, and how many event times must fit to believe it.
_GRIDS = (("whole days", 86_400_000_000, 4), ("whole seconds", 1_000_000, 2), ("whole milliseconds", 1_000, 2))


class HistoryCounts:
    """Counts the requests that have a history and, among those with earlier events, those that lost it to ingest time."""

    def __init__(self, tier: MutableTier) -> None:
        self._tier = tier
        self._count = self._found = self._earlier = self._lost = 0
        self._knows_a_user = False
        self._first, self._last = LATEST_TS, EARLIEST_TS

    @property
    def found(self) -> bool:
        """Whether any request has a history."""
        return self._found > 0

    def add(self, requests: Requests, reading: Reading) -> None:
        """Count some requests."""
        if not len(requests):
            return
        recent = reading.recent
        has_recent = np.diff(recent.offsets) > 0
        empty = (reading.measured.length == 0) & ~has_recent
        earlier = reading.measured.stored_before > 0
        oldest = recent.event_ts[recent.offsets[:-1][has_recent]]
        earlier[has_recent] |= oldest < requests.end_ts[has_recent]
        unsure = np.flatnonzero(empty & ~earlier)
        earlier[unsure] = self._has_later_news(requests, reading, unsure)
        self._count += len(requests)
        self._found += int((~empty).sum())
        self._earlier += int(earlier.sum())
        self._lost += int((earlier & empty).sum())
        self._first = min(self._first, int(requests.end_ts.min()))
        self._last = max(self._last, int(requests.end_ts.max()))
        if not self._found and not self._knows_a_user:
            self._knows_a_user = bool((reading.reader.locate(requests.keys).user >= 0).any())

    def _has_later_news(self, requests: Requests, reading: Reading, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the mutable tier has events before the end of these requests, whenever they were ingested."""
        keys = requests.keys.take(rows)
        _, first, user = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
        oldest = np.empty(len(first), np.int64)
        for start in range(0, len(first), _USERS_AT_ONCE):  # all recent events of these users are read
            part = first[start : start + _USERS_AT_ONCE]
            oldest[start : start + len(part)] = self._oldest(keys.take(part), reading.reader.generation.watermark)
        self._knows_a_user |= bool((oldest <= LATEST_TS).any())
        return oldest[user.ravel()] < requests.end_ts[rows]

    def _oldest(self, keys: UserKeys, watermark: int) -> NDArray[np.int64]:
        """The oldest recent event's time of some users; LATEST_TS + 1 where there is none."""
        after_all = np.full(len(keys.hash), LATEST_TS + 1)
        recent = self._tier.recent(keys, end_ts=after_all, min_ingest=watermark)
        has_any = np.diff(recent.offsets) > 0
        after_all[has_any] = recent.event_ts[recent.offsets[:-1][has_any]]
        return after_all

    def require_few(self) -> None:
        """Raises: ConflictError: more than half are lost."""
        if 2 * self._lost > self._earlier:
            raise ConflictError(
                f"{self._lost:,} of {self._earlier:,} requests with earlier events would have no history at all, since "
                "the store learned of those events only after the request (ingest_ts). Were they imported without "
                "their ingest times, and so stamped with the time of the import? Import them with their own, or with "
                "an assumed delay, into a new store; or pass allow_empty=True"
            )

    def warn_if_none(self) -> None:
        """Warn if no request has a history, unless ingest time is the reason, which `require_few` is for."""
        if not self._count or self._found or self._earlier:
            return
        if look_like_another_unit(self._first, self._last):
            # seconds stay within the first day until the year 4707
            unit = "seconds" if self._last < DAY_US else "milliseconds"
            why = f"all times lie in early 1970: are they {unit}? request_ts is a timestamp, or int64 µs since epoch"
        elif not self._knows_a_user:
            why = "no user of these is in the store. Are their ids of the same kind?"
        else:
            why = f"all requests lie before the first event of their user; the latest is at {show_ts(self._last)}"
        message = f"0 of {self._count:,} requests have any history: {why}"
        warnings.warn(message, UserWarning, stacklevel=4)


def doubt_of_grids(requests: Requests, reading: Reading) -> str | None:
    """What to warn of if requests are dated more finely than the events are."""
    ends = requests.end_ts[~requests.is_anchor]
    if not len(ends):
        return None
    times = np.unique(_sample_times(requests, reading))
    for name, grid, enough in _GRIDS:
        if len(times) >= enough and not (times % grid).any():
            if (ends % grid).any():
                return (
                    f"request times are finer than event times, which are {name}: an event that a request led to can "
                    "be dated before the request, and be in its history. Floor request_ts likewise, or use lw.anchors"
                )
            return None
    return None


def _sample_times(requests: Requests, reading: Reading) -> NDArray[np.int64]:
    """Some event times: the newest few of some of the users, stored and recent."""
    stored = reading.reader.sample_times(requests.keys, users=_SAMPLE_USERS, newest=_SAMPLE_EVENTS)
    return np.concatenate([stored, reading.recent.event_ts[: _SAMPLE_USERS * _SAMPLE_EVENTS]])
