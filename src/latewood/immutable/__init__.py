"""The immutable tier: generations, each the whole long history up to its watermark, read-only.

`manifest` says what a generation consists of, `catalog` which there are; the reader opens one and scans it. `changes` says
what the next is to be like, `scrubs` who was to be forgotten, and `pins` which generations runs still need.

`lookup` finds users in the index; `resolve` tells which of their rows requests and pointers mean. Its kernels, in `walk`,
note where bytes lie (`places`), ask for them `ahead`, lay them out on a `desk`, and `rank` recent events among them.
`refusals` says what did not fit.
"""

from latewood.immutable.catalog import Catalog
from latewood.immutable.changes import Alteration, Change, Changes
from latewood.immutable.description import StoreDescription
from latewood.immutable.manifest import Generation, ShardFile
from latewood.immutable.newest import read_newest
from latewood.immutable.pins import Pin, Pins
from latewood.immutable.reader import GenerationReader
from latewood.immutable.scrubs import Scrub, Scrubs

__all__ = [
    "Alteration",
    "Catalog",
    "Change",
    "Changes",
    "Generation",
    "GenerationReader",
    "Pin",
    "Pins",
    "Scrub",
    "Scrubs",
    "ShardFile",
    "StoreDescription",
    "read_newest",
]
