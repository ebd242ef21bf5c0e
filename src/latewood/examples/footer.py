"""Checksums for what the Parquet format leaves unguarded: the footer, and the headers of pages.

Page checksums cover what lies between a page's header and the next. A flipped bit in the footer can move a column
elsewhere unnoticed, or abort the process inside the reader; in a page's header it can name another encoding, which reads
other values from the same bytes. So the log's files carry, in a gap before the footer that every Parquet reader skips, a
hash of every column chunk as a whole, and a word that tells of them:

    pages | xxh3_64 of each chunk, 8 bytes each | their number, 8 bytes | "LWCHUNKS" | xxh3_64 of those hashes, their
    number and all that follows, 8 bytes | footer | its length, 4 bytes | "PAR1"

Chunks are in the order of the footer: row group by row group, in each column by column. Earlier files have the word
"LWFOOTER", with a hash of what follows it and none of chunks. Files of other writers have no such word, and are read as
they are.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from latewood.errors import CorruptionError

WORD, FOOTER_WORD = b"LWCHUNKS", b"LWFOOTER"
_HASH_BYTES = 8
_TAIL_BYTES = 8  # the footer's length and the magic


class RandomAccess(Protocol):
    def size(self) -> int: ...
    def read_at(self, length: int, offset: int) -> bytes: ...


def with_checksums(file: pa.Buffer) -> pa.Buffer:
    """A complete Parquet file, with the checksums put in."""
    start = len(file) - _TAIL_BYTES - _length(file[-_TAIL_BYTES:].to_pybytes())
    chunks = [xxhash.xxh3_64_intdigest(file[a:b]) for a, b in chunk_ranges(pq.read_metadata(pa.BufferReader(file)))]
    hashes = np.array([*chunks, len(chunks)], "<u8").tobytes()
    sink = pa.BufferOutputStream()
    sink.write(file[:start])
    sink.write(hashes + WORD + _digest(hashes, file[start:]))
    sink.write(file[start:])
    return sink.getvalue()


def chunk_ranges(metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """Where each column chunk begins and ends, in the order of the footer."""
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(metadata.num_columns)):
            start = column.dictionary_page_offset or column.data_page_offset
            yield start, start + column.total_compressed_size


def check_footer(file: RandomAccess, name: str) -> NDArray[np.uint64] | None:
    """The hashes of the chunks; None where the file has none. Raises: CorruptionError: the footer is not as written."""
    size = file.size()
    if size < _TAIL_BYTES:
        return None
    start = size - _TAIL_BYTES - _length(file.read_at(_TAIL_BYTES, size - _TAIL_BYTES))
    mark = start - len(WORD) - _HASH_BYTES
    if mark < 0:
        return None
    data = memoryview(file.read_at(size - mark, mark))
    word, digest, footer = data[: len(WORD)], data[len(WORD) :][:_HASH_BYTES], data[len(WORD) + _HASH_BYTES :]
    if word not in (WORD, FOOTER_WORD):
        return None
    hashes = _read_hashes(file, mark, name) if word == WORD else b""
    if digest != _digest(hashes, footer):
        raise CorruptionError(f"{name}: the footer's checksum differs from what was written")
    return np.frombuffer(hashes, "<u8")[:-1].astype(np.uint64) if word == WORD else None


def _read_hashes(file: RandomAccess, mark: int, name: str) -> bytes:
    """The hashes of the chunks and their number, which end where the word begins."""
    count = int.from_bytes(file.read_at(_HASH_BYTES, max(0, mark - _HASH_BYTES)), "little")
    size = (count + 1) * _HASH_BYTES
    if size > mark:
        raise CorruptionError(f"{name}: the footer's checksum differs from what was written")
    return file.read_at(size, mark - size)


def _length(tail: bytes) -> int:
    return int.from_bytes(tail[:4], "little")


def _digest(hashes: bytes, footer: pa.Buffer | memoryview) -> bytes:
    digest = xxhash.xxh3_64(hashes)
    digest.update(footer)
    return digest.digest()
