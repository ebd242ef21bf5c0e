"""Splits lose no request and leak none."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw

REQUEST_TS = np.random.default_rng(1).integers(0, 100, 400)
USERS = pa.array(np.arange(400) % 150, pa.int32())
REQUESTS = pa.table({"user_id": USERS, "request_ts": REQUEST_TS, "row": np.arange(400)})


def rows(table: pa.Table) -> list[int]:
    return table["row"].to_pylist()


@pytest.mark.parametrize("validation", [None, 50, 80])
def test_by_time_each_row_is_in_its_own_part(validation: int | None) -> None:
    train, middle, test = lw.split_by_time(REQUESTS, validation=validation, test=80)
    first = 80 if validation is None else validation
    assert rows(train) == np.flatnonzero(first > REQUEST_TS).tolist()
    assert rows(middle) == np.flatnonzero((first <= REQUEST_TS) & (REQUEST_TS < 80)).tolist()
    assert rows(test) == np.flatnonzero(REQUEST_TS >= 80).tolist()


def test_moments_can_be_times() -> None:
    seconds = pa.table({"request_ts": pa.array([9, 10, 11], pa.timestamp("s")), "row": [0, 1, 2]})
    assert rows(lw.split_by_time(seconds, test=datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC)).test) == [1, 2]


def test_by_user_nobody_is_in_two_parts() -> None:
    parts = lw.split_by_user(REQUESTS, test=0.3, validation=0.2)
    assert sorted(row for part in parts for row in rows(part)) == list(range(400))
    assert all(rows(part) == sorted(rows(part)) for part in parts)
    users = [set(part["user_id"].to_pylist()) for part in parts]
    assert sum(map(len, users)) == 150
    assert all(abs(len(of) - share * 150) < 25 for of, share in zip(users, (0.5, 0.2, 0.3), strict=True))


def test_by_user_is_a_function_of_user_and_seed() -> None:
    test = set(lw.split_by_user(REQUESTS, test=0.3).test["user_id"].to_pylist())
    wide = REQUESTS.set_column(0, "user_id", REQUESTS["user_id"].cast(pa.int64())).slice(17)
    assert set(lw.split_by_user(wide, test=0.3, validation=0.5).test["user_id"].to_pylist()) == test
    assert set(lw.split_by_user(REQUESTS, test=0.3, seed=1).test["user_id"].to_pylist()) != test
    assert sorted(test)[:4] == [1, 4, 6, 8]  # frozen: a run must meet the same users after an upgrade


def test_users_can_have_names() -> None:
    named = pa.table({"user_id": [f"u{i}" for i in range(100)], "row": np.arange(100)})
    train, middle, test = lw.split_by_user(named, test=0.5)
    assert len(train) + len(test) == 100
    assert len(middle) == 0
    assert len(train) > 30 < len(test)


@pytest.mark.parametrize("shares", [{"test": 1.0}, {"test": 0.0}, {"test": 0.0, "validation": 1.0}])
def test_shares_may_be_all_or_nothing(shares: dict[str, float]) -> None:
    sizes = [len(part) for part in lw.split_by_user(REQUESTS, **shares)]
    assert sorted(sizes) == [0, 0, 400]


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(lw.SchemaError, match="begins after"):
        lw.split_by_time(REQUESTS, validation=81, test=80)
    with pytest.raises(lw.SchemaError, match="no column 'request_ts'"):
        lw.split_by_time(REQUESTS.drop_columns(["request_ts"]), test=80)
    for test, validation in ((-0.1, 0.0), (0.6, 0.5), (float("nan"), 0.0)):
        with pytest.raises(lw.SchemaError, match="shares of the users"):
            lw.split_by_user(REQUESTS, test=test, validation=validation)
    with pytest.raises(lw.SchemaError, match="'user_id' has nulls"):
        lw.split_by_user(pa.table({"user_id": pa.array([1, None])}), test=0.5)


def test_a_split_is_of_users_in_whatever_layout() -> None:
    names, ages = [f"u{i}" for i in range(60)], list(range(60))
    texts = [pa.array(names, type_) for type_ in (pa.string(), pa.large_string(), pa.string_view())]
    numbers = [pa.array(ages, type_) for type_ in (pa.int64(), pa.uint64(), pa.int16())]
    for arrays in (texts, numbers):
        layouts = [*arrays, arrays[0].dictionary_encode(), arrays[-1].cast(arrays[0].type).dictionary_encode()]
        tables = [pa.table({"user_id": users, "request_ts": ages, "row": ages}) for users in layouts]
        for split, test in ((lw.split_by_user, 0.5), (lw.split_by_time, 30)):
            one, *others = ([rows(part) for part in split(table, test=test)] for table in tables)
            assert all(other == one for other in others)


def test_what_is_no_user_is_refused() -> None:
    for users, message in [
        (pa.array([1, 2**64 - 1], pa.uint64()), "beyond int64"),
        (pa.array([1.5]), "is double; users are integers or strings"),
        (pa.array([b"a"]), "is binary"),
        (pa.array([5], pa.timestamp("us")), "is timestamp"),
    ]:
        with pytest.raises(lw.SchemaError, match=message):
            lw.split_by_user(pa.table({"user_id": users}), test=0.5)
    assert len(lw.split_by_user(REQUESTS, test=0.5, seed=np.int64(2**63 - 1)).test)
