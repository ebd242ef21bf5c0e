"""Which events become anchors: the count of what each of them could see, against counting one by one."""

import itertools

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

import latewood as lw
from latewood.clock import EARLIEST_TS
from latewood.testing import ManualClock

START = 1_700_000_000_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
names = itertools.count()

Row = tuple[int, int, int]  # user, event_ts, delay

ROW = st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(-3, 12))


def make_store(rows: list[Row], stored_before: int) -> lw.Store:
    """A store whose generation holds what was ingested before; the item of an event is its place in `rows`."""
    store = lw.Store.create(f"memory://anchors-{next(names)}", SCHEMA, shards=2, clock=ManualClock(START + 100))
    items = range(len(rows))
    for part in (
        [k for k in items if rows[k][1] + rows[k][2] < stored_before],
        [k for k in items if rows[k][1] + rows[k][2] >= stored_before],
    ):
        store.compact()
        if part:
            store.append(as_table(rows, part))
    return store


def as_table(rows: list[Row], items: list[int]) -> pa.Table:
    columns = {
        "user_id": [rows[k][0] for k in items],
        "event_ts": [START + rows[k][1] for k in items],
        "ingest_ts": [START + rows[k][1] + rows[k][2] for k in items],
        "item": items,
    }
    return pa.table(columns, pa.schema([(name, pa.int64()) for name in columns]))


def expected_items(rows: list[Row], at_least: int) -> set[int]:
    """By docs/protocol.md R2 and R8, one event at a time. Among ties, the place is that of the arrival."""
    chosen = set()
    for k, (user, event_ts, delay) in enumerate(rows):
        cutoff = min(event_ts, event_ts + delay) + 1
        seen = sum(
            other == user and (ts, ts + late, i) < (event_ts, event_ts + delay, k) and ts + late < cutoff
            for i, (other, ts, late) in enumerate(rows)
        )
        if seen >= at_least:
            chosen.add(k)
    return chosen


@given(st.lists(ROW, min_size=1, max_size=40), st.integers(0, 6), st.integers(-3, 21))
def test_at_least_so_many_were_known(rows: list[Row], at_least: int, stored_before: int) -> None:
    anchors = lw.anchors(make_store(rows, stored_before), min_history=at_least)
    items = anchors["item"].to_pylist()
    assert len(items) == len(set(items))
    assert set(items) == expected_items(rows, at_least)


def test_a_condition_chooses_and_counts_nothing_out() -> None:
    rows = [(1, k, 0) for k in range(6)]
    anchors = lw.anchors(make_store(rows, 3), where=lw.col("item") >= 4, min_history=5)
    assert anchors["item"].to_pylist() == [5]  # 4 sees four, whether or not the condition holds for them


def test_no_events_make_no_anchors() -> None:
    anchors = lw.anchors(make_store([], EARLIEST_TS), min_history=1)
    assert len(anchors) == 0
    assert anchors.column_names == ["user_id", "request_ts", "item", "anchor"]
