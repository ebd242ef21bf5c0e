"""What one generation consists of, as written down in its manifest (docs/format.md)."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from latewood.clock import EARLIEST_TS, show_ts
from latewood.errors import CorruptionError, SchemaError
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage import keys
from latewood.storage.documents import decode_document, encode_document, reading_document, whole
from latewood.users import HASHING

KIND = "manifest"
FORMAT_VERSION = 1
Origin = Literal["compaction", "load", "rollback"]  # a load's events never were in the mutable tier


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


@dataclass(frozen=True, slots=True, repr=False)
class Generation:
    """One publication of the immutable tier: exactly the events with `ingest_ts < watermark`.

    Less those that retention took, and the scrubs that it counts (docs/protocol.md R15, R16).

    Units: watermark in µs since epoch, UTC.
    """

    id: int
    watermark: int
    uuid: str  # of the attempt that built it
    epoch: bytes
    schema: Schema
    shards: tuple[ShardFile, ...]  # by shard number, NO_FILE where a shard is empty
    parent: int | None = None  # the generation it was merged from
    hashing: str = HASHING  # what the layout of shards depends on
    vocabulary: tuple[tuple[int, int], ...] = ()  # by trait id: the chunks that the codes may come from
    origin: Origin = "compaction"
    change: int = 0  # how many changes of the store were applied
    scrubs: int = 0  # how many scrubs were applied
    retention: Retention | None = None  # what was applied when it was built
    expired: bool = False  # whether retention ever took events, here or in a generation before
    horizon: int | None = None  # the latest time before which retention by age took events

    def __repr__(self) -> str:
        counts = f"{self.event_count:,} events of {self.user_count:,} users"
        return f"<Generation {self.id}: {counts}, watermark {show_ts(self.watermark)}>"

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
    def first(cls, epoch: bytes, schema: Schema, *, shards: int, retention: Retention | None = None) -> "Generation":
        """Generation 0: what a new store is created with. Empty, before all time, the same whoever makes it."""
        return cls(0, EARLIEST_TS, epoch.hex(), epoch, schema, (NO_FILE,) * shards, retention=retention)

    def to_json(self) -> bytes:
        """As the manifest's bytes."""
        return encode_document(
            KIND,
            FORMAT_VERSION,
            {
                "id": self.id,
                "parent": self.parent,
                "watermark": self.watermark,
                "uuid": self.uuid,
                "epoch": self.epoch.hex(),
                "hashing": self.hashing,
                "event_count": self.event_count,  # for people; the shards say it again
                "user_count": self.user_count,
                "schema": self.schema.to_json(),
                "vocabulary": self.vocabulary,
                "origin": self.origin,
                "change": self.change,
                "scrubs": self.scrubs,
                "retention": None if self.retention is None else self.retention.to_json(),
                "expired": self.expired,
                "horizon": self.horizon,
                "shards": [_shard_to_json(shard) for shard in self.shards],
            },
        )

    @classmethod
    def from_json(cls, data: bytes, key: str) -> "Generation":
        """The inverse of `to_json`; `key` is where the bytes came from.

        Raises: CorruptionError: damaged, or not the manifest of that key. SchemaError: a newer format.
        """
        document = decode_document(data, key, KIND, FORMAT_VERSION)
        with reading_document(key, "a manifest"):
            generation = _from_document(document)
        if generation.hashing != HASHING:
            raise SchemaError(f"{key}: users are hashed by {generation.hashing!r}; this version knows {HASHING!r}")
        if keys.parse_manifest(key) not in (None, generation.id):
            raise CorruptionError(f"{key}: is the manifest of generation {generation.id}")
        return generation


def _shard_to_json(shard: ShardFile) -> dict[str, Any] | None:
    if not shard.exists:
        return None
    return {
        "key": shard.key,
        "size_bytes": shard.size_bytes,
        "event_count": shard.event_count,
        "user_count": shard.user_count,
        "footer_xxh3": f"{shard.footer_xxh3:016x}",
    }


def _shard_from_json(document: dict[str, Any] | None) -> ShardFile:
    if document is None:
        return NO_FILE
    return ShardFile(
        key=keys.check_key(document["key"]),
        size_bytes=whole(document["size_bytes"], 0),
        event_count=whole(document["event_count"], 0),
        user_count=whole(document["user_count"], 0),
        footer_xxh3=int(document["footer_xxh3"], 16),
    )


def _from_document(document: dict[str, Any]) -> Generation:
    parent, horizon = document["parent"], document.get("horizon")
    if (origin := document.get("origin", "compaction")) not in get_args(Origin):
        raise ValueError(f"origin {origin!r}")
    if not document["shards"]:
        raise ValueError("no shards")
    return Generation(
        id=whole(document["id"], 0),
        watermark=whole(document["watermark"]),
        uuid=str(document["uuid"]),
        epoch=bytes.fromhex(document["epoch"]),
        schema=Schema.from_json(document["schema"]),
        shards=tuple(_shard_from_json(shard) for shard in document["shards"]),
        parent=None if parent is None else whole(parent, 0),
        hashing=str(document["hashing"]),
        vocabulary=tuple((whole(trait_id), whole(chunks)) for trait_id, chunks in document.get("vocabulary", ())),
        origin=origin,
        change=whole(document.get("change", 0), 0),
        scrubs=whole(document.get("scrubs", 0), 0),
        retention=Retention.from_json(document.get("retention")),
        expired=bool(document.get("expired", False)),
        horizon=None if horizon is None else whole(horizon),
    )
