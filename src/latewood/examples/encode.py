"""Examples as the bytes of one Parquet file: encodings that suit them, checksums on all of it."""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from latewood.examples.footer import with_checksums
from latewood.examples.leaves import leaves

_DELTA_CODED = "user_id", "request_ts", "uih.length"  # many values, so that a dictionary saves nothing


def encode(groups: Iterable[pa.Table], schema: pa.Schema) -> pa.Buffer:
    """One Parquet file in memory, of one row group per table: files are bounded, and storages write them atomically."""
    paths = Counter(path for path, _ in leaves(schema))  # one's own column may be called as a leaf of a pointer is
    encodings = {
        path: encoding for path, type_ in leaves(schema) if paths[path] == 1 and (encoding := _encoding(path, type_))
    }
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        write_page_checksum=True,
        write_statistics=["user_id", "request_ts"],
        use_dictionary=[path for path, _ in leaves(schema) if path not in encodings],
        column_encoding=encodings or None,
    ) as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(1, len(group)))
    return with_checksums(sink.getvalue())


def _encoding(path: str, type_: pa.DataType) -> str | None:
    """None where a dictionary is tried first: it suits labels, categories and whatever repeats."""
    if pa.types.is_timestamp(type_) or (path in _DELTA_CODED and pa.types.is_integer(type_)):
        return "DELTA_BINARY_PACKED"
    return "PLAIN" if path == "uih.checksum" else None
