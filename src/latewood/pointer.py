"""The pointer: what an example carries instead of its history (docs/protocol.md R3).

A pointer means: the newest `length` events of [start_ts, end_ts), and the first `end_ties` of those exactly at `end_ts`,
that the store had learned of before `watermark`; `checksum` is the sum of their identities mod 2**64 (R18). It names no
generation and no shard, so every later generation resolves it. Its size is fixed, however long the history.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.columns import first_row, struct_fields, times_from_arrow, times_to_arrow
from latewood.errors import PointerError
from latewood.schema import TIME_TYPE

EPOCH_BYTES = 16
POINTER_TYPE = pa.struct(
    [
        pa.field("epoch", pa.binary(EPOCH_BYTES), nullable=False),
        pa.field("watermark", TIME_TYPE, nullable=False),
        pa.field("start_ts", TIME_TYPE, nullable=False),
        pa.field("end_ts", TIME_TYPE, nullable=False),
        pa.field("end_ties", pa.int32(), nullable=False),
        pa.field("length", pa.int64(), nullable=False),
        pa.field("checksum", pa.uint64(), nullable=False),
    ]
)
# An event's place in its user's total order (R1): what names an event where there is no id.
PLACE_TYPE = pa.struct([("event_ts", TIME_TYPE), ("ingest_ts", TIME_TYPE), ("ordinal", pa.int32())])
_NAMES = tuple(field.name for field in POINTER_TYPE)


def places_to_arrow(
    event_ts: NDArray[np.int64],
    ingest_ts: NDArray[np.int64],
    ordinal: NDArray[np.int32],
    null: NDArray[np.bool_] | None = None,
) -> pa.StructArray:
    """Places as a column of PLACE_TYPE. Shapes: all (n,)."""
    columns = [times_to_arrow(event_ts), times_to_arrow(ingest_ts), pa.array(ordinal, pa.int32())]
    mask = None if null is None else pa.array(null)
    return pa.StructArray.from_arrays(columns, fields=list(PLACE_TYPE), mask=mask)


@dataclass(frozen=True, slots=True)
class Pointers:
    """n pointers as columns. Shapes: all (n,). Units: µs since epoch, UTC; ranges are half-open."""

    epoch: bytes  # 16 bytes, the same for all: a pointer of another epoch is refused on reading
    watermark: NDArray[np.int64]
    start_ts: NDArray[np.int64]
    end_ts: NDArray[np.int64]
    end_ties: NDArray[np.int32]
    length: NDArray[np.int64]
    checksum: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.length)

    def take(self, rows: NDArray[np.int64] | slice) -> "Pointers":
        """Some of the pointers; of a slice as views."""
        columns: list[NDArray[Any]] = [self.watermark, self.start_ts, self.end_ts]
        columns += [self.end_ties, self.length, self.checksum]
        return Pointers(self.epoch, *(column[rows] for column in columns))

    def to_arrow(self) -> pa.StructArray:
        """As the `uih` column of an example."""
        epoch = pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(self), np.int32)), pa.array([self.epoch], pa.binary(EPOCH_BYTES))
        ).dictionary_decode()
        times = [times_to_arrow(column) for column in (self.watermark, self.start_ts, self.end_ts)]
        rest = [pa.array(column) for column in (self.end_ties, self.length, self.checksum)]
        return pa.StructArray.from_arrays([epoch, *times, *rest], fields=list(POINTER_TYPE))

    @classmethod
    def from_arrow(cls, uih: pa.StructArray, epoch: bytes) -> "Pointers":
        """Read the `uih` column of examples of the store whose epoch is given.

        Raises: PointerError: not a pointer column, a null, a negative count, or a pointer of another store or epoch.
        """
        fields: dict[str, Any] = struct_fields(uih)
        if missing := [name for name in _NAMES if name not in fields]:
            raise PointerError(f"column 'uih' is {uih.type}; a pointer also has {', '.join(missing)}")
        for name, column in fields.items():
            if column.null_count:
                raise PointerError(f"column 'uih.{name}' has a null in row {first_row(column.is_null())}")
        if (row := _first_of_another(fields["epoch"], epoch)) >= 0:
            other = fields["epoch"][row].as_py().hex()
            raise PointerError(
                f"row {row}: the pointer is of epoch {other}, the store is {epoch.hex()}: these examples were made for "
                "another store, or for this one before it was deleted and made anew"
            )
        pointers = cls(
            epoch,
            times_from_arrow(fields["watermark"], "uih.watermark"),
            times_from_arrow(fields["start_ts"], "uih.start_ts"),
            times_from_arrow(fields["end_ts"], "uih.end_ts"),
            _cast(fields["end_ties"], pa.int32(), "end_ties").to_numpy(),
            _cast(fields["length"], pa.int64(), "length").to_numpy(),
            _cast(fields["checksum"], pa.uint64(), "checksum").to_numpy(),
        )
        negative = np.flatnonzero(
            (pointers.length < 0) | (pointers.end_ties < 0) | (pointers.end_ties > pointers.length)
        )
        if len(negative):
            row = int(negative[0])
            raise PointerError(
                f"row {row}: length {pointers.length[row]} with {pointers.end_ties[row]} end ties is no pointer's"
            )
        return pointers


def _first_of_another(epochs: pa.Array, epoch: bytes) -> int:
    """The first row whose epoch is not the one given, or -1."""
    size, count = len(epoch), len(epochs)
    epochs = _cast(epochs, pa.binary(size), "epoch")
    if not count:
        return -1
    raw = epochs.buffers()[1].slice(size * epochs.offset, size * count).to_pybytes()
    if raw == epoch * count:  # one comparison of bytes: this is done for every batch
        return -1
    return int(next(row for row in range(count) if raw[row * size : (row + 1) * size] != epoch))


def _cast(column: pa.Array, type_: pa.DataType, name: str) -> pa.Array:
    try:
        return column if column.type == type_ else column.cast(type_)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise PointerError(f"column 'uih.{name}' is {column.type} and no pointer's: {error}") from None
