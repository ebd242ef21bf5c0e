"""Where events come from: files, a dataset or a table, as batches that know their place."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from latewood.columns import read_table
from latewood.errors import SchemaError
from latewood.files import ROWS_AT_ONCE, Rows, expand, format_of, open_fragments, read_rows, reading

THE_TABLE = "the table"


class Source:
    """Events to load.

    Args:
        events: a path, glob, folder or list of these; a pyarrow dataset; or a table.
        types: of columns of CSV files, where they are known.
    Raises: SchemaError: no such file, one that cannot be read, or files with different columns.
    """

    def __init__(self, events: Any, types: Mapping[str, pa.DataType] | None = None) -> None:
        self._table: pa.Table | None = None
        self._fragments: list[ds.Fragment] = []
        if _is_path(events) or (isinstance(events, list | tuple) and len(events) and all(map(_is_path, events))):
            self._fragments = [part for path in expand(events) for part in open_fragments(str(path), types)]
            self.schema = _same_columns(self._fragments)
        elif isinstance(events, ds.Dataset):
            # what a dataset's own schema says counts: that is the way in for files whose columns differ
            self._fragments, self.schema = list(events.get_fragments()), events.schema
        else:
            self._table = read_table(events)
            self.schema = self._table.schema

    def row_count(self) -> int | None:
        """How many rows there are; None where telling means to read them."""
        if self._table is not None:
            return len(self._table)
        if any(format_of(part.path) == "csv" for part in self._fragments):
            return None
        total = 0
        for part in self._fragments:
            with reading(part.path):
                total += part.count_rows()
        return total

    def batches(self, names: list[str]) -> Iterator[Rows]:
        """The rows, in order, with these columns."""
        if self._table is not None:
            row = 0
            for batch in self._table.select(names).to_batches(max_chunksize=ROWS_AT_ONCE):
                yield Rows(THE_TABLE, row, pa.Table.from_batches([batch]))
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
