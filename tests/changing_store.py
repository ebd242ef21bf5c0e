"""A store that things happen to, by chance, from appends to scrubs; and the examples that were logged meanwhile."""

import itertools
from typing import Any

import numpy as np
import pyarrow as pa

import latewood as lw
from latewood.events import NEVER
from latewood.histories import places, read_histories, superseded
from latewood.testing import ManualClock
from latewood.users import user_keys
from moments import START

SECOND = 1_000_000
TRAITS = pa.schema([("item", pa.int64()), ("word", pa.string())])
USERS = 4
_numbers = itertools.count()


class Life:
    """A store that things happen to, and the examples that were logged meanwhile."""

    def __init__(self, seed: int, retention: lw.Retention | None = None) -> None:
        self.clock, self.rng = ManualClock(START), np.random.default_rng(seed)
        schema = lw.Schema(user_id=pa.int64(), traits=TRAITS)
        path = f"memory://life-{next(_numbers)}"
        self.store = lw.Store.create(path, schema, shards=2, clock=self.clock, retention=retention)
        self.examples: list[pa.Table] = []

    def append(self) -> None:
        n = int(self.rng.integers(1, 30))
        items = self.rng.integers(0, 9, n)
        times = self.clock.now() - self.rng.integers(-2, 30, n) * SECOND
        words = [f"w{item}" for item in items.tolist()]
        events = {"user_id": self.rng.integers(0, USERS, n), "event_ts": times, "item": items, "word": words}
        self.store.append({name: events[name] for name in ("user_id", "event_ts", *self.names)})

    @property
    def names(self) -> list[str]:
        return [trait.name for trait in self.store.schema if trait.name in ("item", "word")]

    def supersede(self) -> None:
        user = int(self.rng.integers(0, USERS))
        events = read_histories(self.store, user_keys(pa.array([user]))).events
        live = events.take(np.flatnonzero(superseded(events) == NEVER))
        if not len(live):
            return
        place = places(live)[int(self.rng.integers(0, len(live)))]
        deletion = self.rng.random() < 0.3
        when = None if deletion else place[0] + int(self.rng.integers(-3, 4)) * SECOND
        version: dict[str, Any] = {"user_id": [user], "event_ts": pa.array([when], pa.int64())}
        version |= {
            "item": pa.array([None if deletion else 7], pa.int64()),
            "word": pa.array([None if deletion else "new"]),
        }
        version["supersedes"] = [dict(zip(("event_ts", "ingest_ts", "ordinal"), place, strict=True))]
        self.store.append(pa.table({n: version[n] for n in ("user_id", "event_ts", *self.names, "supersedes")}))

    def scrub(self) -> None:
        compact = bool(self.rng.random() < 0.5)
        if self.rng.random() < 0.5:
            self.store.scrub([int(self.rng.integers(0, USERS))], compact=compact)
        elif "item" in self.store.schema:
            self.store.scrub(where=lw.col("item") == int(self.rng.integers(0, 9)), compact=compact)

    def capture(self) -> None:
        users = [*range(USERS), 99]
        times = self.clock.now() - self.rng.integers(0, 20, len(users)) * SECOND
        requests = pa.table({"user_id": users, "request_ts": pa.array(times).view(pa.timestamp("us", "UTC"))})
        self.examples.append(self.store.capture(requests).columns)

    def live(self, steps: int, *acts: str) -> None:
        for _ in range(steps):
            self.clock.advance(int(self.rng.integers(1, 6)) * SECOND)
            getattr(self, acts[int(self.rng.integers(0, len(acts)))])()

    def compact(self) -> None:
        self.store.compact()
