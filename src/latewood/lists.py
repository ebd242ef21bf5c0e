"""Lists as Arrow lays them out, in any of its ways: their items, back to back, and where each list begins.

Arrow has lists with offsets of 32 or 64 bits, views that lie anywhere, and lists of one size. Here they become one thing,
and one thing becomes what a trait's type asks for. How offsets follow from lengths is here, too: whatever is of several
elements each (the events of examples, the rows of users) lies as lists do.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.errors import SchemaError

LIST_ITEMS_MAX = 2**24 - 1  # of one event: those of a stripe are counted in 32 bits (docs/format.md)
_ITEMS_MAX = 2**31 - 1  # Arrow's offsets of lists are int32


class ListParts(NamedTuple):
    """n lists, while their items are Arrow's still; `columns.Lists` is what they become.

    Shapes: items (sum of lengths,), back to back, without any of a null; lengths, mask (n,), a null's length is 0.
    """

    items: pa.Array
    lengths: NDArray[np.integer[Any]]
    mask: NDArray[np.bool_] | None  # True where null; None where nothing is


def is_list(type_: pa.DataType) -> bool:
    """Whether values are lists, in whatever layout Arrow keeps them."""
    types = pa.types
    return (
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def offsets_of(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Where each of some runs that lie back to back begins, and where the last one ends. Shapes: (n,) → (n + 1,)."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def positions(starts: NDArray[np.int64], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """The positions of all elements of some runs, run after run. Shapes: (n,), (n,) → (sum of lengths,)."""
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)


def take_runs(offsets: NDArray[np.int64], rows: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Some of n runs that lie back to back, in another order: their offsets then, and where each element is now.

    Shapes: offsets (n + 1,), rows (k,) → (k + 1,), (elements of these runs,).
    """
    lengths = np.diff(offsets)[rows]
    return offsets_of(lengths), positions(offsets[:-1][rows], lengths)


def split_lists(array: pa.Array) -> ListParts:
    """The items and lengths of an array of lists; items of nulls, which Arrow may keep, are left out."""
    n, mask = len(array), None
    if array.null_count:
        mask = pc.is_null(array).to_numpy(zero_copy_only=False)
    type_ = array.type
    if pa.types.is_fixed_size_list(type_):
        starts = (np.arange(n, dtype=np.int64) + array.offset) * type_.list_size
        lengths = np.full(n, type_.list_size, np.int64)
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
        views = pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_)
        starts = offsets if views else offsets[:-1]
        lengths = array.sizes.to_numpy().astype(np.int64) if views else np.diff(offsets)
    if mask is not None:
        lengths[mask] = 0
    items = array.values
    if pa.types.is_string_view(items.type):  # which Arrow cannot take by row
        items = items.cast(pa.string())
    return ListParts(_back_to_back(items, starts, lengths), lengths, mask)


def _back_to_back(items: pa.Array, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> pa.Array:
    used = np.flatnonzero(lengths)
    if not len(used):
        return items.slice(0, 0)
    starts, lengths = starts[used], lengths[used]
    if (starts[1:] == (starts + lengths)[:-1]).all():
        return items.slice(int(starts[0]), int(lengths.sum()))
    return items.take(pa.array(positions(starts, lengths)))


def join_lists(parts: ListParts, type_: pa.DataType) -> pa.Array:
    """The inverse of `split_lists`: an array of `type_`, a list with offsets of 32 bits or of one size.

    Raises: SchemaError: more items than Arrow can count in 32 bits.
    """
    items, lengths, mask = parts
    nulls = None if mask is None else pa.array(mask)
    if pa.types.is_fixed_size_list(type_):
        if mask is not None:  # Arrow keeps room for the items of a null
            room = np.repeat(mask, type_.list_size)
            at = np.cumsum(~room) - 1
            items = items.take(pa.array(at, mask=room)) if len(items) else pa.nulls(len(room), items.type)
        array = pa.FixedSizeListArray.from_arrays(items, type_.list_size, mask=nulls)
        return array if array.type == type_ else array.cast(type_)
    offsets = offsets_of(lengths)
    if offsets[-1] > _ITEMS_MAX:
        raise SchemaError(
            f"{offsets[-1]:,} items are more than one array of lists can hold; take fewer events at a time"
        )
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), items, type=type_, mask=nulls)
