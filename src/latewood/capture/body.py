"""The kernels that write a message: where each buffer goes, and what is in it. `message` draws the plan they follow.

A plan is a table of buffers in Arrow's order, with what each holds (its role), of how many elements (of the requests, of
their ends, of the recent events or of the superseded places) and of how many bits. Recent events are copied row by row
from the arena's columns, which are named by address: there are as many as there are traits. A node has as many elements as
one of these has; the items of lists are as many as lie ready, and their node is given as its first buffer, inverted.
"""

from typing import Any

from numba import int32, int64, types, uint8, uint64

from latewood.kernels import kernel, typed_kernel
from latewood.stripes.addresses import (
    address_of,
    copy_bytes,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
    zero_bytes,
)

# What a buffer holds
NOTHING = 0  # no bytes: a validity where nothing is null
GIVEN = 1  # a column that lies ready, one of `GIVEN_COLUMNS`
READY = 2  # bytes that lie ready, by address and size
EPOCH = 3  # the store's epoch, once for each
EVENT_OFFSETS, PLACE_OFFSETS = 4, 5  # of lists, counted from the first
VALIDITY, BITS, VALUES = 6, 7, 8  # of a column of the recent events: whether not null, flags, numbers
# Of how many elements a buffer or a node is
REQUESTS, OFFSETS, EVENTS, PLACES = range(4)
# The parts of a plan's row, and of a row of what lies ready
ROLE, COUNT, BITS_EACH, COLUMN, NODE = range(5)
ADDRESS, SIZE, NULLS, ELEMENTS = range(4)

GIVEN_COLUMNS = 10
_EPOCH_HALVES = 2
_IN_I64 = types.Array(int64, 1, "C", readonly=True)
_IN_I32 = types.Array(int32, 1, "C", readonly=True)
_IN_U64 = types.Array(uint64, 1, "C", readonly=True)
_TABLE = types.Array(int64, 2, "C", readonly=True)


@kernel
def never_null(columns: Any, column: Any) -> Any:
    """Whether a column has values and no mask."""
    return columns[column, 0] != 0 and columns[column, 1] == 0


@kernel
def write_epoch(to: Any, size: Any, epoch: Any) -> None:
    """The same 16 bytes again and again."""
    for place in range(size // uint64(16)):
        for half in range(_EPOCH_HALVES):
            store_u64(to + uint64(16) * uint64(place) + uint64(8 * half), epoch[half])


@kernel
def write_offsets(to: Any, offsets: Any) -> None:
    """As 32 bits each, counted from the first."""
    for i in range(len(offsets)):
        store_u32(to + uint64(4 * i), uint64(offsets[i] - offsets[0]))


@kernel
def write_bits(to: Any, flags: Any, rows: Any, flipped: Any) -> Any:
    """Bytes that are 0 or 1, by row, as bits. Returns: how many were 1."""
    total = uint64(0)
    for first in range(0, len(rows), 8):
        byte = uint64(0)
        for i in range(first, min(first + 8, len(rows))):
            flag = load_u8(flags + uint64(rows[i]))
            total += flag
            byte |= (flag ^ flipped) << uint64(i - first)
        store_u8(to + uint64(first >> 3), byte)
    return total


@kernel
def write_values(to: Any, values: Any, rows: Any, bits: Any) -> None:
    """Values by row; every width is a loop of its own, so that none asks for it in every row."""
    if bits == 64:
        for i in range(len(rows)):
            store_u64(to + uint64(8 * i), load_u64(values + uint64(8) * uint64(rows[i])))
    elif bits == 32:
        for i in range(len(rows)):
            store_u32(to + uint64(4 * i), load_u32(values + uint64(4) * uint64(rows[i])))
    elif bits == 16:
        for i in range(len(rows)):
            store_u16(to + uint64(2 * i), load_u16(values + uint64(2) * uint64(rows[i])))
    else:
        for i in range(len(rows)):
            store_u8(to + uint64(i), load_u8(values + uint64(rows[i])))


@kernel
def lay_out(
    head: Any, nodes_at: Any, buffers_at: Any, plan: Any, nodes: Any, counts: Any, columns: Any, ready: Any
) -> Any:
    """Write into a message's head where its buffers are and how many elements its nodes have. Returns: the body's bytes."""
    for node in range(len(nodes)):
        entry = head + uint64(8) * uint64(nodes_at + 2 * node)
        count = counts[nodes[node]] if nodes[node] >= 0 else ready[~nodes[node], ELEMENTS]
        store_u64(entry, uint64(count))
        store_u64(entry + uint64(8), uint64(0))
    at = 0
    for buffer in range(len(plan)):
        role, size = plan[buffer, ROLE], (counts[plan[buffer, COUNT]] * plan[buffer, BITS_EACH] + 7) >> 3
        if role == NOTHING or (role == VALIDITY and never_null(columns, plan[buffer, COLUMN])):
            size = 0
        elif role == READY:
            size = ready[buffer, SIZE]
        entry = head + uint64(8) * uint64(buffers_at + 2 * buffer)
        store_u64(entry, uint64(at))
        store_u64(entry + uint64(8), uint64(size))
        at += (size + 7) & ~7
    return at


@typed_kernel(
    int64(
        types.Array(uint8, 1, "C"), _IN_I64, _IN_I64, _IN_I64, _TABLE, _TABLE, _TABLE, _IN_I64, _IN_I64, _IN_I64, _IN_U64,
        _IN_I64, _IN_I64, _IN_I64, _IN_I32, _IN_I64, _IN_U64, _IN_I64, _IN_I64, _IN_I64, _IN_I32,
    )
)  # fmt: skip
def write(  # type: ignore[no-untyped-def]
    message, template, where, nodes, plan, columns, ready, rows, event_offsets, place_offsets, epoch,
    watermark, start_ts, end_ts, end_ties, length, checksum, cutoff, place_event_ts, place_ingest_ts, place_ordinal,
):  # fmt: skip
    """Write a message: the head after its template, then the body.

    Args: message: with room enough, see `Plan.room`; where: in the head, in words: see `Plan`.
    Returns: its bytes. If there is not that much room, no body was written.
    """
    # the columns that are given, in their order; a tuple of addresses, since they differ in type
    given = (
        address_of(watermark), address_of(start_ts), address_of(end_ts), address_of(end_ties), address_of(length),
        address_of(checksum), address_of(cutoff), address_of(place_event_ts), address_of(place_ingest_ts),
        address_of(place_ordinal),
    )  # fmt: skip
    rows_at, body_at, nodes_at, buffers_at = where[0], where[1], where[2], where[3]
    counts = (len(length), len(length) + 1, len(rows), len(place_ordinal))
    head, head_bytes = address_of(message), uint64(8 * len(template))
    copy_bytes(head, address_of(template), head_bytes)
    body_bytes = lay_out(head, nodes_at, buffers_at, plan, nodes, counts, columns, ready)
    store_u64(head + uint64(8) * uint64(rows_at), uint64(len(length)))
    store_u64(head + uint64(8) * uint64(body_at), uint64(body_bytes))
    message_bytes = 8 * len(template) + body_bytes
    if message_bytes > len(message):
        return message_bytes
    for buffer in range(len(plan)):
        entry = head + uint64(8) * uint64(buffers_at + 2 * buffer)
        to, size = head + head_bytes + load_u64(entry), load_u64(entry + uint64(8))
        role, column = plan[buffer, ROLE], plan[buffer, COLUMN]
        nulls = uint64(0)
        if size == uint64(0):
            continue
        if role == GIVEN:
            copy_bytes(to, given[column], size)
        elif role == READY:
            copy_bytes(to, uint64(ready[buffer, ADDRESS]), size)
            nulls = uint64(ready[buffer, NULLS])
        elif role == EPOCH:
            write_epoch(to, size, epoch)
        elif role == EVENT_OFFSETS:
            write_offsets(to, event_offsets)
        elif role == PLACE_OFFSETS:
            write_offsets(to, place_offsets)
        elif columns[column, 0] == 0:  # no event here has the trait
            zero_bytes(to, size)
            nulls = uint64(len(rows)) if role == VALIDITY else uint64(0)
        elif role == VALIDITY:
            nulls = write_bits(to, uint64(columns[column, 1]), rows, uint64(1))
        elif role == BITS:
            write_bits(to, uint64(columns[column, 0]), rows, uint64(0))
        else:
            write_values(to, uint64(columns[column, 0]), rows, plan[buffer, BITS_EACH])
        if nulls:
            store_u64(head + uint64(8) * uint64(nodes_at + 2 * plan[buffer, NODE] + 1), nulls)
    return message_bytes
