"""Columns made for tests, of any trait, and what is in a column as plain Python."""

from typing import Any

import numpy as np

from latewood.columns import Column, Lists, TraitColumn
from latewood.schema import Trait

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def random_trait(rng: np.random.Generator, trait: Trait, count: int) -> TraitColumn:
    """Small values, with nulls where there may be some; lists of a few, in a pool in which they lie in any order."""
    high = rng.choice([2, 100])
    mask = rng.random(count) < rng.choice([0.0, 0.3, 1.0]) if trait.nullable else None
    if not trait.is_list:
        values = rng.integers(0, high, count).astype(trait.dtype)
        return Column(values if mask is None else np.where(mask, 0, values).astype(trait.dtype), mask)
    longest = trait.list_size if trait.list_size is not None else int(rng.choice([1, 4, 30]))
    lengths = np.full(count, longest, np.int32)
    if trait.list_size is None:
        lengths = rng.integers(0, longest, count, np.int32, endpoint=True)
    if mask is not None:
        lengths[mask] = 0
    order, gaps = rng.permutation(count), rng.integers(0, 2, count)
    starts = np.zeros(count, np.int64)
    starts[order] = np.cumsum((lengths + gaps)[order]) - lengths[order]
    pool = rng.integers(0, high, int(lengths.sum() + gaps.sum())).astype(trait.dtype)
    return Lists(pool, starts, lengths, mask)


def cells(column: TraitColumn) -> list[Any]:
    """What each event has, as bits: a number, a tuple of the numbers in its list, or None where null."""
    nulls = [False] * column.event_count if column.mask is None else column.mask.tolist()
    if isinstance(column, Column):
        found: list[Any] = column.values.view(BITS[column.dtype.itemsize]).tolist()
    else:
        bits = column.items.view(BITS[column.dtype.itemsize])
        spans = zip(column.starts.tolist(), column.lengths.tolist(), strict=True)
        found = [tuple(bits[start : start + length].tolist()) for start, length in spans]
        assert not any(cell for cell, null in zip(found, nulls, strict=True) if null), "a null with items"
    return [None if null else cell for cell, null in zip(found, nulls, strict=True)]
