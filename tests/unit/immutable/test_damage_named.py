"""A damaged block is named, also where the walk over a long history goes on to other stripes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.stripes import Shard
from latewood.stripes.layout import BLOCK_STRIPES, DELAY, EVENT_TS, HEADER_BYTES, OFFSET_BITS
from latewood.testing import ManualClock

STRIPES = 20  # two blocks per column
EVENTS = 256 * STRIPES - 100


@pytest.mark.parametrize(("column", "name"), [(DELAY, "delay"), (EVENT_TS, "event_ts")])
def test_the_block_where_damage_was_met_is_the_one_that_is_named(tmp_path: Path, column: int, name: str) -> None:
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("x", pa.int64())]))
    times = np.arange(EVENTS) * 10
    delays = np.random.default_rng(0).integers(0, 9, EVENTS)
    with lw.Store.create(tmp_path / "store", schema, shards=1, clock=ManualClock(10**9)) as store:
        store.append(pa.table({"user_id": [7] * EVENTS, "event_ts": times, "ingest_ts": times + delays, "x": times}))
        store.compact()
        examples = store.capture(pa.table({"user_id": [7], "request_ts": [EVENTS * 10 - 1000]})).columns
        key, storage = store.generation.shards[0].key, store.storage
    entry = Shard.open(storage, key)._words("entries")[column * STRIPES + BLOCK_STRIPES]
    path = tmp_path / "store" / key
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + (int(entry) & ((1 << OFFSET_BITS) - 1))] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    # a pointer of a part of that, so that both of its ends lie inside a stripe
    rows = examples["uih"].to_pylist()
    rows[0]["length"] = 4800
    short = examples.set_column(examples.column_names.index("uih"), "uih", pa.array(rows, examples["uih"].type))
    reader = lw.Store.open(tmp_path / "store", read_only=True)
    with pytest.raises(lw.CorruptionError, match=f"user 7, column '{name}', block 1: the bytes are not those written"):
        lw.Materializer(reader, lw.Projection(max_len=3))(short)


def test_damage_in_a_stripe_that_only_a_rank_needs_is_named(tmp_path: Path) -> None:
    """A recent event of long ago; for a model that wants fewer events than came since, nobody looks there."""
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("x", pa.int64())]))
    times, clock = np.arange(EVENTS) * 10, ManualClock(10**9)
    with lw.Store.create(tmp_path / "store", schema, shards=1, clock=clock) as store:
        store.append(pa.table({"user_id": [7] * EVENTS, "event_ts": times, "ingest_ts": times, "x": times}))
        store.compact()
        store.append(pa.table({"user_id": [7], "event_ts": [55], "x": [-1]}))
        clock.advance(10)
        examples = store.capture(pa.table({"user_id": [7], "request_ts": [10**9]})).columns
        key, storage = store.generation.shards[0].key, store.storage
    entry = Shard.open(storage, key)._words("entries")[EVENT_TS * STRIPES]
    path = tmp_path / "store" / key
    data = bytearray(path.read_bytes())
    data[HEADER_BYTES + (int(entry) & ((1 << OFFSET_BITS) - 1))] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    reader = lw.Store.open(tmp_path / "store", read_only=True)
    found = lw.Materializer(reader, lw.Projection(max_len=300, traits=["x"]))(examples)
    assert found.values["x"].tolist() == times[-300:].tolist()
    with pytest.raises(lw.CorruptionError, match="user 7, column 'event_ts', block 0"):
        lw.Materializer(reader, lw.Projection(traits=["x"]))(examples)
