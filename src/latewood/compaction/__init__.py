"""Compaction: the newest generation and what is new → the next generation.

In the order of work:

    pending   whether there is anything to do
    recipe    what the next generation is made of: the cut, corrections, scrubs, the schema and shards to build by
    plan      which stripes of which users stay as bytes (pure)
    merge     the rest and the new events in the total order (pure)
    rows      what is superseded is marked; what is forgotten or expired goes (pure)
    runs      a shard's users, merged run by run, out of the `parent`'s shards and the `spill`'s new events
    write     every shard, each by a thread, in bounded memory, as an `attempt` that may fail
    publish   the cut, the manifest, and letting go of the old: `compact`
    forget    what a scrub asks for after that
    rollback  the same from an older generation: `rollback`
    bulk      old data in any amount, sorted out of core by `spill`: `bulk_load`

`plan`, `merge` and `rows` do no I/O; nothing but `publish`, `rollback` and `bulk` changes what a store is.
"""

from latewood.compaction.attempt import attempt_uuid
from latewood.compaction.bulk import bulk_load, settle_load
from latewood.compaction.publish import compact
from latewood.compaction.rollback import rollback
from latewood.compaction.store import CompactionStore

__all__ = ["CompactionStore", "attempt_uuid", "bulk_load", "compact", "rollback", "settle_load"]
