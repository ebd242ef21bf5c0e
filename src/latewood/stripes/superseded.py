"""The hidden column `superseded_at`: when a newer version took an event's place, null where none did.

Almost no event is ever superseded, and a stripe of nulls takes no bytes. Elsewhere the same is an array with NEVER for
null (`Events.superseded_at`), or no array at all; this is the way between the two.
"""

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.events import NEVER


def superseded_column(superseded_at: NDArray[np.int64] | None, count: int) -> Column:
    """The column of `count` events; None: none of them is superseded. Inverse: `superseded_times`."""
    if superseded_at is None:
        return Column(np.zeros(count, np.int64), np.ones(count, np.bool_))
    mask = superseded_at == NEVER
    return Column(np.where(mask, 0, superseded_at), mask)


def superseded_times(column: Column) -> NDArray[np.int64] | None:
    """`Events.superseded_at` of a decoded column: NEVER where null; None where all of it is."""
    if column.mask is None:
        return column.values if len(column.values) else None
    return None if column.mask.all() else np.where(column.mask, NEVER, column.values)
