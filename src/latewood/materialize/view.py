"""A projection as one schema understands it: which columns, of which traits, of which types.

A store's schema changes when a generation with another one is read from (docs/protocol.md R17), so names are looked up
when examples are read, not once for all. Columns are called what the projection calls them, whatever they are called now.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from latewood.batch import value_types
from latewood.errors import SchemaError
from latewood.immutable import GenerationReader
from latewood.materialize.decode import Wanted, WantedColumn
from latewood.projection import Projection
from latewood.schema import EVENT_TS, Schema, Trait
from latewood.stripes.layout import EVENT_TS as EVENT_TS_COLUMN


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A projection on a schema: the columns that it gives, and those that the conditions of its streams look at.

    Raises, when made: SchemaError: a trait or group that the schema does not have, or ids of what has none.
    """

    schema: Schema
    traits: dict[str, Trait | None]  # by the name of the column, in order; None is event_ts
    types: dict[str, pa.DataType]
    ids: frozenset[str]  # the columns that are integers instead of their codes
    shown: tuple[str, ...]  # the columns that a batch has
    looked_at: tuple[str, ...]  # those that conditions look at
    recent: tuple[Trait, ...] = field(init=False)  # the traits that are needed of recent events
    coded: dict[str, Trait] = field(init=False)  # the columns that are codes
    _wanted: dict[int, Wanted] = field(default_factory=dict)  # by generation: the latest only
    _parts: dict[tuple[tuple[str, ...], bool], "View"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        traits = {name: trait for name, trait in self.traits.items() if trait is not None}
        object.__setattr__(self, "recent", tuple({trait.id: trait for trait in traits.values()}.values()))
        object.__setattr__(self, "coded", {name: trait for name, trait in traits.items() if trait.coded})

    @classmethod
    def of(cls, projection: Projection, schema: Schema) -> "View":
        names = projection.needs(schema)
        traits = {name: None if name == EVENT_TS else schema[name] for name in names}
        shown = projection.names(schema)
        for name in projection.ids:
            _check_ids(name, {name: traits[name] for name in shown})
        types, ids = value_types(schema, names), frozenset(projection.ids)
        return cls(schema, traits, types, ids, shown, projection.looks_at)

    def part(self, names: tuple[str, ...], *, by_code: bool = False) -> "View":
        """Some of its columns; `by_code`: codes also where the projection wants ids, for conditions to look at."""
        key = names, by_code
        if key not in self._parts:
            traits, types = ({name: of[name] for name in names} for of in (self.traits, self.types))
            ids = frozenset[str]() if by_code else self.ids & frozenset(names)
            self._parts[key] = View(self.schema, traits, types, ids, names, ())
        return self._parts[key]

    def lives_in(self, schema: Schema) -> bool:
        """Whether none of its traits was dropped from a later schema, whatever was added or renamed."""
        live = {trait.id for trait in schema}
        return all(trait.id in live for trait in self.recent)

    def list_size(self, name: str) -> int | None:
        """How many items every list of a column has; None for lists of any length, and for what is no list."""
        trait = self.traits[name]
        return None if trait is None else trait.list_size

    def wanted(self, reader: GenerationReader) -> Wanted:
        """The columns, as a generation stores them."""
        generation = reader.generation.id
        wanted = self._wanted.get(generation)
        if wanted is None:
            columns = [_wanted(name, reader, trait) for name, trait in self.traits.items()]
            wanted = Wanted.of(columns)
            self._wanted.clear()
            self._wanted[generation] = wanted
        return wanted


def _check_ids(name: str, traits: dict[str, Trait | None]) -> None:
    """Raises: SchemaError: a column that is not wanted, or is no dictionary of integers."""
    if name not in traits:
        raise SchemaError(
            f"ids of {name!r} are wanted, but it is not among the projection's traits: {', '.join(traits)}"
        )
    trait = traits[name]
    if trait is None or not trait.coded or not pa.types.is_integer(trait.item_type):
        type_ = "a time" if trait is None else str(trait.type)
        raise SchemaError(f"ids of {name!r} are wanted, but only dictionaries of integers have ids; it is {type_}")


def _wanted(name: str, reader: GenerationReader, trait: Trait | None) -> WantedColumn:
    if trait is None:
        return WantedColumn(name, None, EVENT_TS_COLUMN, np.dtype(np.int64), False)
    return WantedColumn(
        name, trait.id, reader.column(trait), trait.dtype, trait.nullable, trait.is_list, trait.list_size
    )
