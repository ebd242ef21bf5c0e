"""What is written and the ranges that are read, in the form that every backend needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from latewood.errors import CorruptionError

if TYPE_CHECKING:
    from latewood.storage.storage import Data


def as_bytes(buffer: Data) -> memoryview:
    """Anything contiguous as a flat view of bytes."""
    view = memoryview(cast(Any, buffer))
    return view.cast("B") if view.nbytes else memoryview(b"")  # an empty view of another shape cannot be cast


def check_range(key: str, start: int, length: int, size_bytes: int) -> None:
    """Raises: ValueError: not a range. CorruptionError: the object ends before the range does."""
    if start < 0 or length < 0:
        raise ValueError(f"{key}: {length} bytes from {start} are no range")
    if length and start + length > size_bytes:
        raise CorruptionError(f"{key}: bytes {start} to {start + length} are needed, but it has only {size_bytes}")
