"""Items of lists, from wherever they lie in a pool to one place, back to back."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Lists
from latewood.kernels import kernel
from latewood.stripes.addresses import address_of, copy_bytes, zero_bytes


def gather_lists(lists: Lists, out: NDArray[Any] | None = None) -> Lists:
    """`Lists.compact`, without an index for each item, and always as a copy.

    Args: out: for the items, of their dtype; there may be more of it than is needed.
    """
    offsets = lists.offsets
    items = np.empty(int(offsets[-1]), lists.dtype) if out is None else out
    if len(items) < offsets[-1]:
        raise ValueError(f"{offsets[-1]} items do not fit where there is room for {len(items)}")
    pool = np.ascontiguousarray(lists.items)
    gather_items(lists.starts, lists.lengths, pool.view(np.uint8), pool.itemsize, items.view(np.uint8))
    return Lists(items[: offsets[-1]], offsets[:-1], lists.lengths, lists.mask)


@kernel
def gather_items(starts: Any, lengths: Any, pool: Any, itemsize: int, out: Any) -> None:
    """Copy the items of each list behind those of the list before it. Nothing is checked.

    Shapes: starts, lengths (n,); pool, out: bytes (uint8).
    """
    source, target = address_of(pool), address_of(out)
    for i in range(len(starts)):
        size_bytes = np.uint64(lengths[i]) * np.uint64(itemsize)
        copy_bytes(target, source + np.uint64(starts[i]) * np.uint64(itemsize), size_bytes)
        target += size_bytes


def gather_rows(lists: Lists, size: int, out: NDArray[Any]) -> None:
    """Lists of one size as the rows of `out`, with zeros where null. Shapes: out (n, size), of the items' dtype.

    Raises: ValueError: a list of another size, or no room.
    """
    if out.shape != (lists.event_count, size) or not ((lists.lengths == 0) | (lists.lengths == size)).all():
        raise ValueError(f"{lists.event_count} lists, not all of {size} items, do not fit {out.shape}")
    pool = np.ascontiguousarray(lists.items)
    gather_rows_of(
        lists.starts, lists.lengths, pool.view(np.uint8), size * pool.itemsize, out.reshape(-1).view(np.uint8)
    )


@kernel
def gather_rows_of(starts: Any, lengths: Any, pool: Any, row_bytes: int, out: Any) -> None:
    """Copy each list to its row; one that has no items gets zeros. Nothing is checked.

    Shapes: starts, lengths (n,); pool, out: bytes (uint8).
    """
    source, target, size_bytes = address_of(pool), address_of(out), np.uint64(row_bytes)
    for i in range(len(starts)):
        if lengths[i]:
            itemsize = size_bytes // np.uint64(lengths[i])
            copy_bytes(target, source + np.uint64(starts[i]) * itemsize, size_bytes)
        else:
            zero_bytes(target, size_bytes)
        target += size_bytes
