"""The immutable tier: generations, each the whole long history up to its watermark, read-only.

`manifest` says what a generation consists of, `catalog` which there are; the reader opens one and scans it.
"""

from latewood.immutable.catalog import Catalog
from latewood.immutable.manifest import Generation, ShardFile
from latewood.immutable.reader import GenerationReader

__all__ = ["Catalog", "Generation", "GenerationReader", "ShardFile"]
