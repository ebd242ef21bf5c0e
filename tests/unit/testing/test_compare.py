"""Tables compared row by row, bit for bit."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.errors import SchemaError
from latewood.schema import Schema
from latewood.testing import different_rows
from latewood.testing.strategies import TRAIT_TYPES, column, values

LISTS = pa.struct([("x", pa.list_(pa.float32())), ("s", pa.list_(pa.string()))])


def table(*rows: Any, type_: pa.DataType = LISTS) -> pa.Table:
    return pa.table({"id": range(len(rows)), "history": pa.array(rows, type_)})


def test_the_same_is_the_same_however_it_is_chunked() -> None:
    rows = [{"x": [1.0, None], "s": ["ü", ""]}, {"x": [], "s": []}, {"x": [float("nan")], "s": [None]}]
    whole = table(*rows)
    parts = pa.concat_tables([whole.slice(0, 1), whole.slice(1, 0), whole.slice(1)])
    assert different_rows(parts, whole).tolist() == []
    assert different_rows(whole.slice(1), parts.slice(1)).tolist() == []
    assert different_rows(whole.slice(0, 0), parts.slice(3)).tolist() == []


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"x": [1.0], "s": []}, {"x": [2.0], "s": []}),
        ({"x": [0.0], "s": []}, {"x": [-0.0], "s": []}),
        ({"x": [1.0], "s": []}, {"x": [1.0, 1.0], "s": []}),
        ({"x": [1.0], "s": []}, {"x": [None], "s": []}),
        ({"x": [0.0], "s": []}, {"x": [None], "s": []}),
        ({"x": [], "s": []}, {"x": None, "s": []}),
        ({"x": [], "s": [""]}, {"x": [], "s": [None]}),
        ({"x": [], "s": ["a", "b"]}, {"x": [], "s": ["b", "a"]}),
        ({"x": [], "s": []}, None),
    ],
    ids=str,
)
def test_a_difference_is_found_in_its_row(left: Any, right: Any) -> None:
    same = {"x": [5.0, 6.0], "s": ["z"]}
    assert different_rows(table(same, left, same), table(same, right, same)).tolist() == [1]
    assert different_rows(table(right, same, left), table(left, same, right)).tolist() == [0, 2]


@given(st.data(), st.sampled_from(TRAIT_TYPES))
def test_one_changed_value_of_any_type_is_found(data: st.DataObject, type_: pa.DataType) -> None:
    trait = Schema(user_id=pa.int64(), traits=pa.schema([("x", type_)]))["x"]
    drawn = data.draw(st.lists(values(trait), min_size=1, max_size=8))
    whole = pa.table({"x": column(trait, drawn)})
    assert different_rows(whole, whole.take(pa.array(range(len(whole))))).tolist() == []
    row = data.draw(st.integers(0, len(drawn) - 1))
    other = [value if k != row else None if value is not None else drawn[0] for k, value in enumerate(drawn)]
    if other[row] is not None or drawn[row] is not None:
        assert different_rows(pa.table({"x": column(trait, other)}), whole).tolist() == [row]


def test_what_cannot_be_compared_is_refused() -> None:
    one = pa.table({"x": [1]})
    for other, message in [
        (pa.table({"y": [1]}), "columns"),
        (pa.table({"x": [1.0]}), "'x' is int64, expected double"),
        (pa.table({"x": [1, 2]}), "1 rows, expected 2"),
    ]:
        with pytest.raises(SchemaError, match=message):
            different_rows(one, other)


def test_large_tables_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latewood.testing.compare._ROWS_AT_ONCE", 3)
    x = np.arange(10)
    y = x.copy()
    y[[0, 4, 9]] = -1
    assert different_rows(pa.table({"x": x}), pa.table({"x": y})).tolist() == [0, 4, 9]
