"""Files of tables, batch by batch: what the command line reads events and requests from."""

from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from latewood.errors import SchemaError

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}
ROWS_AT_ONCE = 1 << 18


def expand(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """Paths, folders and globs as files, sorted within each. Raises: SchemaError: one names nothing."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files: list[str] = []
    for item in map(str, given):
        if Path(item).is_dir():
            found = sorted(str(path) for path in Path(item).rglob("*") if path.suffix.lower() in FORMATS)
        else:
            found = sorted(glob(item, recursive=True)) if any(mark in item for mark in "*?[") else [item]
        if not found or not all(Path(path).exists() for path in found):
            raise SchemaError(f"{item}: no such file")
        files += found
    return files


def open_fragment(path: str) -> list[ds.Fragment]:
    """A file as dataset fragments. Raises: SchemaError: unknown or unreadable format, named by path."""
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise SchemaError(f"{path}: cannot tell the format; known are {', '.join(FORMATS)}")
    try:
        return list(ds.dataset(path, format=kind).get_fragments())
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaError(f"{path}: not readable as {kind}: {error}") from error


def read_tables(paths: str | Path | Sequence[str | Path]) -> Iterator[pa.Table]:
    """The rows of files, in order, in tables of bounded size. Raises: SchemaError: names the file."""
    for path in expand(paths):
        for fragment in open_fragment(path):
            try:
                for batch in fragment.to_batches(batch_size=ROWS_AT_ONCE):
                    if batch.num_rows:
                        yield pa.Table.from_batches([batch])
            except (pa.ArrowInvalid, OSError) as error:
                raise SchemaError(f"{path}: {error}") from error
