"""Requests as they come in: tables of any make, one after another."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.capture import read_requests
from latewood.errors import SchemaError
from latewood.schema import Schema
from latewood.users import user_keys

INTEGERS = Schema(user_id=pa.int64(), traits=[("item", pa.int64())])
TEXTS = Schema(user_id=pa.string(), traits=[("item", pa.int64())])


@pytest.mark.parametrize(
    ("schema", "users"),
    [
        (INTEGERS, pa.array([0, -1, 2**63 - 1, -(2**63)])),
        (INTEGERS, pa.array([7, 8, 255], pa.uint8())),
        (INTEGERS, pa.chunked_array([[1, 2], [], [3]])),
        (INTEGERS, pa.array([5, 6, 7, 8]).slice(2)),
        (INTEGERS, pa.array([], pa.int64())),
        (TEXTS, pa.array(["ada", "", "çelik", "ada"])),
        (TEXTS, pa.array([], pa.string())),
    ],
)
def test_users_have_the_keys_that_they_have_everywhere(schema: Schema, users: Any) -> None:
    requests = read_requests(pa.table({"request_ts": pa.array([9] * len(users), pa.int64()), "user_id": users}), schema)
    whole = pa.concat_arrays(users.chunks) if isinstance(users, pa.ChunkedArray) else users
    wanted = user_keys(whole.cast(schema.user_id))
    assert [half.tolist() for half in requests.keys] == [half.tolist() for half in wanted]
    assert (len(requests), requests.end_ts.tolist()) == (len(users), [9] * len(users))


def test_requests_of_another_make_may_follow() -> None:
    """What is remembered of a table's columns is of that table's alone."""
    place = pa.array([{"ingest_ts": 5, "ordinal": 2}])
    tables: list[dict[str, Any]] = [
        {"user_id": [1], "request_ts": [10]},
        {"request_ts": [20], "user_id": [2]},
        {"label": [0.5], "user_id": [3], "request_ts": [30]},
        {"user_id": [4], "anchor": place, "request_ts": [40]},
        {"user_id": [1], "request_ts": [10]},
    ]
    for table in tables:
        requests = read_requests(pa.table(table), INTEGERS)
        assert requests.end_ts.tolist() == table["request_ts"]
        assert requests.keys.hash.tolist() == user_keys(pa.array(table["user_id"])).hash.tolist()
        assert requests.is_anchor.tolist() == ["anchor" in table]
        assert requests.features.column_names == [name for name in table if name != "anchor"]
    with pytest.raises(SchemaError, match="'uih', which their examples get"):
        read_requests(pa.table({"user_id": [1], "request_ts": [10], "uih": [1]}), INTEGERS)
    assert len(read_requests(pa.table(tables[0]), INTEGERS)) == 1


def test_a_schema_that_differs_in_names_only_is_another() -> None:
    given = {"user_id": np.array([1]), "request_ts": np.array([10])}
    read_requests(pa.table(given), INTEGERS)
    with pytest.raises(SchemaError, match="the requests lack the column request_ts; they have: user_id, time"):
        read_requests(pa.table(given).rename_columns(["user_id", "time"]), INTEGERS)
