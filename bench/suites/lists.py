"""Suite `lists`: traits that are lists, against slices of plain arrays and list columns in Parquet.

Every event has two: `tags`, of 0 to 15 ids (3 on average), and `levels`, always 4 small numbers. One trait is asked for
at a time. Ours is the Materializer with examples in memory, checks on. *Slices* cut the raw arrays with numpy: of `tags`
the items between two ends and the number of items of each event, of which offsets are summed; of `levels` rows of a
matrix. Parquet holds Fat Rows of the same examples, and pyarrow alone reads the one column of lists of lists, in the order
in which they lie: no features, nothing checked. All give values and offsets as numpy. Speeds are of events.

Stored are the same events with both traits, their times and whose they are: ours with all that belongs to a generation,
Parquet by user and time with zstd, and the plain arrays.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.digests import Digests, digest, require_equal
from bench.histories import ITEMS, Histories, Requests, draw_distinct
from bench.report import Line, Results, compare, speed_lines
from bench.session import Session
from bench.timing import Amount, Contender, interleave

USERS, LENGTHS, BATCHES = 2_000, (256, 4096), {256: 16, 4096: 8}
BATCH_SIZE = 512
TAGS, LEVELS, LEVEL_COUNT, MOST_TAGS = "tags", "levels", 4, 15
OURS, SLICES, PARQUET = "Materializer", "slices", "Fat Rows, bare"


class ListColumns(NamedTuple):
    """Both traits of all events. Shapes: ends (events + 1,): event j's tags begin at ends[j]; levels (events, 4)."""

    ends: NDArray[np.int64]
    tags: NDArray[np.int64]
    levels: NDArray[np.int16]


class Part(NamedTuple):
    """One trait of some histories. Shapes: offsets (n + 1,); ends (events + 1,), None of `levels`; items (items,)."""

    offsets: NDArray[np.int64]
    ends: NDArray[np.int64] | None
    items: NDArray[Any]


@dataclass(frozen=True, slots=True)
class World:
    """The events, whose each is, and a store of them."""

    histories: Histories
    lists: ListColumns
    store: lw.Store

    def cut(self, requests: Requests, max_len: int, trait: str, buffer: NDArray[Any] | None = None) -> Part:
        """With numpy, from the raw arrays. Args: buffer: room for the items, which is used again."""
        start, stop = requests.rows(self.histories, max_len)
        runs = list(zip(start.tolist(), stop.tolist(), strict=True))
        offsets = _sums(stop - start)
        if trait == LEVELS:
            return Part(offsets, None, _join([self.lists.levels[a:b] for a, b in runs], buffer))
        ends, tags = self.lists.ends, self.lists.tags
        items = _join([tags[ends[a] : ends[b]] for a, b in runs], buffer)
        return Part(offsets, _sums(np.concatenate([np.diff(ends[a : b + 1]) for a, b in runs])), items)


Reader = Callable[[], Iterator[Part]]


def run(session: Session, folder: Path) -> Results:
    """Every length and trait; then what is stored."""
    settings, lines, compared = session.settings, list[Line](), 0
    histories = settings.draw(settings.size(USERS, 32))
    lists = draw_lists(histories)
    session.tell(f"lists: ingesting {histories.event_count:,} events with {len(lists.tags):,} tags")
    events = _events_table(histories, lists)
    with lw.ingest(
        events, folder / "store", user="user_id", time="event_ts", ingest_time="event_ts",
        clock=lw.testing.ManualClock(sources.end_of(histories)), quiet=True,
    ) as store:  # fmt: skip
        world = World(histories, lists, store)
        for max_len in sorted(settings.lengths or settings.size(LENGTHS, (256, 1_000))):
            more, verified = _speeds(session, folder, world, max_len)
            lines, compared = lines + more, compared + verified
        lines += _stored(session, folder, world, events)
    return Results(lines, compared)


def draw_lists(histories: Histories) -> ListColumns:
    """Tags by a falling law over a large catalogue; levels within a range that fits 10 bits."""
    rng = np.random.default_rng(np.random.SeedSequence(histories.seed, spawn_key=(3,)))
    count = histories.event_count
    ends = _sums(np.minimum(rng.geometric(0.25, count) - 1, MOST_TAGS))
    tags = (ITEMS * rng.random(int(ends[-1])) ** 3).astype(np.int64)
    return ListColumns(ends, tags, rng.integers(0, 1_000, (count, LEVEL_COUNT), np.int16))


def _speeds(session: Session, folder: Path, world: World, max_len: int) -> tuple[list[Line], int]:
    settings = session.settings
    batch_size = min(BATCH_SIZE, world.histories.user_count)
    count = settings.batches or settings.size(BATCHES.get(max_len, 4), 2)
    requests = draw_distinct(world.histories, batch_size, count)
    batches = [requests.slice(i, i + batch_size) for i in range(0, len(requests), batch_size)]
    examples = sources.backfill(world.store, sources.requests_table(world.histories, requests))
    path = folder / f"fat-{max_len}.parquet"
    session.tell(f"lists: writing Fat Rows of {max_len:,} events")
    lw.write_fat_rows(path, _fat_tables(world, batches, max_len), row_group_size=batch_size)
    lines, compared = list[Line](), 0
    for trait in (TAGS, LEVELS):
        sides: dict[str, Reader] = {
            OURS: partial(_materialize, world.store, examples, batch_size, max_len, trait),
            SLICES: partial(_slices, world, batches, max_len, trait),
            PARQUET: partial(_read_bare, path, batch_size, trait),
        }
        session.tell(f"lists: comparing and measuring {trait} at {max_len:,} events")
        amount, truth = _amount(sides[SLICES]()), _truth(world, requests, max_len, trait)
        for name, read in sides.items():
            require_equal(_digests(read()), truth, ("items", "lengths"), f"{name}, {trait} with {max_len} events")
        compared += len(sides) * len(requests)
        measured = interleave({name: _drain(read, amount) for name, read in sides.items()}, settings.passes)
        lines += speed_lines(f"{max_len:,} events, {trait}", measured, "M events/s", PARQUET)
    return lines, compared


def _slices(world: World, batches: Iterable[Requests], max_len: int, trait: str) -> Iterator[Part]:
    """Each batch in the memory of the one before, where that is enough: fresh pages would be the peer's loss."""
    buffer: NDArray[Any] | None = None
    for batch in batches:
        part = world.cut(batch, max_len, trait, buffer)
        if buffer is None or len(part.items) > len(buffer):
            buffer = part.items
        yield part


def _join(runs: list[NDArray[Any]], buffer: NDArray[Any] | None) -> NDArray[Any]:
    count = sum(map(len, runs))
    out = buffer[:count] if buffer is not None and len(buffer) >= count else None
    return np.concatenate(runs, out=out)


def _materialize(store: lw.Store, examples: pa.Table, batch_size: int, max_len: int, trait: str) -> Iterator[Part]:
    materialize = lw.Materializer(store, lw.Projection(max_len=max_len, traits=[trait]))
    for start in range(0, len(examples), batch_size):
        batch = materialize(examples.slice(start, batch_size))
        yield Part(batch.offsets, batch.lists.get(trait), batch.values[trait])
        del batch


def _read_bare(path: Path, batch_size: int, trait: str) -> Iterator[Part]:
    """One column of lists of lists, with pyarrow alone."""
    file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    leaves = [leaf for leaf in _leaves(file) if leaf.startswith(f"history.{trait}.")]
    for rows in file.iter_batches(batch_size, columns=leaves, use_threads=False):
        (histories,) = rows.column("history").flatten()
        offsets, each = _from_zero(histories.offsets), histories.flatten()
        ends = None if pa.types.is_fixed_size_list(each.type) else _from_zero(each.offsets)
        yield Part(offsets, ends, each.flatten().to_numpy(zero_copy_only=False))


def _leaves(file: pq.ParquetFile) -> list[str]:
    return [file.schema.column(i).path for i in range(len(file.schema))]


def _from_zero(offsets: pa.Array) -> NDArray[np.int64]:
    plain: NDArray[np.int64] = offsets.to_numpy().astype(np.int64)
    plain -= plain[0]
    return plain


def _truth(world: World, requests: Requests, max_len: int, trait: str) -> Digests:
    """Event by event, unlike what is measured: of every example its rows one after another."""
    start, stop = requests.rows(world.histories, max_len)
    rows = np.concatenate([np.arange(a, b) for a, b in zip(start.tolist(), stop.tolist(), strict=True)])
    if trait == LEVELS:
        return _digests([Part(_sums(stop - start), None, world.lists.levels[rows])])
    lengths = world.lists.ends[rows + 1] - world.lists.ends[rows]
    ends = _sums(lengths)
    at = np.repeat(world.lists.ends[rows] - ends[:-1], lengths) + np.arange(ends[-1])
    return _digests([Part(_sums(stop - start), ends, world.lists.tags[at])])


def _digests(parts: Iterable[Part]) -> Digests:
    """Of every example's items, and of how they are spread over its events. Shapes: (examples, 2)."""
    found = []
    for offsets, ends, items in parts:
        flat = items.reshape(-1)
        ends = LEVEL_COUNT * np.arange(offsets[-1] + 1) if ends is None else ends
        bounds, lengths = ends[offsets], np.diff(ends).astype(np.int64)
        of_items = digest(bounds, {"items": flat}, ["items"])
        found.append(np.column_stack([of_items, digest(offsets, {"lengths": lengths}, ["lengths"])]))
    return np.concatenate(found)


def _amount(parts: Iterable[Part]) -> Amount:
    batches = examples = events = 0
    for part in parts:
        batches, examples = batches + 1, examples + len(part.offsets) - 1
        events += int(part.offsets[-1])
    return Amount(batches, examples, events)


def _drain(read: Reader, amount: Amount) -> Contender:
    def drained() -> Amount:
        for part in read():
            del part
        return amount

    return drained


def _stored(session: Session, folder: Path, world: World, events: pa.Table) -> list[Line]:
    """Bytes per event."""
    session.tell("lists: writing Parquet, for its size")
    path = folder / "events.parquet"
    pq.write_table(
        events, path, compression="zstd", compression_level=3, use_dictionary=["user_id"],
        column_encoding={"event_ts": "DELTA_BINARY_PACKED", **_LIST_ENCODINGS},
    )  # fmt: skip
    arrays = [world.histories.columns["event_ts"], *world.lists]
    sizes = {
        "latewood": world.store.generation.size_bytes,
        "Parquet zstd": path.stat().st_size,
        "plain arrays": sum(array.nbytes for array in arrays) + world.histories.offsets.nbytes,
    }
    per_event = {name: size / world.histories.event_count for name, size in sizes.items()}
    return compare("stored, both traits and the times", per_event, "bytes/event", "Parquet zstd")


_LIST_ENCODINGS = {f"{TAGS}.list.element": "BYTE_STREAM_SPLIT", f"{LEVELS}.list.element": "BYTE_STREAM_SPLIT"}


def _events_table(histories: Histories, lists: ListColumns) -> pa.Table:
    """All events, user after user."""
    return sources.events_table(histories).select(["user_id", "event_ts"]).append_column(
        TAGS, pa.ListArray.from_arrays(pa.array(lists.ends.astype(np.int32)), pa.array(lists.tags))
    ).append_column(LEVELS, pa.FixedSizeListArray.from_arrays(pa.array(lists.levels.reshape(-1)), LEVEL_COUNT))  # fmt: skip


def _fat_tables(world: World, batches: Iterable[Requests], max_len: int) -> Iterator[pa.Table]:
    """Fat Rows with both traits, a batch at a time."""
    for requests in batches:
        tags, levels = (world.cut(requests, max_len, trait) for trait in (TAGS, LEVELS))
        assert tags.ends is not None
        offsets = pa.array(tags.offsets.astype(np.int32))
        each = pa.ListArray.from_arrays(pa.array(tags.ends.astype(np.int32)), pa.array(tags.items))
        fixed = pa.FixedSizeListArray.from_arrays(pa.array(levels.items.reshape(-1)), LEVEL_COUNT)
        history = pa.StructArray.from_arrays(
            [pa.ListArray.from_arrays(offsets, each), pa.ListArray.from_arrays(offsets, fixed)], names=[TAGS, LEVELS]
        )
        yield sources.requests_table(world.histories, requests).append_column("history", history)


def _sums(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Running sums from 0 on. Shapes: (n,) → (n + 1,)."""
    sums = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=sums[1:])
    return sums
