"""The total order: against a plain sort, with ties, collisions and places given by arrival."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column, Lists, compact_lists
from latewood.compaction.merge import UNPLACED, arrange, gather, merge_order
from latewood.events import Events
from latewood.users import UserKeys
from made_columns import cells

ROW = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 3), st.integers(0, 2))


def events_of(rows: list[tuple[int, int, int, int]], ordinal: list[int]) -> Events:
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    hash_, check = (np.array(column, np.uint64) for column in columns[:2])
    event_ts, ingest_ts = (np.array(column, np.int64) for column in columns[2:])
    arrival = Column(np.arange(len(rows), dtype=np.int32))
    ids = pa.array([h * 10 + c for h, c, *_ in rows], pa.int64())
    return Events(ids, UserKeys(hash_, check), event_ts, ingest_ts, np.array(ordinal, np.int32), {0: arrival})


def rows_of(events: Events) -> list[tuple[int, ...]]:
    columns = (*events.keys, events.event_ts, events.ingest_ts, events.ordinal)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(st.lists(ROW))
def test_unplaced_events_get_their_place_by_arrival(rows: list[tuple[int, int, int, int]]) -> None:
    seen: dict[tuple[int, ...], int] = {}
    expected = []
    for row in rows:
        expected.append((*row, seen.setdefault(row, 0)))
        seen[row] += 1
    arranged = arrange(events_of(rows, [UNPLACED] * len(rows)))
    assert rows_of(arranged) == sorted(expected)
    if rows:
        arrival = arranged.traits[0].values.tolist()
        assert [expected[i] for i in arrival] == sorted(expected)


@given(st.lists(st.tuples(ROW, st.booleans())))
def test_placed_events_keep_their_place_and_the_others_come_after(
    drawn: list[tuple[tuple[int, int, int, int], bool]],
) -> None:
    rows, placed = [row for row, _ in drawn], [is_placed for _, is_placed in drawn]
    taken: dict[tuple[int, ...], int] = {}
    ordinal = []
    for row, is_placed in zip(rows, placed, strict=True):
        taken[row] = taken.get(row, 0) + is_placed
        ordinal.append(taken[row] - 1 if is_placed else UNPLACED)
    expected = []
    for row, place in zip(rows, ordinal, strict=True):
        if place == UNPLACED:
            place = taken[row]
            taken[row] += 1
        expected.append((*row, place))
    assert rows_of(arrange(events_of(rows, ordinal))) == sorted(expected)


def test_a_place_is_after_the_last_one_taken_wherever_that_is() -> None:
    tie = (1, 0, 5, 5)
    arranged = arrange(events_of([tie] * 4, [UNPLACED, 7, UNPLACED, 3]))
    assert (arranged.ordinal.tolist(), arranged.traits[0].values.tolist()) == ([3, 7, 8, 9], [3, 1, 0, 2])


EVENT = st.tuples(st.integers(0, 4), st.integers(-2, 2), st.integers(0, 3))
USER = st.dictionaries(EVENT, st.booleans())  # an event, and whether it is an old one


@given(st.lists(USER, max_size=4))
def test_merge_order_is_a_sort(users: list[dict[tuple[int, int, int], bool]]) -> None:
    runs = []
    for side in (True, False):
        parts = [sorted(event for event, is_old in user.items() if is_old == side) for user in users]
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        flat = [event for part in parts for event in part]
        columns = [
            np.array([event[i] for event in flat], dtype) for i, dtype in enumerate((np.int64, np.int64, np.int32))
        ]
        runs.append((offsets, columns, flat))
    (old_offsets, old, old_flat), (new_offsets, new, new_flat) = runs
    order = merge_order(old_offsets, new_offsets, *old, *new)
    assert [(old_flat + new_flat)[i] for i in order] == [event for user in users for event in sorted(user)]


def test_an_event_on_both_sides_is_noticed() -> None:
    offsets = np.array([0, 1], np.int64)
    one = (np.array([5], np.int64), np.array([0], np.int64), np.array([0], np.int32))
    assert merge_order(offsets, offsets, *one, *one)[0] == -1


@pytest.mark.parametrize("masked", [(False, False), (True, False), (False, True)])
def test_gather_keeps_nulls(masked: tuple[bool, bool]) -> None:
    old = Column(np.array([1, 0]), np.array([False, True]) if masked[0] else None)
    new = Column(np.array([0, 4]), np.array([True, False]) if masked[1] else None)
    merged = gather(old, new, np.array([2, 0, 3, 1]))
    assert merged.values.tolist() == [0, 1, 4, 0]
    expected = [masked[1], False, False, masked[0]]
    assert (merged.mask is None) == (not any(masked))
    assert merged.mask is None or merged.mask.tolist() == expected


def test_gather_leaves_the_items_of_lists_where_they_are() -> None:
    old = Lists(np.array([7, 8, 9]), np.array([1, 0]), np.array([2, 0], np.int32), np.array([False, True]))
    new = compact_lists(np.array([1, 2, 3]), np.array([0, 3], np.int32))
    merged = gather(old, new, np.array([3, 0, 2, 1]))
    assert cells(merged) == [(1, 2, 3), (8, 9), (), None]
