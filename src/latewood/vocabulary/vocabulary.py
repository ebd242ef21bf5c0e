"""All coded traits of a store, each with its list of values."""

import pyarrow as pa

from latewood.columns import Column
from latewood.schema import Schema, Trait
from latewood.storage import Storage


class Vocabulary:
    """Values to codes and back, for every coded trait of a schema. Thread-safe."""

    def __init__(self, storage: Storage, schema: Schema, read_only: bool = False) -> None: ...

    def encode(self, trait: Trait, values: pa.Array) -> Column:
        """Codes of values, adding those that are new (durably, before this returns). Nulls: code 0 and the mask.

        Raises: PointerError: a new value, and the store is open read-only.
        """
        ...

    def codes(self, trait: Trait, values: pa.Array) -> Column:
        """Codes of values that the store must know. Raises: PointerError: one that it does not, by name."""
        ...

    def values(self, trait_id: int, at_least: int = 0) -> pa.Array:
        """The values by code, at least `at_least` of them. Raises: CorruptionError: the store has fewer."""
        ...
