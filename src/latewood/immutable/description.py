"""What a store is: `store.json`, written once when it is created. What changes later stands in changes and manifests."""

from dataclasses import dataclass

from latewood.errors import CorruptionError, SchemaError
from latewood.pointer import EPOCH_BYTES
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.storage.documents import decode_document, encode_document, whole

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
        body = {"epoch": self.epoch.hex(), "schema": self.schema.to_json(), "shards": self.shards}
        body |= {
            "created_ts": self.created_ts,
            "retention": None if self.retention is None else self.retention.to_json(),
        }
        return encode_document(KIND, FORMAT_VERSION, body)

    @classmethod
    def from_bytes(cls, data: bytes, place: str) -> "StoreDescription":
        """Raises: CorruptionError: damaged; SchemaError: a format version from the future."""
        body = decode_document(data, place, KIND, FORMAT_VERSION)
        try:
            epoch, shards, created_ts = (
                bytes.fromhex(body["epoch"]),
                whole(body["shards"], 1),
                whole(body["created_ts"]),
            )
            if len(epoch) != EPOCH_BYTES:
                raise ValueError(f"an epoch of {len(epoch)} bytes")
            schema, retention = Schema.from_json(body["schema"]), Retention.from_json(body.get("retention"))
        except SchemaError as error:
            raise SchemaError(f"{place}: {error}") from error
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CorruptionError(f"{place}: not the description of a store: {error!r}") from error
        return cls(epoch, schema, shards, created_ts, retention)
