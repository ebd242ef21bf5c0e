"""Examples whose pointers were looked up: what stands between the two halves of materializing."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Status
from latewood.materialize.choose import choose
from latewood.materialize.logged import Logged
from latewood.materialize.suppress import Hits
from latewood.materialize.view import View


class Shown(NamedTuple):
    """What n examples show of what is there. Shapes: (n,) each."""

    lengths: NDArray[np.int64]  # events that each example will have
    start: NDArray[np.int64]  # those of them that are stored are rows of its user, from here
    stop: NDArray[np.int64]  # to here
    recents: NDArray[np.int64]  # its recent events, shown or not


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
        """What an event takes once it is decoded; of lists of any length without their items."""
        return sum(want.decoded_bytes for want in self.view.wanted(self.reader).columns)

    @property
    def has_lists_of_any_length(self) -> bool:
        """Whether it shows lists of any length."""
        return any(want.is_list and want.list_size is None for want in self.view.wanted(self.reader).columns)

    def shown(self, max_len: int | None) -> Shown:
        """What the examples show, of which those that could not be had show nothing."""
        candidates = choose(self.resolution, self.hits, self.logged.recents, max_len)
        rows = candidates.rows
        return Shown(np.diff(candidates.offsets), rows.start, rows.stop, np.diff(self.logged.recents.offsets))

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
