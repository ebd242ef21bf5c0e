"""Mistakes that everyone makes once: a path for a store, a dictionary for a projection."""

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


@pytest.mark.parametrize("make", [lw.Materializer, lambda *of: lw.Loader(of[0], "nowhere", of[1])])
def test_a_path_is_no_store_and_a_dictionary_no_projection(store: lw.Store, make: Any) -> None:
    with pytest.raises(lw.SchemaError, match=r"open it first: lw.Store.open\('stores/a', read_only=True\)"):
        make("stores/a", lw.Projection())
    with pytest.raises(lw.SchemaError, match=r"is an lw.Projection, not \{'max_len': 3\}"):
        make(store, {"max_len": 3})
