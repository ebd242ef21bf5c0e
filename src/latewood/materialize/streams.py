"""Streams: of every history, the newest events of each kind, in the order of time.

Filter first, cut last: an event is in a stream if it meets the stream's condition and fewer than so many later ones do.
What no stream holds is left out; what several hold is there once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch
from latewood.columns import Lists
from latewood.errors import CorruptionError
from latewood.projection import Projection


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """The events that some stream holds. Shapes: (k,) each, and lengths (n,)."""

    from_end: NDArray[np.int64]  # how far each is from its example's end: 1 is the newest
    example: NDArray[np.int64]
    bits: NDArray[np.int64]  # bit i: the i-th stream holds it
    lengths: NDArray[np.int64]  # how many of the newest events of each example reach back to all of its own

    def places(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where they are in columns of those events alone. Args: offsets: (n + 1,) of such columns. Shapes: (k,)."""
        return offsets[self.example + 1] - self.from_end


def choose_events(looked_at: Batch, projection: Projection) -> Chosen:
    """Choose by the columns that conditions look at. Raises: CorruptionError: a code without a value."""
    offsets, count = looked_at.offsets, int(looked_at.offsets[-1])
    bits = np.zeros(count, np.int64)
    columns = {name: _to_arrow(looked_at, name) for name in looked_at.values}
    for i, (_, stream) in enumerate(projection.kinds):
        meets = np.ones(count, np.bool_) if stream.where is None else stream.where.evaluate(columns)
        bits[_newest(np.flatnonzero(meets), offsets, stream.count)] |= 1 << i
    kept = np.flatnonzero(bits)
    if projection.max_len is not None:
        kept = _newest(kept, offsets, projection.max_len)
    example = np.searchsorted(offsets, kept, "right") - 1
    from_end = offsets[example + 1] - kept
    lengths = np.zeros(len(offsets) - 1, np.int64)
    np.maximum.at(lengths, example, from_end)
    return Chosen(from_end, example, bits[kept], lengths)


def _newest(events: NDArray[np.int64], offsets: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The newest `count` of some events of each example. Args: events: their places, rising."""
    ends = np.searchsorted(events, offsets[1:])  # in `events`, after the last one of each example
    example = np.searchsorted(offsets, events, "right") - 1
    return events[ends[example] - np.arange(len(events)) <= count]


def _to_arrow(batch: Batch, name: str) -> Any:
    """A column for conditions: codes stay codes, so that each value is looked at once."""
    column, words = batch.column(name), batch.dictionaries.get(name)
    if words is None or isinstance(column, Lists):
        return batch.column_to_arrow(name)
    try:
        return pa.DictionaryArray.from_arrays(pa.array(column.values, mask=column.mask), words)
    except (pa.ArrowIndexError, pa.ArrowInvalid) as error:
        raise CorruptionError(f"trait {name!r} has a code beyond its {len(words)} values: {error}") from None
