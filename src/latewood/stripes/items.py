"""The items of one stripe of lists ↔ its bytes: a header, and chunks of 256 items that are encoded as stripes are.

What a chunk's bytes mean is told by a word like the upper part of an entry, but these words lie in the payload, where no
one has looked at them when the shard was opened. So a decoder looks at all of them before it follows one: that there are
as many as the events' lengths ask for, that each is possible, and that together they ask for the bytes that there are.
"""

from typing import Any

from numba import uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import copy_bytes, load_i32, load_i64, load_u32, store_u32
from latewood.stripes.encode import encode_stripe
from latewood.stripes.entries import stripe_bytes, table_field
from latewood.stripes.layout import CHUNK_BITS, CHUNK_ITEMS, HEADER_WORD_BYTES, OFFSET_BITS, PAYLOAD
from latewood.stripes.stripe import decode_part
from latewood.stripes.validate import is_possible


@kernel
def header_bytes(items: Any) -> Any:
    """Bytes of the header of so many items: none of none."""
    chunks = (items + uint64(CHUNK_ITEMS - 1)) // uint64(CHUNK_ITEMS)
    return (chunks + uint64(1)) * uint64(HEADER_WORD_BYTES) if items else uint64(0)


@kernel
def encode_items(
    kind: Any, itemsize: Any, items: Any, starts: Any, lengths: Any, events: Any, out: Any, scratch: Any
) -> Any:
    """The items of a stripe's events to `out`. Returns: their bytes.

    `items` is the address of the pool; `starts` and `lengths`, of int64 and int32, are those of the stripe's events.
    `scratch` is room for 256 words, a chunk's items, and for what encoding needs.
    """
    left = uint64(0)
    for i in range(events):
        left += uint64(load_i32(lengths + (uint64(i) << uint64(2))))
    if left == uint64(0):
        return uint64(0)
    store_u32(out, left)
    word, at = out + uint64(HEADER_WORD_BYTES), out + header_bytes(left)
    room, event, done = scratch + uint64(8 * CHUNK_ITEMS), uint64(0), uint64(0)
    while left:
        count = min(left, uint64(CHUNK_ITEMS))
        event, done = _bring_together(itemsize, items, starts, lengths, event, done, count, scratch)
        entry, size = encode_stripe(kind, itemsize, scratch, uint64(0), count, uint64(0), at, room)
        store_u32(word, entry >> uint64(OFFSET_BITS))
        word += uint64(HEADER_WORD_BYTES)
        at += size
        left -= count
    return at - out


@kernel
def _bring_together(
    itemsize: Any, items: Any, starts: Any, lengths: Any, event: Any, done: Any, count: Any, out: Any
) -> Any:
    """Copy the next items of a stripe to one place. Returns: the event, and which of its items, that comes next."""
    while count:
        part = min(uint64(load_i32(lengths + (event << uint64(2)))) - done, count)
        first = uint64(load_i64(starts + (event << uint64(3)))) + done
        copy_bytes(out, items + first * itemsize, part * itemsize)
        out += part * itemsize
        done += part
        count -= part
        if done == uint64(load_i32(lengths + (event << uint64(2)))):
            event, done = event + uint64(1), uint64(0)
    return event, done


@kernel
def is_counted(table: Any, offset: Any, size: Any, items: Any) -> Any:
    """Whether the `size` bytes of a stripe at an offset of the payload can be those of so many items."""
    if items == uint64(0):
        return size == uint64(0)
    return size >= header_bytes(items) and load_u32(table_field(table, PAYLOAD) + offset) == items


@kernel
def is_whole(table: Any, offset: Any, size: Any, items: Any, kind: Any, itemsize: Any) -> Any:
    """Whether the header of a stripe of so many items asks for all its bytes, and no others."""
    if not is_counted(table, offset, size, items):
        return False
    position, left = header_bytes(items), items
    word = table_field(table, PAYLOAD) + offset
    while left:
        word += uint64(HEADER_WORD_BYTES)
        if load_u32(word) >> uint64(CHUNK_BITS):
            return False
        entry, count = load_u32(word) << uint64(OFFSET_BITS), min(left, uint64(CHUNK_ITEMS))
        if not is_possible(entry, count, False, itemsize, kind, False):
            return False
        position += stripe_bytes(entry, count, itemsize)
        left -= count
    return position == size


@kernel
def decode_items(
    table: Any, offset: Any, items: Any, itemsize: Any, start: Any, stop: Any, out: Any, scratch: Any
) -> Any:
    """Items [start, stop) of a stripe of so many, which `is_whole`, to out[0 : stop - start].

    `scratch` is room for 256 values of 8 bytes.
    """
    position, first = offset + header_bytes(items), uint64(0)
    word = table_field(table, PAYLOAD) + offset
    while first < stop:
        word += uint64(HEADER_WORD_BYTES)
        entry, count = load_u32(word) << uint64(OFFSET_BITS), min(items - first, uint64(CHUNK_ITEMS))
        low, high = max(start, first), min(stop, first + count)
        if low < high:
            decode_part(table, entry | position, count, itemsize, low - first, high - first, out, scratch)
            out += (high - low) * itemsize
        position += stripe_bytes(entry, count, itemsize)
        first += count
