"""Writers, compactors, servers and trainers, each a process, on one store at once; and one that is killed again and again.

    python tests/concurrency/concurrency_run.py --seconds 120 --seed 1

While they run, nobody may see an error, nor an example that is not what was logged. When all have ended, every event is
in the store once, every example equals the oracle over all events known by then, and nothing is left behind.
"""

# ruff: noqa: E402 - a script finds only what lies beside it; what all tests share lies a folder up
import argparse
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
from roles import SHARED_SERIALS, Compactor, Place, Role, Server, Trainer, Victim, Writer

import latewood as lw
import real_stores
from latewood.testing import different_rows
from real_processes import SILENCE_S, Child, children, open_in

ROLES: tuple[type[Role], ...] = (Writer, Writer, Compactor, Compactor, Server, Server, Trainer, Trainer, Victim)


@dataclass
class Told:
    """What one process said: of its appends and its examples, and how it ended."""

    role: str
    pending: pa.Table | None = None
    appends: list[tuple[pa.Table, Any]] = field(default_factory=list)  # a batch, and what came of it; None: unknown
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
        self.folder, self.seed, self.until = folder, seed, monotonic() + seconds
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
        child = Child.fork(lambda pipe: role(Place(self.folder, number, self.seed, self.until, pipe)).run())
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
    with lw.Store.open(folder / "store") as store:
        stored = real_stores.in_order(real_stores.stored_events(store))
        if repeated := real_stores.repeated(stored["serial"]):
            problems.append(f"events more than once: serials {repeated[:5]}")
        known = _known(told, stored, problems)
        if len(stored) != len(known) or len(different_rows(stored, known)):
            have, want = set(stored["serial"].to_pylist()), set(known["serial"].to_pylist())
            problems.append(f"lost: {sorted(want - have)[:5]}, nobody appended: {sorted(have - want)[:5]}")
        compared = 0
        for _ in range(2):  # before and after two more compactions, of which the second collects the last files
            log = real_stores.read_log(folder / "examples")
            ids = [] if log is None else log["request_id"].to_pylist()
            if sorted(ids) != sorted(number for one in told for number in one.logged):
                problems.append("the log does not have each request once")
            if log is not None:
                problems += real_stores.different_examples(store, log, known)
                compared += len(log)
            known = pa.concat_tables([known, _tidy(folder, store, problems)])
    events = len(stored)
    return problems, {"events": events, "generations": store.catalog.latest().id, "examples_compared": compared}


def _known(told: list[Told], stored: pa.Table, problems: list[str]) -> pa.Table:
    """All events that must be there, by what was acknowledged; what is not sure is whole or not at all."""
    times = dict(zip(stored["serial"].to_pylist(), _places(stored), strict=True))
    batches: dict[int, list[tuple[pa.Table, Any]]] = {}
    for one in told:
        for table, outcome in one.appends:
            batches.setdefault(table["serial"][0].as_py(), []).append((table, outcome))
    known = [stored.slice(0, 0)]
    for first, appends in batches.items():
        table, outcomes = appends[0][0], [outcome for _, outcome in appends if outcome is not None]
        there = [serial for serial in table["serial"].to_pylist() if serial in times]
        if not outcomes and not there:
            continue
        if len(there) < len(table):
            problems.append(f"of batch {first}, {len(there)} of {len(table)} are there")
            continue
        counts = [count for count, _, _, _ in outcomes]
        sure = len(outcomes) == len(appends)
        if sum(counts) != len(table) and (sure or sum(counts)):
            problems.append(f"batch {first} of {len(table)} was counted as {counts}")
        found = [list(zip(i.tolist(), o.tolist(), strict=True)) for _, _, i, o in outcomes]
        found = found or [[times[serial] for serial in table["serial"].to_pylist()]]
        if any(places != found[0] for places in found) or (len(appends) > 1 and first < SHARED_SERIALS):
            problems.append(f"batch {first}: receipts that contradict each other")
        ingest_ts, ordinal = (np.array(column) for column in zip(*found[0], strict=True))
        known.append(real_stores.in_order(real_stores.with_receipt(table, ingest_ts, ordinal)))
    return real_stores.in_order(pa.concat_tables(known))


def _places(stored: pa.Table) -> list[tuple[int, int]]:
    return list(zip(stored["ingest_ts"].to_pylist(), stored["ordinal"].to_pylist(), strict=True))


def _tidy(folder: Path, store: lw.Store, problems: list[str]) -> pa.Table:
    """Two compactions, after which no file may be there that nothing accounts for."""
    added = []
    for _ in range(2):
        serial = np.array([10**12 + store.clock.now() % 10**12])
        table = real_stores.make_events(np.random.default_rng(serial), serial, store.clock.now())
        receipt = store.append(table)
        added.append(real_stores.in_order(real_stores.with_receipt(table, receipt.ingest_ts, receipt.ordinal)))
        newest = store.compact(keep=2)
    kept = [newest, store.catalog.load(newest.id - 1)]
    if stray := real_stores.stray_files(folder / "store", kept):
        problems.append(f"left behind: {stray}")
    return pa.concat_tables(added)


def warm_up(folder: Path) -> None:
    """Compile and load what the forked processes will need: one act of each, in this process."""

    class Ear:
        def send(self, _: Any) -> None:
            pass

    lw.Store.create(folder / "store", real_stores.SCHEMA, shards=2).close()
    for role in (Writer, Compactor, Server, Writer, Compactor, Trainer):
        role(Place(folder, 1, 0, monotonic() + 0.3, Ear())).run()  # type: ignore[arg-type]
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
    print(json.dumps(figures | {"problems": problems}, indent=1))
    if problems:
        print(f"the store is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
