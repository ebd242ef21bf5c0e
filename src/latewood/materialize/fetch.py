"""Fetch: the bytes that a plan will decode, brought to where kernels can read them.

Shards of a local store are mapped, so there is nothing to bring: the system's page cache is the buffer. This is the
seam for stores on object storage, where a plan's stripes become a few coalesced ranged gets. What is true of both is
counted here: how many bytes of stripes a plan touches, the *lookup bytes* by which late materialization is paid for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import uint64

from latewood.immutable.reader import GenerationReader
from latewood.stripes.addresses import load_u64
from latewood.stripes.jit import kernel
from latewood.stripes.layout import (
    COLUMN_COUNT,
    ENTRIES,
    OFFSET_BITS,
    STRIPE_EVENTS,
    USER_BYTES,
    USER_FIRST_STRIPE,
    USERS,
)
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables


def fetch(reader: GenerationReader) -> Tables:
    """The address tables under which all that was planned can be read."""
    return reader.tables


def touched(tables: Tables, ranges: Ranges, columns: Sequence[int]) -> tuple[int, int]:
    """How many stripes a plan touches, over these columns, and how many bytes they have."""
    numbers = np.array(columns, np.uint64)
    stripes, size_bytes = _touched(tables.rows, ranges.shard, ranges.user, ranges.start, ranges.stop, numbers)
    return int(stripes), int(size_bytes)


@kernel
def _touched(tables: Any, shard: Any, user: Any, start: Any, stop: Any, columns: Any) -> Any:
    """Entries of a shard ascend without gaps over stripes, columns and users: a stripe ends where the next begins."""
    stripes, size_bytes = uint64(0), uint64(0)
    offset_mask = (uint64(1) << uint64(OFFSET_BITS)) - uint64(1)
    for i in range(len(shard)):
        users, entries = tables[shard[i], USERS], tables[shard[i], ENTRIES]
        record = users + uint64(user[i]) * uint64(USER_BYTES) + uint64(USER_FIRST_STRIPE)
        first = load_u64(record)
        count = load_u64(record + uint64(USER_BYTES)) - first
        low = uint64(start[i]) // uint64(STRIPE_EVENTS)
        high = (uint64(stop[i]) - uint64(1)) // uint64(STRIPE_EVENTS) + uint64(1)
        for c in range(len(columns)):
            entry = entries + uint64(8) * (first * tables[shard[i], COLUMN_COUNT] + columns[c] * count)
            begin = load_u64(entry + uint64(8) * low) & offset_mask
            end = load_u64(entry + uint64(8) * high) & offset_mask
            size_bytes += end - begin
            stripes += high - low
    return stripes, size_bytes
