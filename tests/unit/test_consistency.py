"""Looks at a live store: what comes between two reads is no fault of it. Why, shadow and verify are held to that."""

from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from latewood.consistency import read_consistently
from latewood.testing import ManualClock

SCHEMA = lw.Schema(user_id=pa.string(), traits=pa.schema([("item", pa.int64()), ("shop", pa.string())]))
CLOCK = ManualClock(1_000)
Change = Callable[[lw.Store], Any]
Once = Callable[..., None]


@pytest.fixture
def store(tmp_path: Path) -> lw.Store:
    """Items 1 and 2 of ann and 3 of bob are stored, item 4 of ann is recent."""
    store = lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=CLOCK)
    for user, item in (("ann", 1), ("ann", 2), ("bob", 3)):
        append(store, user, item)
    store.compact()
    append(store, "ann", 4)
    return store


@pytest.fixture
def other(store: lw.Store) -> lw.Store:
    return lw.Store.open(store.path, clock=CLOCK)


def advance() -> int:
    CLOCK.advance(10)
    return CLOCK.now()


def append(store: lw.Store, user: str, item: int, shop: str = "big shop") -> None:
    store.append(pa.table({"user_id": [user], "event_ts": [advance()], "item": [item], "shop": [shop]}))


def capture(store: lw.Store) -> pa.Table:
    return store.capture(pa.table({"user_id": ["ann", "bob"], "request_ts": [advance()] * 2})).columns


def retain(store: lw.Store) -> None:
    store.alter(retention=lw.Retention(max_events=1))
    store.compact()


def drop(store: lw.Store) -> None:
    store.alter(drop=["shop"])
    store.compact(keep=1)


def replace(store: lw.Store) -> None:
    store.alter(drop=["item"], add=pa.schema([("item", pa.int64())]))
    store.compact()


CHANGES: dict[str, Change] = {
    "retention": retain,
    "scrub": lambda store: store.scrub(["ann"]),
    "scrub of events": lambda store: store.scrub(where=lw.col("item") == 2),
    "append": lambda store: append(store, "ann", 5, "new shop"),
    "dropped trait": drop,
    "other trait": replace,
}
changes = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Iterator[Once]:
    """Lets something happen once, before or after what a module calls by a name; fails where it is never called so."""
    due: list[str] = []

    def arrange(module: str, name: str, change: Callable[[], Any], *, after: bool) -> None:
        of, called = import_module(f"latewood.{module}"), f"{module}.{name}"
        honest = getattr(of, name)
        due.append(called)

        def call(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(of, name, honest)
            due.remove(called)
            if after:
                result = honest(*args, **options)
                change()
                return result
            change()
            return honest(*args, **options)

        monkeypatch.setattr(of, name, call)

    yield arrange
    assert not due, f"nothing happened, since nobody called {', '.join(due)}"


@changes
@pytest.mark.parametrize("ahead", [1, 1_000])
def test_why_takes_no_change_for_a_mistake(
    store: lw.Store, other: lw.Store, once: Once, change: Change, ahead: int
) -> None:
    first, request = store.history("ann")["event_ts"][0].as_py(), advance() + ahead
    once("explain.why", "read_histories", lambda: change(store), after=True)
    found = [verdict.kind for verdict in lw.why(other, "ann", request, first)]
    assert found == [verdict.kind for verdict in lw.why(other, "ann", request, first)]


@changes
def test_why_takes_no_change_for_a_mistake_of_an_example(
    store: lw.Store, other: lw.Store, once: Once, change: Change
) -> None:
    example, second = capture(store).slice(0, 1), store.history("ann")["event_ts"][1].as_py()
    once("explain.why", "read_histories", lambda: change(store), after=True)
    kind = lw.why(other, event_ts=second, example=example)[0].kind
    if change is not retain:  # which shows in the second read only, where the event was there in the first
        assert kind == lw.why(other, event_ts=second, example=example)[0].kind


@pytest.mark.parametrize("name", [name for name in CHANGES if not name.endswith("trait")])
def test_shadow_takes_no_change_for_a_contradiction(store: lw.Store, other: lw.Store, once: Once, name: str) -> None:
    rows = lw.Materializer(store, lw.Projection())(capture(store)).to_arrow()
    once("migration.shadow", "read_histories", lambda: CHANGES[name](store), after=True)
    found = lw.shadow(other, rows)
    assert found == lw.shadow(other, rows)
    assert bool(found.kinds) == (name != "append")


@pytest.mark.parametrize(
    ("change", "message"), [(drop, "unknown trait 'shop'"), (replace, "trait 'item' was dropped while rows")]
)
def test_shadow_says_that_a_trait_was_dropped(
    store: lw.Store, other: lw.Store, monkeypatch: pytest.MonkeyPatch, once: Once, change: Change, message: str
) -> None:
    """It would compare another one of that name with what is given for the first."""
    rows = lw.Materializer(store, lw.Projection())(capture(store)).to_arrow()
    monkeypatch.setattr(import_module("latewood.migration.shadow"), "_AT_ONCE", 1)
    once("migration.shadow", "read_histories", lambda: change(store), after=True)
    with pytest.raises(lw.SchemaError, match=message):
        lw.shadow(other, rows)


@changes
@pytest.mark.parametrize("read_only", [False, True])
def test_verify_takes_no_change_for_a_difference_of_examples(
    store: lw.Store, once: Once, change: Change, read_only: bool
) -> None:
    examples = capture(store)
    store.compact()
    other = lw.Store.open(store.path, read_only, clock=CLOCK)
    once("verification.verify", "read_histories", lambda: change(store), after=False)
    report = lw.verify(other, examples)
    assert report.ok, report.differences
    assert report.sampled == 2


@changes
@pytest.mark.parametrize("before", ["check_recent", "check_moved"])
def test_verify_takes_no_change_for_a_difference_between_the_tiers(
    store: lw.Store, other: lw.Store, once: Once, change: Change, before: str
) -> None:
    store.compact()
    append(store, "ann", 5)
    once("verification.verify", before, lambda: change(store), after=False)
    report = lw.verify(other)
    assert report.ok, report.differences


def test_verify_knows_the_words_of_others(store: lw.Store, other: lw.Store) -> None:
    assert lw.verify(other).ok
    append(store, "ann", 5, "new shop")
    report = lw.verify(other)
    assert report.ok, report.differences


def test_verify_gives_up_on_a_generation_whose_values_were_collected(
    store: lw.Store, other: lw.Store, once: Once
) -> None:
    once("verification.verify", "check_codes", lambda: drop(store), after=False)
    with pytest.raises(lw.ConflictError, match="generation 1 was replaced while it was verified"):
        lw.verify(other)


def test_what_goes_on_failing_while_the_store_stands_still_is_an_error(store: lw.Store) -> None:
    looks = []

    def take() -> None:
        if not looks:
            append(store, "ann", 5)
            store.compact()
        looks.append(store.generation.id)
        raise lw.CorruptionError("damage")

    with pytest.raises(lw.CorruptionError, match="damage"):
        read_consistently(store, take)
    assert looks == [2, 2]


def test_a_store_that_never_stands_still(store: lw.Store) -> None:
    """Of a look that what is learned of from now on is nothing to, appends are no reason to look again."""

    def take() -> int:
        append(store, "ann", 5)
        return advance()

    assert read_consistently(store, take, lambda _: True) < read_consistently(store, take, until=advance())
    with pytest.raises(lw.ConflictError, match="changed 20 times in a row while it was looked at"):
        read_consistently(store, take, lambda _: True, until=advance() + 1_000_000)
