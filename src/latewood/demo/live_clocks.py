"""Data that brings both clocks, replayed live: appended tick by tick as it was learned, captured in between.

The clock is the data's own ingest time. Requests come at random moments and are captured before anything of that moment
is appended; every midnight at which something was new the store is compacted. A day's examples are compared with the
oracle before that compaction, some of all earlier ones after every one, and all of them in the end. The oracle works from
the raw file, so that what it expects owes nothing to the store.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latewood.clock import DAY_US
from latewood.demo.two_clocks import AT_ONCE, REQUESTS, UNITS, known_too_late, read_two_clocks, spread_requests
from latewood.materialize import Materializer
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.store import Store
from latewood.testing import ManualClock, Oracle, different_rows

SAMPLE = 20
PROJECTION = Projection(max_len=4096)


def replay_two_clocks(
    path: Path, folder: Path, advance: Callable[[int], None], *, unit: str, seed: int = 0, **columns: str
) -> dict[str, int]:
    """Replay a Parquet file live. Returns the figures, JSON-able.

    Args:
        advance: told of the events appended.
        columns: user, time and ingest_time: which columns these are.
    """
    events = read_two_clocks(pq.read_table(path), unit=unit, **columns)
    replay = LiveReplay(events, folder, grain=UNITS[unit], requests=REQUESTS, seed=seed)
    return replay.run(advance)


class LiveReplay:
    """One replay and what it found.

    Args:
        events: user_id, event_ts, ingest_ts and traits; ties in order of arrival. Units: µs.
        folder: where the store is made.
        grain: of both clocks, in µs.
        requests: how many.
        sample: of the examples logged so far, how many are compared after each compaction; None: all.
    """

    def __init__(
        self,
        events: pa.Table,
        folder: Path,
        *,
        grain: int,
        requests: int,
        seed: int = 0,
        sample: int | None = SAMPLE,
        projection: Projection = PROJECTION,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self.events = _by_arrival(events)
        self._requests = spread_requests(events, self._rng, grain, requests).sort_by("request_ts")
        self._oracle, self._projection, self._sample = Oracle(self.events), projection, sample
        self._clock = ManualClock(self._first())
        self._store = Store.create(folder / "live", _schema(self.events), shards=2, clock=self._clock)
        self._logged: list[pa.Table] = []  # one table a day
        self._today: list[pa.Table] = []
        self.figures = {"events": len(events), "commits": 0, "requests": len(self._requests), "compactions": 0}
        self.figures |= {"compared": 0, "different": 0}

    def run(self, advance: Callable[[int], None] = lambda events: None) -> dict[str, int]:
        """Replay everything; `advance` is told of the events appended. Returns the figures."""
        with self._store:
            day = self._first() // DAY_US
            for moment, requests, events in self._moments():
                if moment // DAY_US > day:
                    day = moment // DAY_US
                    self._night()
                self._clock.set(moment)
                if len(requests):
                    self._today.append(self._store.capture(requests).columns)
                if len(events):
                    self._store.append(events)
                    self.figures["commits"] += 1
                    advance(len(events))
            self._night()
            self._end()
        return self.figures

    def _first(self) -> int:
        return int(min(self.events["ingest_ts"][0].as_py(), self._requests["request_ts"][0].as_py()))

    def _moments(self) -> Iterator[tuple[int, pa.Table, pa.Table]]:
        """Every moment at which something happens, with its requests and the events learned."""
        learned, asked = (table[name].to_numpy() for table, name in self._inputs())
        moments = np.union1d(learned, asked)
        of_events, of_requests = (np.searchsorted(times, moments) for times in (learned, asked))
        for i, moment in enumerate(moments.tolist()):
            last = i + 1 == len(moments)
            asked_stop, learned_stop = (
                len(times) if last else int(starts[i + 1])
                for times, starts in ((asked, of_requests), (learned, of_events))
            )
            requests = self._requests.slice(of_requests[i], asked_stop - of_requests[i])
            yield moment, requests, self.events.slice(of_events[i], learned_stop - of_events[i])

    def _inputs(self) -> tuple[tuple[pa.Table, str], tuple[pa.Table, str]]:
        return (self.events, "ingest_ts"), (self._requests, "request_ts")

    def _night(self) -> None:
        """The end of a day: what was logged is right before the compaction, and what was ever logged after it."""
        if self._today:
            self._logged.append(pa.concat_tables(self._today))
            self._today = []
            self._compare(self._logged[-1])
        before = self._store.generation.id
        if self._store.compact().id > before:
            self.figures["compactions"] += 1
            self._compare(self._some())

    def _some(self) -> pa.Table:
        """Examples of all days so far."""
        if self._sample is None or not self._logged:
            return self._all()
        days = self._rng.integers(0, len(self._logged), self._sample).tolist()
        tables = [self._logged[day] for day in days]
        return pa.concat_tables([table.slice(int(self._rng.integers(len(table))), 1) for table in tables])

    def _all(self) -> pa.Table:
        return pa.concat_tables(self._logged) if self._logged else self._requests.slice(0, 0)

    def _end(self) -> None:
        """After all compactions: every example once more."""
        logged = self._all()
        self._compare(logged)
        late: NDArray[np.int64] = known_too_late(self.events, logged)
        self.figures["late_kept_out"] = int(late.sum())

    def _compare(self, examples: pa.Table) -> None:
        materializer = Materializer(self._store, self._projection)
        for start in range(0, len(examples), AT_ONCE):
            part = examples.slice(start, AT_ONCE)
            different = different_rows(materializer(part).to_arrow(), self._oracle.fat_rows(part, self._projection))
            self.figures["compared"] += len(part)
            self.figures["different"] += len(different)


def _by_arrival(events: pa.Table) -> pa.Table:
    order = np.argsort(events["ingest_ts"].to_numpy(), kind="stable")
    return events.take(pa.array(order)).combine_chunks()


def _schema(events: pa.Table) -> Schema:
    clocks = ("user_id", "event_ts", "ingest_ts")
    fields = [(field.name, _plain(field.type)) for field in events.schema if field.name not in clocks]
    return Schema(user_id=pa.int64(), traits=pa.schema(fields))


def _plain(type_: pa.DataType) -> pa.DataType:
    return type_.value_type if pa.types.is_dictionary(type_) else type_
