"""Writers, compactors, servers and trainers, each a process, on one store at once; and one that is killed again and again.

    python tests/concurrency/concurrency_run.py --seconds 120 --seed 1

While they run, nobody may see an error, nor an example that is not what was logged. When all have ended, every event is
in the store once, every example equals the oracle over all events known by then, and nothing is left behind.
"""

# ruff: noqa: E402 - a script finds only what lies beside it; what all tests share lies a folder up
import argparse
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import monotonic
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from roles import SHARED_SERIALS, Compactor, Corrector, Place, Role, Scrubber, Server, Trainer, Victim, Writer

import latewood as lw
import real_stores
from latewood.testing import different_rows
from real_ledger import Batch
from real_processes import SILENCE_S, Child, children, open_in

ROLES: tuple[type[Role], ...] = (
    *(Writer, Writer, Corrector, Compactor, Compactor, Server, Server, Trainer, Trainer),
    *(Scrubber, Victim),
)


@dataclass
class Told:
    """What one process said: of its appends and its examples, and how it ended."""

    role: str
    pending: Batch | None = None
    appends: list[tuple[Batch, Any]] = field(default_factory=list)  # a batch, and what came of it; None: unknown
    scrubs: list[tuple[int, int]] = field(default_factory=list)  # user, when
    logged: list[int] = field(default_factory=list)
    acts: int = 0
    lost: int = 0

    def hear(self, what: str, *more: Any) -> None:
        if what == "begin":
            self.pending = more[0]
        elif what == "done":
            assert self.pending is not None
            self.appends.append((self.pending, more))
            self.pending = None
        elif what == "logged":
            self.logged += more[0]
        elif what == "scrubbed":
            self.scrubs.append(more)  # type: ignore[arg-type]
        elif what == "lost":
            self.lost = more[0]
        elif what == "ended":
            self.acts = more[1]

    def close(self) -> None:
        if self.pending is not None:
            self.appends.append((self.pending, None))
            self.pending = None


class Run:
    """All processes of one run."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.scrubs_from, self.until = monotonic() + seconds / 2, monotonic() + seconds
        self.rng = np.random.default_rng(seed)
        self.running: dict[Connection, tuple[Child, Told]] = {}
        self.told: list[Told] = []
        self.problems: list[str] = []
        self.kills = 0

    def run(self) -> None:
        for role in ROLES:
            self._start(role)
        next_kill = self._next_kill()
        while self.running:
            for pipe in wait(list(self.running), max(0.0, min(1.0, next_kill - monotonic()))):
                self._hear(pipe)  # type: ignore[arg-type]
            if monotonic() >= next_kill:
                self._kill()
                next_kill = self._next_kill()
            if monotonic() > self.until + SILENCE_S:
                self.problems.append(f"still running: {[told.role for _, told in self.running.values()]}")
                self._end_all()

    def _start(self, role: type[Role]) -> None:
        number = len(self.told) + 1
        times = self.scrubs_from, self.until
        child = Child.fork(lambda pipe: role(Place(self.folder, number, self.seed, *times, pipe)).run())
        told = Told(role.__name__)
        self.told.append(told)
        self.running[child.pipe] = child, told

    def _next_kill(self) -> float:
        return monotonic() + self.rng.uniform(0.2, 1.0) if monotonic() < self.until else float("inf")

    def _kill(self) -> None:
        for child, told in list(self.running.values()):
            if told.role == "Victim":
                os.kill(child.pid, signal.SIGKILL)
                self.kills += 1
                self._drain(child, told)
                self._start(Victim)

    def _drain(self, child: Child, told: Told) -> None:
        while child.pipe in self.running:
            self._hear(child.pipe)

    def _hear(self, pipe: Connection) -> None:
        child, told = self.running[pipe]
        try:
            said = pipe.recv()
        except (EOFError, OSError):
            del self.running[pipe]
            told.close()
            status = child.wait()
            if status not in (0, -signal.SIGKILL) or (status and told.role != "Victim"):
                self.problems.append(f"a {told.role} ended with {status}")
            return
        if said[0] == "error":
            self.problems.append(f"a {told.role} failed:\n{said[1]}")
        else:
            told.hear(*said)

    def _end_all(self) -> None:
        for child, told in list(self.running.values()):
            os.kill(child.pid, signal.SIGKILL)
            self._drain(child, told)


# ---- the end


def verify(folder: Path, told: list[Told]) -> tuple[list[str], dict[str, int]]:
    """What is wrong with the store now that all have ended, and the figures."""
    problems: list[str] = []
    scrubs = [scrub for one in told for scrub in one.scrubs]
    scrubbed_at = {user: max(at for scrubbed, at in scrubs if scrubbed == user) for user, _ in scrubs}
    with lw.Store.open(folder / "store") as store:
        store.compact()  # applies the last scrub
        stored = real_stores.in_order(real_stores.stored_events(store))
        if repeated := real_stores.repeated(stored["serial"]):
            problems.append(f"events more than once: serials {repeated[:5]}")
        known = Truth(stored, scrubbed_at, problems).of(told)
        if len(stored) != len(known) or len(different_rows(stored, known)):
            have, want = set(stored["serial"].to_pylist()), set(known["serial"].to_pylist())
            lost, strange = sorted(want - have)[:5], sorted(have - want)[:5]
            problems.append(f"lost: {lost}, nobody appended: {strange}, or else they differ")
        pq.write_table(known, folder / "known.parquet")  # to look into, if anything is wrong
        compared = 0
        for _ in range(2):  # before and after two more compactions, of which the second collects the last files
            log = real_stores.read_log(folder / "examples")
            ids = [] if log is None else log["request_id"].to_pylist()
            if sorted(ids) != sorted(number for one in told for number in one.logged):
                problems.append("the log does not have each request once")
            if log is not None:
                problems += real_stores.different_examples(store, log, known, scrubbed_at)
                compared += len(log)
            known = pa.concat_tables([known, _tidy(folder, store, problems)])
    figures = {"events": len(stored), "scrubs": len(scrubs), "generations": store_generations(folder)}
    figures["superseded"] = len(stored) - stored["superseded_at"].null_count
    return problems, figures | {"examples_compared": compared}


def store_generations(folder: Path) -> int:
    return len(list((folder / "store" / "manifests").iterdir()))


class Truth:
    """All events that must be there, by what was acknowledged; what is not sure is whole or not at all."""

    def __init__(self, stored: pa.Table, scrubbed_at: dict[int, int], problems: list[str]) -> None:
        columns = (stored[name].to_pylist() for name in ("serial", "ingest_ts", "ordinal"))
        self._stored = {serial: place for serial, *place in zip(*columns, strict=True)}
        self._scrubbed_at, self._problems = scrubbed_at, problems
        self._superseded: dict[int, int] = {}

    def of(self, told: list[Told]) -> pa.Table:
        batches: dict[Any, list[tuple[Batch, Any]]] = {}
        for one in told:
            for batch, outcome in one.appends:
                serials = batch.serials() if "serial" in batch.table.column_names else []
                batches.setdefault(serials[0] if serials else id(batch), []).append((batch, outcome))
        parts = [self._rows(appends) for appends in batches.values()]
        events = real_stores.in_order(pa.concat_tables([real_stores.NO_EVENTS, *parts]))
        times = pa.array([self._superseded.get(serial) for serial in events["serial"].to_pylist()], pa.int64())
        return events.set_column(events.column_names.index("superseded_at"), "superseded_at", times)

    def _rows(self, appends: list[tuple[Batch, Any]]) -> pa.Table:
        """The rows of a batch that are there, whoever appended it, and however often."""
        batch, outcomes = appends[0][0], [outcome for _, outcome in appends if outcome is not None]
        for outcome in outcomes:
            for row, target in enumerate(batch.targets):
                if outcome[3][row] and (outcome[4][row] >= 0 or "serial" not in batch.table.column_names):
                    self._superseded[target] = min(int(outcome[3][row]), self._superseded.get(target, 2**62))
        if "serial" not in batch.table.column_names:  # nothing but deletions
            return real_stores.NO_EVENTS
        places = self._unsure(batch) if len(outcomes) < len(appends) else self._sure(batch, outcomes)
        times = self._scrubbed_at
        users = batch.table["user_id"].to_pylist()
        there = [
            place is not None and place[0] > times.get(user, place[0] - 1)
            for place, user in zip(places, users, strict=True)
        ]
        ingest_ts, ordinal = (np.array([place[i] if place else 0 for place in places]) for i in (0, 1))
        return real_stores.in_order(real_stores.with_receipt(batch.table, ingest_ts, ordinal).filter(pa.array(there)))

    def _sure(self, batch: Batch, outcomes: list[Any]) -> list[Any]:
        """Each row's place, None where it was skipped."""
        first, n = batch.serials()[0], len(batch.table)
        found: list[Any] = [None] * n
        for count, duplicates, skipped, ingest_ts, ordinal in outcomes:
            if count + duplicates + skipped != n or skipped != int((ordinal < 0).sum()):
                self._problems.append(f"batch {first} of {n} was counted as {count, duplicates, skipped}")
            for row, place in enumerate(zip(ingest_ts.tolist(), ordinal.tolist(), strict=True)):
                if place[1] >= 0 and found[row] not in (None, place):
                    self._problems.append(f"batch {first}, row {row}: receipts that contradict each other")
                found[row] = place if place[1] >= 0 else found[row]
        landed = sum(place is not None for place in found)
        if sum(outcome[0] for outcome in outcomes) != landed or (len(outcomes) > 1 and first < SHARED_SERIALS):
            self._problems.append(f"batch {first}: of {landed} events, {[outcome[0] for outcome in outcomes]} were new")
        return found

    def _unsure(self, batch: Batch) -> list[Any]:
        """Of a batch whose process died, or that one of two wrote who died: what there is, if it can be."""
        found = [self._stored.get(serial) for serial in batch.serials()]
        never_scrubbed = [
            place is not None
            for place, user in zip(found, batch.table["user_id"].to_pylist(), strict=True)
            if user not in self._scrubbed_at
        ]
        if any(never_scrubbed) and not all(never_scrubbed):
            self._problems.append(f"batch {batch.serials()[0]}: only {sum(never_scrubbed)} of {len(never_scrubbed)}")
        return found


def _tidy(folder: Path, store: lw.Store, problems: list[str]) -> pa.Table:
    """Two compactions, after which no file may be there that nothing accounts for."""
    added = []
    for _ in range(2):
        serial = np.array([10**12 + store.clock.now() % 10**12])
        table = real_stores.make_events(np.random.default_rng(serial), serial, store.clock.now())
        future = pa.array([store.clock.now() + real_stores.TICK]).view(table["event_ts"].type)  # of no scrubbed time
        table = table.set_column(table.column_names.index("event_ts"), "event_ts", future)
        receipt = store.append(table)
        added.append(real_stores.in_order(real_stores.with_receipt(table, receipt.ingest_ts, receipt.ordinal)))
        newest = store.compact(keep=2)
    before = store.catalog.load(newest.id - 1)
    kept = [newest, *([before] if before.scrubs == newest.scrubs else [])]
    if stray := real_stores.stray_files(folder / "store", kept):
        problems.append(f"left behind: {stray}")
    return pa.concat_tables(added)


def warm_up(folder: Path) -> None:
    """Compile and load what the forked processes will need: one act of each, in this process."""

    class Ear:
        def send(self, _: Any) -> None:
            pass

    lw.Store.create(folder / "store", real_stores.SCHEMA, shards=2).close()
    for role in (Writer, Corrector, Compactor, Server, Writer, Scrubber, Compactor, Trainer):
        role(Place(folder, 1, 0, monotonic(), monotonic() + 0.3, Ear())).run()  # type: ignore[arg-type]
    gc.collect()  # a loader that was dropped keeps its files open until then; what is open here is open in every fork
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the store is made; kept after a failure")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="latewood-concurrency-"))
    warm_up(folder / "warm-up")
    lw.Store.create(folder / "store", real_stores.SCHEMA, shards=3).close()
    run = Run(folder, options.seconds, options.seed)
    run.run()
    verifier = Child.fork(lambda pipe: pipe.send(("verified", *verify(folder, run.told))))
    said = verifier.pipe.recv()
    problems = [*run.problems, *([said[1]] if said[0] == "error" else said[1])]
    if verifier.wait():
        problems.append("the verifier did not end well")
    problems += [f"processes left behind: {left}" for left in [children()] if left]
    problems += [f"files left open: {held}" for held in [open_in(folder)] if held]
    acts: Counter[str] = Counter()
    for told in run.told:
        acts[told.role] += told.acts or len(told.appends)
    figures = {"seed": options.seed, "seconds": options.seconds, "kills": run.kills, "acts": dict(acts)}
    figures |= {"lost_races": sum(told.lost for told in run.told)} | (said[2] or {})
    print(json.dumps(figures | {"problems": problems[:20]}, indent=1))
    if problems:
        print(f"the store is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
