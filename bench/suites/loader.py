"""Suite `loader`: from an example log in Parquet to numpy, against Fat Rows in Parquet.

What a trainer waits for. Our side opens the log, shuffles it with a seed, and makes every example of one epoch; the Fat
Rows are read as they lie, one file per length, only the traits asked for. Both give the same examples with the same
features, in batches of 512; which is checked, example by example and bit by bit, before anything is timed. One thread:
the loader works without prefetching, and pyarrow has one processor. Beside both runs the least that any reader of these
Fat Rows could do: pyarrow alone, no features, nothing checked.

With `--yardstick PATH` its C++ stripes run, too: histories in memory, searched and decoded without a log, a loader or a
check. No loader can be faster than they are. They run once more after pyarrow has read what a loader needs of the log: the
least that a loader of such stripes can take.

Fat Rows in *user order* are the strong peer: a user's copies lie beside each other, and zstd makes almost nothing of
them. They are written twice, with the encodings that are best for one history and plain, where copies are equal byte
for byte; what is faster counts. Both sides have 16 requests per user then, a few events apart. Ours are made twice, too:
each with a copy of its own, and as views of shared buffers, of which the target is.
"""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import latewood as lw
from bench import peers, sources
from bench.cxx import CXX
from bench.digests import Digests, collect, digest, require_equal
from bench.histories import PROJECTIONS, TRAITS, Histories, Requests, draw_requests, draw_shared
from bench.report import Bound, Line, Results, absent, at_least, at_most, compare, speed_lines
from bench.session import Session
from bench.timing import Amount, Contender, drain, interleave

BATCH_SIZE = 512
LENGTHS, QUICK_LENGTHS = (256, 4096, 65_536), (256, 4096)
BATCHES = {65_536: 8}  # a Fat Row file holds its own copy of everything
MOST_BATCHES = 40
FLOORS = {256: 1.5, 4096: 4.0}  # times Fat Rows
TARGETS = {256: (2.4, 3.9), 4096: (6.0, 8.5), 65_536: (18.0, 28.0)}  # of 3 and of 11 traits
USER_ORDER_LENGTHS, USER_ORDER_TARGET = (4096,), at_least(10)
LOGGED_LENGTH, LOGGED_TARGET = 4096, at_most(0.01)  # bytes logged per example, of a Fat Row's
PER_USER = 16
OURS, AHEAD, PEER, BARE = "Loader", "Loader, prefetch 2", "Fat Rows", "Fat Rows, bare"
SHARED = "Loader, shared buffers"
LEAST = f"{CXX}, log read"
LANCE, TORCH, OURS_TORCH = "Lance lists", "torch DataLoader, Fat Rows", "Loader, to_torch"
ENCODED, PLAIN = "Fat Rows, user order", "Fat Rows, user order, plain"
Reader = Callable[[tuple[str, ...]], Iterable[Any]]  # traits → batches
_ALL_DAYS = 36_500  # one folder: the requests are spread over years


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Some requests, as an example log; Fat Rows of them are beside it."""

    histories: Histories
    requests: Requests
    store: lw.Store
    folder: Path
    max_len: int

    @property
    def examples(self) -> Path:
        return self.folder / "examples"

    @property
    def examples_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.examples.rglob("*.parquet"))

    def load(self, traits: tuple[str, ...], **options: Any) -> lw.Loader:
        """A loader as a trainer makes it: opening the log is part of an epoch."""
        projection = lw.Projection(max_len=self.max_len, traits=traits)
        options = {"batch_size": BATCH_SIZE, "seed": 1, "prefetch": 0} | options
        return lw.Loader(self.store, str(self.examples), projection, **options)

    def truth(self) -> Digests:
        """Of the raw arrays, in every trait."""
        parts = []
        for start in range(0, len(self.requests), BATCH_SIZE):
            rows = self.requests.slice(start, start + BATCH_SIZE).rows(self.histories, self.max_len)
            parts.append(digest(*sources.cut(self.histories, *rows), tuple(TRAITS)))
        return np.concatenate(parts)


def prepare(session: Session, folder: Path, requests: Requests, max_len: int) -> Data:
    """Write the example log."""
    histories, store = session.histories, session.store
    examples = sources.backfill(store, sources.requests_table(histories, requests))
    folder.mkdir()
    with lw.ExampleLog(folder / "examples", days=_ALL_DAYS) as log:
        log.append(examples)
    return Data(histories, requests, store, folder, max_len)


def verify(data: Data, sides: dict[str, Reader]) -> int:
    """Compare what every side gives of all traits with the raw arrays. Returns: examples compared.

    Raises: RuntimeError: names the first difference.
    """
    truth, count, traits = data.truth(), len(data.requests), tuple(TRAITS)
    for name, batches in sides.items():
        found = collect(batches(traits), count, traits)
        require_equal(found, truth, traits, f"{name} with {data.max_len} events")
    return count


def drains(sides: dict[str, Reader], traits: tuple[str, ...]) -> dict[str, Contender]:
    """Each side as something to time."""

    def contender(read: Reader) -> Contender:
        return lambda: drain(read(traits))

    return {name: contender(read) for name, read in sides.items()}


def run(session: Session, folder: Path) -> Results:
    """Every length, in request order and, unless it must be quick, in user order, from Lance and to torch."""
    settings, lines, compared = session.settings, list[Line](), 0
    lengths = settings.size(QUICK_LENGTHS if settings.quick else LENGTHS, (256, 1_000))
    for max_len in sorted(settings.lengths or lengths):
        count = BATCH_SIZE * _batches(session, max_len)
        session.tell(f"loader: writing {count:,} examples and their Fat Rows of {max_len:,} events")
        data = prepare(session, folder / str(max_len), draw_requests(session.histories, count), max_len)
        more, verified = _request_order(session, data)
        lines, compared = lines + more, compared + verified
        if not settings.quick and (max_len in USER_ORDER_LENGTHS or settings.tiny):
            requests = draw_shared(session.histories, _shared_users(session, count), PER_USER)
            data = prepare(session, folder / f"{max_len}-by-user", requests, max_len)
            more, verified = _user_order(session, data)
            lines, compared = lines + more, compared + verified
        for made in folder.iterdir():  # copies of everything, several times over
            shutil.rmtree(made)
    return Results(lines, compared)


def _batches(session: Session, max_len: int) -> int:
    wanted = session.settings.batches
    return wanted or session.settings.size(BATCHES.get(max_len, MOST_BATCHES), 2)


def _shared_users(session: Session, count: int) -> int:
    return min(count // PER_USER, session.histories.user_count)


def _request_order(session: Session, data: Data) -> tuple[list[Line], int]:
    fat = sources.write_fat_rows(data.folder / "fat_rows.parquet", data.histories, data.requests, data.max_len)
    others: dict[str, Reader] = {
        OURS: lambda traits: data.load(traits),
        AHEAD: lambda traits: data.load(traits, prefetch=2),
        PEER: lambda traits: fat.batches(BATCH_SIZE, traits),
    }
    missing = {} if session.settings.quick else _add_optional(data, fat, others)
    session.tell(f"loader: comparing all examples at {data.max_len:,} events")
    compared = verify(data, others)
    lines = []
    for i, traits in enumerate(PROJECTIONS.values()):
        cell = f"{data.max_len:,} events, {len(traits)} traits"
        session.tell(f"loader: measuring {cell}")
        contenders = drains(others, traits) | {BARE: partial(peers.read_bare, fat.path, traits, BATCH_SIZE)}
        if session.cxx is not None:
            contenders[CXX] = partial(session.cxx.of(data.requests, BATCH_SIZE).drain, data.max_len, traits)
            contenders[LEAST] = reading_first(data.examples, traits, contenders[CXX])
        targets = {OURS: at_least(TARGETS[data.max_len][i])} if data.max_len in TARGETS else {}
        floors = {OURS: at_least(FLOORS[data.max_len])} if data.max_len in FLOORS else {}
        measured = interleave(contenders, session.settings.passes)
        lines += speed_lines(cell, measured, "M events/s", PEER, targets=targets, floors=floors)
        lines += [absent(cell, name, why) for name, why in missing.items()]
    return lines + _storage(data, fat), compared


def reading_first(log: Path, traits: tuple[str, ...], drain_rest: Contender) -> Contender:
    """What a loader needs of an example log, read, and then the rest."""

    def read() -> Amount:
        peers.read_log(log, traits)
        return drain_rest()

    return read


def _add_optional(data: Data, fat: lw.FatRows, others: dict[str, Reader]) -> dict[str, str]:
    """Add the peers that are installed. Returns: those that are not, and why."""
    missing = {}
    if (lance := peers.find("lance")) is not None:
        tables = sources.fat_tables(data.histories, data.requests, data.max_len)
        dataset = peers.LanceLists(lance, data.folder / "lance", tables)
        others[LANCE] = lambda traits: dataset.batches(BATCH_SIZE, traits)
    else:
        missing[LANCE] = peers.missing("pylance")
    if (torch := peers.find("torch")) is not None:
        others[OURS_TORCH] = lambda traits: data.load(traits, transform=peers.as_tensors)
        others[TORCH] = peers.TorchFatRows(torch, fat.path, BATCH_SIZE).batches
    else:
        missing[TORCH] = peers.missing("torch")
    return missing


def _user_order(session: Session, data: Data) -> tuple[list[Line], int]:
    """Both sides sorted by user, 16 requests each."""
    write = sources.write_fat_rows, sources.write_plain_fat_rows
    paths = data.folder / "encoded.parquet", data.folder / "plain.parquet"
    encoded, plain = (
        how(path, data.histories, data.requests, data.max_len) for how, path in zip(write, paths, strict=True)
    )
    sides: dict[str, Reader] = {
        OURS: lambda traits: data.load(traits, order="user"),
        SHARED: lambda traits: data.load(traits, order="user", shared=True),
        ENCODED: lambda traits: encoded.batches(BATCH_SIZE, traits),
        PLAIN: lambda traits: plain.batches(BATCH_SIZE, traits),
    }
    session.tell(f"loader: comparing all examples in user order at {data.max_len:,} events")
    compared = verify(data, sides)
    lines = []
    for traits in PROJECTIONS.values():
        cell = f"{data.max_len:,} events, {len(traits)} traits, {PER_USER} per user"
        session.tell(f"loader: measuring {cell}")
        measured = interleave(drains(sides, traits), session.settings.passes)
        peer = max((ENCODED, PLAIN), key=lambda name: measured.speeds[name].events_per_s)
        lines += speed_lines(cell, measured, "M events/s", peer, targets={SHARED: USER_ORDER_TARGET})
    sizes = {OURS: data.examples_bytes, ENCODED: encoded.size_bytes, PLAIN: plain.size_bytes}
    cell = f"{data.max_len:,} events, logged, {PER_USER} per user"
    per_example = {name: size_bytes / len(data.requests) for name, size_bytes in sizes.items()}
    return lines + compare(cell, per_example, "bytes/example", ENCODED), compared


def _storage(data: Data, fat: lw.FatRows) -> list[Line]:
    """Bytes logged per example, and stored per event. Fat Rows count their copies as events; we store each once."""
    count = len(data.requests)
    start, stop = data.requests.rows(data.histories, data.max_len)
    logged = {OURS: data.examples_bytes / count, PEER: fat.size_bytes / count}
    stored = {
        OURS: data.store.generation.size_bytes / data.histories.event_count,
        PEER: fat.size_bytes / int((stop - start).sum()),
    }
    targets: dict[str, Bound] = {OURS: LOGGED_TARGET} if data.max_len == LOGGED_LENGTH else {}
    return [
        *compare(f"{data.max_len:,} events, logged", logged, "bytes/example", PEER, targets=targets),
        *compare(f"{data.max_len:,} events, stored", stored, "bytes/event", PEER),
    ]
