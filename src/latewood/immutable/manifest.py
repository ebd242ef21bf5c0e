"""What one generation consists of, as written down in its manifest (docs/format.md)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from latewood.clock import EARLIEST_TS
from latewood.errors import CorruptionError, SchemaError
from latewood.pointer import EPOCH_BYTES
from latewood.schema import Schema
from latewood.storage import keys
from latewood.storage.documents import decode_document, encode_document
from latewood.users import HASHING

KIND = "manifest"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One shard's file. A shard without events has none: its key is empty and so are its counts."""

    key: str = ""
    size_bytes: int = 0
    event_count: int = 0
    user_count: int = 0
    footer_xxh3: int = 0

    @property
    def exists(self) -> bool:
        return bool(self.key)


NO_FILE = ShardFile()


@dataclass(frozen=True, slots=True)
class Generation:
    """One publication of the immutable tier: exactly the events with `ingest_ts < watermark`.

    Units: watermark in µs since epoch, UTC.
    """

    id: int
    watermark: int
    uuid: str  # of the attempt that built it
    epoch: bytes
    schema: Schema = field(repr=False)
    shards: tuple[ShardFile, ...] = field(repr=False)  # by shard number, NO_FILE where a shard is empty
    parent: int | None = None  # the generation it was merged from
    hashing: str = HASHING  # what the layout of shards depends on

    @property
    def event_count(self) -> int:
        return sum(shard.event_count for shard in self.shards)

    @property
    def user_count(self) -> int:
        return sum(shard.user_count for shard in self.shards)

    @property
    def size_bytes(self) -> int:
        return sum(shard.size_bytes for shard in self.shards)

    @classmethod
    def first(cls, epoch: bytes, schema: Schema, *, shards: int, uuid: str) -> "Generation":
        """Generation 0: what a new store is created with. Empty, before all time."""
        return cls(0, EARLIEST_TS, uuid, epoch, schema, (NO_FILE,) * shards)

    def to_json(self) -> bytes:
        """As the manifest's bytes."""
        ...

    @classmethod
    def from_json(cls, data: bytes, key: str) -> "Generation":
        """The inverse of `to_json`; `key` is where the bytes came from.

        Raises: CorruptionError: damaged, or not the manifest of that key. SchemaError: a newer format.
        """
        ...
