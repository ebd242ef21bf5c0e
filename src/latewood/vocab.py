"""The values of a trait as dense ids: a row of an embedding table for each that was seen often enough."""

import warnings
from datetime import datetime
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch
from latewood.clock import doubt_of_unit, show_ts, to_us
from latewood.columns import one_array, plain_array, table_without_views
from latewood.errors import SchemaError
from latewood.events import NEVER, Events
from latewood.histories import HistoryStore, Scan, scan_histories, superseded
from latewood.key_index import KeyIndex
from latewood.schema import Schema, Trait

PADDING, UNKNOWN = 0, 1
_FIRST = 2  # the id of the most frequent value
_RUNS_AT_ONCE = 64


class Vocab:
    """The values of a trait as dense ids: 0 is padding, 1 what is unknown or null, and from 2 on by falling count.

    Frozen: an id means the same for ever, so it is kept beside the model that was trained with it.

    Args: values: distinct, without nulls, in the order of their ids; counts: how often each was seen.
    """

    def __init__(self, name: str, values: pa.Array, counts: NDArray[np.int64]) -> None:
        self.name, self.values, self.counts = name, values, counts
        self._index = KeyIndex(name, values)

    def __len__(self) -> int:
        """Rows of an embedding table: the values and both special ids."""
        return len(self.values) + _FIRST

    def __repr__(self) -> str:
        return f"<Vocab of {self.name!r}: {len(self.values):,} values, {len(self):,} ids>"

    def encode(self, values: Any) -> NDArray[np.int64]:
        """The ids of some values, such as candidates: an Arrow column, or what Arrow makes one of. Shapes: (n,) → (n,).

        Raises: SchemaError: values of another type.
        """
        return _ids(self._index.of(values))

    def encode_history(self, batch: Batch | SharedBatch) -> NDArray[np.int64]:
        """The ids of the trait in a batch, as flat as its column; of a list trait those of all items.

        Raises: SchemaError: the batch lacks the trait, or has it with another type.
        """
        return _ids(self._index.of_batch(batch, self.name))

    def to_arrow(self) -> pa.Table:
        """Columns `id`, `value` and `count`, which can be written to any file; `from_arrow` reads them."""
        ids = pa.array(np.arange(_FIRST, len(self)))
        table = pa.table({"id": ids, "value": self.values, "count": pa.array(self.counts)})
        return table.replace_schema_metadata({"trait": self.name})

    @classmethod
    def from_arrow(cls, table: pa.Table) -> "Vocab":
        """Raises: SchemaError: not what `to_arrow` gives."""
        name = (table.schema.metadata or {}).get(b"trait")
        if name is None or table.column_names != ["id", "value", "count"]:
            raise SchemaError(f"not a vocab's table, which says its trait; columns: {', '.join(table.column_names)}")
        ids, values, counts = (plain_array(column) for column in table_without_views(table).columns)
        if ids.to_pylist() != list(range(_FIRST, len(table) + _FIRST)):
            raise SchemaError(f"the ids of a vocab's table count from {_FIRST}, in order")
        if counts.null_count or not pa.types.is_integer(counts.type):
            raise SchemaError("the counts of a vocab's table are integers, one for each value")
        return cls(name.decode(), values, counts.cast(pa.int64()).to_numpy())


def count_values(store: HistoryStore, name: str, until: int | datetime | None, min_count: int) -> Vocab:
    """See `Store.vocab`."""
    if not isinstance(min_count, Integral) or min_count < 1:
        raise SchemaError(f"min_count is {min_count!r}; it counts events, and what is in no event is unknown")
    before = NEVER if until is None else to_us(until)

    def traits(schema: Schema) -> list[Trait]:
        return [schema[name]]

    def count(scan: Scan) -> pa.Table:
        trait, waiting = scan.schema[name], list[pa.Array]()
        counts = _counted(pa.array([], trait.item_type), pa.array([], pa.int64()))
        for events in scan.events:
            waiting.append(_values(store, trait, events.take(np.flatnonzero(_known(events, before)))))
            if len(waiting) == _RUNS_AT_ONCE:
                counts, waiting = _added(counts, waiting), []
        return _added(counts, waiting)

    counts = scan_histories(store, count, traits)
    counts = counts.filter(pc.greater_equal(counts["count"], min_count))
    order = pc.sort_indices(counts, [("count", "descending"), ("value", "ascending")])
    if not len(counts) and until is not None:
        message = f"no value of {name!r} is in {min_count:,} or more events before until={show_ts(before)}"
        warnings.warn(message + doubt_of_unit("until", until), UserWarning, stacklevel=3)
    values, seen = (one_array(counts[column].take(order)) for column in ("value", "count"))
    return Vocab(name, values, seen.to_numpy())


def _known(events: Events, before: int) -> NDArray[np.bool_]:
    """Which events had happened, were known and had not been superseded before a moment."""
    return (events.event_ts < before) & (events.ingest_ts < before) & (superseded(events) >= before)


def _values(store: HistoryStore, trait: Trait, events: Events) -> pa.Array:
    """A trait's values that are not null, of lists their items."""
    array = plain_array(store.vocabulary.trait_to_arrow(trait, events))
    return (pc.list_flatten(array) if trait.is_list else array).drop_null()


def _added(counts: pa.Table, runs: list[pa.Array]) -> pa.Table:
    each = [_counted(run, pa.array(np.ones(len(run), np.int64))) for run in runs]
    joined = pa.concat_tables([counts, *each])
    return _counted(joined["value"], joined["count"])


def _counted(values: pa.Array, counts: pa.Array) -> pa.Table:
    """Each value once, with its counts added up."""
    table = pa.table({"value": values, "count": counts}).group_by("value", use_threads=False)
    return table.aggregate([("count", "sum")]).rename_columns({"count_sum": "count"})


def _ids(places: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(places < 0, UNKNOWN, places + _FIRST)
