"""What store.json says: read back as written, and refused where it says something else."""

import pyarrow as pa
import pytest

from latewood.errors import CorruptionError, SchemaError
from latewood.immutable import StoreDescription
from latewood.immutable.description import FORMAT_VERSION, KIND
from latewood.schema import Schema
from latewood.storage.documents import decode_document, encode_document

DESCRIPTION = StoreDescription(
    bytes(range(16)), Schema(user_id=pa.int64(), traits=pa.schema([("x", pa.int8())])), 4, -7
)
PLACE = "there/store.json"


def forged(change: dict[str, object]) -> bytes:
    body = decode_document(DESCRIPTION.to_bytes(), PLACE, KIND, FORMAT_VERSION) | change
    return encode_document(
        KIND, FORMAT_VERSION, {k: v for k, v in body.items() if k not in ("kind", "format") and v != ...}
    )


def test_it_is_read_as_it_was_written() -> None:
    assert StoreDescription.from_bytes(DESCRIPTION.to_bytes(), PLACE) == DESCRIPTION


@pytest.mark.parametrize("name", ["epoch", "schema", "shards", "created_ts"])
def test_a_missing_field_is_damage(name: str) -> None:
    with pytest.raises(CorruptionError, match=f"{PLACE}.*{name}"):
        StoreDescription.from_bytes(forged({name: ...}), PLACE)


@pytest.mark.parametrize(
    "change", [{"epoch": "00"}, {"epoch": 7}, {"shards": 0}, {"shards": "x"}, {"created_ts": 2**70}, {"retention": "x"}]
)
def test_other_contents_are_damage(change: dict[str, object]) -> None:
    with pytest.raises(CorruptionError, match=PLACE):
        StoreDescription.from_bytes(forged(change), PLACE)


@pytest.mark.parametrize("id_", [-1, 2**31, 1.5, "x", True])
def test_traits_have_small_ids(id_: object) -> None:
    schema = DESCRIPTION.schema.to_json()
    schema["traits"][0]["id"] = id_
    with pytest.raises(SchemaError, match=f"{PLACE}.*'x' has the id"):
        StoreDescription.from_bytes(forged({"schema": schema}), PLACE)
