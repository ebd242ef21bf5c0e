"""The requests that come in: whose history, until when, and the columns that go with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import first_row, one_array, read_table, times_from_arrow
from latewood.errors import SchemaError
from latewood.events import NO_TIE
from latewood.intake import read_user_ids
from latewood.schema import Schema
from latewood.users import UserKeys, user_keys

ANCHOR = "anchor"
OUTPUT = ("uih", "recent", "cutoff", "history")  # columns that examples get, here or when they are materialized


@dataclass(frozen=True, slots=True)
class Requests:
    """n requests. Shapes: all (n,). Units: µs since epoch, UTC.

    A request that is an event (an anchor) has its own place in the order, (request_ts, tie_ingest, tie_ordinal), and
    its history is all that sorts before. Any other has `tie_ingest` NO_TIE, before which nothing sorts.
    """

    features: pa.Table  # the columns given, without `anchor`
    keys: UserKeys
    end_ts: NDArray[np.int64]
    tie_ingest: NDArray[np.int64]
    tie_ordinal: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.end_ts)

    @property
    def is_anchor(self) -> NDArray[np.bool_]:
        return self.tie_ingest > NO_TIE

    def slice(self, start: int, stop: int) -> "Requests":
        """Requests [start, stop)."""
        keys, features, part = (
            self.keys.slice(start, stop),
            self.features.slice(start, stop - start),
            slice(start, stop),
        )
        return Requests(features, keys, self.end_ts[part], self.tie_ingest[part], self.tie_ordinal[part])


def read_requests(data: Any, schema: Schema) -> Requests:
    """Check a table of requests and turn it into columns.

    Args: data: user_id, request_ts, and any other columns; `anchor`, a struct of ingest_ts and ordinal, where a request
        is an event.
    Raises: SchemaError: a column that is missing, repeated, taken by the output or of the wrong type; a null.
    """
    table = read_table(data)
    names = table.column_names
    if repeated := {name for name in names if names.count(name) > 1}:
        raise SchemaError(f"the requests have two columns {min(repeated)!r}")
    if missing := [name for name in ("user_id", "request_ts") if name not in names]:
        columns = f"the column{'s' * (len(missing) > 1)} {' and '.join(missing)}"
        raise SchemaError(f"the requests lack {columns}; they have: {', '.join(names) or 'none'}")
    if taken := [name for name in OUTPUT if name in names]:
        raise SchemaError(f"the requests have a column {taken[0]!r}, which their examples get; rename it")
    keys = user_keys(read_user_ids(table["user_id"], schema))
    end_ts = times_from_arrow(table["request_ts"], "request_ts")
    if ANCHOR not in names:
        none = np.full(len(end_ts), NO_TIE, np.int64), np.zeros(len(end_ts), np.int32)
        return Requests(table, keys, end_ts, *none)
    return Requests(table.drop_columns([ANCHOR]), keys, end_ts, *_read_anchors(table[ANCHOR]))


def _read_anchors(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The anchors' own places among those of their time; NO_TIE for a null: an ordinary request."""
    anchors = one_array(column)
    names = [field.name for field in anchors.type] if pa.types.is_struct(anchors.type) else []
    if not {"ingest_ts", "ordinal"} <= set(names):
        raise SchemaError(f"column 'anchor' is {anchors.type}; an anchor is a struct of ingest_ts and ordinal")
    fields = dict(zip(names, anchors.flatten(), strict=True))  # a null anchor makes its fields null
    for name in ("ingest_ts", "ordinal"):
        half = pc.and_(pc.is_null(fields[name]), pc.is_valid(anchors))
        if pc.any(half).as_py():
            raise SchemaError(f"column 'anchor.{name}' has a null in row {first_row(half)}")
    if not pa.types.is_integer(fields["ordinal"].type):
        raise SchemaError(f"column 'anchor.ordinal' is {fields['ordinal'].type}; it is an integer")
    present = pc.is_valid(anchors).to_numpy(zero_copy_only=False)
    ingest, ordinal = (
        pc.if_else(present, fields[name], pa.scalar(0, fields[name].type)) for name in ("ingest_ts", "ordinal")
    )
    return (
        np.where(present, times_from_arrow(ingest, "anchor.ingest_ts"), NO_TIE),
        ordinal.cast(pa.int32()).to_numpy(),
    )
