"""Batches on a device, copied while the trainer's step runs. With torch.py the only import of torch in latewood.

The thread that makes batches also sends them: it moves the tensors to page-locked memory and has them copied on a stream
of its own, beside the one on which the trainer computes. Who takes a batch does not wait for the copy. Its *stream* does,
and the batch's memory is not used again before that stream is through with it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch

from latewood.loading.loader import Loader
from latewood.loading.stats import LoaderStats
from latewood.loading.torch import as_tensors, check_layout


class DeviceLoader:
    """A loader whose batches are tensors on a device: `for batch in DeviceLoader(loader, "cuda")`.

    It stands in the loader's place: epochs, states and stats are the loader's own, so a state is of the batches that were
    given, and not of those that were sent ahead. Up to `prefetch` batches lie ready on the device. Where the loader has a
    `transform`, the tensors in what it makes are sent, also in dicts, lists and tuples, and the rest is given as it is.

    On a device other than CUDA, copies are made in the thread, and nothing overlaps on the device's side; on "cpu" nothing
    is copied.

    Args: layout, options: as of `Batch.to_torch`; batches of a loader with `shared=True` become `SharedTorchBatch`es.
    Raises: SchemaError: a layout that does not exist.
    """

    def __init__(self, loader: Loader, device: Any, layout: str = "jagged", **options: Any) -> None:
        check_layout(layout)
        self.loader, self.device = loader, torch.device(device)
        self._layout, self._options = layout, options

    def __len__(self) -> int:
        return len(self.loader)

    def __repr__(self) -> str:
        return f"<DeviceLoader to {self.device} of {self.loader!r}>"

    def __iter__(self) -> Iterator[Any]:
        return self.loader.iterate(self._delivery())

    def set_epoch(self, epoch: int) -> None:
        """See `Loader.set_epoch`."""
        self.loader.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `Loader.state_dict`."""
        return self.loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `Loader.load_state_dict`."""
        self.loader.load_state_dict(state)

    def steps_left(self) -> int:
        """See `Loader.steps_left`."""
        return self.loader.steps_left()

    @property
    def sampler(self) -> Loader:
        """See `Loader.sampler`."""
        return self.loader

    def stats(self) -> LoaderStats:
        """See `Loader.stats`. The stage "copy" has what pinning took and, on CUDA, the copies on the device."""
        return self.loader.stats()

    def _delivery(self) -> "DeviceDelivery":
        return DeviceDelivery(
            self.device, self._layout, self._options, torch.cuda if self.device.type == "cuda" else None
        )


class _Sent(NamedTuple):
    """What was sent, and the events around its copy."""

    item: Any
    began: Any
    ended: Any


class DeviceDelivery:
    """One iteration's way to a device, see `making.Delivery`.

    Args: streams: `torch.cuda`, or None where copies are not made beside the trainer's stream.
    """

    def __init__(self, device: torch.device, layout: str, options: dict[str, Any], streams: Any) -> None:
        self._device, self._layout, self._options, self._streams = device, layout, options, streams
        self._stream: Any = None  # made by the thread that sends
        self._copies: deque[_Sent] = deque()  # those whose time is not known yet, without their items

    def prepare(self, item: Any) -> Any:
        """Tensors of a batch, in the thread."""
        return as_tensors(item, self._layout, self._options)

    def send(self, item: Any) -> Any:
        """Begin the copy, in the thread."""
        if self._streams is None:
            return _each(item, lambda part: part.to(self._device))
        if self._stream is None:
            self._stream = self._streams.Stream(self._device)
        pinned = _each(item, lambda part: part.pin_memory() if _can_overlap(part) else part)
        with self._streams.stream(self._stream):
            began, ended = (self._streams.Event(enable_timing=True) for _ in range(2))
            began.record(self._stream)
            # Page-locked memory that a copy reads is kept by torch until the copy is done, though `pinned` ends here.
            copy = _each(pinned, lambda part: part.to(self._device, non_blocking=_can_overlap(part)))
            ended.record(self._stream)
        return _Sent(copy, began, ended)

    def receive(self, sent: Any) -> Any:
        """Let the trainer's stream wait for the copy, in the trainer's thread."""
        if not isinstance(sent, _Sent):
            return sent
        stream = self._streams.current_stream(self._device)
        stream.wait_event(sent.ended)
        _each(sent.item, lambda part: part.record_stream(stream) if _can_overlap(part) else None)
        self._copies.append(_Sent(None, sent.began, sent.ended))
        return sent.item

    def copied_s(self) -> float:
        """What the copies took that ended since this was asked last, by the device's clock. Units: seconds."""
        total_ms = 0.0
        while self._copies and self._copies[0].ended.query():
            copy = self._copies.popleft()
            total_ms += copy.began.elapsed_time(copy.ended)
        return total_ms / 1e3


def _can_overlap(part: Any) -> bool:
    """Whether it can be copied beside the trainer's stream: tensors, and batches of tensors."""
    return hasattr(part, "pin_memory") and hasattr(part, "record_stream")


def _each(item: Any, change: Callable[[Any], Any]) -> Any:
    """The same with everything in it changed that can be moved to a device."""
    if hasattr(item, "to"):
        return change(item)
    if isinstance(item, dict):
        return {name: _each(part, change) for name, part in item.items()}
    if isinstance(item, (list, tuple)):
        parts = [_each(part, change) for part in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    return item
