"""Compaction: the newest generation and what is new → the next generation.

In the order of work:

    plan     which stripes of which users stay as bytes (pure)
    merge    the rest and the new events in the total order (pure)
    write    every shard, each by a thread, in bounded memory
    publish  the cut, the manifest, and letting go of the old: `compact`
    bulk     old data in any amount, sorted out of core by `spill`: `bulk_load`

`plan` and `merge` do no I/O; nothing but `publish` and `bulk` changes what a store is.
"""

from latewood.compaction.bulk import bulk_load, was_published
from latewood.compaction.publish import compact
from latewood.compaction.store import CompactionStore

__all__ = ["CompactionStore", "bulk_load", "compact", "was_published"]
