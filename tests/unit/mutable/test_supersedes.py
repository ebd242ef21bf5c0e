"""What is known of newer versions, as columns."""

import numpy as np

from latewood.events import NEVER
from latewood.mutable import GONE, Newer, Places, StoredTargets
from latewood.mutable.supersedes import first_of_equal


def test_equal_rows_are_found_by_their_first() -> None:
    rng = np.random.default_rng(5)
    columns = [rng.integers(0, 3, 200), rng.integers(0, 3, 200).astype(np.uint64), rng.integers(0, 2, 200)]
    rows = list(zip(*(column.tolist() for column in columns), strict=True))
    assert first_of_equal(*columns).tolist() == [rows.index(row) for row in rows]
    assert first_of_equal(np.zeros(0, np.int64)).tolist() == []


def test_what_was_looked_up_is_of_the_same_rows_and_places() -> None:
    rows = np.array([1, 4])
    places = Places(np.array([5, 6]), np.array([7, 8]), np.array([0, 1], np.int32))
    stored = StoredTargets(9, rows, places, Newer.none(2), np.zeros(2, np.bool_))
    assert stored.are_of(rows, places)
    assert not stored.are_of(rows[:1], places.take(np.array([0])))
    assert not stored.are_of(rows, Places(places.event_ts, places.ingest_ts, places.ordinal + 1))
    assert not StoredTargets.unseen().are_of(rows, places)
    assert (stored.newer.at.tolist(), stored.newer.ordinal.tolist()) == ([NEVER] * 2, [GONE] * 2)
