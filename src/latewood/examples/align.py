"""One schema for examples that were logged at different times.

Files may lack columns, or traits among their recent events, that came later. A missing column is null; a missing list
among the recents is a list of nulls as long as its siblings, because a trait is null for events from before it was
added. A missing list of structs, the places that recents supersede, is empty: nothing was corrected then.
"""

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from latewood.columns import one_array, without_views
from latewood.errors import SchemaError


def unify(schemas: Sequence[tuple[str, pa.Schema]]) -> pa.Schema:
    """The plain schema that all fit into, each given with what it is of. Raises: SchemaError: there is none."""
    unified = plain(schemas[0][1])
    for name, schema in schemas[1:]:
        if not plain(schema).equals(unified):
            try:
                unified = pa.unify_schemas([unified, plain(schema)], promote_options="permissive")
            except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
                raise SchemaError(f"{name} does not fit what comes before it: {error}") from None
    return unified


def align(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table as one of `schema`, without its metadata.

    Raises: SchemaError: values that the schema's types do not hold, or two columns of one name.
    """
    if repeated := {name for name in table.column_names if table.column_names.count(name) > 1}:
        raise SchemaError(f"the examples have two columns {min(repeated)!r}")
    if table.schema.equals(schema):
        return table.replace_schema_metadata(None)
    names, columns = set(table.column_names), list[pa.Array]()
    for field in schema:
        if field.name not in names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        try:
            columns.append(_fit(one_array(table[field.name]), field.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise SchemaError(f"column {field.name!r} does not fit {field.type}: {error}") from None
    return pa.table(columns, schema=schema)


def _fit(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if array.type == type_:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), type_)
    if pa.types.is_dictionary(array.type) and pa.types.is_dictionary(type_):
        words = array.dictionary.cast(type_.value_type)  # of views Arrow casts only the words
        return pa.DictionaryArray.from_arrays(array.indices, words, ordered=array.type.ordered).cast(type_)
    if not pa.types.is_struct(type_):
        return array.cast(type_)
    own = dict(zip((field.name for field in array.type), array.flatten(), strict=True))
    sibling = next((child for child in own.values() if _has_offsets(child.type)), None)
    children = [_fit(own[f.name], f.type) if f.name in own else _absent(f.type, len(array), sibling) for f in type_]
    return pa.StructArray.from_arrays(children, fields=list(type_), mask=array.is_null() if array.null_count else None)


def _absent(type_: pa.DataType, count: int, sibling: pa.ListArray | pa.LargeListArray | None) -> pa.Array:
    if sibling is None or not _has_offsets(type_):
        return pa.nulls(count, type_)
    is_large = pa.types.is_large_list(type_)
    offsets, items = pa.array([0] * (count + 1)), pa.nulls(0, type_.value_type)
    if not pa.types.is_struct(type_.value_type) and count:
        first, last = sibling.offsets[0].as_py(), sibling.offsets[-1].as_py()
        offsets, items = pc.subtract(sibling.offsets, first), pa.nulls(last - first, type_.value_type)
    lists = pa.LargeListArray if is_large else pa.ListArray
    return lists.from_arrays(offsets.cast(pa.int64() if is_large else pa.int32()), items, type=type_)


def _has_offsets(type_: pa.DataType) -> bool:
    """Whether values are lists as they are logged; other writers make them large."""
    return pa.types.is_list(type_) or pa.types.is_large_list(type_)


def plain(schema: pa.Schema) -> pa.Schema:
    """The schema with string views, as polars gives them, as strings: pyarrow cannot take views by row."""
    return pa.schema([field.with_type(without_views(field.type)) for field in schema])


def without_fields(table: pa.Table, dropped: Collection[str]) -> pa.Table:
    """A table without some columns, or fields of struct columns as in "recent.price". Names it lacks are fine."""
    table = table.select([name for name in table.column_names if name not in dropped])
    for i, field in enumerate(table.schema):
        if not pa.types.is_struct(field.type):
            continue
        kept = [k for k, child in enumerate(field.type) if f"{field.name}.{child.name}" not in dropped]
        if len(kept) < field.type.num_fields:
            array = one_array(table.column(i))
            children, fields = array.flatten(), [field.type[k] for k in kept]
            mask = array.is_null() if array.null_count else None
            array = pa.StructArray.from_arrays([children[k] for k in kept], fields=fields, mask=mask)
            table = table.set_column(i, pa.field(field.name, array.type, field.nullable), array)
    return table
