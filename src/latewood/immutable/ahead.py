"""Asking for memory before it is needed: what the walk will touch for a request a few places further on.

Requests come in any order over a store that no cache holds, so that each would wait for memory again and again: for the
records of its stripes, for the entries of the one it ends in, and for that stripe's bytes, which only the entries name.
Asked for in that order, each some requests earlier than the next, they are there when the walk arrives. Requests that
end in the same stripe, one after the other, ask once. Where something came late, the stripe before is asked for, too.
"""

from typing import Any

from numba import uint64

from latewood.immutable.places import (
    ENTRY,
    ENTRY_STEP,
    IS_NEW,
    PLACE_BYTES,
    STRIPE,
    TABLE,
    UNTIL,
    first_ts_of,
    latest_until_of,
    mark_of,
    placed,
    record_of,
)
from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64, prefetch
from latewood.stripes.entries import entry_offset, table_field, user_record
from latewood.stripes.layout import (
    DELAY,
    EVENT_TS,
    ORDINAL,
    PAYLOAD,
    STRIPE_BYTES,
    STRIPES,
    USER_BYTES,
    USER_FIRST_STRIPE,
)

RECORDS = 8  # requests ahead
_INDEX, BYTES = 8, 3  # likewise
_LINE = 64
_MOST = 640  # bytes of a column: of the rest the processor knows by then


@kernel
def records(table: Any, user: Any) -> None:
    """Before the search for a request's end: the records where it starts to look."""
    record = user_record(table, user) + uint64(USER_FIRST_STRIPE)
    first, end = load_u64(record), load_u64(record + uint64(USER_BYTES))
    stripes = table_field(table, STRIPES)
    prefetch(stripes + (end - uint64(1)) * uint64(STRIPE_BYTES))
    prefetch(stripes + ((first + end) >> uint64(1)) * uint64(STRIPE_BYTES))


@kernel
def ends(places: Any, i: Any, count: Any) -> None:
    """Before request i is walked: of the stripe it ends in, the index of a later one and the bytes of a nearer one."""
    later, nearer = i + uint64(_INDEX), i + uint64(BYTES)
    if later < count:
        place = places + later * uint64(PLACE_BYTES)
        if placed(place, IS_NEW):
            _index(place)
    if nearer < count:
        place = places + nearer * uint64(PLACE_BYTES)
        if placed(place, IS_NEW):
            _stripe(place, placed(place, ENTRY))


@kernel
def stripe_before(places: Any, i: Any, watermark: Any, oldest: Any) -> None:
    """Before request i, `BYTES` further on, is walked: the bytes of the stripe before its end's, if that will be looked at.

    Args: watermark, oldest: of that request, and the time of its oldest event that is to be ranked.
    """
    place = places + i * uint64(PLACE_BYTES)
    stripe = placed(place, STRIPE)
    if stripe == uint64(0):
        return
    before = stripe - uint64(1)
    if latest_until_of(place, before) >= watermark or first_ts_of(place, stripe) > oldest:
        _stripe(place, placed(place, ENTRY) - uint64(8))


@kernel
def _index(place: Any) -> None:
    entry, step = placed(place, ENTRY), placed(place, ENTRY_STEP)
    prefetch(entry)
    prefetch(entry + step * uint64(DELAY))
    prefetch(entry + step * uint64(ORDINAL))
    prefetch(mark_of(place, EVENT_TS))
    prefetch(mark_of(place, ORDINAL))
    prefetch(placed(place, UNTIL))
    if placed(place, STRIPE):
        prefetch(record_of(place, uint64(0)))


@kernel
def _stripe(place: Any, entry: Any) -> None:
    """The bytes of the stripe of the same user whose first entry is at `entry`."""
    step, payload = placed(place, ENTRY_STEP), table_field(placed(place, TABLE), PAYLOAD)
    _column(payload, entry)
    _column(payload, entry + step * uint64(DELAY))
    _column(payload, entry + step * uint64(ORDINAL))


@kernel
def _column(payload: Any, entry: Any) -> None:
    """Stripes lie back to back: each ends where the next begins."""
    start = entry_offset(load_u64(entry))
    size = min(entry_offset(load_u64(entry + uint64(8))) - start, uint64(_MOST))
    at = payload + start
    end = at + size
    while at < end:
        prefetch(at)
        at += uint64(_LINE)
