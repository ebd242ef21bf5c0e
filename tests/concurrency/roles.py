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
from real_ledger import Batch
from real_processes import watch

# Above all of a process's own. Both writers are handed these batches, as two consumers of one topic may be.
SHARED_SERIALS = 10**11
SHARED_EVENTS = 20
SAMPLE = 200


@dataclass
class Place:
    """Where it happens, who is meant, and until when."""

    folder: Path
    number: int  # of the process; its serials and request numbers are its own
    seed: int
    scrubs_from: float  # on the monotonic clock, which all processes of a machine share
    until: float
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
            self.append(Batch(shared_batch(self.place.seed, self.count)))
            return
        table = self.events(60)
        if kind < 0.5:
            times = pa.array(self.now() + self.rng.integers(-2000, 3, len(table))).view(TIME_TYPE)
            table = table.append_column("ingest_ts", times)
        self.append(Batch(table))

    def events(self, most: int) -> pa.Table:
        serials = self.place.number * 10**7 + self.count * 1000 + np.arange(self.rng.integers(1, most))
        return real_stores.make_events(self.rng, serials, self.now())

    def append(self, batch: Batch) -> lw.AppendReceipt:
        self.place.say("begin", batch)
        receipt = self.store.append(batch.table, late="stamp")
        counts = receipt.count, receipt.duplicates, receipt.skipped
        self.place.say("done", *counts, receipt.ingest_ts, receipt.ordinal)
        return receipt


def shared_batch(seed: int, number: int) -> pa.Table:
    """The same events whoever asks."""
    serials = SHARED_SERIALS + number * SHARED_EVENTS + np.arange(SHARED_EVENTS)
    table = real_stores.make_events(np.random.default_rng([seed, number]), serials, 1_700_000_000_000_000)
    return table.append_column("event_id", pa.array([f"shared-{serial}" for serial in serials]))


class Corrector(Writer):
    """Appends, and takes some of it back or says it anew, by place or by id."""

    def act(self) -> None:
        table = self.events(8)
        ids = _ids(table["serial"].to_pylist())
        receipt = self.append(Batch(table.append_column("event_id", ids)))
        rows = np.flatnonzero((receipt.ordinal >= 0) & (self.rng.random(len(table)) < 0.6))
        if not len(rows):
            return
        sleep(self.rng.exponential(0.05))  # a compaction may come in between
        serials = table["serial"].to_numpy()[rows]
        new = real_stores.make_events(self.rng, serials + 500, self.now())
        new = new.set_column(0, "user_id", table["user_id"].take(pa.array(rows)))
        if self.rng.random() < 0.5:
            named = _ids(serials.tolist())
        else:
            event_ts = table["event_ts"].take(pa.array(rows)).combine_chunks()
            columns = [event_ts, pa.array(receipt.ingest_ts[rows]), pa.array(receipt.ordinal[rows])]
            named = pa.StructArray.from_arrays(columns, ["event_ts", "ingest_ts", "ordinal"])
        if self.rng.random() < 0.4:
            deletions = pa.table({"user_id": new["user_id"], "supersedes": named})
            self.append(Batch(deletions, tuple(serials.tolist())))
        else:
            self.append(Batch(new.append_column("supersedes", named), tuple(serials.tolist())))


def _ids(serials: list[int]) -> pa.Array:
    return pa.array([f"id-{serial}" for serial in serials], pa.string())


class Scrubber(Role):
    """Forgets a user now and then, from the middle of the run on."""

    pause_s = 1.0

    def act(self) -> None:
        if monotonic() < self.place.scrubs_from:
            return
        user, compact = int(self.rng.integers(real_stores.USERS)), bool(self.rng.random() < 0.5)
        receipt = self.store.scrub(user_ids=[user], compact=compact)
        self.place.say("scrubbed", user, receipt.scrub_ts)


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
        closed = -1 if self.store.tier is None else self.store.tier.state().closed
        if self.rng.random() < 0.3 and closed >= 0:  # before the first append there is no past
            closed = closed // real_stores.TICK * real_stores.TICK
            self._log(lambda requests: lw.backfill(self.store, requests, allow_empty=True), closed)
        else:
            self._log(lambda requests: self.store.capture(requests).columns, self.now())
        check(self.place, self.store, self.logged[int(self.rng.integers(len(self.logged)))])

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
        check(self.place, self.store, log.take(self.rng.integers(0, len(log), min(SAMPLE, len(log)))))
        where, view = str(self.place.examples), real_stores.EVERYTHING
        for batch in lw.Loader(self.store, where, view, batch_size=32, seed=self.count, on_missing="mask"):
            watch()  # an epoch grows with the log
            compare(self.place, batch, batch.features["served"].to_pylist())


def check(place: Place, store: lw.Store, examples: pa.Table) -> None:
    batch = lw.Materializer(store, real_stores.EVERYTHING, on_missing="mask")(examples)
    compare(place, batch, examples["served"].to_pylist())


def compare(place: Place, batch: lw.Batch, served: list[str]) -> None:
    """The same bytes as when logged; until someone is forgotten, of every example."""
    now = real_stores.digests(batch)
    wrong = [row for row in range(len(now)) if now[row] != served[row] and batch.weights[row]]
    assert not wrong, f"examples materialize to other bytes than when logged: {batch.features.take(wrong).to_pylist()}"
    assert batch.weights.all() or monotonic() > place.scrubs_from, "examples are refused though nobody was forgotten"
