"""What comes in: tables of events and of requests, checked and turned into columns.

Everything a caller hands over passes here once, so that bad input is refused with the column and the row named, before
anything is written, and so that everything behind may trust what it gets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import Column, conform, first_row, plain_array, read_table, times_from_arrow
from latewood.errors import SchemaError
from latewood.events import Events
from latewood.mutable import hash_content, hash_ids
from latewood.schema import Schema, Trait, is_text
from latewood.users import user_keys

# How a trait's values become codes: a vocabulary's `encode`, or `column_from_arrow` where nothing is coded.
Encode = Callable[[Trait, pa.Array], Column]

_OPTIONAL = ("ingest_ts", "event_id")


@dataclass(frozen=True, slots=True)
class Intake:
    """A checked table of events. `ids` and `content` are None where the table has no `event_id`.

    Shapes: ids (n, 2) uint64, hashes of the event ids, zero where the id is null; content (n,) uint64, a hash of what the
    event says, by which a repeated id is told from a reused one.
    """

    events: Events
    explicit: bool  # whether the table brought its own ingest times
    ids: NDArray[np.uint64] | None
    content: NDArray[np.uint64] | None


def read_events(data: Any, schema: Schema, encode: Encode) -> Intake:
    """Check a table of events against the schema and turn it into columns.

    Args: data: user_id, event_ts and every trait; optionally ingest_ts and event_id. `encode` gets coded traits only.
    Raises: SchemaError: a missing, extra or repeated column, a wrong type, a null where none may be, a time out of range.
    """
    table = read_table(data)
    _check_columns(table, schema)
    users = read_user_ids(table["user_id"], schema)
    event_ts = times_from_arrow(table["event_ts"], "event_ts")
    explicit = "ingest_ts" in table.column_names
    ingest_ts = times_from_arrow(table["ingest_ts"], "ingest_ts") if explicit else np.zeros(len(event_ts), np.int64)
    # All columns are checked before the first value is coded: coding writes to the vocabulary.
    arrays = {trait: conform(table[trait.name], trait) for trait in schema}
    ids = None
    if "event_id" in table.column_names:
        # before anything is coded, since an id of a wrong type is an error too
        ids = hash_ids(table["event_id"])
    traits = {trait.id: encode(trait, array) for trait, array in arrays.items()}
    ordinal = np.zeros(len(event_ts), np.int32)
    events = Events(users, user_keys(users), event_ts, ingest_ts, ordinal, traits)
    return Intake(events, explicit, ids, None if ids is None else hash_content(events))


def read_user_ids(array: pa.Array | pa.ChunkedArray, schema: Schema) -> pa.Array:
    """User ids as the schema's type. Raises: SchemaError: a null, another type, or an integer beyond int64."""
    array = plain_array(array)
    if array.null_count:
        raise SchemaError(f"column 'user_id' has a null in row {first_row(array.is_null())}")
    integers = pa.types.is_integer(array.type) and pa.types.is_integer(schema.user_id)
    text = is_text(schema.user_id) and is_text(array.type)
    if not (integers or text or (len(array) == 0 and pa.types.is_null(array.type))):
        raise SchemaError(f"column 'user_id' is {array.type}; the store has {schema.user_id}")
    if text:
        check_text(array, "user_id")
    try:
        return array.cast(schema.user_id)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column 'user_id' does not fit {schema.user_id}: {error}") from None


def check_text(array: pa.Array, name: str) -> None:
    """Raises: SchemaError: text that is not UTF-8, which Parquet readers let pass."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column {name!r} holds text that is not UTF-8: {error}") from None


def _check_columns(table: pa.Table, schema: Schema) -> None:
    names = table.column_names
    if repeated := {name for name in names if names.count(name) > 1}:
        raise SchemaError(f"the table has two columns {min(repeated)!r}")
    if "supersedes" in names:
        raise SchemaError("column 'supersedes': this version of latewood does not take corrections yet")
    required = ["user_id", "event_ts", *(trait.name for trait in schema)]
    if missing := [name for name in required if name not in names]:
        raise SchemaError(f"the table lacks column {', '.join(map(repr, missing))}")
    if extra := [name for name in names if name not in required and name not in _OPTIONAL]:
        raise SchemaError(
            f"the store has no trait {', '.join(map(repr, extra))}; drop the column or create the store with it"
        )
