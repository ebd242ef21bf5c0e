"""Kill real processes with SIGKILL, in the middle of whatever they do to a store, and look at what is left.

    python tests/crash/crash_run.py --kills 200 --seed 1

A worker (`crash_worker`) does a random script of acts and says what it does; it dies at a `KillPoint`. What it had
acknowledged is in the `Ledger`; another process (`checks`) then compares the store and the example log with it. All
are forked from this one, which has everything imported and compiled and no store open.
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
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import numpy as np
import pyarrow as pa
from checks import Checker, Found
from crash_worker import Assignment, Worker
from kill_points import ACTS, Fuse, Gauge, How, KillPoint, Lengths

from real_ledger import Batch, Ledger
from real_processes import SILENCE_S, Child, children, open_in, watch

LIFE_KILLS = 20  # so many kills does a store live through; then it is closed, and a new one begins


class Run:
    """One seed's kills, store after store."""

    def __init__(self, folder: Path, seed: int, lengths: Lengths) -> None:
        self._folder, self._rng, self._lengths = folder, np.random.default_rng(seed), lengths
        self.kills: Counter[str] = Counter()
        self.acts = self.compared = self.checks = self._life = 0
        self.problems: list[str] = []
        self._checker: Child | None = None

    def run(self, kills: int) -> None:
        while self.kills.total() < kills and not self.problems:
            self._life += 1
            self._live(min(LIFE_KILLS, kills - self.kills.total()))

    def _live(self, kills: int) -> None:
        folder, ledger, before = self._folder / f"life-{self._life}", Ledger(), self.kills.total()
        folder.mkdir()
        spawned = 0
        while self.kills.total() - before < kills and not self.problems:
            spawned += 1
            # a store is made only once: often enough it is to be half-made
            creating = spawned == 1 and self._rng.random() < 0.5
            point = KillPoint.draw(self._rng, self._lengths, ("open",) if creating else ACTS)
            # a serial and a request number of their own for whatever is new
            numbers = spawned * 1_000_000, spawned * 10_000
            seed, unsure, known = int(self._rng.integers(2**32)), _with_ids(ledger.unsure), self._some(ledger)
            assignment = Assignment(folder, seed, point, *numbers, unsure, known)
            ledger.in_flight = None
            self._work(assignment, ledger)
            last = self.kills.total() - before >= kills
            self._check(folder, ledger, spawned * 1_000_000 + 900_000 if last or self._rng.random() < 0.25 else None)
            if last or self._rng.random() < 0.5:
                self._stop_checker(folder)
        self.acts += ledger.acts
        self._stop_checker(folder)
        if not self.problems:
            shutil.rmtree(folder)

    def _some(self, ledger: Ledger) -> pa.Table:
        """Some events that are there and were not superseded, to be corrected; by place, since ids are not stored."""
        events = ledger.table()
        events = events.filter(events["superseded_at"].is_null())
        rows = self._rng.permutation(len(events))[:20]
        return events.take(pa.array(rows, pa.int64())).append_column(
            "has_id", pa.array([False] * len(rows), pa.bool_())
        )

    # The worker

    def _work(self, assignment: Assignment, ledger: Ledger) -> None:
        worker = Child.fork(lambda pipe: Worker(assignment, pipe).run())
        try:
            self._listen(worker, assignment.point, ledger)
        finally:
            status = worker.wait()
        act = "nothing" if ledger.in_flight is None else ledger.in_flight[0]
        if status == -signal.SIGKILL:
            self.kills[f"{act} ({assignment.point.how})"] += 1
        elif status:
            self._problem(f"a worker ended with {status} during {act}")

    def _listen(self, worker: Child, point: KillPoint, ledger: Ledger) -> None:
        """Take in what the worker says until it is no more, and kill it where milliseconds decide."""
        deadline, skip = float("inf"), point.skip
        while True:
            if worker.pipe.poll(max(0.0, min(SILENCE_S + 10, deadline - monotonic()))):
                try:
                    said, act, what = worker.pipe.recv()
                except (EOFError, OSError):
                    return
                if said == "error":
                    self._problem(f"a worker failed:\n{act}")
                    return
                getattr(ledger, said)(act, what)
                if said == "begin" and act == point.act and point.how == "ms":
                    skip -= 1
                    if skip == -1:
                        deadline = monotonic() + point.count / 1000
            elif deadline == float("inf"):
                self._problem("a worker hangs")
                os.kill(worker.pid, signal.SIGKILL)
                deadline = 0.0
            else:
                os.kill(worker.pid, signal.SIGKILL)
                deadline = monotonic() + SILENCE_S

    # The check

    def _check(self, folder: Path, ledger: Ledger, tidy_serial: int | None) -> None:
        if self.problems:
            return
        mine = {os.getpid(), self._checker.pid if self._checker else 0}
        if held := [line for line in open_in(folder) if int(line.split(":")[0]) not in mine]:
            self._problem(f"open after the kill: {held}")
        if self._checker is None:
            self._checker = Child.fork(lambda pipe: _serve_checks(folder, pipe))
        self._checker.pipe.send((ledger, tidy_serial))
        if not self._checker.pipe.poll(SILENCE_S + 10):
            self._problem("the check hangs")
            return
        said, what, _ = self._checker.pipe.recv()
        if said == "error":
            self._problem(f"the check failed:\n{what}")
            return
        self._take_in(what, ledger)

    def _take_in(self, found: Found, ledger: Ledger) -> None:
        for problem in found.problems:
            self._problem(problem)
        if found.scrub_ts is not None and ledger.unsure_scrub is not None:
            ledger.scrub(ledger.unsure_scrub, found.scrub_ts)
        if found.landed is not None and ledger.unsure is not None:
            ledger.add(ledger.unsure, found.landed)
        if found.added is not None:
            ledger.keep(found.added)
        ledger.requests |= found.logged
        self.checks += 1
        self.compared += found.compared

    def _stop_checker(self, folder: Path) -> None:
        checker, self._checker = self._checker, None
        if checker is None:
            return
        checker.pipe.send(None)
        if checker.wait():
            self._problem("the checker did not end well")
        if held := open_in(folder):
            self._problem(f"open when all are gone: {held}")

    def _problem(self, what: str) -> None:
        self.problems.append(f"life {self._life}, kill {self.kills.total()}: {what}")


def _with_ids(unsure: Batch | None) -> Batch | None:
    return unsure if unsure is not None and "event_id" in unsure.table.column_names else None


def _serve_checks(folder: Path, pipe: Connection) -> None:
    checker = Checker(folder)
    while (request := pipe.recv()) is not None:
        pipe.send(("found", checker.check(*request), None))
        watch()
    checker.close()


class Mouth:
    """A pipe to a ledger in the same process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def send(self, said: tuple[str, str, Any]) -> None:
        getattr(self._ledger, said[0])(*said[1:])


def live_once(folder: Path, seed: int, fuse: Fuse | None = None) -> Ledger:
    """What a worker does if nobody kills it."""
    ledger, never = Ledger(), KillPoint("never", "lines", 0, 0)
    assignment = Assignment(folder, seed, never, 0, 0, None, ledger.table())
    Worker(assignment, Mouth(ledger), fuse).run()  # type: ignore[arg-type]
    return ledger


def warm_up(folder: Path) -> None:
    """Compile and load whatever the forked processes will need."""
    checker = Checker(folder)
    found = checker.check(live_once(folder, 0), 1_000_000)
    checker.close()
    assert not found.problems, found.problems
    shutil.rmtree(folder)


def measure(folder: Path, pipe: Connection) -> None:
    """How long acts are, so that one can die at any point of them."""
    lengths: dict[tuple[str, str], int] = {}
    hows: tuple[How, ...] = ("calls", "lines")
    for how in hows:
        gauge = Gauge(how)
        live_once(folder, 1, gauge)
        lengths |= gauge.lengths
        shutil.rmtree(folder)
    pipe.send(("measured", lengths, None))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the stores are made; kept after a failure")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="latewood-crash-"))
    folder.mkdir(parents=True, exist_ok=True)
    warm_up(folder / "warm-up")
    gauge = Child.fork(lambda pipe: measure(folder / "measured", pipe))
    said, lengths, _ = gauge.pipe.recv()
    if gauge.wait() or said == "error":
        print(lengths)
        return 1
    run, began = Run(folder, options.seed, lengths), monotonic()
    run.run(options.kills)
    if left := children():
        run.problems.append(f"processes left behind: {left}")
    figures = {"seed": options.seed, "kills": run.kills.total(), "acts": run.acts, "checks": run.checks}
    figures |= {"examples_compared": run.compared, "seconds": round(monotonic() - began, 1)}
    print(json.dumps(figures | {"killed_during": dict(sorted(run.kills.items())), "problems": run.problems}, indent=1))
    if run.problems:
        print(f"the store is in {folder}; replay: {Path(__file__).name} --kills {options.kills} --seed {options.seed}")
        return 1
    if options.folder is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
