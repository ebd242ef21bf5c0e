"""Fetch: the bytes that a plan will decode, brought to where kernels can read them.

Shards of a local store are mapped, so there is nothing to bring: the system's page cache is the buffer. This is the
seam for stores on object storage, where a plan's stripes become a few coalesced ranged gets. How many bytes of stripes
a plan touches, the *lookup bytes* by which late materialization is paid for, is counted while they are decoded.
"""

from latewood.immutable import GenerationReader
from latewood.stripes.shard import Tables


def fetch(reader: GenerationReader) -> Tables:
    """The address tables under which all that was planned can be read."""
    return reader.tables
