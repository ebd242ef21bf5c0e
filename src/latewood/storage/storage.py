"""What a store asks of the place it lives in: eight verbs on bytes at a key.

Keys are `a/b/c`: segments that are not empty and have no leading dot, so that no key can leave the root or meet a
backend's own files. Every method raises `FileNotFoundError` for a key that is missing, `ValueError` for what is not a
key, and `OSError` for whatever the place itself refuses: a full disk, a lost connection. All may be called from several
threads. What `write`, `create` and `writer` have stored, and `delete` has removed, is durably so when they return.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Buffer

    # What is written: numpy tells type checkers that its arrays are buffers only from Python 3.12 on.
    Data: TypeAlias = Buffer | NDArray[Any]


class StoredObject(NamedTuple):
    """One object as a listing shows it."""

    key: str
    size_bytes: int


class Writer(Protocol):
    """Takes an object's bytes piece by piece."""

    def write(self, buffer: Data, /) -> object: ...


class Storage(Protocol):
    """Bytes at a key."""

    def read(self, key: str) -> bytes:
        """The whole object."""
        ...

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> Sequence[Buffer]:
        """Several ranges of one object, in the order asked for.

        Raises: CorruptionError: the object ends inside a range.
        """
        ...

    def map(self, key: str) -> NDArray[np.uint8]:
        """The whole object, read-only: a mapping of a local file, otherwise a copy in memory.

        What was mapped stays readable after the object is deleted or replaced.
        """
        ...

    def write(self, key: str, data: Data) -> None:
        """Store an object, replacing what was there in one step."""
        ...

    def create(self, key: str, data: Data) -> bool:
        """Put-if-absent: of any number of callers exactly one gets True, and its bytes stay.

        After an `OSError` the object may exist or not: read it to find out. An object store that repeats a request
        whose answer was lost can say False to the one who won; whoever cares compares what is there with what it wrote.
        """
        ...

    def writer(self, key: str) -> AbstractContextManager[Writer]:
        """Store an object of any size piece by piece; it appears when the block ends without error, or not at all."""
        ...

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        """All objects in the folder `prefix` and below it, sorted by key; none if there is no such folder."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects. A key that is missing already is fine."""
        ...
