"""A log for the mutable tier that any number of simulated processes share, each through a handle that can fail and die.

What is durable is kept as bytes, as on a disk: the state, the batches by segment, the runs of event ids. One writer at a
time holds the lock, and loses it when it dies. A commit is atomic; whether it happened is what a process that died in
it does not know.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import xxhash

from latewood.mutable.event_batch import EventBatch, decode_batch, encode_batch
from latewood.mutable.event_ids import IdRun
from latewood.mutable.log import LogFullError, LogState, SegmentGoneError
from latewood.testing.simulation.host import Host

Committed = Callable[[Host, LogState, LogState, list[EventBatch]], None]
_WHERE = "the simulated log"


class SimulatedLog:
    """What is durable, and who wants to know: `committed(host, before, after, batches)` is called at every commit."""

    def __init__(self, committed: Committed = lambda host, before, after, batches: None) -> None:
        self.state = LogState().to_bytes()
        self.segments: dict[int, dict[int, bytes]] = {0: {}}
        self.runs: dict[str, bytes] = {}
        self.writer: Host | None = None
        self.loader: Host | None = None
        self.claims: list[Host] = []  # of bulk loads, ever
        self.committed = committed
        self._head = self.state, LogState()

    def head(self) -> LogState:
        """The newest committed state, parsed once."""
        if self._head[0] is not self.state:
            self._head = self.state, LogState.from_bytes(self.state, _WHERE)
        return self._head[1]

    def delete_below(self, state: LogState) -> None:
        for number in [number for number in self.segments if number < state.segments[0].number]:
            del self.segments[number]


class LogHandle:
    """One process's handle. See `latewood.mutable.log.Log`."""

    def __init__(self, log: SimulatedLog, host: Host) -> None:
        self._log, self._host = log, host
        log.delete_below(log.head())

    def check_process(self) -> None:
        """Simulated processes do not fork."""

    def head(self) -> LogState:
        self._host.begin("log.head")
        return self._log.head()

    def read(self, first_batch: int, state: LogState) -> Iterator[EventBatch]:
        stops = [*(segment.first_batch for segment in state.segments[1:]), state.next_batch]
        for segment, stop in zip(state.segments, stops, strict=True):
            if (first := max(first_batch, segment.first_batch)) < stop:
                self._host.begin(f"log.read {first}:{stop}")
                if segment.number not in self._log.segments:
                    raise SegmentGoneError(segment.number)
                batches = self._log.segments[segment.number]
                for number in range(first, stop):
                    yield decode_batch(batches[number], number, _WHERE)

    @contextmanager
    def begin(self) -> Iterator["LogWriting"]:
        self._host.begin("log.begin")
        self._host.scheduler.wait_until(lambda: _free(self._log.writer))
        self._log.writer = self._host
        try:
            self._host.begin("log.begun")
            yield LogWriting(self._log, self._host)
        finally:
            if self._log.writer is self._host:
                self._log.writer = None

    def id_runs(self) -> list[IdRun]:
        self._host.begin("log.id_runs")
        runs = [IdRun.from_bytes(data, _WHERE) for data in self._log.runs.values()]
        return sorted(runs, key=lambda run: run.latest)

    def keep_ids(self, runs: list[IdRun]) -> None:
        kept = {xxhash.xxh3_64_hexdigest(data): data for data in (run.to_bytes() for run in runs)}
        for name, data in kept.items():
            self._host.begin(f"log.keep_ids {name}")
            self._log.runs[name] = data
        for name in [name for name in self._log.runs if name not in kept]:
            self._host.begin(f"log.drop_ids {name}")
            self._log.runs.pop(name, None)

    def forget(self, state: LogState) -> None:
        self._host.begin("log.forget")
        self._log.delete_below(state)

    def claim_load(self) -> bool:
        self._host.begin("log.claim_load")
        if not _free(self._log.loader):
            return False
        self._log.loader = self._host
        self._log.claims.append(self._host)
        return True

    def release_load(self) -> None:
        if self._log.loader is self._host:
            self._log.loader = None

    def close(self) -> None:
        """Nothing to let go of but a claim."""
        self.release_load()


class LogWriting:
    """A transaction. See `latewood.mutable.log.LogTransaction`."""

    def __init__(self, log: SimulatedLog, host: Host) -> None:
        self._log, self._host = log, host
        self.state = log.head()
        self._batches: dict[int, bytes] = {}

    def put(self, number: int, batch: EventBatch) -> None:
        self._batches[number] = bytes(encode_batch(batch, number))

    def commit(self, state: LogState) -> None:
        host, log, before = self._host, self._log, self.state
        host.begin("log.commit")
        if host.happens(host.faults.full):
            raise LogFullError
        for segment in state.segments:
            log.segments.setdefault(segment.number, {})
        for number, data in self._batches.items():
            holder = max(segment.number for segment in state.segments if segment.first_batch <= number)
            log.segments[holder][number] = data
        log.state = state.to_bytes()
        log.committed(host, before, state, [decode_batch(data, n, _WHERE) for n, data in self._batches.items()])
        host.end("log.commit")


def _free(owner: Host | None) -> bool:
    return owner is None or not owner.alive
