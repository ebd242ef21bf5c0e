"""Suite `scale`: what grows, and how, with users, history length, requests per user and generations.

One thing grows by factors of four while the rest stands still. Every size is a store of its own, and its cost the
processor time of the Materializer per event (per example, where requests share users), for the newest 1,024 events and 11
traits. The sizes of one axis take turns, pass by pass, after their outputs were compared with the raw arrays. Cost should
be flat in all of them; at the largest it may be what a search takes more there: the ratio of the logarithms.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

import latewood as lw
from bench import sources
from bench.digests import digest, require_equal
from bench.histories import TRAITS, Histories, Requests, draw_distinct, draw_shared
from bench.report import Bound, Line, Results, at_most, speed_lines
from bench.session import Session
from bench.suites.append import empty_store
from bench.timing import Amount, drain, interleave

MAX_LEN, BATCH_SIZE, BATCHES = 1_024, 512, 8
LONGEST = 4_096  # where length is not what grows
USERS = (1_000, 4_000, 16_000)
LENGTHS = (4_096, 16_384, 65_536)
PER_USER = (1, 4, 16, 64)
GENERATIONS = (1, 4, 16)


@dataclass(frozen=True, slots=True, eq=False)
class Size:
    """One size of what grows: a store, and requests to it."""

    size: int
    histories: Histories
    store: lw.Store
    requests: Requests
    batch_size: int


class Reader:
    """The Materializer on one size; the examples are in memory."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._examples = sources.backfill(size.store, sources.requests_table(size.histories, size.requests))

    def batches(self) -> Iterator[lw.Batch]:
        materialize = lw.Materializer(self._size.store, lw.Projection(max_len=MAX_LEN, traits=list(TRAITS)))
        for start in range(0, len(self._examples), self._size.batch_size):
            yield materialize(self._examples.slice(start, self._size.batch_size))

    def drain(self) -> Amount:
        return drain(self.batches())

    def verify(self) -> int:
        """Compare with the raw arrays. Returns: examples compared. Raises: RuntimeError: the first difference."""
        size, traits = self._size, tuple(TRAITS)
        starts = range(0, len(size.requests), size.batch_size)
        for start, batch in zip(starts, self.batches(), strict=True):
            rows = size.requests.slice(start, start + size.batch_size).rows(size.histories, MAX_LEN)
            truth = digest(*sources.cut(size.histories, *rows), traits)
            require_equal(digest(batch.offsets, batch.values, traits), truth, traits, f"size {size.size:,}")
        return len(size.requests)


def run(session: Session, folder: Path) -> Results:
    """Axis after axis; the stores of one are open together."""
    lines, compared = list[Line](), 0
    axes = {
        "users": _users(session, folder),
        "stored events per user": _lengths(session, folder),
        "generations": _generations(session, folder),
        "requests per user in a batch": _requests(session, folder),
    }
    for what, sizes in axes.items():
        session.tell(f"scale: {what}")
        with ExitStack() as stores:
            readers = dict[int, Reader]()
            for size in sizes:
                stores.enter_context(size.store)
                readers[size.size] = Reader(size)
                compared += readers[size.size].verify()
            lines += _axis(session, what, readers)
    return Results(lines, compared)


def _axis(session: Session, what: str, readers: dict[int, Reader]) -> list[Line]:
    """Time all sizes, each beside the smallest."""
    contenders = {f"{size:,}": reader.drain for size, reader in readers.items()}
    measured = interleave(contenders, session.settings.passes)
    sizes, names = list(readers), list(contenders)
    shared = what.startswith("requests")
    unit, bound = ("µs/example", at_most(1)) if shared else ("ns/event", _logarithmic(sizes))
    return speed_lines(what, measured, unit, names[0], targets={names[-1]: bound})


def _logarithmic(sizes: list[int]) -> Bound:
    """How much deeper a search is among the most than among the fewest."""
    return at_most(round(math.log2(2 * sizes[-1]) / math.log2(2 * sizes[0]), 2))


def _users(session: Session, folder: Path) -> Iterable[Size]:
    for users in session.settings.size(USERS, (16, 64)):
        histories = session.settings.draw(users, longest=LONGEST)
        yield _distinct(session, users, histories, sources.write_store(histories, folder / f"users-{users}"))


def _lengths(session: Session, folder: Path) -> Iterable[Size]:
    """Everybody's history is as long; what is read of it is not."""
    users = session.settings.size(BATCH_SIZE, 16)
    for length in session.settings.size(LENGTHS, (2_048, 4_096)):
        histories = session.settings.draw(users, shortest=length, longest=length)
        yield _distinct(session, length, histories, sources.write_store(histories, folder / f"length-{length}"))


def _generations(session: Session, folder: Path) -> Iterable[Size]:
    """The same events, compacted in so many steps; the newest generation is read."""
    histories = session.settings.draw(session.settings.size(2_000, 32), longest=LONGEST)
    order = np.argsort(histories.columns["event_ts"], kind="stable")
    events = sources.events_table(histories).take(pa.array(order)).combine_chunks()
    for count in session.settings.size(GENERATIONS, (1, 3)):
        store = empty_store(folder / f"generations-{count}", events)
        inner = [sources.tick_of(events, len(events) * i // count) for i in range(1, count)]
        for start, stop in pairwise([0, *inner, len(events)]):
            part = events.slice(start, stop - start)
            store.append(part.append_column("ingest_ts", part["event_ts"]))
            store.compact()
        yield _distinct(session, count, histories, store)


def _requests(session: Session, folder: Path) -> Iterable[Size]:
    """The same number of examples, of ever fewer users."""
    histories = session.settings.draw(session.settings.size(2 * BATCH_SIZE * BATCHES, 64), longest=LONGEST)
    sources.write_store(histories, folder / "requests").close()
    batch_size, batches = session.settings.size((BATCH_SIZE, BATCHES), (16, 2))
    for per_user in session.settings.size(PER_USER, (1, 4)):
        requests = draw_shared(histories, batch_size * batches // per_user, per_user)
        clock = lw.testing.ManualClock(sources.end_of(histories))
        yield Size(per_user, histories, lw.Store.open(folder / "requests", clock=clock), requests, batch_size)


def _distinct(session: Session, size: int, histories: Histories, store: lw.Store) -> Size:
    """Nobody asks twice in a batch."""
    batch_size = min(BATCH_SIZE, histories.user_count)
    requests = draw_distinct(histories, batch_size, session.settings.size(BATCHES, 2))
    return Size(size, histories, store, requests, batch_size)
