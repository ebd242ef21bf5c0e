"""The leaves of nested columns, by the names that Parquet gives them: "uih.length", "recent.item_id.list.element"."""

from collections.abc import Iterator

import pyarrow as pa

from latewood.lists import is_list


def leaves(schema: pa.Schema | pa.StructType, prefix: str = "") -> Iterator[tuple[str, pa.DataType]]:
    """Every leaf of a schema: its path in the file and its type."""
    for field in schema:
        yield from _leaves(f"{prefix}{field.name}", field.type)


def _leaves(path: str, type_: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_struct(type_):
        yield from leaves(type_, f"{path}.")
    elif is_list(type_):
        yield from _leaves(f"{path}.list.element", type_.value_type)
    elif pa.types.is_map(type_):
        yield from _leaves(f"{path}.key_value.key", type_.key_type)
        yield from _leaves(f"{path}.key_value.value", type_.item_type)
    else:
        yield path, type_
