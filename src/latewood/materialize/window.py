"""A window: many examples whose histories are decoded at once, each event once, to be made batches of later.

A batch decodes what its examples need straight into its place. But where a user's examples are scattered over many batches,
every one of them would decode the same history. A window decodes all of it before the first, back to back, with the recent
events behind; and since nothing has a place yet, an example is a list of segments to copy. A batch is then nothing but
copies, whichever examples it has.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn
from latewood.materialize.assemble import Segments, assemble, copy_segments
from latewood.materialize.buffers import BufferPool
from latewood.materialize.choose import Candidates
from latewood.materialize.plan import Plan, plan
from latewood.materialize.resolved import Resolved
from latewood.materialize.split import NOWHERE, split


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """n examples, decoded. Shapes: offsets (n + 1,); segments (m, 3); targets (m,); columns (size,) each."""

    resolved: Resolved
    offsets: NDArray[np.int64]  # of the examples, were all of them laid out one after the other
    segments: Segments  # of such a layout, in its order; sources are inverted, for what is copied from is not copied to
    targets: NDArray[np.int64]  # where each segment goes in it
    columns: dict[str, TraitColumn]

    def __len__(self) -> int:
        return len(self.resolved)

    def lay_out(self, start: int, stop: int, pool: BufferPool) -> tuple[NDArray[np.int64], dict[str, TraitColumn]]:
        """The offsets and columns of the examples from `start` to `stop`, as copies."""
        offsets = self.offsets[start : stop + 1] - self.offsets[start]
        first, last = np.searchsorted(self.targets, self.offsets[[start, stop]])
        segments = self.segments[first:last] - np.array([0, self.offsets[start], 0])
        size = int(offsets[-1])
        copies: list[tuple[NDArray[Any], NDArray[Any]]] = []

        def copied(column: NDArray[Any]) -> NDArray[Any]:
            copies.append((pool.empty(size, column.dtype), column))
            return copies[-1][0]

        laid_out: dict[str, TraitColumn] = {}
        for name, column in self.columns.items():
            mask = None if column.mask is None else copied(column.mask)
            if isinstance(column, Lists):
                laid_out[name] = Lists(column.items, copied(column.starts), copied(column.lengths), mask)
            else:
                laid_out[name] = Column(copied(column.values), mask)
        copy_segments(segments, copies)
        return offsets, {name: _without_idle_mask(column) for name, column in laid_out.items()}


def plan_window(
    candidates: Candidates, places: tuple[NDArray[np.int64], NDArray[np.int64]], recent_count: int
) -> tuple[Plan, Segments, Segments]:
    """What to decode of a window, the segments of its examples, and how its recent events get behind what is decoded.

    Args: places: what `merge` says. recent_count: of all the examples.
    """
    parts = split(candidates, *places)
    parts = replace(parts, place=np.full(len(parts.place), NOWHERE))
    planned, total = plan(parts, 0), candidates.offsets[-1]
    # Assembling leaves out what was decoded where it belongs. Here nothing was, so sources are moved beyond all targets.
    segments = assemble(candidates, parts, planned.base + total, *places)
    sources = segments[:, 0]
    segments[:, 0] = ~np.where(sources < 0, planned.size + ~sources, sources - total)
    behind = np.array([[~0, planned.size, recent_count]] if recent_count else np.empty((0, 3)), np.int64)
    return replace(planned, size=planned.size + recent_count), segments, behind


def _without_idle_mask(column: TraitColumn) -> TraitColumn:
    """The nulls of a window may be in other examples."""
    return column if column.mask is None or column.mask.any() else column._replace(mask=None)
