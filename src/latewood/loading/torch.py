"""Batches as torch tensors. The only import of torch in latewood.

"jagged" is what HSTU-like models take: one flat tensor per trait and one tensor of offsets for all. "nested" is the same
as torch.nested tensors, which scaled_dot_product_attention takes. Both share the batch's memory, so nothing is copied; the
tensors keep its buffers alive on their own. "padded" is a copy, one row per example.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from latewood.batch import Batch, describe_columns
from latewood.columns import plain_from_arrow
from latewood.errors import SchemaError

T = TypeVar("T", bound="_Tensors")
SIDES = ("right", "left")


class _Tensors:
    """A dataclass of tensors and dicts of tensors: what moves as one."""

    def pin_memory(self: T) -> T:
        """A copy in page-locked memory, from which a device can copy while the program goes on."""
        return self._each(torch.Tensor.pin_memory)

    def to(self: T, device: Any, non_blocking: bool = False) -> T:
        """A copy on a device; the same tensors where they are there already."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def _each(self: T, change: Callable[[torch.Tensor], torch.Tensor]) -> T:
        def changed(part: Any) -> Any:
            return {name: change(one) for name, one in part.items()} if isinstance(part, dict) else change(part)

        return replace(self, **{part.name: changed(getattr(self, part.name)) for part in fields(self)})  # type: ignore


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TorchBatch(_Tensors):
    """A batch in the layout "jagged". Shapes: offsets (n + 1,); values and masks (offsets[-1],) each; weights (n,).

    Values of lists of one size are (offsets[-1], size); those of lists of any length are their items, and event j's are
    those from `lists[name][j]` to `lists[name][j + 1]`. Of the features it has those that are numbers, truths or times (as
    int64 µs) and have no null.
    """

    offsets: torch.Tensor
    values: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    weights: torch.Tensor
    lists: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __repr__(self) -> str:
        return f"<TorchBatch of {describe_columns(len(self), int(self.offsets[-1]), self.values)}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PaddedBatch(_Tensors):
    """A batch in the layout "padded", L events wide. Shapes: lengths, weights (n,); values and masks (n, L) each.

    Values of lists of one size are (n, L, size). Padding is not null in the masks; `present` tells it from events.
    """

    lengths: torch.Tensor
    present: torch.Tensor  # (n, L) bool: True where there is an event
    values: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    weights: torch.Tensor
    features: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        columns = describe_columns(len(self), int(self.lengths.sum()), self.values)
        return f"<PaddedBatch of {columns}; {self.present.shape[1]:,} wide>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class NestedBatch(_Tensors):
    """A batch in the layout "nested": of every trait a torch.nested tensor of n rows, in memory of the layout jagged."""

    values: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    weights: torch.Tensor
    features: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.weights)

    def __repr__(self) -> str:
        return f"<NestedBatch of {len(self):,} examples: {', '.join(self.values)}>"


def to_torch(batch: Batch, layout: str = "jagged", **options: Any) -> Any:
    """The batch as tensors.

    Args: options: of "padded": `side`, where the padding is ("right" or "left"), `value`, what it is, and `max_len`, how
        wide the tensors are (the newest events are kept), if not as wide as the longest history.
    Raises: SchemaError: a layout or side that does not exist, the message lists those that do; or lists of any length in a
        layout that has no place for them.
    """
    try:
        make = LAYOUTS[layout]
    except KeyError:
        raise SchemaError(f"layout {layout!r} does not exist; these do: {_listed(LAYOUTS)}") from None
    return make(batch, **options)


def _jagged(batch: Batch) -> TorchBatch:
    return TorchBatch(
        _tensor(batch.offsets),
        {name: _tensor(values) for name, values in batch.values.items()},
        {name: _tensor(mask) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        {name: _tensor(ends) for name, ends in batch.lists.items()},
        _features(batch),
    )


def _nested(batch: Batch) -> NestedBatch:
    _refuse_lists(batch, "nested")
    offsets = _tensor(batch.offsets)
    longest = int(batch.lengths.max(initial=0))

    def nested(array: NDArray[Any]) -> torch.Tensor:
        return torch.nested.nested_tensor_from_jagged(_tensor(array), offsets, min_seqlen=0, max_seqlen=longest)

    return NestedBatch(
        {name: nested(values) for name, values in batch.values.items()},
        {name: nested(mask) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        _features(batch),
    )


def _padded(batch: Batch, side: str = "right", value: float = 0, max_len: int | None = None) -> PaddedBatch:
    if side not in SIDES:
        raise SchemaError(f"side {side!r} does not exist; these do: {_listed(SIDES)}")
    _refuse_lists(batch, "padded")
    lengths = batch.lengths
    width = int(lengths.max(initial=0)) if max_len is None else max_len
    kept = np.minimum(lengths, width)
    column = np.arange(width)
    present = column < kept[:, None] if side == "right" else column >= width - kept[:, None]
    newest: Any = slice(None)
    if int(kept.sum()) < int(lengths.sum()):
        newest = np.flatnonzero(np.arange(int(batch.offsets[-1])) >= np.repeat(batch.offsets[1:] - kept, lengths))

    def padded(array: NDArray[Any], filling: float) -> torch.Tensor:
        rows = np.full((*present.shape, *array.shape[1:]), filling, array.dtype)
        rows[present] = array[newest]
        return torch.from_numpy(rows)

    return PaddedBatch(
        _tensor(kept),
        torch.from_numpy(present),
        {name: padded(values, value) for name, values in batch.values.items()},
        {name: padded(mask, False) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        _features(batch),
    )


def _features(batch: Batch) -> dict[str, torch.Tensor]:
    """The features that are numbers, in every row."""
    found = {}
    for name in batch.features.column_names:
        column = batch.features[name].combine_chunks()
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        elif not _is_number(column.type):
            continue
        if not column.null_count:
            found[name] = torch.tensor(plain_from_arrow(column).values)  # a copy: Arrow's memory is read-only
    return found


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_)


def _refuse_lists(batch: Batch, layout: str) -> None:
    if batch.lists:
        raise SchemaError(f"{next(iter(batch.lists))!r} has lists of any length, for which {layout!r} has no place")


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Without a copy; torch has every dtype of a batch, uint16 to uint64 since 2.3."""
    return torch.from_numpy(np.ascontiguousarray(array))


LAYOUTS: dict[str, Callable[..., Any]] = {"jagged": _jagged, "padded": _padded, "nested": _nested}
