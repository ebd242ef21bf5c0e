"""The vocabulary: which int32 code stands for which string, for good.

Strings and dictionary traits are codes everywhere inside a store. Each such trait has one append-only list of values,
kept as numbered chunks on the storage and written before any event that uses a new code: codes are the same in both
tiers and in all generations, and a read-only trainer needs the storage only.
"""

from latewood.vocabulary.extent import check_extent, extent
from latewood.vocabulary.vocabulary import Vocabulary

__all__ = ["Vocabulary", "check_extent", "extent"]
