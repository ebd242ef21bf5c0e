"""What retention left, and whether it is enough (docs/protocol.md R15).

Retention takes a prefix of a user's order, and never a part of the events of one time. So what it left of a pointer is
complete from the oldest row found on, and a projection that wants no more than lies there, stored and recent together,
gets the very sequence that it would have got. Any other would be silently short, and is refused.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latewood.clock import LATEST_TS
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Rows, Status
from latewood.materialize.recents import Recents
from latewood.materialize.suppress import Hits
from latewood.stripes.layout import EVENT_TS


def serve_retained(
    reader: GenerationReader, resolution: Resolution, hits: Hits | None, recents: Recents, max_len: int | None
) -> Resolution:
    """Accept the expired pointers that still have all that is wanted of them. Their checksums cannot be compared."""
    if max_len is None or not reader.generation.expired:
        return resolution
    expired = resolution.status == Status.EXPIRED
    if not expired.any():
        return resolution
    left = resolution.count if hits is None else resolution.count - hits.counts
    oldest = _oldest_found(reader, resolution, expired)
    owner = np.repeat(np.arange(len(oldest)), np.diff(recents.offsets))
    newer = np.bincount(owner[recents.order[0] >= oldest[owner]], minlength=len(oldest))
    served = expired & ((left + newer >= max_len) & (resolution.count > 0) | (max_len == 0))
    return replace(resolution, status=np.where(served, np.uint8(Status.OK), resolution.status))


def _oldest_found(reader: GenerationReader, resolution: Resolution, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The time of the oldest row found, of the pointers wanted; after all times where there is none."""
    oldest = np.full(len(wanted), LATEST_TS + 1)
    rows = np.flatnonzero(wanted & (resolution.count > 0))
    first = resolution.start[rows]
    runs = Rows(resolution.shard[rows], resolution.user[rows], first, first + 1)
    oldest[rows] = reader.read_column(runs, EVENT_TS, np.dtype(np.int64)).values
    return oldest
