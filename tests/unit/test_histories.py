"""Whole histories are read by the schema of the generation that they come from, whatever the process knew before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood import histories
from latewood.conditions import Condition
from latewood.testing import ManualClock

SCHEMA = lw.Schema(user_id=pa.string(), traits=pa.schema([("item", pa.int64()), ("shop", pa.string())]))
CITY = pa.schema([("city", pa.string())])


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(1_000)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> lw.Store:
    """One user with a stored event."""
    store = lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock)
    append(store, clock, item=1)
    store.compact()
    return store


def append(store: lw.Store, clock: ManualClock, user: str = "u1", **traits: object) -> None:
    clock.advance(10)
    given = {"shop": "big shop"} | traits
    columns = {trait.name: pa.array([given.get(trait.name)], trait.value_type) for trait in store.schema}
    store.append(pa.table({"user_id": [user], "event_ts": [clock.now()]} | columns))


@pytest.fixture
def behind(store: lw.Store, clock: ManualClock) -> lw.Store:
    """Opened before what the tests do to the store, and not refreshed since."""
    other = lw.Store.open(store.path, clock=clock)
    other.reader()
    return other


def exported(store: lw.Store, tmp_path: Path) -> list[dict[str, Any]]:
    lw.export_events(store, tmp_path / "events.parquet", overwrite=True)
    table = pq.read_table(tmp_path / "events.parquet")
    return table.drop_columns(["user_id", "event_ts", "ingest_ts", "superseded_at"]).to_pylist()


def anchored(store: lw.Store, where: Condition | None = None) -> list[dict[str, Any]]:
    return lw.anchors(store, where, min_history=0).drop_columns(["user_id", "request_ts", "anchor"]).to_pylist()


def rebuilt(store: lw.Store, tmp_path: Path) -> list[dict[str, Any]]:
    with lw.rebuild(store, tmp_path / "new") as new:
        return new.history("u1").drop_columns(["event_ts"]).to_pylist()


def test_a_process_that_is_behind_reads_a_trait_that_was_added(
    store: lw.Store, behind: lw.Store, clock: ManualClock, tmp_path: Path
) -> None:
    store.alter(add=CITY)
    store.compact()
    append(store, clock, item=2, city="Oslo")
    store.compact()
    rows = [{"item": 1, "shop": "big shop", "city": None}, {"item": 2, "shop": "big shop", "city": "Oslo"}]
    assert anchored(behind) == rows
    for tool in (exported, rebuilt):
        with lw.Store.open(store.path, clock=clock) as other:
            assert tool(other, tmp_path) == rows


def test_a_process_that_is_behind_reads_the_trait_that_has_the_name_now(
    store: lw.Store, clock: ManualClock, tmp_path: Path
) -> None:
    others = [lw.Store.open(store.path, clock=clock) for _ in range(4)]
    for other in others:
        other.reader()
    store.alter(drop=["item"], add=pa.schema([("item", pa.int64())]))
    store.compact()
    append(store, clock, item=17)
    store.compact()
    rows = [{"shop": "big shop", "item": None}, {"shop": "big shop", "item": 17}]
    assert exported(others[0], tmp_path) == rows
    assert anchored(others[1], lw.col("item") == 17) == rows[1:]
    assert rebuilt(others[2], tmp_path) == rows
    assert others[3].scrub(where=lw.col("item") == 17).events == 1


@pytest.mark.parametrize("run", [lw.anchors, lambda store, where: store.scrub(where=where)], ids=["anchors", "scrub"])
def test_a_condition_is_on_the_traits_of_now(
    store: lw.Store, behind: lw.Store, run: Callable[[lw.Store, Condition], Any]
) -> None:
    store.alter(add=CITY, drop=["shop"])
    store.compact()
    run(behind, lw.col("city") == "Oslo")
    with pytest.raises(lw.SchemaError, match="shop"):
        run(behind, lw.col("shop") == "big shop")


def test_a_change_while_both_tiers_are_read(
    store: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an appender who knows the new schema adds then must not meet the old one."""
    read_both = histories.read_both

    def change_first(*args: Any) -> Any:
        monkeypatch.setattr(histories, "read_both", read_both)
        with lw.Store.open(store.path, clock=clock) as other:
            other.alter(add=CITY)
            other.compact()
            append(other, clock, item=2, city="Oslo")
        return read_both(*args)

    monkeypatch.setattr(histories, "read_both", change_first)
    assert [row["city"] for row in rebuilt(store, tmp_path)] == [None, "Oslo"]


@pytest.mark.parametrize("tool", [exported, rebuilt, lambda store, _: anchored(store)])
def test_a_trait_that_is_dropped_and_collected_meanwhile_is_read_to_the_end(
    store: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Any
) -> None:
    append(store, clock, item=2, shop="little shop")
    scan = histories._scan

    def drop_first(*args: Any) -> Any:
        with lw.Store.open(store.path, clock=clock) as other:
            other.alter(drop=["shop"])
            other.compact(keep=1)
        yield from scan(*args)

    with lw.Store.open(store.path, clock=clock) as fresh:
        monkeypatch.setattr(histories, "_scan", drop_first)
        assert [row["shop"] for row in tool(fresh, tmp_path)] == ["big shop", "little shop"]


def test_a_condition_on_a_trait_that_is_dropped_and_collected_meanwhile(
    store: lw.Store, behind: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = histories._scan

    def drop_first(*args: Any) -> Any:
        store.alter(drop=["shop"])
        store.compact(keep=1)
        yield from scan(*args)

    append(store, clock, item=2, shop="little shop")
    monkeypatch.setattr(histories, "_scan", drop_first)
    assert behind.scrub(where=lw.col("shop") == "little shop").events == 1


def test_what_a_scrub_of_others_blanks_meanwhile_is_read_again(
    store: lw.Store, behind: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention has taken the event that had the value, and another thread of the process has heard of the blanking."""
    append(store, clock, item=2, shop="little shop")
    append(store, clock, "u2", item=3, shop="little shop")
    scan = histories._scan

    def blank_first(*args: Any) -> Any:
        monkeypatch.setattr(histories, "_scan", scan)
        append(store, clock, item=4)
        store.alter(retention=lw.Retention(max_events=1))
        store.scrub(["u2"])
        behind.vocabulary.refresh_blanked()
        yield from scan(*args)

    monkeypatch.setattr(histories, "_scan", blank_first)
    assert [row["item"] for row in exported(behind, tmp_path)] == [4]


@pytest.mark.parametrize("tool", [exported, rebuilt])
def test_a_scrub_of_events_that_is_settled_before_its_record_is_read(
    store: lw.Store, behind: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Any
) -> None:
    """Its list of events is empty by then; only the newer generation lacks them."""
    append(store, clock, item=17)
    store.compact()
    refresh = behind.scrubs.refresh

    def scrub_first() -> int:
        monkeypatch.setattr(behind.scrubs, "refresh", refresh)
        store.scrub(where=lw.col("item") == 17)
        return refresh()

    monkeypatch.setattr(behind.scrubs, "refresh", scrub_first)
    assert [row["item"] for row in tool(behind, tmp_path)] == [1]


def test_a_correction_that_comes_while_the_recent_events_are_read_is_seen_whole_or_not_at_all(
    store: lw.Store, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An import may bring it with an ingest time among those that are read."""

    def bring(item: int, ingest_ts: int, **more: list[str]) -> None:
        row = {"user_id": ["u1"], "event_ts": [500], "ingest_ts": [ingest_ts], "item": [item], "shop": ["big shop"]}
        store.append(pa.table(row | more))

    clock.advance(1_000)
    bring(2, 1_100, event_id=["a"])
    bring(3, 1_500, event_id=["b"])
    behind = lw.Store.open(store.path, clock=clock)
    tier = behind.tier
    assert tier is not None

    def between(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            found = call(*args)
            if len(store.history("u1")) == 3 and 22 not in store.history("u1")["item"].to_pylist():
                bring(22, 1_200, event_id=["c"], supersedes=["a"])
            return found

        return called

    for name in [name for name in dir(tier) if name.startswith(("scan", "supp"))]:
        monkeypatch.setattr(tier, name, between(getattr(tier, name)))
    lw.export_events(behind, tmp_path / "events.parquet")
    assert 22 in store.history("u1")["item"].to_pylist(), "it came meanwhile"
    table = pq.read_table(tmp_path / "events.parquet")
    at = dict(zip(table["item"].to_pylist(), table["superseded_at"].cast(pa.int64()).to_pylist(), strict=True))
    assert at in ({1: None, 2: None, 3: None}, {1: None, 2: 1_200, 3: None, 22: None})
