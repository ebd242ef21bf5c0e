"""`latewood warmup`: compile all kernels into the cache, so that no first batch waits for a compiler.

A small store in memory goes through the whole product once: ingest, append, compact, backfill, capture, materialize, with a
trait of every type. What was compiled before is only loaded, which takes about a second.
"""

import secrets
from datetime import timedelta
from time import perf_counter

import numpy as np
import pyarrow as pa

import latewood as lw
from latewood.cli.output import Debug, Json, Output

EVENTS = 2_000  # of so few users that histories have full stripes
STREAMS = lw.Projection(max_len=300, streams={"flagged": lw.last(50, where=lw.col("flag") == True)})  # noqa: E712


def warmup(json: Json = False, debug: Debug = False) -> None:
    """Compile all kernels into the cache."""
    output, began = Output(json), perf_counter()
    with output.progress("compiling kernels, one to three minutes the first time", announce=True):
        for user_type in (pa.int64(), pa.string()):
            _use_everything(user_type)
    output.result({"seconds": round(perf_counter() - began, 1)}, "warmup")


def _use_everything(user_type: pa.DataType) -> None:
    events = _events(user_type)
    place = f"memory://warmup-{secrets.token_hex(8)}"
    with lw.ingest(
        events, place, user="user", time="event_ts", ingest_time=timedelta(0), shards=2, quiet=True
    ) as store:
        recent = events.rename_columns(["user_id", *events.column_names[1:]]).slice(0, 50)
        store.append(recent)
        requests = recent.select(["user_id"]).append_column("request_ts", pa.array(np.full(50, 11 * 10**14)))
        for projection in (lw.Projection(), lw.Projection(max_len=10), STREAMS):
            store.capture(requests).history(projection)
        store.compact()
        anchors = lw.anchors(store, where=lw.col("flag") == True)  # noqa: E712 - a condition, not a comparison
        examples = lw.backfill(store, anchors, allow_empty=True)
        for projection in (lw.Projection(max_len=300), STREAMS):
            for _ in lw.Loader(store, examples, projection, batch_size=64):
                pass


def _events(user_type: pa.DataType) -> pa.Table:
    """Every type of trait, once without nulls and once with."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 100, EVENTS)
    columns = {
        "user": pa.array(rng.integers(0, 3, EVENTS)).cast(user_type),
        "event_ts": pa.array(np.sort(rng.integers(10**15, 10**15 + 10**12, EVENTS))),
        "flag": pa.array(numbers < 5),
        "time": pa.array(numbers).cast(pa.timestamp("us")),
        "word": pa.array(numbers).cast(pa.string()),
    }
    types = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
    for type_ in [*types, pa.float32(), pa.float64()]:
        columns[str(type_)] = pa.array(numbers).cast(type_)
    offsets = pa.array(np.minimum(np.cumsum(np.arange(EVENTS + 1) % 3), EVENTS), pa.int32())  # of 0 to 2 items
    columns |= {f"{name}s": pa.ListArray.from_arrays(offsets, columns[name]) for name in ("word", "int64", "double")}
    columns["pair"] = pa.FixedSizeListArray.from_arrays(pa.array(np.repeat(numbers, 2)), 2)
    nulls = pa.array(numbers == 7)
    columns |= {
        f"{name}_or_null": pa.array(column.to_pylist(), column.type, mask=nulls.to_numpy(zero_copy_only=False))
        for name, column in columns.items()
        if name not in ("user", "event_ts")
    }
    return pa.table(columns)
