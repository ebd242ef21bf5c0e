"""Finding users in a shard's index: a search that starts where the user should be.

Keys are hashes, spread evenly over the shard's range, so that the k-th of n users lies near k/n of it. The search
starts there and gallops away until the key is bracketed; with millions of users that touches a few cache lines that lie
close together, and the first of them can be prefetched, where a plain binary search misses the cache a dozen times.
"""

from typing import Any

from numba import int64, uint64

from latewood.kernels import kernel
from latewood.stripes.addresses import load_u64, prefetch
from latewood.stripes.entries import forget_checks, table_field, user_events, user_record
from latewood.stripes.layout import USER_CHECK, USER_COUNT, USER_HASH
from latewood.stripes.stripe import table_at

_AHEAD = 8  # keys
_FIRST_STEP = 8  # records


@kernel
def is_before(table: Any, user: Any, user_hash: Any, check: Any) -> Any:
    """Whether a user sorts before a key."""
    record = user_record(table, uint64(user))
    found = load_u64(record + uint64(USER_HASH))
    return found < user_hash or (found == user_hash and load_u64(record + uint64(USER_CHECK)) < check)


@kernel
def expected_user(table: Any, shards: Any, user_hash: Any) -> Any:
    """Where a user should be, if users are spread evenly over the shard's range of hashes."""
    place = ((user_hash >> uint64(32)) * uint64(shards)) & uint64(0xFFFFFFFF)
    return int64((place * table_field(table, USER_COUNT)) >> uint64(32))


@kernel
def find_user(table: Any, shards: Any, user_hash: Any, check: Any) -> Any:
    """The index of a user in a shard, -1 where it has no such user."""
    count = int64(table_field(table, USER_COUNT))
    if count == 0:
        return int64(-1)
    low, high, step = int64(0), count, int64(_FIRST_STEP)  # the first user not before the key is in [low, high]
    at = expected_user(table, shards, user_hash)
    if is_before(table, at, user_hash, check):
        low = at + 1
        while low + step < high and is_before(table, low + step, user_hash, check):
            low, step = low + step + 1, 2 * step
        high = min(high, low + step)
    else:
        high = at
        while high - step > low and not is_before(table, high - step, user_hash, check):
            high, step = high - step, 2 * step
        low = max(low, high - step)
    while low < high:
        middle = (low + high) // 2
        if is_before(table, middle, user_hash, check):
            low = middle + 1
        else:
            high = middle
    if low == count:
        return int64(-1)
    record = user_record(table, uint64(low))
    same = load_u64(record + uint64(USER_HASH)) == user_hash and load_u64(record + uint64(USER_CHECK)) == check
    return low if same else int64(-1)


@kernel
def shard_of(user_hash: Any, shards: Any) -> Any:
    """Which of the equal ranges of hashes a user falls into, as `users.shard_of`."""
    return ((user_hash >> uint64(32)) * uint64(shards)) >> uint64(32)


@kernel
def locate(tables: Any, hashes: Any, checks: Any, shard: Any, user: Any) -> None:
    """Fill in the shard and the user index of n keys, -1 where unknown."""
    shards = len(tables)
    for i in range(len(hashes)):
        if i + _AHEAD < len(hashes):
            near = hashes[i + _AHEAD]
            table = table_at(tables, shard_of(near, shards))
            prefetch(user_record(table, uint64(expected_user(table, shards, near))))
        shard[i] = shard_of(hashes[i], shards)
        user[i] = find_user(table_at(tables, shard[i]), shards, hashes[i], checks[i])


@kernel
def event_counts(tables: Any, shard: Any, user: Any, counts: Any) -> None:
    """Fill in how many events each user has, 0 where user is -1."""
    for i in range(len(user)):
        counts[i] = 0
        if user[i] >= 0:
            counts[i] = user_events(table_at(tables, shard[i]), uint64(user[i]))


@kernel
def forget_all_checks(tables: Any, shard: Any, user: Any) -> None:
    """Take no block of some users for verified; -1 is nobody."""
    for i in range(len(user)):
        if user[i] >= 0:
            forget_checks(table_at(tables, shard[i]), uint64(user[i]))
