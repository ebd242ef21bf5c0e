"""Tables of examples, window by window: all that loading does before histories are looked up.

Examples are read for as many steps at a time as start in one window, and put in order by one `take`.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.examples import ExampleSource
from latewood.loading.order import Order
from latewood.loading.steps import Share, Step


def feed(
    source: ExampleSource, order: Order, share: Share, position: int, window: int
) -> Iterator[tuple[list[Step], pa.Table]]:
    """Every window's steps of one rank, from a position on, with their examples; a step's padding follows them."""
    for steps in _spans(share.steps(len(source), position), window):
        yield steps, source.take(np.concatenate([rows for step in steps for rows in _rows(order, step)]))


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
