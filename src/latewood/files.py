"""Files of tables, batch by batch: what ingest and the command line read events and requests from."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.csv as csv

from latewood.errors import SchemaError
from latewood.lists import is_list

if TYPE_CHECKING:
    # Imported where it is used: where pandas is installed it brings pandas, which takes longer than all the rest.
    import pyarrow.dataset as ds

FORMATS = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}
PACKED = (".gz", ".bz2", ".zst")  # around a CSV file
ROWS_AT_ONCE = 1 << 18
ITEMS_AT_ONCE = 1 << 24  # of the lists of all columns together
_ITEMS = 512  # of a list of any length, since nobody knows: embeddings are often written so


class FileRows(NamedTuple):
    """Some rows of a file."""

    path: str
    first: int  # the place of the first of them in the file
    table: pa.Table


def format_of(path: str | Path) -> str | None:
    """What a file's name says that it is: parquet, csv, ipc, or None."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if len(suffixes) > 1 and suffixes[-1] in PACKED:
        return "csv" if suffixes[-2] == ".csv" else None
    return FORMATS.get(suffixes[-1]) if suffixes else None


def expand(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """Paths, folders and globs as files, sorted within each, none twice. Raises: SchemaError: one names nothing."""
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    files: list[str] = []
    for item in map(str, given):
        if Path(item).is_dir():
            found = sorted(str(path) for path in Path(item).rglob("*") if format_of(path) and _visible(path, item))
            if not found:
                raise SchemaError(f"{item}: no file in this folder ends in {', '.join(FORMATS)}")
        else:
            found = [item] if Path(item).exists() else sorted(glob(item, recursive=True))
        if not found:
            raise SchemaError(f"{item}: no such file")
        files += found
    return list(dict.fromkeys(files))


def open_fragments(path: str, types: Mapping[str, pa.DataType] | None = None) -> "list[ds.Fragment]":
    """A file as dataset fragments.

    Args: types: of columns of CSV files, which name none; the rest is guessed from the file's beginning.
    Raises: SchemaError: unknown or unreadable format, named by path.
    """
    import pyarrow.dataset as ds

    kind = format_of(path)
    if kind is None:
        raise SchemaError(f"{path}: cannot tell the format; known are {', '.join(FORMATS)}")
    with reading(path):
        fragments = list(ds.dataset(path, format=_format(kind, types)).get_fragments())
        for fragment in fragments:
            _ = fragment.physical_schema  # reads the beginning: now is the time to find out
        return fragments


def rows_at_once(columns: pa.Schema) -> int:
    """How many rows are read at a time: fewer where they have lists."""
    types = [field.type for field in columns if is_list(field.type)]
    items = sum(type_.list_size if pa.types.is_fixed_size_list(type_) else _ITEMS for type_ in types)
    return max(1, min(ROWS_AT_ONCE, ITEMS_AT_ONCE // items)) if items else ROWS_AT_ONCE


def read_rows(fragment: "ds.Fragment", columns: pa.Schema | None = None) -> Iterator[FileRows]:
    """A fragment's rows, in order. Args: columns: those wanted, and as what. Raises: SchemaError: names the file."""
    first = 0
    wanted = {} if columns is None else {"schema": columns, "columns": columns.names}
    at_once = rows_at_once(fragment.physical_schema if columns is None else columns)
    with reading(fragment.path, lambda: first):
        for batch in fragment.to_batches(batch_size=at_once, **wanted):
            if batch.num_rows:
                yield FileRows(fragment.path, first, pa.Table.from_batches([batch]))
                first += batch.num_rows


def read_files(paths: str | Path | Sequence[str | Path]) -> Iterator[FileRows]:
    """The rows of files, in order, some at a time. Raises: SchemaError: names the file."""
    for path in expand(paths):
        for fragment in open_fragments(path):
            yield from read_rows(fragment)


@contextmanager
def write_parquet(path: Path, schema: pa.Schema | None = None) -> Iterator[Callable[[pa.Table], None]]:
    """Gives what writes tables to a Parquet file, which is there if the work ends without an error, else not at all.

    Args: schema: of the tables; without it, that of the first, and no file where there is none.
    """
    import pyarrow.parquet as pq

    part = path.with_name(f".{path.name}.part")
    writer: pq.ParquetWriter | None = None

    def write(table: pa.Table) -> None:
        nonlocal writer
        writer = writer or pq.ParquetWriter(part, table.schema, compression="zstd", write_page_checksum=True)
        writer.write_table(table)

    try:
        if schema is not None:
            write(schema.empty_table())
        yield write
        if writer is not None:
            writer.close()
            part.replace(path)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)


@contextmanager
def reading(path: str, rows_read: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """What pyarrow says of a file that it cannot read, with the file's name; what the disk says stays an OSError."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and (error.errno is not None or isinstance(error, FileNotFoundError)):
            raise
        reason = " ".join(str(error).split())
        after = f" after row {rows_read():,}" if rows_read() and "Row #" not in reason else ""
        raise SchemaError(f"{path}: cannot be read{after}: {reason}") from error


def _format(kind: str, types: Mapping[str, pa.DataType] | None) -> "ds.FileFormat | str":
    import pyarrow.dataset as ds

    if kind == "parquet":
        # Parquet checks nothing by default, and gives back flipped bits as values even where a file has checksums
        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        return ds.ParquetFileFormat(default_fragment_scan_options=options)
    if kind == "csv":
        convert = csv.ConvertOptions(column_types=dict(types or {}))
        return ds.CsvFileFormat(default_fragment_scan_options=ds.CsvFragmentScanOptions(convert_options=convert))
    return kind


def _visible(path: Path, folder: str) -> bool:
    """Whether a file is data: writers of all kinds hide the unfinished behind a dot or an underscore."""
    return path.is_file() and not any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)
