"""Histories with one trait of every kind that a vocab counts, and batches made by hand: for tests of ids and of items."""

from pathlib import Path

import numpy as np
import pyarrow as pa

import latewood as lw
from latewood.batch import Batch

SCHEMA = lw.Schema(
    user_id=pa.int64(),
    traits=pa.schema(
        [
            ("item", pa.int64()),
            ("word", pa.string()),
            ("sparse", pa.dictionary(pa.int32(), pa.int64())),
            ("tags", pa.list_(pa.string())),
            ("pair", pa.list_(pa.int64(), 2)),
        ]
    ),
)
DAY = 86_400_000_000


def rows(count: int, seed: int) -> dict[str, list[object]]:
    """Events of three users over ten days; a quarter of them are known days late."""
    rng = np.random.default_rng(seed)
    day, late = rng.integers(0, 10, count), np.where(rng.random(count) < 0.25, rng.integers(1, 5, count), 0)
    item = rng.geometric(0.3, count).tolist()
    null = rng.random(count) < 0.1
    return {
        "user_id": rng.integers(1, 4, count).tolist(),
        "event_ts": (day * DAY + rng.integers(0, DAY, count)).tolist(),
        "late": (late * DAY).tolist(),
        "item": [None if hole else i for hole, i in zip(null, item, strict=True)],
        "word": [f"w{i}" for i in item],
        "sparse": [10**12 + i for i in item],
        "tags": [[f"t{i}", f"t{i % 3}"][: i % 3] for i in item],
        "pair": [[i, i + 1] for i in item],
    }


def make_store(folder: Path, columns: dict[str, list[object]]) -> lw.Store:
    """Half of it compacted."""
    ingest = [ts + late + 1 for ts, late in zip(columns["event_ts"], columns["late"], strict=True)]
    order = np.argsort(ingest, kind="stable")
    table = pa.table({name: pa.array(column) for name, column in columns.items() if name != "late"})
    table = table.append_column("ingest_ts", pa.array(ingest)).take(pa.array(order))
    store = lw.Store.create(folder, SCHEMA, shards=2, clock=lambda: 40 * DAY)
    half = len(table) // 2
    store.append(table.slice(0, half))
    store.compact()
    store.append(table.slice(half))
    return store


def one_history(
    column: list[object], type_: pa.DataType, dictionary: pa.Array | None = None, mask: list[bool] | None = None
) -> Batch:
    """A batch of one history with the column `item`."""
    dtype = np.int32 if dictionary is not None else type_.to_pandas_dtype()
    masks = {} if mask is None else {"item": np.array(mask, np.bool_)}
    words = {} if dictionary is None else {"item": dictionary}
    features, ones = pa.table({"user_id": [1]}), np.ones(1, np.float32)
    return Batch(
        np.array([0, len(column)]), {"item": np.array(column, dtype)}, masks, words, ones, features, {"item": type_}
    )
