"""The recent events that examples carry: from the `recent` column to flat arrays, checked.

`recent` is a struct of lists of equal lengths: both clocks and the ordinal, and one list per trait, named by its label,
with plain values. One more list, `supersedes`, says which stored events were superseded; older logs do not have it.
Recents are logged in the total order, but a file may have been anywhere since: order is restored where it is lost, and
an event that the request could not have seen is refused.
"""

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.columns import (
    TraitColumn,
    column_from_arrow,
    conform,
    first_row,
    null_column,
    one_array,
    struct_fields,
    times_from_arrow,
)
from latewood.errors import LeakageError, PointerError, SchemaError
from latewood.events import PLACE
from latewood.kernels import kernel
from latewood.lists import offsets_of, take_runs
from latewood.materialize.suppress import SUPERSEDES, SupersededPlaces, read_places, refuse_places
from latewood.pointer import Pointers
from latewood.schema import Trait
from latewood.vocabulary import Vocabulary

RECENT = "recent"


@dataclass(frozen=True, slots=True, eq=False)
class Recents:
    """The recent events of n examples, oldest first within each. Shapes: offsets (n + 1,), order (3, r), columns (r,).

    `order` holds event_ts, ingest_ts and ordinal; `columns` the traits asked for, by trait id. `ranks` (r,) says how many
    of the stored events that the example's pointer means sort before each; None where nobody looked, and where the pointer
    means none a rank says nothing.
    """

    offsets: NDArray[np.int64]
    order: NDArray[np.int64]
    columns: dict[int, TraitColumn]
    supersedes: SupersededPlaces | None = None  # the stored events that newer versions replaced; None: of no example
    ranks: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.order.shape[1]

    def take(self, rows: NDArray[np.int64]) -> "Recents":
        """The recents of the examples at these rows, in this order."""
        offsets, events = take_runs(self.offsets, rows)
        supersedes = None if self.supersedes is None else self.supersedes.take(rows)
        if not len(events):
            return Recents(offsets, np.zeros((3, 0), np.int64), self._events(0, 0), supersedes)
        columns = {trait: column.take(events) for trait, column in self.columns.items()}
        ranks = None if self.ranks is None else self.ranks[events]
        return Recents(offsets, np.ascontiguousarray(self.order[:, events]), columns, supersedes, ranks)

    def _events(self, first: int, last: int) -> dict[int, TraitColumn]:
        return {trait: column.slice(first, last) for trait, column in self.columns.items()}

    def slice(self, start: int, stop: int) -> "Recents":
        """The recents of the examples from `start` to `stop`."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        order = np.ascontiguousarray(self.order[:, first:last])  # kernels take it whole
        columns = self._events(first, last) if len(self) else self.columns
        supersedes = None if self.supersedes is None else self.supersedes.slice(start, stop)
        ranks = None if self.ranks is None else self.ranks[first:last]
        return Recents(self.offsets[start : stop + 1] - first, order, columns, supersedes, ranks)

    def spread(self, rows: NDArray[np.int64], count: int) -> "Recents":
        """As those of the examples at `rows`, ascending, among `count` of which the others have none."""
        supersedes = self.supersedes
        if supersedes is not None:
            supersedes = replace(supersedes, offsets=_spread(supersedes.offsets, rows, count))
        return replace(self, offsets=_spread(self.offsets, rows, count), supersedes=supersedes)


def _spread(offsets: NDArray[np.int64], rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    counts = np.zeros(count, np.int64)
    counts[rows] = np.diff(offsets)
    return offsets_of(counts)


def read_recents(column: pa.StructArray, traits: Sequence[Trait], vocabulary: Vocabulary) -> Recents:
    """Read the `recent` column. A trait that was added since is null for all of these events.

    Where there are no events, no trait has to be there either: sealed examples are read as of a pin from before a trait
    was dropped.

    Raises: SchemaError: not a struct of lists of equal lengths, a null, or a missing trait.
    """
    if not pa.types.is_struct(column.type):
        raise SchemaError(
            f"column 'recent' is {column.type}; it is a struct of lists, as capture and backfill write it"
        )
    if column.null_count:
        raise SchemaError(f"column 'recent' has a null in row {first_row(column.is_null())}")
    lists = struct_fields(column)
    _require(PLACE, lists)
    labels = [trait.label for trait in traits if trait.label in lists or not trait.added]
    offsets, flat = _flat({name: lists[name] for name in (*PLACE, *labels) if name in lists})
    if len(flat["event_ts"]):
        _require(labels, lists)
    order = np.empty((3, len(flat["event_ts"])), np.int64)
    order[0] = times_from_arrow(flat["event_ts"], "recent.event_ts")
    order[1] = times_from_arrow(flat["ingest_ts"], "recent.ingest_ts")
    order[2] = _ordinals(flat["ordinal"])
    columns = {trait.id: _trait_column(flat.get(trait.label), order.shape[1], trait, vocabulary) for trait in traits}
    supersedes = read_places(lists[SUPERSEDES]) if SUPERSEDES in lists else None
    return in_order(Recents(offsets, order, columns, supersedes))


def read_rest(recents: Recents, table: pa.Table, traits: Sequence[Trait], vocabulary: Vocabulary) -> Recents:
    """With those traits that were not read yet, such as codes.

    Args: table: the examples; `recent` has a list for each trait, as long as the others.
    Raises: as `read_recents`.
    """
    missing = [trait for trait in traits if trait.id not in recents.columns]
    if not missing:
        return recents
    columns, count = dict(recents.columns), len(recents)
    column = one_array(table[RECENT]) if count else None
    for trait in missing:
        values = None
        if column is not None:
            lists = column.field(trait.label)
            values = lists.values.slice(lists.offsets[0].as_py(), count)
        columns[trait.id] = _trait_column(values, count, trait, vocabulary)
    return replace(recents, columns=columns)


def _require(wanted: Sequence[str], lists: Collection[str]) -> None:
    if missing := [name for name in wanted if name not in lists]:
        raise SchemaError(f"column 'recent' lacks {', '.join(missing)}; it has: {', '.join(lists)}")


def _flat(lists: dict[str, pa.Array]) -> tuple[NDArray[np.int64], dict[str, pa.Array]]:
    """The offsets that all the lists have, from 0, and the values of each."""
    flat, first = {}, None
    for name, array in lists.items():
        if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
            raise SchemaError(f"column 'recent.{name}' is {array.type}; it is a list")
        if array.null_count:
            raise SchemaError(f"column 'recent.{name}' has a null in row {first_row(array.is_null())}")
        offsets = array.offsets.to_numpy()
        begin, end = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
        if first is None:
            first = offsets
        elif len(offsets) and not (offsets == first).all() and not (offsets - begin == first - first[0]).all():
            row = int(np.argmax(np.diff(offsets) != np.diff(first)))
            raise SchemaError(f"row {row}: the lists 'recent.event_ts' and 'recent.{name}' differ in length")
        flat[name] = array.values.slice(begin, end - begin)
    assert first is not None
    return (first.astype(np.int64) - first[0] if len(first) else np.zeros(1, np.int64)), flat


def _trait_column(values: pa.Array | None, count: int, trait: Trait, vocabulary: Vocabulary) -> TraitColumn:
    if values is None or not count:
        return null_column(trait, count)
    if not trait.coded:
        return column_from_arrow(conform(values, trait))
    if pa.types.is_dictionary(values.type) and not values.null_count:
        # A log may be read as dictionaries: then each value is looked up once, not each event.
        with contextlib.suppress(PointerError, SchemaError):  # perhaps of one that no event has: see below
            words = vocabulary.codes(trait, conform(values.dictionary, trait))
            if words.mask is None:
                return words.take(values.indices.to_numpy())
    return vocabulary.codes(trait, conform(values, trait))


def _ordinals(array: pa.Array) -> NDArray[np.int64]:
    if array.null_count or not pa.types.is_integer(array.type):
        raise SchemaError(f"column 'recent.ordinal' is {array.type} with {array.null_count} nulls; it holds integers")
    return array.to_numpy().astype(np.int64, copy=False)


def in_order(recents: Recents) -> Recents:
    """Sort each example's recents by the total order, if they are not."""
    if not len(recents) or _are_sorted(recents.offsets, recents.order):
        return recents
    owner = np.repeat(np.arange(len(recents.offsets) - 1), np.diff(recents.offsets))
    rows = np.lexsort((recents.order[2], recents.order[1], recents.order[0], owner))
    columns = {trait: column.take(rows) for trait, column in recents.columns.items()}
    return replace(recents, order=np.ascontiguousarray(recents.order[:, rows]), columns=columns, ranks=None)


def first_refused(recents: Recents, pointers: Pointers, cutoff: NDArray[np.int64]) -> int:
    """Which recent event is the first that `refuse_leaks` refuses, or stands out of order. Returns: -1: none."""
    limits = np.empty((3, len(cutoff)), np.int64)
    limits[0], limits[1], limits[2] = cutoff, pointers.end_ts, pointers.watermark
    return int(_first_refused(recents.offsets, recents.order, limits))


def refuse_leaks(recents: Recents, pointers: Pointers, cutoff: NDArray[np.int64]) -> None:
    """Check that every example holds only what its request could have seen.

    Raises: LeakageError: a recent event ingested at or after the cutoff, or that happened after the end; a pointer that
        reaches past the cutoff. PointerError: a recent event that the pointer counts as stored, or that stands twice.
    """
    late = np.flatnonzero(pointers.watermark > cutoff)
    if len(late):
        row = int(late[0])
        watermark = show_ts(int(pointers.watermark[row]))
        raise LeakageError(
            f"row {row}: the pointer's watermark {watermark} is after the cutoff {show_ts(int(cutoff[row]))}"
        )
    if recents.supersedes is not None:
        refuse_places(recents.supersedes, pointers, cutoff)
    if not len(recents) or (j := first_refused(recents, pointers, cutoff)) < 0:
        return
    row = int(np.searchsorted(recents.offsets, j, "right")) - 1
    event_ts, ingest_ts = (int(ts) for ts in recents.order[:2, j])
    event = f"row {row}: a recent event of {show_ts(event_ts)}"
    if ingest_ts >= cutoff[row]:
        raise LeakageError(
            f"{event} was ingested {show_ts(ingest_ts)}, not before the cutoff {show_ts(int(cutoff[row]))}"
        )
    if event_ts > pointers.end_ts[row]:
        raise LeakageError(f"{event} is after the request's end {show_ts(int(pointers.end_ts[row]))}")
    if ingest_ts >= pointers.watermark[row]:
        raise PointerError(f"{event}, ingested {show_ts(ingest_ts)}, number {recents.order[2, j]}, stands there twice")
    watermark = show_ts(int(pointers.watermark[row]))
    raise PointerError(
        f"{event} was ingested {show_ts(ingest_ts)}, before the pointer's watermark {watermark}: it would count twice"
    )


@kernel
def _are_sorted(offsets: Any, order: Any) -> bool:
    for i in range(len(offsets) - 1):
        for j in range(offsets[i] + 1, offsets[i + 1]):
            if is_before(order, j, order, j - 1):
                return False
    return True


@kernel
def is_before(left: Any, i: int, right: Any, j: int) -> bool:
    """Whether event i of an order sorts before event j of another. Shapes: both (3, events)."""
    if left[0, i] != right[0, j]:
        return bool(left[0, i] < right[0, j])
    if left[1, i] != right[1, j]:
        return bool(left[1, i] < right[1, j])
    return bool(left[2, i] < right[2, j])


@kernel
def _first_refused(offsets: Any, order: Any, limits: Any) -> int:
    for i in range(len(offsets) - 1):
        for j in range(offsets[i], offsets[i + 1]):
            if order[1, j] >= limits[0, i] or order[0, j] > limits[1, i] or order[1, j] < limits[2, i]:
                return j
            if j > offsets[i] and not is_before(order, j - 1, order, j):
                return j
    return -1
