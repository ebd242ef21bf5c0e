"""From a path or URI to a storage, and whether that storage can be trusted to decide races."""

import os

from latewood.storage.storage import Storage


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """The storage at a local path, `file:///path`, `memory://name`, or any URI that obstore knows (`s3://bucket/prefix`).

    Nothing is created until something is written. Raises: StoreNotFoundError: a scheme that nobody knows.
    """
    ...


def probe(storage: Storage) -> None:
    """Check that put-if-absent is honoured: all atomicity of a store rests on it. Raises: OSError: it is not."""
    ...
