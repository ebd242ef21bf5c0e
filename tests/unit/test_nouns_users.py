"""User keys: the same for the same user, spread evenly, and ordered as shards are."""

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from latewood.testing.strategies import TEXT
from latewood.users import UserKeys, shard_of, user_keys

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, unique=True))
def test_integer_keys_cannot_collide(ids: list[int]) -> None:
    keys = user_keys(pa.array(ids, pa.int64()))
    assert len(set(keys.hash.tolist())) == len(ids)
    assert not keys.check.any()


@given(st.lists(TEXT))
def test_string_keys_are_those_of_the_utf8_bytes(ids: list[str]) -> None:
    keys = user_keys(pa.array(ids, pa.string()))
    digests = [xxhash.xxh3_128_intdigest(value.encode()) for value in ids]
    assert [(int(h) << 64) | int(c) for h, c in zip(*keys, strict=True)] == digests


def test_chunks_slices_and_nothing() -> None:
    for ids in (pa.array([1, 2, 3, 2], pa.int64()), pa.array(["a", "b", "c", "b"])):
        whole = user_keys(ids)
        for parts in (pa.chunked_array([ids.slice(0, 1), ids.slice(1)]), pa.chunked_array([ids])):
            assert np.array_equal(user_keys(parts).hash, whole.hash)
        assert np.array_equal(user_keys(ids.slice(1, 2)).hash, whole.hash[1:3])
        assert len(user_keys(ids.slice(0, 0)).hash) == 0
        assert len(user_keys(pa.chunked_array([], ids.type)).hash) == 0
        assert whole.hash[1] == whole.hash[3]
        assert whole.hash[0] != whole.hash[1]


def test_these_hashes_are_what_stores_on_disk_have() -> None:
    assert user_keys(pa.array([0, 1, -1])).hash.tolist() == [0, 0x5692161D100B05E5, 0xB4D055FCF2CBBD7B]
    keys = user_keys(pa.array(["u"]))
    assert (int(keys.hash[0]), int(keys.check[0])) == divmod(xxhash.xxh3_128_intdigest(b"u"), 2**64)


def test_keys_are_taken_by_row() -> None:
    keys = user_keys(pa.array(["a", "b", "c"]))
    taken = keys.take(np.array([2, 0]))
    assert taken.hash.tolist() == [keys.hash[2], keys.hash[0]]
    assert taken.check.tolist() == [keys.check[2], keys.check[0]]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1), st.integers(1, 65536))
def test_shards_are_ranges_of_the_hash(hashes: list[int], shards: int) -> None:
    numbers = shard_of(np.array(sorted(hashes), np.uint64), shards)
    assert (np.diff(numbers) >= 0).all()
    assert numbers.min() >= 0
    assert numbers.max() < shards


def test_shards_are_even() -> None:
    keys = user_keys(pa.array(np.arange(20_000)))
    counts = np.bincount(shard_of(keys.hash, 8), minlength=8)
    assert counts.min() > 2_300
    assert isinstance(keys, UserKeys)
