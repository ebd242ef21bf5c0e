"""How many events an event used as a request sees, without looking back from each (docs/protocol.md R2).

An event is seen if it sorts before the request's end, was ingested before its cutoff, and was not superseded before it.
Nothing is superseded before it was ingested, so the count is a difference: those ingested before the cutoff less those
superseded before it. Either is one question, asked for all requests at once: of the first `end` numbers of a list, how
many are below a limit?
"""

import numpy as np
from numpy.typing import NDArray

from latewood.events import NEVER


def seen_before(
    first: NDArray[np.int64],
    end: NDArray[np.int64],
    cutoff: NDArray[np.int64],
    ingest_ts: NDArray[np.int64],
    superseded_at: NDArray[np.int64] | None,
) -> NDArray[np.int64]:
    """How many of the events [first, end) each of n requests sees.

    Args: ingest_ts, superseded_at: of all events; None: none was superseded.
    Shapes: first, end, cutoff (n,), others (m,) → (n,).
    """
    seen = _known(first, end, cutoff, ingest_ts)
    if superseded_at is None:
        return seen
    rows = np.flatnonzero(superseded_at < NEVER)
    first, end = np.searchsorted(rows, first), np.searchsorted(rows, end)
    return seen - count_below(superseded_at[rows], first, end, cutoff)


def _known(
    first: NDArray[np.int64], end: NDArray[np.int64], cutoff: NDArray[np.int64], ingest_ts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many of [first, end) were ingested before the cutoff: nearly always all, which one maximum tells."""
    seen = end - first
    asking = np.flatnonzero(seen > 0)
    if not len(asking):
        return seen
    bounds = np.stack([first[asking], end[asking]], axis=1).ravel()
    latest = np.maximum.reduceat(np.append(ingest_ts, 0), bounds)[::2]
    late = asking[latest >= cutoff[asking]]
    seen[late] = count_below(ingest_ts, first[late], end[late], cutoff[late])
    return seen


def count_below(
    values: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], limit: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many of values[start:stop] are below a limit, for many ranges at once.

    Values are sorted by one bit of their rank after the other, from the highest: at every bit, those in the range whose
    bit is 0 where the limit's is 1 are below it, and the rest of the range goes on with its half. (A wavelet matrix.)

    Shapes: values (m,), others (n,) → (n,). Cost: (m + n) log m.
    """
    ranks = np.empty(len(values), np.int64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values))
    limit = np.searchsorted(np.sort(values), limit)
    count, start, stop = np.zeros(len(limit), np.int64), start.copy(), stop.copy()
    for bit in reversed(range(len(values).bit_length())):
        ones = (ranks >> bit) & 1
        zeros_before = np.concatenate([[0], np.cumsum(1 - ones)])
        low, high = zeros_before[start], zeros_before[stop]
        goes_on = (limit >> bit) & 1 == 1
        count[goes_on] += (high - low)[goes_on]
        zeros = zeros_before[-1]
        start = np.where(goes_on, zeros + start - low, low)
        stop = np.where(goes_on, zeros + stop - high, high)
        ranks = np.concatenate([ranks[ones == 0], ranks[ones == 1]])
    return count
