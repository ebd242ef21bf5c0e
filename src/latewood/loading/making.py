"""How batches are made: read the examples of a window, look their pointers up at once, materialize step by step."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.errors import LatewoodError
from latewood.examples import ExampleSource
from latewood.loading.feed import feed
from latewood.loading.order import Order
from latewood.loading.stats import EXAMPLES, MATERIALIZE, PLAN, TRANSFORM, Meter
from latewood.loading.steps import Step, Steps
from latewood.materialize import Materializer, Resolved

# Steps of short histories are materialized together up to this many events, for what a batch costs whatever its size
# is then a third of its time; more would leave the processor's caches.
EVENTS_AT_ONCE = 1 << 19


class MadeBatch(NamedTuple):
    """A batch, or what was made of it, the position after it, what it holds, and what it takes in memory."""

    position: int
    item: Any
    examples: int  # without padding
    events: int
    size_bytes: int


class BatchMaker:
    """One rank's batches of one epoch. Args: where: what the examples are called in errors; the others as in `Loader`."""

    def __init__(
        self,
        source: ExampleSource,
        order: Order,
        steps: Steps,
        materializer: Materializer,
        window: int,
        transform: Callable[[Any], Any] | None,
        meter: Meter,
        where: str,
        *,
        shared: bool = False,
    ) -> None:
        self._source, self._order, self._steps, self._window = source, order, steps, window
        self._materializer, self._transform, self._meter, self._where = materializer, transform, meter, where
        self._shared = shared

    def batches(self, position: int) -> Iterator[MadeBatch]:
        """Every batch from a position on."""
        windows = feed(self._source, self._order, self._steps.steps(position), self._window)
        for steps, table, places in self._meter.time_each(EXAMPLES, windows):
            window, start = self._resolve(table, places), 0
            for group in self._groups(window, steps):
                yield from self._group(group, window, start)
                start += sum(map(len, group))

    def _groups(self, window: Resolved | pa.Table, steps: list[Step]) -> Iterator[list[Step]]:
        """Runs of steps to materialize at once."""
        if isinstance(window, pa.Table):
            yield from ([step] for step in steps)
            return
        group, events, start = list[Step](), 0, 0
        before = np.cumsum(window.lengths(self._materializer.projection.reach))
        for step in steps:
            stop = start + len(step)
            size = int(before[stop - 1] - (before[start - 1] if start else 0))
            if group and events + size > EVENTS_AT_ONCE:
                yield group
                group, events = [], 0
            group.append(step)
            events, start = events + size, stop
        if group:
            yield group

    def _group(self, steps: list[Step], window: Resolved | pa.Table, start: int) -> Iterator[MadeBatch]:
        """Materialize some steps as one batch and cut it up; if that fails, one by one, so that only the bad one does."""
        if isinstance(window, Resolved) and len(steps) > 1:
            try:
                with self._meter.time(MATERIALIZE):
                    whole = self._make(window.slice(start, start + sum(map(len, steps))))
            except LatewoodError:
                pass
            else:
                first = 0
                for step in steps:
                    yield self._finish(step, whole.slice(first, first + len(step)))
                    first += len(step)
                return
        for step in steps:
            yield self._batch(step, window, start)
            start += len(step)

    def _resolve(self, table: pa.Table, places: NDArray[np.int64]) -> Resolved | pa.Table:
        """A window in order, its pointers looked up at once; or not, if some example is bad: then only its batch fails."""
        try:
            with self._meter.time(PLAN):
                return self._materializer.resolve(table).take(places)
        except LatewoodError:
            return table.take(pa.array(places))

    def _batch(self, step: Step, window: Resolved | pa.Table, start: int) -> MadeBatch:
        try:
            with self._meter.time(MATERIALIZE):
                if isinstance(window, Resolved):
                    batch = self._make(window.slice(start, start + len(step)))
                else:
                    batch = self._make(window.slice(start, len(step)))
        except LatewoodError as error:
            error.add_note(f"in the batch at positions {step.start} to {step.stop} of {self._where}")
            raise
        return self._finish(step, batch)

    def _make(self, part: Resolved | pa.Table) -> Batch | SharedBatch:
        materializer = self._materializer
        if isinstance(part, Resolved):
            return materializer.shared_batch(part) if self._shared else materializer.batch(part)
        return materializer.shared(part) if self._shared else materializer(part)

    def _finish(self, step: Step, batch: Batch | SharedBatch) -> MadeBatch:
        if step.pad:
            real = np.arange(len(batch)) < len(batch) - step.pad
            batch = replace(batch, weights=batch.weights * real.astype(np.float32))
        with self._meter.time(TRANSFORM):
            item = batch if self._transform is None else self._transform(batch)
        size_bytes = sum(column.nbytes for column in batch.values.values())
        return MadeBatch(step.following, item, len(batch) - step.pad, int(batch.lengths.sum()), size_bytes)
