"""The recent events' columns at one moment: what a read leaves with, and takes events from without a lock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Lists, TraitColumn, null_column
from latewood.events import Events
from latewood.mutable.growable import IntegerIds, TextIds
from latewood.schema import Schema
from latewood.users import UserKeys, no_keys


class WantedTrait(NamedTuple):
    """A trait that is to be read from memory, and what its values must be."""

    trait: int
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The columns at one moment: rows that were committed then can be taken from it at any later time."""

    user_hash: NDArray[np.uint64]
    user_check: NDArray[np.uint64]
    user_ids: IntegerIds | TextIds
    users: NDArray[np.int64]
    event_ts: NDArray[np.int64]
    ingest_ts: NDArray[np.int64]
    ordinal: NDArray[np.int32]
    traits: dict[int, TraitColumn]
    _addresses: dict[int, tuple[Sequence[WantedTrait], NDArray[np.int64]]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.int64]) -> Events:
        users = self.users[rows]
        return Events(
            self.user_ids.take(users),
            UserKeys(self.user_hash[users], self.user_check[users]),
            self.event_ts[rows],
            self.ingest_ts[rows],
            self.ordinal[rows],
            {trait: column for trait in self.traits if (column := self.column(trait, rows)) is not None},
        )

    def column(self, trait: int, rows: NDArray[np.int64]) -> TraitColumn | None:
        """One trait of some events; None where it is null in all of them, because none here has it."""
        if trait not in self.traits:
            return None
        column = self.traits[trait].take(rows)
        return column if column.mask is None or column.mask.any() else column._replace(mask=None)

    def addresses(self, wanted: Sequence[WantedTrait]) -> NDArray[np.int64]:
        """Where columns lie in memory, for kernels: (3 + traits, 2), of both clocks, the ordinal and some traits.

        Each has the address of its values and that of its mask: 0 where nothing is null, or where there are no values
        either, and all is null. Of a list trait both are 0. They are good as long as the view is, and worked out once for
        every list of traits.
        """
        known = self._addresses.get(id(wanted))  # which is kept beside, so that its id stays its own
        if known is None:
            known = self._addresses[id(wanted)] = wanted, self._addresses_of(wanted)
        return known[1]

    def _addresses_of(self, wanted: Sequence[WantedTrait]) -> NDArray[np.int64]:
        found: list[tuple[int, int]] = [(_address(of), 0) for of in (self.event_ts, self.ingest_ts, self.ordinal)]
        for trait, dtype in wanted:
            column = self.traits.get(trait)
            if column is not None and column.dtype != dtype:
                raise ValueError(f"trait {trait} is kept as {column.dtype}, not as {dtype}")
            if column is None or isinstance(column, Lists):
                found.append((0, 0))
            else:
                found.append((_address(column.values), 0 if column.mask is None else _address(column.mask)))
        return np.array(found, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class EventsView:
    """Events of a tier where they lie in memory, in arrival order: as of when they were asked for. Shapes: rows (n,)."""

    columns: View
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def slice(self, start: int, stop: int) -> "EventsView":
        """Those from `start` to `stop`."""
        return EventsView(self.columns, self.rows[start:stop])

    def runs(self, most: int) -> Iterator[Events]:
        """Copies of them, at most so many at a time."""
        return (self.columns.take(self.rows[start : start + most]) for start in range(0, len(self), most))


def no_view(schema: Schema) -> View:
    """Of no events, with every trait."""
    times, keys = np.zeros(0, np.int64), no_keys()
    ids = IntegerIds() if pa.types.is_integer(schema.user_id) else TextIds()
    traits = {trait.id: null_column(trait, 0) for trait in schema}
    return View(*keys, ids, times, times, times, np.zeros(0, np.int32), traits)


def _address(column: NDArray[Any]) -> int:
    """Raises: ValueError: its values do not lie end to end."""
    if not column.flags.c_contiguous:
        raise ValueError("a column in pieces has no address")
    return int(column.ctypes.data)
