"""What the processes do that share one store. Each does one thing over and over until its time is up.

Whoever changes the store says before what it is about to do and after what came of it, so that all that happened can be
told at the end. Nobody handles an error, but for the one that the protocol knows: of two compactors one loses.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pyarrow as pa

import latewood as lw
import real_stores
from latewood.schema import TIME_TYPE
from real_processes import watch

SHARED_SERIALS = 10**9  # both writers are handed these batches, as two consumers of one topic may be
SHARED_EVENTS = 20
SAMPLE = 200


@dataclass
class Place:
    """Where it happens, who is meant, and until when."""

    folder: Path
    number: int  # of the process; its serials and request numbers are its own
    seed: int
    until: float  # on the monotonic clock, which all processes of a machine share
    pipe: Connection

    @property
    def path(self) -> Path:
        return self.folder / "store"

    @property
    def examples(self) -> Path:
        return self.folder / "examples"

    def say(self, what: str, *more: Any) -> None:
        self.pipe.send((what, *more))


class Role:
    """One process. `act` is done until the time is up, with a pause in between: two cores have room for few."""

    read_only = False
    pause_s = 0.01

    def __init__(self, place: Place) -> None:
        self.place = place
        self.rng = np.random.default_rng([place.seed, place.number])
        self.count = 0

    def run(self) -> None:
        warnings.filterwarnings("ignore", "0 of .* requests have any history", UserWarning)
        with lw.Store.open(self.place.path, read_only=self.read_only) as self.store:
            while monotonic() < self.place.until:
                watch()
                self.act()
                self.count += 1
                sleep(self.rng.exponential(self.pause_s))
        self.place.say("ended", type(self).__name__, self.count)

    def act(self) -> None:
        raise NotImplementedError

    def now(self) -> int:
        return int(self.store.clock.now())


class Writer(Role):
    """Appends: stamped by the store, or with ingest times of its own; with event ids, or without."""

    def act(self) -> None:
        kind = self.rng.random()
        if kind < 0.25:
            self.append(shared_batch(self.place.seed, self.count))
            return
        first = self.place.number * 10**7 + self.count * 1000
        table = real_stores.make_events(self.rng, first + np.arange(self.rng.integers(1, 60)), self.now())
        if kind < 0.5:
            times = pa.array(self.now() + self.rng.integers(-2000, 3, len(table))).view(TIME_TYPE)
            table = table.append_column("ingest_ts", times)
        self.append(table)

    def append(self, table: pa.Table) -> None:
        self.place.say("begin", table)
        receipt = self.store.append(table, late="stamp")
        self.place.say("done", receipt.count, receipt.duplicates, receipt.ingest_ts, receipt.ordinal)


def shared_batch(seed: int, number: int) -> pa.Table:
    """The same events whoever asks."""
    serials = SHARED_SERIALS + number * SHARED_EVENTS + np.arange(SHARED_EVENTS)
    table = real_stores.make_events(np.random.default_rng([seed, number]), serials, 1_700_000_000_000_000)
    return table.append_column("event_id", pa.array([f"shared-{serial}" for serial in serials]))


class Compactor(Role):
    """Compacts; loses a race now and then."""

    pause_s = 0.1
    lost = 0

    def act(self) -> None:
        try:
            self.store.compact(keep=2, workers=1)
        except lw.ConflictError:
            self.lost += 1

    def run(self) -> None:
        super().run()
        self.place.say("lost", self.lost)


class Victim(Writer):
    """Writes and compacts like the others, but is killed every now and then, and another takes its place."""

    def act(self) -> None:
        if self.rng.random() < 0.7:
            super().act()
            return
        with suppress(lw.ConflictError):
            self.store.compact(workers=1)


class Server(Role):
    """Captures, logs, and looks again at what it logged before."""

    def run(self) -> None:
        self.log = lw.ExampleLog(str(self.place.examples), bucket_count=2)
        self.logged: list[pa.Table] = []
        super().run()

    def act(self) -> None:
        if self.rng.random() < 0.3 and self.store.tier is not None:
            closed = self.store.tier.state().closed // real_stores.TICK * real_stores.TICK
            self._log(lambda requests: lw.backfill(self.store, requests, allow_empty=True), closed)
        else:
            self._log(lambda requests: self.store.capture(requests).columns, self.now())
        sample = self.logged[int(self.rng.integers(len(self.logged)))]
        check(self.store, sample)

    def _log(self, make: Callable[[pa.Table], pa.Table], latest: int) -> None:
        count = int(self.rng.integers(1, 8))
        ids = self.place.number * 10**6 + self.count * 10 + np.arange(count)
        times = latest - self.rng.integers(0, 3, count) * 10 * real_stores.TICK
        users = self.rng.integers(0, real_stores.USERS + 1, count)
        requests = pa.table({"request_id": ids, "user_id": users, "request_ts": pa.array(times).view(TIME_TYPE)})
        examples = real_stores.with_digests(self.store, make(requests))
        self.log.append(examples)
        self.log.flush()
        self.logged.append(examples)
        self.place.say("logged", ids.tolist())


class Trainer(Role):
    """Trains on all that is logged by now, row by row and through a loader."""

    read_only = True
    pause_s = 0.02

    def act(self) -> None:
        log = real_stores.read_log(self.place.examples)
        if log is None:
            return
        check(self.store, log.take(self.rng.integers(0, len(log), min(SAMPLE, len(log)))))
        loader = lw.Loader(self.store, str(self.place.examples), real_stores.EVERYTHING, batch_size=32, seed=self.count)
        for batch in loader:
            compare(batch, batch.features["served"].to_pylist())


def check(store: lw.Store, examples: pa.Table) -> None:
    compare(lw.Materializer(store, real_stores.EVERYTHING)(examples), examples["served"].to_pylist())


def compare(batch: lw.Batch, served: list[str]) -> None:
    now = real_stores.digests(batch)
    wrong = [row for row in range(len(now)) if now[row] != served[row] and batch.weights[row]]
    assert not wrong, f"examples materialize to other bytes than when logged: {batch.features.take(wrong).to_pylist()}"
