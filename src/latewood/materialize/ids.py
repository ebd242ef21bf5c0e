"""Ids instead of codes: what a model that hashes ids itself, or looks them up elsewhere, asks a projection for."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from latewood.errors import CorruptionError
from latewood.materialize.buffers import BufferPool


class UnknownCodeError(CorruptionError):
    """A code without a value: damage, unless the values were collected since, with the trait or the generation."""


def ids_of_codes(
    name: str,
    codes: NDArray[np.int32],
    mask: NDArray[np.bool_] | None,
    words: pa.Array,
    pool: BufferPool,
    *,
    all_used: bool,
) -> NDArray[Any]:
    """The integers that codes stand for; 0 for a null.

    Args:
        codes: of any shape. mask: True where null, as long as the codes.
        all_used: whether every code is of an event; else some are left from something else, and mean nothing.
    Raises: UnknownCodeError: an event has a code that has no value.
    """
    dtype = np.dtype(words.type.to_pandas_dtype())
    ids = pool.empty(codes.size, dtype).reshape(codes.shape)
    if not len(words):  # nothing but nulls has been stored
        ids[:] = 0
    else:
        # clipped, because to refuse a code while it is looked up takes twice as long
        np.take(_integers(words), codes, out=ids, mode="clip")
    if mask is not None:
        ids[mask] = 0
    if all_used and codes.size and not _are_known(codes, mask, len(words)):
        raise UnknownCodeError(f"trait {name!r} has a code beyond its {len(words)} values")
    return ids


def _are_known(codes: NDArray[np.int32], mask: NDArray[np.bool_] | None, count: int) -> bool:
    if not count:
        return mask is not None and bool(mask.all())
    return bool(codes.view(np.uint32).max() < count)


def _integers(words: pa.Array) -> NDArray[Any]:
    """Values by code; 0 for one that was blanked, which no event has."""
    return (words.fill_null(0) if words.null_count else words).to_numpy()
