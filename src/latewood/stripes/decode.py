"""Decode rows of one column out of many shards in one call.

`decode_column` is the Python door; the functions below it are for kernels of other packages (immutable/resolve): they
take the *address* of a table row (`table = address_of(rows) + shard * TABLE_FIELDS * 8`) and uint64 numbers.
Statuses: 0 is fine, anything else a block whose checksum differs (Tables.damage makes the error).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.stripes.runs import Ranges
from latewood.stripes.shard import Tables


def decode_column(
    tables: Tables,
    ranges: Ranges,
    column: int,
    out: NDArray[Any],
    mask: NDArray[np.bool_] | None = None,
    verify: bool = True,
) -> bool:
    """Decode ranges of one column (its index among the shard's columns) into `out`, of the column's dtype.

    `mask` is written in full for every range (True where null); without it nulls are just 0.

    Returns: whether any null was met.
    Raises: CorruptionError: names the shard file, user, column and block. ValueError: a range that is not there.
    """
    raise NotImplementedError


# For kernels (jitted, all numbers uint64 unless said otherwise):
#   user_events(table, user), user_stripes(table, user)        counts
#   first_ts(table, user, stripe) -> int64                      time of the stripe's first event
#   latest_ingest(table, user, stripe) -> int64                 largest ingest_ts in the stripe
#   identity_before(table, user, stripe) -> uint64              sum of identities before it; stripe may equal the count
#   stripe_events(table, user, stripe)                          events in the stripe
#   decode_times(table, user, stripe, out) -> status            int64 event_ts of the whole stripe; `out` is the address
#   decode_delays(table, user, stripe, out) -> status           int64 ingest_ts - event_ts      of room for 256 values
#   decode_ordinals(table, user, stripe, out) -> status         int32
#   find_user(table, hash, check) -> int64                      the user's index or -1
