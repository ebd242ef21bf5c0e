"""Suite `loader`: from an example log in Parquet to numpy, against Fat Rows in Parquet read in request order.

What a trainer waits for. Our side opens the log, shuffles it with a seed, and makes every example of one epoch; the Fat
Rows are read as they lie, one file per length, only the traits asked for. Both give the same examples with the same
features, in batches of 512; which is checked, example by example and bit by bit, before anything is timed. One thread:
the loader works without prefetching, and pyarrow has one processor. Beside both runs the least that any reader of these
Fat Rows could do: pyarrow alone, no features, nothing checked.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import latewood as lw
from bench import sources
from bench.digests import collect, digest, require_equal
from bench.histories import PROJECTIONS, TRAITS, Histories, Requests, draw_requests
from bench.report import Floor, Line, Storage
from bench.timing import Amount, Contender, interleave

BATCH_SIZE = 512
BATCHES = 40
LENGTHS = (256, 4096)
FLOORS = {256: 1.5, 4096: 4.0}  # times Fat Rows
OURS, AHEAD, PEER, BARE = "Loader", "Loader, prefetch 2", "Fat Rows", "Fat Rows, bare"
_ALL_DAYS = 36_500  # one folder: the requests are spread over years


@dataclass(frozen=True, slots=True)
class Data:
    """Both sides on disk."""

    histories: Histories
    requests: Requests
    store: lw.Store
    examples: Path
    fat_rows: dict[int, lw.FatRows]  # by length

    @property
    def examples_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.examples.rglob("*.parquet"))


def prepare(histories: Histories, store: lw.Store, folder: Path, lengths: Iterable[int], batches: int) -> Data:
    """Write the example log and the Fat Rows."""
    requests = draw_requests(histories, batches * BATCH_SIZE)
    examples = sources.backfill(store, sources.requests_table(histories, requests))
    with lw.ExampleLog(folder / "examples", days=_ALL_DAYS) as log:
        log.append(examples)
    fat_rows = {
        length: sources.write_fat_rows(folder / f"fat_rows_{length}.parquet", histories, requests, length)
        for length in lengths
    }
    return Data(histories, requests, store, folder / "examples", fat_rows)


def load(data: Data, max_len: int, traits: tuple[str, ...], prefetch: int = 0) -> lw.Loader:
    """A loader as a trainer makes it: opening the log is part of an epoch."""
    projection = lw.Projection(max_len=max_len, traits=traits)
    return lw.Loader(data.store, str(data.examples), projection, batch_size=BATCH_SIZE, seed=1, prefetch=prefetch)


def verify(data: Data, max_len: int) -> int:
    """Compare both sides with the raw arrays, in every trait. Returns: examples compared.

    Raises: RuntimeError: names the first difference.
    """
    traits, count = tuple(TRAITS), len(data.requests)
    parts = []
    for start in range(0, count, BATCH_SIZE):
        rows = data.requests.slice(start, start + BATCH_SIZE).rows(data.histories, max_len)
        parts.append(digest(*sources.cut(data.histories, *rows), traits))
    truth = np.concatenate(parts)
    fat = collect(data.fat_rows[max_len].batches(BATCH_SIZE), count, traits)
    require_equal(fat, truth, traits, f"Fat Rows of {max_len} events")
    ours = collect(load(data, max_len, traits), count, traits)
    require_equal(ours, truth, traits, f"Loader with {max_len} events")
    return count


def measure(data: Data, max_len: int, traits: tuple[str, ...], passes: int) -> list[Line]:
    """Time both sides of one cell."""
    contenders: dict[str, Contender] = {
        OURS: lambda: _drain(load(data, max_len, traits)),
        AHEAD: lambda: _drain(load(data, max_len, traits, prefetch=2)),
        PEER: lambda: _drain(data.fat_rows[max_len].batches(BATCH_SIZE, traits)),
        BARE: lambda: _read_bare(data.fat_rows[max_len].path, traits),
    }
    result = interleave(contenders, passes)
    peer = result.speeds[PEER]
    floor = Floor(OURS, PEER, FLOORS[max_len]) if max_len in FLOORS else None
    return [
        Line(max_len, len(traits), name, speed, speed.events_per_s / peer.events_per_s, result.processor_share,
             floor if name == OURS else None)
        for name, speed in result.speeds.items()
    ]  # fmt: skip


def storage(data: Data) -> list[Storage]:
    """Bytes on disk. Fat Rows count their copies as events; we store every event once, and examples beside them."""
    count, histories = len(data.requests), data.histories
    size_bytes = data.store.generation.size_bytes
    rows = [Storage("latewood", None, size_bytes, histories.event_count, data.examples_bytes, count)]
    for length, fat in data.fat_rows.items():
        start, stop = data.requests.rows(histories, length)
        rows.append(Storage("Fat Rows", length, fat.size_bytes, int((stop - start).sum()), fat.size_bytes, count))
    return rows


def _read_bare(path: Path, traits: tuple[str, ...]) -> Amount:
    """The histories of Fat Rows with pyarrow alone."""
    file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    count = examples = events = 0
    columns = [f"history.{trait}.list.element" for trait in traits]
    for rows in file.iter_batches(BATCH_SIZE, columns=columns, use_threads=False):
        for lists in rows.column("history").flatten():
            values = lists.flatten().to_numpy(zero_copy_only=False)
        count, examples, events = count + 1, examples + len(rows), events + len(values)
    return Amount(count, examples, events)


def _drain(batches: Iterable[Any]) -> Amount:
    """Take every batch and let it go, as a trainer does."""
    count = examples = events = 0
    for batch in batches:
        count, examples, events = count + 1, examples + len(batch), events + int(batch.offsets[-1])
        del batch
    return Amount(count, examples, events)


def run(
    histories: Histories, store: lw.Store, folder: Path, *, lengths: Iterable[int], passes: int, batches: int,
    tell: Callable[[str], None],
) -> tuple[list[Line], list[Storage], int]:  # fmt: skip
    """Prepare, verify, measure. Returns: the lines, the storage, and how many examples were compared."""
    lengths = sorted(lengths)
    tell(f"writing {batches * BATCH_SIZE:,} examples and their Fat Rows")
    data = prepare(histories, store, folder, lengths, batches)
    lines: list[Line] = []
    compared = 0
    for max_len in lengths:
        tell(f"comparing all examples at {max_len:,} events")
        compared += verify(data, max_len)
        for traits in PROJECTIONS.values():
            tell(f"measuring {max_len:,} events, {len(traits)} traits")
            lines += measure(data, max_len, traits, passes)
    return lines, storage(data), compared
