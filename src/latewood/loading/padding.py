"""Batches as rows of one width, for frameworks whose arrays have no ragged side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.columns import plain_from_arrow
from latewood.errors import SchemaError
from latewood.loading.steps import whole

SIDES = ("right", "left")


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """Where a batch's events go in rows of one width. Shapes: lengths (n,); present (n, width), True where an event is."""

    lengths: NDArray[np.int64]
    present: NDArray[np.bool_]
    _kept: Any  # the events that are in the rows

    @classmethod
    def of(cls, batch: Batch, layout: str, side: str = "right", width: int | None = None) -> "Padded":
        """Args: width: None: of the longest history; else the newest events are kept.

        Raises: SchemaError: a side or width that does not exist, or lists of any length, for which no row has a place.
        """
        if side not in SIDES:
            raise SchemaError(f"side {side!r} does not exist; these do: {', '.join(map(repr, SIDES))}")
        refuse_lists(batch, layout)
        lengths = batch.lengths
        width = int(lengths.max(initial=0)) if width is None else whole("max_len", width)
        if width < 0:
            raise SchemaError(f"max_len={width} must be at least 0")
        kept = np.minimum(lengths, width)
        column = np.arange(width)
        present = column < kept[:, None] if side == "right" else column >= width - kept[:, None]
        newest: Any = slice(None)
        if int(kept.sum()) < int(lengths.sum()):
            oldest = np.repeat(batch.offsets[1:] - kept, lengths)
            newest = np.flatnonzero(np.arange(int(batch.offsets[-1])) >= oldest)
        return cls(kept, present, newest)

    def rows(self, column: NDArray[Any], filling: float) -> NDArray[Any]:
        """A column in rows. Shapes: (events,) → (n, width); (events, size) → (n, width, size).

        Raises: SchemaError: a filling that the column's type cannot hold.
        """
        if column.dtype.kind in "iu":
            bounds = np.iinfo(column.dtype)
            if not (bounds.min <= filling <= bounds.max and filling == int(filling)):
                raise SchemaError(f"value={filling!r} is to fill a column of {column.dtype}, which cannot hold it")
        rows = np.full((*self.present.shape, *column.shape[1:]), filling, column.dtype)
        rows[self.present] = column[self._kept]
        return rows


def refuse_lists(batch: Batch, layout: str) -> None:
    """Raises: SchemaError: the batch has lists of any length."""
    if batch.lists:
        raise SchemaError(f"{next(iter(batch.lists))!r} has lists of any length, for which {layout!r} has no place")


def numeric_features(batch: Batch | SharedBatch) -> dict[str, NDArray[Any]]:
    """Copies of the features that are numbers, truths or times, these as int64 µs, and have no null."""
    found = {}
    for name in batch.features.column_names:
        column = batch.features[name].combine_chunks()
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        elif not _is_number(column.type):
            continue
        if not column.null_count:
            found[name] = plain_from_arrow(column).values.copy()  # Arrow's memory is read-only
    return found


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_)
