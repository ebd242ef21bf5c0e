"""How many rows are merged at once: as many as their columns, and the items of their lists, leave room for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.columns import compact_lists
from latewood.compaction import compact
from latewood.compaction.parent import open_shard
from latewood.compaction.settings import Settings
from latewood.schema import Schema


def schema_of(*types: pa.DataType) -> Schema:
    return Schema(user_id=pa.int64(), traits=pa.schema([(f"t{i}", type_) for i, type_ in enumerate(types)]))


def test_longer_lists_leave_room_for_fewer_rows() -> None:
    settings = Settings(workers=1, memory_bytes=1 << 30)
    plain, lists = schema_of(pa.int64()), schema_of(pa.int64(), pa.list_(pa.int64()))
    sizes = [settings.rows_max(plain), *(settings.rows_max(lists, item_bytes) for item_bytes in (0, 1000, 100_000))]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] * 1000 < (1 << 30) // 16
    assert sizes[3] * 100_000 < (1 << 30) // 16
    little = Settings(workers=1, memory_bytes=1)
    assert little.rows_max(plain) == 4096  # smaller runs would spend their time on calls,
    assert little.rows_max(lists, 100_000) == 4096 // 25  # unless rows are long
    assert little.rows_max(lists, 1 << 40) == 1


def test_lists_of_one_size_are_known_to_be_long() -> None:
    settings = Settings(workers=1, memory_bytes=1 << 30)
    short, long = (settings.rows_max(schema_of(pa.list_(pa.float32(), size))) for size in (2, 256))
    assert long < short
    assert long * 256 * 4 < (1 << 30) // 16


def test_a_shard_tells_about_how_long_its_lists_are(make_parts: Callable[..., Any]) -> None:
    parts = make_parts(schema_of(pa.int64(), pa.list_(pa.float64())), shards=1)
    events = parts.events([1] * 500, list(range(500)))
    items = np.random.default_rng(1).random(500 * 20)
    events.traits[1] = compact_lists(items, np.full(500, 20))
    parts.tier.append(events, now=parts.clock.advance(1_000_000))
    old = open_shard(parts.storage, compact(parts), 0)
    assert old is not None
    assert 160 <= old.item_bytes <= 4 * 170
