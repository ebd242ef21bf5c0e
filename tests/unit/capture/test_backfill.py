"""Backfill: every request as of its own time, the same whenever it is asked (docs/protocol.md R8)."""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.capture import backfill
from latewood.capture import examples as examples_module
from latewood.errors import ConflictError
from latewood.store import Store

SECOND, HOUR = 1_000_000, 3_600_000_000
START = 1_700_000_000_000_000
USERS = ["ada", "bob", "çelik", "dan"]


def requests(users: list[str], request_ts: Any, **columns: Any) -> pa.Table:
    return pa.table({"user_id": users, "request_ts": pa.array(request_ts, pa.int64()), **columns})


def import_history(world: Any, rng: np.random.Generator, count: int) -> None:
    """Old events with coarse clocks, a third of them late; nothing is newer than the store's clock."""
    event_ts = START - rng.integers(1000, 2000, count) * SECOND
    delay = np.where(rng.random(count) < 0.33, rng.integers(-5, 900, count), rng.integers(0, 2, count)) * SECOND
    world.append(rng.choice(USERS, count).tolist(), event_ts.tolist(), (event_ts + delay).tolist())


def anchors_of(world: Any, items: list[int]) -> pa.Table:
    chosen = [world.log[item] for item in items]
    return requests(
        [user for user, _ in chosen],
        [place[0] for _, place in chosen],
        item=items,
        anchor=[{"ingest_ts": place[1], "ordinal": place[2]} for _, place in chosen],
    )


def check(world: Any, examples: pa.Table, ties: list[tuple[int, int] | None]) -> None:
    columns = (examples["user_id"], examples["request_ts"], examples["cutoff"].cast(pa.int64()))
    asked = zip(*(column.to_pylist() for column in columns), ties, strict=True)
    assert world.held(examples) == [world.seen(user, end, cutoff, tie) for user, end, cutoff, tie in asked]


@pytest.mark.parametrize("compactions", [0, 1, 3])
@pytest.mark.parametrize("anchored", [False, True])
def test_requests_see_what_was_known_at_their_time(world: Any, compactions: int, anchored: bool) -> None:
    rng = np.random.default_rng(compactions)
    import_history(world, rng, 600)
    closed = world.store.tier.state().closed
    for k in range(compactions):
        world.store.compact(closed - (compactions - 1 - k) * 400 * SECOND)
    if anchored:
        items = rng.integers(0, 600, 80).tolist()
        given = anchors_of(world, items)
        ties = [world.log[item][1][1:] for item in items]
        expected = [min(place[0], place[1]) + 1 for _, place in (world.log[item] for item in items)]
    else:
        given = requests(rng.choice([*USERS, "nobody"], 80).tolist(), START - rng.integers(1000, 2000, 80) * SECOND)
        ties = [None] * 80
        expected = given["request_ts"].to_pylist()
    examples = backfill(world.store, given)
    assert examples.column_names == [
        name for name in [*given.column_names, "uih", "recent", "cutoff"] if name != "anchor"
    ]
    assert examples["cutoff"].cast(pa.int64()).to_pylist() == expected
    check(world, examples, ties)
    before = world.held(examples)
    for _ in range(2):
        world.clock.advance(SECOND)
        world.append(USERS, [START - 1500 * SECOND] * 4)  # late, inside every range
        world.store.compact()
        assert world.held(examples) == before
        again = backfill(world.store, given)
        assert world.held(again) == before


def test_the_cutoffs_become_the_frontier(world: Any) -> None:
    world.append(["ada"] * 3, [START - 30, START - 20, START - 10], [START - 30, START - 20, START - 10])
    backfill(world.store, requests(["ada", "ada"], [START - 15, START - 25]))
    assert world.store.tier.state().frontier == START - 15
    world.append(["ada"], [START - 28], [START - 15])
    with pytest.raises(ConflictError):
        world.append(["ada"], [START - 28], [START - 16])


class TestCompleteness:
    def test_a_request_past_the_closed_time_is_refused(self, world: Any) -> None:
        world.append(["ada"], [START - 30], [START - 30])
        ok = requests(["ada"], [START - 29])
        assert world.held(backfill(world.store, ok)) == [[0]]
        with pytest.raises(ConflictError, match=r"row 1: the request at .* is past .* complete=True"):
            backfill(world.store, requests(["ada", "ada"], [START - 29, START - 28]))
        assert world.store.tier.state().frontier == START - 29

    def test_unless_the_caller_says_that_nothing_is_missing(self, world: Any) -> None:
        world.append(["ada"], [START - 30], [START - 30])
        given = requests(["ada"], [START])
        examples = backfill(world.store, given, complete=True)
        state = world.store.tier.state()
        assert (state.frontier, state.closed) == (START, START)
        world.append(["ada"], [START - 25])  # stamped: not below the request
        assert world.log[1][1][1] >= START
        assert world.held(backfill(world.store, given)) == world.held(examples) == [[0]]

    def test_the_future_is_never_complete(self, world: Any) -> None:
        world.append(["ada"], [START - 30], [START - 30])
        with pytest.raises(ConflictError, match="later than the store's clock"):
            backfill(world.store, requests(["ada"], [START + SECOND]), complete=True)
        assert world.store.tier.state().closed == START - 29

    def test_an_anchor_may_be_the_last_event(self, world: Any) -> None:
        world.append(["ada"] * 2, [START - 30] * 2, [START - 30] * 2)
        examples = backfill(world.store, anchors_of(world, [0, 1]))
        assert world.held(examples) == [[], [0]]

    def test_complete_below_the_closed_time_changes_nothing(self, world: Any) -> None:
        world.append(["ada"], [START - 30], [START - 30])
        backfill(world.store, requests(["ada"], [START - 40]), complete=True)
        assert world.store.tier.state().closed == START - 29


class TestLostHistories:
    """Events imported without ingest times: the store learned of all of them now."""

    @pytest.mark.parametrize("compact", [False, True])
    def test_most_of_them_is_an_error_that_says_why(self, world: Any, compact: bool) -> None:
        world.append(["ada", "bob", "bob"], [START - HOUR] * 3)
        if compact:
            world.store.compact()
        given = requests(["ada", "bob", "bob", "nobody"], [START - 5 * SECOND] * 3 + [START])
        with pytest.raises(ConflictError, match=r"3 of 3 requests .*ingest_ts.*allow_empty=True"):
            backfill(world.store, given)
        assert world.held(backfill(world.store, given, allow_empty=True)) == [[], [], [], []]

    def test_half_of_them_is_not(self, world: Any) -> None:
        world.append(["ada"], [START - HOUR], [START - HOUR])
        world.append(["bob"], [START - HOUR])
        given = requests(["ada", "bob", "nobody", "ada"], [START - SECOND] * 3 + [START - 2 * HOUR])
        assert world.held(backfill(world.store, given)) == [[0], [], [], []]

    def test_histories_that_have_not_begun_do_not_count(self, world: Any) -> None:
        world.append(["ada"], [START - HOUR], [START - HOUR])
        backfill(world.store, requests(["ada"] * 3, [START - HOUR - k for k in range(3)]))


class TestNoHistories:
    """Requests that find nothing: the likely reason is told, and nothing else."""

    @pytest.mark.parametrize("compact", [False, True])
    @pytest.mark.parametrize(
        ("users", "times", "reason"),
        [
            (["ada", "bob"], [START // SECOND, START // SECOND + 1], r"early 1970: are they seconds\?"),
            (["ada", "bob"], [START // 1000, START // 1000 + 1], r"early 1970: are they milliseconds\?"),
            (["1", "2"], [START - 5, START - 4], "no user of these is in the store"),
            (["ada", "eve"], [START - HOUR - 7, START - HOUR], "before the first event of their user; .*2023-11-14T21"),
        ],
    )
    def test_the_likely_reason_is_told(
        self, world: Any, compact: bool, users: list[str], times: list[int], reason: str
    ) -> None:
        world.append(["ada", "bob", "bob"], [START - HOUR, START - HOUR, START - 2 * SECOND], [START - 2 * SECOND] * 3)
        world.append(["dan"], [START], [START])
        if compact:
            world.store.compact()
        given = requests(users, times)
        with pytest.warns(UserWarning, match=f"^0 of 2 requests have any history: .*{reason}") as caught:
            examples = backfill(world.store, given)
        assert len(caught) == 1  # that requests are finer than events, for one, is beside the point
        assert caught[0].filename == __file__
        assert world.held(examples) == [[], []]

    def test_one_with_a_history_is_enough(self, world: Any) -> None:
        world.append(["ada"], [START - HOUR], [START - HOUR])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            backfill(world.store, requests(["nobody", "ada"], [START - HOUR + 1] * 2))
            backfill(world.store, requests([], []))


class TestCoarseEvents:
    def import_and_ask(self, world: Any, grid: int, request_ts: int, **columns: Any) -> None:
        for k in range(6):
            ts = (START // grid - 10 + k) * grid
            world.append(["ada"], [ts], [ts])
        backfill(world.store, requests(["ada"], [request_ts], **columns))

    @pytest.mark.parametrize("grid", [1000, SECOND, 24 * HOUR])
    @pytest.mark.parametrize("compact", [False, True])
    def test_finer_requests_are_warned_of(self, world: Any, grid: int, compact: bool) -> None:
        with pytest.warns(UserWarning, match="finer than event times, which are whole .*anchors"):
            self.import_and_ask(world, grid, (START // grid - 7) * grid + 1)
        if compact:
            world.store.compact()
            with pytest.warns(UserWarning, match="finer"):
                backfill(world.store, requests(["ada"], [(START // grid - 7) * grid + 1]))

    @pytest.mark.parametrize("grid", [7, 1000, SECOND, 24 * HOUR])
    def test_others_are_not(self, world: Any, grid: int) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.import_and_ask(world, grid, (START // grid - 7) * grid)

    def test_nor_are_anchors(self, world: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ts = (START // SECOND - 7) * SECOND
            self.import_and_ask(world, SECOND, ts, anchor=[{"ingest_ts": ts + 7, "ordinal": 0}])


def test_no_requests(world: Any) -> None:
    examples = backfill(world.store, requests([], [], label=pa.array([], pa.int8())))
    assert examples.column_names == ["user_id", "request_ts", "label", "uih", "recent", "cutoff"]
    assert len(examples) == 0


def test_many_requests_are_read_in_parts(world: Any) -> None:
    import_history(world, np.random.default_rng(5), 200)
    world.store.compact(START - 1200 * SECOND)
    given = requests([USERS[k % 4] for k in range(50)], [START - (1000 + 20 * k) * SECOND for k in range(50)])
    whole = backfill(world.store, given)
    assert backfill(world.store, given, at_once=7).equals(whole)


def test_a_schema_that_changes_between_two_parts_is_that_of_all(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of before are made anew: tables of different columns cannot be put together."""
    world.append(["ada"] * 3, [START + s * SECOND for s in range(3)])
    world.clock.advance(5 * SECOND)
    asked = requests(["ada"] * 3, [START + s * SECOND for s in range(1, 4)])
    make = examples_module.make_examples

    def change_after(*args: Any) -> Any:
        made = make(*args)
        monkeypatch.setattr(examples_module, "make_examples", make)
        world.store.alter(add=pa.schema([("city", pa.string())]))
        world.store.compact()
        return made

    monkeypatch.setattr(examples_module, "make_examples", change_after)
    examples = backfill(world.store, asked, complete=True, at_once=1)
    assert "city" in {field.name for field in examples.schema.field("recent").type}
    check(world, examples, [None] * 3)


def test_a_store_opened_read_only_cannot_fix_the_past(world: Any) -> None:
    with Store.open(world.store.path, read_only=True) as store, pytest.raises(ConflictError, match="mutable tier"):
        backfill(store, requests(["ada"], [1]))


def test_a_later_bulk_load_cannot_change_what_was_answered(world: Any) -> None:
    world.append(["ada"], [START - HOUR], [START - HOUR])
    first = backfill(world.store, requests(["ada"], [START - HOUR + 5]), complete=True)
    with pytest.raises(ConflictError):
        world.store.tier.begin_load(START - HOUR, START - 5, "token", now=world.clock.now())
    world.append(["ada"], [START - HOUR], [START - HOUR + 5])
    assert world.held(first) == [[0]]


def test_swapped_arguments_are_told(world: Any) -> None:
    with pytest.raises(TypeError, match=r"backfill\(store, requests\): a Table is no store; are the two swapped\?"):
        backfill(requests(["ada"], [1]), world.store)  # type: ignore[arg-type]
