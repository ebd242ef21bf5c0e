"""How the positions of an epoch are dealt to steps and ranks.

All ranks walk through the same positions: a step takes the next so many of them, rank r the r-th part. So one number, the
position after the last step, says for every rank and for any number of ranks what is left of the epoch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from latewood.errors import SchemaError

REMAINDERS = ("pad", "drop")


def whole(name: str, number: Any) -> int:
    """An integer of any kind as Python's, which JSON can hold. Raises: SchemaError: it is none."""
    if not isinstance(number, Integral):
        raise SchemaError(f"{name}={number!r} must be an integer")
    return int(number)


def at_least_one(name: str, number: Any) -> int:
    """Raises: SchemaError: not an integer, or less."""
    number = whole(name, number)
    if number < 1:
        raise SchemaError(f"{name}={number} must be at least 1")
    return number


@dataclass(frozen=True, slots=True)
class Step:
    """One rank's part of a step: the examples at positions start to stop, and `pad` repeated ones of weight 0."""

    start: int
    stop: int
    pad: int
    first: int  # where the step starts on rank 0
    after: int  # where the step ends on the last rank
    following: int  # where the next step of this share starts

    def __len__(self) -> int:
        return self.stop - self.start + self.pad

    def padding(self) -> NDArray[np.int64]:
        """Which of the whole step's examples are repeated, counted from `first`. Shapes: (pad,)."""
        return np.arange(self.pad) % (self.after - self.first)


@dataclass(frozen=True, slots=True)
class Share:
    """What one rank gets of every step.

    Args: remainder: what to do where too few examples are left for a full step. "pad": all ranks get a part, some of it of
        weight 0 where it must be, so that no example is lost and none counts twice. "drop": leave them out.
        stride: take every `stride`-th step only, as one of so many workers.
    """

    rank: int = 0
    world_size: int = 1
    remainder: str = "pad"
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("rank", "world_size"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if not 0 <= self.rank < self.world_size:
            raise SchemaError(f"rank={self.rank} must be at least 0 and below world_size={self.world_size}")
        if self.remainder not in REMAINDERS:
            exist = ", ".join(map(repr, REMAINDERS))
            raise SchemaError(f"remainder {self.remainder!r} does not exist; these do: {exist}")


class Steps(Protocol):
    """The steps of one epoch, as one rank sees them."""

    def count(self, position: int = 0) -> int:
        """How many are left from a position; the same on every rank."""

    def steps(self, position: int = 0) -> Iterator[Step]:
        """This rank's part of every step from a position on."""

    def skip(self, position: int, steps: int) -> int:
        """The position after so many steps, of all workers, from another one."""


class SizedSteps:
    """Steps of `batch_size` examples per rank, of `total`. All ranks have equally many in every step."""

    def __init__(self, share: Share, batch_size: int, total: int) -> None:
        self._share, self._total = share, total
        self._size = batch_size * share.world_size

    def count(self, position: int = 0) -> int:
        left = max(self._total - position, 0)
        steps = left // self._size if self._share.remainder == "drop" else -(-left // self._size)
        return -(-steps // self._share.stride)

    def steps(self, position: int = 0) -> Iterator[Step]:
        of = self._share
        for _ in range(self.count(position)):
            after = self.skip(position, 1)
            size = -(-(after - position) // of.world_size)
            start = min(position + of.rank * size, after)
            stop = min(start + size, after)
            following = self.skip(position, of.stride)
            yield Step(start, stop, size - (stop - start), position, after, following)
            position = following

    def skip(self, position: int, steps: int) -> int:
        return min(position + steps * self._size, self._total)
