"""Asking for memory before it is needed: what the walk will touch for a request a few places further on.

Requests come in any order over a store that no cache holds, so that each would wait for memory again and again: for the
records of its stripes, for the entries of the one it ends in, and for that stripe's bytes, which only the entries name.
Asked for in that order, each some requests earlier than the next, they are there when the walk arrives.
"""

from typing import Any

from numba import uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64, prefetch
from latewood.stripes.entries import (
    block_index,
    entry_offset,
    first_entry,
    stripe_record,
    table_field,
    until_record,
    user_record,
)
from latewood.stripes.layout import (
    DELAY,
    EVENT_TS,
    ORDINAL,
    PAYLOAD,
    STRIPE_BYTES,
    STRIPES,
    USER_BYTES,
    USER_FIRST_STRIPE,
    VERIFIED,
)
from latewood.stripes.stripe import table_at

_RECORDS, _INDEX, _BYTES = 8, 8, 3  # how many requests ahead
_LINE = 64
_LINES = ((EVENT_TS, 5), (DELAY, 4), (ORDINAL, 1))  # cache lines of a usual stripe


@kernel
def records(tables: Any, shard: Any, user: Any, i: Any) -> None:
    """Before the search for request i's end: the records where it starts to look."""
    i += _RECORDS
    if i < len(user) and user[i] >= 0:
        table = table_at(tables, shard[i])
        record = user_record(table, uint64(user[i])) + uint64(USER_FIRST_STRIPE)
        first, end = load_u64(record), load_u64(record + uint64(USER_BYTES))
        stripes = table_field(table, STRIPES)
        prefetch(stripes + (end - uint64(1)) * uint64(STRIPE_BYTES))
        prefetch(stripes + ((first + end) >> uint64(1)) * uint64(STRIPE_BYTES))


@kernel
def end_stripe(tables: Any, shard: Any, user: Any, stripes: Any, i: Any) -> None:
    """Before request i is walked: of the stripe it ends in, the index of a later one and the bytes of a nearer one."""
    later, nearer = i + _INDEX, i + _BYTES
    if later < len(user) and stripes[later] > uint64(0):
        table, u, stripe = table_at(tables, shard[later]), uint64(user[later]), stripes[later] - uint64(1)
        prefetch(until_record(table, u, stripe))
        prefetch(stripe_record(table, u, uint64(0)))
        for column in range(uint64(ORDINAL + 1)):
            prefetch(first_entry(table, u, column) + stripe * uint64(8))
            prefetch(table_field(table, VERIFIED) + block_index(table, u, column, stripe))
    if nearer < len(user) and stripes[nearer] > uint64(0):
        table, u, stripe = table_at(tables, shard[nearer]), uint64(user[nearer]), stripes[nearer] - uint64(1)
        for column, lines in _LINES:
            entry = load_u64(first_entry(table, u, uint64(column)) + stripe * uint64(8))
            at = table_field(table, PAYLOAD) + entry_offset(entry)
            for line in range(uint64(lines)):
                prefetch(at + line * uint64(_LINE))
