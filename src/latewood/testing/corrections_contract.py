"""What every mutable tier must do with corrections and deletions (docs/protocol.md R13), as part of its contract suite."""

from typing import Any

import numpy as np
import pytest

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError
from latewood.mutable import MutableTier
from latewood.testing.recent_events import (
    ALL_OF_TIME,
    NOW,
    TierTests,
    append_ids,
    deletions_of,
    make_events,
    of_ids,
    of_places,
    places_of,
    recent_of,
    rows_of,
    scanned,
    suppressed_of,
)


def seen(tier: MutableTier, user: Any = 1, end_ts: int = ALL_OF_TIME, **options: Any) -> list[Any]:
    """The items of a user's recent events."""
    return [row[4] for row in recent_of(tier, [user], end_ts, **options)[0]]


def as_of(cutoff: int) -> dict[str, Any]:
    return {"cutoff": np.array([cutoff])}


class CorrectionsContract(TierTests):
    """Versions that supersede events."""

    def test_a_correction_takes_the_place_of_its_event_from_then_on(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        receipt = append_ids(tier, ["a"], make_events([1], [5], item=[11]), of_ids(["a"]), now=2 * NOW)
        assert (receipt.count, receipt.ingest_ts.tolist(), receipt.ordinal.tolist()) == (1, [2 * NOW], [0])
        assert seen(tier) == [11, 20]
        assert seen(tier, **as_of(2 * NOW + 1)) == [11, 20]
        assert seen(tier, **as_of(2 * NOW)) == [10, 20]  # what was known before
        assert [row[4] for row in scanned(tier)] == [10, 20, 11]  # both stay

    def test_a_deletion_is_no_event_but_has_a_stamp(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        receipt = append_ids(tier, None, deletions_of([1]), of_ids(["a"], [True]), now=2 * NOW)
        assert (receipt.count, receipt.ingest_ts.tolist(), receipt.ordinal.tolist()) == (1, [2 * NOW], [-1])
        assert seen(tier) == [20]
        assert seen(tier, **as_of(2 * NOW)) == [10, 20]
        assert [row[4] for row in scanned(tier)] == [10, 20]
        state = tier.state()
        assert (state.last, state.latest_ingest) == (2 * NOW, 2 * NOW)
        later = make_events([1], [0], [2 * NOW], item=[30])
        assert tier.append(later, explicit=True, now=2 * NOW).ordinal.tolist() == [0]  # it has no place among ties

    def test_a_table_may_hold_events_corrections_and_deletions(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b", "c"], make_events([1, 1, 2], [5, 6, 7], item=[10, 20, 30]))
        events = make_events([1, 1, 2, 1], [8, 0, 7, 9], item=[40, None, 31, 50])
        receipt = append_ids(
            tier,
            [None, "x", "c", "e"],
            events,
            of_ids([None, "b", "c", None], [False, True, False, False]),
            now=2 * NOW,
        )
        assert receipt.count == 4
        assert receipt.ingest_ts.tolist() == [2 * NOW, 2 * NOW + 1, 2 * NOW, 2 * NOW + 2]
        assert receipt.ordinal.tolist() == [0, -1, 0, 0]
        assert seen(tier, 1) == [10, 40, 50]
        assert seen(tier, 2) == [31]

    def test_by_place_one_of_a_tie_is_meant(self, tier: MutableTier) -> None:
        tier.append(make_events([1] * 4, [5] * 4, [7, 7, 7, 8], item=[0, 1, 2, 3]), explicit=True, now=NOW)
        receipt = append_ids(
            tier, None, make_events([1, 1], [5, 0], item=[11, None]), of_places([(5, 7, 1), (5, 7, 0)], [False, True])
        )
        assert receipt.count == 2
        assert seen(tier) == [2, 3, 11]
        assert seen(tier, **as_of(NOW)) == [0, 1, 2, 3]

    def test_a_correction_may_move_its_event_out_of_the_range(self, tier: MutableTier) -> None:
        append_ids(tier, ["a"], make_events([1], [5], item=[10]))
        append_ids(tier, ["a"], make_events([1], [50], item=[10]), of_ids(["a"]))
        assert seen(tier, end_ts=20) == []
        assert seen(tier, end_ts=60) == [10]

    def test_of_several_versions_the_newest_is_superseded(self, tier: MutableTier) -> None:
        for step, item in enumerate([10, 11, 12]):
            supersedes = of_ids(["a"]) if step else None
            append_ids(tier, ["a"], make_events([1], [5], item=[item]), supersedes, now=(step + 1) * NOW)
        append_ids(tier, ["d"], deletions_of([1]), of_ids(["a"], [True]), now=4 * NOW)
        assert [seen(tier, **as_of(step * NOW + 1)) for step in range(5)] == [[], [10], [11], [12], []]
        expected = [(5, step * NOW, 0, (step + 1) * NOW) for step in (1, 2, 3)]
        assert places_of(tier.suppressions(EARLIEST_TS, ALL_OF_TIME)) == expected

    def test_an_id_with_other_content_must_supersede_itself(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        with pytest.raises(ConflictError, match="row 1: its event_id"):
            append_ids(tier, ["c", "a"], make_events([1, 1], [7, 5], item=[0, 11]), of_ids([None, "b"]))
        with pytest.raises(ConflictError, match="row 0: its event_id"):
            append_ids(tier, ["a"], make_events([1], [5], item=[11]), of_places([(5, NOW, 0)]))
        assert len(scanned(tier)) == 2
        append_ids(tier, ["c"], make_events([1], [5], item=[11]), of_ids(["a"]))  # or be of another id
        assert seen(tier) == [11, 20]

    def test_every_version_is_known_again(self, tier: MutableTier) -> None:
        first = append_ids(tier, ["a"], make_events([1], [5], item=[10]))
        changed, deleted = make_events([1], [5], item=[11]), deletions_of([1])
        second = append_ids(tier, ["a"], changed, of_ids(["a"]))
        third = append_ids(tier, ["a"], deleted, of_ids(["a"], [True]))
        assert [receipt.count for receipt in (first, second, third)] == [1, 1, 1]
        for _ in range(2):  # in the arena, and then evicted
            for receipt, events, supersedes in (
                (first, make_events([1], [5], item=[10]), None),
                (second, changed, of_ids(["a"])),
                (third, deleted, of_ids(["a"], [True])),
            ):
                again = append_ids(tier, ["a"], events, supersedes, now=2 * NOW)
                assert (again.count, again.duplicates) == (0, 1)
                assert again.ingest_ts.tolist() == receipt.ingest_ts.tolist()
                assert again.ordinal.tolist() == receipt.ordinal.tolist()
            with pytest.raises(ConflictError, match="event_id"):
                append_ids(tier, ["a"], make_events([1], [5], item=[12]))
            tier.evict(tier.cut())

    def test_a_version_may_supersede_what_stands_above_it(self, tier: MutableTier) -> None:
        events = make_events([1, 1, 1, 1], [5, 5, 0, 6], [3, 4, 9, 9], item=[10, 11, None, 20])
        supersedes = of_ids([None, "a", "a", None], [False, False, True, False])
        receipt = append_ids(tier, ["a", "a", None, "b"], events, supersedes, explicit=True)
        assert receipt.ordinal.tolist() == [0, 0, -1, 0]
        assert [seen(tier, **as_of(cutoff)) for cutoff in (4, 5, 10)] == [[10], [11], [20]]
        with pytest.raises(ConflictError, match="row 0 supersedes an event that is not known"):
            append_ids(tier, ["c", "d"], make_events([1, 1], [5, 5]), of_ids(["d", None]))
        with pytest.raises(ConflictError, match="row 0 supersedes an event that is not known"):
            append_ids(tier, ["c"], make_events([1], [5]), of_ids(["c"]))

    def test_a_repetition_does_not_stand_above(self, tier: MutableTier) -> None:
        append_ids(tier, ["a"], make_events([1], [5], item=[10]))
        events = make_events([1, 1], [5, 5], item=[10, 11])
        receipt = append_ids(tier, ["a", "b"], events, of_ids([None, "a"]), now=2 * NOW)
        assert (receipt.count, receipt.duplicates) == (1, 1)
        assert places_of(tier.suppressions(EARLIEST_TS, ALL_OF_TIME)) == [(5, NOW, 0, 2 * NOW)]

    def test_what_cannot_be_superseded_is_refused_by_row(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 2], [5, 5], [50, 60]), explicit=True)
        for ids, supersedes, message in (
            (
                ["x", "y"],
                of_ids([None, "nobody"]),
                "row 1 supersedes an event that is not known: no event has that event_id",
            ),
            (["x", "y"], of_ids(["a", "b"]), "row 1 supersedes an event of another user"),
            (
                None,
                of_places([None, (5, 50, 1)]),
                "row 1 supersedes an event that is not known: no event has that place",
            ),
            (None, of_places([None, (5, 60, 0)]), "row 1 supersedes an event that is not known"),  # the other user's
        ):
            with pytest.raises(ConflictError, match=message):
                append_ids(tier, ids, make_events([1, 1], [7, 8]), supersedes)
        with pytest.raises(ConflictError, match="row 1 supersedes an event with a later ingest time"):
            append_ids(tier, None, make_events([1, 1], [7, 8], [50, 49]), of_ids([None, "a"]), explicit=True)
        assert len(scanned(tier)) == 2
        assert places_of(tier.suppressions(EARLIEST_TS, ALL_OF_TIME)) == []
        append_ids(tier, None, make_events([1], [8], [50], item=[9]), of_ids(["a"]), explicit=True)  # at once is fine
        assert seen(tier, **as_of(51)) == [9]

    def test_versions_obey_the_rules_of_time(self, tier: MutableTier) -> None:
        append_ids(tier, ["a"], make_events([1], [5], [50]), explicit=True)
        tier.mark_captured()
        deletion = deletions_of([1]).stamped(np.array([50]), np.zeros(1, np.int32))
        with pytest.raises(ConflictError, match=r"row 0: .*captures have seen"):
            append_ids(tier, None, deletion, of_ids(["a"], [True]), explicit=True)
        receipt = append_ids(tier, None, deletion, of_ids(["a"], [True]), explicit=True, late="stamp")
        assert receipt.ingest_ts.tolist() == [NOW]

    # An event is superseded at most once

    def test_a_second_version_of_an_event_is_refused_however_it_is_named(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        tier.cut()
        for ids, first in ((None, of_places([(5, NOW, 0)])), (["x"], of_ids(["b"]))):
            append_ids(tier, ids, make_events([1], [7], item=[11]), first, now=2 * NOW)
        corrected = [(5, NOW, 0, 2 * NOW), (6, NOW + 1, 0, 2 * NOW + 1)]
        for _ in range(2):  # they are there still, and they were evicted
            for supersedes in (of_places([(5, NOW, 0)]), of_ids(["a"])):
                already = r"row 0 supersedes an event that was superseded already, by that of .*00\.000007Z, .*number 0"
                with pytest.raises(ConflictError, match=already):
                    append_ids(tier, None, make_events([1], [8], item=[12]), supersedes, now=3 * NOW)
            for supersedes in (of_places([(6, NOW + 1, 0)], [True]), of_ids(["b"], [True])):
                with pytest.raises(ConflictError, match=already):
                    append_ids(tier, None, deletions_of([1]), supersedes, now=3 * NOW)
            assert seen(tier) == [11, 11]
            assert places_of(tier.suppressions(2 * NOW, ALL_OF_TIME)) == corrected
            tier.evict(tier.cut(2 * NOW))
        append_ids(tier, None, make_events([1], [8], item=[12]), of_places([(7, 2 * NOW, 0)]), now=3 * NOW)
        append_ids(tier, None, deletions_of([1]), of_ids(["x"], [True]), now=4 * NOW)  # the newest is fine
        assert seen(tier) == [12]

    def test_two_rows_of_a_table_may_not_supersede_one_event(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        place = (5, NOW, 0)
        for ids, supersedes in (
            (None, of_places([(6, NOW + 1, 0), place, place])),
            (["x", "y", "z"], of_ids(["b", "a", "a"])),
            (None, of_places([(6, NOW + 1, 0), place, place], [False, True, False])),
            (None, of_ids(["b", "a", "a"], [False, False, True])),
        ):
            with pytest.raises(ConflictError, match="row 2 supersedes the event that row 1 supersedes"):
                append_ids(tier, ids, make_events([1] * 3, [7, 8, 9]), supersedes)
        assert seen(tier) == [10, 20]
        events = make_events([1] * 3, [5, 6, 7], item=[11, 12, 13])
        with pytest.raises(ConflictError, match="row 2 supersedes the event that row 1 supersedes"):
            append_ids(tier, ["c", "d", "e"], events, of_ids([None, "c", "c"]))
        append_ids(tier, ["a", "a", "a"], events, of_ids(["a", "a", "a"]), now=2 * NOW)  # each names the one above
        assert seen(tier) == [20, 13]

    def test_deleting_what_is_deleted_is_a_duplicate(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        tier.cut()
        append_ids(tier, None, deletions_of([1]), of_ids(["a"], [True]), now=2 * NOW)
        for now in (2 * NOW, 3 * NOW):  # it is there still, and it was evicted
            for ids, supersedes in ((None, of_places([(5, NOW, 0)], [True])), (["d"], of_ids(["a"], [True]))):
                receipt = append_ids(tier, ids, deletions_of([1]), supersedes, now=now)
                assert (receipt.count, receipt.duplicates, receipt.skipped) == (0, 1, 0)
                assert (receipt.ingest_ts.tolist(), receipt.ordinal.tolist()) == ([2 * NOW], [-1])
            tier.evict(tier.cut(2 * NOW))
        twice = of_places([(6, NOW + 1, 0), (5, NOW, 0), (6, NOW + 1, 0)], [True] * 3)
        receipt = append_ids(tier, None, deletions_of([1] * 3), twice, now=4 * NOW)
        assert (receipt.count, receipt.duplicates) == (1, 2)
        assert receipt.ingest_ts.tolist() == [4 * NOW, 2 * NOW, 4 * NOW]
        expected = [(5, NOW, 0, 2 * NOW), (6, NOW + 1, 0, 4 * NOW)]
        assert places_of(tier.suppressions(2 * NOW, ALL_OF_TIME)) == expected

    def test_what_was_deleted_is_not_corrected(self, tier: MutableTier) -> None:
        """The new version would not be known for one: an anchor on it would see what was deleted."""
        append_ids(tier, ["a"], make_events([1], [5], item=[10]))
        append_ids(tier, ["a"], deletions_of([1]), of_ids(["a"], [True]), now=2 * NOW)
        for ids, supersedes in ((["a"], of_ids(["a"])), (["x"], of_ids(["a"])), (None, of_places([(5, NOW, 0)]))):
            with pytest.raises(ConflictError, match="row 0 supersedes an event that was deleted"):
                append_ids(tier, ids, make_events([1], [5], item=[13]), supersedes, now=3 * NOW)
        append_ids(tier, ["new"], make_events([1], [5], item=[13]), now=3 * NOW)
        assert seen(tier) == [13]

    def test_a_repeated_correction_is_told_by_its_id_alone(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 1], [5, 6], item=[10, 20]))
        changed = make_events([1, 1], [5, 6], item=[11, 21])
        supersedes = of_places([(5, NOW, 0), (6, NOW + 1, 0)])
        first = append_ids(tier, ["x", "y"], changed, supersedes, now=2 * NOW)
        again = append_ids(tier, ["x", "y"], changed, supersedes, now=3 * NOW)
        assert (again.duplicates, again.ingest_ts.tolist()) == (2, first.ingest_ts.tolist())
        with pytest.raises(ConflictError, match="event_id"):
            append_ids(tier, None, changed, supersedes, now=3 * NOW)

    def test_where_times_tie_a_newer_version_is_not_named(self, tier: MutableTier) -> None:
        tier.append(make_events([1] * 3, [5, 6, 7], [8, 8, 8]), explicit=True, now=NOW)
        both = make_events([1, 1], [5, 6], [9, 9], item=[11, 21])
        append_ids(tier, None, both, of_places([(5, 8, 0), (6, 8, 0)]), explicit=True)
        with pytest.raises(ConflictError, match=r"superseded already, by one of those ingested .*00\.000009Z"):
            append_ids(tier, None, make_events([1], [5]), of_places([(5, 8, 0)]))

    # Of events that are elsewhere

    def test_an_event_is_superseded_by_id_beyond_its_eviction(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 2], [5, 6], item=[10, 20]))
        watermark = tier.cut()
        tier.evict(watermark)
        append_ids(tier, ["a"], make_events([1], [5], item=[11]), of_ids(["a"]), now=NOW + 500)
        with pytest.raises(ConflictError, match="row 0 supersedes an event of another user"):
            append_ids(tier, None, deletions_of([1]), of_ids(["b"], [True]), now=NOW + 500)
        assert seen(tier, min_ingest=watermark) == [11]
        assert suppressed_of(tier, [1, 2], min_ingest=watermark) == [[(5, NOW, 0, NOW + 500)], []]
        tier.evict(tier.cut())
        append_ids(tier, ["a"], make_events([1], [5], item=[12]), of_ids(["a"]), now=NOW + 600)
        assert suppressed_of(tier, [1], min_ingest=tier.state().floor) == [[(5, NOW + 500, 0, NOW + 600)]]
        for step in range(1, 5):  # the window of 1,000 µs passes
            tier.append(make_events([2], [5]), now=NOW + step * 1_000)
            tier.evict(tier.cut())
        with pytest.raises(ConflictError, match="not known"):
            append_ids(tier, None, deletions_of([2]), of_ids(["b"], [True]), now=NOW + 5_000)

    def test_a_place_that_may_be_elsewhere_is_taken_on_trust(self, tier: MutableTier) -> None:
        tier.append(make_events([1], [5], [50]), explicit=True, now=NOW)
        tier.begin_load(60, 90, "token", now=NOW)
        tier.end_load("token", published=True)
        append_ids(tier, None, deletions_of([1, 1]), of_places([(5, 50, 0), (5, 70, 3)], [True, True]))
        with pytest.raises(ConflictError, match="not known"):  # nothing but here has events from 91 on
            append_ids(tier, None, deletions_of([1]), of_places([(5, 91, 0)], [True]))
        tier.evict(tier.cut())
        append_ids(tier, None, deletions_of([1]), of_places([(5, 95, 0)], [True]), now=2 * NOW)
        assert suppressed_of(tier, [1], min_ingest=tier.state().floor) == [[(5, 95, 0, 2 * NOW)]]

    def test_a_request_is_told_what_is_suppressed_of_the_stored_events(self, tier: MutableTier) -> None:
        tier.append(make_events([1] * 5, [5, 5, 4, 9, 3], [7, 7, 7, 7, 30]), explicit=True, now=NOW)
        places = [(5, 7, 1), (4, 7, 0), (9, 7, 0), (5, 7, 1), (3, 30, 0)]
        events = deletions_of([1] * 5).stamped(np.array([40, 41, 42, 50, 60]), np.zeros(5, np.int32))
        append_ids(tier, None, events, of_places(places, [True] * 5), explicit=True)
        tier.append(make_events([2], [5]), now=NOW)

        def told(end_ts: int, min_ingest: int, cutoff: int) -> list[tuple[int, ...]]:
            (one, two, three) = suppressed_of(
                tier, [1, 2, 77], end_ts, min_ingest=min_ingest, cutoff=np.full(3, cutoff)
            )
            assert two == three == []
            return one

        first, second, third = (4, 7, 0, 41), (5, 7, 1, 40), (9, 7, 0, 42)
        assert told(20, 30, 100) == [first, second, third]  # in the total order, each once
        assert told(9, 30, 100) == [first, second, third]  # the end itself counts: an anchor may end inside its ties
        assert told(8, 30, 100) == [first, second]
        assert told(20, 30, 41) == [second]
        assert told(20, 41, 100) == [(3, 30, 0, 60), first, third]
        assert told(20, 7, 100) == []  # all of them are among the recent events
        assert seen(tier, min_ingest=30) == []
        assert seen(tier, min_ingest=30, **as_of(60)) == [4]

    def test_many_requests_are_each_told_their_own(self, tier: MutableTier) -> None:
        users = list(range(50))
        append_ids(tier, [f"e{user}" for user in users], make_events(users, [5] * 50))
        watermark = tier.cut()
        some = users[::7]
        append_ids(
            tier, None, deletions_of(some), of_ids([f"e{user}" for user in some], [True] * len(some)), now=2 * NOW
        )
        asked = [*reversed(users), *users, 99]
        expected = [[(5, NOW, 0, 2 * NOW)] if user in some else [] for user in asked]
        assert suppressed_of(tier, asked, min_ingest=watermark) == expected
        whole = [[] if user in some or user == 99 else [user] for user in asked]
        assert [[row[4] for row in rows] for rows in recent_of(tier, asked)] == whole

    def test_suppressions_are_half_open_and_end_at_the_floor(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 2], [5, 6]))
        for step, target in enumerate("ab"):
            append_ids(tier, None, deletions_of([step + 1]), of_ids([target], [True]), now=NOW + 10 + step)
        both = [(5, NOW, 0, NOW + 10), (6, NOW, 0, NOW + 11)]
        assert places_of(tier.suppressions(NOW + 10, NOW + 12)) == both
        assert places_of(tier.suppressions(NOW + 11, NOW + 12)) == both[1:]
        assert places_of(tier.suppressions(NOW + 10, NOW + 11)) == both[:1]
        tier.evict(tier.cut(NOW + 11))
        assert places_of(tier.suppressions(NOW + 11, ALL_OF_TIME)) == both[1:]
        with pytest.raises(ConflictError, match="evicted"):
            tier.suppressions(NOW + 10, ALL_OF_TIME)
        tier.evict(tier.cut())
        assert places_of(tier.suppressions(NOW + 12, ALL_OF_TIME)) == []

    def test_events_and_suppressions_are_had_of_one_state(self, tier: MutableTier) -> None:
        append_ids(tier, ["a", "b"], make_events([1, 2], [5, 6]))
        append_ids(tier, ["c"], make_events([1], [7]), of_ids(["a"]), now=NOW + 10)
        runs, suppressed = tier.scan_with_suppressions(EARLIEST_TS)
        append_ids(tier, None, deletions_of([2]), of_ids(["b"], [True]), now=NOW + 20)
        watermark = tier.cut(NOW + 10)
        tier.evict(watermark)
        assert [row[:2] for run in runs for row in rows_of(run)] == [(1, 5), (2, 6), (1, 7)]
        assert places_of(suppressed) == [(5, NOW, 0, NOW + 10)]
        runs, suppressed = tier.scan_with_suppressions(watermark)
        assert [row[:2] for run in runs for row in rows_of(run)] == [(1, 7)]
        assert places_of(suppressed) == [(5, NOW, 0, NOW + 10), (6, NOW, 0, NOW + 20)]
        with pytest.raises(ConflictError, match="evicted"):
            tier.scan_with_suppressions(watermark - 1)

    def test_deletions_alone_are_batches_like_any_other(self, text_tier: MutableTier) -> None:
        for name in ("ä", "b"):
            append_ids(text_tier, [name], make_events([name], [5]))
            append_ids(text_tier, None, deletions_of([name]), of_ids([name], [True]))
        floor = text_tier.cut()
        append_ids(text_tier, ["c"], make_events(["c"], [5]))
        text_tier.evict(floor)
        append_ids(text_tier, None, deletions_of(["ä"]), of_ids(["ä"], [True]), now=NOW + 9)
        text_tier.cut()
        append_ids(text_tier, None, deletions_of(["c"]), of_ids(["c"], [True]), now=NOW + 10)
        assert recent_of(text_tier, ["ä", "b", "c"], min_ingest=floor) == [[], [], []]
        assert suppressed_of(text_tier, ["ä", "b", "c"], min_ingest=floor) == [[(5, NOW, 0, NOW + 9)], [], []]
        assert [row[:2] for row in scanned(text_tier, floor)] == [("c", 5)]
