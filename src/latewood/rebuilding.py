"""Rebuild: the same events, and older ones that came to light, in a new store of a new epoch (docs/protocol.md R7).

A store takes nothing below its frontier, because what was captured or published must not change. Where a feed turns up
that should have been there from the start, the way out is a new store: every event of the old one with both its clocks
and its corrections, and the feeds, sorted together in one bulk load. Its pointers are its own, and those of the old one
are refused there; the old store is left as it is, so that trainings can go on with it until examples are made anew.

Who was scrubbed does not come back with a feed. The new store itself has no memory of them, though: their names are hashed
with the old one's key. Topics from before a scrub are not to be appended to it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.columns import TraitColumn
from latewood.compaction import bulk_load
from latewood.errors import ConflictError, SchemaError, ScrubbedError
from latewood.events import Events
from latewood.histories import Scan, scan_histories
from latewood.immutable import Scrubs
from latewood.ingestion.load import create
from latewood.intake import Intake, read_events
from latewood.schema import Trait
from latewood.store import Store

_SCRUBBED = "someone was scrubbed while the store was rebuilt, and may be in the new one: rebuild again"


def rebuild(
    store: Store,
    path: str | Path,
    feeds: Iterable[Any] = (),
    *,
    shards: int | None = None,
    mutable: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Store:
    """Make a new store of all events of one, and of some feeds.

    Args:
        store: what to take over: its events with their ingest times and corrections, its schema, its retention.
        path, shards, mutable: of the new store, as in `Store.create`; as many shards as before unless given.
        feeds: tables of events with their ingest_ts, however old.
        progress: called with (events written, events in all).
    Returns: the new store, open for writing.
    Raises: SchemaError: a feed that does not fit, or has no ingest_ts. ConflictError: there is a store already, an
        ingest time is ahead of the clock, or someone was scrubbed meanwhile, whom the new store may have. The new store is
        taken away again then, unless someone has begun to use it.
    """

    def build(scan: Scan) -> Store:
        like = store.changes.latest(scan.generation)
        with ExitStack() as undo:
            new = create(path, scan.schema, shards or like.shards, store.clock, mutable, undo, like.retention)
            try:
                bulk_load(new, _everything(store, scan, new, feeds), change=0, progress=progress)
                new.refresh()
            except ScrubbedError as error:  # a value that was read is blanked
                raise ConflictError(_SCRUBBED) from error
            if store.scrubs.refresh() > scan.scrubs:
                raise ConflictError(_SCRUBBED)
            undo.pop_all()
        return new

    return scan_histories(store, build)


def _everything(store: Store, scan: Scan, new: Store, feeds: Iterable[Any]) -> Iterator[Events]:
    for events in scan.events:
        traits = {trait.id: _recoded(store, new, events, trait) for trait in scan.schema if trait.id in events.traits}
        yield replace(events, traits=traits)
    for number, feed in enumerate(feeds):
        forgotten = partial(_forgotten, store.scrubs)
        intake = read_events(feed, new.schema, new.encode, leave_out=forgotten)
        if not intake.explicit or intake.supersedes is not None:
            raise SchemaError(f"feed {number}: a feed brings its ingest_ts, and no corrections")
        yield intake.events.take(np.flatnonzero(~forgotten(intake)))


def _forgotten(scrubs: Scrubs, feed: Intake) -> NDArray[np.bool_]:
    """Which events of a checked feed are of users who were scrubbed since they happened, or were learned of."""
    scrub_ts = scrubs.scrubbed_at(feed.events.keys)
    gone: NDArray[np.bool_] = feed.events.event_ts < scrub_ts
    return gone | (feed.events.ingest_ts <= scrub_ts) if feed.explicit else gone


def _recoded(store: Store, new: Store, events: Events, trait: Trait) -> TraitColumn:
    """A trait's column in the codes of the new store."""
    column = events.traits[trait.id]
    if not trait.coded:
        return column
    return new.vocabulary.encode(trait, store.vocabulary.to_arrow(trait, column))
