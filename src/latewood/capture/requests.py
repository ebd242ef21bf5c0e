"""The requests that come in: whose history, until when, and the columns that go with them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numba import types, uint64
from numpy.typing import NDArray

from latewood.capture.places import read_anchors
from latewood.columns import filled, one_array, read_table, times_from_arrow
from latewood.errors import SchemaError
from latewood.events import NO_TIE
from latewood.intake import read_user_ids
from latewood.kernels import kernel, typed_kernel
from latewood.schema import Schema
from latewood.users import UserKeys, splitmix, user_keys

ANCHOR = "anchor"
REQUIRED = ("user_id", "request_ts")
OUTPUT = ("uih", "recent", "cutoff", "history")  # columns that examples get, here or when they are materialized


_U64S = types.Array(uint64, 1, "C")
_splitmix = kernel(splitmix)


@typed_kernel(types.void(_U64S.copy(readonly=True), _U64S))
def _hash_integers(ids, hashes):  # type: ignore[no-untyped-def]
    for i in range(len(ids)):
        hashes[i] = _splitmix(ids[i])


@dataclass(frozen=True, slots=True)
class Requests:
    """n requests. Shapes: all (n,). Units: µs since epoch, UTC.

    The history of a request is all that sorts before its end, (end_ts, tie_ingest, tie_ordinal). A request that is an
    event (an anchor) ends at its own place, or at that of an earlier version of it, where it was corrected. Any other
    ends before the first event of its time: it has `tie_ingest` NO_TIE, before which nothing sorts.
    """

    features: pa.Table  # the columns given, without `anchor`
    keys: UserKeys
    end_ts: NDArray[np.int64]
    tie_ingest: NDArray[np.int64]
    tie_ordinal: NDArray[np.int32]
    cutoff: NDArray[np.int64]  # of a backfill: the request's time, for an anchor 1 µs past the earlier of its two times

    def __len__(self) -> int:
        return len(self.end_ts)

    @property
    def is_anchor(self) -> NDArray[np.bool_]:
        return self.tie_ingest > NO_TIE

    def slice(self, start: int, stop: int) -> "Requests":
        """Requests [start, stop), as many of them as there are."""
        stop = min(stop, len(self))
        keys, features, part = (
            self.keys.slice(start, stop),
            self.features.slice(start, stop - start),
            slice(start, stop),
        )
        ends = self.end_ts[part], self.tie_ingest[part], self.tie_ordinal[part]
        return Requests(features, keys, *ends, self.cutoff[part])


def read_requests(data: Any, schema: Schema) -> Requests:
    """Check a table of requests and turn it into columns.

    Args: data: user_id, request_ts, and any other columns; `anchor`, a struct of ingest_ts and ordinal, where a request
        is an event, and of `end`, a place or null, where its history ends earlier than at its own.
    Raises: SchemaError: a column that is missing, repeated, taken by the output or of the wrong type; a null.
    """
    table = read_table(data)
    columns = _columns.of(table.schema)
    keys = _hash_users(read_user_ids(table.column(columns.user_id), schema))
    end_ts = times_from_arrow(table.column(columns.request_ts), "request_ts")
    if columns.anchor is None:
        none = filled(len(end_ts), NO_TIE), np.zeros(len(end_ts), np.int32)
        return Requests(table, keys, end_ts, *none, cutoff=end_ts)
    ends, cutoff = read_anchors(one_array(table.column(columns.anchor)), end_ts)
    return Requests(table.drop_columns([ANCHOR]), keys, *ends, cutoff=cutoff)


class _Columns(NamedTuple):
    """Which columns of a table of requests are which."""

    schema: pa.Schema
    user_id: int
    request_ts: int
    anchor: int | None


class _KnownColumns:
    """Looks columns up by name, and remembers the latest schema: the requests of one server are all alike."""

    def __init__(self) -> None:
        self._latest: _Columns | None = None

    def of(self, schema: pa.Schema) -> _Columns:
        """Raises: SchemaError: see `_find_columns`."""
        latest = self._latest
        if latest is None or not latest.schema.equals(schema):
            latest = self._latest = _find_columns(schema)
        return latest


_columns = _KnownColumns()


def _find_columns(schema: pa.Schema) -> _Columns:
    """Raises: SchemaError: a column is missing, repeated or taken by the output."""
    names = schema.names
    if len(set(names)) < len(names):
        repeated = min(name for name in names if names.count(name) > 1)
        raise SchemaError(f"the requests have two columns {repeated!r}")
    if missing := [name for name in REQUIRED if name not in names]:
        columns = f"the column{'s' * (len(missing) > 1)} {' and '.join(missing)}"
        raise SchemaError(f"the requests lack {columns}; they have: {', '.join(names) or 'none'}")
    if taken := [name for name in OUTPUT if name in names]:
        raise SchemaError(f"the requests have a column {taken[0]!r}, which their examples get; rename it")
    anchor = names.index(ANCHOR) if ANCHOR in names else None
    return _Columns(schema, names.index("user_id"), names.index("request_ts"), anchor)


def _hash_users(user_ids: pa.Array) -> UserKeys:
    """Like `user_keys`, but that for a few integers the many small steps of numpy would take longer than all else."""
    if not pa.types.is_integer(user_ids.type):
        return user_keys(user_ids)
    keys = UserKeys(np.empty(len(user_ids), np.uint64), np.zeros(len(user_ids), np.uint64))
    _hash_integers(user_ids.to_numpy().view(np.uint64), keys.hash)
    return keys
