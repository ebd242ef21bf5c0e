"""Stripes carried over as bytes: the new shard holds the same values as one encoded from scratch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latewood.columns import Column
from latewood.errors import CorruptionError
from latewood.stripes import Shard
from made_shards import (
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

COLUMNS = columns_for(all_dtypes())


def join(before: list[Column], after: list[Column]) -> list[Column]:
    """A user's older and newer events; times go on."""
    shift = before[0].values[-1] - after[0].values[0] + 1 if len(after[0].values) else 0
    joined = []
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        values = np.concatenate([old.values, new.values + shift if index == 0 else new.values])
        masks = [np.zeros(len(c.values), np.bool_) if c.mask is None else c.mask for c in (old, new)]
        has_mask = old.mask is not None or new.mask is not None
        joined.append(Column(values, np.concatenate(masks) if has_mask else None))
    return joined


def assert_holds(shard: Shard, users: dict[int, list[Column]]) -> None:
    shard.verify()
    assert sorted(shard.user_ids.to_pylist()) == sorted(users)
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for column, (values, mask) in enumerate(users[user]):
            assert same(decode_user(shard, index, column), values, mask), (user, COLUMNS[column].name)


def carry(old: Shard, users: dict[int, list[Column]], stripes: dict[int, int]) -> bytes:
    """The new shard: of each user so many stripes of the old shard, the rest encoded."""
    places = {user: index for index, user in enumerate(old.user_ids.to_pylist())}
    events = np.diff(old.first_event)
    tails, carried = {}, {}
    for user, columns in users.items():
        count = stripes.get(user, 0)
        rows = min(count * 256, int(events[places[user]])) if count else 0
        tails[user] = [take(column, slice(rows, None)) for column in columns]
        carried[user] = (places.get(user, -1), count)
    return write_shard(COLUMNS, run_of(tails, carried, old))[0]


LENGTHS = st.sampled_from([1, 255, 256, 257, 600, 4096, 4097, 9000])


@given(st.lists(st.tuples(LENGTHS, st.sampled_from([0, 0, 1, 256, 700, 5000]), st.integers(0, 40)), min_size=1, max_size=4),
       st.integers(0, 2**32 - 1))  # fmt: skip
def test_carrying_equals_encoding(shapes: list[tuple[int, int, int]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = {user: random_columns(rng, length, COLUMNS) for user, (length, _, _) in enumerate(shapes)}
    old = open_bytes(write_shard(COLUMNS, run_of(before))[0])
    users, stripes = {}, {}
    for user, (length, more, count) in enumerate(shapes):
        users[user] = join(before[user], random_columns(rng, more, COLUMNS)) if more else before[user]
        whole = -(-length // 256) if not more else length // 256
        stripes[user] = min(count, whole)
    users[99] = random_columns(rng, 10, COLUMNS)  # a new user
    carried = carry(old, users, stripes)
    assert_holds(open_bytes(carried), users)
    # the encoder is a function of a stripe's values, so even the bytes are the same
    assert carried == write_shard(COLUMNS, run_of(users))[0]


def test_untouched_users_keep_their_bytes() -> None:
    rng = np.random.default_rng(1)
    users = {user: random_columns(rng, length, COLUMNS) for user, length in ((1, 5000), (2, 10), (3, 256))}
    data, _ = write_shard(COLUMNS, run_of(users))
    assert carry(open_bytes(data), users, {1: 20, 2: 1, 3: 1}) == data


def test_damage_is_not_laundered() -> None:
    """A block carried whole keeps its checksum, one carried in part is checked before it gets a new one."""
    rng = np.random.default_rng(2)
    users = {7: random_columns(rng, 40 * 256, COLUMNS)}
    data = bytearray(write_shard(COLUMNS, run_of(users))[0])
    column = 3 + list(all_dtypes()).index("float64")
    entries = open_bytes(bytes(data))._words("entries")
    for stripe in (3, 30):
        damaged = bytearray(data)
        entry = entries[column * 40 + stripe]
        damaged[64 + (int(entry) & ((1 << 40) - 1))] ^= 1
        old = open_bytes(bytes(damaged))
        whole = open_bytes(carry(old, users, {7: 40}))
        with pytest.raises(CorruptionError, match=f"user 7, column 'float64', block {stripe // 16}"):
            whole.verify()
        if stripe == 30:
            with pytest.raises(CorruptionError, match=r"user 7, column 'float64'.*carried"):
                carry(old, users, {7: 31})
            assert_holds(open_bytes(carry(old, users, {7: 16})), users)


def test_what_cannot_be_carried_is_refused() -> None:
    rng = np.random.default_rng(3)
    users = {1: random_columns(rng, 300, COLUMNS), 2: random_columns(rng, 300, COLUMNS)}
    old = open_bytes(write_shard(COLUMNS, run_of(users))[0])
    index = old.user_ids.to_pylist().index(1)
    tail = {1: [take(c, slice(0, 5)) for c in users[1]]}
    nothing = {1: [take(c, slice(0, 0)) for c in users[1]]}
    with pytest.raises(ValueError, match="partial"):
        write_shard(COLUMNS, run_of(tail, {1: (index, 2)}, old))
    with pytest.raises(ValueError, match="not there"):
        write_shard(COLUMNS, run_of(nothing, {1: (index, 3)}, old))
    with pytest.raises(ValueError, match="not there"):
        write_shard(COLUMNS, run_of(nothing, {1: (2, 1)}, old))
    with pytest.raises(ValueError, match="another user"):
        write_shard(COLUMNS, run_of(nothing, {1: (1 - index, 1)}, old))
    earlier = [Column(tail[1][0].values - 10**15), *tail[1][1:]]
    with pytest.raises(ValueError, match="sorted"):  # the tail begins before the carried stripe
        write_shard(COLUMNS, run_of({1: earlier}, {1: (index, 1)}, old))
