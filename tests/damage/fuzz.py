"""A fuzzer of the shard reader.

    PYTHONPATH=src:tests python tests/damage/fuzz.py --seconds 3600 --seed 1

Each case is a number: it takes a real shard file, changes it (`mutations`), mends all checksums, and does with it all that
is ever done with a shard (`reading`), in memory with guards around it. Cases run in forked workers, so that one that
crashes or hangs is a finding like any other. A finding names its case, and `--case N --seed S` runs that one again, here.
"""

import argparse
import copy
import faulthandler
import mmap
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "compatibility")]

from mutations import mutate  # noqa: E402
from reading import Memory, compare_with_plain_reader, open_guarded, read_all  # noqa: E402

from forged_shards import ForgedShard  # noqa: E402
from latewood.errors import CorruptionError, SchemaError  # noqa: E402
from made_shards import all_dtypes, all_lists, columns_for, random_columns, run_of, write_shard  # noqa: E402

HANG_S = 60
REFUSED, READ = 1, 2
Case = Callable[[int], int]


def seeds() -> list[ForgedShard]:
    """Real files: every dtype, both types of users, many stripes, with and without superseded events; and old ones."""
    rng = np.random.default_rng(1)
    every, few = (
        columns_for(all_dtypes(), superseded=True),
        columns_for({"a": np.int64, "b": np.bool_}, superseded=True),
    )
    made = [
        (every, {1: 1, -5: 300, 2**50: 17, 9: 256}),
        (every, {"a": 3, "größe": 513}),
        (few, {7: 4200, 8: 30}),
        (columns_for({"x": np.int16}), {"": 600, "b": 1}),
        (columns_for(all_lists(), superseded=True), {1: 1, 2: 300, 3: 20}),
        (columns_for({"t": [np.int32], "x": np.int64, "v": [np.float32]}, superseded=True), {"a": 4200, "b": 30}),
    ]
    files = [
        write_shard(columns, run_of({user: random_columns(rng, n, columns) for user, n in users.items()}))[0]
        for columns, users in made
    ]
    files += [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "compatibility").glob("*.stripes"))]
    return [ForgedShard(data) for data in files]


class Fuzzer:
    """Runs cases of one root seed."""

    def __init__(self, root: int) -> None:
        self._root, self._seeds, self._memory = root, seeds(), Memory()

    def __call__(self, number: int) -> int:
        """Raises: whatever should not be. Returns: REFUSED or READ."""
        rng = np.random.default_rng([self._root, number])
        forged = copy.deepcopy(self._seeds[int(rng.integers(0, len(self._seeds)))])
        mutate(forged, rng)
        data = forged.seal(aligned=True)
        if rng.random() < 0.02:  # not mended
            data = data[: int(rng.integers(0, len(data)))] if rng.random() < 0.5 else _flipped(data, rng)
        try:
            shard = open_guarded(data, self._memory, rng)
        except (CorruptionError, SchemaError) as error:
            if "shard" not in str(error):
                raise
            return REFUSED
        read_all(shard, self._memory, rng)
        if rng.random() < 0.03:
            compare_with_plain_reader(data, shard)
        return READ


def _flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    changed[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


# ---- workers

_NEXT, _DONE, _READ_COUNT, _BEAT = range(4)


class Worker:
    """A forked process that runs every so-manieth case, and what it has come to, in shared memory."""

    def __init__(self, case: Case, first: int, step: int, stop: int, folder: Path) -> None:
        self._case, self._step, self._stop, self._folder = case, step, stop, folder
        self.state = np.frombuffer(mmap.mmap(-1, 64), np.int64, 4)
        self.state[_NEXT] = first
        self._last_beat, self._beat_at = -1, time.monotonic()
        self.pid = 0

    def start(self) -> None:
        self._beat_at = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            self._run()

    def _run(self) -> None:
        faulthandler.disable()  # whoever runs the case again sees the place
        try:
            while self.state[_NEXT] < self._stop:
                number = int(self.state[_NEXT])
                self.state[_BEAT] += 1
                try:
                    self.state[_READ_COUNT] += self._case(number) == READ
                except BaseException:
                    (self._folder / f"{number}").write_text(traceback.format_exc())
                self.state[_DONE] += 1
                self.state[_NEXT] = number + self._step
        finally:
            os._exit(0)

    def is_stuck(self) -> bool:
        """Whether it has been at one case for too long."""
        if self.state[_BEAT] != self._last_beat:
            self._last_beat, self._beat_at = int(self.state[_BEAT]), time.monotonic()
        return time.monotonic() - self._beat_at > HANG_S

    def poll(self) -> str | None:
        """What ended the case that it was at, if anything did; the worker goes on with the next. "" once it is done."""
        if self.is_stuck():
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return self._go_on("hangs")
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        return self._go_on(f"ended by {signal.Signals(status).name}") if os.WIFSIGNALED(status) else ""

    def _go_on(self, what: str) -> str:
        found = f"case {int(self.state[_NEXT])}: {what}"
        self.state[_DONE] += 1
        self.state[_NEXT] += self._step
        self.start()
        return found

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def run(
    case: Case, *, seconds: float, workers: int = 1, stop: int = 2**62, first: int = 0, tell: int = 10
) -> list[str]:
    """Run cases from `first` on, for some time or up to number `stop`. Returns: the findings."""
    findings: list[str] = []
    began, told = time.monotonic(), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        running = [Worker(case, first + i, workers, stop, folder) for i in range(workers)]
        every = list(running)
        for worker in running:
            worker.start()
        while running and time.monotonic() - began < seconds:
            time.sleep(0.02)
            for worker in list(running):
                found = worker.poll()
                if found:
                    findings.append(found)
                elif found == "":
                    running.remove(worker)
            if tell and time.monotonic() - told > tell:
                told = time.monotonic()
                _report(every, began, len(findings) + len(list(folder.iterdir())))
        for worker in running:
            worker.end()
        findings += [f"case {path.name}: {path.read_text()}" for path in sorted(folder.iterdir())]
        if tell:
            _report(every, began, len(findings))
    return findings


def _report(workers: list[Worker], began: float, findings: int) -> None:
    done, read = (sum(int(w.state[field]) for w in workers) for field in (_DONE, _READ_COUNT))
    seconds = time.monotonic() - began
    print(f"{seconds:6.0f} s  {done:,} cases, {done / seconds:,.0f}/s, {read:,} read, {findings} findings", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case, to go on where a run ended")
    parser.add_argument("--case", type=int, help="run only this one, in this process")
    arguments = parser.parse_args()
    fuzzer = Fuzzer(arguments.seed)
    if arguments.case is not None:
        faulthandler.enable()
        print({REFUSED: "refused", READ: "read"}[fuzzer(arguments.case)])
        return 0
    _compile(fuzzer)
    findings = run(fuzzer, seconds=arguments.seconds, workers=arguments.workers, first=arguments.first)
    for found in findings:
        print(f"FINDING, seed {arguments.seed}, {found}")
    return min(len(findings), 1)


def _compile(fuzzer: Fuzzer) -> None:
    """Let a worker come to every kernel once, so that all others find them in the cache."""
    run(fuzzer, seconds=300, stop=60, tell=0)


if __name__ == "__main__":
    sys.exit(main())
