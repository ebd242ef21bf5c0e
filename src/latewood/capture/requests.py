"""The requests that come in: whose history, until when, and the columns that go with them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture.places import read_anchors
from latewood.columns import one_array, read_table, times_from_arrow
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
        """Requests [start, stop)."""
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
        return Requests(table, keys, end_ts, *none, cutoff=end_ts)
    ends, cutoff = read_anchors(one_array(table[ANCHOR]), end_ts)
    return Requests(table.drop_columns([ANCHOR]), keys, *ends, cutoff=cutoff)
