"""The mutable tier: that its times and places are in order, and that nothing was lost between the tiers."""

from collections.abc import Iterator

import numpy as np

from latewood.clock import show_ts
from latewood.errors import ConflictError
from latewood.events import Events, concat_events, no_events
from latewood.histories import RECENT, distinct_users, places, read_histories
from latewood.mutable import MutableTier, TierState
from latewood.store import Store
from latewood.users import user_keys
from latewood.verification.report import Difference
from latewood.verification.stored import check_values, largest_code

WHERE = "the mutable tier"
_TRIES = 20


def read_recent(tier: MutableTier, store: Store) -> tuple[TierState, Events]:
    """All that the mutable tier still holds, whether generations have it or not.

    Raises: ConflictError: it was evicted meanwhile, again and again.
    """
    for _ in range(_TRIES):
        state = tier.state()
        try:
            runs = list(tier.scan(state.floor, max(state.floor, state.closed)))
        except ConflictError:
            if tier.state().floor == state.floor:
                raise
        else:
            events = concat_events([no_events(store.schema), *runs])
            return state, events.take(events.order())
    raise ConflictError(f"{WHERE} was evicted {_TRIES} times in a row while it was read; try again")


def check_recent(store: Store, state: TierState, events: Events) -> Iterator[Difference]:
    """The tier by itself. Args: events: sorted by user and the total order."""
    for problem in _of_times(state, events, store.refresh().generation.watermark):
        yield Difference("recent", WHERE, problem)
    found = user_keys(events.user_ids)
    if (found.hash != events.keys.hash).any() or (found.check != events.keys.check).any():
        yield Difference("recent", WHERE, "the users' keys are not those of their ids")
    if (twice := _repeated(events)).any():
        place, count = places(events)[int(np.argmax(twice))], int(twice.sum())
        yield Difference("recent", WHERE, f"{count} events have the place of the one before, such as {place}")
    for trait in store.schema:
        if trait.coded:
            yield from check_values(store, trait, largest_code(events, trait))


def _of_times(state: TierState, events: Events, watermark: int) -> Iterator[str]:
    if not state.floor <= state.frontier <= state.closed:
        times = ", ".join(show_ts(ts) for ts in (state.floor, state.frontier, state.closed))
        yield f"floor, frontier and closed are not in this order: {times}"
    if state.floor > watermark:
        floor, reach = show_ts(state.floor), show_ts(watermark)
        yield f"it has let go of what was ingested before {floor}, and the newest generation reaches to {reach}"
    if len(events) and not state.floor <= events.ingest_ts.min() <= events.ingest_ts.max() < state.closed:
        yield "it has an event that was ingested outside its times"


def _repeated(events: Events) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    same = np.zeros(len(events), np.bool_)
    columns = (*events.keys, events.event_ts, events.ingest_ts, events.ordinal)
    same[1:] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return same


def check_moved(store: Store, events: Events, users: int, rng: np.random.Generator) -> Iterator[Difference]:
    """What the tier still holds and the newest generation has cut off is in that generation, or was to go.

    Args: events: the tier's, sorted. users: at most so many are looked at.
    """
    moved = events.take(np.flatnonzero(events.ingest_ts < store.generation.watermark))
    keys, _ = distinct_users(moved.keys)
    chosen = np.sort(rng.permutation(len(keys.hash))[:users])
    keys = keys.take(chosen)
    if not len(chosen):
        return
    histories = read_histories(store, keys)
    generation, gone = histories.reader.generation, store.scrubs.forgotten(moved, 0)
    if generation.expired:  # what retention took need not be there
        return
    for user in range(len(chosen)):
        stored, row = histories.of(user)
        have = set(places(stored.take(np.flatnonzero(row != RECENT))))
        mine = (moved.keys.hash == keys.hash[user]) & (moved.keys.check == keys.check[user]) & ~gone
        lost = [place for place in places(moved.take(np.flatnonzero(mine))) if place not in have]
        if lost:
            name = moved.user_ids[int(np.argmax(mine))].as_py()
            message = (
                f"{len(lost)} events that compaction moved are not in generation {generation.id}, such as {lost[0]}"
            )
            yield Difference("recent", f"user {name!r}", message)
