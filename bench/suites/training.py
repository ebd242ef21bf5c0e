"""Suite `training`: what a trainer's choices cost: the order of examples, and torch tensors.

*Order.* The same examples, 16 of each user, once in the order of the log, where a user's lie side by side, and once
shuffled, which reads a window of 16,384 of them and mixes those; to numpy, without prefetching, by the processor's clock.
Independent batches are what models want, so that shuffling may cost little: the time of a batch is compared.

*Tensors.* One epoch to torch tensors, by the wall clock, since the peer has processes of its own. Ours: shuffled, decoded
in the trainer's own thread (prefetch 0, which is judged) and in one thread ahead of it (prefetch 4, the default). The
peer: Fat Rows in Parquet behind `torch.utils.data.DataLoader`, in the order in which they lie, written as a careful team
would: an iterable data set that reads only the columns asked for, batch by batch from row groups that are whole batches;
each of n workers has every n-th row group; a batch is made of whole arrays, never of rows; workers stay from epoch to
epoch. Of 0, 1 and 2 workers the fastest counts. Beside them stands what most data sets do, which give examples one by one,
that the DataLoader then makes batches of, in the trainer's process. With `--yardstick PATH` so does the least that a loader
of its C++ stripes takes: to read the log, search and decode, and make no tensor.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers, sources
from bench.histories import PROJECTIONS, draw_requests, draw_shared
from bench.report import Line, Results, absent, at_least, at_most, speed_lines
from bench.session import Session
from bench.suites.loader import BATCH_SIZE, LEAST, PER_USER, Data, Reader, drains, prepare, reading_first, verify
from bench.timing import interleave, wall_clock

LENGTHS = (256, 4096)
ORDER_BATCHES, TENSOR_BATCHES = 80, 40  # the former are more than one window
BY_USER, SHUFFLED, SHUFFLE_TARGET = "user order", "shuffled", at_most(1.3)  # times the time of a batch
TENSOR_TARGETS = {256: at_least(5), 4096: at_least(10)}
OURS, AHEAD, TORCH = "Loader, to_torch, prefetch 0", "Loader, to_torch, prefetch 4", "torch DataLoader"
WORKERS, ONE_BY_ONE = (0, 1, 2), "torch DataLoader, one by one"
CLOCK = "order: one thread, processor time; tensors: wall time; medians of interleaved passes"


def run(session: Session, folder: Path) -> Results:
    """Every length: both orders, then tensors."""
    settings, lines, compared = session.settings, list[Line](), 0
    for max_len in sorted(settings.lengths or settings.size(LENGTHS, (256, 1_000))):
        for run_part in (_order, _tensors):
            more, verified = run_part(session, folder / f"{max_len}{run_part.__name__}", max_len)
            lines, compared = lines + more, compared + verified
    return Results(lines, compared, CLOCK)


def _order(session: Session, folder: Path, max_len: int) -> tuple[list[Line], int]:
    """The log is sorted by user; only the loader's order differs."""
    settings, histories = session.settings, session.histories
    count = BATCH_SIZE * (settings.batches or settings.size(ORDER_BATCHES, 2))
    users = min(count // PER_USER, histories.user_count)
    data = prepare(session, folder, draw_shared(histories, users, PER_USER), max_len)
    sides: dict[str, Reader] = {
        BY_USER: lambda traits: data.load(traits, order="user"),
        SHUFFLED: lambda traits: data.load(traits, order="shuffle"),
    }
    session.tell(f"training: comparing both orders at {max_len:,} events")
    compared, lines = verify(data, sides), list[Line]()
    for traits in PROJECTIONS.values():
        cell = f"order: {_cell(max_len, traits)}, {PER_USER} per user"
        session.tell(f"training: measuring {cell}")
        measured = interleave(drains(sides, traits), settings.passes)
        lines += speed_lines(cell, measured, "ms/batch", BY_USER, targets={SHUFFLED: SHUFFLE_TARGET})
    return lines, compared


def _tensors(session: Session, folder: Path, max_len: int) -> tuple[list[Line], int]:
    """One epoch to torch, against a DataLoader."""
    cells = {traits: f"tensors: {_cell(max_len, traits)}" for traits in PROJECTIONS.values()}
    if (torch := peers.find("torch")) is None:
        return [absent(cell, TORCH, peers.missing("torch")) for cell in cells.values()], 0
    settings, histories = session.settings, session.histories
    count = BATCH_SIZE * (settings.batches or settings.size(TENSOR_BATCHES, 2))
    session.tell(f"training: writing {count:,} examples and their Fat Rows of {max_len:,} events")
    data = prepare(session, folder, draw_requests(histories, count), max_len)
    fat = sources.write_fat_rows(folder / "fat_rows.parquet", histories, data.requests, max_len)
    theirs = {_peer(n): peers.TorchFatRows(torch, fat.path, BATCH_SIZE, n) for n in WORKERS}
    one_by_one = peers.TorchFatRows(torch, fat.path, BATCH_SIZE, one_by_one=True)
    sides: dict[str, Reader] = {
        OURS: partial(_to_torch, data, prefetch=0),
        AHEAD: partial(_to_torch, data, prefetch=4),
        **{name: peer.batches for name, peer in theirs.items()},
        ONE_BY_ONE: one_by_one.batches,
    }
    try:
        session.tell(f"training: comparing tensors at {max_len:,} events")
        compared, lines = verify(data, sides), list[Line]()
        for traits, cell in cells.items():
            session.tell(f"training: measuring {cell}")
            contenders = drains(sides, traits)
            if session.cxx is not None:
                drain_cxx = partial(session.cxx.of(data.requests, BATCH_SIZE).drain, max_len, traits)
                contenders[LEAST] = reading_first(data.examples, traits, drain_cxx)
            measured = interleave(contenders, settings.passes, wall_clock)
            best = min(theirs, key=lambda name: measured.speeds[name].seconds)
            targets = {OURS: TENSOR_TARGETS[max_len]} if max_len in TENSOR_TARGETS else {}
            lines += speed_lines(cell, measured, "examples/s", best, targets=targets)
    finally:
        for peer in theirs.values():
            peer.close()
    return lines, compared


def _to_torch(data: Data, traits: tuple[str, ...], prefetch: int) -> Iterable[Any]:
    return data.load(traits, prefetch=prefetch, transform=peers.as_tensors)


def _peer(workers: int) -> str:
    return f"{TORCH}, {workers} worker{'' if workers == 1 else 's'}"


def _cell(max_len: int, traits: tuple[str, ...]) -> str:
    return f"{max_len:,} events, {len(traits)} traits"
