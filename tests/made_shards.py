"""Shards made for tests: from lists of users, each with plain columns, written to memory and opened again."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.columns import Column
from latewood.storage import Storage, open_storage
from latewood.stripes import Carried, Ranges, Shard, ShardSummary, ShardWriter, StripeColumn, Tables, UserRun
from latewood.stripes.layout import BUILT_IN, DTYPES, SUPERSEDED_AT
from latewood.users import user_keys

EPOCH = bytes(range(16))
NAMES = ("event_ts", "delay", "ordinal")


def columns_for(dtypes: dict[str, Any], *, superseded: bool = False) -> tuple[StripeColumn, ...]:
    """The built-in columns and one trait per name; with `superseded`, as shards have them, the hidden column behind."""
    traits = [StripeColumn(i, name, "trait", np.dtype(dtype)) for i, (name, dtype) in enumerate(dtypes.items())]
    return (*BUILT_IN, *traits, *([SUPERSEDED_AT] if superseded else []))


def all_dtypes() -> dict[str, Any]:
    """A trait of every dtype, named after it."""
    return {name: np.dtype(name) for name in DTYPES}


def take(column: Column, rows: Any) -> Column:
    return Column(column.values[rows], None if column.mask is None else column.mask[rows])


def random_columns(rng: np.random.Generator, count: int, columns: Sequence[StripeColumn]) -> list[Column]:
    """Plausible events of one user: rising times, few late, values of each dtype with nulls here and there."""
    times = np.cumsum(rng.integers(1, 10**6, count)) * 1000 + 1_600_000_000_000_000
    delays = rng.integers(0, 10**7, count) * (rng.random(count) < 0.1)
    made = [Column(times.astype(np.int64)), Column(delays.astype(np.int64)), Column(np.zeros(count, np.int32))]
    for column in columns[3:]:
        if column == SUPERSEDED_AT:
            made.append(random_superseded(rng, made[0].values + made[1].values))
            continue
        values = _random_values(rng, count, column.dtype)
        mask = rng.random(count) < 0.05 if rng.random() < 0.5 else None
        if mask is not None:
            values[mask] = 0
        made.append(Column(values, mask))
    return made


def random_superseded(rng: np.random.Generator, ingest_ts: Any) -> Column:
    """Of few events a time at which they were superseded; of some users' none."""
    share = rng.choice([0.0, 0.002, 0.2])
    mask = rng.random(len(ingest_ts)) >= share
    values = ingest_ts + rng.integers(0, 10**12, len(ingest_ts))
    values[mask] = 0
    return Column(values, mask)


def _random_values(rng: np.random.Generator, count: int, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "b":
        return rng.random(count) < rng.choice([0.02, 0.5])
    if dtype.kind == "f":
        return rng.random(count).astype(dtype)
    top = [3, 100, int(np.iinfo(dtype).max)][rng.integers(0, 3)]
    values = rng.integers(0, top, count, dtype, endpoint=True)
    return values * dtype.type(rng.choice([1, 1, 7]))


def run_of(users: dict[Any, list[Column]], carried: dict[Any, tuple[int, int]] | None = None, old: Shard | None = None):
    """Users with their columns as a run in key order; `carried`: user → (index in old, stripes)."""
    ids = list(users)
    array = pa.array(ids, pa.string() if isinstance(ids[0], str) else pa.int64())
    keys = user_keys(array)
    order = np.lexsort((keys.check, keys.hash))
    lists = [users[ids[i]] for i in order]
    offsets = np.concatenate([[0], np.cumsum([len(columns[0].values) for columns in lists])]).astype(np.int64)
    together = [_concat([columns[c] for columns in lists]) for c in range(len(lists[0]))]
    what = None
    if carried is not None and old is not None:
        pairs = np.array([carried.get(ids[i], (-1, 0)) for i in order], np.int64)
        what = Carried(old, pairs[:, 0].copy(), pairs[:, 1].copy())
    return UserRun(array.take(pa.array(order)), keys.take(order), offsets, together, what)


def _concat(columns: list[Column]) -> Column:
    values = np.concatenate([column.values for column in columns])
    if all(column.mask is None for column in columns):
        return Column(values)
    masks = [np.zeros(len(c.values), np.bool_) if c.mask is None else c.mask for c in columns]
    return Column(values, np.concatenate(masks))


def write_shard(columns: Sequence[StripeColumn], *runs: UserRun) -> tuple[bytes, ShardSummary]:
    """The bytes of a shard."""
    sink = io.BytesIO()
    writer = ShardWriter(sink, columns, epoch=EPOCH, generation=3, shard=1)
    for run in runs:
        writer.add(run)
    summary = writer.finish()
    return sink.getvalue(), summary


def open_bytes(data: bytes, **expected: Any) -> Shard:
    """Open a shard from its bytes."""
    storage: Storage = open_storage("memory://made-shards")
    storage.write("shard", data)
    return Shard.open(storage, "shard", **expected)


def tables_of(*shards: Shard) -> Tables:
    tables = Tables(len(shards))
    for number, shard in enumerate(shards):
        tables.put(number, shard)
    return tables


def ranges_of(*ranges: tuple[int, int, int, int]) -> Ranges:
    """(shard, user, start, stop) each, one after the other in the output."""
    shard, user, start, stop = np.array(ranges, np.int64).reshape(-1, 4).T
    ends = np.cumsum(stop - start)
    return Ranges(shard, user, start, stop, ends - (stop - start))


def decode_user(shard: Shard, user: int, column: int, start: int = 0, stop: int | None = None) -> Column:
    """Rows of one user's column."""
    from latewood.stripes import decode_column

    if stop is None:
        stop = int(shard.first_event[user + 1] - shard.first_event[user])
    values = np.zeros(stop - start, shard.columns[column].dtype)
    mask = np.ones(stop - start, np.bool_)
    nulls = decode_column(tables_of(shard), ranges_of((0, user, start, stop)), column, values, mask)
    if not nulls:
        assert not mask.any()
    return Column(values, mask)


def same(found: Column, values: Any, mask: Any = None) -> bool:
    """Bit for bit, with zeros where null."""
    expected_mask = np.zeros(len(values), np.bool_) if mask is None else mask
    expected = values.copy()
    expected[expected_mask] = 0
    found_mask = np.zeros(len(values), np.bool_) if found.mask is None else found.mask
    return found.values.tobytes() == expected.tobytes() and bool((found_mask == expected_mask).all())
