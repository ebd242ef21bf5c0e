"""Conditions: what they say of every type, of nulls and of extremes, and what they refuse."""

import operator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.conditions import And, Comparison, Condition, IsIn, IsNull, Not, Or, col
from latewood.errors import SchemaError
from latewood.schema import Schema

SCHEMA = Schema(
    user_id=pa.int64(),
    traits=pa.schema(
        [
            ("action", pa.dictionary(pa.int32(), pa.string())),
            ("label", pa.string()),
            ("kind", pa.dictionary(pa.int32(), pa.int64())),
            ("watch_ms", pa.int32()),
            ("like", pa.bool_()),
            ("score", pa.float32()),
            ("seen_at", pa.timestamp("us")),
        ]
    ),
)
OPS = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def compare(op: str, name: str, value: Any) -> Comparison:
    return OPS[op](col(name), value)


def evaluate(condition: Condition, **columns: Any) -> list[bool]:
    kept = condition.evaluate(
        {name: c if isinstance(c, pa.Array | pa.ChunkedArray) else pa.array(c) for name, c in columns.items()}
    )
    assert kept.dtype == np.bool_
    return kept.tolist()


@pytest.mark.parametrize(
    ("op", "kept"),
    [
        ("==", [False, True, False, False]),
        ("!=", [True, False, True, False]),
        ("<", [True, False, False, False]),
        ("<=", [True, True, False, False]),
        (">", [False, False, True, False]),
        (">=", [False, True, True, False]),
    ],
)
def test_a_comparison_with_null_is_false(op: str, kept: list[bool]) -> None:
    assert evaluate(compare(op, "x", 2), x=pa.array([1, 2, 3, None], pa.int32())) == kept
    assert evaluate(compare(op, "x", 2.0), x=pa.array([1, 2, 3, None], pa.float64())) == kept
    assert evaluate(compare(op, "x", "b"), x=["a", "b", "c", None]) == kept
    assert evaluate(compare(op, "x", "b"), x=pa.array(["a", "b", "c", None]).dictionary_encode()) == kept
    assert evaluate(compare(op, "x", 2), x=pa.array([1, 2, 3, None], pa.int64()).dictionary_encode()) == kept


def test_not_is_the_boolean_not_of_the_result() -> None:
    x = pa.array([1, 2, None])
    assert evaluate(~(col("x") == 1), x=x) == [False, True, True]
    assert evaluate(~~(col("x") == 1), x=x) == [True, False, False]


def test_and_or_in_combination() -> None:
    columns = {"x": pa.array([1, 2, 3, None]), "y": pa.array(["a", "b", None, "a"])}
    assert evaluate((col("x") > 1) & (col("y") == "b"), **columns) == [False, True, False, False]
    assert evaluate((col("x") > 2) | (col("y") == "a"), **columns) == [True, False, True, True]
    assert evaluate(((col("x") > 2) | (col("y") == "a")) & ~col("x").is_null(), **columns) == [True, False, True, False]


def test_is_in_and_is_null() -> None:
    assert evaluate(col("x").is_in([1, 3, 99]), x=pa.array([1, 2, 3, None], pa.int8())) == [True, False, True, False]
    assert evaluate(col("x").is_in(["a", "ü"]), x=["ü", None, "b", "a"]) == [True, False, False, True]
    assert evaluate(col("x").is_in([]), x=[1, None]) == [False, False]
    assert evaluate(col("x").is_in({"a"}), x=pa.array(["a", None, "b"]).dictionary_encode()) == [True, False, False]
    assert evaluate(col("x").is_null(), x=pa.array(["a", None]).dictionary_encode()) == [False, True]
    assert evaluate(col("x").is_null(), x=pa.nulls(2, pa.float32())) == [True, True]


def test_a_null_inside_a_dictionary_is_a_null() -> None:
    x = pa.DictionaryArray.from_arrays(pa.array([0, 1, None], pa.int32()), pa.array(["a", None]))
    assert evaluate(col("x") != "b", x=x) == [True, False, False]


def test_nan_compares_as_in_ieee() -> None:
    x = pa.array([float("nan"), 1.0, float("inf"), None], from_pandas=False)
    assert evaluate(col("x") == float("nan"), x=x) == [False] * 4
    assert evaluate(col("x") != 1.0, x=x) == [True, False, True, False]
    assert evaluate(col("x") < float("inf"), x=x) == [False, True, False, False]


def test_float32_compares_as_float32() -> None:
    x = pa.array([0.1, 3.4e38], pa.float32())
    assert evaluate(col("x") == 0.1, x=x) == [True, False]
    assert evaluate(col("x") < 1e300, x=x) == [True, True]
    assert evaluate(col("x") > -(10**400), x=x) == [True, True]


def test_flags_are_compared_with_flags() -> None:
    assert evaluate(col("x") == True, x=[True, False, None]) == [True, False, False]  # noqa: E712
    assert evaluate(col("x") != True, x=[True, False, None]) == [False, True, False]  # noqa: E712


@pytest.mark.parametrize("type_", [pa.timestamp("s"), pa.timestamp("us", "UTC"), pa.timestamp("ms", "Europe/Berlin")])
def test_times_are_compared_with_datetimes_and_us(type_: pa.DataType) -> None:
    x = pa.array([-1, 0, 1, None], pa.timestamp("s")).cast(type_.unit and pa.timestamp(type_.unit)).view(type_)
    assert evaluate(col("x") < 0, x=x) == [True, False, False, False]
    assert evaluate(col("x") >= datetime(1970, 1, 1), x=x) == [False, True, True, False]  # noqa: DTZ001
    east = datetime(1970, 1, 1, 2, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    assert evaluate(col("x") == east, x=x) == [False, False, True, False]
    assert evaluate(col("x") == np.datetime64("1970-01-01T00:00:01", "ns"), x=x) == [False, False, True, False]
    assert evaluate(col("x") == pa.scalar(datetime(1970, 1, 1, tzinfo=UTC)), x=x) == [False, True, False, False]


INTS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
BIG = st.sampled_from([2**63, 2**64, -(2**63) - 1, 2**53 + 1, 10**30]) | st.integers(-300, 300)
NUMBERS = (
    BIG
    | st.floats(-300, 300)
    | st.sampled_from([0.5, -0.5, 2.0**53, 2.0**63, float("inf"), -float("inf"), float("nan")])
)


@given(st.data(), st.sampled_from(INTS), st.sampled_from(list(OPS)), NUMBERS)
def test_integers_compare_exactly_with_any_number(
    data: st.DataObject, type_: pa.DataType, op: str, value: float
) -> None:
    bounds = np.iinfo(type_.to_pandas_dtype())
    near = [k for k in (int(bounds.min), int(bounds.max), 2**53 + 1, 0, -1, 1) if bounds.min <= k <= bounds.max]
    numbers = data.draw(
        st.lists(st.none() | st.sampled_from(near) | st.integers(int(bounds.min), int(bounds.max)), max_size=6)
    )
    expected = [k is not None and OPS[op](k, value) for k in numbers]  # Python compares int and float exactly
    assert evaluate(compare(op, "x", value), x=pa.array(numbers, type_)) == expected


def test_tables_batches_and_chunks() -> None:
    table = pa.table({"x": pa.chunked_array([[1], [2, 3]]), "y": ["a", "b", "c"]})
    condition = (col("x") >= 2) & (col("y") != "c")
    assert condition.evaluate(table).tolist() == [False, True, False]
    assert condition.evaluate(table.combine_chunks().to_batches()[0]).tolist() == [False, True, False]
    assert condition.evaluate(table.slice(1)).tolist() == [True, False]
    assert condition.evaluate(table.slice(0, 0)).tolist() == []
    assert evaluate(col("x") == "a", x=pa.array(["a", "b"], pa.large_string())) == [True, False]


def test_a_condition_can_be_looked_into() -> None:
    condition = (col("action") == "like") & ~(col("score").is_null() | col("watch_ms").is_in([1, 2]))
    assert condition.names == {"action", "score", "watch_ms"}
    assert (
        repr(condition)
        == "((lw.col('action') == 'like') & ~(lw.col('score').is_null() | lw.col('watch_ms').is_in([1, 2])))"
    )
    expected = And(Comparison("action", "==", "like"), Not(Or(IsNull("score"), IsIn("watch_ms", (1, 2)))))
    assert condition.__eq__(expected) is True
    assert hash(condition) == hash(expected)
    with pytest.raises(AttributeError):
        condition.left = expected  # type: ignore[attr-defined]


def test_repr_is_python_that_makes_the_same_condition() -> None:
    class lw:  # noqa: N801
        col = col

    for condition in ((col("a") >= 1.5) | ~(col("b") != "é'"), col("c") < datetime(2020, 1, 1, tzinfo=UTC)):
        again = eval(repr(condition), {"lw": lw, "datetime": __import__("datetime")})
        assert again.__eq__(condition) is True


@pytest.mark.parametrize(
    "condition",
    [
        col("action") == "like",
        col("label") < "x",
        col("kind") == 3,
        col("watch_ms") >= 0.5,
        col("like") == False,  # noqa: E712
        col("score") > 1,
        col("seen_at") < datetime(2020, 1, 1, tzinfo=UTC),
        col("event_ts") >= 5,
        col("label").is_in(["a"]) & ~col("score").is_null() | (col("kind") != 2),
    ],
    ids=repr,
)
def test_validate_accepts(condition: Condition) -> None:
    condition.validate(SCHEMA)


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (col("nope") == 1, "unknown trait 'nope'"),
        (col("nope").is_null(), "unknown trait 'nope'"),
        (col("watch_ms") == "1", "'watch_ms' is int32"),
        (col("action") == 1, "'action' is string"),
        (col("kind") == "1", "'kind' is int64"),
        (col("like") == 1, "'like' is bool"),
        (col("watch_ms") == True, "'watch_ms' is int32"),  # noqa: E712
        (col("score") == datetime(2020, 1, 1, tzinfo=UTC), "'score' is float"),
        (col("seen_at") < 1.5, "'seen_at' is timestamp"),
        (col("event_ts") == "2020-01-01", "'event_ts' is timestamp"),
        (col("label").is_in(["a", 2]), "'label' is string"),
        ((col("label") == "a") & ~((col("label") == "b") | (col("user_id") == 1)), "unknown trait 'user_id'"),
    ],
    ids=repr,
)
def test_validate_refuses_and_names_the_trait(condition: Condition, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        condition.validate(SCHEMA)


def test_evaluate_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(SchemaError, match="needs column 'y'; there are: x"):
        evaluate(col("y") == 1, x=[1])
    with pytest.raises(SchemaError, match="'x' is int64"):
        evaluate(col("x") == "a", x=[1])
    with pytest.raises(SchemaError, match="'x' is string"):
        evaluate(col("x").is_in([1]), x=["a"])


def test_none_and_foreign_values_are_refused_at_once() -> None:
    with pytest.raises(SchemaError, match="is_null"):
        col("x") == None  # noqa: B015, E711
    with pytest.raises(SchemaError, match="is_null"):
        col("x").is_in([1, None])
    with pytest.raises(SchemaError, match="a list, not one string"):
        col("x").is_in("abc")
    with pytest.raises(SchemaError, match="not b'x'"):
        col("x") == b"x"  # noqa: B015
    with pytest.raises(SchemaError, match="trait's name"):
        col(3)  # type: ignore[arg-type]


def test_python_s_and_or_not_are_refused() -> None:
    with pytest.raises(TypeError, match=r"use & \| ~"):
        (col("x") == 1) and (col("y") == 2)
    with pytest.raises(TypeError, match=r"use & \| ~"):
        1 < col("x") < 3  # noqa: B015
    with pytest.raises(TypeError, match="not a condition"):
        (col("x") == 1) & 2  # type: ignore[operator]
    with pytest.raises(TypeError, match="compare it with a value"):
        not col("x")


def test_text_that_cannot_be_stored_is_refused() -> None:
    for compare in (lambda: col("x") == "\udcff", lambda: col("x").is_in(["a", "\udcff"])):
        with pytest.raises(SchemaError, match="which is not text"):
            compare()


def test_is_in_takes_several() -> None:
    with pytest.raises(SchemaError, match="not 5"):
        col("x").is_in(5)  # type: ignore[arg-type]
