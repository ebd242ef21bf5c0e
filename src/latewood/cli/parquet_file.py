"""A Parquet file that a verb writes: whole if the work ends without an error, else not at all; over none unasked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from latewood.errors import ConflictError

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
    part = path.with_name(f".{path.name}.part")
    writer: pq.ParquetWriter | None = None

    def write(table: pa.Table) -> None:
        nonlocal writer
        writer = writer or pq.ParquetWriter(part, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table)

    try:
        yield write
        if writer is not None:
            writer.close()
            part.replace(path)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
