"""How many events examples have, by what they say of it: enough to plan by, with little read."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import one_array, struct_fields
from latewood.errors import SchemaError
from latewood.lists import is_list

COUNTED = ("uih.length", "recent.ordinal")  # every list of the recent events is as long: the ordinals are the smallest
_COLUMNS, _LEAVES = zip(*(leaf.split(".") for leaf in COUNTED), strict=True)


def count_events(table: pa.Table, name: str) -> NDArray[np.int64]:
    """Stored and recent events of n examples; a null is none, and what is wrong in a row shows when it is materialized.

    Stored events that a recent one supersedes count too: they are few. Shapes: (n,).
    Raises: SchemaError: no pointers with a length, or no lists of recent events.
    """
    fields = [struct_fields(one_array(table[column])) if column in table.column_names else {} for column in _COLUMNS]
    stored, recent = (of.get(leaf) for of, leaf in zip(fields, _LEAVES, strict=True))
    if stored is None or not pa.types.is_integer(stored.type):
        raise SchemaError(f"{name}: the examples lack the lengths of their pointers, 'uih.length'")
    if recent is None or not is_list(recent.type):
        raise SchemaError(f"{name}: the examples lack the lists of their recent events, 'recent.ordinal'")
    return _numbers(stored) + _numbers(pc.list_value_length(recent))


def _numbers(column: pa.Array) -> NDArray[np.int64]:
    return np.maximum(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False), 0)
