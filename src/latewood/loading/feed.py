"""Tables of examples, window by window: all that loading does before histories are looked up.

Examples are read for as many steps at a time as start in one window. They come as they lie in the log, users together,
with the places that put them in order.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.examples import ExampleSource
from latewood.loading.order import Order
from latewood.loading.steps import Step


def feed(
    source: ExampleSource, order: Order, steps: Iterator[Step], window: int
) -> Iterator[tuple[list[Step], pa.Table, NDArray[np.int64]]]:
    """Some steps of one rank, window by window, with their examples and the places of them in order.

    A step's padding follows its examples.
    """
    for span in _spans(steps, window):
        rows = np.concatenate([rows for step in span for rows in _rows(order, step)])
        yield span, *source.gather(rows)


def _rows(order: Order, step: Step) -> Iterator[NDArray[np.int64]]:
    yield order.rows(step.start, step.stop)
    if step.pad:
        yield order.rows(step.first, step.after)[step.padding()]


def _spans(steps: Iterator[Step], window: int) -> Iterator[list[Step]]:
    """Runs of steps that start in the same window."""
    span: list[Step] = []
    for step in steps:
        if span and step.first // window != span[0].first // window:
            yield span
            span = []
        span.append(step)
    if span:
        yield span
