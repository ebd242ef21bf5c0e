"""Fingerprints of histories: one 64-bit hash per example and trait, so that two sides are compared in little memory."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

import latewood as lw

Digests = NDArray[np.uint64]  # (examples, traits)


def digest(offsets: NDArray[np.int64], columns: Mapping[str, NDArray[Any]], traits: Iterable[str]) -> Digests:
    """Hash every example's values, trait by trait. The dtype counts, so that 1 and 1.0 differ."""
    bounds = offsets.tolist()
    hashes = []
    for trait in traits:
        values = np.ascontiguousarray(columns[trait])
        data, size, kind = values.view(np.uint8).data, values.itemsize, sum(values.dtype.str.encode())
        hashes.append([
            xxhash.xxh3_64_intdigest(data[a * size : b * size], kind)
            for a, b in pairwise(bounds)
        ])  # fmt: skip
    return np.array(hashes, np.uint64).T


def collect(batches: Iterable[Any], count: int, traits: tuple[str, ...]) -> Digests:
    """The digests of batches of histories whose feature `example` says which of `count` examples each row is.

    Raises: RuntimeError: an example is missing or comes twice.
    """
    digests, seen = np.zeros((count, len(traits)), np.uint64), np.zeros(count, np.int64)
    for made in batches:
        batch = made.expand() if isinstance(made, lw.SharedBatch) else made
        example = np.asarray(batch.features["example"])
        digests[example] = digest(batch.offsets, batch.values, traits)
        np.add.at(seen, example, 1)
    if (seen != 1).any():
        first = int(np.argmax(seen != 1))
        raise RuntimeError(f"example {first} came {seen[first]} times instead of once")
    return digests


def require_equal(left: Digests, right: Digests, traits: tuple[str, ...], what: str) -> None:
    """Raises: RuntimeError: names the first example and trait in which the two sides differ."""
    differing = np.argwhere(left != right)
    if len(differing):
        example, trait = differing[0].tolist()
        raise RuntimeError(f"{what}: example {example}, trait {traits[trait]!r} and {len(differing) - 1} more differ")
