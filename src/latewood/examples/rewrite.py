"""Rewriting an example log in place: what makes its examples smaller, or forgets what they copied, goes through here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from latewood.examples.encode import encode
from latewood.examples.files import ExampleFile, find_files, reading
from latewood.storage import open_storage


def rewrite_log(place: Any, change: Callable[[pa.Table], pa.Table]) -> list[str]:
    """Change the examples of Parquet files, file by file; each appears anew as a whole, under its name, or stays.

    Broken off, it leaves some files rewritten and others not, and can be called again. Readers that have a file open
    keep the old one. The bytes that are gone from a file are gone from the disk once no reader has it open.

    Args:
        place: a path, glob, directory or URI, or several of these.
        change: gets one row group and returns it as it shall be, with as many rows and of the same columns; the very
            same table where nothing is to change. A file of which nothing changes is left alone.
    Returns: the files that were rewritten.
    Raises: SchemaError: no examples there. CorruptionError: a damaged file. OSError: it could not be written; it is then
        as it was before.
    """
    return [str(file) for file in find_files(place) if _rewrite(file, change)]


def _rewrite(file: ExampleFile, change: Callable[[pa.Table], pa.Table]) -> bool:
    groups, changed = [], False
    with file.open() as parquet:
        for number in range(parquet.metadata.num_row_groups):
            with reading(f"{file}, row group {number},"):
                group = parquet.read_row_group(number, use_threads=False)
            groups.append(change(group))
            changed |= groups[-1] is not group
    if changed:
        _replace(file, encode(groups, groups[0].schema))
    return changed


def _replace(file: ExampleFile, data: pa.Buffer) -> None:
    if file.storage is not None:
        file.storage.write(file.key, data)
    else:
        path = Path(file.key).resolve()  # of a link, the file it means
        open_storage(path.parent).write(path.name, data)
