"""From pointers to rows, and back: where a user's visible events lie in a generation (docs/protocol.md R2, R3, R8, R18).

Two directions of one question. *Measure* is what capture and backfill ask: given a request's end and a cutoff, how
many stored events are visible, from when on, and what is their checksum? *Resolve* is what materialize asks: given a
pointer, which rows of which shard does it mean, and are they still what was captured?

A user's rows are sorted by the total order, so that a request's end is one place, found by binary search in the stripe
index and in one stripe. Before that place, a row is visible iff `ingest_ts < watermark ≤ superseded_at`. Stripes whose
latest ingest is before the watermark are visible as a whole and are never decoded: their count is arithmetic and their
checksum the difference of two prefix sums. Only where something came late, was superseded, or is to be ranked, are stripes
decoded to see which rows.

Rows are counted within a user, from 0; row // 256 is the stripe.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from latewood.events import NO_TIE
from latewood.immutable import desk as desks
from latewood.immutable import walk
from latewood.immutable.places import PLACE_WORDS
from latewood.lists import offsets_of, take_runs
from latewood.pointer import Pointers
from latewood.stripes import Tables
from latewood.users import UserKeys

_RUNS = 16  # of a pointer, on average: room that is hardly ever too little


class Status(IntEnum):
    """What became of a pointer. The kernels' numbers, and those that they never meet."""

    OK = walk.OK
    UNKNOWN_USER = walk.UNKNOWN_USER  # the pointer means events, the generation has none of this user
    SHORT = walk.SHORT  # fewer visible events than `length`, or ties than `end_ties`
    CHECKSUM = walk.CHECKSUM  # as many as expected, but not the same ones
    NEWER = walk.NEWER  # the pointer's watermark is past the generation's: read a newer generation
    EXPIRED = 5  # fewer visible events than `length`, in a generation where retention took some
    SCRUBBED = 6  # the user was scrubbed after the example was made; whoever knows the scrubs says so


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


class Runs(NamedTuple):
    """Rows of n users, as runs. Shapes: offsets (n + 1,): whose runs are which; start, length (offsets[-1],)."""

    offsets: NDArray[np.int64]
    start: NDArray[np.int64]
    length: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64] | slice) -> "Runs":
        """Those of some users; of a slice as views."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(len(self.offsets) - 1)
            first, last = self.offsets[start], self.offsets[stop]
            return Runs(self.offsets[start : stop + 1] - first, self.start[first:last], self.length[first:last])
        offsets, at = take_runs(self.offsets, rows)
        return Runs(offsets, self.start[at], self.length[at])

    @property
    def before(self) -> NDArray[np.int64]:
        """How many rows of the same user are in the runs before each."""
        before = np.cumsum(self.length) - self.length
        counts = np.diff(self.offsets)
        return before - np.repeat(before[self.offsets[:-1][counts > 0]], counts[counts > 0])

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many rows each user has. Shapes: (n,)."""
        return np.diff(offsets_of(self.length)[self.offsets])


class Unstored(NamedTuple):
    """Events that are not stored, to be ranked among the rows that n pointers mean.

    Shapes: offsets (n + 1,): whose events are which; order (3, m): event_ts, ingest_ts and ordinal, of each pointer in the
    total order; ranks (m,): filled in, how many of the pointer's rows sort before each. Those of a pointer that means no
    rows are not. `reach`: no more than so many rows and events of a pointer are wanted, the newest; the ranks of what sorts
    before those say only that. No offsets: nothing is to be ranked.
    """

    offsets: NDArray[np.int64]
    order: NDArray[np.int64]
    ranks: NDArray[np.int64]
    reach: int = walk.ALL


NO_UNSTORED = Unstored(np.zeros(0, np.int64), np.zeros((3, 0), np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class Measured:
    """What n requests can see of a generation: the columns of their pointers. Shapes: all (n,).

    `start_ts` is the oldest visible event's time (`end_ts` where there is none). `stored_before` counts the stored
    events with `event_ts < end_ts`, whenever ingested, but is 0 where all of them were superseded in time: if it is
    positive and `length` is 0, ingest time hid them.
    """

    start_ts: NDArray[np.int64]
    end_ties: NDArray[np.int32]
    length: NDArray[np.int64]
    checksum: NDArray[np.uint64]
    stored_before: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Resolution:
    """The rows that n pointers mean. Shapes: all (n,).

    [start, stop) is the hull of a pointer's visible rows, `runs` says which of those in it are visible: those with
    `ingest_ts < watermark ≤ superseded_at`, the watermark being the pointer's. Each has a run, if only an empty one.
    Where status is EXPIRED these are the rows that are left; where it is anything else but OK there are none.
    """

    shard: NDArray[np.int64]
    user: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    count: NDArray[np.int64]  # how many visible rows there are: the pointer's length, where OK
    runs: Runs
    last_ts: NDArray[np.int64]  # of the newest visible row; before all times where there is none
    status: NDArray[np.uint8]  # a Status
    found: NDArray[np.int64]  # visible events found, at most the pointer's length: for messages
    checksum: NDArray[np.uint64]  # of those found

    @property
    def rows(self) -> Rows:
        return Rows(self.shard, self.user, self.start, self.stop)

    def take(self, rows: NDArray[np.int64] | slice) -> "Resolution":
        """Some of the pointers; of a slice as views."""
        taken: list[Any] = []
        for field in fields(self):
            column = getattr(self, field.name)
            taken.append(column.take(rows) if isinstance(column, Runs) else column[rows])
        return Resolution(*taken)


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
    desk = desks.new_desk()
    walk.measure(tables.rows, tuple(keys), tuple(located), requests, out, _places(n), desk)
    _check(tables, desk)
    return measured


def resolve(
    tables: Tables,
    keys: UserKeys,
    pointers: Pointers,
    watermark: int,
    expired: bool = False,
    unstored: Unstored = NO_UNSTORED,
) -> Resolution:
    """The rows that pointers mean, in a generation of the given watermark, with length and checksum compared.

    Args:
        keys: whose pointers they are.
        expired: whether retention ever took events from it.
        unstored: events to be ranked on the way.
    Raises: CorruptionError: a block on the way is damaged.
    """
    columns = (
        _plain(pointers.watermark, np.int64),
        _plain(pointers.start_ts, np.int64),
        _plain(pointers.end_ts, np.int64),
        _plain(pointers.end_ties, np.int32),
        _plain(pointers.length, np.int64),
        _plain(pointers.checksum, np.uint64),
    )
    n = len(columns[0])
    status, out, offsets = np.empty(n, np.uint8), np.empty((walk.FINDINGS + 2, n), np.int64), np.empty(n + 1, np.int64)
    *findings, shard, user = out
    places, room = _places(n), _RUNS * n
    while True:  # once more where there were more runs than there was room for
        runs, desk = np.empty((2, room), np.int64), desks.new_desk()
        walk.resolve(
            tables.rows,
            tuple(keys),
            (shard, user),
            columns,
            unstored,
            watermark,
            expired,
            status,
            out,
            offsets,
            runs,
            places,
            desk,
        )
        _check(tables, desk)
        needed = int(offsets[n])
        if needed <= room:
            break
        room = needed
    start, stop, given, last_ts, found, checksum = findings
    if expired:
        missing = ((status == Status.UNKNOWN_USER) | (status == Status.SHORT)) & (found < pointers.length)
        status[missing] = Status.EXPIRED
    meant = Runs(offsets, runs[0, :needed], runs[1, :needed])
    return Resolution(shard, user, start, stop, given, meant, last_ts, status, found, checksum.view(np.uint64))


def find_rows(
    tables: Tables,
    located: Located,
    event_ts: NDArray[np.int64],
    ingest_ts: NDArray[np.int64],
    ordinal: NDArray[np.int64],
    watermark: NDArray[np.int64] | int | None = None,
) -> NDArray[np.int64]:
    """The rows of events given by their places in the total order; -1 where there is none.

    Args: watermark: find only what is visible at it; None: whatever is stored.
    Shapes: all (n,).
    Raises: CorruptionError: a block on the way is damaged.
    """
    n = len(event_ts)
    events = tuple(_plain(column, np.int64) for column in (event_ts, ingest_ts, ordinal))
    limit, out, desk = _each(walk.ANY if watermark is None else watermark, n), np.empty(n, np.int64), desks.new_desk()
    walk.find_rows(tables.rows, tuple(located), events, limit, out, _places(n), desk)
    _check(tables, desk)
    return out


def _places(n: int) -> NDArray[np.uint64]:
    """Room for the places of n requests' ends. Not made in the kernels, as the desk."""
    return np.empty((n, PLACE_WORDS), np.uint64)


def _plain(array: NDArray[Any], dtype: type[Any]) -> NDArray[Any]:
    """As the kernels' only signature wants it: contiguous, writable or not made so by a copy."""
    array = np.ascontiguousarray(array, dtype)
    return array if array.flags.writeable else array.copy()


def _each(value: NDArray[np.int64] | int, n: int) -> NDArray[np.int64]:
    return np.full(n, value, np.int64) if np.ndim(value) == 0 else _plain(np.asarray(value), np.int64)


def _check(tables: Tables, desk: NDArray[np.int64]) -> None:
    """Raise what a kernel noted: the block that it could not trust."""
    note = desk[desks.FIRST_NOTE :]
    if note[desks.DAMAGED] != desks.NOWHERE:
        fields = (desks.OF_TABLE, desks.OF_USER, desks.OF_STRIPE, desks.DAMAGED)
        table, user, stripe, column = (int(note[field]) for field in fields)
        shard = (table - tables.rows.ctypes.data) // tables.rows.strides[0]
        raise tables.damage(shard, user, column, stripe)
