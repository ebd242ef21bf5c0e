"""Recent events as an example carries them: one struct of lists per example, with plain values.

The lists are both clocks, the ordinal (the event's place among equals) and every trait of the live schema, named by its
label, which no change of names touches. Plain values, not codes: an example log outlives the store's vocabulary and is
read by people. One more list, `supersedes`, has the places of those stored events that a correction or deletion took the
place of, which was recent itself, whether or not the new version is in range (docs/protocol.md R13).
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import column_to_arrow, portions, times_to_arrow
from latewood.events import Events
from latewood.mutable import Recent
from latewood.pointer import PLACE_TYPE, places_to_arrow
from latewood.schema import TIME_TYPE, Schema, Trait
from latewood.vocabulary import Vocabulary

SUPERSEDES = "supersedes"
_LIST_MAX = 2**31 - 1  # what the offsets of one Arrow list array can count


def recent_type(schema: Schema) -> pa.StructType:
    """The type of the `recent` column."""
    clocks = [("event_ts", TIME_TYPE), ("ingest_ts", TIME_TYPE), ("ordinal", pa.int32())]
    traits = [(trait.label, trait.value_type) for trait in schema]
    fields = [*clocks, *traits, (SUPERSEDES, PLACE_TYPE)]
    return pa.struct([pa.field(name, pa.list_(type_), nullable=False) for name, type_ in fields])


def recents_to_arrow(recent: Recent, schema: Schema, vocabulary: Vocabulary) -> pa.ChunkedArray:
    """The `recent` column of n examples."""
    offsets, events, places = recent.offsets, recent.events, recent.suppressed_offsets
    flat = [times_to_arrow(events.event_ts), times_to_arrow(events.ingest_ts), pa.array(events.ordinal)]
    flat += [_plain(events, trait, vocabulary) for trait in schema]
    type_ = recent_type(schema)
    suppressed = recent.suppressed
    superseded = places_to_arrow(suppressed.event_ts, suppressed.ingest_ts, suppressed.ordinal)
    runs = portions(np.diff(offsets) + np.diff(places), _LIST_MAX)
    chunks = [
        _chunk(offsets[start : stop + 1], flat, places[start : stop + 1], superseded, type_) for start, stop in runs
    ]
    return pa.chunked_array(chunks, type_)


def _plain(events: Events, trait: Trait, vocabulary: Vocabulary) -> pa.Array:
    """One trait's values as they came in."""
    column = events.traits.get(trait.id)
    if column is None:
        return pa.nulls(len(events), trait.value_type)
    if not trait.coded:
        return column_to_arrow(column, trait.value_type)
    return vocabulary.to_arrow(trait, column).dictionary_decode()


def _chunk(
    offsets: NDArray[np.int64],
    flat: list[pa.Array],
    places: NDArray[np.int64],
    superseded: pa.StructArray,
    type_: pa.StructType,
) -> pa.StructArray:
    columns = [*((offsets, values) for values in flat), (places, superseded)]
    lists = [_list(starts, values, field.type) for (starts, values), field in zip(columns, type_, strict=True)]
    return pa.StructArray.from_arrays(lists, fields=list(type_))


def _list(offsets: NDArray[np.int64], values: pa.Array, type_: pa.ListType) -> pa.ListArray:
    first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    starts = pa.array((offsets - first).astype(np.int32))
    return pa.ListArray.from_arrays(starts, values.slice(first, count), type=type_)
