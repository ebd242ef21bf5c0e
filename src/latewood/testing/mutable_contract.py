"""What every mutable tier must do: a test suite to subclass, one class per backend.

    class TestMyTier(MutableTierContract):
        def open_tier(self, path, user_type, settings, scrubs=None):
            return MyTier(...)

Times here are small numbers; the tests bring their own clock.
"""

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS
from latewood.columns import Column, Lists, TraitColumn, compact_lists
from latewood.errors import ConflictError
from latewood.events import Events, concat_events
from latewood.mutable import MutableTier, StaleSchemaError, TierState
from latewood.testing.corrections_contract import CorrectionsContract
from latewood.testing.forgetting_contract import ForgettingContract
from latewood.testing.recent_events import (
    ALL_OF_TIME,
    NOW,
    SETTINGS,
    append_ids,
    histories,
    lists_of,
    make_events,
    plain,
    recent_of,
    rows_of,
    scanned,
)
from latewood.users import user_keys


class MutableTierContract(CorrectionsContract, ForgettingContract):
    """Subclass it, and say how a tier is opened."""

    # Stamps (R1, R5)

    def test_a_new_tier_is_empty_and_open_to_all_of_time(self, tier: MutableTier) -> None:
        state = tier.state()
        assert state.closed == state.frontier == state.floor == EARLIEST_TS
        assert not state.captured
        assert scanned(tier) == []
        assert recent_of(tier, [1, 2]) == [[], []]

    def test_a_tier_that_is_new_beside_generations_starts_where_they_end(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [NOW]), explicit=True, now=NOW)  # one from a backup, say
        tier.catch_up(TierState(last=NOW + 20, frontier=NOW + 21, floor=NOW + 10))
        state = tier.state()
        assert (state.floor, state.last, state.frontier, state.captured) == (NOW + 10, NOW + 20, NOW + 21, True)
        assert tier.append(make_events([1], [6]), now=NOW).ingest_ts.tolist() == [NOW + 21]
        assert [row[1] for row in scanned(tier, NOW + 10)] == [6]
        state = tier.state()
        tier.catch_up(TierState(last=NOW + 20, frontier=NOW + 21, floor=NOW + 15))
        assert tier.state() == state  # it knows

    def test_a_load_that_has_just_published_is_left_to_end(self, tier: MutableTier) -> None:
        watermark = tier.begin_load(10, NOW, "token", now=NOW)
        tier.catch_up(TierState(last=watermark - 1, frontier=watermark, floor=watermark, changes=1))
        state = tier.state()
        assert (state.frontier, state.floor, state.changes) == (EARLIEST_TS, EARLIEST_TS, 1)
        tier.end_load("token", published=True)
        assert tier.state().frontier == watermark
        assert not tier.state().captured

    def test_rows_read_by_an_older_schema_are_refused(self, tier: MutableTier) -> None:
        assert tier.append(make_events([1], [5]), changes=0, now=NOW).count == 1
        tier.catch_up(TierState(changes=2))
        before = tier.state()
        with pytest.raises(StaleSchemaError):
            tier.append(make_events([1], [6]), changes=1, now=NOW)
        assert (tier.state(), len(scanned(tier))) == (before, 1)
        assert tier.append(make_events([1], [6]), changes=2, now=NOW).count == 1
        assert tier.append(make_events([1], [7]), changes=3, now=NOW).count == 1  # published, and not told yet
        assert tier.append(make_events([1], [8]), now=NOW).count == 1  # as any schema has them

    def test_a_stamp_is_unique_and_increasing_per_user(self, tier: MutableTier) -> None:
        receipt = tier.append(make_events([1, 2, 1, 1, 2], [9, 9, 8, 9, 7]), now=NOW)
        assert receipt.count == 5
        assert receipt.ingest_ts.tolist() == [NOW, NOW, NOW + 1, NOW + 2, NOW + 1]
        assert receipt.ordinal.tolist() == [0] * 5
        assert tier.state().last == NOW + 2

    def test_a_batch_moves_the_clock_by_its_largest_user_only(self, tier: MutableTier) -> None:
        tier.append(make_events(list(range(100)), [5] * 100), now=NOW)
        assert tier.state().last == NOW

    def test_a_clock_that_goes_backwards_does_not(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5]), now=NOW)
        assert tier.append(make_events([1], [5]), now=NOW - 500_000).ingest_ts.tolist() == [NOW + 1]

    def test_a_clock_too_far_behind_the_last_stamp_is_refused(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5]), now=NOW)
        with pytest.raises(ConflictError, match=r"row 0: .*ahead of the clock"):
            tier.append(make_events([1], [5]), now=NOW - SETTINGS.max_ahead_us - 1)
        assert len(scanned(tier)) == 1

    def test_an_explicit_ingest_time_too_far_ahead_is_refused(self, tier: MutableTier) -> None:
        with pytest.raises(ConflictError, match="row 1"):
            tier.append(make_events([1, 1], [5, 6], [5, NOW + SETTINGS.max_ahead_us + 1]), explicit=True, now=NOW)
        assert scanned(tier) == []
        assert tier.state().last == EARLIEST_TS - 1

    def test_an_empty_append_does_nothing(self, tier: MutableTier) -> None:
        before = tier.state()
        receipt = tier.append(make_events([], []), now=NOW)
        assert (receipt.count, len(receipt.ingest_ts), len(receipt.ordinal)) == (0, 0, 0)
        assert tier.state() == before

    # Explicit times and ties (R1, R7)

    def test_imports_come_in_any_order_until_the_first_cut(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        tier.append(make_events([1], [6], [-7]), explicit=True, now=NOW)
        assert (tier.state().last, tier.state().latest_ingest) == (50, 50)
        assert [row[2] for row in recent_of(tier, [1])[0]] == [50, -7]

    def test_ordinals_count_arrivals_among_ties(self, tier: MutableTier) -> None:
        first = tier.append(make_events([1, 2, 1, 1], [5, 5, 5, 6], [9, 9, 9, 9]), explicit=True, now=NOW)
        assert first.ordinal.tolist() == [0, 0, 1, 0]
        tier.cut(9)
        second = tier.append(make_events([1, 1], [5, 5], [9, 10]), explicit=True, now=NOW)
        assert second.ordinal.tolist() == [2, 0]
        assert [row[3:] for row in recent_of(tier, [1])[0]] == [(0, 0), (1, 2), (2, 0), (0, 1), (0, 3)]

    def test_an_explicit_time_may_tie_with_a_stamp(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5]), now=NOW)
        receipt = tier.append(make_events([1, 1], [5, 5], [NOW, NOW]), explicit=True, now=NOW)
        assert receipt.ordinal.tolist() == [1, 2]
        assert tier.append(make_events([1], [5]), now=NOW).ingest_ts.tolist() == [NOW + 1]

    def test_nothing_commits_below_the_frontier(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        tier.cut(40)
        with pytest.raises(ConflictError, match=r"row 1: .*frontier"):
            tier.append(make_events([1, 1], [5, 5], [40, 39]), explicit=True, now=NOW)
        assert len(scanned(tier)) == 1
        assert tier.append(make_events([1], [5], [40]), explicit=True, now=NOW).count == 1

    def test_after_the_first_capture_explicit_times_must_be_new(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        tier.mark_captured()
        tier.mark_captured()
        assert tier.state().captured
        with pytest.raises(ConflictError, match="captures have seen"):
            tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        receipt = tier.append(make_events([1, 1], [5, 5], [51, 51]), explicit=True, now=NOW)
        assert receipt.ordinal.tolist() == [0, 1]  # past `last` as before the batch, so a batch may tie in itself

    def test_late_events_can_be_stamped(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        tier.cut(51)
        events = make_events([1, 1, 1, 2], [1, 2, 3, 4], [7, 2 * NOW, 50, 8])
        receipt = tier.append(events, explicit=True, late="stamp", now=NOW)
        # stamps come after the batch's own times too, so that they stay unique
        assert receipt.ingest_ts.tolist() == [2 * NOW + 1, 2 * NOW, 2 * NOW + 2, 2 * NOW + 1]
        assert tier.state().last == 2 * NOW + 2

    # Event ids (R14)

    def test_a_repeated_event_id_is_a_duplicate(self, tier: MutableTier) -> None:
        events = make_events([1, 1, 2], [5, 6, 7], item=[1, 2, 3])
        first = append_ids(tier, ["a", "b", None], events)
        again = append_ids(tier, ["a", "b", None], events, now=NOW + 10)
        assert (again.count, again.duplicates) == (1, 2)
        assert again.ingest_ts[:2].tolist() == first.ingest_ts[:2].tolist()
        assert again.ingest_ts[2] == NOW + 10  # no id, no memory
        assert len(scanned(tier)) == 4

    def test_an_id_may_repeat_within_a_batch(self, tier: MutableTier) -> None:
        receipt = append_ids(
            tier, [7, 8, 7], make_events([1, 1, 1], [5, 6, 5], [3, 3, 4], item=[1, 2, 1]), explicit=True
        )
        assert (receipt.count, receipt.duplicates) == (2, 1)
        assert receipt.ingest_ts.tolist() == [3, 3, 3]

    def test_all_duplicates_change_nothing(self, tier: MutableTier) -> None:
        events = make_events([1], [5])
        append_ids(tier, ["a"], events)
        before = tier.state()
        tier.cut()
        tier.mark_captured()
        receipt = append_ids(tier, ["a"], events.stamped(np.array([3]), events.ordinal), explicit=True)
        assert (receipt.count, receipt.duplicates, receipt.ingest_ts.tolist()) == (0, 1, [NOW])
        assert tier.state().last == before.last

    def test_an_id_with_other_content_is_a_conflict(self, tier: MutableTier) -> None:
        append_ids(tier, ["a"], make_events([1], [5], item=[1]))
        with pytest.raises(ConflictError, match="row 1: its event_id"):
            append_ids(tier, ["b", "a"], make_events([1, 1], [5, 5], item=[1, 2]))
        with pytest.raises(ConflictError, match="row 1: its event_id"):
            append_ids(tier, ["c", "c"], make_events([1, 1], [5, 5], item=[1, 2]))
        assert len(scanned(tier)) == 1
        assert append_ids(tier, ["b"], make_events([1], [9])).count == 1  # the failed batch left no ids behind

    def test_ids_outlive_eviction_by_the_window(self, tier: MutableTier) -> None:
        events = make_events([1], [5])
        first = append_ids(tier, ["a"], events)
        for _ in range(2):
            tier.evict(tier.cut())
            tier.append(make_events([2], [5]), now=NOW)
        assert recent_of(tier, [1]) == [[]]
        again = append_ids(tier, ["a"], events, now=NOW + 900)
        assert (again.duplicates, again.ingest_ts.tolist()) == (1, first.ingest_ts.tolist())
        with pytest.raises(ConflictError, match="event_id"):
            append_ids(tier, ["x", "a"], make_events([1, 1], [6, 6]), now=NOW + 900)
        for step in range(1, 5):  # the window of 1,000 µs passes
            tier.append(make_events([2], [5]), now=NOW + step * 1_000)
            tier.evict(tier.cut())
        assert append_ids(tier, ["a"], events, now=NOW + 5_000).count == 1

    # Reading (R2, R10)

    def test_recents_come_in_the_total_order(self, tier: MutableTier) -> None:
        rng = np.random.default_rng(3)
        n = 500
        events = make_events(
            rng.integers(0, 5, n).tolist(),
            rng.integers(0, 20, n).tolist(),
            rng.integers(0, 20, n).tolist(),
            list(range(n)),
        )
        receipt = tier.append(events, explicit=True, now=NOW)
        everything = rows_of(events.stamped(receipt.ingest_ts, receipt.ordinal))
        for user, rows in enumerate(recent_of(tier, [0, 1, 2, 3, 4])):
            assert rows == sorted((row for row in everything if row[0] == user), key=lambda row: row[1:4])

    def test_a_request_ends_strictly_before_its_time(self, tier: MutableTier) -> None:
        tier.append(make_events([1, 1, 1], [4, 5, 6]), now=NOW)
        assert [row[1] for row in recent_of(tier, [1], end_ts=5)[0]] == [4]

    def test_an_anchor_ends_inside_its_tied_group(self, tier: MutableTier) -> None:
        tier.append(make_events([1] * 5, [5, 5, 5, 5, 4], [7, 7, 8, 8, 9]), explicit=True, now=NOW)
        for tie, wanted in [
            ((7, 0), []),
            ((7, 1), [0]),
            ((8, 0), [0, 1]),
            ((8, 1), [0, 1, 2]),
            ((99, 0), [0, 1, 2, 3]),
        ]:
            rows = recent_of(tier, [1], 5, tie_ingest=np.array([tie[0]]), tie_ordinal=np.array([tie[1]], np.int32))[0]
            assert [row[4] for row in rows] == [4, *wanted]

    def test_ingest_bounds_are_half_open(self, tier: MutableTier) -> None:
        tier.append(make_events([1] * 4, [5] * 4, [1, 2, 3, 4]), explicit=True, now=NOW)
        assert [row[2] for row in recent_of(tier, [1], min_ingest=2, cutoff=np.array([4]))[0]] == [2, 3]
        bounds = recent_of(tier, [1, 1, 9], min_ingest=np.array([1, 4, 0]), cutoff=np.array([2, 9, 9]))
        assert [[row[2] for row in rows] for rows in bounds] == [[1], [4], []]

    def test_a_read_carries_the_state_it_was_made_with(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5]), now=NOW)
        recent = tier.recent(user_keys(pa.array([1, 1])), end_ts=np.array([9, 9]), min_ingest=EARLIEST_TS)
        assert recent.state == tier.state()
        assert recent.cutoff.tolist() == [NOW + 1] * 2
        assert histories(recent) == [[(1, 5, NOW, 0, 0)]] * 2

    def test_no_requests_give_no_events(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5]), now=NOW)
        recent = tier.recent(user_keys(pa.array([], pa.int64())), end_ts=np.zeros(0, np.int64), min_ingest=0)
        assert recent.offsets.tolist() == [0]
        assert len(recent.events) == 0

    def test_string_users(self, text_tier: MutableTier) -> None:
        users = ["ä", "", "ä", "x" * 300, "日本"]
        text_tier.append(make_events(users, [5, 4, 3, 2, 1]), now=NOW)
        text_tier.append(make_events(["日本", "new"], [9, 9]), now=NOW)
        found = recent_of(text_tier, ["日本", "nobody", "", "ä", "new"])
        assert [[(row[0], row[1]) for row in rows] for rows in found] == [
            [("日本", 1), ("日本", 9)], [], [("", 4)], [("ä", 3), ("ä", 5)], [("new", 9)]
        ]  # fmt: skip
        assert [row[0] for row in scanned(text_tier)] == [*users, "日本", "new"]

    def test_nulls_and_traits_that_come_later(self, tier: MutableTier) -> None:
        tier.append(make_events([1, 1], [1, 2], item=[7, None]), now=NOW)
        later = make_events([1, 1], [3, 4], item=[8, 9])
        scores = np.array([np.nan, -0.0], np.float32)
        later.traits[4] = Column(scores)
        tier.append(later, now=NOW)
        tier.append(Events(later.user_ids, later.keys, later.event_ts + 2, later.ingest_ts, later.ordinal, {}), now=NOW)
        events = concat_events(list(tier.scan(EARLIEST_TS, ALL_OF_TIME)))
        assert [row[4] for row in rows_of(events)] == [7, None, 8, 9, None, None]
        values, mask = plain(events, 4)
        assert mask is not None
        assert mask.tolist() == [True, True, False, False, True, True]
        assert values[2:4].tobytes() == scores.tobytes()

    def test_traits_of_every_width(self, tier: MutableTier) -> None:
        n = 3
        columns: dict[int, TraitColumn] = {
            i: Column(np.array([0, 1, 1]).astype(dtype))
            for i, dtype in enumerate(["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f4", "f8"])
        }
        ids = pa.array([1, 2, 3])
        zeros = np.zeros(n, np.int64)
        tier.append(Events(ids, user_keys(ids), zeros, zeros, np.zeros(n, np.int32), columns), now=NOW)
        (events,) = tier.scan(EARLIEST_TS, ALL_OF_TIME)
        assert events.traits.keys() == columns.keys()
        for trait, column in columns.items():
            assert events.traits[trait].dtype == column.dtype
            assert events.traits[trait].known.tolist() == column.known.tolist()

    def test_lists(self, tier: MutableTier) -> None:
        """Of any length, empty and null; their items out of order, among others; and a trait that comes later."""
        first, second, third = (make_events([1, 1], [ts, ts + 1]) for ts in (1, 3, 5))
        pool = np.array([7, np.nan, -0.0, 9, 8], np.float32)
        first.traits[5] = Lists(pool, np.array([2, 0]), np.array([2, 1], np.int32))
        third.traits[5] = Lists(pool, np.array([4, 0]), np.array([0, 0], np.int32), np.array([False, True]))
        third.traits[6] = compact_lists(np.array([1, 2, 3], np.int8), np.array([1, 2]))
        for events in (first, second, third):
            tier.append(events, now=NOW)
        events = concat_events(list(tier.scan(EARLIEST_TS, ALL_OF_TIME)))
        assert lists_of(events, 5) == [[-0.0, 9.0], [7.0], None, None, [], None]
        assert lists_of(events, 6) == [None, None, None, None, [1], [2, 3]]
        assert np.signbit(events.traits[5].known[0])
        back = events.take(np.array([4, 0, 5]))
        assert lists_of(back, 5) == [[], [-0.0, 9.0], None]

    # Cut, scan, eviction (R6, R11)

    def test_the_cut_lies_between_frontier_and_closed(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        assert tier.cut(30) == 30
        assert tier.state().frontier == 30
        for bad in (29, 52):
            with pytest.raises(ConflictError, match="cut"):
                tier.cut(bad)
        assert tier.cut() == 51
        assert tier.cut() == 51
        assert tier.append(make_events([1], [5]), now=NOW).ingest_ts.tolist() == [NOW]

    def test_a_scan_is_in_arrival_order_and_half_open(self, tier: MutableTier) -> None:
        tier.append(make_events([2, 1], [5, 6], [9, 3]), explicit=True, now=NOW)
        tier.append(make_events([1], [1], [6]), explicit=True, now=NOW)
        assert [row[2] for row in scanned(tier)] == [9, 3, 6]
        assert [row[2] for row in scanned(tier, 3, 9)] == [3, 6]

    def test_a_scan_is_of_the_moment_it_was_asked_for(self, tier: MutableTier) -> None:
        tier.append(make_events([1] * 3, [1, 2, 3]), now=NOW)
        runs = tier.scan(EARLIEST_TS, ALL_OF_TIME)
        tier.append(make_events([1] * 3000, [4] * 3000), now=NOW)
        tier.evict(tier.cut())
        assert [row[1] for run in runs for row in rows_of(run)] == [1, 2, 3]

    def test_a_view_has_the_events_of_a_scan(self, tier: MutableTier) -> None:
        tier.append(make_events([2, 1], [5, 6], [9, 3], item=[1, None]), explicit=True, now=NOW)
        tier.append(make_events([1], [1], [6]), explicit=True, now=NOW)
        everything, some = tier.view(EARLIEST_TS, ALL_OF_TIME), tier.view(3, 9)
        expected = scanned(tier), scanned(tier, 3, 9)
        tier.append(make_events([1] * 3000, [4] * 3000), now=NOW)
        tier.evict(tier.cut())
        assert [len(everything), len(some)] == [3, 2]
        for events, rows in zip((everything, some), expected, strict=True):
            assert [row for run in events.runs(2) for row in rows_of(run)] == rows
        with pytest.raises(ConflictError, match="evicted"):
            tier.view(EARLIEST_TS, ALL_OF_TIME)

    def test_eviction_frees_what_lies_below_the_floor(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        first = tier.cut()
        tier.append(make_events([1], [6], [60]), explicit=True, now=NOW)
        second = tier.cut(60)  # holds the open tick back
        tier.append(make_events([1], [7], [60]), explicit=True, now=NOW)
        with pytest.raises(ConflictError, match="evict"):
            tier.evict(second + 1)
        tier.evict(first)
        tier.evict(first - 1)
        assert tier.state().floor == first
        assert [row[1] for row in recent_of(tier, [1])[0]] == [6, 7]
        tier.evict(second)
        assert [row[1:4] for row in scanned(tier, second)] == [(6, 60, 0), (7, 60, 0)]
        with pytest.raises(ConflictError, match="evicted"):
            tier.scan(first, second)
        assert tier.append(make_events([1], [7], [60]), explicit=True, now=NOW).ordinal.tolist() == [1]

    def test_raising_the_frontier(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        with pytest.raises(ConflictError, match="closed"):
            tier.raise_frontier(52)
        assert tier.raise_frontier(51).frontier == 51
        assert tier.raise_frontier(7).frontier == 51
        state = tier.raise_frontier(70, last=80)
        assert (state.frontier, state.last) == (70, 80)
        assert tier.state() == state
        assert state.latest_ingest == 50
        assert tier.append(make_events([1], [5], [70]), explicit=True, now=NOW).count == 1
        assert tier.append(make_events([1], [5]), now=3).ingest_ts.tolist() == [81]

    # Bulk loads

    def test_a_published_load_moves_the_frontier(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        assert tier.begin_load(10, 90, "token", now=NOW) == 91
        keys, ends = user_keys(pa.array([1])), np.array([9])
        for attempt in (
            lambda: tier.append(make_events([1], [5]), now=NOW),
            lambda: tier.recent(keys, end_ts=ends, min_ingest=0),
            lambda: tier.cut(),
            lambda: tier.mark_captured(),
            lambda: tier.raise_frontier(50),
            lambda: tier.begin_load(10, 90, "other", now=NOW),
        ):
            with pytest.raises(ConflictError, match="bulk load"):
                attempt()
        assert len(scanned(tier)) == 1
        with pytest.raises(ConflictError, match="token"):
            tier.end_load("other", published=True)
        tier.end_load("token", published=True)
        state = tier.state()
        assert (state.frontier, state.last, state.load_token) == (91, 90, None)
        tier.evict(91)
        assert tier.begin_load(91, 91, "again", now=NOW) == 92

    def test_a_load_that_failed_changes_nothing(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        before = tier.state()
        tier.begin_load(10, 20, "token", now=NOW)
        tier.end_load("token", published=False)
        assert tier.state() == before
        assert tier.append(make_events([1], [5], [7]), explicit=True, now=NOW).count == 1

    def test_a_load_obeys_the_rules_of_time(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        tier.cut(40)
        with pytest.raises(ConflictError, match="too old"):
            tier.begin_load(39, 60, "token", now=NOW)
        with pytest.raises(ConflictError, match="ahead"):
            tier.begin_load(40, NOW + SETTINGS.max_ahead_us + 1, "token", now=NOW)
        tier.mark_captured()
        with pytest.raises(ConflictError, match="too old"):
            tier.begin_load(50, 60, "token", now=NOW)
        assert tier.begin_load(51, 60, "token", now=NOW) == 61

    # Threads

    def test_threads_append_together(self, tier: MutableTier) -> None:
        receipts: list[Any] = []

        def work(worker: int) -> None:
            for i in range(20):
                receipts.append(tier.append(make_events([1, worker, 1], [i] * 3), now=NOW + i))
                recent_of(tier, [1])

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(10, 14)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rows = scanned(tier)
        assert len(rows) == 240
        stamps = [row[2] for row in rows if row[0] == 1]
        assert len(set(stamps)) == 160
        given = [stamp for receipt in receipts for stamp in receipt.ingest_ts[[0, 2]].tolist()]
        assert sorted(given) == sorted(stamps)

    def test_what_a_capture_saw_never_changes(self, tier: MutableTier) -> None:
        stop = threading.Event()

        def write() -> None:
            for i in range(60):
                tier.append(make_events([1, 2, 1], [60 - i, 1, 30]), now=NOW)
                if i % 7 == 0:
                    tier.cut()
            stop.set()

        thread = threading.Thread(target=write)
        thread.start()
        keys, ends, seen = user_keys(pa.array([1, 2])), np.array([99, 99]), []
        while not stop.is_set():
            seen.append(tier.recent(keys, end_ts=ends, min_ingest=EARLIEST_TS))
        thread.join()
        for recent in seen:
            now = tier.recent(keys, end_ts=ends, min_ingest=EARLIEST_TS, cutoff=recent.cutoff)
            assert rows_of(now.events) == rows_of(recent.events)

    def test_closing_twice_is_fine_and_a_closed_tier_says_so(self, tier: MutableTier) -> None:
        tier.close()
        tier.close()
        with pytest.raises(ConflictError, match="closed"):
            tier.state()
        with pytest.raises(ConflictError, match="closed"):
            tier.append(make_events([1], [5]), now=NOW)
