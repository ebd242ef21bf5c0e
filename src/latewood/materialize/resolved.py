"""Examples whose pointers were looked up: what stands between the two halves of materializing."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Status
from latewood.materialize.logged import Logged
from latewood.materialize.suppress import Hits
from latewood.materialize.view import View


@dataclass(frozen=True, slots=True, eq=False)
class Resolved:
    """Examples whose pointers were looked up: as many as one likes at once, to be materialized in parts."""

    logged: Logged
    resolution: Resolution
    hits: Hits | None  # the rows that the recents suppress; None where they suppress none
    scrub_ts: NDArray[np.int64] | None  # (n,) when the users were last scrubbed; None where nobody was
    scrubs: int  # how many scrubs were known then
    reader: GenerationReader  # of the generation that the resolution is of
    view: View

    def __len__(self) -> int:
        return len(self.logged)

    @property
    def event_bytes(self) -> int:
        """About what an event takes once it is decoded; of lists, where their items are."""
        return 8 * len(self.view.shown)

    def lengths(self, max_len: int | None) -> NDArray[np.int64]:
        """Events that each example will have. Shapes: (n,)."""
        stored = self.resolution.count if self.hits is None else self.resolution.count - self.hits.counts
        lengths = np.where(self.resolution.status == Status.OK, stored + np.diff(self.logged.recents.offsets), 0)
        return lengths if max_len is None else np.minimum(lengths, max_len)

    def scrubbed(self, scrub_ts: NDArray[np.int64], scrubs: int) -> "Resolved":
        """By what is known of scrubs now."""
        gone = self.logged.cutoff <= scrub_ts
        status = np.where(gone, np.uint8(Status.SCRUBBED), self.resolution.status)
        resolution = replace(self.resolution, status=status)
        return replace(self, resolution=resolution, scrub_ts=scrub_ts, scrubs=scrubs)

    def take(self, rows: NDArray[np.int64]) -> "Resolved":
        """The examples at these rows, in this order."""
        return Resolved(
            self.logged.take(rows),
            self.resolution.take(rows),
            None if self.hits is None else self.hits.take(rows),
            None if self.scrub_ts is None else self.scrub_ts[rows],
            self.scrubs,
            self.reader,
            self.view,
        )

    def slice(self, start: int, stop: int) -> "Resolved":
        """The examples from `start` to `stop`."""
        return Resolved(
            self.logged.slice(start, stop),
            self.resolution.take(slice(start, stop)),
            None if self.hits is None else self.hits.slice(start, stop),
            None if self.scrub_ts is None else self.scrub_ts[start:stop],
            self.scrubs,
            self.reader,
            self.view,
        )
