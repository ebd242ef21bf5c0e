"""A store in memory or in an object store, through obstore.

obstore's own errors become `OSError`, so that callers know one kind of failure of a place, wherever it is. It works in
threads of its own, which a forked process does not have: a call there would wait for ever, and is refused.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import numpy as np
import obstore
from numpy.typing import NDArray
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, PreconditionError
from obstore.store import MemoryStore, ObjectStore

from latewood.storage.buffers import as_bytes, check_range
from latewood.storage.keys import check_key, check_prefix
from latewood.storage.storage import StoredObject, Writer

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from latewood.storage.storage import Data

_NAMED: dict[str, MemoryStore] = {}
_NAMED_LOCK = threading.Lock()
_PART_BYTES = 8 << 20
_WAITS_S = [0.02 * 2**i for i in range(9)]  # ten seconds in all
_process: list[int] = []  # the one that obstore began to work in


class ObstoreStorage:
    """Objects in any store that obstore knows."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    @classmethod
    def in_memory(cls, name: str) -> ObstoreStorage:
        """A store in this process's memory: the same name is the same store, for as long as the process lives."""
        with _NAMED_LOCK:
            return cls(_NAMED.setdefault(name, MemoryStore()))

    def __repr__(self) -> str:
        return f"<ObstoreStorage {self.store}>"

    def read(self, key: str) -> bytes:
        with self._asking(key):
            return obstore.get(self.store, check_key(key)).bytes().to_bytes()

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> Sequence[Buffer]:
        found: list[Buffer] = [b""] * len(lengths)
        with self._asking(key):
            # asked first, because obstore gives a range that runs past the end short without a word, or panics
            size_bytes = obstore.head(self.store, check_key(key))["size"]
            for start, length in zip(starts, lengths, strict=True):
                check_range(key, start, length, size_bytes)
            wanted = [i for i, length in enumerate(lengths) if length]  # it refuses empty ranges
            parts = obstore.get_ranges(
                self.store, key, starts=[starts[i] for i in wanted], lengths=[lengths[i] for i in wanted]
            )
            for i, part in zip(wanted, parts, strict=True):
                found[i] = part
        return found

    def map(self, key: str) -> NDArray[np.uint8]:
        with self._asking(key):
            return np.frombuffer(memoryview(obstore.get(self.store, check_key(key)).bytes()), np.uint8)

    def write(self, key: str, data: Data) -> None:
        with self._asking(key):
            obstore.put(self.store, check_key(key), as_bytes(data), mode="overwrite", use_multipart=False)

    def create(self, key: str, data: Data) -> bool:
        with self._asking(key):
            for wait_s in _WAITS_S:
                try:
                    obstore.put(self.store, check_key(key), as_bytes(data), mode="create", use_multipart=False)
                    return True
                except (AlreadyExistsError, PreconditionError):
                    # S3 says so, too, of a request that met another, of which nothing may come: then nobody has won
                    with suppress(FileNotFoundError):
                        obstore.head(self.store, key)
                        return False
                time.sleep(wait_s)
            raise OSError(f"{key}: another request was under way whenever it was to be created, and none came through")

    @contextmanager
    def writer(self, key: str) -> Iterator[Writer]:
        with self._asking(key):
            writer = obstore.open_writer(self.store, check_key(key), buffer_size=_PART_BYTES)
            try:
                yield _Parts(writer, key)
            except BaseException as error:
                writer.__exit__(type(error), error, error.__traceback__)  # drops the parts sent so far
                raise
            with _no_upload(key):
                writer.close()

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        folder = check_prefix(prefix)
        with self._asking(prefix):
            pages = obstore.list(self.store, prefix=f"{folder}/" if folder else None)
            return sorted(StoredObject(meta["path"], meta["size"]) for page in pages for meta in page)

    def delete(self, keys: Iterable[str]) -> None:
        keys = [check_key(key) for key in keys]
        with self._asking(", ".join(keys[:3])):
            try:
                obstore.delete(self.store, keys)
            except FileNotFoundError:  # some stores stop at a missing key: go on one by one
                for key in keys:
                    with suppress(FileNotFoundError):
                        obstore.delete(self.store, key)

    @contextmanager
    def _asking(self, key: str) -> Iterator[None]:
        if not _process:
            _process.append(os.getpid())
        if _process[0] != os.getpid() and not isinstance(self.store, MemoryStore):  # which needs no threads
            raise OSError(
                f"{key}: this process was forked from one that used an object store, whose threads it does not have: "
                f"start it by spawn"
            )
        with _os_errors(key):
            yield


class _Parts:
    """Hands on pieces in the one form that obstore takes."""

    def __init__(self, writer: obstore.WritableFile, key: str) -> None:
        self._writer, self._key = writer, key

    def write(self, buffer: Data, /) -> None:
        with _no_upload(self._key):
            self._writer.write(
                bytes(as_bytes(buffer))
            )  # a copy: obstore sends it later, the caller may reuse its buffer


@contextmanager
def _no_upload(key: str) -> Iterator[None]:
    """What is not found is the upload, and not the object: one that was completed, and whose answer was lost, is over."""
    try:
        yield
    except FileNotFoundError as error:
        raise OSError(f"{key}: its upload is over, and the object may be there or not: {error}") from error


@contextmanager
def _os_errors(key: str) -> Iterator[None]:
    try:
        yield
    except PermissionDeniedError as error:
        raise PermissionError(f"{key}: {error}") from error
    except BaseError as error:
        raise OSError(f"{key}: {error}") from error
