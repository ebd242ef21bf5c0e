"""From pointers to rows, and back: where a user's visible events lie in a generation (docs/protocol.md R2, R3, R8, R18).

Two directions of one question. *Measure* is what capture and backfill ask: given a request's end and a cutoff, how
many stored events are visible, from when on, and what is their checksum? *Resolve* is what materialize asks: given a
pointer, which rows of which shard does it mean, and are they still what was captured?

A user's rows are sorted by the total order, so that a request's end is one place, found by binary search in the stripe
index and in one stripe. Before that place, a row is visible iff its `ingest_ts < watermark`. Stripes whose latest
ingest is before the watermark are visible as a whole and are never decoded: their count is arithmetic and their
checksum the difference of two prefix sums. Only where something came late are stripes decoded to see which rows.

Rows are counted within a user, from 0; row // 256 is the stripe.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.errors import PointerError
from latewood.events import NO_TIE
from latewood.immutable import walk
from latewood.pointer import Pointers
from latewood.stripes import Tables
from latewood.users import UserKeys


class Status(IntEnum):
    """What became of a pointer. The kernels' numbers, and one that they never meet."""

    OK = walk.OK
    UNKNOWN_USER = walk.UNKNOWN_USER  # the pointer means events, the generation has none of this user
    SHORT = walk.SHORT  # fewer visible events than `length`, or ties than `end_ties`
    CHECKSUM = walk.CHECKSUM  # as many as expected, but not the same ones
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

    `start_ts` is the oldest visible event's time (`end_ts` where there is none). `stored_before` counts the stored
    events with `event_ts < end_ts`, whenever ingested: if it is positive and `length` is 0, ingest time hid them all.
    """

    start_ts: NDArray[np.int64]
    end_ties: NDArray[np.int32]
    length: NDArray[np.int64]
    checksum: NDArray[np.uint64]
    stored_before: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The rows that n pointers mean. Shapes: all (n,).

    [start, stop) is the hull of a pointer's visible rows. A row inside the hull is visible iff its `ingest_ts` is
    before the pointer's watermark; where `dirty` is False all of them are, and `stop - start == count`. Where status is
    not OK the rows are empty.
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

    def take(self, rows: NDArray[np.int64] | slice) -> "Resolution":
        """Some of the pointers; of a slice as views."""
        columns: list[NDArray[Any]] = [getattr(self, column.name) for column in fields(self)]
        return Resolution(*(column[rows] for column in columns))


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
        own = show_ts(int(pointers.watermark[row]))
        what = f"the pointer's watermark is {own}, the generation's {show_ts(watermark)}"
    elif status is Status.UNKNOWN_USER:
        what = f"the pointer means {length} events, but the store has none of this user"
    elif status is Status.SHORT:
        what = f"the pointer means {length} events ({pointers.end_ties[row]} at its end), but only {found} are visible"
    else:
        expected, actual = int(pointers.checksum[row]), int(resolution.checksum[row])
        what = f"the {length} events found are not those captured: checksum {actual:#018x}, expected {expected:#018x}"
    others = f" ({len(bad) - 1} more rows are affected)" if len(bad) > 1 else ""
    raise PointerError(f"row {row}, user {user!r}: {what}{others}")


def measure(
    tables: Tables,
    keys: UserKeys,
    located: Located,
    end_ts: NDArray[np.int64],
    watermark: NDArray[np.int64] | int,
    tie_ingest: NDArray[np.int64] | None = None,
    tie_ordinal: NDArray[np.int32] | None = None,
) -> Measured:
    """What requests that end at `end_ts` can see of the events ingested before `watermark`.

    Args:
        tie_ingest, tie_ordinal: for anchors, the anchor's own place among those at `end_ts`: an event exactly at
            `end_ts` counts if it sorts before it. None, or in a row a time before EARLIEST_TS: no event
            at `end_ts` counts.
    Raises: CorruptionError: a block on the way is damaged.
    """
    n = len(end_ts)
    ingest = np.full(n, NO_TIE, np.int64) if tie_ingest is None else _plain(tie_ingest, np.int64)
    ordinal = np.zeros(n, np.int32) if tie_ordinal is None else _plain(tie_ordinal, np.int32)
    measured = Measured(
        start_ts=np.array(end_ts, np.int64),
        end_ties=np.zeros(n, np.int32),
        length=np.zeros(n, np.int64),
        checksum=np.zeros(n, np.uint64),
        stored_before=np.zeros(n, np.int64),
    )
    requests = (_plain(end_ts, np.int64), _each(watermark, n), ingest, ordinal)
    out = (measured.start_ts, measured.end_ties, measured.length, measured.checksum, measured.stored_before)
    desk = walk.new_desk()
    walk.measure(tables.rows, tuple(keys), tuple(located), requests, out, desk)
    _check(tables, desk)
    return measured


def resolve(tables: Tables, keys: UserKeys, located: Located, pointers: Pointers, watermark: int) -> Resolution:
    """The rows that pointers mean, in a generation of the given watermark, with length and checksum compared.

    Raises: CorruptionError: a block on the way is damaged.
    """
    n = len(pointers)
    status = np.where(pointers.watermark > watermark, np.uint8(Status.NEWER), np.uint8(Status.OK))
    start, stop, found = (np.zeros(n, np.int64) for _ in range(3))
    checksum = np.zeros(n, np.uint64)
    times = (_plain(column, np.int64) for column in (pointers.watermark, pointers.start_ts, pointers.end_ts))
    ties, length = _plain(pointers.end_ties, np.int32), _plain(pointers.length, np.int64)
    columns = (*times, ties, length, _plain(pointers.checksum, np.uint64))
    out = (status, start, stop, found, checksum)
    desk = walk.new_desk()
    walk.resolve(tables.rows, tuple(keys), tuple(located), columns, out, desk)
    _check(tables, desk)
    count = np.where(status == Status.OK, found, 0)
    return Resolution(*located, start, stop, count, stop - start != count, status, found, checksum)


def visible_rows(
    tables: Tables, rows: Rows, watermark: NDArray[np.int64] | int, newest: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of each range that were ingested before its watermark, oldest first; or only the newest n of them.

    Shapes: (n,) ranges → offsets (n + 1,), rows (offsets[-1],).
    Raises: CorruptionError: a block on the way is damaged.
    """
    room = rows.stop - rows.start
    if newest is not None:
        room = np.minimum(room, newest)
    offsets, out = np.zeros(len(room) + 1, np.int64), np.empty(room.sum(), np.int64)
    columns = tuple(_plain(column, np.int64) for column in rows)
    desk = walk.new_desk()
    walk.visible_rows(tables.rows, columns, _each(watermark, len(room)), room, offsets, out, desk)
    _check(tables, desk)
    return offsets, out[: offsets[-1]]


def _plain(array: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    """As the kernels' only signature wants it: contiguous, writable or not made so by a copy."""
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.writeable else array.copy()


def _each(value: NDArray[np.int64] | int, n: int) -> NDArray[np.int64]:
    return np.full(n, value, np.int64) if np.ndim(value) == 0 else _plain(np.asarray(value), np.int64)


def _check(tables: Tables, desk: NDArray[np.int64]) -> None:
    """Raise what a kernel noted: the block that it could not trust."""
    note = desk[walk.FIRST_NOTE :]
    if note[walk.DAMAGED] != walk.NOWHERE:
        table, user, stripe, column = (int(note[field]) for field in (walk.TABLE, walk.USER, walk.STRIPE, walk.DAMAGED))
        shard = (table - tables.rows.ctypes.data) // tables.rows.strides[0]
        raise tables.damage(shard, user, column, stripe)
