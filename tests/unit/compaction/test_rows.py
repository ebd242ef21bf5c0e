"""Rows after merging: what suppressions name, what is too old or too many, against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column
from latewood.compaction.rows import Rows, expired, marked
from latewood.events import NEVER, Suppressions
from latewood.users import UserKeys

EVENT = st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 2))  # event_ts, ingest_ts - event_ts, ordinal
USERS = st.lists(st.sets(EVENT, max_size=20), max_size=4)


def rows_of(users: list[set[tuple[int, int, int]]]) -> Rows:
    flat = [event for user in users for event in sorted(user)]
    columns = [Column(np.array([event[i] for event in flat], dtype)) for i, dtype in enumerate(("i8", "i8", "i4"))]
    return Rows(np.cumsum([0, *map(len, users)]), columns)


def keys_of(users: list[int]) -> UserKeys:
    return UserKeys(np.array(users, np.uint64) // np.uint64(2), np.array(users, np.uint64) % np.uint64(2))


@given(USERS, st.lists(st.tuples(st.integers(0, 4), EVENT, st.integers(10, 20))))
def test_a_suppression_marks_the_event_it_names_and_no_other(
    users: list[set[tuple[int, int, int]]], named: list[tuple[int, tuple[int, int, int], int]]
) -> None:
    columns = [np.array([event[i] for _, event, _ in named], dtype) for i, dtype in enumerate(("i8", "i8", "i4"))]
    at = np.array([at for *_, at in named], np.int64)
    keys = keys_of([user for user, *_ in named])
    suppressions = Suppressions(keys, columns[0], columns[0] + columns[1], columns[2], at)
    rows = marked(rows_of(users), keys_of(list(range(len(users)))), suppressions)
    found = [NEVER] * sum(map(len, users)) if rows.superseded_at is None else rows.superseded_at.tolist()
    assert found == [
        min((at for of, place, at in named if (of, place) == (user, event)), default=NEVER)
        for user, events in enumerate(users)
        for event in sorted(events)
    ]


def test_an_earlier_mark_stays() -> None:
    rows = Rows(np.array([0, 1]), rows_of([{(1, 0, 0)}]).columns, np.array([7]))
    one = np.ones(1, np.int64)
    for at in (5, 9):
        rows = marked(rows, keys_of([0]), Suppressions(keys_of([0]), one, one, np.zeros(1, np.int32), at * one))
        assert rows.superseded_at is not None
        assert rows.superseded_at.tolist() == [5]


@given(USERS, st.none() | st.integers(-1, 7), st.none() | st.integers(1, 22), st.data())
def test_what_expires_is_a_prefix_that_ends_between_times(
    users: list[set[tuple[int, int, int]]], horizon: int | None, max_events: int | None, data: st.DataObject
) -> None:
    complete = np.array([data.draw(st.booleans()) for _ in users], np.bool_)
    gone = expired(rows_of(users), complete, horizon, max_events)
    expected = []
    for user, is_complete in zip(users, complete, strict=True):
        times = [event_ts for event_ts, *_ in sorted(user)]
        oldest = horizon if horizon is not None else -1
        if max_events is not None and len(times) > max_events:
            oldest = max(oldest, times[-max_events])
        expected += [bool(is_complete and event_ts < oldest) for event_ts in times]
    assert (gone.tolist() if gone is not None else [False] * len(expected)) == expected
    rows = rows_of(users)
    if gone is not None:
        left = rows.without(gone)
        assert left.event_ts.tolist() == rows.event_ts[~gone].tolist()
        assert np.diff(left.offsets).tolist() == [
            int((~gone[start:stop]).sum()) for start, stop in zip(rows.offsets[:-1], rows.offsets[1:], strict=True)
        ]
