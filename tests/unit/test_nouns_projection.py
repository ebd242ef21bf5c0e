"""Projections: which columns they name, and what they refuse."""

import pyarrow as pa
import pytest

from latewood.errors import SchemaError
from latewood.projection import Projection
from latewood.schema import Schema

SCHEMA = Schema(
    user_id=pa.int64(),
    groups={"core": pa.schema([("item", pa.int64())]), "more": pa.schema([("like", pa.bool_()), ("ms", pa.uint16())])},
)


@pytest.mark.parametrize(
    ("projection", "names"),
    [
        (Projection(), ("event_ts", "item", "like", "ms")),
        (Projection(traits=["ms", "event_ts"]), ("ms", "event_ts")),
        (Projection(traits=["item"]), ("item",)),
        (Projection(traits=[]), ()),
        (Projection(groups=["more"]), ("event_ts", "like", "ms")),
        (Projection(groups=["more", "core"]), ("event_ts", "like", "ms", "item")),
        (Projection(groups=[]), ("event_ts",)),
    ],
    ids=str,
)
def test_names_in_the_order_wanted(projection: Projection, names: tuple[str, ...]) -> None:
    assert projection.names(SCHEMA) == names


def test_it_is_a_value() -> None:
    assert Projection(max_len=4, traits=["item"]) == Projection(4, ("item",))
    assert hash(Projection(traits=["item"])) == hash(Projection(traits=("item",)))
    with pytest.raises(AttributeError):
        Projection().max_len = 3  # type: ignore[misc]


def test_what_it_refuses() -> None:
    for arguments, message in [
        ({"max_len": -1}, "max_len is -1"),
        ({"max_len": 1.5}, "max_len is 1.5"),
        ({"max_len": 2**63}, "max_len is 9223372036854775808"),
        ({"max_len": "4"}, "max_len is '4'"),
        ({"traits": ["a"], "groups": ["b"]}, "either"),
        ({"traits": "item"}, "one string; pass a list"),
        ({"groups": "core"}, "one string; pass a list"),
        ({"traits": ["a", "b", "a"]}, "repeats a name"),
        ({"groups": ["a", "a"]}, "repeats a name"),
    ]:
        with pytest.raises(SchemaError, match=message):
            Projection(**arguments)  # type: ignore[arg-type]


def test_unknown_names_are_named() -> None:
    with pytest.raises(SchemaError, match="unknown trait 'nope'"):
        Projection(traits=["item", "nope"]).names(SCHEMA)
    with pytest.raises(SchemaError, match="unknown feature group 'nope'; the store has: core, more"):
        Projection(groups=["core", "nope"]).names(SCHEMA)
