"""How batches are made: read the examples of a window, look their pointers up at once, materialize, cut into steps.

What is materialized together is a run of steps: short histories gain by it, and where most of its examples are of the same
users, what they see is decoded once. Where the order scatters a user's examples over the whole window, all of it may be
decoded first, and batches are copied out of it, if that is less work.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.errors import LatewoodError
from latewood.examples import ExampleSource
from latewood.loading.feed import feed
from latewood.loading.order import Order
from latewood.loading.stats import COPY, EXAMPLES, MATERIALIZE, PLAN, TRANSFORM, Meter
from latewood.loading.steps import Step, Steps
from latewood.loading.together import Run, count_users, number_users, runs_of
from latewood.materialize import Materializer, Resolved

Cut = Callable[[int, int], Batch | SharedBatch]  # the batch of the examples from here to there


class MadeBatch(NamedTuple):
    """A batch, or what was made of it, the position after it, what it holds, and what it takes in memory."""

    position: int
    item: Any
    examples: int  # without padding
    events: int
    users: int
    size_bytes: int


class Delivery(Protocol):
    """What happens to batches on their way to a device: most of it in the thread, `receive` in the trainer's."""

    def prepare(self, item: Any) -> Any:
        """Make of a batch, or of what the transform made, what can be sent."""

    def send(self, item: Any) -> Any:
        """Begin to copy it."""

    def receive(self, sent: Any) -> Any:
        """Take it, so that it can be used as if the copy had ended."""

    def copied_s(self) -> float:
        """What copies took that ended since this was asked last. Units: seconds."""


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
        delivery: Delivery | None = None,
    ) -> None:
        self._source, self._order, self._steps, self._window = source, order, steps, window
        self._materializer, self._transform, self._meter, self._where = materializer, transform, meter, where
        self._shared, self._delivery = shared, delivery
        self._item_bytes: float | None = None  # of an event's lists of any length, the most that a batch had on average

    def batches(self, position: int) -> Iterator[MadeBatch]:
        """Every batch from a position on."""
        windows = feed(self._source, self._order, self._steps.steps(position), self._window)
        for steps, table, places in self._meter.time_each(EXAMPLES, windows):
            window = self._resolve(table, places)
            users = number_users(window["user_id"] if isinstance(window, pa.Table) else window.logged.user_ids)
            sizes = [len(step) for step in steps]
            counts = count_users(users, np.array([0, *accumulate(sizes)])).tolist()
            for run in self._runs(window, users, sizes):
                yield from self._run(run, steps[run.first : run.last], window, counts[run.first : run.last])

    def _resolve(self, table: pa.Table, places: NDArray[np.int64]) -> Resolved | pa.Table:
        """A window in order, its pointers looked up at once; or not, if some example is bad: then only its batch fails."""
        try:
            with self._meter.time(PLAN):
                return self._materializer.resolve(table).take(places)
        except LatewoodError:
            return table.take(pa.array(places))

    def _runs(self, window: Resolved | pa.Table, users: NDArray[np.int64], sizes: list[int]) -> Iterator[Run]:
        if isinstance(window, pa.Table):
            yield from (Run.of_one(i, sizes) for i in range(len(sizes)))
            return
        may_be_once, first = not (self._shared or self._materializer.projection.kinds), 0
        if may_be_once and window.has_lists_of_any_length and self._item_bytes is None:
            yield Run.of_one(0, sizes)  # which tells how long the lists are, if it has any
            may_be_once, first = self._item_bytes is not None, 1
        with self._meter.time(PLAN):
            shown = window.shown(self._materializer.projection.reach)
            event_bytes = window.event_bytes + (self._item_bytes or 0.0)
            runs = runs_of(sizes, shown, users, event_bytes, first=first, may_be_once=may_be_once)
        yield from runs

    def _run(
        self, run: Run, steps: list[Step], window: Resolved | pa.Table, user_counts: list[int]
    ) -> Iterator[MadeBatch]:
        cut, is_shared = self._cut_of(run, window)
        start = run.start
        for step, user_count in zip(steps, user_counts, strict=True):
            stop = start + len(step)
            # of columns that all of a run share, each batch counts a part
            part = (stop - start) / (run.stop - run.start) if is_shared else 1.0
            # no name for the batch: it is not held while the next one is made, so that its buffers can be used again
            yield self._finish(step, self._decoded(cut, start, stop, step), user_count, part)
            start = stop

    def _decoded(self, cut: Cut, start: int, stop: int, step: Step) -> Batch | SharedBatch:
        try:
            with self._decoding():
                return cut(start, stop)
        except LatewoodError as error:
            error.add_note(f"in the batch at positions {step.start} to {step.stop} of {self._where}")
            raise

    def _cut_of(self, run: Run, window: Resolved | pa.Table) -> tuple[Cut, bool]:
        """How a run's batches are made, and whether they are in columns that they share.

        One by one where they cannot be made together, so that only the bad one fails.
        """
        if isinstance(window, pa.Table):
            return lambda start, stop: self._make(window.slice(start, stop - start)), False
        if run.last - run.first > 1:
            part = window.slice(run.start, run.stop)
            try:
                with self._decoding():
                    decoded: Cut
                    if run.once:
                        decoded = partial(self._materializer.window_batch, self._materializer.window(part))
                    else:
                        decoded = self._make(part).slice
                return lambda start, stop: decoded(start - run.start, stop - run.start), self._shared
            except LatewoodError:
                pass
        return lambda start, stop: self._make(window.slice(start, stop)), False

    def _make(self, part: Resolved | pa.Table) -> Batch | SharedBatch:
        materializer = self._materializer
        if isinstance(part, Resolved):
            return materializer.shared_batch(part) if self._shared else materializer.batch(part)
        return materializer.shared(part) if self._shared else materializer(part)

    @contextmanager
    def _decoding(self) -> Iterator[None]:
        before = self._materializer.stats.decoded_events
        with self._meter.time(MATERIALIZE):
            yield
        self._meter.made(decoded=self._materializer.stats.decoded_events - before)

    def _finish(self, step: Step, batch: Batch | SharedBatch, users: int, part: float) -> MadeBatch:
        if step.pad:
            real = np.arange(len(batch)) < len(batch) - step.pad
            batch = replace(batch, weights=batch.weights * real.astype(np.float32))
        events = int(batch.offsets[-1]) if isinstance(batch, Batch) else int(batch.lengths.sum())
        self._meter.made(events=events)
        if events and batch.lists:
            items = sum(batch.values[name].nbytes for name in batch.lists)
            self._item_bytes = max(self._item_bytes or 0.0, items / events)
        item: Any = batch
        if self._transform is not None:
            with self._meter.time(TRANSFORM):
                item = self._transform(batch)
        if self._delivery is not None:
            with self._meter.time(TRANSFORM):
                item = self._delivery.prepare(item)
            with self._meter.time(COPY):
                item = self._delivery.send(item)
            self._meter.add(COPY, self._delivery.copied_s())
        size_bytes = int(part * sum(column.nbytes for column in batch.values.values()))
        return MadeBatch(step.following, item, len(batch) - step.pad, events, users, size_bytes)
