"""The event ids of what the arena holds: a hash table over columns, one entry per id and version.

An id may have several versions, in the order of their arrival: the event it was given to first, then corrections and
deletions that supersede that very id (R13). An entry of a deletion has no row in the arena.
"""

from typing import NamedTuple

import numpy as np
from numba import boolean, int64, types, uint64
from numpy.typing import NDArray

from latewood.kernels import typed_kernel
from latewood.mutable.event_ids import NO_EVENT
from latewood.mutable.growable import Growable, power_of_two

_I64 = types.Array(int64, 1, "C")
_U64 = types.Array(uint64, 1, "C")
_BOOL = types.Array(boolean, 1, "C")
_IN_BOOL = types.Array(boolean, 1, "C", readonly=True)


class Matches(NamedTuple):
    """Which rows of a table repeat an id. Shapes: (n,)."""

    found: NDArray[np.int64]  # the entry with the same content (≥ 0), row j of the table above (-2 - j), or none (-1)
    clash: NDArray[np.bool_]  # the id is known, here or above, with other content


class IdTable:
    """Entries in the order of their arrival."""

    def __init__(self) -> None:
        self.count = 0
        self.high, self.low, self.content = (Growable(np.uint64) for _ in range(3))
        self.ingest_ts, self.ordinal = Growable(np.int64), Growable(np.int32)
        self.row = Growable(np.int64)  # -1: a deletion
        self._table = np.zeros(2048, np.int64)

    def match(self, ids: NDArray[np.uint64], content: NDArray[np.uint64]) -> Matches:
        """Which rows of a table repeat an id, here or in it."""
        found, clash = np.full(len(ids), -1, np.int64), np.zeros(len(ids), np.bool_)
        high, low = _halves(ids)
        known = self.high.array, self.low.array, self.content.array
        match_ids(high, low, np.ascontiguousarray(content), self._table, *known, _scratch(len(ids)), found, clash)
        return Matches(found, clash)

    def targets(
        self,
        asked: NDArray[np.bool_],
        targets: NDArray[np.uint64],
        ids: NDArray[np.uint64],
        usable: NDArray[np.bool_],
    ) -> NDArray[np.int64]:
        """The newest event that each asking row's target names: row j of the table above (-2 - j), an entry, or none (-1).

        Args: ids, usable: the table's own ids, and which of its rows are new events.
        """
        found = np.full(len(asked), -1, np.int64)
        known = self.high.array, self.low.array, self.row.array
        find_targets(asked, *_halves(targets), *_halves(ids), usable, self._table, *known, _scratch(len(ids)), found)
        return found

    def add(
        self,
        ids: NDArray[np.uint64],
        content: NDArray[np.uint64],
        ingest_ts: NDArray[np.int64],
        ordinal: NDArray[np.int32] | None = None,
        first_row: int = -1,
    ) -> None:
        """Enter the ids that are not zero; without ordinals, they are of deletions."""
        named = np.flatnonzero(ids.any(axis=1))
        if not len(named):
            return
        none = np.full(len(named), NO_EVENT, np.int32)
        self._put(
            (ids[named, 0], ids[named, 1], content[named], ingest_ts[named]),
            none if ordinal is None else ordinal[named],
            none.astype(np.int64) if ordinal is None else named + first_row,
        )

    def _put(
        self, columns: tuple[NDArray[np.generic], ...], ordinal: NDArray[np.int32], row: NDArray[np.int64]
    ) -> None:
        start, stop = self.count, self.count + len(row)
        parts = (self.high, self.low, self.content, self.ingest_ts, self.ordinal, self.row)
        for part, values in zip(parts, (*columns, ordinal, row), strict=True):
            part.put(start, values)
        if 2 * stop > len(self._table):
            self._table = np.zeros(power_of_two(4 * stop), np.int64)
            start = 0
        link_ids(start, stop, self._table, self.low.array)
        self.count = stop

    def part(self, start: int, stop: int, first_row: int) -> "IdTable":
        """Some of the entries, for an arena whose rows begin at `first_row` of this one's."""
        fresh = IdTable()
        if start < stop:
            kept = slice(start, stop)
            row = self.row.array[kept]
            columns = (self.high, self.low, self.content, self.ingest_ts)
            moved = np.where(row < 0, row, row - first_row)
            fresh._put(tuple(column.array[kept] for column in columns), self.ordinal.array[kept], moved)
        return fresh


def _halves(ids: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    return np.ascontiguousarray(ids[:, 0]), np.ascontiguousarray(ids[:, 1])


def _scratch(rows: int) -> NDArray[np.int64]:
    return np.zeros(power_of_two(2 * rows + 1), np.int64)


@typed_kernel(types.void(_U64, _U64, _U64, _I64, _U64, _U64, _U64, _I64, _I64, _BOOL))
def match_ids(high, low, content, table, known_high, known_low, known_content, scratch, found, clash):  # type: ignore[no-untyped-def]
    """See `IdTable.match`. `scratch` is all zero before, as `found` is -1 and `clash` false."""
    mask = uint64(len(table) - 1)
    scratch_mask = uint64(len(scratch) - 1)
    for row in range(len(high)):
        if high[row] == 0 and low[row] == 0:
            continue
        place = low[row] & mask
        while table[place] != 0:
            entry = table[place] - 1
            if known_high[entry] == high[row] and known_low[entry] == low[row]:
                if known_content[entry] == content[row]:
                    found[row] = entry
                    break
                clash[row] = True
            place = (place + uint64(1)) & mask
        if found[row] >= 0:
            continue
        place = low[row] & scratch_mask
        while scratch[place] != 0:
            other = scratch[place] - 1
            if high[other] == high[row] and low[other] == low[row]:
                if content[other] == content[row]:
                    found[row] = -2 - other
                    break
                clash[row] = True
            place = (place + uint64(1)) & scratch_mask
        if found[row] == -1:
            scratch[place] = row + 1


@typed_kernel(types.void(_IN_BOOL, _U64, _U64, _U64, _U64, _IN_BOOL, _I64, _U64, _U64, _I64, _I64, _I64))
def find_targets(  # type: ignore[no-untyped-def]
    asked, target_high, target_low, high, low, usable, table, known_high, known_low, known_row, scratch, found
):
    """See `IdTable.targets`. `scratch` is all zero before, and has the newest row of each id above."""
    mask = uint64(len(table) - 1)
    scratch_mask = uint64(len(scratch) - 1)
    for row in range(len(asked)):
        if asked[row]:
            place = target_low[row] & scratch_mask
            while scratch[place] != 0 and found[row] == -1:
                other = scratch[place] - 1
                if high[other] == target_high[row] and low[other] == target_low[row]:
                    found[row] = -2 - other
                place = (place + uint64(1)) & scratch_mask
            place = target_low[row] & mask
            while found[row] > -2 and table[place] != 0:
                entry = table[place] - 1
                if (
                    known_high[entry] == target_high[row]
                    and known_low[entry] == target_low[row]
                    and known_row[entry] >= 0
                ):
                    found[row] = entry  # the last that is met is the newest
                place = (place + uint64(1)) & mask
        if usable[row] and (high[row] != 0 or low[row] != 0):
            place = low[row] & scratch_mask
            while scratch[place] != 0:
                other = scratch[place] - 1
                if high[other] == high[row] and low[other] == low[row]:
                    break
                place = (place + uint64(1)) & scratch_mask
            scratch[place] = row + 1


@typed_kernel(types.void(int64, int64, _I64, _U64))
def link_ids(start, stop, table, known_low):  # type: ignore[no-untyped-def]
    """Enter the entries [start, stop) into the table, each behind those of the same id."""
    mask = uint64(len(table) - 1)
    for entry in range(start, stop):
        place = known_low[entry] & mask
        while table[place] != 0:
            place = (place + uint64(1)) & mask
        table[place] = entry + 1
