"""From a path or URI to a storage, and whether that storage can be trusted to decide races."""

import errno
import os
import re
import uuid
from urllib.parse import unquote, urlsplit

from latewood.errors import StoreNotFoundError
from latewood.storage import keys
from latewood.storage.local import LocalStorage
from latewood.storage.storage import Storage

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def open_storage(location: str | os.PathLike[str]) -> Storage:
    """The storage at a local path, `file:///path`, `memory://name`, or any URI that obstore knows
    (`s3://bucket/prefix`).

    Nothing is created until something is written. Raises: StoreNotFoundError: a scheme that nobody knows.
    """
    location = os.fspath(location)
    if not _SCHEME.match(location):
        return LocalStorage(location)
    parts = urlsplit(location)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise StoreNotFoundError(f"{location}: a file URI names no host; write file:///path")
        return LocalStorage(unquote(parts.path))
    # imported here: a local store never needs it
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    from latewood.storage.remote import ObstoreStorage

    if parts.scheme == "memory":
        return ObstoreStorage.in_memory(location.removeprefix("memory://"))
    try:
        return ObstoreStorage(from_url(location))
    except (BaseError, ValueError) as error:
        raise StoreNotFoundError(f"{location}: not a place that can hold a store: {error}") from None


def probe(storage: Storage) -> None:
    """Check that put-if-absent is honoured: all atomicity of a store rests on it. Raises: OSError: it is not."""
    key = keys.probe(uuid.uuid4().hex)
    try:
        storage.create(key, b"first")  # what is there tells more than the answer, which an object store may have lost
        if storage.create(key, b"second") or storage.read(key) != b"first":
            raise OSError(
                errno.ENOTSUP,
                f"{storage}: put-if-absent is not honoured, so two compactions could overwrite each other",
            )
    finally:
        storage.delete([key])
