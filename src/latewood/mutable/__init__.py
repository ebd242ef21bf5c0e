"""Recent events: the protocol of the mutable tier, and its two backends (LMDB, the durable default, and memory)."""

from latewood.mutable.tier import AppendReceipt, Late, MutableTier, Recent, TierState, WasPublished

__all__ = ["AppendReceipt", "Late", "MutableTier", "Recent", "TierState", "WasPublished"]
