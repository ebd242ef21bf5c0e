"""Data that brings both clocks, replayed live: appended tick by tick as it was learned, captured in between.

The clock is the data's own ingest time. Requests come at random moments and are captured before anything of that moment
is appended; every midnight at which something was new the store is compacted, and the day's examples are sealed. They are
compared with the oracle before that, some of all earlier ones after every compaction, and all of them in the end: as they
were logged, and sealed. The oracle works from the raw file, so that what it expects owes nothing to the store.
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
from latewood.sealing import seal_with_report
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
        self._sealed: list[pa.Table] = []  # the same, sealed that night
        self._today: list[pa.Table] = []
        self.figures = {"events": len(events), "commits": 0, "requests": len(self._requests), "compactions": 0}
        self.figures |= {"compared": 0, "different": 0, "sealed": 0}

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
        """The end of a day: its examples are right before the compaction, and all that were ever logged after it."""
        logged = pa.concat_tables(self._today) if self._today else None
        if logged is not None:
            self._compare(logged)
        before = self._store.generation.id
        compacted = self._store.compact().id > before
        if logged is not None:
            self._keep(logged)
        self._today = []
        if compacted:
            self.figures["compactions"] += 1
            for days in (self._logged, self._sealed):
                self._compare(self._some(days))

    def _keep(self, logged: pa.Table) -> None:
        sealed, report = seal_with_report(self._store, logged)
        self.figures["sealed"] += report.sealed
        self._logged.append(logged)
        self._sealed.append(sealed)

    def _some(self, days: list[pa.Table]) -> pa.Table:
        """Examples of all days so far."""
        if self._sample is None or not days:
            return self._all(days)
        tables = [days[day] for day in self._rng.integers(0, len(days), self._sample).tolist()]
        return pa.concat_tables([table.slice(int(self._rng.integers(len(table))), 1) for table in tables])

    def _all(self, days: list[pa.Table]) -> pa.Table:
        return pa.concat_tables(days) if days else self._requests.slice(0, 0)

    def _end(self) -> None:
        """After all compactions: every example once more."""
        for days in (self._logged, self._sealed):
            self._compare(self._all(days))
        late: NDArray[np.int64] = known_too_late(self.events, self._all(self._logged))
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
