"""All damage that there is, to every file of a store and of an example log, one case after another.

    PYTHONPATH=src:tests python tests/damage/exhaustive.py

Every byte is flipped in several ways, every file cut at every length, parts and files change places, documents are forged.
The tests do the same to a smaller store, with some of these. Cases run in forked workers, each on a copy of its own, so
that one that crashes or hangs is a finding like any other; a finding names its case, and `--case N` runs that again, here.
"""

import argparse
import faulthandler
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import whole_store
from fuzz import READ, REFUSED, run

import latewood as lw
from damage import (
    ANY_OF_OURS,
    PATTERNS,
    REFUSALS,
    Case,
    Refusals,
    additions,
    flipped_headers,
    flips,
    forged_documents,
    holes,
    other_files,
    outcome_of,
    swapped_parts,
    truncations,
)


class Job(NamedTuple):
    """One case of one file."""

    file: Path  # relative to the folder that holds store and log
    case: Case
    refusals: Refusals


def jobs(folder: Path) -> Iterator[Job]:
    """Every case, in an order that does not change."""
    for part in ("store", "log"):
        files = whole_store.files(folder / part)
        for file in files:
            data, relative = file.read_bytes(), file.relative_to(folder)
            kinds = [partial(flips, patterns=PATTERNS), truncations, additions, holes]
            kinds += [swapped_parts] if file.suffix == ".stripes" else []
            kinds += [flipped_headers] if file.suffix == ".parquet" else []
            for kind in kinds:
                yield from (Job(relative, case, REFUSALS) for case in kind(data) if case.apply(data) != data)
            others = [other for other in files if other.suffix == file.suffix]
            yield from (Job(relative, case, REFUSALS) for case in other_files(file, others))
            if file.suffix == ".json":
                yield from (Job(relative, case, ANY_OF_OURS) for case in forged_documents(data))


class Workplace:
    """A process's own copy of the store, and what reading it gave while it was sound."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.examples = whole_store.read_examples(folder / "log")
        self._store = lw.Store.open(folder / "store", read_only=True)
        self._expected = {part: self._reader(part)() for part in ("store", "log")}

    def _reader(self, part: str) -> Callable[[], str]:
        if part == "log":
            return lambda: whole_store.read_log(self._store, self.folder / "log")
        return lambda: whole_store.read_store(self.folder / "store", self.examples)

    def try_one(self, job: Job) -> str:
        """What becomes of it: refused, harmless, or what went wrong."""
        file, part = self.folder / job.file, job.file.parts[0]
        sound = file.read_bytes()
        file.write_bytes(job.case.apply(sound))
        try:
            return outcome_of(file, self._reader(part), self._expected[part], job.refusals)
        finally:
            file.write_bytes(sound)


class Everything:
    """Runs jobs by their numbers, in whichever process it is called."""

    def __init__(self, folder: Path, *, users: int, events: int) -> None:
        self._folder, self._pid = folder, 0
        sound = folder / "sound"
        whole_store.make(sound / "store", sound / "log", traits=whole_store.EVERY, users=users, events=events, shards=2)
        self.jobs = list(jobs(sound))

    def __call__(self, number: int) -> int:
        """Raises: AssertionError: a finding. Returns: REFUSED, or READ where it was harmless."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            own = self._folder / str(self._pid)
            shutil.copytree(self._folder / "sound", own)
            self._place = Workplace(own)
        job = self.jobs[number]
        outcome = self._place.try_one(job)
        if outcome == "refused":
            return REFUSED
        if outcome == "harmless" or (outcome == "other values" and job.refusals is ANY_OF_OURS):
            return READ
        raise AssertionError(f"{job.file}: {job.case.what}: {outcome}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--events", type=int, default=20, help="of each user")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case, to go on where a run ended")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth case")
    parser.add_argument("--part", choices=["store", "log"], help="only the files of the one or the other")
    parser.add_argument("--case", type=int, help="run only this one of them, in this process")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        everything = Everything(Path(name), users=arguments.users, events=arguments.events)
        chosen = everything.jobs[arguments.first :: arguments.every]
        everything.jobs = [job for job in chosen if arguments.part in (None, job.file.parts[0])]
        print(f"{len(everything.jobs):,} cases", flush=True)
        if arguments.case is not None:
            faulthandler.enable()
            print({REFUSED: "refused", READ: "harmless"}[everything(arguments.case)])
            return 0
        Workplace(Path(name) / "sound")  # compiles what all workers will use
        stop, workers = len(everything.jobs), arguments.workers
        findings = run(everything, seconds=arguments.seconds, workers=workers, stop=stop, tell=60)
    for found in findings:
        print(f"FINDING, {found}")
    return min(len(findings), 1)


if __name__ == "__main__":
    sys.exit(main())
