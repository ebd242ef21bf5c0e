"""What a store is: `store.json`, written once when it is created. What changes later stands in changes and manifests."""

from dataclasses import dataclass

from latewood.pointer import EPOCH_BYTES
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage.documents import decode_document, encode_document, reading_document, whole

KIND = "store"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """What `store.json` says: what the store was created as."""

    epoch: bytes  # 128 random bits that name the store, so that a pointer from elsewhere is recognised
    schema: Schema
    shards: int
    created_ts: int
    retention: Retention | None = None

    def to_bytes(self) -> bytes:
        retention = None if self.retention is None else self.retention.to_json()
        body = {"epoch": self.epoch.hex(), "schema": self.schema.to_json(), "shards": self.shards}
        body |= {"created_ts": self.created_ts, "retention": retention}
        return encode_document(KIND, FORMAT_VERSION, body)

    @classmethod
    def from_bytes(cls, data: bytes, place: str) -> "StoreDescription":
        """Raises: CorruptionError: damaged; SchemaError: a format version from the future."""
        body = decode_document(data, place, KIND, FORMAT_VERSION)
        with reading_document(place, "the description of a store"):
            epoch, created_ts = bytes.fromhex(body["epoch"]), whole(body["created_ts"])
            if len(epoch) != EPOCH_BYTES:
                raise ValueError(f"an epoch of {len(epoch)} bytes")
            schema, retention = Schema.from_json(body["schema"]), Retention.from_json(body.get("retention"))
            return cls(epoch, schema, whole(body["shards"], 1), created_ts, retention)
