"""Header, footer and trailer of a shard file: what is small and is written once."""

import json
import struct
from dataclasses import dataclass
from typing import Any

import xxhash
from numpy.typing import NDArray

from latewood.errors import CorruptionError, SchemaError
from latewood.stripes.layout import (
    ALIGNMENT,
    BLOCK_STRIPES,
    FORMAT_VERSION,
    HEADER_BYTES,
    HEADER_MAGIC,
    STRIPE_EVENTS,
    TRAILER_BYTES,
    TRAILER_MAGIC,
    StripeColumn,
)

Bytes = bytes | memoryview | NDArray[Any]
COUNTS = ("users", "events", "stripes", "blocks", "payload_bytes")


@dataclass(frozen=True, slots=True)
class Section:
    """Where a part of the index lies, and its xxh3_64."""

    offset: int
    size_bytes: int
    xxh3: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer says."""

    epoch: bytes
    generation: int
    shard: int
    counts: dict[str, int]  # COUNTS
    latest_ingest: int | None
    columns: tuple[StripeColumn, ...]
    column_bytes: tuple[int, ...]  # payload bytes of each column
    user_type: str  # "int64" or "string"
    sections: dict[str, Section]

    def to_bytes(self) -> bytes:
        columns = [c.to_json() | {"bytes": n} for c, n in zip(self.columns, self.column_bytes, strict=True)]
        sections = {name: [s.offset, s.size_bytes, f"{s.xxh3:016x}"] for name, s in self.sections.items()}
        document = {
            "format": FORMAT_VERSION,
            "epoch": self.epoch.hex(),
            "generation": self.generation,
            "shard": self.shard,
            **self.counts,
            "latest_ingest": self.latest_ingest,
            "user_type": self.user_type,
            "columns": columns,
            "sections": sections,
        }
        return json.dumps(document, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes, key: str) -> "Footer":
        """Raises: CorruptionError: not a footer; SchemaError: columns that this version does not know."""
        try:
            document = json.loads(data)
            return cls(
                bytes.fromhex(document["epoch"]),
                _count(document["generation"]),
                _count(document["shard"]),
                {name: _count(document[name]) for name in COUNTS},
                None if document["latest_ingest"] is None else _whole(document["latest_ingest"]),
                tuple(StripeColumn.from_json(column) for column in document["columns"]),
                tuple(_count(column["bytes"]) for column in document["columns"]),
                str(document["user_type"]),
                {
                    str(name): Section(_count(offset), _count(size), int(digest, 16))
                    for name, (offset, size, digest) in document["sections"].items()
                },
            )
        except SchemaError:
            raise
        except (
            KeyError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:  # the last: brackets in brackets
            raise CorruptionError(f"{key}: the footer is not readable: {error!r}") from error


def _count(number: Any) -> int:
    if not 0 <= _whole(number) < 1 << 62:
        raise ValueError(f"not a count: {number!r}")
    return int(number)


def _whole(number: Any) -> int:
    if type(number) is not int or not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"not a whole number of 64 bits: {number!r}")
    return number


def header_bytes(version: int = FORMAT_VERSION) -> bytes:
    """The first 64 bytes of a file."""
    return struct.pack("<8sIII", HEADER_MAGIC, version, STRIPE_EVENTS, BLOCK_STRIPES).ljust(HEADER_BYTES, b"\0")


def trailer_bytes(footer: bytes) -> bytes:
    """The last 24 bytes of a file."""
    return struct.pack("<QQ8s", len(footer), xxhash.xxh3_64_intdigest(footer), TRAILER_MAGIC)


def check_header(data: bytes, key: str) -> None:
    """Raises: CorruptionError: not a shard file; SchemaError: a newer version."""
    if data[:8] != HEADER_MAGIC:
        raise CorruptionError(f"{key}: not a shard file: it begins with {data[:8]!r}")
    (version,) = struct.unpack("<I", data[8:12])
    if data[12:] == header_bytes()[12:] and version > FORMAT_VERSION:
        raise SchemaError(f"{key}: format version {version}; this latewood reads up to {FORMAT_VERSION}")
    if data != header_bytes():
        raise CorruptionError(f"{key}: the header is damaged")


def read_trailer(data: bytes, key: str) -> tuple[int, int]:
    """The footer's size and xxh3_64. Raises: CorruptionError: the file does not end as it should."""
    size, digest, magic = struct.unpack("<QQ8s", data)
    if magic != TRAILER_MAGIC:
        raise CorruptionError(f"{key}: the file is cut short or its end is damaged")
    return size, digest


def padding(position: int) -> int:
    """Bytes to the next aligned position."""
    return -position % ALIGNMENT


__all__ = ["COUNTS", "TRAILER_BYTES", "Footer", "Section", "check_header", "header_bytes", "padding"]
__all__ += ["read_trailer", "trailer_bytes"]
