"""Suite `scan`: histories in memory to numpy, against the limits of the machine.

No Parquet, no order, nobody twice in a batch: examples lie in memory as a table, and the Materializer resolves and
decodes them. Beside it run `memcpy`, which copies as many bytes as the batch has, and `slices`, the raw columns cut
with numpy. With `--yardstick PATH` the C++ stripes of that folder run too, search and decode only: without checks,
visibility or Arrow.

Two comparisons with ourselves follow. *Dirty*: the same requests on data that is as life is (bench.dirty). *Shared*: the
same examples in other batches: each of a user's 16 in another, or all in one; and these in shared memory, where examples
are views and nothing is copied for any of them (`Materializer.shared`), which is what the target is about.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.cxx import CXX
from bench.digests import Digests, digest, require_equal
from bench.dirty import dirty_examples, look
from bench.histories import (
    MS,
    PROJECTIONS,
    TRAITS,
    Histories,
    Requests,
    draw_distinct,
    draw_shared,
    event_bytes,
)
from bench.report import Line, Results, at_least, at_most, speed_lines
from bench.session import Session
from bench.timing import Amount, Contender, Measurement, interleave

LENGTHS = (256, 4096, 65_536)
BATCH_SIZE = 512
BATCHES = {256: 16, 4096: 8}
FEWEST_BATCHES = 4
PER_USER = 16
OURS, PEER, LIMIT = "Materializer", "slices", "memcpy"
CXX_TARGET = 0.8
CLEAN, LATE, DIRTY = "clean", "late and tied", "late, tied, 16 recent"
DIRTY_TARGET = at_most(1.25)  # of the clean data's time
ALONE, COPIED, SHARED = "1 per user", "16 per user", "16 per user, shared"
SHARED_TARGETS = {4096: (3.5, 5.0), 65_536: (5.0, 9.0)}  # of 3 and of 11 traits, times as fast as alone
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


class Shared(Ours):
    """In shared memory, where nothing is copied per example."""

    def shared(self, max_len: int, traits: tuple[str, ...]) -> Iterable[lw.SharedBatch]:
        """What is timed."""
        materialize = lw.Materializer(self._store, lw.Projection(max_len=max_len, traits=traits))
        for table in self._tables:
            batch = materialize.shared(table)
            yield batch
            del batch

    def batches(self, max_len: int, traits: tuple[str, ...]) -> Iterable[tuple[NDArray[np.int64], dict[str, Any]]]:
        """Back to back, to be compared."""
        for batch in self.shared(max_len, traits):
            whole = batch.expand()
            yield whole.offsets, whole.values


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


def run(session: Session, folder: Path) -> Results:
    """Verify and measure every cell; then dirty data, and examples that share a user."""
    settings, lines, compared = session.settings, list[Line](), 0
    lengths = sorted(settings.lengths or settings.size(LENGTHS, (256, 1_000)))
    for run_part in (_limits, _dirty, _shared):
        for max_len in lengths:
            more, verified = run_part(session, folder, max_len)
            lines, compared = lines + more, compared + verified
    return Results(lines, compared)


def _limits(session: Session, _: Path, max_len: int) -> tuple[list[Line], int]:
    """Beside what the machine can do."""
    histories, cxx = session.histories, session.cxx
    requests, batch_size = _distinct(session, max_len)
    examples = sources.backfill(session.store, sources.requests_table(histories, requests))
    systems: dict[str, System] = {
        OURS: Ours(session.store, examples, batch_size),
        PEER: Slices(histories, requests, batch_size),
    }
    if cxx is not None:
        systems[CXX] = cxx.of(requests, batch_size)
    session.tell(f"scan: comparing {len(requests):,} examples at {max_len:,} events")
    counts = _verify(systems, histories, requests, batch_size, max_len)
    lines = []
    for traits in PROJECTIONS.values():
        session.tell(f"scan: measuring {max_len:,} events, {len(traits)} traits")
        measured = _measure(systems, counts, max_len, traits, session.settings.passes, batch_size)
        peer = CXX if cxx is not None else PEER
        targets = {OURS: at_least(CXX_TARGET)} if cxx is not None else {}
        lines += speed_lines(_cell(max_len, traits), measured, "M events/s", peer, targets=targets)
    return lines, len(requests)


def _dirty(session: Session, _: Path, max_len: int) -> tuple[list[Line], int]:
    """The same requests on clean data, on data with late events and ties, and with recent events besides."""
    requests, batch_size = _distinct(session, max_len)
    asked, times = sources.requests_table(session.histories, requests), requests.times(session.histories)
    clean = sources.backfill(session.store, asked)
    soiled, store = session.dirty
    seen = look(soiled, requests.user, times)
    systems = {
        CLEAN: Ours(session.store, clean, batch_size),
        LATE: Ours(store, lw.backfill(store, asked, complete=True, allow_empty=True), batch_size),
        DIRTY: Ours(store, dirty_examples(store, soiled, asked, seen), batch_size),
    }
    truth = _digests_of_rows(soiled.histories, [rows[-max_len:] for rows in seen.rows])
    session.tell(f"scan: comparing {len(requests):,} examples of dirty data at {max_len:,} events")
    for name in (LATE, DIRTY):
        require_equal(_digests(systems[name], max_len), truth, tuple(TRAITS), f"{name} with {max_len} events")
    lines = []
    for traits in PROJECTIONS.values():
        amounts = {name: _amount(system, max_len, traits) for name, system in systems.items()}
        measured = interleave(
            {name: _drain(system, amounts[name], max_len, traits) for name, system in systems.items()},
            session.settings.passes,
        )
        cell = f"dirty: {_cell(max_len, traits)}"
        lines += speed_lines(cell, measured, "ms/batch", CLEAN, targets={DIRTY: DIRTY_TARGET})
    return lines, 2 * len(requests)


def _shared(session: Session, _: Path, max_len: int) -> tuple[list[Line], int]:
    """The same examples, first batched so that nobody comes twice in a batch, then with a user's 16 in one."""
    histories = session.histories
    users = max(PER_USER, min(BATCH_SIZE, histories.user_count) // PER_USER * PER_USER)
    requests = draw_shared(histories, users, PER_USER)
    examples = sources.backfill(session.store, sources.requests_table(histories, requests))
    apart = np.arange(len(requests)).reshape(users, PER_USER).T.ravel()  # every user's first, then every user's second
    shared = Shared(session.store, examples, users)
    systems = {
        ALONE: Ours(session.store, examples.take(pa.array(apart)), users),
        COPIED: Ours(session.store, examples, users),
        SHARED: shared,
    }
    session.tell(f"scan: comparing {len(requests):,} examples that share users at {max_len:,} events")
    truth = _digests_of_rows(
        histories, [np.arange(a, b) for a, b in zip(*requests.rows(histories, max_len), strict=True)]
    )
    for name, order in ((ALONE, apart), (COPIED, slice(None)), (SHARED, slice(None))):
        require_equal(_digests(systems[name], max_len), truth[order], tuple(TRAITS), f"{name} with {max_len} events")
    lines = []
    for i, traits in enumerate(PROJECTIONS.values()):
        amount = _amount(systems[ALONE], max_len, traits)
        contenders = {name: _drain(systems[name], amount, max_len, traits) for name in (ALONE, COPIED)}
        contenders[SHARED] = _drain_shared(shared, amount, max_len, traits)
        measured = interleave(contenders, session.settings.passes)
        targets = {SHARED: at_least(SHARED_TARGETS[max_len][i])} if max_len in SHARED_TARGETS else {}
        lines += speed_lines(f"shared: {_cell(max_len, traits)}", measured, "examples/s", ALONE, targets=targets)
    return lines, len(systems) * len(requests)


def _distinct(session: Session, max_len: int) -> tuple[Requests, int]:
    """Requests, and how many make a batch."""
    settings, histories = session.settings, session.histories
    batch_size = min(BATCH_SIZE, histories.user_count)
    count = settings.batches or settings.size(BATCHES.get(max_len, FEWEST_BATCHES), 2)
    return draw_distinct(histories, batch_size, count), batch_size


def _cell(max_len: int, traits: tuple[str, ...]) -> str:
    return f"{max_len:,} events, {len(traits)} traits"


def _digests(system: System, max_len: int) -> Digests:
    """Of every example, in every trait."""
    traits = tuple(TRAITS)
    return np.concatenate([digest(offsets, columns, traits) for offsets, columns in system.batches(max_len, traits)])


def _digests_of_rows(histories: Histories, rows: list[NDArray[np.int64]]) -> Digests:
    """The ground truth, a few examples at a time. Args: rows: what each example sees, oldest first."""
    parts = []
    for i in range(0, len(rows), BATCH_SIZE):
        group = rows[i : i + BATCH_SIZE]
        offsets = np.zeros(len(group) + 1, np.int64)
        np.cumsum([len(part) for part in group], out=offsets[1:])
        flat = np.concatenate(group)
        parts.append(digest(offsets, {name: column[flat] for name, column in histories.columns.items()}, tuple(TRAITS)))
    return np.concatenate(parts)


def _amount(system: System, max_len: int, traits: tuple[str, ...]) -> Amount:
    batches = examples = events = 0
    for offsets, _ in system.batches(max_len, traits):
        batches, examples, events = batches + 1, examples + len(offsets) - 1, events + int(offsets[-1])
    return Amount(batches, examples, events)


def _drain(system: System, amount: Amount, max_len: int, traits: tuple[str, ...]) -> Contender:
    def read() -> Amount:
        for batch in system.batches(max_len, traits):
            del batch
        return amount

    return read


def _drain_shared(system: Shared, amount: Amount, max_len: int, traits: tuple[str, ...]) -> Contender:
    def read() -> Amount:
        for batch in system.shared(max_len, traits):
            del batch
        return amount

    return read


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
) -> Measurement:
    amount = Amount(len(counts), len(counts) * batch_size, sum(counts))
    memcpy, size = Memcpy(max(counts) * event_bytes(traits)), event_bytes(traits)

    def copy() -> Amount:
        for count in counts:
            memcpy.copy(count * size)
        return amount

    contenders = {name: _drain(system, amount, max_len, traits) for name, system in systems.items()}
    return interleave(contenders | {LIMIT: copy}, passes)
