"""A checksum for the footer of a Parquet file, which the format leaves unguarded.

Page checksums cover the pages only. A flipped bit in the footer can move a column elsewhere unnoticed, or abort the
process inside the reader. So the log's files carry, in a gap before the footer that every Parquet reader skips, a word
that tells of it and the footer's hash:

    pages | "LWFOOTER" | xxh3_64 of all that follows, 8 bytes | footer | its length, 4 bytes | "PAR1"

Files of other writers have no such word and are read as they are.
"""

from typing import Protocol

import pyarrow as pa
import xxhash

from latewood.errors import CorruptionError

WORD = b"LWFOOTER"
_HASH_BYTES = 8
_TAIL_BYTES = 8  # the footer's length and the magic


class RandomAccess(Protocol):
    def size(self) -> int: ...
    def read_at(self, length: int, offset: int) -> bytes: ...


def with_checksum(file: pa.Buffer) -> pa.Buffer:
    """A complete Parquet file, with the checksum put in."""
    start = len(file) - _TAIL_BYTES - _length(file[-_TAIL_BYTES:].to_pybytes())
    sink = pa.BufferOutputStream()
    sink.write(file[:start])
    sink.write(WORD + _digest(file[start:]))
    sink.write(file[start:])
    return sink.getvalue()


def check_footer(file: RandomAccess, name: str) -> None:
    """Raises: CorruptionError: the file has a checksum, and its footer another."""
    size = file.size()
    if size < _TAIL_BYTES:
        return
    start = size - _TAIL_BYTES - _length(file.read_at(_TAIL_BYTES, size - _TAIL_BYTES))
    mark = start - len(WORD) - _HASH_BYTES
    if mark < 0:
        return
    data = memoryview(file.read_at(size - mark, mark))
    if data[: len(WORD)] == WORD:
        digest, footer = data[len(WORD) :][:_HASH_BYTES], data[len(WORD) + _HASH_BYTES :]
        if digest != _digest(footer):
            raise CorruptionError(f"{name}: the footer's checksum differs from what was written")


def _length(tail: bytes) -> int:
    return int.from_bytes(tail[:4], "little")


def _digest(footer: pa.Buffer | memoryview) -> bytes:
    return xxhash.xxh3_64_digest(footer)
