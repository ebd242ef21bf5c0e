"""Suite `memory`: how much memory a loader takes beyond the mapped files, at its peak, in batches.

A process of its own opens the store as a trainer does and takes some batches of 512 with all traits. It holds each for a
while, as a trainer that is slower than the loader, so that all batches that may be made ahead are. It has made one small
batch before, so that kernels are loaded; what it held then is subtracted. Counted is anonymous memory, sampled from
outside (`bench.apart`): the mapped generation is page cache, and does not count. One batch is what the largest of them
has in its arrays.
"""

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import latewood as lw
from bench import sources
from bench.apart import anonymous_bytes, watch_memory
from bench.digests import digest, require_equal
from bench.histories import TRAITS, draw_distinct
from bench.report import Bound, Line, Results, absent
from bench.session import Session

MAX_LEN, BATCH_SIZE, BATCHES = 65_536, 512, 8
TARGET = Bound(3, at_most=True, of_figure=True)
PREFETCH = (4, 0)  # the default is judged
STEP_S = 0.5  # a training step
_MIB = 1 << 20


def run(session: Session, folder: Path) -> Results:
    """Compare one epoch's examples, then watch one process per setting."""
    if not Path("/proc/self/status").exists():
        return Results([absent("peak memory", "Loader", "only Linux tells anonymous memory apart")])
    settings, histories, store = session.settings, session.histories, session.store
    batch_size = min(BATCH_SIZE, histories.user_count)
    requests = draw_distinct(histories, batch_size, settings.batches or settings.size(BATCHES, 3))
    examples = sources.backfill(store, sources.requests_table(histories, requests))
    compared = 0
    for start in range(0, len(requests), batch_size):
        batch = lw.Materializer(store, lw.Projection(max_len=MAX_LEN))(examples.slice(start, batch_size))
        rows = requests.slice(start, start + batch_size).rows(histories, MAX_LEN)
        truth = digest(*sources.cut(histories, *rows), tuple(TRAITS))
        require_equal(digest(batch.offsets, batch.values, tuple(TRAITS)), truth, tuple(TRAITS), "Materializer")
        compared += len(batch)
    del batch
    pq.write_table(examples, folder / "examples.parquet", row_group_size=batch_size)
    lines: list[Line] = []
    for prefetch in PREFETCH:
        session.tell(f"memory: watching a loader with prefetch={prefetch}")
        lines += _watch(str(store.path), folder / "examples.parquet", batch_size, prefetch, settings.size(STEP_S, 0.01))
    return Results(lines, compared, "peak of anonymous memory, sampled every 2 ms from another process")


def _watch(store: str, examples: Path, batch_size: int, prefetch: int, step_s: float) -> list[Line]:
    (before, batch_bytes, examples_count), peak = watch_memory(
        _load, store, str(examples), batch_size, prefetch, step_s
    )
    above = peak - before
    name = f"Loader, prefetch {prefetch}"
    details = {"peak_bytes": peak, "before_bytes": before, "batch_bytes": batch_bytes, "examples": examples_count}
    cell = f"{MAX_LEN:,} events, {len(TRAITS)} traits, batches of {batch_size}, prefetch {prefetch}"
    target = TARGET if prefetch == PREFETCH[0] else None
    return [
        Line(cell, name, above / batch_bytes, "batches", target=target, details=details),
        Line(cell, "one batch", batch_bytes / _MIB, "MiB"),
        Line(cell, "peak above the map", above / _MIB, "MiB", above / batch_bytes, "one batch"),
    ]


def _load(path: str, examples: str, batch_size: int, prefetch: int, step_s: float) -> tuple[int, int, int]:
    """In the process that is watched. Returns: bytes before, bytes of the largest batch, examples."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    projection = lw.Projection(max_len=MAX_LEN, traits=list(TRAITS))
    with lw.Store.open(path, read_only=True) as store:
        lw.Materializer(store, projection)(pq.ParquetFile(examples).read_row_group(0).slice(0, 1))
        before, largest, count = anonymous_bytes(), 0, 0
        for batch in lw.Loader(store, examples, projection, batch_size=batch_size, seed=1, prefetch=prefetch):
            largest = max(largest, sum(np.asarray(values).nbytes for values in batch.values.values()))
            count += len(batch)
            time.sleep(step_s)
            del batch
    return before, largest, count
