"""Rewriting an example log in place: what makes its examples smaller, or forgets what they copied, goes through here.

Of two who rewrite a file at once, the later would bring back what the earlier took. So a file is replaced only if it is the
one that was read, and is changed anew otherwise. On a disk, comparing and replacing are one step, under the file's lock; on
an object store they follow each other at once.
"""

import fcntl
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from latewood.examples.encode import encode
from latewood.examples.files import ExampleFile, find_files, reading
from latewood.storage import open_storage

T = TypeVar("T")


def rewrite_log(place: Any, change: Callable[[pa.Table], tuple[pa.Table, T]]) -> tuple[list[str], list[T]]:
    """Change the examples of Parquet files, file by file; each appears anew as a whole, under its name, or stays.

    Broken off, it leaves some files rewritten and others not, and can be called again. Readers that have a file open
    keep the old one. The bytes that are gone from a file are gone from the disk once no reader has it open.

    Args:
        place: a path, glob, directory or URI, or several of these.
        change: gets one row group and returns it as it shall be, with as many rows and of the same columns; the very
            same table where nothing is to change. A file of which nothing changes is left alone. And what it has to
            tell of the group. It gets the groups of a file again if another replaced that meanwhile.
    Returns: the files that were rewritten, and what was told of every group.
    Raises: SchemaError: no examples there. CorruptionError: a damaged file. OSError: it could not be written; it is then
        as it was before.
    """
    files, told = [], list[T]()
    for file in find_files(place):
        is_changed, of_file = _rewrite(file, change)
        files += [str(file)] * is_changed
        told += of_file
    return files, told


def _rewrite(file: ExampleFile, change: Callable[[pa.Table], tuple[pa.Table, T]]) -> tuple[bool, list[T]]:
    while True:
        before = _contents(file)
        data, told = _changed(file, change)
        if data is None:
            return False, told
        if _replace(file, before, data):
            return True, told


def _contents(file: ExampleFile) -> Any:
    """What tells whether a file was replaced: of a local one, more than a name given anew, or a write in place, keeps."""
    if file.storage is not None:
        return file.storage.map(file.key)
    found = Path(file.key).stat()
    return np.array([found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns])


def _replace(file: ExampleFile, before: Any, data: pa.Buffer) -> bool:
    """Write a file anew, unless it is another than before."""
    if file.storage is not None:
        is_same = np.array_equal(_contents(file), before)
        if is_same:
            file.storage.write(file.key, data)
        return is_same
    path = Path(file.key).resolve()  # of a link, the file it means
    with FileIO(path, "r+" if os.access(path, os.W_OK) else "r") as held:  # NFS locks only what can be written
        fcntl.flock(held, fcntl.LOCK_EX)
        is_same = np.array_equal(_contents(file), before)
        if is_same:
            open_storage(path.parent).write(path.name, data)
        return is_same


def _changed(file: ExampleFile, change: Callable[[pa.Table], tuple[pa.Table, T]]) -> tuple[pa.Buffer | None, list[T]]:
    """A file as it shall be, None if it is so; and what was told of its groups."""
    groups, told, is_changed = [], list[T](), False
    with file.open() as parquet:
        for number in range(parquet.metadata.num_row_groups):
            with reading(f"{file}, row group {number},"):
                group = parquet.read_row_group(number, use_threads=False)
            changed, of_group = change(group)
            is_changed |= changed is not group
            groups.append(changed)
            told.append(of_group)
    return (encode(groups, groups[0].schema) if is_changed else None), told
