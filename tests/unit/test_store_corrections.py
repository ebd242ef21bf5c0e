"""An event is superseded at most once, wherever it lies by then (docs/protocol.md R13)."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

import latewood as lw
from latewood import appending
from latewood.pointer import PLACE_TYPE
from latewood.testing import ManualClock, fat_rows

START = 1_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> Any:
    with lw.Store.create(tmp_path / "store", SCHEMA, shards=2, clock=clock) as store:
        yield store


def happen(store: lw.Store, clock: ManualClock, item: int | None, **options: Any) -> lw.AppendReceipt:
    """An event of user 1, which happened `item` µs after the start; without an item a deletion."""
    clock.advance(10)
    event_ts = pa.array([None if item is None else START + item], pa.int64())
    row = {"user_id": [1], "event_ts": event_ts, "item": pa.array([item], pa.int64())}
    return store.append(pa.table(row | {name: [value] for name, value in options.items()}))


def place(item: int, receipt: lw.AppendReceipt) -> dict[str, int]:
    return {"event_ts": START + item, "ingest_ts": int(receipt.ingest_ts[0]), "ordinal": int(receipt.ordinal[0])}


def settle(store: lw.Store, clock: ManualClock, times: int = 3) -> None:
    """Until what is there now is in a generation alone."""
    for _ in range(times):
        clock.advance(10)
        store.append(pa.table({"user_id": [2], "event_ts": [1], "item": [0]}))
        store.compact()


def items(store: lw.Store) -> list[int]:
    return store.history(1)["item"].to_pylist()


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("by_id", [False, True])
def test_two_versions_of_an_event_are_never_visible_at_once(
    store: lw.Store, clock: ManualClock, is_stored: bool, by_id: bool
) -> None:
    """Both new versions stayed, and an anchor on the later one saw what it corrects: `superseded_at` is of the first."""
    first = happen(store, clock, 5, event_id="a")
    second = happen(store, clock, 14, event_id="b", supersedes="a")
    if is_stored:
        settle(store, clock)
    name: Any = "a" if by_id else place(5, first)
    for item in (15, None):
        with pytest.raises(lw.ConflictError, match="row 0 supersedes an event that was superseded already, by that of"):
            happen(store, clock, item, event_id=f"{item}", supersedes=name)
    assert items(store) == [14]
    third = happen(store, clock, 15, event_id="c", supersedes="b" if by_id else place(14, second))
    assert items(store) == [15]
    ingest_ts = [int(receipt.ingest_ts[0]) for receipt in (first, second, third)]
    events = pa.table(
        {
            "user_id": [1, 1, 1],
            "event_ts": [START + item for item in (5, 14, 15)],
            "item": [5, 14, 15],
            "ingest_ts": ingest_ts,
            "superseded_at": pa.array([*ingest_ts[1:], None], pa.int64()),
        }
    )
    check_anchor(store, events)


def check_anchor(store: lw.Store, events: pa.Table) -> None:
    """The one anchor of user 1 sees nothing of its earlier versions, though one was known by then."""
    store.compact()
    found, view = lw.anchors(store, min_history=0), lw.Projection(traits=["item"])
    requests = found.filter(pc.equal(found["user_id"], 1)).select(["user_id", "request_ts", "anchor"])
    sequences = lw.Materializer(store, view)(lw.backfill(store, requests)).to_arrow()
    assert sequences["history"].to_pylist() == [{"item": []}]
    assert fat_rows(events, requests, view)["history"].to_pylist() == [{"item": []}]


@pytest.mark.parametrize("by_id", [False, True])
def test_what_a_generation_alone_knows_deleted_is_deleted_once(
    store: lw.Store, clock: ManualClock, by_id: bool
) -> None:
    first = happen(store, clock, 10, event_id="a")
    gone = happen(store, clock, None, supersedes="a")
    settle(store, clock)
    name: Any = "a" if by_id else place(10, first)
    again = happen(store, clock, None, supersedes=name)
    assert (again.count, again.duplicates, again.skipped) == (0, 1, 0)
    assert (again.ingest_ts.tolist(), again.ordinal.tolist()) == (gone.ingest_ts.tolist(), [-1])
    with pytest.raises(lw.ConflictError, match="row 0 supersedes an event that was deleted"):
        happen(store, clock, 12, supersedes=name)
    assert items(store) == []


def test_a_repeated_correction_is_a_duplicate_wherever_its_base_is(store: lw.Store, clock: ManualClock) -> None:
    base = happen(store, clock, 10, event_id="a")
    first = happen(store, clock, 11, event_id="b", supersedes=place(10, base))
    for _ in range(2):
        again = happen(store, clock, 11, event_id="b", supersedes=place(10, base))
        assert (again.duplicates, again.ingest_ts.tolist()) == (1, first.ingest_ts.tolist())
        settle(store, clock)
    assert items(store) == [11]


def test_a_chain_by_one_id_goes_on_wherever_its_versions_are(store: lw.Store, clock: ManualClock) -> None:
    happen(store, clock, 10, event_id="a")
    for item in (11, 12, 13):
        settle(store, clock)
        happen(store, clock, item, event_id="a", supersedes="a")
        assert items(store) == [item]
    settle(store, clock)
    happen(store, clock, None, supersedes="a")
    assert items(store) == []


def test_what_was_evicted_after_the_look_is_looked_at_again(
    store: lw.Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the correction that went into the generation meanwhile is met by neither."""
    base = place(10, happen(store, clock, 10))
    settle(store, clock)
    looks = []
    look_up_targets = appending.look_up_targets

    def then_another(*arguments: Any) -> Any:
        found = look_up_targets(*arguments)
        looks.append(found.watermark)
        if len(looks) == 1:
            with lw.Store.open(store.path, clock=clock) as other:
                happen(other, clock, 11, supersedes=base)
                settle(other, clock)
        return found

    monkeypatch.setattr(appending, "look_up_targets", then_another)
    with pytest.raises(lw.ConflictError, match="row 0 supersedes an event that was superseded already"):
        happen(store, clock, 12, supersedes=base)
    before, of_the_other, after = looks
    assert before == of_the_other < after
    assert items(store) == [11]


def test_several_rows_are_told_apart(store: lw.Store, clock: ManualClock) -> None:
    """Of several users, some of them deleted, corrected, or untouched, in the generation or not."""
    users, n = [1, 2, 1, 3, 2], 5
    receipt = store.append(pa.table({"user_id": users, "event_ts": list(range(n)), "item": list(range(n))}))
    places = [
        {"event_ts": i, "ingest_ts": int(receipt.ingest_ts[i]), "ordinal": int(receipt.ordinal[i])} for i in range(n)
    ]
    clock.advance(10)
    gone = store.append(pa.table({"user_id": [1, 2], "supersedes": pa.array([places[0], places[1]], PLACE_TYPE)}))
    settle(store, clock)
    again = store.append(pa.table({"user_id": users, "supersedes": pa.array(places, PLACE_TYPE)}))
    assert (again.count, again.duplicates) == (3, 2)
    assert again.ingest_ts[:2].tolist() == gone.ingest_ts.tolist()
    assert items(store) == []
