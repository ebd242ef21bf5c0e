"""Runs of events: taking rows, putting runs together, and the total order."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column
from latewood.events import Events, concat_events
from latewood.users import user_keys


def run(rows: list[tuple[int, int, int, int]], traits: dict[int, Column] | None = None) -> Events:
    user, event_ts, ingest_ts, ordinal = np.array(rows, np.int64).reshape(-1, 4).T
    users = pa.array(user)
    return Events(users, user_keys(users), event_ts, ingest_ts, ordinal.astype(np.int32), traits or {})


ROW = st.tuples(st.integers(-2, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))


@given(st.lists(ROW, unique=True))
def test_the_order_is_by_user_key_and_then_total(rows: list[tuple[int, int, int, int]]) -> None:
    events = run(rows)
    ordered = events.take(events.order())
    keys = user_keys(pa.array([row[0] for row in rows], pa.int64()))
    hash_of = dict(zip([row[0] for row in rows], keys.hash.tolist(), strict=True))
    expected = sorted(rows, key=lambda row: (hash_of[row[0]], *row[1:]))
    columns = (ordered.user_ids.to_numpy(), ordered.event_ts, ordered.ingest_ts, ordered.ordinal)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_take_takes_every_column() -> None:
    traits = {0: Column(np.array([1, 2, 3])), 7: Column(np.array([4, 0, 6], np.int8), np.array([False, True, False]))}
    taken = run([(1, 1, 1, 0), (2, 2, 2, 0), (3, 3, 3, 0)], traits).take(np.array([2, 1]))
    assert taken.user_ids.to_pylist() == [3, 2]
    assert taken.keys.hash.tolist() == user_keys(pa.array([3, 2])).hash.tolist()
    assert taken.traits[0].values.tolist() == [3, 2]
    assert taken.traits[0].mask is None
    assert taken.traits[7].values.tolist() == [6, 0]
    assert taken.traits[7].mask is not None
    assert taken.traits[7].mask.tolist() == [False, True]


def test_a_trait_that_a_part_lacks_is_null_there() -> None:
    first = run([(1, 1, 1, 0)], {0: Column(np.array([5], np.int16))})
    second = run(
        [(2, 2, 2, 0), (3, 3, 3, 1)], {0: Column(np.array([6, 7], np.int16)), 1: Column(np.array([True, False]))}
    )
    both = concat_events([first, second])
    assert len(both) == 3
    assert both.ordinal.tolist() == [0, 0, 1]
    assert both.traits[0].values.dtype == np.int16
    assert both.traits[0].mask is None
    assert both.traits[1].values.tolist() == [False, True, False]
    assert both.traits[1].mask is not None
    assert both.traits[1].mask.tolist() == [True, False, False]
    assert concat_events([first]) is first


def test_masks_of_some_parts_hold_for_their_rows_only() -> None:
    plain = run([(1, 1, 1, 0)], {0: Column(np.array([5]))})
    masked = run([(1, 2, 2, 0)], {0: Column(np.array([0]), np.array([True]))})
    mask = concat_events([plain, masked, plain]).traits[0].mask
    assert mask is not None
    assert mask.tolist() == [False, True, False]


def test_stamped_replaces_what_the_store_gives() -> None:
    events = run([(1, 1, 0, 0), (1, 2, 0, 0)])
    stamped = events.stamped(np.array([8, 9]), np.array([1, 2], np.int32))
    assert stamped.ingest_ts.tolist() == [8, 9]
    assert stamped.ordinal.tolist() == [1, 2]
    assert stamped.event_ts is events.event_ts
    assert events.ingest_ts.tolist() == [0, 0]
