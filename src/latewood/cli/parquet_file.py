"""A Parquet file that a verb writes: whole if the work ends without an error, else not at all; over none unasked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from latewood.errors import ConflictError
from latewood.files import write_parquet

Write = Callable[[pa.Table], None]


def refuse_existing(path: Path | None, overwrite: bool) -> None:
    """To be asked before the work begins. Raises: ConflictError: the file exists and is not to be overwritten."""
    if path is not None and path.exists() and not overwrite:
        raise ConflictError(f"{path} exists; --overwrite replaces it")


@contextmanager
def parquet_file(path: Path | None) -> Iterator[Write]:
    """Gives what writes tables to the file; None: to nowhere."""
    if path is None:
        yield lambda table: None
        return
    with write_parquet(path) as write:
        yield write
