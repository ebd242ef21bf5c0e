"""`latewood init`: create an empty store from a schema given in words."""

import re
from typing import Annotated

import pyarrow as pa
import typer

import latewood as lw
from latewood.cli.output import Debug, Json, Mutable, Output
from latewood.errors import SchemaError
from latewood.schema import DEFAULT_GROUP, Schema

TYPES = {
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "timestamp": pa.timestamp("us", "UTC"),
}
TYPES_IN_WORDS = f"{', '.join(TYPES)}; and lists of these, as in int64[], or of one size, as in float32[16]"
_LIST = re.compile(r"(?P<item>.+)\[(?P<size>\d{0,9})\]")


def init(
    store: Annotated[str, typer.Argument(help="Where to create it: a folder or a URI.")],
    trait: Annotated[list[str], typer.Option(help=f"NAME:TYPE or GROUP/NAME:TYPE; types: {TYPES_IN_WORDS}.")],
    user: Annotated[str, typer.Option(help="The type of user ids: int64 or string.")] = "int64",
    shards: Annotated[int, typer.Option(help="Files per generation.")] = 16,
    mutable: Mutable = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Create an empty store."""
    schema = Schema(user_id=_type(user), groups=groups_of(trait))
    output = Output(json)
    with lw.Store.create(store, schema, shards=shards, mutable=mutable) as created:
        values = {"store": store, "epoch": created.epoch.hex(), "shards": shards}
    if json:
        output.result(values | {"schema": schema.to_json()})
    else:
        output.result(values, "created")
        output.code(schema)


def groups_of(traits: list[str], default: str = DEFAULT_GROUP) -> dict[str, pa.Schema]:
    """Traits in words, by feature group; `default` is that of a trait without one. Raises: SchemaError."""
    groups: dict[str, list[tuple[str, pa.DataType]]] = {}
    for text in traits:
        name, colon, type_ = text.rpartition(":")
        if not colon:
            raise SchemaError(f"trait {text!r}: expected NAME:TYPE or GROUP/NAME:TYPE")
        group, slash, plain = name.partition("/")
        groups.setdefault(group if slash else default, []).append((plain if slash else name, _type(type_)))
    return {group: pa.schema(fields) for group, fields in groups.items()}


def _type(name: str) -> pa.DataType:
    if found := _LIST.fullmatch(name):
        size = int(found["size"]) if found["size"] else -1
        return pa.list_(_type(found["item"]), size)
    if name not in TYPES:
        raise SchemaError(f"unknown type {name!r}; there are: {TYPES_IN_WORDS}")
    return TYPES[name]
