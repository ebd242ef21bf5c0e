"""The `anchor` column of requests: which event a request is, and where its history ends."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import first_row, struct_fields, times_from_arrow
from latewood.errors import SchemaError
from latewood.events import NO_TIE
from latewood.pointer import PLACE_TYPE
from latewood.schema import TIME_TYPE

ANCHOR = "anchor"
END = "end"
ANCHOR_TYPE = pa.struct([("ingest_ts", TIME_TYPE), ("ordinal", pa.int32()), (END, PLACE_TYPE)])

Ends = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]  # event_ts, ingest_ts, ordinal: a place each


def read_anchors(anchors: pa.StructArray, request_ts: NDArray[np.int64]) -> tuple[Ends, NDArray[np.int64]]:
    """Where requests end, and their cutoffs. A null is an ordinary request, which ends before the first of its time.

    Raises: SchemaError: no such column, a null in part of an anchor, or an end that sorts after the anchor itself.
    """
    fields, present = _fields(anchors, ANCHOR, ("ingest_ts", "ordinal"), np.ones(len(anchors), np.bool_))
    ingest_ts, ordinal = _times(fields["ingest_ts"], present, f"{ANCHOR}.ingest_ts"), _ordinals(fields, present)
    cutoff = np.where(present, np.minimum(request_ts, ingest_ts) + 1, request_ts)
    own = (request_ts, np.where(present, ingest_ts, NO_TIE), ordinal)
    if END not in fields or fields[END].null_count == len(anchors):
        return own, cutoff
    ends, has_end = _fields(fields[END], f"{ANCHOR}.{END}", ("event_ts", "ingest_ts", "ordinal"), present)
    end = (
        np.where(has_end, _times(ends["event_ts"], has_end, f"{ANCHOR}.{END}.event_ts"), own[0]),
        np.where(has_end, _times(ends["ingest_ts"], has_end, f"{ANCHOR}.{END}.ingest_ts"), own[1]),
        np.where(has_end, _ordinals(ends, has_end), own[2]).astype(np.int32),
    )
    _refuse_later(end, own)
    return end, cutoff


def _fields(
    array: pa.Array, name: str, wanted: tuple[str, ...], within: NDArray[np.bool_]
) -> tuple[dict[str, pa.Array], NDArray[np.bool_]]:
    """The fields of a struct column and where it is not null."""
    fields = struct_fields(array)  # where the struct is null, so are they
    if not set(wanted) <= fields.keys():
        what = (
            "an anchor is a struct of ingest_ts and ordinal" if name == ANCHOR else f"a place has {', '.join(wanted)}"
        )
        raise SchemaError(f"column '{name}' is {array.type}; {what}")
    present = pc.is_valid(array).to_numpy(zero_copy_only=False) & within
    for field in wanted:
        half = pc.and_(pc.is_null(fields[field]), pa.array(present))
        if pc.any(half).as_py():
            raise SchemaError(f"column '{name}.{field}' has a null in row {first_row(half)}")
    if not pa.types.is_integer(fields["ordinal"].type):
        raise SchemaError(f"column '{name}.ordinal' is {fields['ordinal'].type}; it is an integer")
    return fields, present


def _times(column: pa.Array, present: NDArray[np.bool_], name: str) -> NDArray[np.int64]:
    """A column of times; 0 where a struct is null."""
    return times_from_arrow(pc.if_else(pa.array(present), column, pa.scalar(0, column.type)), name)


def _ordinals(fields: dict[str, pa.Array], present: NDArray[np.bool_]) -> NDArray[np.int32]:
    column = fields["ordinal"]
    filled: pa.Array = pc.if_else(pa.array(present), column, pa.scalar(0, column.type))
    ordinals: NDArray[np.int32] = filled.cast(pa.int32()).to_numpy()
    return ordinals


def _refuse_later(end: Ends, own: Ends) -> None:
    """An end after the anchor's own place would let the anchor into its own history."""
    later = np.zeros(len(end[0]), np.bool_)
    equal = ~later
    for k in range(3):
        later |= equal & (end[k] > own[k])
        equal &= end[k] == own[k]
    if later.any():
        raise SchemaError(f"column '{ANCHOR}.{END}', row {int(np.argmax(later))}: the end is after the anchor itself")
