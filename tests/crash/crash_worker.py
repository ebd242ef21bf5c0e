"""The one who dies: a random script of acts on a store, each announced before it begins and acknowledged after.

What it says goes through a pipe, whose content outlives it: (act, what is about to be done), then (act, the outcome).
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from kill_points import Fuse, KillPoint

import latewood as lw
import real_stores
from latewood.compaction import bulk_load
from latewood.intake import read_events
from latewood.schema import TIME_TYPE
from real_processes import watch

ACTS_MAX = 60  # a fuse that has not burnt down by then is no longer worth waiting for
_WEIGHTS = {"append": 8, "repeat": 1, "capture": 4, "compact": 2, "backfill": 1, "load": 0.5, "reopen": 0.5}


@dataclass
class Assignment:
    """What a worker is told: where, by which seed, where it dies, and what it must not use again."""

    folder: Path
    seed: int
    point: KillPoint
    first_serial: int
    first_request: int
    unsure: pa.Table | None  # a batch with event ids that may have landed: its source sends it again


class Worker:
    """The script. Every method named like an act does it; `_do` announces, acts and acknowledges."""

    def __init__(self, assignment: Assignment, pipe: Connection) -> None:
        self._folder, self._pipe = assignment.folder, pipe
        self._rng = np.random.default_rng(assignment.seed)
        self._fuse = Fuse(assignment.point)
        self._serial, self._request = assignment.first_serial, assignment.first_request
        self._sent = [] if assignment.unsure is None else [assignment.unsure]
        self._store: Any = None

    def run(self) -> None:
        warnings.filterwarnings("ignore", "0 of .* requests have any history", UserWarning)
        self._do("open", None, self._open)
        if self._sent:
            self._repeat()
        weights = dict(_WEIGHTS)
        if self._fuse.point.act in weights:
            weights[self._fuse.point.act] = sum(weights.values())  # every other act is one that may be the last
        acts, chances = list(weights), np.array(list(weights.values()))
        for _ in range(ACTS_MAX):
            getattr(self, "_" + self._rng.choice(acts, p=chances / chances.sum()))()
        self._store.close()

    def _do(self, act: str, plan: Any, work: Callable[[], Any]) -> Any:
        watch()
        self._pipe.send(("begin", act, plan))
        with self._fuse.burning(act):
            outcome = work()
        self._pipe.send(("done", act, outcome))
        return outcome

    def _open(self) -> None:
        path = self._folder / "store"
        try:
            self._store = lw.Store.open(path)
        except lw.StoreNotFoundError:
            self._store = lw.Store.create(path, real_stores.SCHEMA, shards=3)
        self._log = lw.ExampleLog(str(self._folder / "examples"), bucket_count=2)

    def _reopen(self) -> None:
        self._store.close()
        self._do("open", None, self._open)

    # Events

    def _events(self, most: int) -> pa.Table:
        count = int(self._rng.integers(1, most))
        serials = np.arange(self._serial, self._serial + count)
        self._serial += count
        return real_stores.make_events(self._rng, serials, self._now())

    def _now(self) -> int:
        return int(self._store.clock.now())

    def _append(self) -> None:
        table = self._events(120)
        kind = self._rng.random()
        if kind < 0.4:
            table = table.append_column(
                "event_id", pa.array([f"id-{serial}" for serial in table["serial"].to_pylist()])
            )
            self._sent.append(table)
        elif kind < 0.6:  # a replay's ingest times, which tie
            first = max(self._now(), self._store.tier.state().closed)
            times = first + self._rng.integers(0, 3, len(table))
            table = table.append_column("ingest_ts", pa.array(times).view(TIME_TYPE))
        self._append_table("append", table)

    def _append_table(self, act: str, table: pa.Table) -> None:
        def append() -> tuple[Any, ...]:
            receipt = self._store.append(table)
            return receipt.count, receipt.duplicates, receipt.ingest_ts, receipt.ordinal

        self._do(act, table, append)

    def _repeat(self) -> None:
        if self._sent:
            self._append_table("repeat", self._sent[int(self._rng.integers(len(self._sent)))])

    def _load(self) -> None:
        """Old data in bulk; here its ingest times are of now, since captures forbid older ones."""
        table = self._events(300)
        first = max(self._now(), self._store.tier.state().closed)
        times = first + self._rng.integers(0, 3, len(table))
        table = table.append_column("ingest_ts", pa.array(times).view(TIME_TYPE))

        def load() -> tuple[Any, ...]:
            intake = read_events(table, self._store.schema, self._store.encode)
            bulk_load(self._store, [intake.events])
            self._store.refresh()
            return len(table), 0, times, None  # where the ordinals come from is asked of the store

        self._do("load", table, load)

    def _compact(self) -> None:
        keep, workers = int(self._rng.integers(1, 3)), int(self._rng.integers(1, 3))
        self._do("compact", None, lambda: self._store.compact(keep=keep, workers=workers).id)

    # Examples

    def _requests(self, latest: int) -> pa.Table:
        count = int(self._rng.integers(1, 8))
        ids = np.arange(self._request, self._request + count)
        self._request += count
        times = latest - self._rng.integers(0, 3, count) * 10 * real_stores.TICK
        users = self._rng.integers(0, real_stores.USERS + 1, count)
        return pa.table({"request_id": ids, "user_id": users, "request_ts": pa.array(times).view(TIME_TYPE)})

    def _capture(self) -> None:
        requests = self._requests(self._now())
        self._log_examples("capture", requests, lambda: self._store.capture(requests).columns)

    def _backfill(self) -> None:
        closed = self._store.tier.state().closed
        if closed < 0:  # nothing was ever appended: there is no past
            return
        requests = self._requests(closed // real_stores.TICK * real_stores.TICK)  # no finer than the events' clock
        self._log_examples("backfill", requests, lambda: lw.backfill(self._store, requests, allow_empty=True))

    def _log_examples(self, act: str, requests: pa.Table, make: Callable[[], pa.Table]) -> None:
        def log() -> None:
            self._log.append(real_stores.with_digests(self._store, make()))
            self._log.flush()

        self._do(act, requests["request_id"].to_pylist(), log)
