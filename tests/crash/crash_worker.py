"""The one who dies: a random script of acts on a store, each announced before it begins and acknowledged after.

What it says goes through a pipe, whose content outlives it: (act, what is about to be done), then (act, the outcome).
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
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
from real_ledger import Batch
from real_processes import watch

ACTS_MAX = 60  # a fuse that has not burnt down by then is no longer worth waiting for
_WEIGHTS = {
    "append": 8,
    "repeat": 1,
    "correct": 3,
    "capture": 4,
    "compact": 2,
    "backfill": 1,
    "load": 0.5,
    "scrub": 0.5,
}
_WEIGHTS |= {"alter": 0.3, "pin": 0.3, "rollback": 0.3, "seal": 0.5, "reopen": 0.5}


@dataclass
class Assignment:
    """What a worker is told: where, by which seed, where it dies, and what it must not use again."""

    folder: Path
    seed: int
    point: KillPoint
    first_serial: int
    first_request: int
    unsure: Batch | None  # a batch with event ids that may have landed: its source sends it again
    known: pa.Table  # some events that are there


class Worker:
    """The script. Every method named like an act does it; `_do` announces, acts and acknowledges."""

    def __init__(self, assignment: Assignment, pipe: Connection, fuse: Fuse | None = None) -> None:
        self._folder, self._pipe = assignment.folder, pipe
        self._rng = np.random.default_rng(assignment.seed)
        self._fuse = fuse or Fuse(assignment.point)
        self._serial, self._request = assignment.first_serial, assignment.first_request
        self._sent = [] if assignment.unsure is None else [assignment.unsure]
        self._known = assignment.known.to_pylist()
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
            table = table.append_column("event_id", _ids(table["serial"].to_pylist()))
            self._sent.append(Batch(table))
        elif kind < 0.6:  # a replay's ingest times, which tie
            first = max(self._now(), self._store.tier.state().closed)
            times = first + self._rng.integers(0, 3, len(table))
            table = table.append_column("ingest_ts", pa.array(times).view(TIME_TYPE))
        self._append_batch("append", Batch(table))

    def _append_batch(self, act: str, batch: Batch) -> None:
        def append() -> tuple[Any, ...]:
            receipt = self._store.append(batch.table)
            return receipt.count, receipt.duplicates, receipt.skipped, receipt.ingest_ts, receipt.ordinal

        outcome = self._do(act, batch, append)
        if act == "append":
            there = pa.array(outcome[4] >= 0)
            stored = real_stores.with_receipt(batch.table, *outcome[3:])
            has_id = pa.array([("event_id" in batch.table.column_names)] * len(stored))
            self._known += stored.append_column("has_id", has_id).filter(there).slice(0, 5).to_pylist()

    def _repeat(self) -> None:
        if self._sent:
            self._append_batch("repeat", self._sent[int(self._rng.integers(len(self._sent)))])

    def _correct(self) -> None:
        """Corrections and deletions of events that are there, by id or by place; the first row is a plain event."""
        by_id = bool(self._rng.random() < 0.5)
        chosen = [event for event in self._known if event["has_id"] or not by_id]
        self._rng.shuffle(chosen)
        chosen = chosen[: int(self._rng.integers(1, 4))]
        self._known = [event for event in self._known if event not in chosen]
        named = _ids([event["serial"] for event in chosen]) if by_id else _places(chosen)
        targets = [None, *(event["serial"] for event in chosen)]
        serials = np.arange(self._serial, self._serial + len(targets))
        self._serial += len(targets)
        table = real_stores.make_events(self._rng, serials, self._now())
        table = _replaced(table, "user_id", [table["user_id"][0].as_py(), *(event["user_id"] for event in chosen)])
        late = [self._now() + real_stores.TICK, *table["event_ts"].cast(pa.int64()).to_pylist()[1:]]
        table = _replaced(table, "event_ts", late)  # in the future, so that no scrub can have taken the first
        gone = self._rng.random(len(targets)) < 0.4
        gone[0] = False
        for name in ("event_ts", *real_stores.TRAITS.names):
            table = _replaced(table, name, table[name].take(pa.array(np.arange(len(table)), mask=gone)))
        supersedes = pa.concat_arrays([pa.nulls(1, named.type), named])
        self._append_batch("correct", Batch(table.append_column("supersedes", supersedes), tuple(targets)))

    def _load(self) -> None:
        """Old data in bulk; here its ingest times are of now, since captures forbid older ones."""
        table = self._events(300)
        first = max(self._now(), self._store.tier.state().closed)
        times = first + self._rng.integers(0, 3, len(table))
        table = table.append_column("ingest_ts", pa.array(times).view(TIME_TYPE))

        def load() -> tuple[Any, ...]:
            try:
                bulk_load(self._store, [read_events(table, self._store.schema, self._store.encode).events])
            except lw.ConflictError as error:  # a scrub that a crash left undone was finished first, and blanked values
                if "a scrub blanked values" not in str(error):
                    raise
                bulk_load(self._store, [read_events(table, self._store.schema, self._store.encode).events])
            self._store.refresh()
            return times

        self._do("load", Batch(table), load)

    # What changes the store as a whole

    def _scrub(self) -> None:
        if self._rng.random() < 0.5:
            plan = {"users": self._rng.integers(0, real_stores.USERS, 1).tolist()}
            arguments: dict[str, Any] = {"user_ids": plan["users"]}
        else:
            words = [event["word"] for event in self._known if event["word"]] or ["nobody says this"]
            plan = {"word": str(self._rng.choice(words))}
            arguments = {"where": lw.col("word") == plan["word"]}
        compact = bool(self._rng.random() < 0.7)
        self._known = []
        self._do("scrub", plan, lambda: self._store.scrub(**arguments, compact=compact).scrub_ts)

    def _alter(self) -> None:
        schema, kind = self._store.changes.latest(self._store.generation).schema, self._rng.random()
        extra = [trait.name for trait in schema if trait.name.startswith("extra")]
        change: dict[str, Any] = {"shards": int(self._rng.integers(1, 5))}
        if kind < 0.4:
            change = {"add": [pa.field(f"extra-{self._rng.integers(10**9)}", pa.int32())]}
        elif kind < 0.7 and extra:
            change = {"drop": extra[:1]}
        self._do("alter", None, lambda: self._store.alter(**change) and None)

    def _pin(self) -> None:
        if self._rng.random() < 0.5:
            self._do("pin", None, lambda: self._store.pin("run", timedelta(hours=1)) and None)
        else:
            self._do("pin", None, lambda: self._store.unpin("run"))

    def _rollback(self) -> None:
        """To the generation before, if that can be."""

        def roll_back() -> None:
            with suppress(lw.ConflictError):
                self._store.rollback(max(0, self._store.generation.id - 1))

        self._do("rollback", None, roll_back)

    def _seal(self) -> None:
        if list((self._folder / "examples").rglob("*.parquet")):
            self._do("seal", None, lambda: lw.seal(self._store, str(self._folder / "examples")) and None)

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


def _ids(serials: list[int]) -> pa.Array:
    return pa.array([f"id-{serial}" for serial in serials], pa.string())


def _places(events: list[dict[str, Any]]) -> pa.Array:
    names = ("event_ts", "ingest_ts", "ordinal")
    type_ = pa.struct([("event_ts", TIME_TYPE), ("ingest_ts", pa.int64()), ("ordinal", pa.int32())])
    return pa.array([{name: event[name] for name in names} for event in events], type_)


def _replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    type_ = table[name].type
    return table.set_column(
        table.column_names.index(name), name, values if isinstance(values, pa.ChunkedArray) else pa.array(values, type_)
    )
