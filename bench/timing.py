"""Timing: passes that interleave, the processor's clock, and medians.

Each pass runs every contender once, so that a slow spell of the machine hits all of them and leaves the ratio alone.
The clock is the processor time of the process: the wall time on an idle machine, and it stands still while others have
the core. They still take caches and memory bandwidth with them, so `processor_share` tells how busy the machine was.
What waits for a disk, or uses several cores, is timed by the wall clock instead.
"""

import gc
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

Contender = Callable[[], "Amount"]
Clock = Callable[[], float]  # seconds
processor_clock: Clock = time.process_time
wall_clock: Clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class Amount:
    """How much one pass did."""

    batches: int
    examples: int
    events: int


@dataclass(frozen=True, slots=True)
class Speed:
    """One contender's median pass, its best and its slowest. Units: seconds, of the clock that was used."""

    amount: Amount
    seconds: float
    best_seconds: float
    worst_seconds: float

    @property
    def events_per_s(self) -> float:
        return self.amount.events / self.seconds

    @property
    def ms_per_batch(self) -> float:
        return 1e3 * self.seconds / self.amount.batches

    @property
    def spread(self) -> float:
        """How far the passes lie apart, as a share of the median: large means a noisy machine."""
        return (self.worst_seconds - self.best_seconds) / self.seconds


@dataclass(frozen=True, slots=True)
class Measurement:
    """All contenders' speeds, and the share of the wall time in which we had the processor, where that matters."""

    speeds: Mapping[str, Speed]
    processor_share: float | None


def speed_of(amount: Amount, seconds: Iterable[float]) -> Speed:
    """Of passes that all did the same."""
    took = list(seconds)
    return Speed(amount, median(took), min(took), max(took))


def interleave(
    contenders: Mapping[str, Contender], passes: int, clock: Clock = processor_clock, warm: bool = True
) -> Measurement:
    """Run every contender once per pass and take the medians. Args: warm: begin with an untimed pass, for the caches."""
    if warm:
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    amounts: dict[str, Amount] = {}
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(passes):
        for name, run in contenders.items():
            gc.collect()  # nobody pays for another's garbage
            began = clock()
            amounts[name] = run()
            seconds[name].append(clock() - began)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    speeds = {name: speed_of(amounts[name], took) for name, took in seconds.items()}
    return Measurement(speeds, processor / wall)


def drain(batches: Iterable[Any]) -> Amount:
    """Take every batch and let it go, as a trainer does."""
    count = examples = events = 0
    for batch in batches:
        of_batch = batch.offsets[-1] if hasattr(batch, "offsets") else batch.lengths.sum()  # those of shared ones
        count, examples, events = count + 1, examples + len(batch), events + int(of_batch)
        del batch
    return Amount(count, examples, events)
