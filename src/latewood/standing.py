"""Looks at a live store that take several reads, and compare what they read.

What does not fit together need not be wrong: a generation, a scrub or an append may have come between two of the reads. So
a look that fails, or finds something, is taken again if the store moved meanwhile.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError, LatewoodError
from latewood.histories import HistoryStore

_TRIES = 20
T = TypeVar("T")


class Standing(NamedTuple):
    """How far a store has got, in what a look can tell."""

    generation: int
    scrubs: int
    closed: int  # up to the time that the look asks for: what is learned of later changes nothing for it


def standing(store: HistoryStore, until: int = EARLIEST_TS) -> Standing:
    """How far a store has got, for looks at what was learned of before a time. Units: µs since epoch, UTC."""
    generation, scrubs = store.refresh().generation.id, store.scrubs.refresh()
    return Standing(generation, scrubs, until if store.tier is None else min(until, store.tier.state().closed))


def look(
    store: HistoryStore,
    take: Callable[[], T],
    doubtful: Callable[[T], bool] = lambda _: False,
    *,
    until: int = EARLIEST_TS,
) -> T:
    """What a look gives; as of one standing of the store, if it is an error or doubtful.

    Args: take: the look, with no effect but what it returns. doubtful: whether that may be for reads of different times.
        until: what was learned of from then on is nothing to it.
    Raises: ConflictError: the store moved whenever it was looked at.
    """
    for _ in range(_TRIES):
        before = standing(store, until)
        try:
            taken = take()
        except (LatewoodError, FileNotFoundError):
            if standing(store, until) == before:
                raise
        else:
            if not doubtful(taken) or standing(store, until) == before:
                return taken
    raise ConflictError(f"the store changed {_TRIES} times in a row while it was looked at; try again")
