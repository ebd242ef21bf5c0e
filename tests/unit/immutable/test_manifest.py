"""Manifests: read back as written; damage, other stores and the future are told apart."""

from dataclasses import replace

import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS
from latewood.errors import CorruptionError, SchemaError
from latewood.immutable import Generation, ShardFile
from latewood.immutable.manifest import FORMAT_VERSION, KIND, NO_FILE
from latewood.schema import Schema
from latewood.storage import keys
from latewood.storage.documents import decode_document, encode_document

SCHEMA = Schema(
    user_id=pa.string(),
    groups={
        "core": pa.schema([("item", pa.int64()), ("action", pa.dictionary(pa.int32(), pa.string()))]),
        "größe": pa.schema([pa.field("at", pa.timestamp("us", "Europe/Berlin")), pa.field("ok", pa.bool_(), False)]),
    },
)
KEY = keys.manifest(3)
GENERATION = Generation(
    id=3,
    watermark=-5,
    uuid="0123abcd",
    epoch=bytes(range(16)),
    schema=SCHEMA,
    shards=(ShardFile(keys.shard(3, "0123abcd", 0), 1000, 70, 7, 2**64 - 1), NO_FILE, ShardFile("a/b", 10, 3, 2, 0)),
    parent=2,
)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Generation.from_json(GENERATION.to_json(), KEY) == GENERATION
    orphan = replace(GENERATION, parent=None, watermark=2**62)
    assert Generation.from_json(orphan.to_json(), KEY) == orphan


def test_counts_are_the_sums_over_shards() -> None:
    assert (GENERATION.event_count, GENERATION.user_count, GENERATION.size_bytes) == (73, 9, 1010)


def test_the_first_generation_is_empty_and_the_same_whoever_makes_it() -> None:
    first = Generation.first(bytes(16), SCHEMA, shards=4)
    assert first == Generation.first(bytes(16), SCHEMA, shards=4)
    assert (first.id, first.watermark, first.event_count, first.parent) == (0, EARLIEST_TS, 0, None)
    assert len(first.shards) == 4
    assert not any(shard.exists for shard in first.shards)
    assert Generation.from_json(first.to_json(), keys.manifest(0)) == first


def test_every_changed_byte_is_found() -> None:
    data = GENERATION.to_json()
    for i in range(len(data)):
        damaged = data[:i] + bytes([data[i] ^ (1 << i % 8)]) + data[i + 1 :]
        with pytest.raises(CorruptionError, match=KEY):
            Generation.from_json(damaged, KEY)


def test_every_cut_is_found() -> None:
    data = GENERATION.to_json()
    for size in range(len(data)):
        with pytest.raises(CorruptionError, match=KEY):
            Generation.from_json(data[:size], KEY)


def test_a_manifest_of_another_number_is_damage() -> None:
    with pytest.raises(CorruptionError, match="generation 3"):
        Generation.from_json(GENERATION.to_json(), keys.manifest(4))


def body() -> dict[str, object]:
    document = decode_document(GENERATION.to_json(), KEY, KIND, FORMAT_VERSION)
    return {name: value for name, value in document.items() if name not in ("kind", "format")}


def test_a_manifest_from_the_future_is_a_schema_error() -> None:
    data = encode_document(KIND, FORMAT_VERSION + 1, {"anything": "else"})
    with pytest.raises(SchemaError, match=rf"{KEY}.*format {FORMAT_VERSION + 1}"):
        Generation.from_json(data, KEY)


def test_a_type_or_a_hash_from_the_future_is_a_schema_error() -> None:
    shop = {
        "user_id": "int64",
        "traits": [{"id": 0, "name": "x", "type": "quaternion", "nullable": True, "group": "g"}],
    }
    for change in ({"schema": shop}, {"hashing": "sha4"}):
        with pytest.raises(SchemaError, match=KEY):
            Generation.from_json(encode_document(KIND, FORMAT_VERSION, body() | change), KEY)


@pytest.mark.parametrize("name", ["id", "parent", "watermark", "uuid", "epoch", "hashing", "schema", "shards"])
def test_a_manifest_that_lacks_a_field_names_its_key(name: str) -> None:
    document = body()
    del document[name]
    with pytest.raises(CorruptionError, match=rf"{KEY}.*{name}"):
        Generation.from_json(encode_document(KIND, FORMAT_VERSION, document), KEY)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x"},
        {"shards": [1]},
        {"shards": [{"key": "../../etc/passwd"}]},
        {"epoch": 7},
        {"epoch": "zz"},
        {"shards": 0},
        {"shards": []},  # users would be divided among none
        {"id": True},
        {"watermark": 2**63},
        {"watermark": 1.5},
        {"scrubs": -1},
        {"retention": {"max_age_us": 2**80, "max_events": None}},
    ],
)
def test_a_manifest_of_the_wrong_shape_names_its_key(change: dict[str, object]) -> None:
    with pytest.raises(CorruptionError, match=KEY):
        Generation.from_json(encode_document(KIND, FORMAT_VERSION, body() | change), KEY)
