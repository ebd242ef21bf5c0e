"""Recent events: the protocol of the mutable tier, and its two backends (LMDB, the durable default, and memory)."""

from latewood.mutable.identify import hash_content, hash_ids
from latewood.mutable.lmdb import LmdbTier
from latewood.mutable.logged import Settings
from latewood.mutable.memory import InMemoryTier
from latewood.mutable.tier import AppendReceipt, Late, MutableTier, Recent, TierState, WasPublished

__all__ = [
    "AppendReceipt",
    "InMemoryTier",
    "Late",
    "LmdbTier",
    "MutableTier",
    "Recent",
    "Settings",
    "TierState",
    "WasPublished",
    "hash_content",
    "hash_ids",
]
