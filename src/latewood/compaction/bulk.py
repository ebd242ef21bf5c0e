"""Bulk load: old data, sorted out of core, straight into a generation.

The events never pass through the mutable tier: they are dropped into buckets by user (`spill`), and each bucket is
sorted, merged with what the newest generation and the mutable tier hold of its users, and written. The tier is told
before (`begin_load`), so that its clock, its frontier and the new generation stay in step: until the load has ended
nothing else is appended, captured or compacted.

The load's token is the uuid of its generation. Whether a load that died, or whose put failed, was published is therefore a
question to the catalog; and `settle_load` decides it, since a put that was given up may still come through.
"""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

import numpy as np

from latewood.compaction import attempt
from latewood.compaction.merge import UNPLACED
from latewood.compaction.publish import finish_publishing, make_recipe, publish_written, retire, write_merged
from latewood.compaction.settings import MEMORY_BYTES, Progress, Settings
from latewood.compaction.spill import Spill
from latewood.compaction.store import CompactionStore, tier_of
from latewood.errors import ConflictError, LatewoodError
from latewood.events import Events
from latewood.immutable import Catalog, Generation
from latewood.mutable import MutableTier


def bulk_load(
    store: CompactionStore,
    batches: Iterable[Events],
    *,
    change: int | None = None,
    keep: int = 2,
    workers: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    spill_directory: str | None = None,
    progress: Progress | None = None,
) -> Generation:
    """Publish a generation that also holds the events of `batches`, in any order and number.

    Of users who were scrubbed, what happened before is skipped. As any compaction it does what else is pending.

    Args:
        batches: ingest times as given, and when events were superseded; ordinals are ignored: they are given here, by
            arrival among ties. Values are coded by the store's vocabulary as it is at the call, or later.
        change: the number of the applied change whose schema they were read by: their traits go by its ids, and the codes
            of a trait that was dropped since say nothing any more. None: of the generation that is the newest at the call.
        keep, workers, memory_bytes, spill_directory: see `Settings`.
        progress: called with (events written, events in all), once all batches are read.
    Returns: the new generation, or the current one if there are no events.
    Raises: ConflictError: ingest times below the frontier (R7) or too far ahead, another load, a compaction that was
        first, values that were blanked meanwhile, or a later change than theirs that was applied. Nothing has changed then.
    """
    tier, settings = tier_of(store), Settings(workers, memory_bytes, keep, spill_directory)
    blanked = store.vocabulary.blanked
    current = store.catalog.latest()
    finish_publishing(store, current, keep)
    read_by = current.change if change is None else change
    _check_read_by(read_by, current)  # before reading for long
    target = store.changes.latest(current)
    shards = (len(current.shards), target.shards)
    with Spill(target.schema, shards, settings.added_bytes, spill_directory, settings.threads) as new:
        for events in batches:
            new.add(events.stamped(events.ingest_ts, np.full(len(events), UNPLACED, np.int32)))
        if new.min_ingest is None or new.max_ingest is None:
            return current
        token = attempt.attempt_uuid()
        watermark = tier.begin_load(new.min_ingest, new.max_ingest, token, now=store.clock.now())
        try:
            parent = store.catalog.latest()
            _check_read_by(read_by, parent)
            _check_codes(store, tier, blanked)
            recipe = make_recipe(store, parent, target, parent.id + 1, token, watermark, "load")
            new.add_view(tier.view(parent.watermark, watermark))
            new.finish()
            generation = write_merged(store, recipe, new, settings, progress)
        except BaseException:
            tier.end_load(token, published=False)
            raise
    try:
        publish_written(store, generation)
    except BaseException as error:
        _end_undecided(store.catalog, tier, token, error)
        raise
    tier.end_load(token, published=True)
    with suppress(ConflictError):  # of another load, begun just now: the next compaction does what is left
        retire(store, generation, parent, keep)
    return generation


def settle_load(catalog: Catalog, token: str) -> bool:
    """Whether the bulk load of this token became a generation. If it did not, it never will.

    Its manifest may still be on its way, to a number that is at most one past the newest: none was published before it
    that it was not built on, or has lost to. So that number is taken, by a generation that is as the newest.
    Raises: OSError: the storage failed, and nothing is decided.
    """
    newest = catalog.latest()
    if any(catalog.load(number).uuid == token for number in range(newest.id, -1, -1)):
        return True
    same = replace(newest, id=newest.id + 1, parent=newest.id, uuid=attempt.attempt_uuid(), origin="compaction")
    try:
        catalog.publish(same)
    except ConflictError:
        return catalog.load(same.id).uuid == token
    return False


def _check_read_by(change: int, parent: Generation) -> None:
    """That the schema the events were read by still counts: an append by an older one is refused likewise (R17).

    So the buckets fit, too: they were laid out by a change that is no older. One that was asked for since, and that
    nothing has applied yet, waits for the next compaction.
    """
    if change < parent.change:
        raise ConflictError("the store was altered while the events to load were read; load them again")


def _check_codes(store: CompactionStore, tier: MutableTier, blanked: int) -> None:
    """That no code of the events to load was blanked since they were coded; from here on none can be."""
    if tier.state().blanked != blanked:
        store.vocabulary.refresh_blanked()  # so that they are coded rightly the next time
        raise ConflictError("a scrub blanked values while the events to load were read; load them again")


def _end_undecided(catalog: Catalog, tier: MutableTier, token: str, error: BaseException) -> None:
    """End a load of which the put of the manifest failed. It stays open as long as nothing can be decided."""
    published = None
    if isinstance(error, ConflictError):
        published = False
    else:
        with suppress(LatewoodError, OSError):
            published = settle_load(catalog, token)
    tier.end_load(token, published=published)
