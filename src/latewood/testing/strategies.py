"""Hypothesis strategies for schemas, events and requests: small, and as awkward as the contract allows.

Users are few, so that histories grow; times come from a short range and a coarse clock, so that they tie; ingest times
run late, early and on time; values hold each type's extremes, NaN, nulls and every plane of Unicode; lists are short,
empty or null, of any length or of one size.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.conditions import OPERATORS, And, Condition, Not, Or, col
from latewood.projection import last
from latewood.schema import EVENT_TS, TIME_TYPE, Schema, Trait

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float32(), pa.float64()]
TIMES = [pa.timestamp("us"), pa.timestamp("us", "UTC")]
CODED = [pa.string(), pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int32(), pa.int64())]
PLAIN_TYPES = [pa.bool_(), *INTEGERS, *FLOATS, *TIMES, *CODED]
LIST_TYPES = [*(pa.list_(item) for item in PLAIN_TYPES), *(pa.list_(item, 2) for item in PLAIN_TYPES)]
TRAIT_TYPES = [*PLAIN_TYPES, *LIST_TYPES]
ITEMS_MAX = 4

TRAIT_NAMES = ["item", "action", "watch_ms", "like", "score", "größe", "a b", "x.y"]
INT_USERS = [7, -1, 2**63 - 1, -(2**63), 0]
TEXT_USERS = ["u", "ü", "", "🌲", "a\x00b", "u" * 300]
# surrogates cannot be written as UTF-8, so Arrow has no string for them
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def schemas(*, min_traits: int = 0, max_traits: int = 4) -> st.SearchStrategy[Schema]:
    """Schemas of any user type, with traits of any type in one or two feature groups."""
    fields = st.lists(
        st.builds(pa.field, st.sampled_from(TRAIT_NAMES), st.sampled_from(PLAIN_TYPES) | st.sampled_from(LIST_TYPES)),
        min_size=min_traits,
        max_size=max_traits,
        unique_by=lambda field: field.name,
    )

    def grouped(user: pa.DataType, fields: list[pa.Field], split: int) -> Schema:
        if split == 0 or split >= len(fields):
            return Schema(user_id=user, traits=fields)
        return Schema(user_id=user, groups={"core": pa.schema(fields[:split]), "more": pa.schema(fields[split:])})

    return st.builds(grouped, st.sampled_from([pa.int64(), pa.string()]), fields, st.integers(0, max_traits))


def user_ids(schema: Schema) -> st.SearchStrategy[Any]:
    """One of a few users, and often the first two, so that most events have a history."""
    users: list[Any] = list(INT_USERS if pa.types.is_integer(schema.user_id) else TEXT_USERS)
    return st.sampled_from(users[:2]) | st.sampled_from(users)


def times(*, start: int = 0, ticks: int = 12, tick: int = 1) -> st.SearchStrategy[int]:
    """Times of a coarse clock near `start`, so that many are equal. Units: µs."""
    return st.integers(0, ticks).map(lambda k: start + k * tick)


def values(trait: Trait) -> st.SearchStrategy[Any]:
    """Any value of a trait, with its extremes; None where it is nullable."""
    plain = _values(trait.item_type)
    if trait.is_list:
        size = trait.list_size
        plain = st.lists(plain, min_size=size or 0, max_size=ITEMS_MAX if size is None else size)
    return st.none() | plain if trait.nullable else plain


def _values(type_: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_boolean(type_):
        return st.booleans()
    if pa.types.is_integer(type_):
        bounds = np.iinfo(type_.to_pandas_dtype())
        low, high = int(bounds.min), int(bounds.max)
        return st.sampled_from([low, high, 0, 1]) | st.integers(0, 100) | st.integers(low, high)
    if pa.types.is_floating(type_):
        return st.sampled_from([0.0, -0.0, 1.5]) | st.floats(width=32 if type_ == pa.float32() else 64)
    if pa.types.is_timestamp(type_):
        edges = st.sampled_from([EARLIEST_TS, LATEST_TS, 0, -1])
        return edges | st.integers(EARLIEST_TS, LATEST_TS)
    return st.sampled_from(["", "like", "share"]) | TEXT


def column(trait: Trait, drawn: list[Any]) -> pa.Array:
    """Drawn values as a column of the trait's type."""
    if pa.types.is_timestamp(trait.type):
        return pa.array(drawn, pa.int64()).view(trait.type)
    plain = pa.array(drawn, trait.value_type, from_pandas=False)
    if trait.is_list:
        return _with_codes(plain, trait) if pa.types.is_dictionary(trait.type.value_type) else plain
    if pa.types.is_dictionary(trait.type):
        return plain.dictionary_encode().cast(trait.type)
    return plain


def _with_codes(lists: pa.Array, trait: Trait) -> pa.Array:
    """Lists with their items as a dictionary; Arrow casts only those of text."""
    items, mask = lists.values.dictionary_encode().cast(trait.type.value_type), lists.is_null()
    if trait.list_size is not None:
        return pa.FixedSizeListArray.from_arrays(items, trait.list_size, mask=mask)
    return pa.ListArray.from_arrays(lists.offsets, items, mask=mask)


@st.composite
def events(
    draw: st.DrawFn,
    schema: Schema,
    *,
    min_size: int = 0,
    max_size: int = 30,
    start: int = 0,
    ticks: int = 12,
    tick: int = 1,
    ingest_time: bool = True,
) -> pa.Table:
    """Events of a schema, in any order: user_id, event_ts, the traits and, unless refused, ingest_ts."""
    size = draw(st.integers(min_size, max_size))
    event_ts = draw(st.lists(times(start=start, ticks=ticks, tick=tick), min_size=size, max_size=size))
    columns = {
        "user_id": pa.array(draw(st.lists(user_ids(schema), min_size=size, max_size=size)), schema.user_id),
        "event_ts": pa.array(event_ts, pa.int64()).view(TIME_TYPE),
    }
    if ingest_time:
        # mostly on time, sometimes late, and now and then known before it happened
        delays = st.sampled_from([0, 0, 0, tick, 3 * tick, 2 * ticks * tick, -tick])
        delay = draw(st.lists(delays, min_size=size, max_size=size))
        ingest_ts = [min(max(t + d, EARLIEST_TS), LATEST_TS) for t, d in zip(event_ts, delay, strict=True)]
        columns["ingest_ts"] = pa.array(ingest_ts, pa.int64()).view(TIME_TYPE)
    for trait in schema:
        # a column with no value at all is a case of its own
        empty = trait.nullable and draw(st.integers(0, 9)) == 0
        drawn = [None] * size if empty else draw(st.lists(values(trait), min_size=size, max_size=size))
        columns[trait.name] = column(trait, drawn)
    return pa.table(columns)


@st.composite
def requests(
    draw: st.DrawFn,
    schema: Schema,
    *,
    min_size: int = 0,
    max_size: int = 10,
    start: int = 0,
    ticks: int = 12,
    tick: int = 1,
) -> pa.Table:
    """Requests of the users of `events`, at times of the same clock, with a feature and a label."""
    size = draw(st.integers(min_size, max_size))
    moments = times(start=start, ticks=ticks + 2, tick=tick)
    return pa.table(
        {
            "user_id": pa.array(draw(st.lists(user_ids(schema), min_size=size, max_size=size)), schema.user_id),
            "request_ts": pa.array(draw(st.lists(moments, min_size=size, max_size=size)), pa.int64()).view(TIME_TYPE),
            "request": pa.array(range(size), pa.int32()),
            "label": pa.array(draw(st.lists(st.none() | st.booleans(), min_size=size, max_size=size)), pa.bool_()),
        }
    )


@st.composite
def projections(draw: st.DrawFn, schema: Schema, *, max_len: int = 8) -> dict[str, Any]:
    """Keyword arguments of projections that a schema's store can serve."""
    names = ["event_ts", *(trait.name for trait in schema)]
    chosen: dict[str, Any] = {"max_len": draw(st.none() | st.integers(0, max_len))}
    by_group = bool(schema.groups) and draw(st.sampled_from([False, True]))
    if by_group:
        groups = draw(st.lists(st.sampled_from(list(schema.groups)), unique=True, min_size=1))
        chosen["groups"], names = groups, [trait.name for group in groups for trait in schema.groups[group]]
    elif (traits := draw(st.none() | st.lists(st.sampled_from(names), unique=True))) is not None:
        chosen["traits"] = names = traits
    with_ids = [trait.name for trait in schema if trait.name in names and _has_ids(trait)]
    if with_ids:
        chosen["ids"] = draw(st.lists(st.sampled_from(with_ids), unique=True))
    return chosen


def conditions(schema: Schema, *, start: int = 0, ticks: int = 12) -> st.SearchStrategy[Condition]:
    """Conditions on a schema's traits and event_ts, of a few comparisons, with values that events have and others."""
    leaves = [_comparisons(col(EVENT_TS), times(start=start, ticks=ticks))]
    for trait in schema:
        leaves.append(st.just(col(trait.name).is_null()))
        if not trait.is_list:
            leaves.append(_comparisons(col(trait.name), _compared_with(trait.item_type)))
    return st.recursive(
        st.one_of(leaves),
        lambda inner: st.builds(And, inner, inner) | st.builds(Or, inner, inner) | st.builds(Not, inner),
        max_leaves=5,
    )


def _comparisons(column: col, value: st.SearchStrategy[Any]) -> st.SearchStrategy[Condition]:
    compared = st.tuples(st.sampled_from(list(OPERATORS)), value).map(lambda pair: OPERATORS[pair[0]](column, pair[1]))
    return compared | st.lists(value, max_size=3).map(column.is_in)


def _compared_with(type_: pa.DataType) -> st.SearchStrategy[Any]:
    """Values that a trait's may be compared with: of numbers also those that its type cannot hold."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_integer(type_):
        return _values(type_) | st.sampled_from([0.5, -1.5, 1e300, 2**70, -(2**70), float("inf"), float("nan")])
    if pa.types.is_floating(type_):
        return _values(type_) | st.sampled_from([0, -1, 10**400, 0.1])
    return _values(type_)


@st.composite
def streams(draw: st.DrawFn, schema: Schema, *, start: int = 0, max_len: int = 8) -> dict[str, Any]:
    """Keyword arguments of projections with streams that a schema's store can serve."""
    chosen = draw(projections(schema, max_len=max_len))
    kinds = st.builds(last, st.integers(0, 5) | st.just(1_000), st.none() | conditions(schema, start=start))
    chosen["streams"] = draw(st.dictionaries(st.sampled_from(["a", "b", "c"]), kinds, min_size=1))
    chosen["scan"] = draw(st.none() | st.integers(0, 20))
    return chosen


def _has_ids(trait: Trait) -> bool:
    return trait.coded and pa.types.is_integer(trait.item_type)
