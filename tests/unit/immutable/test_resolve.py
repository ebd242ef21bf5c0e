"""Measure and resolve against a brute-force reading of docs/protocol.md R2: every row of every user, one by one."""

from bisect import bisect_left
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest
from plain_histories import EPOCH, Histories, Row, keys_of, random_rows, random_versions, write_generation

from latewood.clock import EARLIEST_TS
from latewood.errors import ExpiredError, PointerError, ScrubbedError
from latewood.events import NEVER
from latewood.immutable.resolve import NO_UNSTORED, Measured, Runs, Status, Unstored
from latewood.lists import offsets_of
from latewood.pointer import Pointers
from latewood.retention import Retention

SPAN = 4000


def histories(
    seed: int,
    *,
    users: int = 12,
    longest: int = 900,
    late: float = 0.2,
    span: int = SPAN,
    corrected: float = 0.0,
) -> Histories:
    rng = np.random.default_rng(seed)
    rows = random_rows(rng, users, longest, span=span, late=late)
    superseded = random_versions(rng, rows, corrected) if corrected else None
    return write_generation(rows, watermark=3 * span, superseded=superseded)


def ask(seed: int, count: int, users: int, span: int = SPAN) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Random requests: users (some unknown), ends and watermarks, some of them past everything."""
    rng = np.random.default_rng(seed)
    end_ts = rng.integers(-5, span * 5 // 4, count)
    watermark = np.where(rng.random(count) < 0.3, 3 * span, rng.integers(0, 2 * span, count))
    return rng.integers(0, users + 2, count).tolist(), end_ts, watermark


def pointers_of(measured: Measured, end_ts: np.ndarray, watermark: np.ndarray) -> Pointers:
    return Pointers(EPOCH, watermark, measured.start_ts, end_ts, measured.end_ties, measured.length, measured.checksum)


def check_measured(
    store: Histories, users: list[int], measured: Measured, end_ts: np.ndarray, watermark: np.ndarray, ties: list
) -> None:
    for i, user in enumerate(users):
        seen = store.seen(user, end_ts[i], watermark[i], ties[i])
        rows = store.rows.get(user, [])
        at_end = sum(rows[number][0] == end_ts[i] for number in seen)
        start_ts = rows[seen[0]][0] if seen else end_ts[i]
        earlier = [number for number, row in enumerate(rows) if row[0] < end_ts[i]]
        unknown = any(rows[number][1] >= watermark[i] for number in earlier)
        before = len(earlier) if seen or unknown else 0
        expected = (len(seen), at_end, start_ts, before, store.checksum(user, seen) if seen else 0)
        found = (
            measured.length[i], measured.end_ties[i], measured.start_ts[i], measured.stored_before[i],
            measured.checksum[i],
        )  # fmt: skip
        assert tuple(map(int, found)) == expected, (i, user)


CHANGES = pytest.mark.parametrize(("late", "corrected"), [(0.0, 0.0), (0.02, 0.0), (0.5, 0.0), (0.0, 0.02), (0.3, 0.6)])


@CHANGES
@pytest.mark.parametrize("span", [60, SPAN])
def test_requests_see_what_the_rule_says(late: float, corrected: float, span: int) -> None:
    store = histories(1, late=late, span=span, corrected=corrected)
    users, end_ts, watermark = ask(2, 400, 12, span)
    measured = store.reader.measure(keys_of(users), end_ts, watermark)
    check_measured(store, users, measured, end_ts, watermark, [None] * len(users))


@pytest.mark.parametrize("corrected", [0.0, 0.03, 0.5])
@pytest.mark.parametrize("span", [60, SPAN])
def test_anchors_end_inside_their_tied_group(span: int, corrected: float) -> None:
    store = histories(3, span=span, corrected=corrected)
    rng = np.random.default_rng(4)
    users = [user for user in store.rows for _ in range(30)]
    anchors = [store.rows[user][int(rng.integers(len(store.rows[user])))] for user in users]
    end_ts, ingest, ordinal = np.array(anchors, np.int64).T.copy()
    watermark = np.minimum(end_ts, ingest) + 1
    watermark[::3] = 3 * span  # as a capture would
    measured = store.reader.measure(keys_of(users), end_ts, watermark, ingest, ordinal.astype(np.int32))
    ties = [(i, o) for _, i, o in anchors]
    check_measured(store, users, measured, end_ts, watermark, ties)
    assert measured.end_ties.max() >= (2 if span < 100 else 1)
    check_resolved(store, users, pointers_of(measured, end_ts, watermark), ties)


@pytest.mark.parametrize("superseded", [{}, {1: [400 if k in (3, 300) else NEVER for k in range(900)]}])
def test_ties_over_several_stripes(superseded: dict[int, list[int]]) -> None:
    """All that is known, of one time: a day's events on a coarse clock."""
    store = write_generation({1: [(7, 9, k) for k in range(900)]}, watermark=500, superseded=superseded)
    ordinals = [0, 1, 255, 256, 257, 512, 700, 899, 900]
    end_ts, ties = np.full(len(ordinals), 7), [(9, ordinal) for ordinal in ordinals]
    watermark = np.full(len(ordinals), 500)
    measured = store.reader.measure(
        keys_of([1] * len(ordinals)), end_ts, watermark, np.full(len(ordinals), 9), np.array(ordinals, np.int32)
    )
    check_measured(store, [1] * len(ordinals), measured, end_ts, watermark, ties)
    pointers = pointers_of(measured, end_ts, watermark)
    check_resolved(store, [1] * len(ordinals), pointers, ties)
    pointers.end_ties[-1] += 1
    pointers.length[-1] += 1
    assert store.reader.resolve(keys_of([1] * len(ordinals)), pointers).status[-1] == Status.SHORT


def rows_in(runs: Runs) -> list[list[int]]:
    """The rows of each user. Runs of one user do not touch, and say how many rows come before them."""
    found = []
    for start, stop in pairwise(runs.offsets.tolist()):
        rows: list[int] = []
        for k in range(start, stop):
            assert not rows or runs.start[k] > rows[-1] + 1
            assert runs.before[k] == len(rows)
            rows += range(runs.start[k], runs.start[k] + runs.length[k])
        found.append(rows)
    assert runs.counts.tolist() == list(map(len, found))
    return found


def check_resolved(store: Histories, users: list[int], pointers: Pointers, ties: list) -> None:
    resolution = store.reader.resolve(keys_of(users), pointers)
    store.reader.require(resolution, pointers, pa.array(users))
    numbers = rows_in(resolution.runs)
    last_ts = [
        store.rows[user][rows[-1]][0] if rows else EARLIEST_TS - 1 for user, rows in zip(users, numbers, strict=True)
    ]
    assert resolution.last_ts.tolist() == last_ts
    for i, user in enumerate(users):
        seen = store.seen(user, pointers.end_ts[i], pointers.watermark[i], ties[i])
        hull = (seen[0], seen[-1] + 1) if seen else (0, 0)
        assert (resolution.start[i], resolution.stop[i]) == hull, (i, user)
        assert resolution.count[i] == len(seen)
        assert numbers[i] == seen
    check_ranks(store, users, pointers, numbers)


def check_ranks(store: Histories, users: list[int], pointers: Pointers, numbers: list[list[int]]) -> None:
    """Of events that are not stored, at places near those of rows, which may be tied with hundreds. `numbers`: the rows."""
    rng, events = np.random.default_rng(25), list[list[Row]]()
    for i, user in enumerate(users):
        near = store.rows.get(user) or [(0, 0, 0)]
        chosen = [near[k] for k in rng.integers(len(near), size=rng.integers(0, 6) if i % 7 else 300)]
        moved = [(t + dt, g + dg, o + do) for (t, g, o), (dt, dg, do) in zip(
            chosen, rng.integers(-1, 2, (len(chosen), 3)).tolist(), strict=True)]  # fmt: skip
        moved += [(int(pointers.end_ts[i]), int(pointers.watermark[i]), k) for k in range(2)]  # as recents mostly are
        events.append(sorted(moved))
    order = np.array([event for of_request in events for event in of_request], np.int64).reshape(-1, 3).T.copy()
    offsets = offsets_of(np.array([len(part) for part in events]))
    expected = [
        [bisect_left([store.rows[user][number] for number in seen], event) for event in of_request]
        for user, seen, of_request in zip(users, numbers, events, strict=True)
    ]
    for reach in (NO_UNSTORED.reach, 0, 1, 40):
        unstored = Unstored(offsets, order, np.full(order.shape[1], -9), reach)
        resolution = store.reader.resolve(keys_of(users), pointers, unstored)
        assert (resolution.status == Status.OK).all()
        ranks = [part.tolist() for part in np.split(unstored.ranks, offsets[1:-1])]
        for i, seen in enumerate(numbers):
            if seen:  # past what is wanted, they only have to say that they are
                oldest = max(len(seen) - reach, 0)
                assert [max(rank, oldest) for rank in expected[i]] == ranks[i], (i, reach)


@CHANGES
@pytest.mark.parametrize("span", [60, SPAN])
def test_pointers_resolve_to_what_was_measured(late: float, corrected: float, span: int) -> None:
    store = histories(5, late=late, span=span, corrected=corrected)
    users, end_ts, watermark = ask(6, 400, 12, span)
    measured = store.reader.measure(keys_of(users), end_ts, watermark)
    check_resolved(store, users, pointers_of(measured, end_ts, watermark), [None] * len(users))


@CHANGES
@pytest.mark.parametrize("span", [60, SPAN])
def test_requests_that_end_in_one_stripe_share_it(late: float, corrected: float, span: int) -> None:
    """One after the other, of one user: what was laid out and summed for the first serves the others."""
    store = histories(21, users=6, late=late, span=span, corrected=corrected)
    rng = np.random.default_rng(22)
    users = [user for user in range(7) for _ in range(70)]  # one of whom is unknown
    end_ts = np.sort(rng.integers(-5, span * 5 // 4, (7, 70)), axis=1).ravel()
    watermark = np.where(rng.random(len(users)) < 0.5, end_ts + 1, 3 * span)
    measured = store.reader.measure(keys_of(users), end_ts, watermark)
    check_measured(store, users, measured, end_ts, watermark, [None] * len(users))
    check_resolved(store, users, pointers_of(measured, end_ts, watermark), [None] * len(users))


def test_wrong_checksums_are_seen_in_a_shared_stripe() -> None:
    store = write_generation({1: [(k, k + k % 7, k % 3) for k in range(600)]}, watermark=1000)
    end_ts, watermark = np.arange(530, 560), np.full(30, 1000)
    pointers = pointers_of(store.reader.measure(keys_of([1] * 30), end_ts, watermark), end_ts, watermark)
    pointers.checksum[::3] += np.uint64(1)
    pointers.length[1::3] -= 1  # the same end, one event fewer
    status = store.reader.resolve(keys_of([1] * 30), pointers).status.reshape(10, 3)
    assert (status == [Status.CHECKSUM, Status.CHECKSUM, Status.OK]).all()


def test_ranges_that_begin_in_one_stripe_and_end_in_another() -> None:
    """Shorter than all that there is: the oldest are left out."""
    store = histories(23, users=3, longest=900)
    rng = np.random.default_rng(24)
    users = [user for user in store.rows for _ in range(60)]
    end_ts = np.repeat(rng.integers(SPAN // 2, SPAN, len(users) // 4), 4)
    watermark = np.full(len(users), 3 * SPAN)
    pointers = pointers_of(store.reader.measure(keys_of(users), end_ts, watermark), end_ts, watermark)
    for i, user in enumerate(users):
        seen = store.seen(user, end_ts[i], watermark[i], None)
        length = int(rng.integers(1, len(seen) + 1)) if seen else 0
        seen = seen[len(seen) - length :]
        pointers.length[i] = length
        if seen:
            pointers.start_ts[i] = store.rows[user][seen[0]][0]
            pointers.checksum[i] = store.checksum(user, seen)
    resolution = store.reader.resolve(keys_of(users), pointers)
    assert (resolution.status == Status.OK).all()
    for i, (user, rows) in enumerate(zip(users, rows_in(resolution.runs), strict=True)):
        seen = store.seen(user, end_ts[i], watermark[i], None)
        assert rows == seen[len(seen) - int(pointers.length[i]) :], i


def test_more_runs_than_expected_are_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    store = histories(12, late=0.5, corrected=0.3)
    users, end_ts, watermark = ask(6, 50, 13)
    pointers = pointers_of(store.reader.measure(keys_of(users), end_ts, watermark), end_ts, watermark)
    monkeypatch.setattr("latewood.immutable.resolve._RUNS", 1)
    check_resolved(store, users, pointers, [None] * len(users))


def test_rows_are_found_by_their_places() -> None:
    store = histories(14, span=60, corrected=0.4)
    users = [user for user in store.rows for _ in range(20)]
    rng = np.random.default_rng(15)
    rows = [int(rng.integers(len(store.rows[user]))) for user in users]
    places = np.array([store.rows[user][row] for user, row in zip(users, rows, strict=True)]).T.copy()
    located = store.reader.locate(keys_of(users))
    assert store.reader.find_rows(located, *places).tolist() == rows
    visible = store.reader.find_rows(located, *places, watermark=np.full(len(users), 40)).tolist()
    assert visible == [row if row in store.seen(user, 10**6, 40) else -1 for user, row in zip(users, rows, strict=True)]
    for delta in ([1000, 0, 0], [-1000, 0, 0], [0, 5000, 0], [0, 0, 5000]):
        assert (store.reader.find_rows(located, *(places + np.array([delta]).T)) == -1).all()
    nobody = store.reader.locate(keys_of([-1] * len(users)))
    assert (store.reader.find_rows(nobody, *places) == -1).all()


def test_all_that_was_known_may_have_been_superseded() -> None:
    """Then no history was lost to ingest time: there was none."""
    store = write_generation({1: [(1, 1, 0), (2, 2, 0)], 2: [(1, 90, 0)]}, watermark=100, superseded={1: [5, 6]})
    measured = store.reader.measure(keys_of([1, 1, 2]), np.array([50] * 3), np.array([50, 6, 50]))
    assert measured.length.tolist() == [0, 1, 0]
    assert measured.stored_before.tolist() == [0, 2, 1]


class TestRetention:
    """A generation without the oldest events of users; the pointers are from before."""

    rows: ClassVar = {1: [(k, k, 0) for k in range(600)], 2: [(5, 5, 0)], 3: [(7, 7, 0), (900, 900, 0)]}
    before = write_generation(rows, watermark=1000)
    after = write_generation(
        {1: rows[1][200:], 3: rows[3][1:]}, watermark=1000, expired=True, horizon=200, retention=Retention(max_events=9)
    )

    def pointers(self, users: list[int], end_ts: int) -> Pointers:
        ends, watermark = np.full(len(users), end_ts), np.full(len(users), 1000)
        return pointers_of(self.before.reader.measure(keys_of(users), ends, watermark), ends, watermark)

    def test_what_is_left_is_given(self) -> None:
        users = [1, 1, 2, 3, 77]
        pointers = self.pointers(users, 500)
        pointers.length[1], pointers.start_ts[1] = 300, 200
        pointers.checksum[1] = self.before.checksum(1, range(200, 500))
        resolution = self.after.reader.resolve(keys_of(users), pointers)
        expired = Status.EXPIRED
        assert resolution.status.tolist() == [expired, Status.OK, expired, expired, Status.OK]
        assert resolution.count.tolist() == [300, 300, 0, 0, 0]
        assert resolution.start.tolist() == [0, 0, 0, 0, 0]
        assert resolution.stop.tolist() == [300, 300, 0, 0, 0]

    @pytest.mark.parametrize(
        ("user", "message"),
        [
            (
                1,
                r"means 500 events, and retention left 300 of them; events before .*000200Z are gone; the user's oldest",
            ),
            (2, r"means 1 events, and retention left 0 of them; .*; the generation has none of this user's events"),
            (
                3,
                r"means 1 events, and retention left 0 .* the user's oldest event kept is of 1970-01-01T00:00:00.000900Z",
            ),
        ],
    )
    def test_the_horizon_is_named(self, user: int, message: str) -> None:
        pointers = self.pointers([user], 500)
        resolution = self.after.reader.resolve(keys_of([user]), pointers)
        with pytest.raises(ExpiredError, match=f"row 0, user {user}: the pointer {message}"):
            self.after.reader.require(resolution, pointers, pa.array([user]))

    def test_without_a_horizon_the_count_is_named(self) -> None:
        pointers = self.pointers([2], 500)
        kept = write_generation({}, watermark=1000, expired=True, retention=Retention(max_events=9))
        resolution = kept.reader.resolve(keys_of([2]), pointers)
        with pytest.raises(ExpiredError, match="the newest 9 events of a user are kept"):
            kept.reader.require(resolution, pointers, pa.array([2]))

    def test_what_is_wrong_in_another_way_stays_wrong(self) -> None:
        pointers = self.pointers([1] * 3, 500)
        pointers.length[:] = 100
        pointers.start_ts[:] = 400
        pointers.checksum[:] = self.before.checksum(1, range(400, 500))
        pointers.start_ts[0] += 1
        pointers.checksum[1] += 1
        pointers.watermark[2] = 1001
        resolution = self.after.reader.resolve(keys_of([1] * 3), pointers)
        assert resolution.status.tolist() == [Status.SHORT, Status.CHECKSUM, Status.NEWER]


def test_a_scrubbed_user_is_named() -> None:
    store = histories(16, users=1)
    end_ts, watermark = np.array([SPAN]), np.array([SPAN])
    pointers = pointers_of(store.reader.measure(keys_of([0]), end_ts, watermark), end_ts, watermark)
    resolution = store.reader.resolve(keys_of([0]), pointers)
    resolution.status[0] = Status.SCRUBBED
    with pytest.raises(ScrubbedError, match=r"row 0, user 0: the user was scrubbed at 1970-01-01T00:00:00\.000009Z"):
        store.reader.require(resolution, pointers, pa.array([0]), np.array([9]))


def test_pointers_survive_late_events() -> None:
    """A later generation holds more rows, some inside old pointers' ranges: the pointers mean the same events."""
    span = 300
    rows = random_rows(np.random.default_rng(7), 10, 1500, span=span, late=0.3)
    users, end_ts, _ = ask(8, 300, 10, span)
    for watermark in (50, 200, 350):
        early = {user: [row for row in rows[user] if row[1] < watermark] for user in rows}
        store = write_generation({user: kept for user, kept in early.items() if kept}, watermark=watermark)
        cutoff = np.full(len(users), watermark)
        measured = store.reader.measure(keys_of(users), end_ts, cutoff)
        superseded = {  # nothing that these pointers could have known
            user: [t if t >= watermark else NEVER for t in at]
            for user, at in random_versions(np.random.default_rng(17), rows, 0.3).items()
        }
        later = write_generation(rows, watermark=3 * span, superseded=superseded)
        check_resolved(later, users, pointers_of(measured, end_ts, cutoff), [None] * len(users))


def test_events_are_ranked_among_what_retention_left() -> None:
    rows = [(k, k + (90 if k % 50 == 7 else 0), 0) for k in range(900)]
    full = write_generation({1: rows}, watermark=1000)
    end_ts, watermark = np.full(3, 880), np.array([870, 890, 990])
    pointers = pointers_of(full.reader.measure(keys_of([1] * 3), end_ts, watermark), end_ts, watermark)
    left = write_generation(
        {1: rows[300:]}, watermark=1000, expired=True, horizon=300, retention=Retention(max_events=600)
    )
    order = np.array([(t, t + 100, 5) for _ in range(3) for t in (3, 299, 300, 512, 857, 878)]).T.copy()
    unstored = Unstored(np.arange(0, 19, 6), order, np.full(18, -9))
    resolution = left.reader.resolve(keys_of([1] * 3), pointers, unstored)
    assert (resolution.status == Status.EXPIRED).all()
    for i in range(3):
        seen = [left.rows[1][number] for number in left.seen(1, 880, watermark[i])]
        events = [tuple(event) for event in order.T[6 * i : 6 * i + 6].tolist()]
        assert resolution.count[i] == len(seen)
        assert unstored.ranks[6 * i : 6 * i + 6].tolist() == [bisect_left(seen, event) for event in events]


def test_only_the_newest_length_events_are_meant() -> None:
    store = histories(9)
    users = list(store.rows)
    end_ts, watermark = np.full(len(users), SPAN // 2), np.full(len(users), SPAN // 2)
    shorter = []
    for user in users:
        seen = store.seen(user, SPAN // 2, SPAN // 2)
        shorter.append(seen[len(seen) // 3 :])
    pointers = Pointers(
        EPOCH,
        watermark,
        np.full(len(users), -SPAN),
        end_ts,
        np.zeros(len(users), np.int32),
        np.array([len(seen) for seen in shorter]),
        np.array([store.checksum(user, seen) for user, seen in zip(users, shorter, strict=True)], np.uint64),
    )
    resolution = store.reader.resolve(keys_of(users), pointers)
    assert not resolution.status.any()
    assert resolution.start.tolist() == [seen[0] for seen in shorter]


class TestBadPointers:
    store = write_generation({1: [(k, k, 0) for k in range(600)], 2: [(5, 5, 0)]}, watermark=1000)

    def resolve(self, user: int, **changes: int) -> tuple[Status, str]:
        end_ts, watermark = np.array([500]), np.array([1000])
        pointers = pointers_of(self.store.reader.measure(keys_of([1]), end_ts, watermark), end_ts, watermark)
        for name, value in changes.items():
            getattr(pointers, name)[0] = value
        resolution = self.store.reader.resolve(keys_of([user]), pointers)
        assert resolution.start[0] == resolution.stop[0] == resolution.count[0] == 0
        with pytest.raises(PointerError, match=f"row 0, user {user}: ") as error:
            self.store.reader.require(resolution, pointers, pa.array([user]))
        return Status(resolution.status[0]), str(error.value)

    def test_unknown_user(self) -> None:
        assert self.resolve(77) == (
            Status.UNKNOWN_USER,
            "row 0, user 77: the pointer means 500 events, but the store has none of this user",
        )

    def test_another_user(self) -> None:
        status, message = self.resolve(2)
        assert status is Status.SHORT
        assert "means 500 events (0 at its end), but only 1 are visible" in message

    @pytest.mark.parametrize("changes", [{"length": 501}, {"end_ts": 499}, {"start_ts": 1}, {"end_ties": 2}])
    def test_short(self, changes: dict[str, int]) -> None:
        assert self.resolve(1, **changes)[0] is Status.SHORT

    @pytest.mark.parametrize("changes", [{"length": 499}, {"checksum": 1}, {"end_ts": 501}, {"end_ties": 1}])
    def test_other_events(self, changes: dict[str, int]) -> None:
        status, message = self.resolve(1, **changes)
        assert status is Status.CHECKSUM
        assert "are not those captured" in message

    def test_newer_than_the_generation(self) -> None:
        status, message = self.resolve(1, watermark=1001)
        assert status is Status.NEWER
        assert "the generation's 1970-01-01T00:00:00.001000Z" in message

    def test_no_events_of_an_unknown_user(self) -> None:
        none = np.zeros(2, np.int64)
        pointers = Pointers(EPOCH, none + 9, none, none, none.astype(np.int32), none, np.array([0, 5], np.uint64))
        resolution = self.store.reader.resolve(keys_of([77, 77]), pointers)
        assert resolution.status.tolist() == [Status.OK, Status.CHECKSUM]


def test_no_pointers() -> None:
    store = histories(10, users=1)
    none = np.zeros(0, np.int64)
    measured = store.reader.measure(keys_of([]), none, 5)
    pointers = pointers_of(measured, none, none)
    assert len(store.reader.resolve(keys_of([]), pointers).status) == 0


def test_one_user_of_many_stripes() -> None:
    """A hundred thousand events, a few late: sums over hundreds of stripes, and the two ends."""
    rng = np.random.default_rng(11)
    event_ts = np.sort(rng.integers(0, 30_000, 100_000))
    ingest = event_ts + np.where(rng.random(len(event_ts)) < 1e-4, 20_000, 0)
    order = np.lexsort((ingest, event_ts))
    place = np.arange(len(event_ts)) - np.searchsorted(
        event_ts[order] * 100_000 + ingest[order], event_ts[order] * 100_000 + ingest[order]
    )
    rows = list(zip(event_ts[order].tolist(), ingest[order].tolist(), place.tolist(), strict=True))
    store = write_generation({7: rows}, watermark=60_000, shards=1)
    end_ts = np.array([0, 1, 29_999, 40_000, 15_000])
    watermark = np.array([60_000, 60_000, 29_999, 60_000, 15_000])
    measured = store.reader.measure(keys_of([7] * 5), end_ts, watermark)
    check_measured(store, [7] * 5, measured, end_ts, watermark, [None] * 5)
    check_resolved(store, [7] * 5, pointers_of(measured, end_ts, watermark), [None] * 5)
