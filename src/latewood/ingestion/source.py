"""Where events come from: files, a dataset or a table, as batches that know their place."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from latewood.columns import read_table
from latewood.errors import SchemaError
from latewood.files import FileRows, expand, format_of, open_fragments, read_rows, reading, rows_at_once


class Source:
    """Events to load.

    Args:
        events: a path, glob, folder or list of these; a pyarrow dataset; a record batch reader, which is read once and
            need not fit into memory; or a table.
        types: of columns of CSV files, where they are known.
    Raises: SchemaError: no such file, one that cannot be read, or files with different columns.
    """

    schema: pa.Schema

    def __init__(self, events: Any, types: Mapping[str, pa.DataType] | None = None) -> None:
        self._fragments: list[ds.Fragment] = []
        self._batches: Callable[[list[str]], Iterable[pa.RecordBatch]] | None = None
        self._row_count: int | None = None
        self._name = "the table"
        if _is_path(events) or (isinstance(events, list | tuple) and len(events) and all(map(_is_path, events))):
            self._fragments = [part for path in expand(events) for part in open_fragments(str(path), types)]
            self.schema = _same_columns(self._fragments)
        elif isinstance(events, ds.Dataset):
            # what a dataset's own schema says counts: that is the way in for files whose columns differ
            self.schema = events.schema
            self._open_dataset(events)
        elif isinstance(events, pa.RecordBatchReader):
            self.schema, self._name = events.schema, "the reader"
            self._batches = lambda names: (batch.select(names) for batch in events)
        else:
            self._open_table(read_table(events))

    def _open_table(self, table: pa.Table) -> None:
        self.schema, self._row_count = table.schema, len(table)
        at_once = rows_at_once(table.schema)
        self._batches = lambda names: table.select(names).to_batches(max_chunksize=at_once)

    def _open_dataset(self, dataset: ds.Dataset) -> None:
        """File by file where it can be, so that messages name the file; not where it is filtered, or not of files."""
        with suppress(ValueError):
            self._fragments = list(dataset.get_fragments())
        if not all(isinstance(part, ds.FileFragment) for part in self._fragments) or not self._fragments:
            self._fragments, self._name = [], "the dataset"
            at_once = rows_at_once(dataset.schema)
            self._batches = lambda names: dataset.to_batches(columns=names, batch_size=at_once)

    def row_count(self) -> int | None:
        """How many rows there are; None where telling means to read them."""
        if self._batches is not None or any(format_of(part.path) == "csv" for part in self._fragments):
            return self._row_count
        total = 0
        for part in self._fragments:
            with reading(part.path):
                total += part.count_rows()
        return total

    def batches(self, names: list[str]) -> Iterator[FileRows]:
        """The rows, in order, with these columns."""
        row = 0
        with reading(self._name, lambda: row):
            for batch in self._batches(names) if self._batches is not None else ():
                yield FileRows(self._name, row, pa.Table.from_batches([batch]))
                row += batch.num_rows
        columns = pa.schema([self.schema.field(name) for name in names])
        for part in self._fragments:
            yield from read_rows(part, columns)


def _is_path(events: Any) -> bool:
    return isinstance(events, str | Path)


def _same_columns(fragments: list[ds.Fragment]) -> pa.Schema:
    """The columns that all files have, of types that hold what every file holds.

    A column that some files lack is refused: it may be a mistake, and would be null there without a word.
    """
    first = fragments[0]
    schema: pa.Schema = first.physical_schema
    for part in fragments[1:]:
        other = part.physical_schema
        if odd := sorted(set(schema.names) ^ set(other.names)):
            has, lacks = (part, first) if odd[0] in other.names else (first, part)
            raise SchemaError(
                f"{lacks.path} lacks column {odd[0]!r}, which {has.path} has; to load files whose columns differ, pass a "
                "pyarrow.dataset with the schema that you want"
            )
        try:
            schema = pa.unify_schemas([schema, other], promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"{part.path}: its columns do not fit those of {first.path}: {error}") from None
    return schema
