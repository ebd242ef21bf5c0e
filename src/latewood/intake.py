"""What comes in: tables of events and of requests, checked and turned into columns.

Everything a caller hands over passes here once, so that bad input is refused with the column and the row named, before
anything is written, and so that everything behind may trust what it gets.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import (
    TraitColumn,
    column_from_arrow,
    conform,
    first_row,
    one_array,
    plain_array,
    plain_from_arrow,
    read_table,
    times_from_arrow,
    with_nulls,
)
from latewood.errors import SchemaError
from latewood.events import PLACE, Events
from latewood.mutable import Places, Supersedes, hash_content, hash_ids
from latewood.schema import Schema, Trait, is_text
from latewood.users import user_keys

# How a coded trait's values become codes: a vocabulary's `encode`.
Encode = Callable[[Trait, pa.Array], TraitColumn]

_OURS = ("user_id", "event_ts", "ingest_ts", "event_id", "supersedes")


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
    supersedes: Supersedes | None = None  # None where no row supersedes anything
    uncoded: NDArray[np.bool_] | None = None  # (n,) rows whose coded traits were taken as null; None: none


def read_events(
    data: Any,
    schema: Schema,
    encode: Encode,
    *,
    corrections: bool = True,
    leave_out: Callable[[Intake], NDArray[np.bool_]] | None = None,
) -> Intake:
    """Check a table of events against the schema and turn it into columns.

    A row that supersedes another and has no event_ts is a deletion: its traits are null. A table without event_ts and
    without any trait is of deletions only. A trait goes by its name, or by one that only it had before; one that was
    added to the schema may be left out.

    Args:
        data: user_id, event_ts and every trait; optionally ingest_ts, event_id and supersedes.
        encode: writes down values that are new.
        corrections: whether rows may supersede others; not where events are loaded in bulk.
        leave_out: gets everything but the coded traits, and chooses rows that will not be added: what these say must not
            get into a vocabulary.
    Raises: SchemaError: a missing, extra or repeated column, a wrong type, a null where none may be, a time out of range.
    """
    table = read_table(data)
    if not corrections and "supersedes" in table.column_names:
        raise SchemaError("column 'supersedes': corrections and deletions go through append, not into a load in bulk")
    traits = _traits.of(table.column_names, schema)
    users = read_user_ids(table["user_id"], schema)
    supersedes = _read_supersedes(table)
    event_ts = _read_event_ts(table, supersedes)
    explicit = "ingest_ts" in table.column_names
    ingest_ts = times_from_arrow(table["ingest_ts"], "ingest_ts") if explicit else np.zeros(len(event_ts), np.int64)
    # All columns are checked before the first value is coded: coding writes to the vocabulary.
    arrays = {trait: _conform(table, name, trait, supersedes) for trait, name in traits.items()}
    ids = hash_ids(table["event_id"]) if "event_id" in table.column_names else None
    keys, ordinal = user_keys(users), np.zeros(len(event_ts), np.int32)
    plain = {trait.id: _to_column(trait, array) for trait, array in arrays.items() if not trait.coded}
    events = Events(users, keys, event_ts, ingest_ts, ordinal, plain)
    coded = {trait: array for trait, array in arrays.items() if trait.coded}
    content = None
    if ids is not None:
        content = hash_content(events, supersedes, {trait.id: array for trait, array in coded.items()})
    intake = Intake(events, explicit, ids, content, supersedes)
    uncoded = None if leave_out is None or not coded else leave_out(intake)
    if uncoded is not None and supersedes is not None:
        uncoded = uncoded & ~supersedes.deletions  # they say nothing
    if uncoded is not None and uncoded.any():
        coded = {trait: with_nulls(array, uncoded) for trait, array in coded.items()}
    columns = plain | {trait.id: encode(trait, array) for trait, array in coded.items()}
    events = replace(events, traits={trait.id: columns[trait.id] for trait in arrays})
    return replace(intake, events=events, uncoded=uncoded)


def _to_column(trait: Trait, array: pa.Array) -> TraitColumn:
    return column_from_arrow(array) if trait.is_list else plain_from_arrow(array)


def read_user_ids(array: pa.Array | pa.ChunkedArray, schema: Schema) -> pa.Array:
    """User ids as the schema's type. Raises: SchemaError: a null, another type, or an integer beyond int64."""
    array = plain_array(array)
    if array.null_count:
        raise SchemaError(f"column 'user_id' has a null in row {first_row(array.is_null())}")
    if array.type == schema.user_id == pa.int64():
        return array
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


class _KnownTraits:
    """Looks traits up by name, and remembers the latest columns: the tables that one writer appends are all alike."""

    def __init__(self) -> None:
        self._latest: tuple[list[str], Schema, dict[Trait, str | None]] | None = None

    def of(self, names: list[str], schema: Schema) -> dict[Trait, str | None]:
        """Each trait's column; not to be changed. Raises: SchemaError: see `_find_traits`."""
        latest = self._latest
        if latest is None or latest[1] is not schema or latest[0] != names:
            latest = self._latest = names, schema, _find_traits(names, schema)
        return latest[2]


_traits = _KnownTraits()


def _find_traits(names: list[str], schema: Schema) -> dict[Trait, str | None]:
    """Each trait's column; None where it is left out, as may be. Raises: SchemaError: missing, extra, repeated columns."""
    if repeated := {name for name in names if names.count(name) > 1}:
        raise SchemaError(f"the table has two columns {min(repeated)!r}")
    found: dict[Trait, str | None] = {}
    extra = []
    for name in names:
        trait = _trait_of(name, schema)
        if trait is not None and trait in found:
            raise SchemaError(f"columns {found[trait]!r} and {name!r} are the same trait, {trait.name!r}")
        if trait is not None:
            found[trait] = name
        elif name not in _OURS:
            extra.append(name)
    deletions_only = "supersedes" in names and "event_ts" not in names and not found
    required = ["user_id"] if deletions_only else ["user_id", "event_ts"]
    missing = [name for name in required if name not in names]
    if not deletions_only:
        missing += [trait.name for trait in schema if trait not in found and not trait.added]
        found |= {trait: None for trait in schema if trait not in found}
    if missing:
        raise SchemaError(f"the table lacks column {', '.join(map(repr, missing))}")
    if extra:
        raise SchemaError(
            f"the store has no trait {', '.join(map(repr, extra))}; drop the column or create the store with it"
        )
    return found


def _trait_of(name: str, schema: Schema) -> Trait | None:
    """Raises: SchemaError: several traits had that name."""
    if name not in schema and not any(name in trait.former for trait in schema):
        return None
    return schema[name]


def _conform(table: pa.Table, name: str | None, trait: Trait, supersedes: Supersedes | None) -> pa.Array:
    """A trait's column, null in the rows of deletions. Raises: SchemaError."""
    if name is None:
        return pa.nulls(len(table), trait.value_type)
    if supersedes is None or not supersedes.deletions.any():
        return conform(table[name], trait)
    array = plain_array(table[name])
    null = array.is_null().to_numpy(zero_copy_only=False)
    if (told := supersedes.deletions & ~null).any():
        row = int(np.argmax(told))
        raise SchemaError(f"column {name!r}, row {row}: a row without event_ts is a deletion, and its traits are null")
    if not trait.nullable and (missing := null & ~supersedes.deletions).any():
        raise SchemaError(f"column {name!r} has a null in row {int(np.argmax(missing))}; it is not nullable")
    return conform(array, replace(trait, nullable=True))


def _read_event_ts(table: pa.Table, supersedes: Supersedes | None) -> NDArray[np.int64]:
    """Event times, 0 in the rows of deletions. Raises: SchemaError: another row has none."""
    if "event_ts" not in table.column_names:
        if supersedes is not None and not supersedes.chosen.all():
            row = int(np.argmin(supersedes.chosen))
            raise SchemaError(
                f"row {row} has no event_ts and supersedes nothing: it is neither an event nor a deletion"
            )
        return np.zeros(len(table), np.int64)
    if supersedes is None or not supersedes.deletions.any():
        return times_from_arrow(table["event_ts"], "event_ts")
    filled = _zero_where_null(one_array(table["event_ts"]), supersedes.deletions, "column 'event_ts'")
    return times_from_arrow(filled, "event_ts")


def _zero_where_null(array: pa.Array, rows: NDArray[np.bool_], name: str) -> pa.Array:
    """With 0 instead of the nulls in these rows. Raises: SchemaError: neither times nor whole numbers."""
    if pa.types.is_null(array.type):
        array = array.cast(pa.int64())
    if not (pa.types.is_integer(array.type) or pa.types.is_timestamp(array.type)):
        raise SchemaError(f"{name} is {array.type}, not an Arrow timestamp or an integer")
    null = array.is_null().to_numpy(zero_copy_only=False)
    return array.fill_null(pa.scalar(0, array.type)) if not (null & ~rows).any() else array


def _read_supersedes(table: pa.Table) -> Supersedes | None:
    """Which rows supersede which events. Raises: SchemaError: the column's type, or a place that is none."""
    if "supersedes" not in table.column_names:
        return None
    column = plain_array(table["supersedes"])
    chosen: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    deletions = chosen
    if "event_ts" in table.column_names:
        deletions = chosen & one_array(table["event_ts"]).is_null().to_numpy(zero_copy_only=False)
        if not chosen.any():
            return None
    if pa.types.is_struct(column.type):
        return Supersedes(chosen, deletions, places=_read_places(column, chosen))
    return Supersedes(chosen, deletions, ids=hash_ids(column, "supersedes"))


def _read_places(column: pa.StructArray, chosen: NDArray[np.bool_]) -> Places:
    """Raises: SchemaError: other fields than a place has, or one that is null or out of range."""
    fields = [field.name for field in column.type]
    if sorted(fields) != sorted(PLACE):
        raise SchemaError(
            f"column 'supersedes' is {column.type}; an event is named by its event_id, or by its place, "
            f"struct<event_ts, ingest_ts, ordinal>"
        )
    parts = dict(zip(fields, column.flatten(), strict=True))
    for name, part in parts.items():
        if (missing := part.is_null().to_numpy(zero_copy_only=False) & chosen).any():
            raise SchemaError(f"column 'supersedes', row {int(np.argmax(missing))}: its {name} is null")
    times = []
    for name in PLACE[:2]:
        part = _zero_where_null(parts[name], ~chosen, f"column 'supersedes': {name}")
        if pa.types.is_integer(part.type):
            part = _narrowed(part, pa.int64(), name)
        times.append(times_from_arrow(part, f"supersedes.{name}"))
    ordinals = _zero_where_null(parts["ordinal"], ~chosen, "column 'supersedes': ordinal")
    ordinal = _narrowed(ordinals, pa.int32(), "ordinal").to_numpy()
    if len(ordinal) and ordinal.min() < 0:
        row = int(np.argmax(ordinal < 0))
        raise SchemaError(f"column 'supersedes', row {row}: ordinal {ordinal[row]} is no event's")
    return Places(times[0], times[1], ordinal)


def _narrowed(part: pa.Array, type_: pa.DataType, name: str) -> pa.Array:
    if not pa.types.is_integer(part.type):
        raise SchemaError(f"column 'supersedes': {name} is {part.type}, not an integer")
    try:
        return part.cast(type_)
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column 'supersedes': {name} does not fit {type_}: {error}") from None
