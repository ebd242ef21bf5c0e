"""The contract on data of any shape: every way from events to sequences, compared with the oracle bit for bit.

Each shape goes through the whole product: half of it appended and compacted, half in the mutable tier, captured,
backfilled as of several moments, its events used as anchors, materialized under several projections by a trainer.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.testing import ManualClock, Oracle, different_rows

TIME = pa.timestamp("us", "UTC")
NOW = 1_700_000_000_000_000
PROJECTIONS = [lw.Projection(), lw.Projection(max_len=3), lw.Projection(max_len=300, traits=["event_ts"])]


def table(users: Any, event_ts: Any, delay: Any = 0, user_type: pa.DataType | None = None, **traits: Any) -> pa.Table:
    times = np.asarray(event_ts, np.int64)
    return pa.table(
        {
            "user_id": pa.array(users, user_type or pa.int64()),
            "event_ts": pa.array(times).view(TIME),
            "ingest_ts": pa.array(times + delay).view(TIME),
            **(traits or {"item": np.arange(len(times))}),
        }
    )


def string_users() -> pa.Table:
    names = ["", "u", "U", "ü", "ü", "🌲🌲", "a\x00b", "x" * 5_000, "-1", " "]
    return table([names[k % 10] for k in range(60)], NOW + np.arange(60) // 7, user_type=pa.string())


def negative_users() -> pa.Table:
    ids = [0, -1, -(2**63), 2**63 - 1, -12345]
    return table([ids[k % 5] for k in range(60)], NOW + np.arange(60))


def one_event_users() -> pa.Table:
    return table(np.arange(3_000), NOW + np.arange(3_000) % 50)


def one_long_user() -> pa.Table:
    rng = np.random.default_rng(5)
    n = 100_000
    users = np.where(rng.random(n) < 0.99, 7, rng.integers(0, 50, n))
    delay = np.where(rng.random(n) < 0.05, rng.integers(0, 10**6, n), 0)
    item, score = rng.integers(0, 2**40, n), pa.array(rng.random(n), pa.float32())
    return table(users, NOW + np.arange(n) * 10, delay, item=item, score=score)


def equal_times() -> pa.Table:
    """All events of a user at one moment, known in two steps."""
    return table(np.arange(600) % 2, np.full(600, NOW), np.where(np.arange(600) % 4 < 2, 0, 5))


def before_1970() -> pa.Table:
    return table(np.arange(80) % 3, -4_000_000_000_000_000 + np.arange(80) * 86_400_000_000)


def across_1970() -> pa.Table:
    return table(np.arange(80) % 3, (np.arange(80) - 40) * 7)


def ends_of_time() -> pa.Table:
    """The first and (nearly) the last microseconds that the calendar has, in one history."""
    times = [EARLIEST_TS, EARLIEST_TS, EARLIEST_TS + 1, 0, NOW, LATEST_TS - 9, LATEST_TS - 2]
    return table([1] * 7, times)


def empty() -> pa.Table:
    return table([], [])


def unicode_values() -> pa.Table:
    words = ["", "ü", "ü", "日本語", "🌲", "a\x00b", "\U0010ffff", "\n\t\"'\\", None, "z" * 10_000]
    column = pa.array([words[k % 10] for k in range(50)])
    return table(np.arange(50) % 3, NOW + np.arange(50), **{"größe ☃": column, "kind": column.dictionary_encode()})


def all_null_traits() -> pa.Table:
    types = {"a": pa.int8(), "b": pa.float64(), "c": pa.bool_(), "d": pa.string(), "e": TIME}
    types |= {"f": pa.dictionary(pa.int32(), pa.string()), "g": pa.uint64()}
    return table(np.arange(700) % 2, NOW + np.arange(700), **{name: pa.nulls(700, t) for name, t in types.items()})


def nulls_now_and_then() -> pa.Table:
    rng = np.random.default_rng(3)
    mask = np.repeat(rng.random(14) < 0.4, 50)  # whole stretches with and without
    word = pa.array([None if m else f"w{k % 40}" for k, m in enumerate(mask)])
    item = pa.array(rng.integers(-(2**62), 2**62, 700), mask=mask)
    return table(np.arange(700) % 2, NOW + np.arange(700), item=item, word=word)


def extreme_values() -> pa.Table:
    traits: dict[str, Any] = {}
    for type_ in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()):
        bounds = np.iinfo(type_.to_pandas_dtype())
        traits[str(type_)] = pa.array([int(bounds.min), int(bounds.max), 0, 1] * 75, type_)
    for type_ in (pa.float32(), pa.float64()):
        limits = np.finfo(type_.to_pandas_dtype())
        floats = [float("nan"), float("inf"), -float("inf"), -0.0, float(limits.max), float(limits.tiny)] * 50
        traits[str(type_)] = pa.array(floats, type_, from_pandas=False)
    traits["at"] = pa.array([EARLIEST_TS, LATEST_TS, -1, 0] * 75).view(pa.timestamp("us"))
    return table(np.arange(300) % 2, NOW + np.arange(300), **traits)


def no_traits() -> pa.Table:
    return table([1, 1, 2], [NOW, NOW + 1, NOW + 2]).drop_columns(["item"])


def future_and_past_arrivals() -> pa.Table:
    """Known long after, known long before, in every mixture."""
    rng = np.random.default_rng(9)
    return table(rng.integers(0, 3, 900), NOW + rng.integers(0, 500, 900), rng.integers(-600, 600, 900))


SHAPES: list[Callable[[], pa.Table]] = [
    string_users, negative_users, one_event_users, one_long_user, equal_times, before_1970, across_1970, ends_of_time,
    empty, unicode_values, all_null_traits, nulls_now_and_then, extreme_values, no_traits, future_and_past_arrivals,
]  # fmt: skip


def schema_of(events: pa.Table) -> lw.Schema:
    traits = [field for field in events.schema if field.name not in ("user_id", "event_ts", "ingest_ts")]
    return lw.Schema(user_id=events.schema.field("user_id").type, traits=pa.schema(traits))


def by_ingest(events: pa.Table) -> pa.Table:
    """In the order in which a live store would have learned of them."""
    return events.take(pa.array(np.argsort(events["ingest_ts"].cast(pa.int64()).to_numpy(), kind="stable")))


def about_half(events: pa.Table) -> int:
    """A row in the middle before which everything was known earlier: where a compaction may come between."""
    times = events["ingest_ts"].cast(pa.int64()).to_numpy()
    return int(np.searchsorted(times, times[len(times) // 2])) if len(times) else 0


def some_requests(events: pa.Table) -> pa.Table:
    """A few moments of each of some users, and a stranger."""
    users = events["user_id"].unique().to_pylist()[:12] + (["?"] if events["user_id"].type == pa.string() else [424242])
    times = np.unique(events["event_ts"].cast(pa.int64()).to_numpy())
    moments = times[np.linspace(0, len(times) - 1, 6).astype(int)].tolist() if len(times) else [NOW]
    rows = [(user, moment + late) for user in users for moment in moments for late in (0, 1)]
    user, request_ts = zip(*rows, strict=True)
    types = events["user_id"].type, pa.int64()
    return pa.table({"user_id": pa.array(user, types[0]), "request_ts": pa.array(request_ts, types[1]).view(TIME)})


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_any_shape(shape: Callable[[], pa.Table], tmp_path: Path) -> None:
    events = by_ingest(shape())
    last = events["ingest_ts"].cast(pa.int64()).to_numpy().max(initial=NOW)
    clock = ManualClock(int(last))
    oracle, half = Oracle(events), about_half(events)
    with lw.Store.create(tmp_path / "store", schema_of(events), shards=2, clock=clock) as store:
        store.append(events.slice(0, half))
        store.compact()
        store.append(events.slice(half))
        requests = some_requests(events)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            backfilled = lw.backfill(store, requests, complete=True, allow_empty=True)
        anchors = lw.anchors(store, min_history=0)
        anchors = anchors.slice(0, 400)
        anchored = lw.backfill(store, anchors, allow_empty=True)
        captured = store.capture(requests)
        asked = requests.append_column("cutoff", captured.columns["cutoff"])
        for projection in PROJECTIONS:
            served = captured.history(projection).to_arrow()
            assert not len(different_rows(served, oracle.fat_rows(asked, projection)))
        assert len(anchors) == min(400, len(events))
        store.compact()
        store.compact()
    with lw.Store.open(tmp_path / "store", read_only=True) as trainer:
        for projection in PROJECTIONS:
            materializer = lw.Materializer(trainer, projection)
            for examples, rows in ((backfilled, requests), (anchored, anchors), (captured.columns, asked)):
                batch = materializer(examples)
                assert not len(different_rows(batch.to_arrow(), oracle.fat_rows(rows, projection)))


@pytest.mark.parametrize(
    "shape", [string_users, equal_times, before_1970, unicode_values, all_null_traits, one_long_user]
)
def test_in_bulk_and_in_any_order(shape: Callable[[], pa.Table], tmp_path: Path) -> None:
    events = shape()
    rng = np.random.default_rng(1)
    events = events.take(pa.array(rng.permutation(len(events))))
    known = events.rename_columns({"user_id": "uid", "event_ts": "at", "ingest_ts": "known_at"})
    with lw.ingest(
        known, tmp_path / "store", user="uid", time="at", ingest_time="known_at", schema=schema_of(events), shards=3,
        quiet=True,
    ) as store:  # fmt: skip
        assert store.generation.event_count == len(events)
        requests = some_requests(events)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            examples = lw.backfill(store, requests, complete=True, allow_empty=True)
        batch = lw.Materializer(store, lw.Projection())(examples)
        assert not len(different_rows(batch.to_arrow(), Oracle(events).fat_rows(requests, lw.Projection())))


def test_no_requests_and_no_events(tmp_path: Path) -> None:
    nothing = empty()
    requests = pa.table({"user_id": pa.array([], pa.int64()), "request_ts": pa.array([], TIME)})
    with lw.Store.create(tmp_path / "store", schema_of(nothing), clock=ManualClock(NOW)) as store:
        assert store.append(nothing).count == 0
        assert store.compact().event_count == 0
        examples = lw.backfill(store, requests)
        assert examples.num_rows == 0
        assert len(store.capture(requests).history(lw.Projection())) == 0
        batch = lw.Materializer(store, lw.Projection())(examples)
        assert batch.offsets.tolist() == [0]
        assert batch.to_arrow().num_rows == 0
        assert list(lw.Loader(store, examples, lw.Projection())) == []
        assert lw.anchors(store, min_history=0).num_rows == 0
