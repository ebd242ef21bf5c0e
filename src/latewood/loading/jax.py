"""Batches as JAX arrays. The only import of jax in latewood.

JAX compiles for shapes, so that rows are padded to one of few widths. Unless `jax_enable_x64` is set it has no 64-bit
types, and would cut integers without a word: those that fit are made 32 bits wide, and others are an error, in features
left out: every example has the time of its request, whether a model takes it or not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from latewood.batch import Batch, describe_columns
from latewood.errors import SchemaError
from latewood.loading.padding import Padded, numeric_features

_NARROWEST = 8


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class JaxBatch:
    """Histories in rows of one width L, a pytree. Shapes: lengths, weights (n,); present, values and masks (n, L) each.

    Values of lists of one size are (n, L, size). Padding is not null in the masks. Features are those that are numbers,
    truths or times (as µs), have no null and fit.
    """

    lengths: jax.Array
    present: jax.Array
    values: dict[str, jax.Array]
    masks: dict[str, jax.Array]
    weights: jax.Array
    features: dict[str, jax.Array]

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        columns = describe_columns(len(self), int(self.lengths.sum()), self.values)
        return f"<JaxBatch of {columns}; {self.present.shape[1]:,} wide>"


jax.tree_util.register_dataclass(JaxBatch, [field.name for field in fields(JaxBatch)], [])


def to_jax(
    batch: Batch,
    *,
    buckets: Sequence[int] | None = None,
    rows: int | None = None,
    side: str = "right",
    value: float = 0,
) -> JaxBatch:
    """See `Batch.to_jax`."""
    padded = Padded.of(batch, "jax", side, _width(int(batch.lengths.max(initial=0)), buckets))
    count = len(batch) if rows is None else rows
    if len(batch) > count:
        raise SchemaError(f"the batch has {len(batch):,} examples, and rows={count:,} is to hold them")

    def filled(name: str, array: NDArray[Any], filling: float = 0) -> jax.Array:
        more = [(0, count - len(array)), *[(0, 0)] * (array.ndim - 1)]
        return jax.numpy.asarray(_narrowed(name, np.pad(array, more, constant_values=filling)))

    return JaxBatch(
        filled("lengths", padded.lengths),
        filled("present", padded.present),
        {name: filled(name, padded.rows(values, value), value) for name, values in batch.values.items()},
        {name: filled(name, padded.rows(mask, False)) for name, mask in batch.masks.items()},
        filled("weights", batch.weights),
        {name: filled(name, values) for name, values in numeric_features(batch).items() if _fits(values)},
    )


def _width(longest: int, buckets: Sequence[int] | None) -> int:
    if buckets is None:
        return max(_NARROWEST, 1 << max(longest - 1, 0).bit_length())
    if fitting := [width for width in buckets if width >= longest]:
        return min(fitting)
    raise SchemaError(
        f"a history has {longest:,} events, and the widest bucket {max(buckets, default=0):,}: bound max_len"
    )


def _narrowed(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """With integers that JAX does not cut. Raises: SchemaError: some do not fit."""
    if not _would_be_cut(array.dtype):
        return array
    if not _fits(array):
        raise SchemaError(
            f"{name!r} has integers past 32 bits, and JAX no others unless jax_enable_x64 is set: set it, or leave it out"
        )
    return array.astype(_narrow(array.dtype))


def _fits(array: NDArray[Any]) -> bool:
    if not _would_be_cut(array.dtype) or not array.size:
        return True
    bounds = np.iinfo(_narrow(array.dtype))
    return bool(bounds.min <= array.min() and array.max() <= bounds.max)


def _would_be_cut(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "iu" and dtype.itemsize == 8 and not jax.config.jax_enable_x64


def _narrow(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"{dtype.kind}4")
