"""Recent events as an example carries them: one struct of lists per example, with plain values.

The lists are both clocks, the ordinal (the event's place among equals) and every trait of the live schema. Plain
values, not codes: an example log outlives the store's vocabulary and is read by people.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import column_to_arrow, portions, times_to_arrow
from latewood.events import Events
from latewood.schema import TIME_TYPE, Schema, Trait
from latewood.vocabulary import Vocabulary

_LIST_MAX = 2**31 - 1  # what the offsets of one Arrow list array can count


def recent_type(schema: Schema) -> pa.StructType:
    """The type of the `recent` column."""
    clocks = [("event_ts", TIME_TYPE), ("ingest_ts", TIME_TYPE), ("ordinal", pa.int32())]
    return pa.struct(
        [pa.field(name, pa.list_(type_), nullable=False) for name, type_ in clocks]
        + [pa.field(trait.name, pa.list_(trait.value_type), nullable=False) for trait in schema]
    )


def recents_to_arrow(
    offsets: NDArray[np.int64], events: Events, schema: Schema, vocabulary: Vocabulary
) -> pa.ChunkedArray:
    """The `recent` column of n examples. Shapes: offsets (n + 1,), events (offsets[-1],) → (n,)."""
    flat = [times_to_arrow(events.event_ts), times_to_arrow(events.ingest_ts), pa.array(events.ordinal)]
    flat += [_plain(events, trait, vocabulary) for trait in schema]
    type_ = recent_type(schema)
    runs = portions(np.diff(offsets), _LIST_MAX)
    chunks = [_chunk(offsets[start : stop + 1], flat, type_) for start, stop in runs]
    return pa.chunked_array(chunks, type_)


def _plain(events: Events, trait: Trait, vocabulary: Vocabulary) -> pa.Array:
    """One trait's values as they came in."""
    column = events.traits.get(trait.id)
    if column is None:
        return pa.nulls(len(events), trait.value_type)
    if not trait.coded:
        return column_to_arrow(column, trait.value_type)
    used = column.values if column.mask is None else column.values[~column.mask]  # a null's 0 is no code in use
    size = int(used.max()) + 1 if len(used) else 0
    return vocabulary.values(trait.id, at_least=size).take(pa.array(column.values, mask=column.mask))


def _chunk(offsets: NDArray[np.int64], flat: list[pa.Array], type_: pa.StructType) -> pa.StructArray:
    first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    places = pa.array((offsets - first).astype(np.int32))
    lists = [
        pa.ListArray.from_arrays(places, values.slice(first, count), type=field.type)
        for values, field in zip(flat, type_, strict=True)
    ]
    return pa.StructArray.from_arrays(lists, fields=list(type_))
