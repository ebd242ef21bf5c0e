"""Where every byte of a shard file lies: the numbers that the writer, the reader and the kernels share.

docs/format.md tells the same byte by byte. Kernels address index records as plain bytes, hence the field offsets here
beside the record sizes; a shard is known to a kernel as one row of an address table.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from latewood.errors import SchemaError
from latewood.schema import Schema, Trait

FORMAT_VERSION = 1
HEADER_MAGIC = b"LATEWOOD"
TRAILER_MAGIC = b"doowetal"
HEADER_BYTES = 64
TRAILER_BYTES = 24
PAD_BYTES = 1024  # zeros after the payload: unpacking reads whole rows
ALIGNMENT = 64

STRIPE_EVENTS = 256
BLOCK_STRIPES = 16  # stripes of one column of one user under one checksum

# The columns that every shard has, before its traits; a last one, superseded_at, stands behind them.
EVENT_TS = 0
DELAY = 1  # ingest_ts - event_ts
ORDINAL = 2
FIRST_TRAIT = 3

# In place of its latest ingest time, of a stripe that holds a superseded event: no cutoff may take it as it is.
NEVER_CLEAN = 2**63 - 1

# Modes of a stripe.
PACKED = 0  # reference + packed
SCALED = 1  # reference + packed * divisor
DELTA = 2  # event_ts only: first_ts + running sum of packed * divisor
RAW = 3  # the values as they are
POSITIONS = 4  # bool only: the places of the true ones, a byte each
NULLS = 5  # every event is null: no bytes at all
LISTS = 6  # the items of lists only: a header, and chunks that are like stripes; it ends where the next entry begins

# The header of a stripe of items: how many there are, a word; then a word per chunk, the bits of an entry above its offset.
CHUNK_ITEMS = 256
HEADER_WORD_BYTES = 4
CHUNK_BITS = 23

# Entry of one stripe of one column: a uint64, fields from low to high.
OFFSET_BITS = 40
MODE_SHIFT, MODE_BITS = 40, 3
WIDTH_SHIFT, WIDTH_BITS = 43, 7
EXCEPTIONS_SHIFT, EXCEPTIONS_BITS = 50, 9
SIZE_CODE_SHIFT, SIZE_CODE_BITS = 59, 2  # bytes of an exception's high part: 1 << code
HAS_NULLS_SHIFT = 61
HAS_REFERENCE_SHIFT = 62  # bit 63 is 0

# User record: 5 words.
USER_BYTES = 40
USER_HASH, USER_CHECK, USER_FIRST_EVENT, USER_FIRST_STRIPE, USER_FIRST_BLOCK = 0, 8, 16, 24, 32

# Stripe record: 3 words.
STRIPE_BYTES = 24
STRIPE_FIRST_TS, STRIPE_LATEST_INGEST, STRIPE_IDENTITY = 0, 8, 16  # identity: summed up to and including this stripe

# Fields of an address table's row.
PAYLOAD, USERS, STRIPES, ENTRIES, CHECKSUMS, VERIFIED, USER_COUNT, COLUMN_COUNT, SUPERSEDED, UNPACKERS, LATEST_UNTIL = (
    range(11)
)
TABLE_FIELDS = 11
NO_COLUMN = 2**64 - 1  # as SUPERSEDED of a shard without that column, and as the source of a column that none carries

Role = Literal["event_ts", "delay", "ordinal", "trait", "lengths", "items", "superseded_at"]
ROLES: tuple[Role, ...] = ("event_ts", "delay", "ordinal", "trait", "lengths", "items", "superseded_at")
NULLABLE: tuple[Role, ...] = ("trait", "lengths", "superseded_at")
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64")


@dataclass(frozen=True, slots=True)
class StripeColumn:
    """One column of a shard: its trait id (negative where it is no trait), role and the dtype of its values.

    A list trait has two columns, next to each other: how many items each event has, and the items of all.
    """

    id: int
    name: str
    role: Role
    dtype: np.dtype[Any]

    def to_json(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "role": self.role, "dtype": self.dtype.name}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "StripeColumn":
        """The inverse. Raises: SchemaError: a role or dtype that this version does not know."""
        id_, name, role, dtype = (document[key] for key in ("id", "name", "role", "dtype"))
        if role not in ROLES or dtype not in DTYPES:
            raise SchemaError(f"column {name!r} is {role} of {dtype}, which this version cannot read")
        if type(id_) is not int or type(name) is not str:
            raise ValueError(f"not a column: {document!r}")
        return cls(id_, name, role, np.dtype(dtype))


BUILT_IN = (
    StripeColumn(-1, "event_ts", "event_ts", np.dtype(np.int64)),
    StripeColumn(-2, "delay", "delay", np.dtype(np.int64)),
    StripeColumn(-3, "ordinal", "ordinal", np.dtype(np.int32)),
)
SUPERSEDED_AT = StripeColumn(-4, "superseded_at", "superseded_at", np.dtype(np.int64))


def columns_of(schema: Schema) -> tuple[StripeColumn, ...]:
    """The columns of a shard of this schema: event_ts, delay, ordinal, its traits in order, superseded_at."""
    return (*BUILT_IN, *(column for trait in schema for column in _columns_of_trait(trait)), SUPERSEDED_AT)


def _columns_of_trait(trait: Trait) -> tuple[StripeColumn, ...]:
    if trait.is_list:
        return list_columns(trait.id, trait.name, trait.dtype)
    return (StripeColumn(trait.id, trait.name, "trait", trait.dtype),)


def list_columns(trait_id: int, name: str, dtype: np.dtype[Any]) -> tuple[StripeColumn, StripeColumn]:
    """The two columns of a list trait with items of a dtype."""
    return (
        StripeColumn(trait_id, name, "lengths", np.dtype(np.int32)),
        StripeColumn(trait_id, name, "items", np.dtype(dtype)),
    )


def fields_of(columns: Sequence[StripeColumn]) -> list[tuple[int, StripeColumn]]:
    """What a run has a column for, each with its place: all but the items of lists, which go with the lengths."""
    return [(place, column) for place, column in enumerate(columns) if column.role != "items"]


def superseded_index(columns: Sequence[StripeColumn]) -> int | None:
    """The place of superseded_at: the last, or nowhere in files from before there was such a column."""
    return len(columns) - 1 if columns and columns[-1].role == "superseded_at" else None


def are_possible(columns: Sequence[StripeColumn]) -> bool:
    """Whether a file may have these columns: the built-in ones first, traits, and at most superseded_at behind them."""
    last = superseded_index(columns)
    traits = columns[FIRST_TRAIT:last]
    ids = [column.id for column in traits if column.role != "items"]
    return (
        tuple(columns[:FIRST_TRAIT]) == BUILT_IN
        and all(column.role in ("trait", "lengths", "items") and column.id >= 0 for column in traits)
        and _are_paired(traits)
        and len(set(ids)) == len(ids)
        and (last is None or columns[last] == SUPERSEDED_AT)
    )


def _are_paired(traits: Sequence[StripeColumn]) -> bool:
    """Whether lengths and items stand next to each other, those of one trait."""
    lengths = [place for place, column in enumerate(traits) if column.role == "lengths"]
    items = [place - 1 for place, column in enumerate(traits) if column.role == "items"]
    return lengths == items and all(
        (traits[place], traits[place + 1])
        == list_columns(traits[place].id, traits[place].name, traits[place + 1].dtype)
        for place in lengths
    )


def sources(columns: Sequence[StripeColumn], old: Sequence[StripeColumn]) -> list[int]:
    """Of each column, its place among those of an older shard, by id and role; NO_COLUMN where that had none.

    Raises: ValueError: a column that had another dtype.
    """
    places = {(column.id, column.role): place for place, column in enumerate(old)}
    found = [places.get((column.id, column.role)) for column in columns]
    for column, place in zip(columns, found, strict=True):
        if place is not None and old[place].dtype != column.dtype:
            raise ValueError(f"column {column.name!r} of {column.dtype} was of {old[place].dtype}")
    return [NO_COLUMN if place is None else place for place in found]


def column_index(columns: Iterable[StripeColumn], trait_id: int) -> int:
    """The place of a trait's column, of a list trait that of its lengths. Raises: SchemaError: there is none."""
    for index, column in enumerate(columns):
        if column.role in ("trait", "lengths") and column.id == trait_id:
            return index
    raise SchemaError(f"no stored column for trait id {trait_id}")
