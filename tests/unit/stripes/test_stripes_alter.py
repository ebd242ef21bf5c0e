"""Stripes carried between shards of other columns: traits dropped, added and moved, and several old shards into one."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column
from latewood.errors import CorruptionError
from latewood.stripes import Carried, Shard, ShardWriter, StripeColumn, UserRun
from latewood.stripes.layout import NO_COLUMN, SUPERSEDED_AT, sources
from latewood.users import user_keys
from made_shards import (
    EPOCH,
    all_dtypes,
    columns_for,
    decode_user,
    open_bytes,
    random_columns,
    run_of,
    same,
    take,
    write_shard,
)

Columns = tuple[StripeColumn, ...]
History = dict[int, Column]  # by column id

EVERY = columns_for(all_dtypes(), superseded=True)
BUILT_IN, TRAITS = EVERY[:3], EVERY[3:-1]


def of_traits(ids: Sequence[int], superseded: bool = True) -> Columns:
    return (*BUILT_IN, *(TRAITS[i] for i in ids), *([SUPERSEDED_AT] if superseded else []))


def nulls(column: StripeColumn, count: int) -> Column:
    return Column(np.zeros(count, column.dtype), np.ones(count, np.bool_))


def ordered(history: History, columns: Columns) -> list[Column]:
    """As the columns of a shard; of what a history does not have, nulls."""
    count = len(history[-1].values)
    return [history[c.id] if c.id in history else nulls(c, count) for c in columns]


def made(rng: np.random.Generator, count: int, columns: Columns) -> History:
    return dict(zip((c.id for c in columns), random_columns(rng, count, columns), strict=True))


def then(before: History, after: History, kept: Columns) -> History:
    """The history that goes on; what `kept` does not have is gone of the events before."""
    shift = before[-1].values[-1] - after[-1].values[0] + 1
    joined = {}
    for column in kept:
        old, new = (ordered(part, (column,))[0] for part in (before, after))
        moved = new.values + shift if column.id in (-1, -4) else new.values
        masks = [np.zeros(len(c.values), np.bool_) if c.mask is None else c.mask for c in (old, new)]
        mask = np.concatenate(masks) if old.mask is not None or new.mask is not None else None
        joined[column.id] = Column(np.concatenate([old.values, moved]), mask)
    return joined


def assert_holds(shard: Shard, users: dict[int, History], columns: Columns) -> None:
    shard.verify()
    assert shard.columns == columns
    assert sorted(shard.user_ids.to_pylist()) == sorted(users)
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for column, (values, mask) in enumerate(ordered(users[user], columns)):
            assert same(decode_user(shard, index, column), values, mask), (user, columns[column].name)


SOME = st.lists(st.integers(0, len(TRAITS) - 1), unique=True, max_size=5)


@given(SOME, SOME, st.booleans(), st.sampled_from([1, 256, 600, 4096, 4400]), st.sampled_from([0, 1, 300]),
       st.integers(0, 17), st.integers(0, 2**32 - 1))  # fmt: skip
def test_carrying_equals_encoding(
    before: list[int], after: list[int], superseded: bool, length: int, more: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    old_columns, columns = of_traits(before, superseded), of_traits(after)
    histories = {user: made(rng, length, old_columns) for user in range(2)}
    old = open_bytes(write_shard(old_columns, run_of({u: ordered(h, old_columns) for u, h in histories.items()}))[0])
    whole = -(-length // 256) if not more else length // 256
    stripes = min(count, whole)
    kept = min(stripes * 256, length)
    users = {0: histories[0], 1: histories[1], 99: made(rng, 10, columns)}
    if more:
        users |= {u: then(histories[u], made(rng, more, columns), columns) for u in (0, 1)}
    places = {user: index for index, user in enumerate(old.user_ids.to_pylist())}
    tails = {u: [take(c, slice(0 if u == 99 else kept, None)) for c in ordered(h, columns)] for u, h in users.items()}
    data = write_shard(columns, run_of(tails, {u: (places[u], stripes) for u in places}, old))[0]
    assert_holds(open_bytes(data), users, columns)
    # the encoder is a function of a stripe's values, so even the bytes are the same
    assert data == write_shard(columns, run_of({u: ordered(h, columns) for u, h in users.items()}))[0]


def test_blocks_of_kept_columns_keep_their_checksums() -> None:
    """And damage to what is dropped goes with it."""
    rng = np.random.default_rng(4)
    before, after = of_traits([2, 9, 0]), of_traits([0, 5])
    history = made(rng, 20 * 256, before)
    data = bytearray(write_shard(before, run_of({1: ordered(history, before)}))[0])
    sound = open_bytes(bytes(data))
    starts = np.concatenate([[0], np.cumsum(sound.footer.column_bytes)]).tolist()
    nothing = [take(c, slice(0, 0)) for c in ordered(history, after)]
    for column, is_kept in ((4, False), (5, True)):
        damaged = bytearray(data)
        damaged[64 + starts[column] + 3] ^= 1
        old = open_bytes(bytes(damaged))
        new = open_bytes(write_shard(after, run_of({1: nothing}, {1: (0, 20)}, old))[0])
        if is_kept:
            with pytest.raises(CorruptionError, match=f"column '{before[column].name}', block 0"):
                new.verify()
        else:
            assert_holds(new, {1: history}, after)


def test_blocks_without_bytes_have_the_checksum_of_nothing() -> None:
    rng = np.random.default_rng(5)
    old = open_bytes(write_shard(of_traits([]), run_of({1: random_columns(rng, 5000, of_traits([]))}))[0])
    after = of_traits([3])
    nothing = [nulls(c, 0) if c.role != "event_ts" else Column(np.zeros(0, np.int64)) for c in after]
    nothing[:3] = [Column(c.values) for c in nothing[:3]]
    new = open_bytes(write_shard(after, run_of({1: nothing}, {1: (0, 20)}, old))[0])
    assert new.footer.column_bytes[3] == 0
    assert new._words("checksums").tolist()[6:8] == [xxhash.xxh64_intdigest(b"")] * 2


def test_a_column_keeps_its_dtype() -> None:
    assert sources(of_traits([1, 0]), of_traits([0, 2], superseded=False)) == [0, 1, 2, NO_COLUMN, 3, NO_COLUMN]
    changed = (*BUILT_IN, StripeColumn(0, "x", "trait", np.dtype(np.int16)))
    with pytest.raises(ValueError, match="'x' of int16 was of bool"):
        sources(changed, of_traits([0]))


def test_several_old_shards_become_one() -> None:
    """Runs in key order, each from the shard that has its users: what resharding does."""
    rng = np.random.default_rng(6)
    before = [of_traits([0, 1]), of_traits([1, 7], superseded=False), of_traits([7])]
    after = of_traits([7, 1])
    keys = user_keys(pa.array(range(12)))
    order = np.argsort(keys.hash).tolist()
    users: dict[int, History] = {}
    runs = []
    for columns, mine in zip(before, (order[:4], order[4:5], order[5:]), strict=True):
        own = {user: made(rng, int(rng.integers(1, 700)), columns) for user in mine}
        old = open_bytes(write_shard(columns, run_of({u: ordered(h, columns) for u, h in own.items()}))[0])
        nothing = [take(c, slice(0, 0)) for c in ordered(own[mine[0]], after)]
        stripes = np.diff(old.first_stripe)
        carried = Carried(old, np.arange(old.user_count), stripes)
        runs.append(UserRun(old.user_ids, old.keys, np.zeros(len(mine) + 1, np.int64), nothing, carried))
        users |= own
    sink = io.BytesIO()
    writer = ShardWriter(sink, after, epoch=EPOCH, generation=3, shard=1)
    for run in runs:
        writer.add(run)
    writer.finish()
    assert_holds(open_bytes(sink.getvalue()), users, after)
    assert sink.getvalue() == write_shard(after, run_of({u: ordered(h, after) for u, h in users.items()}))[0]
