"""The plan: which stripes stay as bytes, which rows are opened, and that every user has a place."""

from collections.abc import Sequence

import numpy as np
import pytest

from latewood.compaction.plan import NOTHING_DUE, Due, OldUsers, Plan, plan_users
from latewood.stripes.layout import STRIPE_EVENTS
from latewood.users import UserKeys


def keys(*pairs: tuple[int, int]) -> UserKeys:
    return UserKeys(np.array([h for h, _ in pairs], np.uint64), np.array([c for _, c in pairs], np.uint64))


def old_users(users: UserKeys, times: Sequence[Sequence[int]], start: int = 0) -> OldUsers:
    counts = [len(t) for t in times]
    stripes = [-(-count // STRIPE_EVENTS) for count in counts]
    first_ts = [t[row] for t in times for row in range(0, len(t), STRIPE_EVENTS)]
    ends = [np.concatenate([[0], np.cumsum(x)]).astype(np.int64) for x in (counts, stripes)]
    return OldUsers(start, users, *ends, np.array(first_ts, np.int64))


def plan_of(old: OldUsers, new: list[tuple[int, int, int]], due: Due = NOTHING_DUE) -> Plan:
    new = sorted(new)
    return plan_users(old, keys(*[(h, c) for h, c, _ in new]), np.array([t for *_, t in new], np.int64), due)


def marks(*targets: tuple[int, int, int]) -> Due:
    return Due(keys(*[(h, c) for h, c, _ in targets]), np.array([t for *_, t in targets], np.int64))


NOTHING = (keys(), np.zeros(0, np.int64))
OLD = old_users(keys((10, 0), (20, 1), (20, 7), (30, 0)), [range(5), range(1000), [5] * 600, range(512)], start=100)


def test_users_without_new_events_keep_every_stripe() -> None:
    plan = plan_of(OLD, [])
    assert plan.old_user.tolist() == [100, 101, 102, 103]
    assert plan.carried.tolist() == [1, 4, 3, 2]
    assert plan.tail_rows.tolist() == [0, 0, 0, 0]
    assert plan.new_offsets.tolist() == [0, 0, 0, 0, 0]


def test_new_users_are_placed_among_the_old_ones_by_both_halves_of_the_key() -> None:
    plan = plan_of(OLD, [(20, 0, 1), (20, 1, 5000), (20, 3, 1), (20, 3, 2), (40, 0, 1), (5, 0, 1)])
    assert list(zip(plan.keys.hash.tolist(), plan.keys.check.tolist(), strict=True)) == [
        (5, 0), (10, 0), (20, 0), (20, 1), (20, 3), (20, 7), (30, 0), (40, 0),
    ]  # fmt: skip
    assert plan.old_user.tolist() == [-1, 100, -1, 101, -1, 102, 103, -1]
    assert np.diff(plan.new_offsets).tolist() == [1, 0, 1, 1, 2, 0, 0, 1]


@pytest.mark.parametrize(
    ("event_ts", "carried"),
    [(-1, 0), (0, 0), (255, 0), (256, 1), (257, 1), (511, 1), (512, 2), (767, 2), (768, 3), (10**6, 3)],
)
def test_an_event_keeps_the_stripes_that_end_before_it(event_ts: int, carried: int) -> None:
    plan = plan_of(OLD, [(20, 1, event_ts)])
    assert plan.carried.tolist() == [1, carried, 3, 2]
    assert (plan.tail_start[1], plan.tail_stop[1]) == (carried * STRIPE_EVENTS, 1000)
    assert plan.tail_rows[[0, 2, 3]].tolist() == [0, 0, 0]


def test_an_event_sorts_after_all_those_of_its_time_that_were_known_before() -> None:
    assert plan_of(OLD, [(20, 7, 4)]).carried.tolist() == [1, 4, 0, 2]
    assert plan_of(OLD, [(20, 7, 5)]).carried.tolist() == [1, 4, 2, 2]
    assert plan_of(OLD, [(20, 7, 6)]).carried.tolist() == [1, 4, 2, 2]


def test_the_earliest_new_event_decides() -> None:
    assert plan_of(OLD, [(30, 0, 9999), (30, 0, 100)]).carried.tolist() == [1, 4, 3, 0]


def test_an_empty_shard_and_an_empty_run() -> None:
    nothing = old_users(keys(), [])
    assert len(plan_of(nothing, [])) == 0
    assert plan_of(nothing, []).slices(10) == []
    assert plan_of(nothing, [(1, 0, 5)]).old_user.tolist() == [-1]


@pytest.mark.parametrize("rows_max", [1, 100, 600, 10**9])
def test_slices_are_bounded_and_lose_nobody(rows_max: int) -> None:
    plan = plan_of(OLD, [(20, 1, 700), (20, 7, 5), (25, 0, 1), (30, 0, 9999)])
    parts = plan.slices(rows_max)
    assert np.concatenate([part.keys.hash for part in parts]).tolist() == plan.keys.hash.tolist()
    for part in parts:
        rows = int(part.tail_rows.sum()) + int(part.new_offsets[-1] - part.new_offsets[0])
        assert len(part) == 1 or rows + len(part) <= rows_max
        assert len(part.new_offsets) == len(part) + 1
    assert sum(int(part.new_offsets[-1] - part.new_offsets[0]) for part in parts) == 4


@pytest.mark.parametrize(
    ("event_ts", "carried"), [(-5, 0), (0, 0), (255, 0), (256, 0), (257, 1), (512, 1), (513, 2), (999, 3), (10**6, 3)]
)
def test_a_mark_opens_the_first_stripe_that_may_hold_its_event(event_ts: int, carried: int) -> None:
    plan = plan_of(OLD, [], marks((20, 1, event_ts), (99, 9, 0)))
    assert plan.carried.tolist() == [1, carried, 3, 2]
    assert plan.tail_start[1] == carried * STRIPE_EVENTS


def test_a_mark_among_ties_that_cross_stripes_opens_all_of_them() -> None:
    assert plan_of(OLD, [], marks((20, 7, 5))).carried.tolist() == [1, 4, 0, 2]
    ties = old_users(keys((1, 0)), [[0] * 200 + [5] * 400])  # 56 of the ties lie in the stripe before
    assert plan_of(ties, [], marks((1, 0, 5))).carried.tolist() == [0]
    ties = old_users(keys((1, 0)), [[0] * 300 + [5] * 400])
    assert plan_of(ties, [], marks((1, 0, 5))).carried.tolist() == [1]


def test_the_earliest_of_new_events_and_marks_decides() -> None:
    assert plan_of(OLD, [(20, 1, 600)], marks((20, 1, 900), (20, 1, 300))).carried[1] == 1
    assert plan_of(OLD, [(20, 1, 300)], marks((20, 1, 900))).carried[1] == 1


@pytest.mark.parametrize(
    ("horizon", "expected"),  # of the user with events 0 to 999: stripes carried, first row decoded
    [(0, (4, 1000)), (1, (0, 0)), (255, (0, 0)), (256, (0, 0)), (257, (0, 256)), (512, (0, 256)), (10**6, (0, 768))],
)
def test_who_has_events_before_the_horizon_is_decoded_as_far_as_any_may_remain(
    horizon: int, expected: tuple[int, int]
) -> None:
    plan = plan_of(OLD, [], Due(*NOTHING, horizon=horizon))
    assert (plan.carried[1], plan.tail_start[1]) == expected
    assert plan.passed_over == sum(plan.tail_start[plan.carried == 0])


def test_events_at_the_horizon_stay_wherever_their_ties_lie() -> None:
    ties = old_users(keys((1, 0)), [[0] * 200 + [5] * 400])
    plan = plan_of(ties, [], Due(*NOTHING, horizon=5))
    assert (plan.carried[0], plan.tail_start[0]) == (0, 0)


@pytest.mark.parametrize(
    ("max_events", "expected"),
    [(1000, (4, 1000)), (999, (0, 0)), (744, (0, 0)), (743, (0, 0)), (488, (0, 256)), (100, (0, 512)), (1, (0, 512))],
)
def test_who_has_too_many_events_is_decoded_as_far_as_any_may_remain(
    max_events: int, expected: tuple[int, int]
) -> None:
    """The stripe before the one that holds the oldest that stays is decoded, too: it may end in ties of it."""
    plan = plan_of(OLD, [], Due(*NOTHING, max_events=max_events))
    assert (plan.carried[1], plan.tail_start[1]) == expected


def test_new_events_count_and_ties_of_the_oldest_kept_are_decoded() -> None:
    assert plan_of(OLD, [(20, 1, 5000)], Due(*NOTHING, max_events=1000)).carried.tolist() == [1, 0, 3, 2]
    ties = old_users(keys((1, 0)), [[0] * 200 + [5] * 900])
    plan = plan_of(ties, [], Due(*NOTHING, max_events=10))
    assert (plan.carried[0], plan.tail_start[0]) == (0, 0)


def test_of_whom_something_is_forgotten_everything_is_decoded() -> None:
    """The newest so many are counted after forgetting, so that the index does not show which rows are too many."""
    assert plan_of(OLD, [(20, 1, 5000)], Due(*NOTHING, max_events=10)).tail_start[1] == 512
    forgotten = np.array([False, True, False, False])
    plan = plan_of(OLD, [(20, 1, 5000)], Due(*NOTHING, forgotten, max_events=10))
    assert (plan.carried[1], plan.tail_start[1], plan.tail_stop[1]) == (0, 0, 1000)
