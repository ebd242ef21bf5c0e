"""Timing: passes that interleave, the processor's clock, and medians.

Each pass runs every contender once, so that a slow spell of the machine hits all of them and leaves the ratio alone.
The clock is the processor time of the process: the wall time on an idle machine, and it stands still while others have
the core. They still take caches and memory bandwidth with them, so `processor_share` tells how busy the machine was.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Contender = Callable[[], "Amount"]


@dataclass(frozen=True, slots=True)
class Amount:
    """How much one pass did."""

    batches: int
    examples: int
    events: int


@dataclass(frozen=True, slots=True)
class Speed:
    """One contender's median pass, its best and its slowest. Units: seconds of processor time."""

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
    """All contenders' speeds, and the share of the wall time in which we had the processor."""

    speeds: Mapping[str, Speed]
    processor_share: float


def interleave(contenders: Mapping[str, Contender], passes: int) -> Measurement:
    """Run every contender once per pass and take the medians. The first, untimed pass warms caches."""
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    amounts: dict[str, Amount] = {}
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(passes):
        for name, run in contenders.items():
            gc.collect()  # nobody pays for another's garbage
            began = time.process_time()
            amounts[name] = run()
            seconds[name].append(time.process_time() - began)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    speeds = {name: Speed(amounts[name], median(took), min(took), max(took)) for name, took in seconds.items()}
    return Measurement(speeds, processor / wall)
