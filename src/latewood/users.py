"""User keys: 128 bits that stand for a user id wherever users are sorted, looked up or hashed.

A key has two halves. `hash` spreads users evenly (shards are ranges of it, indexes are searched by it); `check` tells
apart two users whose hashes collide. For integer ids the hash is a bijection (splitmix64's finalizer), so it cannot
collide and `check` is 0; for strings both halves are xxh3_128 of the UTF-8 bytes.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

HASHING = "splitmix64|xxh3_128"  # recorded in every manifest: what the layout of shards depends on


class UserKeys(NamedTuple):
    """The keys of n users. Shapes: hash (n,), check (n,), both uint64."""

    hash: NDArray[np.uint64]
    check: NDArray[np.uint64]

    def take(self, rows: NDArray[np.int64]) -> "UserKeys":
        return UserKeys(self.hash[rows], self.check[rows])

    def slice(self, start: int, stop: int) -> "UserKeys":
        """The keys from `start` to `stop`, as views."""
        return UserKeys(self.hash[start:stop], self.check[start:stop])


def no_keys() -> UserKeys:
    """The keys of nobody."""
    return UserKeys(np.zeros(0, np.uint64), np.zeros(0, np.uint64))


def user_keys(user_ids: pa.Array | pa.ChunkedArray) -> UserKeys:
    """The keys of user ids of a schema's type: int64 or string, without nulls."""
    if pa.types.is_integer(user_ids.type):
        ids = np.asarray(user_ids.to_numpy(), np.int64).view(np.uint64)
        return UserKeys(splitmix(ids), np.zeros(len(ids), np.uint64))
    encoded = pc.dictionary_encode(user_ids)
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):  # zero chunks
            encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], encoded.type)
    digests = [xxhash.xxh3_128_intdigest(value.encode()) for value in encoded.dictionary.to_pylist()]
    high = np.array([digest >> 64 for digest in digests], np.uint64)
    low = np.array([digest & 0xFFFF_FFFF_FFFF_FFFF for digest in digests], np.uint64)
    codes = encoded.indices.to_numpy()
    return UserKeys(high[codes], low[codes])


def user_starts(keys: UserKeys) -> NDArray[np.int64]:
    """The first row of every user in rows that lie together by user."""
    if not len(keys.hash):
        return np.zeros(0, np.int64)
    differs = (keys.hash[1:] != keys.hash[:-1]) | (keys.check[1:] != keys.check[:-1])
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(differs) + 1])


def shard_of(user_hash: NDArray[np.uint64], shards: int) -> NDArray[np.int64]:
    """Which of `shards` equal ranges of the hash a user falls into: users sorted by key are sorted by shard."""
    return (((user_hash >> np.uint64(32)) * np.uint64(shards)) >> np.uint64(32)).astype(np.int64)


def splitmix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finalizer, a bijection. Frozen: the layout of shards, remembered event ids and resumes rest on it."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
