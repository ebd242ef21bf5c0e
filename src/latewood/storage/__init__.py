"""Bytes at a key: the only seam between a store and where it lives.

Local files (durable writes, mmap reads), a named store in memory for tests, and everything else through obstore.
Every object key is formed and parsed in `keys`; JSON documents with a checksum of their own are in `documents`, and those
that a store numbers and only adds to in `records`.
"""

from latewood.storage.open import open_storage, probe
from latewood.storage.storage import Storage, StoredObject, Writer

__all__ = ["Storage", "StoredObject", "Writer", "open_storage", "probe"]
