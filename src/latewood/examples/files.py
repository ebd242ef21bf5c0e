"""Where examples lie: from paths, globs, directories and URIs to Parquet files that can be opened."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from latewood.errors import CorruptionError, SchemaError
from latewood.examples.checked import CheckedParquet
from latewood.storage import Storage, open_storage

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MAGIC = b"PAR1"


class NoExamplesError(SchemaError, FileNotFoundError):
    """There is no file of examples where they were said to be."""


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """One Parquet file; `storage` is None for a local one, whose key is its path."""

    key: str
    size_bytes: int
    storage: Storage | None = None

    def __str__(self) -> str:
        return self.key if self.storage is None else f"{self.key} of {self.storage}"

    def open(self) -> CheckedParquet:
        """Raises: SchemaError: not Parquet. CorruptionError: a damaged footer."""
        with reading(str(self)):
            file = self._random_access()
            try:
                return CheckedParquet(file, str(self))
            except pa.ArrowInvalid as error:
                if not _MAGIC.startswith(file.read_at(len(_MAGIC), 0)):  # of nothing, or next to it: cut short
                    raise SchemaError(f"{self} is not a Parquet file: {error}") from None
                raise

    def _random_access(self) -> pa.NativeFile:
        if self.storage is None:
            return pa.memory_map(self.key) if self.size_bytes else pa.BufferReader(b"")
        return pa.BufferReader(pa.py_buffer(self.storage.map(self.key)))


@contextmanager
def reading(where: str) -> Iterator[None]:
    """What pyarrow says of damaged bytes, as a CorruptionError that names the place."""
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise CorruptionError(f"{where} cannot be read: {error}") from error
    except OSError as error:
        if error.errno is not None or isinstance(error, FileNotFoundError):
            raise  # the disk's own word: not found, no permission, input/output error
        raise CorruptionError(f"{where} cannot be read: {error}") from error


def find_files(place: Any) -> list[ExampleFile]:
    """The Parquet files at a path, glob, directory or URI, or at several of them, each place's sorted by name.

    Raises: NoExamplesError: nothing is there, as a SchemaError and a FileNotFoundError. SchemaError: not a place.
    """
    if isinstance(place, Sequence) and not isinstance(place, (str, bytes)):
        return [file for part in place for file in find_files(part)]
    if not isinstance(place, (str, os.PathLike)):
        raise SchemaError(f"examples are a table, a dataset, a path, or several paths, not {type(place)}")
    text = os.fspath(place)
    files = _remote_files(text) if _URI.match(text) else _local_files(text)
    if not files:
        raise NoExamplesError(f"no Parquet file of examples at {text}")
    return files


def _remote_files(uri: str) -> list[ExampleFile]:
    if uri.endswith(".parquet"):
        folder, _, name = uri.rpartition("/")
        storage = open_storage(folder)
        return [ExampleFile(name, len(storage.map(name)), storage)]
    storage = open_storage(uri)
    return [ExampleFile(key, size, storage) for key, size in storage.list("") if _visible(key)]


def _local_files(text: str) -> list[ExampleFile]:
    path = Path(text)
    if path.is_dir():
        found = [p for p in path.rglob("*.parquet") if _visible(p.relative_to(path).as_posix())]
    elif path.exists():
        found = [path]
    else:
        matches = sorted(glob.glob(text, recursive=True))
        return [file for match in matches for file in _local_files(match)]
    return [ExampleFile(str(p), p.stat().st_size) for p in sorted(found)]


def _visible(key: str) -> bool:
    """Whether a listed file is data: writers of all kinds hide the unfinished behind a dot or an underscore."""
    return key.endswith(".parquet") and not any(part.startswith((".", "_")) for part in key.split("/"))
