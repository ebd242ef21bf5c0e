"""Suppress: the stored events that an example's recent events took the place of (docs/protocol.md R4, R13).

A correction or deletion that was still recent when a request came is part of what the request saw, though it concerns an
event that the pointer counts. So an example lists the places of such events, beside its recents; what of them the pointer
means is a *hit*, and does not come into the sequence. The new version itself, if it is in range, is one of the recents.

Nearly no example lists any, and then nothing here costs anything.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.columns import first_row, struct_fields, times_from_arrow
from latewood.errors import LeakageError, PointerError, SchemaError
from latewood.events import PLACE
from latewood.immutable import GenerationReader
from latewood.immutable.resolve import Located, Resolution, Runs
from latewood.kernels import kernel
from latewood.lists import offsets_of, take_runs
from latewood.pointer import Pointers

SUPERSEDES = "supersedes"


@dataclass(frozen=True, slots=True, eq=False)
class SupersededPlaces:
    """Where the stored events stand in the total order that were superseded when each of n requests came.

    Shapes: offsets (n + 1,): whose places are which; order (3, m): event_ts, ingest_ts and ordinal.
    """

    offsets: NDArray[np.int64]
    order: NDArray[np.int64]

    @property
    def owner(self) -> NDArray[np.int64]:
        """Whose each place is. Shapes: (m,)."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def take(self, rows: NDArray[np.int64]) -> "SupersededPlaces":
        """The places of the examples at these rows, in this order."""
        offsets, at = take_runs(self.offsets, rows)
        return SupersededPlaces(offsets, np.ascontiguousarray(self.order[:, at]))

    def slice(self, start: int, stop: int) -> "SupersededPlaces":
        """The places of the examples from `start` to `stop`."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return SupersededPlaces(self.offsets[start : stop + 1] - first, np.ascontiguousarray(self.order[:, first:last]))


class StoredRows(NamedTuple):
    """The rows that n examples may show. Shapes: counts (n,): how many the runs of each have."""

    runs: Runs
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Rows of the generation that n examples must not show, ascending within each. Shapes: offsets (n + 1,), rows (m,)."""

    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many each example has. Shapes: (n,)."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> "Hits":
        """The hits of the examples at these rows, in this order."""
        offsets, at = take_runs(self.offsets, rows)
        return Hits(offsets, self.rows[at])

    def left_out_of(self, runs: Runs) -> Runs:
        """Runs without these rows. Every example keeps one, if only an empty one."""
        room = len(runs.start) + len(self.rows)
        offsets, out = np.zeros(len(runs.offsets), np.int64), np.empty((2, room), np.int64)
        _leave_out(tuple(runs), self.offsets, self.rows, offsets, out)
        return Runs(offsets, *out[:, : offsets[-1]])

    def slice(self, start: int, stop: int) -> "Hits":
        """The hits of the examples from `start` to `stop`."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        return Hits(self.offsets[start : stop + 1] - first, self.rows[first:last])


@kernel
def _leave_out(runs: Any, hit_offsets: Any, hits: Any, offsets: Any, out: Any) -> None:
    run_offsets, starts, lengths = runs
    at = 0
    for i in range(len(offsets) - 1):
        offsets[i], hit = at, hit_offsets[i]
        for run in range(run_offsets[i], run_offsets[i + 1]):
            start, stop = starts[run], starts[run] + lengths[run]
            while hit < hit_offsets[i + 1] and hits[hit] < stop:
                if hits[hit] > start:
                    out[0, at], out[1, at] = start, hits[hit] - start
                    at += 1
                start, hit = max(start, hits[hit] + 1), hit + 1
            if start < stop or (at == offsets[i] and run + 1 == run_offsets[i + 1]):
                out[0, at], out[1, at] = start, stop - start
                at += 1
    offsets[len(offsets) - 1] = at


def read_places(array: pa.Array) -> SupersededPlaces | None:
    """Read the list `recent.supersedes`; None where it names nothing.

    Raises: SchemaError: not lists of places, or a null.
    """
    name = f"recent.{SUPERSEDES}"
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        raise SchemaError(f"column '{name}' is {array.type}; it is a list of places")
    if array.null_count:
        raise SchemaError(f"column '{name}' has a null in row {first_row(array.is_null())}")
    offsets = array.offsets.to_numpy().astype(np.int64)
    if not len(array) or offsets[0] == offsets[-1]:
        return None
    flat = array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))
    columns = struct_fields(flat)
    if missing := [field for field in PLACE if field not in columns]:
        raise SchemaError(f"column '{name}' is {array.type}; a place also has {', '.join(missing)}")
    if flat.null_count:
        raise SchemaError(f"column '{name}' has a null in its element {first_row(flat.is_null())}")
    ordinals = columns["ordinal"]
    if ordinals.null_count or not pa.types.is_integer(ordinals.type):
        raise SchemaError(f"column '{name}.ordinal' is {ordinals.type} with {ordinals.null_count} nulls, not integers")
    order = np.empty((3, len(flat)), np.int64)
    order[0] = times_from_arrow(columns["event_ts"], f"{name}.event_ts")
    order[1] = times_from_arrow(columns["ingest_ts"], f"{name}.ingest_ts")
    order[2] = ordinals.to_numpy()
    return SupersededPlaces(offsets - offsets[0], order)


def refuse_places(places: SupersededPlaces, pointers: Pointers, cutoff: NDArray[np.int64]) -> None:
    """Check that the places are of stored events that the request could have seen.

    Raises: LeakageError: an event ingested at or after the cutoff, or that happened after the end. PointerError: one
        that the pointer cannot count, or that stands twice.
    """
    owner, (event_ts, ingest_ts, _) = places.owner, places.order
    end_ts, watermark = pointers.end_ts[owner], pointers.watermark[owner]
    bad = np.flatnonzero((event_ts > end_ts) | (ingest_ts >= watermark) | _repeated(places))
    if not len(bad):
        return
    at = int(bad[0])
    row, times = int(owner[at]), [show_ts(int(ts)) for ts in places.order[:2, at]]
    event = f"row {row}: a superseded event of {times[0]}, ingested {times[1]},"
    if ingest_ts[at] >= cutoff[row]:
        raise LeakageError(f"{event} was not known before the cutoff {show_ts(int(cutoff[row]))}")
    if event_ts[at] > end_ts[at]:
        raise LeakageError(f"{event} is after the request's end {show_ts(int(end_ts[at]))}")
    if ingest_ts[at] >= watermark[at]:
        own = show_ts(int(watermark[at]))
        raise PointerError(f"{event} is not from before the pointer's watermark {own}: it would be one of the recents")
    raise PointerError(f"{event} number {places.order[2, at]}, stands there twice")


def _repeated(places: SupersededPlaces) -> NDArray[np.bool_]:
    """Which places repeat another of the same example."""
    keys = (*places.order, places.owner)
    by_place = np.lexsort(keys)
    same = np.ones(len(by_place) - 1, np.bool_)
    for key in keys:
        same &= key[by_place[1:]] == key[by_place[:-1]]
    repeated = np.zeros(len(by_place), np.bool_)
    repeated[by_place[1:]] = same
    return repeated


def find_hits(
    reader: GenerationReader, resolution: Resolution, pointers: Pointers, places: SupersededPlaces | None
) -> Hits | None:
    """Which of the rows that pointers mean are superseded in the examples' recents; None where none is.

    Raises: CorruptionError: damaged bytes on the way.
    """
    if places is None:
        return None
    rows = hit_rows(reader, resolution, pointers, places)
    hit = rows >= 0
    if not hit.any():
        return None
    owner, rows = places.owner[hit], rows[hit]
    offsets = offsets_of(np.bincount(owner, minlength=len(places.offsets) - 1))
    return Hits(offsets, rows[np.lexsort((rows, owner))])


def hit_rows(
    reader: GenerationReader, resolution: Resolution, pointers: Pointers, places: SupersededPlaces
) -> NDArray[np.int64]:
    """The row of each place, among those that its pointer means; -1 where the pointer does not mean it."""
    owner, (event_ts, ingest_ts, ordinal) = places.owner, places.order
    located = Located(resolution.shard[owner], resolution.user[owner])
    rows = reader.find_rows(located, event_ts, ingest_ts, ordinal, pointers.watermark[owner])
    meant = (rows >= resolution.start[owner]) & (rows < resolution.stop[owner])
    return np.where(meant, rows, -1)
