"""The plan of a message: which buffers and nodes the columns that a capture adds have in Arrow, and where its head tells.

A message of Arrow's IPC format is a head, which tells how many elements every node has and where in the body every buffer
is, and the body. For one schema the head is always of one size, with the same numbers at the same places. So one head is
made by Arrow itself, once, and the places are looked up in it; from then on the numbers are all that has to be written.

Source: https://arrow.apache.org/docs/format/Columnar.html#recordbatch-message; https://flatbuffers.dev/internals
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.capture import body
from latewood.capture.recents import recent_type
from latewood.lists import is_list
from latewood.mutable import WantedTrait
from latewood.pointer import EPOCH_BYTES, POINTER_TYPE
from latewood.schema import TIME_TYPE, Schema, Trait

_MESSAGE_HEADER, _MESSAGE_BODY_LENGTH = 2, 3  # the numbers of fields in Arrow's Message.fbs
_BATCH_LENGTH, _BATCH_NODES, _BATCH_BUFFERS = 0, 1, 2
_PREFIX_BYTES = 8  # before the head proper: a mark and its size
_CLOCKS = (64, 64, 32)  # bits: event_ts, ingest_ts, ordinal
_PLACE = (64, 64, 32)  # likewise
_FIRST_PLACE = body.GIVEN_COLUMNS - len(_PLACE)


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """How to write the columns `uih`, `recent` and `cutoff` of a schema.

    Shapes: buffers (b, 5), nodes (n,): see `body`; head (words,); where (4,).
    """

    schema: pa.Schema  # of the columns
    fields: tuple[pa.Field, ...]  # likewise
    wanted: tuple[WantedTrait, ...]  # the traits of the recent events
    ready: tuple[tuple[Trait, int], ...]  # those that Arrow lays out: words, and lists; each with its first buffer
    buffers: NDArray[np.int64]
    nodes: NDArray[np.int64]
    head: NDArray[np.int64]
    where: NDArray[np.int64]  # in the head: how many rows, how many bytes of body, and where nodes and buffers begin
    bits: tuple[int, int, int]  # at most, for each request, recent event and superseded place

    def room(self, requests: int, events: int, places: int) -> int:
        """Bytes that a message has at most, besides what lies ready."""
        bits = (requests + 1) * self.bits[0] + events * self.bits[1] + places * self.bits[2]
        return int(self.head.nbytes) + bits // 8 + 8 * len(self.buffers)


_plans: dict[int, tuple[Schema, Plan]] = {}  # by the schema's id, which stays its own while it is kept here
_PLANS_MAX = 64


def plan_of(schema: Schema) -> Plan:
    """The plan of a schema, made once: to compare schemas would take longer than to write a message."""
    known = _plans.get(id(schema))
    if known is None:
        if len(_plans) >= _PLANS_MAX:
            _plans.clear()
        known = _plans[id(schema)] = schema, _draw(schema)
    return known[1]


def _draw(schema: Schema) -> Plan:
    sketch = _Sketch()
    sketch.pointers()
    wanted, ready = sketch.recents(schema)
    sketch.given(6, 64)  # the cutoff
    types = {"uih": POINTER_TYPE, "recent": recent_type(schema), "cutoff": TIME_TYPE}
    columns = pa.schema([pa.field(name, type_, nullable=False) for name, type_ in types.items()])
    head, rows_at, body_at, nodes, buffers = _head_of(columns)
    if (nodes[1], buffers[1]) != (len(sketch.nodes), len(sketch.buffers)):
        raise RuntimeError(f"Arrow {pa.__version__} has other buffers than {columns} were thought to have")
    plan, counts = np.array(sketch.buffers, np.int64), np.array(sketch.nodes, np.int64)
    where = np.array((rows_at, body_at, nodes[0], buffers[0]), np.int64)
    return Plan(columns, tuple(columns), wanted, ready, plan, counts, head, where, sketch.bits)


class _Sketch:
    """The nodes and buffers drawn so far, in Arrow's order: a parent first, its children one after another."""

    def __init__(self) -> None:
        self.nodes: list[int] = []
        self.buffers: list[tuple[int, int, int, int, int]] = []

    @property
    def bits(self) -> tuple[int, int, int]:
        """Of all buffers together, for each request (or end of one), recent event and superseded place."""
        of = [
            sum(bits for _, count, bits, *_ in self.buffers if count in counts)
            for counts in ((body.REQUESTS, body.OFFSETS), (body.EVENTS,), (body.PLACES,))
        ]
        return of[0], of[1], of[2]

    def node(self, count: int) -> None:
        self.nodes.append(count)

    def buffer(self, role: int, count: int = 0, bits: int = 0, column: int = 0) -> None:
        self.buffers.append((role, count, bits, column, len(self.nodes) - 1))

    def struct(self, count: int) -> None:
        self.node(count)
        self.buffer(body.NOTHING)

    def list_(self, offsets: int) -> None:
        self.node(body.REQUESTS)
        self.buffer(body.NOTHING)
        self.buffer(offsets, body.OFFSETS, 32)

    def given(self, column: int, bits: int, count: int = body.REQUESTS) -> None:
        self.node(count)
        self.buffer(body.NOTHING)
        self.buffer(body.GIVEN, count, bits, column)

    def pointers(self) -> None:
        """`uih`."""
        self.struct(body.REQUESTS)
        self.node(body.REQUESTS)
        self.buffer(body.NOTHING)
        self.buffer(body.EPOCH, body.REQUESTS, 8 * EPOCH_BYTES)
        for column, field in enumerate(list(POINTER_TYPE)[1:]):
            self.given(column, field.type.bit_width)

    def recents(self, schema: Schema) -> tuple[tuple[WantedTrait, ...], tuple[tuple[Trait, int], ...]]:
        """`recent`. Returns: the traits to read, and those that Arrow lays out with their first buffers."""
        self.struct(body.REQUESTS)
        ready = []
        for column, bits in enumerate(_CLOCKS):
            self.list_(body.EVENT_OFFSETS)
            self.numbers(column, bits)
        for column, trait in enumerate(schema, len(_CLOCKS)):
            self.list_(body.EVENT_OFFSETS)
            if trait.is_list or trait.coded:
                ready.append((trait, len(self.buffers)))
                self.laid_out(trait.value_type)
            else:
                self.numbers(column, trait.type.bit_width)
        self.list_(body.PLACE_OFFSETS)
        self.struct(body.PLACES)
        for column, bits in enumerate(_PLACE, _FIRST_PLACE):
            self.given(column, bits, body.PLACES)
        return tuple(WantedTrait(trait.id, trait.dtype) for trait in schema), tuple(ready)

    def numbers(self, column: int, bits: int) -> None:
        """Numbers, or flags of one bit."""
        self.node(body.EVENTS)
        self.buffer(body.VALIDITY, body.EVENTS, 1, column)
        self.buffer(body.BITS if bits == 1 else body.VALUES, body.EVENTS, bits, column)

    def laid_out(self, type_: pa.DataType) -> None:
        """What Arrow has laid out: a validity and one buffer or two; of lists, those of the items behind their own."""
        self.node(body.EVENTS)
        if is_list(type_):
            for _ in range(1 if pa.types.is_fixed_size_list(type_) else 2):
                self.buffer(body.READY)
            self.node(~len(self.buffers))  # as many as lie ready
            type_ = type_.value_type
        for _ in range(3 if pa.types.is_string(type_) else 2):
            self.buffer(body.READY)


def _head_of(schema: pa.Schema) -> tuple[NDArray[np.int64], int, int, tuple[int, int], tuple[int, int]]:
    """A head as words of 8 bytes, and where in it: rows, the body's size, and both tables, each with its length."""
    # of one row: a number that is 0 is left out of a head
    data = pa.RecordBatch.from_arrays([pa.nulls(1, field.type) for field in schema], schema=schema).serialize()
    head_bytes = _PREFIX_BYTES + int.from_bytes(data[4:8].to_pybytes(), "little")
    reading = _Flatbuffer(data.to_pybytes()[:head_bytes])
    message = reading.follow(_PREFIX_BYTES)
    batch = reading.follow(reading.field(message, _MESSAGE_HEADER))
    tables = [reading.follow(reading.field(batch, number)) for number in (_BATCH_NODES, _BATCH_BUFFERS)]
    nodes, buffers = ((_word(table + 4), reading.number(table, 4)) for table in tables)
    rows_at = _word(reading.field(batch, _BATCH_LENGTH))
    body_at = _word(reading.field(message, _MESSAGE_BODY_LENGTH))
    return np.frombuffer(reading.data, np.int64), rows_at, body_at, nodes, buffers


def _word(position: int) -> int:
    if position % 8:
        raise RuntimeError(f"Arrow {pa.__version__} does not align numbers in its messages")
    return position // 8


class _Flatbuffer:
    """Reads positions. A table begins with the distance back to a list of where its fields are."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def number(self, at: int, size: int, **signed: Any) -> int:
        return int.from_bytes(self.data[at : at + size], "little", **signed)

    def follow(self, at: int) -> int:
        """To where an offset leads."""
        return at + self.number(at, 4)

    def field(self, table: int, number: int) -> int:
        """The position of a field of a table."""
        fields = table - self.number(table, 4, signed=True)
        place = self.number(fields + 4 + 2 * number, 2)
        if not place:
            raise RuntimeError(f"Arrow {pa.__version__} left field {number} out of a message")
        return table + place
