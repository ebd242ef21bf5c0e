"""Mistakes that everyone makes once: seconds for microseconds, a path for a store, the same command once more."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import latewood as lw
from latewood.testing import ManualClock

NOW_S = 1_700_000_000
SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))


@pytest.fixture
def store(store_path: Path) -> lw.Store:
    return lw.Store.create(store_path, SCHEMA, shards=1, clock=ManualClock(NOW_S * 10**6))


def event(event_ts: int) -> pa.Table:
    return pa.table({"user_id": [1], "event_ts": [event_ts], "item": [1]})


@pytest.mark.parametrize("per_second", [1, 1000])
def test_times_in_another_unit_are_doubted(store: lw.Store, per_second: int) -> None:
    with pytest.warns(UserWarning, match="all of event_ts lie in early 1970: are they seconds or milliseconds"):
        store.append(event(NOW_S * per_second))
    with pytest.warns(UserWarning, match="all of request_ts lie in early 1970"):
        store.capture(pa.table({"user_id": [1], "request_ts": [NOW_S * per_second]}))


def test_other_times_are_not(store: lw.Store, tmp_path: Path) -> None:
    store.append(event(NOW_S * 10**6))
    store.append(event(-NOW_S))
    store.append(pa.table({"user_id": [1, 1], "event_ts": [NOW_S, NOW_S * 10**6], "item": [1, 2]}))
    store.capture(pa.table({"user_id": [1], "request_ts": [NOW_S * 10**6]}))
    with lw.Store.create(tmp_path / "early", SCHEMA, shards=1, clock=ManualClock(10**6)) as early:
        early.append(event(1000))  # its clock, too, is in 1970


@pytest.mark.parametrize("make", [lw.Materializer, lambda *of: lw.Loader(of[0], "nowhere", of[1])])
def test_a_path_is_no_store_and_a_dictionary_no_projection(store: lw.Store, make: Any) -> None:
    with pytest.raises(lw.SchemaError, match=r"open it first: lw.Store.open\('stores/a', read_only=True\)"):
        make("stores/a", lw.Projection())
    with pytest.raises(lw.SchemaError, match=r"is an lw.Projection, not \{'max_len': 3\}"):
        make(store, {"max_len": 3})
