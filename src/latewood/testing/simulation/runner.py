"""Many cases, on several processors, by ranges of seeds: a run that was stopped goes on from the seed it prints."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue

from latewood.testing.simulation.case import CaseError, run_case

CHUNK = 25  # cases that a worker runs at once


@dataclass(slots=True)
class Summary:
    """What some cases did. `failed`: what was wrong, by seed."""

    cases: int = 0
    operations: int = 0
    comparisons: int = 0
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, other: "Summary") -> None:
        self.cases += other.cases
        self.operations += other.operations
        self.comparisons += other.comparisons
        self.failed |= other.failed

    def __str__(self) -> str:
        counts = f"{self.cases:,} cases, {self.operations:,} operations, {self.comparisons:,} sequences compared"
        return f"{counts}, {len(self.failed)} failed"


def run_range(start: int, stop: int) -> Summary:
    """The cases of some seeds, here and now."""
    summary = Summary()
    for seed in range(start, stop):
        summary.cases += 1
        try:
            report = run_case(seed)
        except CaseError as error:
            summary.failed[seed] = str(error)
        else:
            summary.operations += report.operations
            summary.comparisons += report.comparisons
    return summary


def run_cases(
    start: int,
    cases: int,
    processes: int = 1,
    *,
    failures: int = 1,
    progress: Callable[[int, Summary], None] = lambda stop, summary: None,
) -> Summary:
    """Run the cases of seeds from `start` on.

    Args:
        failures: stop after so many.
        progress: called with the first seed that is not done, and what was done by then.
    """
    summary = Summary()
    for stop, part in _parts(start, start + cases, processes):
        summary.add(part)
        progress(stop, summary)
        if len(summary.failed) >= failures:
            break
    return summary


def _stay(cores: SimpleQueue[int]) -> None:
    """Keep a worker on one core: its threads wait for each other all the time, and waking another core takes longer."""
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {usable[cores.get() % len(usable)]})


def _parts(start: int, stop: int, processes: int) -> Iterator[tuple[int, Summary]]:
    """Chunks in the order of their seeds, so that a range that is done has no gaps."""
    chunks = [(first, min(first + CHUNK, stop)) for first in range(start, stop, CHUNK)]
    if processes == 1:
        yield from ((last, run_range(first, last)) for first, last in chunks)
        return
    context = multiprocessing.get_context("spawn")  # threads and forks do not mix
    cores = context.SimpleQueue()
    for number in range(processes):
        cores.put(number)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_stay, initargs=(cores,)) as pool:
        waiting: list[tuple[int, Future[Summary]]] = []
        try:
            for first, last in chunks:
                waiting.append((last, pool.submit(run_range, first, last)))
                if len(waiting) >= 2 * processes:
                    wait([waiting[0][1]], return_when=FIRST_COMPLETED)
                    yield waiting[0][0], waiting.pop(0)[1].result()
            for last, future in waiting:
                yield last, future.result()
        finally:
            pool.shutdown(cancel_futures=True)
