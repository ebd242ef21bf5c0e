"""Splits of requests or examples into training, validation and test sets: by time, or by user.

By time is what serving does: train on the past, be judged on the future. The histories need no cutting: what a request saw
is fixed by its own time. By user, some users are never trained on at all.
"""

import warnings
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from latewood.clock import doubt_of_unit, look_like_another_unit, show_ts, to_us
from latewood.columns import plain_array, read_table, table_without_views, times_from_arrow
from latewood.errors import SchemaError
from latewood.schema import is_text
from latewood.users import splitmix, user_keys


class Split(NamedTuple):
    """Three tables with the same columns: every row is in one of them, and rows keep their order."""

    train: pa.Table
    validation: pa.Table
    test: pa.Table


def split_by_time(requests: Any, *, test: int | datetime, validation: int | datetime | None = None) -> Split:
    """Split by `request_ts`, the same moment for all users.

    Args:
        requests: any table with `request_ts`, examples too.
        test: when the test set begins; validation: when the validation set does, which ends there. None: there is none.
    Warns: UserWarning: a moment that looks like one in another unit than the requests' times.
    Raises: SchemaError: no such column, or validation after test.
    """
    table = _table(requests, "request_ts")
    last = to_us(test)
    first = last if validation is None else to_us(validation)
    if first > last:
        raise SchemaError(f"validation={validation!r} begins after test={test!r}")
    times = times_from_arrow(table["request_ts"], "request_ts")
    if len(times) and not look_like_another_unit(int(times.min()), int(times.max())):
        for name, moment in (("test", test), ("validation", validation)):
            if moment is not None and times.min() >= to_us(moment) and (doubt := doubt_of_unit(name, moment)):
                message = f"all requests are at or after {name}={show_ts(to_us(moment))}{doubt}"
                warnings.warn(message, UserWarning, stacklevel=2)
                break
    return _split(table, times < first, times >= last)


def split_by_user(requests: Any, *, test: float, validation: float = 0.0, seed: int = 0) -> Split:
    """Split by a hash of `user_id` and seed, each user with all of its requests: the same in every run and every table.

    Args: test, validation: shares of the users, which come out as nearly as chance has it.
    Raises: SchemaError: no such column, or one with nulls or with what is no user's id; shares that are negative or above
        1 together.
    """
    table = _table(requests, "user_id")
    if not (test >= 0 and validation >= 0 and test + validation <= 1):
        raise SchemaError(f"test={test!r} and validation={validation!r} are shares of the users: from 0 to 1 together")
    hashed = user_keys(_user_ids(table["user_id"])).hash ^ splitmix(np.array([(int(seed) + 1) % 2**64], np.uint64))
    # of [0, 1): the test set first, so that another validation leaves it alone
    share = (splitmix(hashed) >> np.uint64(11)) / 2.0**53
    return _split(table, share >= test + validation, share < test)


def _user_ids(column: pa.ChunkedArray) -> pa.Array:
    """As a store has them, int64 or strings, whatever their width or layout here."""
    users = plain_array(column)
    if users.null_count:
        raise SchemaError("column 'user_id' has nulls")
    if is_text(users.type) or (pa.types.is_null(users.type) and not len(users)):
        return users
    try:
        if pa.types.is_integer(users.type):
            return users.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise SchemaError(f"column 'user_id' has integers beyond int64: {error}") from None
    raise SchemaError(f"column 'user_id' is {users.type}; users are integers or strings")


def _split(table: pa.Table, train: Any, test: Any) -> Split:
    return Split(*(table.filter(pa.array(rows)) for rows in (train, ~train & ~test, test)))


def _table(requests: Any, name: str) -> pa.Table:
    table = table_without_views(read_table(requests))
    if name not in table.column_names:
        raise SchemaError(
            f"there is no column {name!r} to split by; columns: {', '.join(table.column_names) or 'none'}"
        )
    return table
