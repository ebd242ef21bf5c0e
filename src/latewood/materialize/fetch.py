"""Fetch: the bytes that a plan will decode, brought to where kernels can read them.

Shards of a local store are mapped, so there is nothing to bring: the system's page cache is the buffer. This is the
seam for stores on object storage, where a plan's stripes become a few coalesced ranged gets. What is true of both is
counted here: how many bytes of stripes a plan touches, the *lookup bytes* by which late materialization is paid for.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import uint64

from latewood.immutable import GenerationReader
from latewood.stripes.addresses import load_u64
from latewood.stripes.entries import entry_offset, first_entry
from latewood.stripes.jit import kernel
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables
from latewood.stripes.stripe import table_at


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
    """Stripes lie back to back in the order of their entries: each ends where the next begins."""
    stripes, size_bytes = uint64(0), uint64(0)
    for i in range(len(shard)):
        table = table_at(tables, shard[i])
        first = uint64(start[i]) // uint64(STRIPE_EVENTS)
        last = (uint64(stop[i]) - uint64(1)) // uint64(STRIPE_EVENTS) + uint64(1)
        for column in columns:
            entry = first_entry(table, uint64(user[i]), column)
            begin = entry_offset(load_u64(entry + uint64(8) * first))
            size_bytes += entry_offset(load_u64(entry + uint64(8) * last)) - begin
            stripes += last - first
    return stripes, size_bytes
