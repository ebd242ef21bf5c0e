"""Chance from one root seed: whatever a case draws, it draws here, so that its seed is all there is to replay."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 256  # numbers drawn at once: one at a time costs ten times as much


class Chance:
    """A stream of random choices. Streams of other names are independent of this one."""

    def __init__(self, *seed: int) -> None:
        self._seed = seed
        self._generator = np.random.default_rng(seed)
        self._drawn: list[float] = []

    def stream(self, number: int) -> "Chance":
        """A stream of its own, so that one part's draws do not move another's."""
        return Chance(*self._seed, number)

    def random(self) -> float:
        """From [0, 1)."""
        if not self._drawn:
            self._drawn = self._generator.random(_BLOCK).tolist()
        return self._drawn.pop()

    def happens(self, probability: float) -> bool:
        return probability > 0 and self.random() < probability

    def below(self, n: int) -> int:
        return int(self.random() * n)

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def among(self, choices: Sequence[T]) -> T:
        return choices[int(self.random() * len(choices))]

    def some(self, choices: Sequence[T], most: int) -> list[T]:
        """Up to `most` of them, in any order and with repeats."""
        return [self.among(choices) for _ in range(self.between(0, most))] if choices else []

    def weighted(self, weights: dict[T, float]) -> T:
        """A key, by its weight."""
        left = self.random() * sum(weights.values())
        for choice, weight in weights.items():
            left -= weight
            if left < 0:
                return choice
        return choice

    def token(self) -> str:
        """128 bits in hex, as a uuid has."""
        return "".join(f"{self.below(1 << 32):08x}" for _ in range(4))
