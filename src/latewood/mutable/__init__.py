"""Recent events: the protocol of the mutable tier, and its two backends (LMDB, the durable default, and memory).

tier           what is promised              log             the seam below: batches and a state, committed together
logged_tier    the rules, over any log       segmented_log   a log in a directory, one segment_file after another
lmdb_tier      ... over a segmented log      memory_tier     ... over a log without files
admission      an append, row by row         supersedes      which rows are newer versions of others ▸ targets: which
identify       ids and contents as hashes    superseded_once ... and that they are the only ones
id_hash        ... of ids, by a kernel       event_ids       ids that outlive their events
replica        the log's copy for reading    arena           ... its columns: growable; chains, id_table, suppression_table
event_batch    what the log holds, as bytes  view            ... as a read leaves with them
packing        ... column by column          book            the scrubs, which lie elsewhere
rules          of time, as functions
"""

from latewood.mutable.identify import hash_content, hash_ids
from latewood.mutable.lmdb_tier import LmdbTier
from latewood.mutable.logged_tier import Settings
from latewood.mutable.memory_tier import InMemoryTier
from latewood.mutable.segmented_log import delete_log
from latewood.mutable.supersedes import GONE, SEVERAL, Newer, Places, StoredTargets, Supersedes
from latewood.mutable.tier import (
    AppendReceipt,
    Late,
    MutableTier,
    Recent,
    StaleCodesError,
    StaleSchemaError,
    TierState,
    UnseenTargetsError,
    WasPublished,
)
from latewood.mutable.view import EventsView, View, WantedTrait, no_view

__all__ = [
    "GONE",
    "SEVERAL",
    "AppendReceipt",
    "EventsView",
    "InMemoryTier",
    "Late",
    "LmdbTier",
    "MutableTier",
    "Newer",
    "Places",
    "Recent",
    "Settings",
    "StaleCodesError",
    "StaleSchemaError",
    "StoredTargets",
    "Supersedes",
    "TierState",
    "UnseenTargetsError",
    "View",
    "WantedTrait",
    "WasPublished",
    "delete_log",
    "hash_content",
    "hash_ids",
    "no_view",
]
