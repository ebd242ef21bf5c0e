"""Examples by row, wherever they lie: in memory, or in Parquet files that need not fit there.

Rows are numbered through all files in the order of their names. They come in groups (Parquet's row groups), the unit of
reading: a group is decoded once and kept while there is room, and rows are taken from it. Nested columns make pyarrow
slow row by row; one `take` for many batches and slices of it are fast (measured).
"""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.feather as feather
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from latewood.columns import one_array, read_table
from latewood.errors import ConflictError, SchemaError
from latewood.examples.align import align, plain, unify, without_fields
from latewood.examples.counts import COUNTED, count_events
from latewood.examples.files import ExampleFile, NoExamplesError, find_files, reading
from latewood.lists import offsets_of

CACHE_BYTES = 256 << 20
_GROUP_SIZE = 4096  # of a table in memory
_OPEN_FILES = 64
_NEAR = 4  # rows are near each other if their range is at most so many times their number
_IPC = (".arrow", ".feather", ".ipc")


def open_examples(examples: Any, *, without: Collection[str] = (), cache_bytes: int = CACHE_BYTES) -> "ExampleSource":
    """A view of examples.

    Args:
        examples: a table (anything with the Arrow C stream), a pyarrow dataset, or a path, glob, directory or URI of
            Parquet files, or several of these.
        without: columns, or fields of a struct column as in "recent.price", that will not be needed: they are not read.
        cache_bytes: how much of decoded groups to keep.
    Raises: SchemaError: files whose columns do not fit together; not examples at all; none there, which is a
        FileNotFoundError too. CorruptionError: a file that cannot be read.
    """
    if isinstance(examples, ExampleSource):
        return examples
    if isinstance(examples, ds.Dataset):
        return _open_dataset(examples, without, cache_bytes)
    if isinstance(examples, (dict, pa.Table, pa.RecordBatch)) or hasattr(examples, "__arrow_c_stream__"):
        return TableSource(read_table(examples), without)
    if isinstance(examples, (list, tuple)) and examples and isinstance(examples[0], (pa.Table, pa.RecordBatch)):
        return TableSource(_concat([read_table(part) for part in examples]), without)
    if str(examples).endswith(_IPC):
        if not Path(examples).exists():
            raise NoExamplesError(f"no file of examples at {examples}")
        with reading(str(examples)):
            table = feather.read_table(examples)
            table.validate(full=True)  # such a file has no checksums, and Arrow would follow its offsets anywhere
        return TableSource(table, without)
    files = find_files(examples)
    if not files:
        raise NoExamplesError("no examples: an empty list of places")
    return ParquetSource(files, without, cache_bytes)


def _concat(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of examples that were made at different times, as one."""
    schema = unify([(f"table {i}", table.schema) for i, table in enumerate(tables)])
    return pa.concat_tables([align(table, schema) for table in tables])


def _open_dataset(dataset: ds.Dataset, without: Collection[str], cache_bytes: int) -> "ExampleSource":
    """Plain local Parquet files are read file by file; with partition columns or filters all goes to memory."""
    local = isinstance(dataset, ds.FileSystemDataset) and dataset.filesystem.type_name == "local"
    if local and dataset.files and isinstance(dataset.format, ds.ParquetFileFormat) and not _filtered(dataset):
        source = ParquetSource(find_files(dataset.files), without, cache_bytes)
        if len(source) == dataset.count_rows():
            return source
    return TableSource(dataset.to_table(), without)


def _filtered(dataset: ds.Dataset) -> bool:
    try:
        return any(ds.get_partition_keys(fragment.partition_expression) for fragment in dataset.get_fragments())
    except ValueError:  # pyarrow refuses to list the fragments of a filtered dataset
        return True


class ExampleSource(ABC):
    """n examples in groups. Shapes: `offsets` (groups + 1,): group g holds the rows offsets[g] to offsets[g + 1]."""

    name: str  # what messages call it
    schema: pa.Schema
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.offsets[-1])

    @abstractmethod
    def read(self, group: int) -> pa.Table:
        """One group, of the source's schema."""

    @abstractmethod
    def column(self, name: str) -> pa.Array:
        """One top-level column of all examples. Raises: SchemaError: there is none of this name."""

    @abstractmethod
    def event_counts(self) -> NDArray[np.int64]:
        """How many events each example has, stored and recent, by its pointer and its recents. Shapes: (n,).

        No more of the log is read for it. Raises: SchemaError: there are no pointers, or no recents.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes when the examples do, or their order; stays when files are moved."""

    def require(self, names: Collection[str]) -> None:
        """Raises: SchemaError: a column is missing."""
        if missing := [name for name in names if name not in self.schema.names]:
            have = ", ".join(self.schema.names)
            raise SchemaError(f"{self.name}: the examples lack {', '.join(missing)}; they have: {have}")

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """The examples at these rows, in this order, as one chunk."""
        table, places = self.gather(rows)
        return table if bool((places == np.arange(len(rows))).all()) else table.take(pa.array(places))

    def gather(self, rows: NDArray[np.int64]) -> tuple[pa.Table, NDArray[np.int64]]:
        """The examples at these rows as they lie, as one chunk, and where in it each row asked for is.

        Putting nested columns in another order is dear: whoever reads them first, and then orders what comes of it,
        saves that.
        """
        if not len(rows):
            return self.schema.empty_table(), np.zeros(0, np.int64)
        by_row = _by_row(rows)
        ascending = rows[by_row]
        groups = np.unique(np.searchsorted(self.offsets, ascending, "right") - 1)
        bounds = [*np.searchsorted(ascending, self.offsets[groups]).tolist(), len(rows)]
        parts = [
            _pick(self.read(group), ascending[start:stop] - self.offsets[group])
            for group, start, stop in zip(groups.tolist(), bounds[:-1], bounds[1:], strict=True)
        ]
        places = np.empty(len(rows), np.int64)
        places[by_row] = np.arange(len(rows))
        return (pa.concat_tables(parts) if len(parts) > 1 else parts[0]).combine_chunks(), places


def _by_row(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The stable permutation that sorts rows: by counting, where they are near each other and differ. Shapes: (n,)."""
    first = int(rows.min())
    span = int(rows.max()) + 1 - first
    if span <= _NEAR * len(rows):
        place = np.full(span, -1)
        place[rows - first] = np.arange(len(rows))
        by_row = place[place >= 0]
        if len(by_row) == len(rows):
            return by_row
    return np.argsort(rows, kind="stable")


def _pick(group: pa.Table, rows: NDArray[np.int64]) -> pa.Table:
    """These ascending rows of a group: a slice, where none is left out and none comes twice."""
    first, count = int(rows[0]), len(rows)
    if int(rows[-1]) - first + 1 == count and bool((np.diff(rows) == 1).all()):
        return group.slice(first, count)
    return group.take(pa.array(rows))


class TableSource(ExampleSource):
    """Examples in memory."""

    def __init__(self, table: pa.Table, without: Collection[str] = ()) -> None:
        self.name = "the table of examples"
        self._table = without_fields(align(table, plain(table.schema)), without).combine_chunks()
        self.schema = self._table.schema
        starts = np.arange(0, len(table), _GROUP_SIZE, dtype=np.int64)
        self.offsets = np.append(starts, len(table)).astype(np.int64)

    def read(self, group: int) -> pa.Table:
        return self._table.slice(int(self.offsets[group]), int(self.offsets[group + 1] - self.offsets[group]))

    def column(self, name: str) -> pa.Array:
        self.require([name])
        return one_array(self._table[name])

    def event_counts(self) -> NDArray[np.int64]:
        return count_events(self._table, self.name)

    @cached_property
    def fingerprint(self) -> str:
        digest = xxhash.xxh3_64(f"{len(self)} {self.schema.names}".encode())
        parts = [self.column("request_ts")] if "request_ts" in self.schema.names else []
        if "uih" in self.schema.names and pa.types.is_struct(uih := self.schema.field("uih").type):
            parts += [self.column("uih").field(f.name) for f in uih if f.name in ("end_ts", "length", "checksum")]
        for part in parts:  # enough to tell examples apart, and all of fixed width
            digest.update(np.ascontiguousarray(part.to_numpy(zero_copy_only=False)).tobytes())
        return digest.hexdigest()


class ParquetSource(ExampleSource):
    """Examples in Parquet files. Page checksums are verified where the files have them."""

    def __init__(
        self, files: Sequence[ExampleFile], without: Collection[str] = (), cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.files, self._cache_bytes = tuple(files), cache_bytes
        self.name = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more files"
        self.bytes_read = 0  # compressed bytes of the column chunks that were read
        self._without = frozenset(without)
        self._lock = threading.RLock()  # two iterators of one loader are two threads
        self._open: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._cache: OrderedDict[int, pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._leaves = (-1, Leaves([], []))
        self._read_index()

    def _read_index(self) -> None:
        schemas, self._marks = [], list[str]()
        self._groups: list[list[_Group]] = []  # of each file
        for i, file in enumerate(self.files):
            parquet = self._file(i)
            self._groups.append(_groups(parquet.metadata))
            self._marks += [group.mark or str(file.size_bytes) for group in self._groups[i]]
            schemas.append((str(file), parquet.schema_arrow))
        self._owner = [i for i, groups in enumerate(self._groups) for _ in groups]
        self._inner = [group.number for groups in self._groups for group in groups]
        self.schema = without_fields(unify(schemas).empty_table(), self._without).schema
        self._kept = _paths(self.schema)
        self.offsets = offsets_of(np.array([group.rows for groups in self._groups for group in groups], np.int64))

    def read(self, group: int) -> pa.Table:
        with self._lock:
            if group in self._cache:
                self._cache.move_to_end(group)
                return self._cache[group]
            table = self._read(group)
            self._cache[group] = table
            self._cached_bytes += table.get_total_buffer_size()
            # the newest two stay whatever their size: a window may span them
            while self._cached_bytes > self._cache_bytes and len(self._cache) > 2:
                self._cached_bytes -= self._cache.popitem(last=False)[1].get_total_buffer_size()
            return table

    def _read(self, group: int) -> pa.Table:
        owner, inner = self._owner[group], self._inner[group]
        with reading(f"{self.files[owner]}, row group {inner},"):
            file = self._file(owner)
            columns = self._columns(owner, file)
            self.bytes_read += columns.size_bytes(file.metadata, inner)
            table = file.read_row_group(inner, columns=columns.paths, use_threads=False)
        return align(table, self.schema).combine_chunks()

    def column(self, name: str) -> pa.Array:
        self.require([name])
        parts = []
        with self._lock:
            for i, path in enumerate(self.files):
                with reading(str(path)):
                    file = self._file(i)
                    columns = [name] if name in file.schema_arrow.names else []
                    part = file.read(columns=columns, use_threads=False)
                wanted = pa.schema([self.schema.field(name)])
                parts.append(one_array(align(part, wanted)[name]))
        return pa.concat_arrays(parts) if len(parts) > 1 else parts[0]

    def event_counts(self) -> NDArray[np.int64]:
        counts = np.empty(len(self), np.int64)
        with self._lock:
            for group, (owner, inner) in enumerate(zip(self._owner, self._inner, strict=True)):
                with reading(f"{self.files[owner]}, row group {inner},"):
                    table = self._file(owner).read_row_group(inner, columns=list(COUNTED), use_threads=False)
                counts[self.offsets[group] : self.offsets[group + 1]] = count_events(table, str(self.files[owner]))
        return counts

    @cached_property
    def fingerprint(self) -> str:
        # not of how many bytes there are: whose recent events are dropped or sealed is the same example as before
        digest = xxhash.xxh3_64()
        for file in self.files:
            digest.update(f"{file.key.rpartition('/')[2]}\n".encode())
        digest.update(" ".join(map(str, self._owner)).encode() + self.offsets.tobytes())
        digest.update("\n".join(self._marks).encode())
        return digest.hexdigest()

    def _file(self, i: int) -> pq.ParquetFile:
        if i not in self._open:
            file = self.files[i].open()
            if i < len(self._groups) and not _are_same(self._groups[i], _groups(file.metadata)):
                raise ConflictError(f"{self.files[i]} was replaced by other examples since it was first opened")
            self._open[i] = file
            if len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)[1].close(force=True)
        self._open.move_to_end(i)
        return self._open[i]

    def _columns(self, owner: int, file: pq.ParquetFile) -> "Leaves":
        """The leaves to read of a file; the latest file's are kept, since its groups are read one after another."""
        if self._leaves[0] != owner:
            self._leaves = (owner, Leaves.of(file.metadata, self._keeps))
        return self._leaves[1]

    def _keeps(self, path: str) -> bool:
        """Whether a leaf may be of what is kept. A name may hold dots, so that a leaf may seem to be of two columns."""
        return any(path == kept or path.startswith(f"{kept}.") for kept in self._kept)


def _paths(schema: pa.Schema) -> list[str]:
    """How the paths of a schema's leaves begin: with the name of a column, and of a field if that is a struct."""
    return [
        path
        for field in schema
        for path in (
            [f"{field.name}.{child.name}" for child in field.type] if pa.types.is_struct(field.type) else [field.name]
        )
    ]


class _Group(NamedTuple):
    """A row group of a file that has rows: its number, how many rows, and what the footer says of whose they are."""

    number: int
    rows: int
    mark: str


def _groups(metadata: pq.FileMetaData) -> list[_Group]:
    every = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [_Group(number, group.num_rows, _mark(group)) for number, group in enumerate(every) if group.num_rows]


def _are_same(before: list[_Group], now: list[_Group]) -> bool:
    """Whether row groups may hold the same examples. One that was rewritten has a mark, whether it had one or not."""
    return [group[:2] for group in before] == [group[:2] for group in now] and all(
        old.mark in ("", new.mark) for old, new in zip(before, now, strict=True)
    )


def _mark(group: pq.RowGroupMetaData) -> str:
    """What the footer says of whose requests a row group holds, and of when; empty where it says nothing."""
    bounds = []
    for column in map(group.column, range(group.num_columns)):
        known = column.statistics if column.path_in_schema in ("user_id", "request_ts") else None
        if known is not None and known.has_min_max:
            bounds.append(f"{column.path_in_schema} {known.min!r} {known.max!r}")
    return ", ".join(bounds)


class Leaves(NamedTuple):
    """Leaf columns of a Parquet file: their paths and their places among all."""

    paths: list[str]
    places: list[int]

    @classmethod
    def of(cls, metadata: pq.FileMetaData, wanted: Callable[[str], bool]) -> "Leaves":
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        places = [i for i, path in enumerate(paths) if wanted(path)]
        return cls([paths[i] for i in places], places)

    def size_bytes(self, metadata: pq.FileMetaData, group: int) -> int:
        """Their compressed size in a row group: what reading them takes from the disk."""
        row_group = metadata.row_group(group)
        return sum(row_group.column(i).total_compressed_size for i in self.places)
