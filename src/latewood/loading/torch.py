"""Batches as torch tensors. The only import of torch in latewood.

"jagged" is what HSTU-like models and torch.nested take: one flat tensor per trait and one tensor of offsets for all.
The tensors share the batch's memory, so nothing is copied; they keep the batch's buffers alive on their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from latewood.batch import Batch, describe_columns
from latewood.errors import SchemaError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TorchBatch:
    """A batch in the layout "jagged". Shapes: offsets (n + 1,); values and masks (offsets[-1],) each; weights (n,).

    Values of lists of one size are (offsets[-1], size); those of lists of any length are their items, and event j's are
    those from `lists[name][j]` to `lists[name][j + 1]`.
    """

    offsets: torch.Tensor
    values: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    weights: torch.Tensor
    lists: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"<TorchBatch of {describe_columns(len(self), int(self.offsets[-1]), self.values)}>"


def to_torch(batch: Batch, layout: str = "jagged") -> TorchBatch:
    """The batch as tensors. Raises: SchemaError: a layout that does not exist; the message lists those that do."""
    try:
        make = LAYOUTS[layout]
    except KeyError:
        exist = ", ".join(repr(name) for name in LAYOUTS)
        raise SchemaError(f"layout {layout!r} does not exist; these do: {exist}") from None
    return make(batch)


def _jagged(batch: Batch) -> TorchBatch:
    return TorchBatch(
        _tensor(batch.offsets),
        {name: _tensor(values) for name, values in batch.values.items()},
        {name: _tensor(mask) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        {name: _tensor(ends) for name, ends in batch.lists.items()},
    )


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Without a copy; torch has every dtype of a batch, uint16 to uint64 since 2.3."""
    return torch.from_numpy(np.ascontiguousarray(array))


LAYOUTS: dict[str, Callable[[Batch], TorchBatch]] = {"jagged": _jagged}
