"""Bulk load: old data, sorted out of core, straight into a generation.

The events never pass through the mutable tier: they are dropped into buckets by user (`spill`), and each bucket is sorted,
merged with what the newest generation and the mutable tier hold of its users, and written. The tier is told before
(`begin_load`), so that its clock, its frontier and the new generation stay in step: until the load has ended nothing
else is appended, captured or compacted.

The load's token is the uuid of its generation. Whether a load that died had been published is therefore a question to
the catalog: `was_published`.
"""

from collections.abc import Iterable
from uuid import uuid4

import numpy as np

from latewood.clock import Clock
from latewood.compaction.merge import UNPLACED
from latewood.compaction.publish import publish_merged, retire
from latewood.compaction.settings import Meter, Progress, Settings
from latewood.compaction.spill import Spill
from latewood.errors import LatewoodError
from latewood.events import Events
from latewood.immutable import Catalog, Generation
from latewood.mutable import MutableTier
from latewood.storage import Storage

_FIRST = Settings()


def bulk_load(
    storage: Storage,
    catalog: Catalog,
    tier: MutableTier,
    batches: Iterable[Events],
    *,
    clock: Clock,
    settings: Settings = _FIRST,
    progress: Progress | None = None,
) -> Generation:
    """Publish a generation that also holds the events of `batches`, in any order and number.

    Args:
        batches: ingest times as given; ordinals are ignored: they are given here, by arrival among ties.
    Returns: the new generation, or the current one if there are no events.
    Raises: ConflictError: ingest times below the frontier (R7) or too far ahead, another load, or a compaction that was
        first. Nothing has changed then.
    """
    current = catalog.refresh()
    with Spill(current.schema, len(current.shards), settings.held_bytes, settings.spill_directory) as new:
        meter = Meter(progress, "read")
        for events in batches:
            new.add(events.stamped(events.ingest_ts, np.full(len(events), UNPLACED, np.int32)))
            meter.add(len(events))
        if new.min_ingest is None or new.max_ingest is None:
            return current
        token = uuid4().hex
        watermark = tier.begin_load(new.min_ingest, new.max_ingest, token, now=clock.now())
        try:
            previous = catalog.refresh()
            for events in tier.scan(previous.watermark, watermark):
                new.add(events)
            new.finish()
            generation = publish_merged(
                storage, catalog, previous, new, watermark, uuid=token, settings=settings, progress=progress
            )
        except BaseException:
            _end_failed(catalog, tier, token)
            raise
    tier.end_load(token, published=True)
    retire(catalog, tier, previous, settings.keep)
    return generation


def was_published(catalog: Catalog, token: str) -> bool:
    """Whether the bulk load of this token became a generation: asked by a tier that finds a load whose owner died."""
    newest = catalog.refresh()
    return any(catalog.load(number).uuid == token for number in range(newest.id, -1, -1))


def _end_failed(catalog: Catalog, tier: MutableTier, token: str) -> None:
    """End a load after an error. The error may have come after the manifest was put, so the catalog decides.

    Where even the catalog cannot be read, the load stays open until the tier is opened again: nothing else is safe.
    """
    try:
        published = was_published(catalog, token)
    except (LatewoodError, OSError):
        return
    tier.end_load(token, published=published)
