"""A small store whose events are told by their seconds, and requests to ask about: what the tests of the tools share."""

import itertools
from typing import Any

import pyarrow as pa

import latewood as lw
from latewood.histories import places, read_histories
from latewood.testing import ManualClock
from latewood.users import user_keys
from moments import START

SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
SECOND = 1_000_000
_numbers = itertools.count()


class World:
    """Times are seconds after START; user 7 has the events of the tests, user 8 one more."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.store = lw.Store.create(f"memory://explain-{next(_numbers)}", SCHEMA, shards=2, clock=self.clock)
        self.at(0, 8, 0)

    def at(self, now: int, user: int, *seconds: int) -> lw.AppendReceipt:
        """Append events that happened at these seconds, at `now`."""
        self.clock.set(START + now * SECOND)
        event_ts = [START + s * SECOND for s in seconds]
        return self.store.append({"user_id": [user] * len(event_ts), "event_ts": event_ts, "item": list(seconds)})

    def capture(self, now: int) -> pa.Table:
        """An example of user 7."""
        self.clock.set(START + now * SECOND)
        return self.store.capture({"user_id": [7], "request_ts": [START + now * SECOND]}).columns

    def why(self, event: int, request: int | None = None, **options: Any) -> list[lw.Verdict]:
        """Ask about an event of user 7."""
        if request is not None:
            options |= {"user_id": 7, "request_ts": START + request * SECOND}
        return lw.why(self.store, event_ts=START + event * SECOND, **options)

    def one(self, event: int, request: int | None = None, **options: Any) -> lw.Verdict:
        """Ask about an event of which there is one version."""
        [verdict] = self.why(event, request, **options)
        return verdict

    def supersede(self, now: int, event: int, *, by: int | None) -> lw.AppendReceipt:
        """Correct the one event of user 7 at a second by one of another, or delete it."""
        self.clock.set(START + now * SECOND)
        events = read_histories(self.store, user_keys(pa.array([7]))).events
        [place] = [p for p in places(events) if p[0] == START + event * SECOND]
        version = {
            "user_id": [7],
            "event_ts": pa.array([None if by is None else START + by * SECOND], pa.int64()),
            "item": pa.array([by], pa.int64()),
            "supersedes": [dict(zip(("event_ts", "ingest_ts", "ordinal"), place, strict=True))],
        }
        return self.store.append(pa.table(version))
