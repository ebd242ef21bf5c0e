"""Where a team's Fat Rows have what: the columns of user and time, and one list for each trait of the history.

A list is a column of its own (`item_ids`), a field of a struct of lists (`history.item_id`, as `lw.write_fat_rows` writes
them), or a field of a list of structs (`events.item_id`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.columns import one_array, plain_array, times_from_arrow
from latewood.errors import SchemaError
from latewood.intake import read_user_ids
from latewood.lists import is_list, offsets_of
from latewood.schema import EVENT_TS, Schema
from latewood.users import UserKeys, user_keys

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_KEYS = ("user_id", "request_ts", "history", "cutoff")


@dataclass(frozen=True, slots=True, eq=False)
class Theirs:
    """n Fat Rows. Shapes: user_ids, end_ts, cutoff (n,); offsets (n + 1,); event_ts and values (offsets[-1],)."""

    user_ids: pa.Array
    keys: UserKeys
    end_ts: NDArray[np.int64]
    cutoff: NDArray[np.int64]
    offsets: NDArray[np.int64]
    event_ts: NDArray[np.int64]
    values: dict[str, pa.Array]  # by trait

    def __len__(self) -> int:
        return len(self.end_ts)


class FatRowMapping:
    """Which column is what.

    Args:
        columns: what the files have.
        given: {"user_id": column, "request_ts": column, "history": {trait or "event_ts": path}}; also "cutoff", a column,
            where their rows saw what was learned of up to another time than the request's. What is left out has the
            names that `lw.write_fat_rows` writes.
        unit: of integer times.
    Raises: SchemaError: a column that is not there, or a trait that the store does not have.
    """

    def __init__(self, columns: pa.Schema, schema: Schema, given: Mapping[str, Any] | None, unit: str) -> None:
        if unit not in UNITS:
            raise SchemaError(f"unit {unit!r}: one of {', '.join(UNITS)}")
        given = dict(given or {})
        if unknown := [name for name in given if name not in _KEYS]:
            raise SchemaError(f"mapping has {unknown[0]!r}; it has {', '.join(_KEYS)}")
        self._schema, self._factor = schema, UNITS[unit]
        self.user, self.request = str(given.get("user_id", "user_id")), str(given.get("request_ts", "request_ts"))
        self.cutoff = None if given.get("cutoff") is None else str(given["cutoff"])
        self.history = dict(given["history"]) if "history" in given else _as_written(columns, schema)
        for name in self.history:
            if name != EVENT_TS:
                schema[name]
        if EVENT_TS not in self.history:
            raise SchemaError(f"the mapping's history lacks {EVENT_TS!r}: without times events cannot be told apart")
        for name in (self.user, self.request, *([self.cutoff] if self.cutoff else [])):
            if name not in columns.names:
                raise SchemaError(f"the rows have no column {name!r}; they have: {', '.join(columns.names)}")
        for path in self.history.values():
            _read_path(columns.empty_table(), path)

    @property
    def traits(self) -> list[str]:
        """What is compared, besides the times."""
        return [name for name in self.history if name != EVENT_TS]

    def read(self, table: pa.Table) -> Theirs:
        """Some rows. Raises: SchemaError: a value that does not fit, or lists of one row that differ in length."""
        user_ids = read_user_ids(table[self.user], self._schema)
        end_ts = self._times(one_array(table[self.request]), self.request)
        cutoff = end_ts if self.cutoff is None else self._times(one_array(table[self.cutoff]), self.cutoff)
        lists = {name: _read_path(table, path) for name, path in self.history.items()}
        offsets = _offsets(lists[EVENT_TS])
        for name, array in lists.items():
            if (other := _offsets(array)).tolist() != offsets.tolist():
                row = int(np.argmax(np.diff(other) != np.diff(offsets)))
                what = f"{self.history[EVENT_TS]!r} has {np.diff(offsets)[row]} events and {self.history[name]!r}"
                raise SchemaError(f"user {user_ids[row].as_py()!r}: {what} {np.diff(other)[row]}")
        flat = {name: plain_array(array.flatten()) for name, array in lists.items()}
        event_ts = self._times(flat.pop(EVENT_TS), self.history[EVENT_TS])
        return Theirs(user_ids, user_keys(user_ids), end_ts, cutoff, offsets, event_ts, flat)

    def _times(self, column: pa.Array, name: str) -> NDArray[np.int64]:
        if not pa.types.is_integer(column.type):
            return times_from_arrow(column, name)
        if column.null_count:
            raise SchemaError(f"column {name!r} has a null; a time is required")
        times = column.to_numpy()
        low, high = -(-EARLIEST_TS // self._factor), LATEST_TS // self._factor
        if len(times) and not low <= times.min() <= times.max() <= high:
            raise SchemaError(f"column {name!r} has a time outside the years 1 to 9999: is the unit right?")
        return times.astype(np.int64) * self._factor

    @property
    def factor(self) -> int:
        """µs per unit of an integer time."""
        return self._factor


def _as_written(columns: pa.Schema, schema: Schema) -> dict[str, str]:
    """The layout of `lw.write_fat_rows`: a struct `history` of lists that are named as traits."""
    type_ = columns.field("history").type if "history" in columns.names else None
    if type_ is None or not pa.types.is_struct(type_):
        raise SchemaError(
            "the rows have no struct column 'history': say where their lists are, as in "
            f"mapping={{'history': {{'event_ts': 'times'}}}}; they have: {', '.join(columns.names)}"
        )
    return {field.name: f"history.{field.name}" for field in type_ if field.name == EVENT_TS or field.name in schema}


def _read_path(table: pa.Table, path: str) -> Any:
    """The list that a path leads to. Raises: SchemaError: names the part that is not there."""
    name = path if path in table.column_names else path.split(".")[0]
    if name not in table.column_names:
        raise SchemaError(f"the rows have no column {name!r}; they have: {', '.join(table.column_names)}")
    array, rest = one_array(table[name]), path[len(name) + 1 :]
    while rest:
        array, rest = _step(array, rest, path)
    if not is_list(array.type):
        raise SchemaError(f"{path!r} is {array.type}; a history is a list per trait")
    return array


def _step(array: pa.Array, rest: str, path: str) -> tuple[pa.Array, str]:
    """One field deeper, into a struct or into the structs of a list."""
    inner = array.type.value_type if is_list(array.type) else array.type
    if not pa.types.is_struct(inner):
        raise SchemaError(f"{path!r}: {rest!r} is no field of {array.type}")
    names = [field.name for field in inner]
    name = rest if rest in names else rest.split(".")[0]
    if name not in names:
        raise SchemaError(f"{path!r}: there is no field {name!r}; there are: {', '.join(names)}")
    left = rest[len(name) + 1 :]
    if not is_list(array.type):
        return array.flatten()[names.index(name)], left
    values = array.flatten().flatten()[names.index(name)]
    return pa.LargeListArray.from_arrays(pa.array(_offsets(array)), values), left


def _offsets(lists: Any) -> NDArray[np.int64]:
    """From 0; a null list is an empty one."""
    lengths = pa.compute.fill_null(pa.compute.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    return offsets_of(lengths)
