"""All events of both tiers as one Parquet file: with both clocks, and with when they were superseded.

The file is sorted by user (in the order of their hashes) and within a user by the total order, so that events which are
equal in both clocks come back in the same order when it is ingested again. Types are the store's, and `lw.ingest` finds
them by itself; but Parquet has no dictionaries of integers, and feature groups are nowhere in a file: pass it
`schema=store.schema` to keep both.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from latewood.columns import plain_array, times_to_arrow
from latewood.errors import ConflictError
from latewood.events import NEVER, Events
from latewood.files import write_parquet
from latewood.histories import Scan, scan_histories, superseded
from latewood.lists import ListParts, join_lists, split_lists
from latewood.schema import TIME_TYPE, Schema, Trait
from latewood.store import Store


def export_events(
    store: Store, path: str | Path, *, overwrite: bool = False, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write all events of a store to a Parquet file, which `lw.ingest` can read back.

    The columns are user_id, event_ts, ingest_ts, superseded_at and every trait. Read them back with `lw.ingest(path, new,
    user="user_id", time="event_ts", ingest_time="ingest_ts", superseded_time="superseded_at")`. A correction is a row, and
    so is what it corrects; a deletion is no event, and has no row.

    Args:
        store: opened read-only, only what generations hold is written.
        progress: called with (events written, about how many there are).
    Returns: how many events were written.
    Raises: ConflictError: the file exists. CorruptionError: damaged bytes.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise ConflictError(f"{path} exists; overwrite=True replaces it")

    def write_all(scan: Scan) -> int:
        file_schema, total, written = _file_schema(scan.schema), scan.generation.event_count, 0
        with write_parquet(path, file_schema) as write:
            for events in scan.events:
                write(_table(store, scan.schema, events, file_schema))
                written += len(events)
                if progress is not None:
                    progress(written, max(total, written))
        return written

    return scan_histories(store, write_all)


def _file_schema(schema: Schema) -> pa.Schema:
    ours = pa.schema(
        [
            pa.field("user_id", schema.user_id, nullable=False),
            pa.field("event_ts", TIME_TYPE, nullable=False),
            pa.field("ingest_ts", TIME_TYPE, nullable=False),
            pa.field("superseded_at", TIME_TYPE),
        ]
    )
    return pa.schema([*ours, *(pa.field(trait.name, trait.type, trait.nullable) for trait in schema)])


def _table(store: Store, schema: Schema, events: Events, file_schema: pa.Schema) -> pa.Table:
    at = superseded(events)
    columns = [events.user_ids, times_to_arrow(events.event_ts), times_to_arrow(events.ingest_ts)]
    columns.append(pa.array(at, pa.int64(), mask=at == NEVER).view(TIME_TYPE))
    return pa.table([*columns, *(_column(store, events, trait) for trait in schema)], schema=file_schema)


def _column(store: Store, events: Events, trait: Trait) -> pa.Array:
    if trait.id not in events.traits:
        return pa.nulls(len(events), trait.type)
    values = store.vocabulary.trait_to_arrow(trait, events)
    if trait.is_list:
        return _with_dictionary(values, trait) if pa.types.is_dictionary(trait.type.value_type) else values
    return _compact(values) if pa.types.is_dictionary(trait.type) else plain_array(values)


def _with_dictionary(lists: pa.Array, trait: Trait) -> pa.Array:
    """Lists as those of a dictionary's values. Arrow casts only text to dictionaries."""
    items, lengths, mask = split_lists(lists)
    return join_lists(ListParts(items.dictionary_encode(), lengths, mask), trait.type)


def _compact(values: pa.DictionaryArray) -> pa.DictionaryArray:
    """With only the words in use: a run of events has few of them, and the vocabulary may have millions."""
    known = values.indices.is_valid().to_numpy(zero_copy_only=False)
    # without the code of a null, whose word may be blanked: Parquet has no dictionaries with nulls in them
    used, of = np.unique(values.indices.drop_null().to_numpy(), return_inverse=True)
    indices = np.zeros(len(values), np.int32)
    indices[known] = of
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=~known), values.dictionary.take(pa.array(used)))
