"""The kernel against the xxhash library."""

from itertools import pairwise

import numpy as np
import pytest
import xxhash

from latewood.mutable.id_hash import SHORT, hash_pieces


@pytest.mark.parametrize("tag", [b"", b"s"])
def test_pieces_of_every_length_hash_as_in_the_library(tag: bytes) -> None:
    rng = np.random.default_rng(5)
    lengths = [length for length in range(SHORT + 20) for _ in range(4)]
    rng.shuffle(lengths)
    offsets = np.append(3, 3 + np.cumsum(lengths))  # the first bytes are of no piece
    data = rng.integers(0, 256, int(offsets[-1])).astype(np.uint8)
    data[offsets[7] : offsets[40]] = 0
    data[offsets[50] : offsets[80]] = 255
    expected = [xxhash.xxh3_128_intdigest(tag + data[a:b].tobytes()) for a, b in pairwise(offsets)]
    assert [int(high) << 64 | int(low) for high, low in hash_pieces(tag, offsets, data)] == expected


def test_no_pieces() -> None:
    assert hash_pieces(b"s", np.zeros(1, np.int64), np.zeros(0, np.uint8)).shape == (0, 2)
