"""The example log: Parquet files by day of request and bucket of users, each sorted by user and then by time.

    day=2024-03-01/bucket=07/00000-<uuid>.parquet

Sorting brings a user's examples together, so that batches in the log's order decode a user's history once. Page
checksums are written, because Parquet without them gives back flipped bits as values. A file appears whole and
durable, or not at all.
"""

import atexit
import os
import threading
import uuid
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.clock import DAY_US
from latewood.columns import first_row, one_array, plain_array, read_table, times_from_arrow
from latewood.errors import SchemaError
from latewood.examples.align import align, plain
from latewood.examples.encode import encode
from latewood.storage import open_storage
from latewood.users import UserKeys, shard_of, user_keys

ROW_GROUP_SIZE = 4096  # a group is the unit that a loader reads and permutes: 8 batches of 512
BUFFER_BYTES = 256 << 20


class ExampleLog:
    """Writes examples; use it as a context manager, or call `flush`.

    What was appended waits in memory until then: a process that is killed loses it. One that ends, or lets go of the log,
    writes it first; an error inside the context drops it.

    Args:
        path: a directory, or any URI that a storage can be opened at.
        bucket_count: files per day. More than one pays once a day of one bucket has many row groups.
        days: days per folder, which is named by the first of them. More than one where a backfill's requests are spread
            thinly over years: thousands of files of a few examples each are slow to write and to open.
        row_group_size: examples per row group.
        buffer_bytes: examples are held in memory until `flush`, or until they take this much.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bucket_count: int = 1,
        row_group_size: int = ROW_GROUP_SIZE,
        buffer_bytes: int = BUFFER_BYTES,
        days: int = 1,
    ) -> None:
        if min(bucket_count, row_group_size, days) < 1:
            given = f"bucket_count={bucket_count}, row_group_size={row_group_size} and days={days}"
            raise SchemaError(f"{given} must be at least 1")
        self.path = path
        self._storage = open_storage(path)
        self._bucket_count, self._row_group_size, self._buffer_bytes = bucket_count, row_group_size, buffer_bytes
        self._days = days
        self._buffer: list[pa.Table] = []
        self._size_bytes = self._flushes = 0
        self._schema: pa.Schema | None = None
        self._lock = threading.RLock()  # a serving process captures, and so appends, from several threads
        self._process = os.getpid()
        atexit.register(_write_rest, weakref.ref(self))

    def __repr__(self) -> str:
        waiting = sum(map(len, self._buffer))
        return f"<ExampleLog {self.path}{f', {waiting:,} examples not written yet' if waiting else ''}>"

    def append(self, examples: Any) -> None:
        """Take examples: a table with `user_id`, `request_ts` and any other columns, the same in every call.

        Only the traits of recent events may change, as they do when the store is altered.

        Raises: SchemaError: a missing column, a null in one of the two, other columns than before, or a type that Parquet
            does not have.
        """
        table = read_table(examples)
        table = align(table, plain(table.schema))
        _keys(table)
        times_from_arrow(_column(table, "request_ts"), "request_ts")
        with self._lock:
            self._check_schema(table.schema)
            if not len(table):
                return
            self._buffer.append(table)
            self._size_bytes += table.nbytes
            if self._size_bytes >= self._buffer_bytes:
                self.flush()

    def flush(self) -> list[str]:
        """Write what was appended. Returns: the keys of the new files.

        Raises: OSError: a file could not be written; then none of these files stays, and the examples are kept.
        """
        with self._lock:
            if not self._buffer:
                return []
            written: list[str] = []
            try:
                for folder, part in _partitions(pa.concat_tables(self._buffer), self._bucket_count, self._days):
                    key = f"{folder}/{self._flushes:05d}-{uuid.uuid4().hex}.parquet"
                    written.append(key)
                    self._storage.write(key, encode(self._groups(part), part.schema))
            except BaseException:
                self._storage.delete(written)
                raise
            self._buffer, self._size_bytes, self._flushes = [], 0, self._flushes + 1
            return written

    def close(self) -> None:
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._drop()

    def __del__(self) -> None:
        if hasattr(self, "_process"):  # it was made
            self._write_own()

    def _write_own(self) -> None:
        """What a fork finds waiting is its parent's."""
        if self._buffer and self._process == os.getpid():
            self.flush()

    def _drop(self) -> None:
        with self._lock:
            self._buffer, self._size_bytes = [], 0

    def _groups(self, part: pa.Table) -> Iterator[pa.Table]:
        return (part.slice(start, self._row_group_size) for start in range(0, len(part), self._row_group_size))

    def _check_schema(self, schema: pa.Schema) -> None:
        if self._schema is not None and schema.equals(self._schema):
            return
        _check_writable(schema)
        if self._schema is None:
            self._schema = schema
            return
        if _without_recent(schema).equals(_without_recent(self._schema)):  # the store was altered: files of their own
            self.flush()
            self._schema = schema
            return
        for name in dict.fromkeys([*self._schema.names, *schema.names]):
            had, has = (s.field(name).type if name in s.names else "absent" for s in (self._schema, schema))
            if had != has:
                raise SchemaError(f"column {name!r} was {had} in earlier examples of this log and is {has} now")
        raise SchemaError(
            f"the columns of this log are {self._schema.names}, in this order; now they are {schema.names}"
        )


def _write_rest(log: "weakref.ref[ExampleLog]") -> None:
    """As the process ends."""
    if (left := log()) is not None:
        left._write_own()


def _check_writable(schema: pa.Schema) -> None:
    """Now, and not in a flush, which would fail from then on. Raises: SchemaError: a type that Parquet does not have."""
    for field in schema:
        try:
            encode([], pa.schema([field]))
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise SchemaError(f"column {field.name!r} of {field.type} cannot be logged: {error}") from None


def _without_recent(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field for field in schema if field.name != "recent"])


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        raise SchemaError(f"the examples lack column {name!r}; they have: {', '.join(table.column_names)}")
    return one_array(table[name])


def _keys(table: pa.Table) -> UserKeys:
    ids = plain_array(_column(table, "user_id"))
    if ids.null_count:
        raise SchemaError(f"column 'user_id' has a null in row {first_row(ids.is_null())}")
    if pa.types.is_integer(ids.type):
        try:
            return user_keys(ids.cast(pa.int64()))
        except pa.ArrowInvalid as error:
            raise SchemaError(f"column 'user_id' does not fit int64: {error}") from None
    if pa.types.is_string(ids.type) or pa.types.is_large_string(ids.type):
        return user_keys(ids.cast(pa.string()))
    raise SchemaError(f"column 'user_id' is {ids.type}; user ids are integers or strings")


def _partitions(table: pa.Table, bucket_count: int, span: int) -> Iterator[tuple[str, pa.Table]]:
    """The examples of each span of days and bucket, sorted by user key and request time, with the folder they go to."""
    keys, times = _keys(table), times_from_arrow(table["request_ts"], "request_ts")
    days: NDArray[np.int64] = times // (span * DAY_US) * span
    buckets = shard_of(keys.hash, bucket_count)
    rows = np.lexsort((times, keys.check, keys.hash, buckets, days))
    table, days, buckets = table.combine_chunks().take(pa.array(rows)), days[rows], buckets[rows]
    bounds = np.flatnonzero((np.diff(days) != 0) | (np.diff(buckets) != 0)) + 1
    for start, stop in zip([0, *bounds.tolist()], [*bounds.tolist(), len(rows)], strict=True):
        day = np.datetime64(int(days[start]), "D")
        yield f"day={day}/bucket={buckets[start]:02d}", table.slice(start, stop - start)
