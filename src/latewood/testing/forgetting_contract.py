"""What every mutable tier must do to forget (docs/protocol.md R16), as part of its contract suite."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS
from latewood.columns import Column, Lists
from latewood.errors import ConflictError
from latewood.immutable import Scrubs
from latewood.mutable import MutableTier, StaleCodesError, TierState, hash_content, hash_ids
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
    scanned,
    suppressed_of,
)
from latewood.users import user_keys

LATER = 2 * NOW


def scrub_users(tier: MutableTier, book: Scrubs, users: list[int], now: int = LATER) -> int:
    """Scrub users wholly; the time of it."""
    return tier.scrub(book.body(user_keys(pa.array(users, pa.int64()))), now=now)[1]


def blanks(tier: MutableTier, candidates: dict[int, list[int]]) -> tuple[int | None, list[Any]]:
    """What a blanking returns, and what it put."""
    puts: list[Any] = []
    codes = {trait: np.array(values, np.int32) for trait, values in candidates.items()}
    return tier.blank(codes, lambda number, left: puts.append((number, left))), puts


class ForgettingContract(TierTests):
    """Scrubs and blanked values."""

    def test_a_scrub_takes_the_next_moment_of_the_clock(self, forgetful: MutableTier, book: Scrubs) -> None:
        forgetful.append(make_events([1], [5]), now=NOW)
        body = book.body(user_keys(pa.array([1])))
        assert forgetful.scrub(body, now=NOW) == (0, NOW + 1)
        assert forgetful.scrub(body, now=LATER) == (1, LATER)
        state = forgetful.state()
        assert (state.last, state.frontier, state.scrubs) == (LATER, LATER + 1, 2)
        assert state.latest_ingest == NOW
        assert [(scrub.number, scrub.scrub_ts) for scrub in book] == [(0, NOW + 1), (1, LATER)]
        with pytest.raises(ConflictError, match="too old"):  # it would be taken by the scrub, too late
            forgetful.append(make_events([2], [5], [LATER]), explicit=True, now=LATER)
        assert forgetful.append(make_events([2], [5]), now=NOW + 1).ingest_ts.tolist() == [LATER + 1]
        assert forgetful.cut() == LATER + 2

    def test_nothing_is_read_any_more_of_who_was_scrubbed(self, forgetful: MutableTier, book: Scrubs) -> None:
        forgetful.append(make_events([1, 2, 1], [5, 6, 7]), now=NOW)
        held = forgetful.scan(EARLIEST_TS, ALL_OF_TIME)
        scrub_ts = scrub_users(forgetful, book, [1])
        assert recent_of(forgetful, [1, 2]) == [[], [(2, 6, NOW, 0, 1)]]
        assert [row[0] for row in scanned(forgetful)] == [2]
        assert [row for run in held for row in run.user_ids.to_pylist()] == [2]
        of_compaction = forgetful.view(EARLIEST_TS, ALL_OF_TIME)  # which asks the book itself
        assert [row for run in of_compaction.runs(9) for row in run.user_ids.to_pylist()] == [1, 2, 1]
        forgetful.append(make_events([1], [scrub_ts], item=[9]), now=LATER)  # who comes back is a new user
        assert [row[4] for row in recent_of(forgetful, [1])[0]] == [9]
        assert [row[0] for row in scanned(forgetful)] == [2, 1]

    def test_a_topic_that_is_replayed_is_not_poisoned(self, forgetful: MutableTier, book: Scrubs) -> None:
        old = make_events([1, 2], [5, 6], item=[10, 20])
        append_ids(forgetful, ["a", "b"], old)
        scrub_ts = scrub_users(forgetful, book, [1])
        users, times = [1, 2, 1, 1, 1, 1], [5, 6, 5, 0, 0, scrub_ts + 1]
        events = make_events(users, times, item=[10, 20, 11, None, None, 30])
        supersedes = of_ids([None, None, "a", "a", "nobody", "gone"], [False, False, False, True, True, False])
        receipt = append_ids(forgetful, ["a", "b", "a", "x", "y", "z"], events, supersedes, now=LATER)
        assert (receipt.count, receipt.duplicates, receipt.skipped) == (1, 1, 4)
        assert receipt.ingest_ts.tolist() == [scrub_ts, NOW, scrub_ts, scrub_ts, scrub_ts, scrub_ts + 1]
        assert receipt.ordinal.tolist() == [-1, 0, -1, -1, -1, 0]
        assert [row[4] for row in recent_of(forgetful, [1])[0]] == [30]
        assert places_of(forgetful.suppressions(EARLIEST_TS, ALL_OF_TIME)) == []
        places = append_ids(forgetful, None, deletions_of([1]), of_places([(5, NOW, 0)], [True]), now=LATER)
        assert places.skipped == 1
        with pytest.raises(ConflictError, match="not known"):  # of others it is an error, as ever
            append_ids(forgetful, None, deletions_of([2]), of_ids(["gone"], [True]), now=LATER)

    def test_an_append_of_skipped_rows_changes_nothing(self, forgetful: MutableTier, book: Scrubs) -> None:
        scrub_users(forgetful, book, [1])
        before = forgetful.state()
        receipt = forgetful.append(make_events([1, 1], [5, 6]), now=LATER)
        assert (receipt.count, receipt.skipped, receipt.duplicates) == (0, 2, 0)
        assert "of scrubbed users" in repr(receipt)
        assert "ingest_ts up to" not in repr(receipt)
        assert forgetful.state() == before

    def test_a_scrub_of_events_leaves_the_others(self, forgetful: MutableTier, book: Scrubs) -> None:
        append_ids(forgetful, ["a", "b", "c"], make_events([1, 1, 2], [5, 6, 7], item=[10, 20, 30]))
        append_ids(forgetful, ["a"], make_events([1], [5], item=[11]), of_ids(["a"]), now=NOW + 5)
        (events,) = forgetful.scan(EARLIEST_TS, ALL_OF_TIME)
        chosen = events.take(np.array([1]))
        forgetful.scrub(book.body(chosen.keys, chosen), now=LATER)
        assert [row[4] for row in scanned(forgetful)] == [10, 30, 11]
        assert places_of(forgetful.suppressions(EARLIEST_TS, ALL_OF_TIME)) == [(5, NOW, 0, NOW + 5)]
        # a capture sees nothing of them until a generation is past the scrub
        assert recent_of(forgetful, [1, 2])[0] == []
        receipt = append_ids(forgetful, None, deletions_of([1, 1]), of_ids(["a", "b"], [True, True]), now=LATER)
        assert (receipt.count, receipt.skipped) == (1, 1)
        deleted = places_of(forgetful.suppressions(LATER, ALL_OF_TIME))
        assert deleted == [(5, NOW + 5, 0, LATER + 1)]

    def test_ids_of_the_scrubbed_outlive_eviction_as_hashes_only(self, forgetful: MutableTier, book: Scrubs) -> None:
        for _ in range(2):  # a run from before the scrub, and one with rows of the scrubbed
            append_ids(forgetful, ["a", "b"], make_events([1, 2], [ALL_OF_TIME // 2, 6]))
            append_ids(forgetful, ["c"], make_events([1], [ALL_OF_TIME // 2 + 1]))
            forgetful.evict(forgetful.cut())
        scrub_ts = scrub_users(forgetful, book, [1], now=NOW + 500)
        forgetful.evict(forgetful.cut())
        receipt = append_ids(
            forgetful,
            ["a", "b", "c"],
            make_events([1, 2, 1], [ALL_OF_TIME // 2, 6, ALL_OF_TIME // 2 + 1], item=[0, 1, 0]),
        )
        assert (receipt.count, receipt.duplicates) == (0, 3)
        assert receipt.ingest_ts.tolist() == [scrub_ts, NOW, scrub_ts]
        assert receipt.ordinal.tolist() == [-1, 0, -1]
        skipped = append_ids(forgetful, None, deletions_of([1]), of_ids(["a"], [True]), now=NOW + 500)
        assert skipped.skipped == 1

    def test_a_scrub_whose_record_failed_is_finished_by_who_comes_next(
        self, forgetful: MutableTier, book: Scrubs, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*_: Any) -> None:
            raise OSError("the storage is away")

        def once_more(act: Any) -> None:
            with monkeypatch.context() as patched:
                patched.setattr(book, "write", away)
                with pytest.raises(OSError, match="away"):
                    scrub_users(forgetful, book, [1], now=NOW)
                with pytest.raises(OSError, match="away"):
                    act()
            count = len(book)
            act()
            assert len(book) == count + 1 == forgetful.state().scrubs

        forgetful.append(make_events([1, 2], [5, 6]), now=NOW)
        once_more(lambda: recent_of(forgetful, [1]))
        assert recent_of(forgetful, [1]) == [[]]
        once_more(lambda: forgetful.append(make_events([1], [5]), now=NOW))
        once_more(lambda: scanned(forgetful))
        once_more(forgetful.cut)
        once_more(lambda: forgetful.begin_load(LATER, LATER, "token", now=LATER))
        assert [row[0] for row in scanned(forgetful)] == [2]

    def test_a_scrub_waits_for_a_bulk_load(self, forgetful: MutableTier, book: Scrubs) -> None:
        forgetful.begin_load(10, 90, "token", now=NOW)
        with pytest.raises(ConflictError, match="bulk load"):
            scrub_users(forgetful, book, [1])
        forgetful.end_load("token", published=True)
        assert scrub_users(forgetful, book, [1], now=0) == 91
        assert len(book) == 1

    def test_a_tier_without_a_book_cannot_scrub(self, tier: MutableTier) -> None:
        with pytest.raises(ValueError, match="book"):
            tier.scrub({"users": []}, now=NOW)
        assert tier.state().scrubs == 0

    def test_after_a_scrub_whole_segments_go(self, forgetful: MutableTier, book: Scrubs) -> None:
        append_ids(forgetful, ["a", "b"], make_events([1, 2], [5, 6]))
        scrub_users(forgetful, book, [1])
        watermark = forgetful.cut()
        forgetful.append(make_events([2], [7]), now=LATER)
        forgetful.evict(watermark)
        assert [row[:2] for row in scanned(forgetful, watermark)] == [(2, 7)]
        assert suppressed_of(forgetful, [1], min_ingest=watermark) == [[]]

    # Blanked values

    def test_values_that_nothing_here_uses_are_blanked(self, tier: MutableTier) -> None:
        events = make_events([1, 1, 1], [5, 6, 7])
        events.traits[3] = Column(np.array([4, 0, 6], np.int32), np.array([False, True, False]))
        tier.append(events, now=NOW)
        assert blanks(tier, {3: [6, 4]}) == (None, [])
        assert tier.state().blanked == 0
        assert blanks(tier, {3: [7, 4, 0, 5], 8: [1], 9: []}) == (0, [(0, {3: [0, 5, 7], 8: [1]})])
        assert blanks(tier, {3: [5]}) == (1, [(0, {3: [0, 5, 7], 8: [1]}), (1, {3: [5]})])
        assert tier.state().blanked == 2
        tier.evict(tier.cut())
        assert blanks(tier, {3: [6, 4]}) == (2, [(1, {3: [5]}), (2, {3: [4, 6]})])

    def test_items_of_lists_that_nothing_here_uses_are_blanked(self, tier: MutableTier) -> None:
        events = make_events([1, 1, 1], [5, 6, 7])
        pool = np.array([9, 4, 8, 6], np.int32)  # 9 and 8 are of no event
        events.traits[3] = Lists(
            pool, np.array([3, 0, 1]), np.array([1, 0, 1], np.int32), np.array([False, True, False])
        )
        tier.append(events, now=NOW)
        assert blanks(tier, {3: [6, 4]}) == (None, [])
        assert blanks(tier, {3: [8, 4, 9, 0, 6]}) == (0, [(0, {3: [0, 8, 9]})])
        tier.evict(tier.cut())
        assert blanks(tier, {3: [6, 4]}) == (1, [(0, {3: [0, 8, 9]}), (1, {3: [4, 6]})])

    def test_values_are_blanked_though_scrubbed_events_that_have_them_wait_for_eviction(
        self, forgetful: MutableTier, book: Scrubs
    ) -> None:
        events = make_events([1, 2], [5, 6])
        events.traits[3] = Column(np.array([4, 5], np.int32))
        forgetful.append(events, now=NOW)
        scrub_users(forgetful, book, [1])
        assert blanks(forgetful, {3: [4, 5]}) == (0, [(0, {3: [4]})])

    def test_rows_coded_before_a_blanking_are_coded_again(self, tier: MutableTier) -> None:
        assert tier.append(make_events([1], [5]), blanked=0, now=NOW).count == 1
        blanks(tier, {3: [1]})
        with pytest.raises(StaleCodesError):
            tier.append(make_events([1], [6]), blanked=0, now=NOW)
        assert len(scanned(tier)) == 1
        assert tier.append(make_events([1], [6]), blanked=1, now=NOW).count == 1
        assert tier.append(make_events([1], [7]), now=NOW).count == 1  # no codes

    def test_rows_that_were_not_coded_as_repeats_are_coded_if_they_are_new(self, tier: MutableTier) -> None:
        append_ids(tier, ["a"], make_events([1], [5]))
        both = make_events([1, 1], [5, 6])
        content = hash_content(both)
        assert tier.repeats(hash_ids(pa.array(["a", "b"])), content).tolist() == [True, False]
        other = hash_ids(pa.array(["b", "a"]))  # what "a" is used for here is refused, unless it corrects "a"
        assert tier.repeats(other, content).tolist() == [False, True]
        assert tier.repeats(other, content, of_ids([None, "a"])).tolist() == [False, False]
        with pytest.raises(StaleCodesError):
            append_ids(tier, ["a", "b"], both, uncoded=np.array([False, True]))
        assert len(scanned(tier)) == 1
        receipt = append_ids(tier, ["a", "b"], both, uncoded=np.array([True, False]))
        assert (receipt.count, receipt.duplicates) == (1, 1)

    def test_a_tier_that_is_new_catches_up_with_what_is_written_down(self, tier: MutableTier) -> None:
        tier.catch_up(TierState(scrubs=2, blanked=3))
        tier.catch_up(TierState(scrubs=1, blanked=4, changes=1))
        tier.catch_up(TierState())
        assert (tier.state().scrubs, tier.state().blanked, tier.state().changes) == (2, 4, 1)
        assert tier.state().frontier == EARLIEST_TS
        assert blanks(tier, {3: [1]}) == (4, [(4, {3: [1]})])

    def test_a_blanking_that_could_not_be_put_counts_and_is_put_by_the_next(self, tier: MutableTier) -> None:
        def away(*_: Any) -> None:
            raise OSError("the storage is away")

        with pytest.raises(OSError, match="away"):
            tier.blank({3: np.array([1], np.int32)}, away)
        assert tier.state().blanked == 1
        with pytest.raises(StaleCodesError) as stale:
            tier.append(make_events([1], [5]), blanked=0, now=NOW)
        assert stale.value.blanking == (0, {3: [1]})
        assert blanks(tier, {3: [2]}) == (1, [(0, {3: [1]}), (1, {3: [2]})])
