"""Examples whose pointers were looked up: what stands between the two halves of materializing."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Resolution, Status
from latewood.materialize.choose import choose
from latewood.materialize.logged import Logged
from latewood.materialize.suppress import Hits, StoredRows
from latewood.materialize.view import View


class Shown(NamedTuple):
    """What n examples show of what is there. Shapes: (n,) each."""

    lengths: NDArray[np.int64]  # events that each example will have
    start: NDArray[np.int64]  # those of them that are stored are rows of its user, from here
    stop: NDArray[np.int64]  # to here
    recents: NDArray[np.int64]  # its recent events, shown or not


class Resolved:
    """n examples whose pointers were looked up: as many as one likes at once, to be materialized in parts.

    A part is cut out of the whole when someone asks for what it has: of most parts nobody does, and to cut twenty columns
    takes as long as a kernel (docs/decisions/0039-batches-that-need-no-plan.md).
    """

    __slots__ = ("_hits", "_logged", "_resolution", "_scrub_ts", "_whole", "reader", "scrubs", "start", "stop", "view")

    def __init__(
        self,
        logged: Logged,
        resolution: Resolution,
        hits: Hits | None,
        scrub_ts: NDArray[np.int64] | None,
        scrubs: int,
        reader: GenerationReader,
        view: View,
    ) -> None:
        self._logged: Logged | None = logged
        self._resolution: Resolution | None = resolution
        self._hits = hits
        self._scrub_ts = scrub_ts
        self.scrubs = scrubs  # how many scrubs were known then
        self.reader = reader  # of the generation that the resolution is of
        self.view = view
        self.start, self.stop = 0, len(logged)  # which examples of the whole it has
        # None for a whole, and not itself: a cycle keeps its memory until Python looks for cycles
        self._whole: Resolved | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def whole(self) -> "Resolved":
        """What it is a part of, or itself."""
        return self if self._whole is None else self._whole

    @property
    def logged(self) -> Logged:
        """What the examples say."""
        if self._logged is None:
            self._logged = self.whole.logged.slice(self.start, self.stop)
        return self._logged

    @property
    def resolution(self) -> Resolution:
        """The rows that their pointers mean."""
        if self._resolution is None:
            self._resolution = self.whole.resolution.take(slice(self.start, self.stop))
        return self._resolution

    @property
    def hits(self) -> Hits | None:
        """The rows that the recents suppress; None where they suppress none."""
        if self._hits is None and self.whole._hits is not None:
            self._hits = self.whole._hits.slice(self.start, self.stop)
        return self._hits

    @property
    def stored(self) -> StoredRows:
        """The rows that may be shown: those that the pointers mean, less what the recents suppress."""
        resolution, hits = self.resolution, self.hits
        if hits is None:
            return StoredRows(resolution.runs, resolution.count)
        return StoredRows(hits.left_out_of(resolution.runs), resolution.count - hits.counts)

    @property
    def ranks(self) -> NDArray[np.int64] | None:
        """How many of the stored rows that may be shown sort before each recent event; None where that is not known."""
        recents = self.logged.recents
        if not len(recents):
            return np.zeros(0, np.int64)
        return recents.ranks if self.whole._hits is None else None

    @property
    def scrub_ts(self) -> NDArray[np.int64] | None:
        """When the users were last scrubbed; None where nobody was. Shapes: (n,)."""
        if self._scrub_ts is None and self.whole._scrub_ts is not None:
            self._scrub_ts = self.whole._scrub_ts[self.start : self.stop]
        return self._scrub_ts

    @property
    def are_stored_alone(self) -> bool:
        """Whether the examples have no recent events, and suppress nothing."""
        offsets = self.whole.logged.recents.offsets
        return self.whole._hits is None and bool(offsets[self.start] == offsets[self.stop])

    @property
    def status(self) -> NDArray[np.uint8]:
        """What became of the pointers. Shapes: (n,)."""
        return self.whole.resolution.status[self.start : self.stop]

    @property
    def features(self) -> pa.Table:
        """The examples' own columns."""
        return self.whole.logged.features.slice(self.start, len(self))

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
        candidates = choose(self.resolution, self.stored, self.logged.recents, max_len)
        rows = candidates.rows
        return Shown(np.diff(candidates.offsets), rows.start, rows.stop, np.diff(self.logged.recents.offsets))

    def scrubbed(self, scrub_ts: NDArray[np.int64], scrubs: int) -> "Resolved":
        """By what is known of scrubs now."""
        gone = self.logged.cutoff <= scrub_ts
        status = np.where(gone, np.uint8(Status.SCRUBBED), self.resolution.status)
        resolution = replace(self.resolution, status=status)
        return Resolved(self.logged, resolution, self.hits, scrub_ts, scrubs, self.reader, self.view)

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
        part: Resolved = object.__new__(Resolved)
        part._logged = part._resolution = part._hits = part._scrub_ts = None
        part.scrubs, part.reader, part.view, part._whole = self.scrubs, self.reader, self.view, self.whole
        part.start, part.stop = self.start + start, self.start + stop
        return part
