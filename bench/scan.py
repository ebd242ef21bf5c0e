"""Suite `scan`: histories in memory to numpy, against the limits of the machine.

No Parquet, no order, nobody twice in a batch: examples lie in memory as a table, and the Materializer resolves and
decodes them. Beside it run `memcpy`, which copies as many bytes as the batch has, and `slices`, the raw columns cut
with numpy. With `--yardstick PATH` the C++ stripes of that folder run too, search and decode only: without checks,
visibility or Arrow.
"""

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.digests import Digests, digest, require_equal
from bench.histories import MS, PROJECTIONS, TRAITS, Histories, Requests, draw_distinct, event_bytes
from bench.report import Line
from bench.timing import Amount, Contender, interleave

LENGTHS = (256, 4096, 65_536)
BATCH_SIZE = 512
BATCHES = {256: 16, 4096: 8}
FEWEST_BATCHES = 4
OURS, PEER, LIMIT, CXX = "Materializer", "slices", "memcpy", "C++ stripes"
_SOURCE_BYTES = 256 << 20  # larger than any cache


class System(Protocol):
    """Anything that makes batches of histories, one after another."""

    def batches(self, max_len: int, traits: tuple[str, ...]) -> Iterable[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Offsets and columns of every batch."""


class Ours:
    """The product, checks on."""

    def __init__(self, store: lw.Store, examples: pa.Table, batch_size: int) -> None:
        self._store = store
        self._tables = [examples.slice(i, batch_size) for i in range(0, len(examples), batch_size)]

    def batches(self, max_len: int, traits: tuple[str, ...]) -> Iterable[tuple[NDArray[np.int64], dict[str, Any]]]:
        materialize = lw.Materializer(self._store, lw.Projection(max_len=max_len, traits=traits))
        for table in self._tables:
            batch = materialize(table)
            yield batch.offsets, batch.values
            del batch


class Slices:
    """The raw columns: search every example's end, cut, concatenate into buffers that are used again."""

    def __init__(self, histories: Histories, requests: Requests, batch_size: int) -> None:
        self._histories, times = histories, requests.times(histories)
        self._batches = [
            (requests.user[i : i + batch_size], times[i : i + batch_size]) for i in range(0, len(requests), batch_size)
        ]
        self._buffers: dict[str, NDArray[Any]] = {}

    def batches(self, max_len: int, traits: tuple[str, ...]) -> Iterable[tuple[NDArray[np.int64], dict[str, Any]]]:
        columns, bounds = self._histories.columns, self._histories.offsets
        event_ts = columns["event_ts"]
        for user, times in self._batches:
            first, last = bounds[user].tolist(), bounds[user + 1].tolist()
            stops = [a + int(event_ts[a:b].searchsorted(ts)) for a, b, ts in zip(first, last, times, strict=True)]
            runs = [(max(a, stop - max_len), stop) for a, stop in zip(first, stops, strict=True)]
            offsets = np.zeros(len(runs) + 1, np.int64)
            np.cumsum([stop - start for start, stop in runs], out=offsets[1:])
            out = {trait: self._buffer(trait, int(offsets[-1])) for trait in traits}
            for trait, target in out.items():
                column = columns[trait]
                np.concatenate([column[start:stop] for start, stop in runs], out=target)
            yield offsets, out

    def _buffer(self, trait: str, size: int) -> NDArray[Any]:
        if trait not in self._buffers or len(self._buffers[trait]) < size:
            self._buffers[trait] = np.empty(size + size // 4, TRAITS[trait])
        return self._buffers[trait][:size]


class CxxStripes:
    """The C++ prototype of a yardstick folder, which measures in whole milliseconds."""

    def __init__(self, folder: Path, histories: Histories, requests: Requests, batch_size: int, scratch: Path) -> None:
        limits = _import_from(folder, "limits")
        data: dict[str, Any] = {"offsets": histories.offsets} | histories.columns
        data["event_ts"] = histories.columns["event_ts"] // MS
        self._stripes = limits.Stripes(data, limits.Pool(), scratch)
        times = requests.times(histories) // MS
        self._batches = [
            (np.ascontiguousarray(requests.user[i : i + batch_size]), np.ascontiguousarray(times[i : i + batch_size]))
            for i in range(0, len(requests), batch_size)
        ]

    def batches(self, max_len: int, traits: tuple[str, ...]) -> Iterable[tuple[NDArray[np.int64], dict[str, Any]]]:
        for user, times in self._batches:
            start, stop = self._stripes.resolve(user, times, max_len)
            yield self._stripes.read(user, start, stop, list(traits))


class Memcpy:
    """One contiguous copy of as many bytes, from memory that no cache holds to a target that is used again."""

    def __init__(self, largest_bytes: int) -> None:
        self._source = np.ones(max(_SOURCE_BYTES, largest_bytes), np.uint8)
        self._target = np.ones(largest_bytes, np.uint8)
        self._at = 0

    def copy(self, size_bytes: int) -> None:
        if self._at + size_bytes > len(self._source):
            self._at = 0
        np.copyto(self._target[:size_bytes], self._source[self._at : self._at + size_bytes])
        self._at += size_bytes


def run(
    histories: Histories, store: lw.Store, scratch: Path, *, lengths: Iterable[int], passes: int, batches: int | None,
    yardstick: Path | None, tell: Callable[[str], Any],
) -> tuple[list[Line], int]:  # fmt: skip
    """Verify and measure every cell. Returns: the lines, and how many examples were compared."""
    lines: list[Line] = []
    compared = 0
    batch_size = min(BATCH_SIZE, histories.user_count)
    for max_len in sorted(lengths):
        requests = draw_distinct(histories, batch_size, batches or BATCHES.get(max_len, FEWEST_BATCHES))
        examples = sources.backfill(store, sources.requests_table(histories, requests))
        systems: dict[str, System] = {
            OURS: Ours(store, examples, batch_size),
            PEER: Slices(histories, requests, batch_size),
        }
        if yardstick is not None:
            tell(f"encoding the C++ stripes of {yardstick}")
            systems[CXX] = CxxStripes(yardstick, histories, requests, batch_size, scratch)
        tell(f"comparing {len(requests):,} examples at {max_len:,} events")
        counts = _verify(systems, histories, requests, batch_size, max_len)
        compared += len(requests)
        for traits in PROJECTIONS.values():
            tell(f"measuring {max_len:,} events, {len(traits)} traits")
            lines += _measure(systems, counts, max_len, traits, passes, batch_size)
    return lines, compared


def _verify(
    systems: dict[str, System], histories: Histories, requests: Requests, batch_size: int, max_len: int
) -> list[int]:
    """Compare every system with the raw arrays. Returns: events per batch.

    Raises: RuntimeError: names the first difference.
    """
    traits = tuple(TRAITS)
    truths: list[Digests] = []
    counts = []
    for i in range(0, len(requests), batch_size):
        offsets, columns = sources.cut(histories, *requests.slice(i, i + batch_size).rows(histories, max_len))
        truths.append(digest(offsets, columns, traits))
        counts.append(int(offsets[-1]))
    for name, system in systems.items():
        for truth, (offsets, columns) in zip(truths, system.batches(max_len, traits), strict=True):
            in_us = columns if name != CXX else columns | {"event_ts": columns["event_ts"] * MS}
            require_equal(digest(offsets, in_us, traits), truth, traits, f"{name} with {max_len} events")
    return counts


def _measure(
    systems: dict[str, System], counts: list[int], max_len: int, traits: tuple[str, ...], passes: int, batch_size: int
) -> list[Line]:
    amount = Amount(len(counts), len(counts) * batch_size, sum(counts))
    memcpy, size = Memcpy(max(counts) * event_bytes(traits)), event_bytes(traits)

    def copy() -> Amount:
        for count in counts:
            memcpy.copy(count * size)
        return amount

    def drain(system: System) -> Contender:
        def read() -> Amount:
            for batch in system.batches(max_len, traits):
                del batch
            return amount

        return read

    result = interleave({name: drain(system) for name, system in systems.items()} | {LIMIT: copy}, passes)
    peer = result.speeds[PEER]
    return [
        Line(max_len, len(traits), name, speed, speed.events_per_s / peer.events_per_s, result.processor_share)
        for name, speed in result.speeds.items()
    ]


def _import_from(folder: Path, module: str) -> Any:
    """A module of a folder that is no package."""
    sys.path.insert(0, str(folder.resolve()))
    try:
        return import_module(module)
    finally:
        sys.path.pop(0)
