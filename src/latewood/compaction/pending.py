"""Pending: whether there is anything to do for a compaction. Writes nothing."""

import numpy as np

from latewood.compaction.parent import open_shard
from latewood.compaction.recipe import applied_by
from latewood.compaction.store import CompactionStore, tier_of
from latewood.immutable import Generation
from latewood.mutable import MutableTier


def anything_to_do(store: CompactionStore, parent: Generation, watermark: int | None) -> bool:
    """Whether a generation with this cut, or with the closed time as its cut, would be another than `parent`."""
    tier = tier_of(store)
    end = tier.state().closed if watermark is None else watermark
    new = _anything_new(tier, parent, end)  # first: the tier sees to it that a scrub that was begun is recorded
    store.scrubs.refresh()
    return (
        new
        or store.changes.latest(parent).number > parent.change
        or applied_by(store.scrubs, end) > parent.scrubs
        or _anything_expires(store, parent, end)
    )


def _anything_new(tier: MutableTier, parent: Generation, end: int) -> bool:
    """New suppressions of old events, or new events."""
    if len(tier.suppressions(parent.watermark, end)):
        return True
    if tier.state().latest_ingest < parent.watermark:
        return False
    return any(len(events) for events in tier.scan(parent.watermark, end))


def _anything_expires(store: CompactionStore, parent: Generation, end: int) -> bool:
    """Whether time alone has made events too old: the index tells each user's oldest."""
    horizon = None if parent.retention is None else parent.retention.horizon(end)
    if horizon is None or end <= parent.watermark:
        return False
    for number in range(len(parent.shards)):
        old = open_shard(store.storage, parent, number)
        if old is not None and bool(np.any(old.shard.first_ts[old.shard.first_stripe[:-1]] < horizon)):
            return True
    return False
