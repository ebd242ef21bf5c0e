"""Batches as torch tensors. With device.py the only import of torch in latewood, and of torchrec, which few have.

"jagged" is what HSTU-like models take: one flat tensor per trait and one tensor of offsets for all. "nested" is the same
as torch.nested tensors, which scaled_dot_product_attention takes. Both share the batch's memory, so nothing is copied; the
tensors keep its buffers alive on their own. "padded" is a copy, one row per example, and "kjt" one, trait after trait.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.utils.data
from numpy.typing import NDArray

from latewood.batch import Batch, SharedBatch, describe_columns
from latewood.errors import SchemaError
from latewood.loading.loader import Loader
from latewood.loading.padding import Padded, numeric_features, refuse_lists

T = TypeVar("T", bound="_Tensors")


class _Tensors:
    """A dataclass of tensors and dicts of tensors, or of what moves like them: what moves as one."""

    def pin_memory(self: T) -> T:
        """A copy in page-locked memory, from which a device can copy while the program goes on."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self: T, device: Any, non_blocking: bool = False) -> T:
        """A copy on a device; the same tensors where they are there already."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def record_stream(self, stream: Any) -> None:
        """Keep the tensors' memory from being used again before what the stream has to do by now is done."""

        def record(tensor: Any) -> Any:
            tensor.record_stream(stream)
            return tensor

        self._each(record)

    def _each(self: T, change: Callable[[Any], Any]) -> T:
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SharedTorchBatch(_Tensors):
    """A `SharedBatch` as tensors: what several examples see is there once, on the device too.

    Example i's events are the `lengths[i]` elements from `starts[i]` on of every column. `inverse` says which of the
    distinct histories it has, and those are the `distinct_lengths[j]` elements from `distinct_starts[j]` on. Of lists of
    any length, the items of element j are the `list_lengths[name][j]` ones from `list_starts[name][j]` on.
    Shapes: starts, lengths, inverse, weights (n,); distinct_starts, distinct_lengths (m,); values and masks (size,) each.
    """

    starts: torch.Tensor
    lengths: torch.Tensor
    inverse: torch.Tensor
    distinct_starts: torch.Tensor
    distinct_lengths: torch.Tensor
    values: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    weights: torch.Tensor
    list_starts: dict[str, torch.Tensor]
    list_lengths: dict[str, torch.Tensor]
    features: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.starts)

    def __repr__(self) -> str:
        columns = describe_columns(len(self), int(self.lengths.sum()), self.values)
        return f"<SharedTorchBatch of {columns}; {len(self.distinct_starts):,} distinct>"

    def expand(self) -> TorchBatch:
        """The same examples back to back, each with a copy of its own, on the device where this batch is."""
        offsets, at = _gathered(self.starts, self.lengths)
        values, lists = {}, {}
        for name, column in self.values.items():
            if name in self.list_starts:
                lists[name], items = _gathered(self.list_starts[name][at], self.list_lengths[name][at].long())
                values[name] = column[items]
            else:
                values[name] = column[at]
        masks = {name: mask[at] for name, mask in self.masks.items()}
        return TorchBatch(offsets, values, masks, self.weights, lists, self.features)


def shared_to_torch(batch: SharedBatch) -> SharedTorchBatch:
    """See `SharedBatch.to_torch`."""
    starts, lengths, inverse = batch.distinct()
    return SharedTorchBatch(
        _tensor(batch.starts),
        _tensor(batch.lengths),
        _tensor(inverse),
        _tensor(starts),
        _tensor(lengths),
        {name: _tensor(values) for name, values in batch.values.items()},
        {name: _tensor(mask) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        {name: _tensor(of.starts) for name, of in batch.lists.items()},
        {name: _tensor(of.lengths) for name, of in batch.lists.items()},
        _features(batch),
    )


def _gathered(starts: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets of runs laid back to back, and where their elements come from. Shapes: (n + 1,), (offsets[-1],)."""
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    total = int(offsets[-1])
    shift = torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=total)
    return offsets, torch.arange(total, device=starts.device) + shift


class LoaderDataset(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
    """A loader as a dataset for `torch.utils.data.DataLoader(dataset, batch_size=None)`; it batches and shuffles by itself.

    It yields tensors, or what the loader's `transform` made. With workers, each of n makes every n-th step, and the order
    is the same as without. `state_dict` and `load_state_dict` are what torchdata's StatefulDataLoader asks for: a state
    belongs to as many workers as made it.

    A loader that was given a state goes on from it once, in the first epoch that is iterated then, also where workers are
    started anew for every epoch.

    Args: layout, options: as of `Batch.to_torch`.
    """

    def __init__(self, loader: Loader, layout: str = "jagged", **options: Any) -> None:
        self.loader, self._layout, self._options = loader, layout, options
        self._dealt: Loader | None = None  # in a worker: its steps
        # Workers that are started anew are copies of a loader that never hears whether one before went on from its state.
        # So they write it down in memory that all share: which state it was, and the seed of that epoch's workers.
        self._gone_on = torch.zeros(2, dtype=torch.int64).share_memory_()
        check_layout(layout)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return self._made_of(iter(self._own()))  # begins now, and not with the first batch: a state may be asked for

    def _made_of(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield as_tensors(batch, self._layout, self._options)

    def _own(self) -> Loader:
        """What this process iterates: the loader, or in a worker its share, dealt once for all epochs."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            return self.loader
        if self._dealt is None:
            if self.loader.restored and not self._may_go_on(info.seed - info.id):
                self.loader.restart()
            self._dealt = self.loader.deal(info.id, info.num_workers)
        return self._dealt

    def _may_go_on(self, seed: int) -> bool:
        """Whether no workers of another seed, so of an epoch before, went on from the loader's state."""
        state, of = self._gone_on.tolist()
        if state == self.loader.restored:
            return bool(of == seed)
        self._gone_on[1] = seed  # first: a worker of the same epoch that sees the state has to see its own seed
        self._gone_on[0] = self.loader.restored
        return True

    def set_epoch(self, epoch: int) -> None:
        """See `Loader.set_epoch`. Workers that persist over epochs do not hear of it."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where this process, a worker or the only one, stands."""
        worker, workers = _worker()
        return {"worker": worker, "workers": workers, "loader": self._own().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where it stood. Raises: SchemaError: the state is of another worker, or of another loader."""
        found, own = (state.get("worker"), state.get("workers")), _worker()
        if found != own:
            raise SchemaError(f"the state is of worker {found[0]} of {found[1]}, and this is {own[0]} of {own[1]}")
        self._own().load_state_dict(state["loader"])


def _worker() -> tuple[int, int]:
    info = torch.utils.data.get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeyedBatch(_Tensors):
    """A batch in the layout "kjt": TorchRec's KeyedJaggedTensor of each dtype's traits, since one tensor has one dtype.

    The values of a trait in an example are those of its events, of list traits all their items. Masks are as in "jagged".
    """

    values: dict[str, Any]  # by dtype, as "int64"
    masks: dict[str, torch.Tensor]
    weights: torch.Tensor
    features: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.weights)

    def __repr__(self) -> str:
        traits = ", ".join(f"{dtype}: {' '.join(keyed.keys())}" for dtype, keyed in self.values.items())
        return f"<KeyedBatch of {len(self):,} examples: {traits}>"


def to_torch(batch: Batch, layout: str = "jagged", **options: Any) -> Any:
    """The batch as tensors.

    Args: options: of "padded": `side`, where the padding is ("right" or "left"), `value`, what it is, and `max_len`, how
        wide the tensors are (the newest events are kept), if not as wide as the longest history.
    Raises: SchemaError: a layout or side that does not exist, the message lists those that do; or lists of any length in a
        layout that has no place for them.
    """
    return _layout(layout)(batch, **options)


def as_tensors(item: Any, layout: str, options: dict[str, Any]) -> Any:
    """What a loader gave as tensors; what its transform made of a batch stays as it is."""
    if isinstance(item, Batch):
        return to_torch(item, layout, **options)
    return shared_to_torch(item) if isinstance(item, SharedBatch) else item


def check_layout(name: str) -> None:
    """Raises: SchemaError: a layout that does not exist."""
    _layout(name)


def _layout(name: str) -> Callable[..., Any]:
    try:
        return LAYOUTS[name]
    except KeyError:
        raise SchemaError(f"layout {name!r} does not exist; these do: {_listed(LAYOUTS)}") from None


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
    refuse_lists(batch, "nested")
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
    padded = Padded.of(batch, "padded", side, max_len)
    return PaddedBatch(
        _tensor(padded.lengths),
        _tensor(padded.present),
        {name: _tensor(padded.rows(values, value)) for name, values in batch.values.items()},
        {name: _tensor(padded.rows(mask, False)) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        _features(batch),
    )


def _kjt(batch: Batch) -> KeyedBatch:
    try:
        keyed = importlib.import_module("torchrec.sparse.jagged_tensor").KeyedJaggedTensor
    except ModuleNotFoundError as error:
        raise ImportError(f"the layout 'kjt' needs torchrec: {error}", name=error.name) from None
    groups: dict[str, list[str]] = {}
    for name, values in batch.values.items():
        groups.setdefault(values.dtype.name, []).append(name)
    return KeyedBatch(
        {
            dtype: keyed(
                keys=names,
                values=_tensor(np.concatenate([batch.values[name].reshape(-1) for name in names])),
                lengths=_tensor(np.concatenate([_value_counts(batch, name) for name in names])),
            )
            for dtype, names in groups.items()
        },
        {name: _tensor(mask) for name, mask in batch.masks.items()},
        _tensor(batch.weights),
        _features(batch),
    )


def _value_counts(batch: Batch, name: str) -> NDArray[np.int64]:
    """How many values of a trait each example has. Shapes: (n,)."""
    if name in batch.lists:
        return np.diff(batch.lists[name][batch.offsets])
    values = batch.values[name]
    return batch.lengths * (values.shape[1] if values.ndim > 1 else 1)


def _features(batch: Batch | SharedBatch) -> dict[str, torch.Tensor]:
    return {name: _tensor(values) for name, values in numeric_features(batch).items()}


def _listed(names: Any) -> str:
    return ", ".join(repr(name) for name in names)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Without a copy, but of Arrow's memory, as Fat Rows are read: a tensor may be written to, and that may not.

    torch has every dtype of a batch, uint16 to uint64 since 2.3.
    """
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


LAYOUTS: dict[str, Callable[..., Any]] = {"jagged": _jagged, "padded": _padded, "nested": _nested, "kjt": _kjt}
