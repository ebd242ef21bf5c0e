"""The C++ stripes of a yardstick folder: what searching and decoding alone can do.

They check nothing, know of no visibility and no Arrow, and measure time in whole milliseconds.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.histories import MS, Histories, Requests
from bench.timing import Amount

CXX = "C++ stripes"


class CxxStripes:
    """All histories, encoded. Args: folder: with limits.py. scratch: where it is compiled."""

    def __init__(self, folder: Path, histories: Histories, scratch: Path) -> None:
        limits = _import_from(folder, "limits")
        data: dict[str, Any] = {"offsets": histories.offsets} | histories.columns
        data["event_ts"] = histories.columns["event_ts"] // MS
        self.histories, self.stripes = histories, limits.Stripes(data, limits.Pool(), scratch)

    def of(self, requests: Requests, batch_size: int) -> "CxxBatches":
        """The examples of some requests."""
        times = requests.times(self.histories) // MS
        return CxxBatches(
            self.stripes,
            [
                (
                    np.ascontiguousarray(requests.user[i : i + batch_size]),
                    np.ascontiguousarray(times[i : i + batch_size]),
                )
                for i in range(0, len(requests), batch_size)
            ],
        )


@dataclass(frozen=True, slots=True)
class CxxBatches:
    """Batches of users and times. Shapes: (n,) each."""

    stripes: Any
    examples: list[tuple[NDArray[np.int64], NDArray[np.int64]]]

    def batches(self, max_len: int, traits: tuple[str, ...]) -> Iterator[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Offsets and columns of every batch."""
        for user, times in self.examples:
            start, stop = self.stripes.resolve(user, times, max_len)
            yield self.stripes.read(user, start, stop, list(traits))

    def drain(self, max_len: int, traits: tuple[str, ...]) -> Amount:
        """Make every batch and let it go."""
        count = examples = events = 0
        for offsets, _ in self.batches(max_len, traits):
            count, examples, events = count + 1, examples + len(offsets) - 1, events + int(offsets[-1])
        return Amount(count, examples, events)


def _import_from(folder: Path, module: str) -> Any:
    """A module of a folder that is no package."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        return import_module(module)
    finally:
        sys.path.pop(0)
