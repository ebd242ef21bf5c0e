"""From pointers to rows, and back: where a user's visible events lie in a generation (PROTOCOL.md R2, R3, R8, R18).

Two directions of one question. *Measure* is what capture and backfill ask: given a request's end and a cutoff, how many
stored events are visible, from when on, and what is their checksum? *Resolve* is what materialize asks: given a pointer,
which rows of which shard does it mean, and are they still what was captured?

A user's rows are sorted by the total order, so that a request's end is one place, found by binary search in the stripe
index and in one stripe. Before that place, a row is visible iff its `ingest_ts < watermark`. Stripes whose latest ingest
is before the watermark are visible as a whole and are never decoded: their count is arithmetic and their checksum the
difference of two prefix sums. Only where something came late are stripes decoded to see which rows.

Rows are counted within a user, from 0; row // 256 is the stripe.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.errors import PointerError
from latewood.pointer import Pointers


class Status(IntEnum):
    """What became of a pointer. The numbers are those the kernels return."""

    OK = 0
    UNKNOWN_USER = 1  # the pointer means events, the generation has none of this user
    SHORT = 2  # fewer visible events than `length`, or ties than `end_ties`
    CHECKSUM = 3  # as many as expected, but not the same ones
    NEWER = 4  # the pointer's watermark is past the generation's: read a newer generation


class Located(NamedTuple):
    """Where users are. Shapes: both (n,); user is -1 where the generation does not have the user."""

    shard: NDArray[np.int64]
    user: NDArray[np.int64]


class Rows(NamedTuple):
    """n runs of rows, half-open, each of one user. Shapes: all (n,) int64; user -1 means no rows."""

    shard: NDArray[np.int64]
    user: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Measured:
    """What n requests can see of a generation: the columns of their pointers. Shapes: all (n,).

    `start_ts` is the oldest visible event's time (`end_ts` where there is none). `stored_before` counts the stored events
    with `event_ts < end_ts`, whenever they were ingested: where it is positive and `length` is 0, ingest time hid all.
    """

    start_ts: NDArray[np.int64]
    end_ties: NDArray[np.int32]
    length: NDArray[np.int64]
    checksum: NDArray[np.uint64]
    stored_before: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The rows that n pointers mean. Shapes: all (n,).

    [start, stop) is the hull of a pointer's visible rows. A row inside the hull is visible iff its `ingest_ts` is before
    the pointer's watermark; where `dirty` is False all of them are, and `stop - start == count`. Where status is not OK
    the rows are empty.
    """

    shard: NDArray[np.int64]
    user: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    count: NDArray[np.int64]  # the pointer's length, where OK
    dirty: NDArray[np.bool_]
    status: NDArray[np.uint8]  # a Status
    found: NDArray[np.int64]  # visible events found, at most the pointer's length: for messages
    checksum: NDArray[np.uint64]  # of those found

    @property
    def rows(self) -> Rows:
        return Rows(self.shard, self.user, self.start, self.stop)


def require(resolution: Resolution, pointers: Pointers, user_ids: pa.Array, watermark: int) -> None:
    """Accept only pointers that resolved in full.

    Args: watermark: the generation's, for the message.
    Raises: PointerError: names the first bad row, its user, what was expected and what was found.
    """
    bad = np.flatnonzero(resolution.status)
    if not len(bad):
        return
    row = int(bad[0])
    status, length, found = Status(resolution.status[row]), pointers.length[row], resolution.found[row]
    user = user_ids[row].as_py()
    if status is Status.NEWER:
        what = f"the pointer's watermark is {show_ts(int(pointers.watermark[row]))}, the generation's {show_ts(watermark)}"
    elif status is Status.UNKNOWN_USER:
        what = f"the pointer means {length} events, but the store has none of this user"
    elif status is Status.SHORT:
        what = f"the pointer means {length} events ({pointers.end_ties[row]} at its end), but only {found} are visible"
    else:
        expected, actual = int(pointers.checksum[row]), int(resolution.checksum[row])
        what = f"the {length} events found are not those captured: checksum {actual:#018x}, expected {expected:#018x}"
    others = f" ({len(bad) - 1} more rows are affected)" if len(bad) > 1 else ""
    raise PointerError(f"row {row}, user {user!r}: {what}{others}")
