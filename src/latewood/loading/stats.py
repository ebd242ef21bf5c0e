"""Where a loader's time goes: whether the trainer waits for it, and on what it spends its own time.

Two figures say which side is too slow: *starvation*, the share of the trainer's time that it waits for batches, and
*waste*, the share that the loader's thread waits for the trainer to take one.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TypeVar

from latewood.batch import count_of

T = TypeVar("T")
EXAMPLES, PLAN, MATERIALIZE, TRANSFORM, COPY = STAGES = ("examples", "plan", "materialize", "transform", "copy")


@dataclass(frozen=True, slots=True)
class LoaderStats:
    """Of one iteration over a loader, up to now. Units: seconds.

    `first_s` is the wait for the first batch, which no other figure but `stages` has in it. `stages` says what making
    batches took, those that lie ready too: reading the examples, planning (looking pointers up), materializing (fetching,
    decoding, assembling), the transform that the loader was given and making tensors, and copying to a device.
    """

    batches: int
    examples: int
    events: int
    users: int  # of each batch those that differ, added up
    first_s: float
    elapsed_s: float  # since the first batch was there
    waited_s: float  # of that, the trainer for the loader
    idle_s: float  # of that, the loader's thread for the trainer
    stages: dict[str, float]
    made_events: int = 0  # of all batches made, those that lie ready too
    decoded_events: int = 0  # for them, and for those to come of a window that is decoded at once

    @property
    def reuse(self) -> float:
        """How many events were made of each one that was decoded: what examples share is decoded once, if it is at hand."""
        return self.made_events / self.decoded_events if self.decoded_events else 0.0

    @property
    def users_per_batch(self) -> float:
        """How many users a batch has on average: the more, the more its examples differ."""
        return self.users / self.batches if self.batches else 0.0

    @property
    def starvation(self) -> float:
        """The share of its time that the trainer waited."""
        return self.waited_s / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def waste(self) -> float:
        """The share of its time that the loader's thread waited; 0 without prefetching."""
        return self.idle_s / self.elapsed_s if self.elapsed_s else 0.0

    def __str__(self) -> str:
        made_s = sum(self.stages.values()) or 1.0
        stages = ", ".join(f"{stage} {seconds / made_s:.0%}" for stage, seconds in self.stages.items())
        given = (self.batches, "batch"), (self.examples, "example"), (self.events, "event")
        kept = f"{self.users_per_batch:,.0f} users per batch, each event decoded made {self.reuse:.1f}"
        total_s, waits = self.first_s + self.elapsed_s, f"starved {self.starvation:.1%}, wasted {self.waste:.1%}"
        return f"{', '.join(count_of(*of) for of in given)} in {total_s:.1f} s: {waits}; {kept}; {stages}"


class _Timing:
    """Times a block. A class, since to enter a `contextlib.contextmanager` takes several times as long."""

    __slots__ = ("_began", "_stage", "_stages")

    def __init__(self, stages: dict[str, float], stage: str) -> None:
        self._stages, self._stage, self._began = stages, stage, 0.0

    def __enter__(self) -> None:
        self._began = perf_counter()

    def __exit__(self, *error: object) -> None:
        self._stages[self._stage] += perf_counter() - self._began


class Meter:
    """Counts and times one iteration. The loader's thread tells stages, `idle_s` and what it made; the trainer the rest."""

    def __init__(self) -> None:
        self.batches = self.examples = self.events = self.users = 0
        self._made_events = self._decoded_events = 0
        self.first_s = self.waited_s = self.idle_s = 0.0
        self._stages = dict.fromkeys(STAGES, 0.0)
        self._began: float | None = None
        self._ended: float | None = None

    def time(self, stage: str) -> "_Timing":
        """Count what happens inside to a stage."""
        return _Timing(self._stages, stage)

    def time_each(self, stage: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; making each of them is counted to a stage."""
        iterator = iter(items)
        while True:
            try:
                with self.time(stage):
                    item = next(iterator)
            except StopIteration:
                return
            yield item
            del item  # its buffers can be used again

    def wait_for_each(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; waiting for each is the trainer's waiting, until the end, an error, or whoever stops early."""
        try:
            while True:
                asked = perf_counter()
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._waited(asked)
                yield item
                del item  # its buffers can be used again
        finally:
            self._ended = perf_counter()

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Count what happens inside as the thread's waiting for the trainer."""
        began = perf_counter()
        try:
            yield
        finally:
            if self._began is not None:
                self.idle_s += perf_counter() - max(began, self._began)

    def made(self, events: int = 0, decoded: int = 0) -> None:
        """Events were made, or decoded to make some; told by the thread."""
        self._made_events, self._decoded_events = self._made_events + events, self._decoded_events + decoded

    def count(self, examples: int, events: int, users: int) -> None:
        """A batch was given to the trainer."""
        self.batches, self.examples = self.batches + 1, self.examples + examples
        self.events, self.users = self.events + events, self.users + users

    def add(self, stage: str, seconds: float) -> None:
        """Count what a stage took elsewhere."""
        self._stages[stage] += seconds

    def stats(self) -> LoaderStats:
        until = perf_counter() if self._ended is None else self._ended
        elapsed_s = 0.0 if self._began is None else until - self._began
        return LoaderStats(
            self.batches,
            self.examples,
            self.events,
            self.users,
            self.first_s,
            elapsed_s,
            self.waited_s,
            self.idle_s,
            dict(self._stages),
            self._made_events,
            self._decoded_events,
        )

    def _waited(self, asked: float) -> None:
        now = perf_counter()
        if self._began is None:
            self._began, self.first_s = now, now - asked
        else:
            self.waited_s += now - asked
