"""Shards made for tests: from lists of users, each with plain columns, written to memory and opened again."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.columns import Column, Lists, concat_columns
from latewood.storage import Storage, open_storage
from latewood.stripes import (
    Carried,
    Ranges,
    Shard,
    ShardSummary,
    ShardWriter,
    StripeColumn,
    Tables,
    UserRun,
    decode_list_column,
)
from latewood.stripes.layout import BUILT_IN, DTYPES, SUPERSEDED_AT, list_columns
from latewood.users import user_keys

EPOCH = bytes(range(16))
NAMES = ("event_ts", "delay", "ordinal")


def columns_for(dtypes: dict[str, Any], *, superseded: bool = False) -> tuple[StripeColumn, ...]:
    """The built-in columns and one trait per name; with `superseded`, as shards have them, the hidden column behind.

    A dtype in brackets makes a list trait.
    """
    traits = [column for i, (name, dtype) in enumerate(dtypes.items()) for column in _trait_columns(i, name, dtype)]
    return (*BUILT_IN, *traits, *([SUPERSEDED_AT] if superseded else []))


def _trait_columns(i: int, name: str, dtype: Any) -> tuple[StripeColumn, ...]:
    if isinstance(dtype, list):
        return list_columns(i, name, np.dtype(dtype[0]))
    return (StripeColumn(i, name, "trait", np.dtype(dtype)),)


def all_dtypes() -> dict[str, Any]:
    """A trait of every dtype, named after it."""
    return {name: np.dtype(name) for name in DTYPES}


def all_lists() -> dict[str, Any]:
    """A list trait of every dtype."""
    return {f"lists of {name}": [np.dtype(name)] for name in DTYPES}


def take(column: Any, rows: Any) -> Any:
    return column.take(rows)


def random_columns(rng: np.random.Generator, count: int, columns: Sequence[StripeColumn]) -> list[Any]:
    """Plausible events of one user: rising times, few late, values of each dtype with nulls here and there."""
    times = np.cumsum(rng.integers(1, 10**6, count)) * 1000 + 1_600_000_000_000_000
    delays = rng.integers(0, 10**7, count) * (rng.random(count) < 0.1)
    made: list[Any] = [Column(times), Column(delays.astype(np.int64)), Column(np.zeros(count, np.int32))]
    for place, column in list(enumerate(columns))[3:]:
        if column.role == "lengths":
            made.append(random_lists(rng, count, columns[place + 1].dtype))
            continue
        if column.role == "items":
            continue
        if column == SUPERSEDED_AT:
            made.append(random_superseded(rng, made[0].values + made[1].values))
            continue
        values = _random_values(rng, count, column.dtype)
        mask = rng.random(count) < 0.05 if rng.random() < 0.5 else None
        if mask is not None:
            values[mask] = 0
        made.append(Column(values, mask))
    return made


def random_lists(rng: np.random.Generator, count: int, dtype: np.dtype[Any]) -> Lists:
    """Lists, most of them short, in a pool in which they lie in any order, with items of nobody between them."""
    longest = int(rng.choice([0, 1, 3, 40]))
    lengths = rng.integers(0, longest, count, np.int32, endpoint=True)
    if count and rng.random() < 0.3:
        lengths[int(rng.integers(0, count))] = 700
    mask = rng.random(count) < 0.1 if rng.random() < 0.5 else None
    if mask is not None:
        lengths[mask] = 0
    order, gaps = rng.permutation(count), rng.integers(0, 3, count)
    starts = np.zeros(count, np.int64)
    starts[order] = np.cumsum((lengths + gaps)[order]) - lengths[order]
    pool = _random_values(rng, int(lengths.sum() + gaps.sum()), dtype)
    return Lists(pool, starts, lengths, mask)


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


def run_of(users: dict[Any, list[Any]], carried: dict[Any, tuple[int, int]] | None = None, old: Shard | None = None):
    """Users with their columns as a run in key order; `carried`: user → (index in old, stripes)."""
    ids = list(users)
    array = pa.array(ids, pa.string() if isinstance(ids[0], str) else pa.int64())
    keys = user_keys(array)
    order = np.lexsort((keys.check, keys.hash))
    lists = [users[ids[i]] for i in order]
    offsets = np.concatenate([[0], np.cumsum([columns[0].event_count for columns in lists])]).astype(np.int64)
    together = [concat_columns([columns[c] for columns in lists]) for c in range(len(lists[0]))]
    what = None
    if carried is not None and old is not None:
        pairs = np.array([carried.get(ids[i], (-1, 0)) for i in order], np.int64)
        what = Carried(old, pairs[:, 0].copy(), pairs[:, 1].copy())
    return UserRun(array.take(pa.array(order)), keys.take(order), offsets, together, what)


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


def decode_user_lists(
    shard: Shard, user: int, column: int, start: int = 0, stop: int | None = None, list_size: int | None = None
) -> Lists:
    """Rows of one user's lists."""
    if stop is None:
        stop = int(shard.first_event[user + 1] - shard.first_event[user])
    ranges = ranges_of((0, user, start, stop))
    return decode_list_column(tables_of(shard), ranges, column, stop - start, list_size)


def same_lists(found: Lists, expected: Lists) -> bool:
    """Event by event, bit for bit."""
    masks = [np.zeros(lists.event_count, np.bool_) if lists.mask is None else lists.mask for lists in (found, expected)]
    if masks[0].tolist() != masks[1].tolist() or found.lengths.tolist() != expected.lengths.tolist():
        return False
    return found.dtype == expected.dtype and all(
        found.items[a : a + n].tobytes() == expected.items[b : b + n].tobytes()
        for a, b, n in zip(found.starts.tolist(), expected.starts.tolist(), found.lengths.tolist(), strict=True)
    )


def same(found: Column, values: Any, mask: Any = None) -> bool:
    """Bit for bit, with zeros where null."""
    expected_mask = np.zeros(len(values), np.bool_) if mask is None else mask
    expected = values.copy()
    expected[expected_mask] = 0
    found_mask = np.zeros(len(values), np.bool_) if found.mask is None else found.mask
    return found.values.tobytes() == expected.tobytes() and bool((found_mask == expected_mask).all())
