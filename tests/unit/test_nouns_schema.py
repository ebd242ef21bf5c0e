"""Schemas: what a store can hold, under which names, and that it is written down without loss."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from latewood.errors import SchemaError
from latewood.schema import RESERVED, Schema
from latewood.testing import strategies

CODES_OF_TEXT = pa.dictionary(pa.int32(), pa.string())


@given(strategies.schemas())
def test_it_survives_json(schema: Schema) -> None:
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    assert hash(again) == hash(schema)
    assert [(t.id, t.name, t.type, t.nullable, t.group) for t in again] == [
        (t.id, t.name, t.type, t.nullable, t.group) for t in schema
    ]


class _Latewood:
    Schema = Schema


def run(code: str) -> Schema:
    names: dict[str, object] = {"pa": pa, "lw": _Latewood}
    exec(code, names)
    schema = names["schema"]
    assert isinstance(schema, Schema)
    return schema


@given(strategies.schemas())
def test_its_code_makes_it_again(schema: Schema) -> None:
    assert run(schema.to_code()) == schema


def test_code_keeps_awkward_names_and_nullability() -> None:
    fields = [pa.field('a"b\\', pa.int8(), nullable=False), pa.field("größe\n", pa.timestamp("us", "Asia/Tokyo"))]
    schema = Schema(user_id=pa.string(), groups={'g"': pa.schema(fields)})
    assert run(schema.to_code()) == schema
    assert run(Schema(user_id=pa.int64(), traits=[]).to_code()) == Schema(user_id=pa.int64(), traits=[])


def test_traits_groups_and_ids() -> None:
    schema = Schema(
        user_id=pa.int32(),
        groups={
            "core": pa.schema([("item", pa.int64())]),
            "more": pa.schema([("like", pa.bool_()), ("ms", pa.uint16())]),
        },
    )
    assert schema.user_id == pa.int64()
    assert [(t.id, t.name, t.group) for t in schema] == [(0, "item", "core"), (1, "like", "more"), (2, "ms", "more")]
    assert {group: [t.name for t in traits] for group, traits in schema.groups.items()} == {
        "core": ["item"],
        "more": ["like", "ms"],
    }
    assert schema["like"].type == pa.bool_()
    assert "like" in schema
    assert "nope" not in schema
    with pytest.raises(SchemaError, match="unknown trait 'nope'; the store has: item, like, ms"):
        schema["nope"]
    assert "item: int64" in repr(schema)


@pytest.mark.parametrize(
    ("given_type", "kept", "coded", "value_type", "dtype"),
    [
        (pa.int8(), pa.int8(), False, pa.int8(), np.int8),
        (pa.uint64(), pa.uint64(), False, pa.uint64(), np.uint64),
        (pa.float32(), pa.float32(), False, pa.float32(), np.float32),
        (pa.float64(), pa.float64(), False, pa.float64(), np.float64),
        (pa.bool_(), pa.bool_(), False, pa.bool_(), np.bool_),
        (pa.string(), pa.string(), True, pa.string(), np.int32),
        (pa.large_string(), pa.string(), True, pa.string(), np.int32),
        (pa.string_view(), pa.string(), True, pa.string(), np.int32),
        (pa.timestamp("ns"), pa.timestamp("us"), False, pa.timestamp("us"), np.int64),
        (pa.timestamp("s", "UTC"), pa.timestamp("us", "UTC"), False, pa.timestamp("us", "UTC"), np.int64),
        (
            pa.dictionary(pa.int8(), pa.large_string()),
            pa.dictionary(pa.int32(), pa.string()),
            True,
            pa.string(),
            np.int32,
        ),
        (pa.dictionary(pa.uint16(), pa.int64()), pa.dictionary(pa.int32(), pa.int64()), True, pa.int64(), np.int32),
    ],
    ids=str,
)
def test_types_as_a_store_keeps_them(
    given_type: pa.DataType, kept: pa.DataType, coded: bool, value_type: pa.DataType, dtype: type
) -> None:
    trait = Schema(user_id=pa.int64(), traits=pa.schema([("x", given_type)]))["x"]
    assert (trait.type, trait.coded, trait.value_type, trait.dtype) == (kept, coded, value_type, np.dtype(dtype))


@pytest.mark.parametrize(
    "type_",
    [
        *(pa.float16(), pa.binary(), pa.date32(), pa.time64("us"), pa.duration("us"), pa.decimal128(5), pa.null()),
        *(pa.struct([]), pa.dictionary(pa.int8(), pa.float64()), pa.list_(pa.list_(pa.int8())), pa.list_(pa.int8(), 0)),
        *(pa.list_(pa.date32()), pa.list_(pa.struct([])), pa.list_(pa.large_list(pa.int8()), 2)),
    ],
    ids=str,
)
def test_types_that_a_store_cannot_hold(type_: pa.DataType) -> None:
    with pytest.raises(SchemaError, match="'x'"):
        Schema(user_id=pa.int64(), traits=pa.schema([("x", type_)]))


def test_user_ids_are_integers_or_strings() -> None:
    assert Schema(user_id=pa.uint8(), traits=[]).user_id == pa.int64()
    assert Schema(user_id=pa.large_string(), traits=[]).user_id == pa.string()
    for type_ in (pa.float64(), pa.bool_(), pa.timestamp("us"), pa.binary()):
        with pytest.raises(SchemaError, match="user_id"):
            Schema(user_id=type_, traits=[])


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_names_are_refused(name: str) -> None:
    with pytest.raises(SchemaError, match=f"reserved.*{name}"):
        Schema(user_id=pa.int64(), traits=pa.schema([("ok", pa.int8()), (name, pa.int64())]))


def test_the_contract_s_names_are_reserved() -> None:
    contract = "user_id, event_ts, ingest_ts, event_id, supersedes, request_ts, uih, recent, cutoff, history"
    assert set(contract.split(", ")) <= RESERVED


def test_names_are_unique_across_groups() -> None:
    with pytest.raises(SchemaError, match="'x' stands twice"):
        Schema(user_id=pa.int64(), groups={"a": pa.schema([("x", pa.int8())]), "b": pa.schema([("x", pa.int8())])})


def test_traits_or_groups() -> None:
    with pytest.raises(SchemaError, match="either"):
        Schema(user_id=pa.int64())
    with pytest.raises(SchemaError, match="either"):
        Schema(user_id=pa.int64(), traits=[], groups={})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"user_id": "int64"},
        {"user_id": "complex", "traits": []},
        {"user_id": "int64", "traits": [{"id": 0, "name": "x"}]},
        {"user_id": "int64", "traits": [{"id": 0, "name": "x", "type": ["no"], "nullable": True, "group": "g"}]},
        {"user_id": "int64", "traits": None},
    ],
    ids=str,
)
def test_what_is_not_a_schema_document(document: dict[str, object]) -> None:
    with pytest.raises(SchemaError, match="not a schema document"):
        Schema.from_json(document)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_id": "string", "traits": []}, r"user_id is a pyarrow type, .*, not 'string'"),
        ({"user_id": int, "traits": []}, "user_id is a pyarrow type"),
        ({"user_id": pa.int64(), "traits": [("item", int)]}, "traits of group 'default' are"),
        ({"user_id": pa.int64(), "traits": ["item"]}, "traits of group 'default' are"),
        ({"user_id": pa.int64(), "traits": 5}, "traits of group 'default' are"),
        ({"user_id": pa.int64(), "groups": {"core": 5}}, "traits of group 'core' are"),
        ({"user_id": pa.int64(), "groups": [pa.field("item", pa.int64())]}, "groups= names the traits"),
    ],
    ids=str,
)
def test_what_pyarrow_does_not_take_is_refused_in_words(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Schema(**arguments)
