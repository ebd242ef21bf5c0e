"""The identity of an event: 64 bits of (user, event_ts, ingest_ts, ordinal), summed as checksums (docs/protocol.md R18).

A pointer carries the sum of the identities of its events mod 2**64; stripes carry running sums, so that the sum of any
range costs two lookups and the ends. It finds accidents, not adversaries. The function is part of the format: it never
changes.
"""

from typing import Any

import numpy as np
from numba import int64, uint64
from numpy.typing import NDArray

from latewood.kernels import kernel
from latewood.users import UserKeys

_CHECK, _EVENT = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9
_ONE, _INGEST = 0x94D049BB133111EB, 0xD6E8FEB86659FD93
_TWO, _ORDINAL = 0xA0761D6478BD642F, 0xE7037ED1A0B428DB
_LAST = 0x8EBC6AF09C88C6E3


@kernel
def identity(user_hash: Any, check: Any, event_ts: Any, ingest_ts: Any, ordinal: Any) -> Any:
    """One event's identity, for kernels. Any integer types; returns uint64."""
    h = uint64(user_hash) ^ (uint64(check) * uint64(_CHECK))
    h += uint64(int64(event_ts)) * uint64(_EVENT)
    h ^= h >> uint64(32)
    h = h * uint64(_ONE) + uint64(int64(ingest_ts)) * uint64(_INGEST)
    h ^= h >> uint64(29)
    h = h * uint64(_TWO) + uint64(int64(ordinal)) * uint64(_ORDINAL)
    h ^= h >> uint64(32)
    h *= uint64(_LAST)
    return h ^ (h >> uint64(29))


def identities(
    keys: UserKeys, event_ts: NDArray[np.int64], ingest_ts: NDArray[np.int64], ordinal: NDArray[Any]
) -> NDArray[np.uint64]:
    """The identities of n events. Shapes: all (n,)."""
    event, ingest, place = (np.asarray(part, np.int64).view(np.uint64) for part in (event_ts, ingest_ts, ordinal))
    h = keys.hash ^ (keys.check * np.uint64(_CHECK))
    h = h + event * np.uint64(_EVENT)
    h ^= h >> np.uint64(32)
    h = h * np.uint64(_ONE) + ingest * np.uint64(_INGEST)
    h ^= h >> np.uint64(29)
    h = h * np.uint64(_TWO) + place * np.uint64(_ORDINAL)
    h ^= h >> np.uint64(32)
    h = h * np.uint64(_LAST)
    return h ^ (h >> np.uint64(29))
