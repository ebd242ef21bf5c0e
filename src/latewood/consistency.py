"""Consistent reads of a live store, by tools that read several times and compare what they read.

What does not fit together need not be wrong: a generation, a scrub or an append may have come between two of the reads. No
lock keeps these off. So what fails, or is doubtful, is read again if the store moved meanwhile, as a reader of a sequence
lock does.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError, LatewoodError
from latewood.histories import HistoryStore

_TRIES = 20
T = TypeVar("T")


class StoreState(NamedTuple):
    """How far a store has got, in what such a read can tell."""

    generation: int
    scrubs: int
    closed: int  # up to the time that the read asks for: what is learned of later changes nothing for it


def state_of(store: HistoryStore, until: int = EARLIEST_TS) -> StoreState:
    """How far a store has got, for reads of what was learned of before a time. Units: µs since epoch, UTC."""
    generation, scrubs = store.refresh().generation.id, store.scrubs.refresh()
    return StoreState(generation, scrubs, until if store.tier is None else min(until, store.tier.state().closed))


def read_consistently(
    store: HistoryStore,
    read: Callable[[], T],
    doubtful: Callable[[T], bool] = lambda _: False,
    *,
    until: int = EARLIEST_TS,
) -> T:
    """What `read` gives; as of one state of the store, if it is an error or doubtful.

    Args: read: has no effect but what it returns. doubtful: whether that may be for reads of different times. until: what
        was learned of from then on is nothing to it.
    Raises: what `read` raises. ConflictError: the store moved whenever it was read.
    """
    for _ in range(_TRIES):
        before = state_of(store, until)
        try:
            found = read()
        except (LatewoodError, FileNotFoundError):
            if state_of(store, until) == before:
                raise
        else:
            if not doubtful(found) or state_of(store, until) == before:
                return found
    raise ConflictError(f"the store changed {_TRIES} times in a row while it was looked at; try again")
