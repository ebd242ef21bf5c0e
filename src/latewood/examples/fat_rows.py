"""Fat Rows: examples that carry their whole history, as most teams write them today. The baseline to measure against.

One row per request: its features, and `history`, a struct with one list per trait. Parquet, zstd, and for every trait
the best encoding found: delta for times, split bytes for ids and floats, dictionaries for categories. Lists hold no
nulls unless a trait does, because every level that Parquet need not store is one that it need not decode.
"""

import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from latewood.batch import HISTORY, Batch
from latewood.columns import (
    Column,
    Lists,
    TraitColumn,
    compact_lists,
    one_array,
    plain_from_arrow,
    read_table,
    struct_fields,
)
from latewood.errors import CorruptionError, SchemaError
from latewood.examples.files import ExampleFile, reading
from latewood.examples.leaves import leaves
from latewood.examples.source import Leaves
from latewood.lists import is_list, split_lists

ROW_GROUP_SIZE = 1_024  # a multiple of usual batch sizes, so that batches need not be joined of two groups
_ELEMENT = ".list.element"


def write_fat_rows(path: str | os.PathLike[str], batches: Iterable[Any], **options: Any) -> "FatRows":
    """Write materialized histories: batches, or tables as `Batch.to_arrow` gives. Args: options: FatRowWriter's."""
    with FatRowWriter(path, **options) as writer:
        for batch in batches:
            writer.write(batch)
    return FatRows(path)


class FatRowWriter:
    """Writes one Parquet file; it appears when the context ends without an error.

    Args:
        nullable: the traits whose values may be null; by default those that are in the first table written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        row_group_size: int = ROW_GROUP_SIZE,
        compression_level: int = 3,
        nullable: Sequence[str] | None = None,
    ) -> None:
        self.path = Path(path)
        self._unfinished = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        self._row_group_size, self._compression_level, self._nullable = row_group_size, compression_level, nullable
        self._writer: pq.ParquetWriter | None = None
        self._schema = pa.schema([])
        self._buffer: list[pa.Table] = []

    def write(self, rows: Any) -> None:
        """Add rows: a Batch, or a table with a column `history`.

        Raises: SchemaError: no such column, other columns than before, or a null in a trait that has none.
        """
        table = (rows.to_arrow() if isinstance(rows, Batch) else read_table(rows)).replace_schema_metadata(None)
        if self._writer is None:
            self._start(table)
        self._buffer.append(self._strict(table))
        if sum(map(len, self._buffer)) >= self._row_group_size:
            self._flush(self._row_group_size)

    def close(self) -> None:
        """Finish the file and give it its name. Raises: SchemaError: nothing was written, so it has no columns."""
        if self._writer is None:
            raise SchemaError(f"{self.path}: no rows were written")
        self._flush(1)
        self._writer.close()
        self._unfinished.replace(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.close()
            elif self._writer is not None:
                self._writer.close()
        finally:
            with suppress(FileNotFoundError):
                self._unfinished.unlink()

    def _start(self, table: pa.Table) -> None:
        if HISTORY not in table.column_names or not pa.types.is_struct(table.schema.field(HISTORY).type):
            raise SchemaError(f"the rows lack a struct column 'history'; they have: {', '.join(table.column_names)}")
        nullable = self._nullable
        if nullable is None:
            lists = struct_fields(one_array(table[HISTORY]))
            nullable = [name for name, values in lists.items() if values.flatten().null_count]
        i = table.schema.get_field_index(HISTORY)
        self._schema = table.schema.set(i, _strict_field(table.schema.field(i).type, frozenset(nullable)))
        encodings = {path: encoding for path, type_ in leaves(self._schema) if (encoding := _encoding(path, type_))}
        self._writer = pq.ParquetWriter(
            self._unfinished,
            self._schema,
            compression="zstd",
            compression_level=self._compression_level,
            use_dictionary=[
                path for path, type_ in leaves(self._schema) if path not in encodings and not _is_flag(type_)
            ],
            column_encoding=encodings or None,
            write_statistics=False,
        )

    def _strict(self, table: pa.Table) -> pa.Table:
        """The table with the file's schema; `cast` would keep nulls under a field that says there are none."""
        if table.column_names != self._schema.names:
            raise SchemaError(f"the columns of this file are {self._schema.names}; now they are {table.column_names}")
        type_ = self._schema.field(HISTORY).type
        history = one_array(table[HISTORY])
        if [field.name for field in history.type] != [field.name for field in type_]:
            raise SchemaError(f"the traits of this file are {_fields(type_)}; now they are {_fields(history.type)}")
        for field, values in zip(type_, history.flatten(), strict=True):
            if not field.type.value_field.nullable and values.flatten().null_count:
                raise SchemaError(f"trait {field.name!r} has a null after rows without one: name it in nullable=[...]")
        try:
            table = table.set_column(self._schema.names.index(HISTORY), HISTORY, history.cast(type_))
            return table.cast(self._schema)
        except (pa.ArrowInvalid, ValueError) as error:
            raise SchemaError(f"the rows do not fit those before them: {error}") from None

    def _flush(self, least: int) -> None:
        """Write whole row groups while at least so many rows are there."""
        table = pa.concat_tables(self._buffer) if self._buffer else self._schema.empty_table()
        start = 0
        while len(table) - start >= least and self._writer is not None:
            part = table.slice(start, self._row_group_size).combine_chunks()
            self._writer.write_table(part, row_group_size=self._row_group_size)
            start += len(part)
        self._buffer = [table.slice(start)] if start < len(table) else []


def _fields(type_: pa.StructType) -> list[str]:
    return [field.name for field in type_]


def _strict_field(type_: pa.StructType, nullable: frozenset[str]) -> pa.Field:
    fields = []
    for field in type_:
        if not is_list(field.type):
            raise SchemaError(f"'history.{field.name}' is {field.type}; it is a list")
        element = pa.field("element", field.type.value_type, nullable=field.name in nullable)
        fields.append(pa.field(field.name, pa.list_(element), nullable=False))
    return pa.field(HISTORY, pa.struct(fields), nullable=False)


def _encoding(path: str, type_: pa.DataType) -> str | None:
    """None where a dictionary is tried: for categories, and for features, which may be anything."""
    if pa.types.is_timestamp(type_):
        return "DELTA_BINARY_PACKED"
    wide = pa.types.is_integer(type_) and type_.bit_width >= 32
    return "BYTE_STREAM_SPLIT" if path.endswith(_ELEMENT) and (wide or pa.types.is_floating(type_)) else None


def _is_flag(type_: pa.DataType) -> bool:
    return pa.types.is_boolean(type_)


class FatRows:
    """Reads a file of Fat Rows, in the order of its rows.

    Attributes: row_count; size_bytes, of the file; bytes_read, the compressed bytes of the columns read so far.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._source = ExampleFile(str(path), self.path.stat().st_size)
        with self._source.open() as file:
            self.schema = file.schema_arrow.remove_metadata()
            self.row_count = file.metadata.num_rows
        if HISTORY not in self.schema.names:
            raise SchemaError(f"{path} holds no Fat Rows; its columns are: {', '.join(self.schema.names)}")
        self.size_bytes = self._source.size_bytes
        self.bytes_read = 0

    def __len__(self) -> int:
        return self.row_count

    @property
    def traits(self) -> list[str]:
        return _fields(self.schema.field(HISTORY).type)

    def batches(
        self, batch_size: int = 512, traits: Sequence[str] | None = None, features: Sequence[str] | None = None
    ) -> Iterator[Batch]:
        """Read batches as numpy, the last one maybe shorter. Only the columns asked for are read and decoded.

        Args: traits, features: None for all of them. Codes of string traits hold within one batch.
        Raises: SchemaError: an unknown trait or feature. CorruptionError: damaged bytes.
        """
        traits = self.traits if traits is None else list(traits)
        known = [name for name in self.schema.names if name != HISTORY]
        features = known if features is None else list(features)
        self._require(traits, self.traits, "trait")
        self._require(features, known, "feature")
        return self._read(batch_size, traits, features)

    def _require(self, wanted: list[str], known: list[str], what: str) -> None:
        if unknown := [name for name in wanted if name not in known]:
            raise SchemaError(f"{self.path} has no {what} {unknown[0]!r}; it has: {', '.join(known) or 'none'}")

    def _read(self, batch_size: int, traits: list[str], features: list[str]) -> Iterator[Batch]:
        text = [path for path, type_ in leaves(self.schema) if pa.types.is_string(type_) and path.endswith(_ELEMENT)]
        # a row's length is that of any of its lists: without a trait to read, the first one is read for it
        lists = traits or self.traits[:1]
        columns = [*features, *(f"{HISTORY}.{name}" for name in lists)]
        with reading(str(self.path)), self._open(batch_size, text) as file:
            read = Leaves.of(file.metadata, lambda path: any(path == c or path.startswith(f"{c}.") for c in columns))
            group, left = 0, 0  # left: rows of the groups read so far that were not given out yet
            for rows in file.iter_batches(batch_size, columns=read.paths, use_threads=False):
                left -= len(rows)
                while left < 0:
                    self.bytes_read += read.size_bytes(file.metadata, group)
                    left, group = left + file.metadata.row_group(group).num_rows, group + 1
                yield self._batch(rows, traits, features)

    def _open(self, batch_size: int, text: list[str]) -> pq.ParquetFile:
        """The file; its text comes as codes where pyarrow can: not in lists of batches that span row groups."""
        file = pq.ParquetFile(self.path, memory_map=True, read_dictionary=text)
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        if all(rows % batch_size == 0 for rows in groups[:-1]):
            return file
        file.close()
        return pq.ParquetFile(self.path, memory_map=True)

    def _batch(self, rows: pa.RecordBatch, traits: list[str], features: list[str]) -> Batch:
        history = rows.column(HISTORY)
        lists = struct_fields(history)
        offsets: NDArray[np.int64] | None = None
        columns, dictionaries = dict[str, TraitColumn](), dict[str, pa.Array]()
        types = dict[str, pa.DataType]()
        for name, array in lists.items():
            raw = array.offsets.to_numpy()
            own = raw.astype(np.int64) - int(raw[0])
            if offsets is not None and not np.array_equal(own, offsets):
                raise CorruptionError(f"{self.path}: the lists of {name!r} are not as long as the others")
            offsets = own
            if name not in traits:
                continue
            flat = array.values.slice(int(raw[0]), int(own[-1]))
            columns[name], types[name], words = _numbers(flat)
            if words is not None:
                dictionaries[name] = words
        assert offsets is not None
        own_columns = pa.Table.from_batches([rows.select(features)])
        values = {name: _values(columns[name], types[name]) for name in traits}
        masks = {name: mask for name, column in columns.items() if (mask := column.mask) is not None}
        ends = {
            name: column.offsets
            for name, column in columns.items()
            if isinstance(column, Lists) and values[name].ndim == 1
        }
        ones = np.ones(len(rows), np.float32)
        return Batch(offsets, values, masks, dictionaries, ones, own_columns, types, ends)


def _numbers(flat: pa.Array) -> tuple[TraitColumn, pa.DataType, pa.Array | None]:
    """A trait's values as numbers, their type, and what the numbers are codes of."""
    if is_list(flat.type):
        items, lengths, mask = split_lists(flat)
        column, type_, words = _numbers(items)
        assert isinstance(column, Column)
        size = [flat.type.list_size] if pa.types.is_fixed_size_list(flat.type) else []
        return compact_lists(column.values, lengths, mask), pa.list_(type_, *size), words
    if pa.types.is_string(flat.type):
        flat = flat.dictionary_encode()
    if pa.types.is_dictionary(flat.type):
        return plain_from_arrow(flat.indices), flat.type.value_type, flat.dictionary
    return plain_from_arrow(flat), flat.type, None


def _values(column: TraitColumn, type_: pa.DataType) -> NDArray[Any]:
    """As a batch has them: the items of lists, and of lists of one size as rows, of zeros where null."""
    if isinstance(column, Column):
        return column.values
    if not pa.types.is_fixed_size_list(type_):
        return column.items
    rows = np.zeros((column.event_count, type_.list_size), column.dtype)
    rows[column.lengths > 0] = column.items.reshape(-1, type_.list_size)
    return rows
