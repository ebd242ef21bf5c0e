"""Suite `compact`: the first compaction, the daily one, and what an event takes on disk.

Events are appended in the order of their times, all users mixed, each learned of when it happened, and compacted with two
workers. Polars has the same events in memory, sorts them by user and time and writes Parquet with zstd, with two threads
in a process of its own. Then a hundredth as many events come, and are compacted too, twice: the newest of all, which in
this data are of the few users who began last, and then a hundredth of every user's, so that every history is opened at its
end. Beside them: the least that any generation of such files takes, which is to copy them, with two threads, and to sync
the copies. Before each of these memory is touched and given back, so that it is there: the host of a virtual machine would
have to find it else, which takes longer than to fill it. Figures are events of the resulting generation per second of wall
time. Stored bytes are those of all files of the store but the mutable tier's: index, ingest times, checksums, manifests.
"""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import latewood as lw
from bench import peers, sources
from bench.apart import run_apart
from bench.histories import TRAITS
from bench.report import WALL, Bound, Line, Results, absent, at_least, compare
from bench.session import Session
from bench.suites.append import empty_store

WORKERS = 2
NEW_SHARE = 0.01
_COPIED_BYTES = 2 << 20  # at a time
_EVENT_BYTES = 160  # of memory, while it is compacted
AT_ONCE = 100_000  # events per append, which is not timed
FIRST, DAILY, SPREAD, LEAST, POLARS, PARQUET = (
    "Store.compact, all",
    "Store.compact, 1 % new",
    "Store.compact, 1 % new of every user",
    "its files copied, and synced",
    "Polars sort, Parquet zstd",
    "Parquet zstd",
)
FIRST_TARGET, DAILY_TARGET = at_least(1), at_least(8)
BYTES_TARGET = Bound(17.0, at_most=True, of_figure=True)


def run(session: Session, folder: Path) -> Results:
    """Compact in new stores, pass by pass, with Polars in between."""
    settings, polars = session.settings, peers.find("polars")
    events = _arriving(session)
    old = sources.tick_of(events, len(events) - round(len(events) * NEW_SHARE / (1 + NEW_SHARE)))
    next_day = _next_day(session)
    first, daily, spread, least, theirs = (list[float]() for _ in range(5))
    compared, stored = 0, 0.0
    for number in range(settings.few_passes):
        session.tell(f"compact: pass {number + 1} of {settings.few_passes}: appending {old:,} events")
        with empty_store(folder / "store", events) as store:
            _append(store, events.slice(0, old))
            session.tell("compact: the first compaction")
            first.append(_compact(store, old))
            stored = _stored_bytes(folder / "store") / old
            _append(store, events.slice(old))
            session.tell("compact: the daily one")
            daily.append(_compact(store, len(events)))
            least.append(_copy(store, folder / "copies"))
            if number == 0:
                compared = _verify(session, store, events)
            store.append(next_day)
            session.tell("compact: and one of every user")
            spread.append(_compact(store, len(events) + len(next_day)))
        shutil.rmtree(folder / "store")
        if polars is not None:
            session.tell("compact: Polars")
            theirs.append(_run_polars(folder, events.slice(0, old)))
    cell = f"{old:,} events, {WORKERS} workers"
    rates = {FIRST: old / median(first) / 1e6}
    if theirs:
        rates[POLARS] = old / median(theirs) / 1e6
        lines = compare(cell, rates, "M events/s", POLARS, targets={FIRST: FIRST_TARGET})
    else:
        lines = [Line(cell, FIRST, rates[FIRST], "M events/s"), absent(cell, POLARS, peers.missing("polars"))]
    copied = len(events) / median(least) / 1e6
    of_few = {DAILY: len(events) / median(daily) / 1e6, FIRST: rates[FIRST], LEAST: copied}
    lines += compare(f"daily, {len(events) - old:,} new", of_few, "M events/s", FIRST, targets={DAILY: DAILY_TARGET})
    of_all = {SPREAD: (len(events) + len(next_day)) / median(spread) / 1e6, FIRST: rates[FIRST], LEAST: copied}
    lines += compare(f"daily, {len(next_day):,} new", of_all, "M events/s", FIRST, targets={SPREAD: DAILY_TARGET})
    sizes = {"latewood": stored, PARQUET: _parquet_bytes(session, folder, events.slice(0, old)) / old}
    lines += compare("stored", sizes, "bytes/event", PARQUET, targets={"latewood": BYTES_TARGET})
    return Results(lines, compared, WALL)


def _arriving(session: Session) -> pa.Table:
    """All events as they come in: by time, all users mixed."""
    order = np.argsort(session.histories.columns["event_ts"], kind="stable")
    return sources.events_table(session.histories).take(pa.array(order)).combine_chunks()


def _next_day(session: Session) -> pa.Table:
    """A hundredth of every user's events once more, and one at least, at times past all others."""
    histories = session.histories
    counts = np.maximum(np.rint(histories.lengths * NEW_SHARE), 1).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    rows = np.arange(offsets[-1]) + np.repeat(histories.offsets[1:] - offsets[1:], counts)
    events = sources.events_table(histories).take(pa.array(rows))
    times = pa.array(sources.end_of(histories) + np.arange(len(events))).view(sources.US_UTC)
    return events.set_column(events.column_names.index("event_ts"), "event_ts", times)


def _compact(store: lw.Store, events: int) -> float:
    """Seconds. Args: events: how many the generation will hold."""
    _touch_memory(events)
    return _timed(lambda: store.compact(workers=WORKERS))


def _append(store: lw.Store, events: pa.Table) -> None:
    """As a service would have: each event learned of when it happened."""
    for start in range(0, len(events), AT_ONCE):
        part = events.slice(start, AT_ONCE)
        store.append(part.append_column("ingest_ts", part["event_ts"]))


def _verify(session: Session, store: lw.Store, events: pa.Table) -> int:
    """Every user's history after both compactions, with the raw arrays. Returns: users compared.

    Raises: RuntimeError: names the user and the trait.
    """
    histories, generation = session.histories, store.generation
    if generation.event_count != len(events):
        raise RuntimeError(f"the generation holds {generation.event_count:,} events instead of {len(events):,}")
    users = range(min(histories.user_count, session.settings.size(200, 10)))
    for user in users:
        found = store.history(user)
        a, b = histories.offsets[user], histories.offsets[user + 1]
        for name in TRAITS:
            column = found[name].cast(pa.int64()) if name == "event_ts" else found[name]
            if not np.array_equal(column.to_numpy(), histories.columns[name][a:b]):
                raise RuntimeError(f"after compaction, trait {name!r} of user {user} differs from what was appended")
    return len(users)


def _touch_memory(events: int) -> None:
    """Have memory at hand that files and arrays of so many events can be put into."""
    np.ones(events * _EVENT_BYTES, np.uint8)


def _copy(store: lw.Store, target: Path) -> float:
    """Seconds to copy the files of the newest generation, and to sync the copies."""
    sources = [Path(store.path) / shard.key for shard in store.generation.shards if shard.exists]
    target.mkdir()

    def copy(source: Path) -> None:
        with source.open("rb") as file, (target / source.name).open("wb") as written:
            shutil.copyfileobj(file, written, _COPIED_BYTES)
            written.flush()
            os.fsync(written.fileno())

    def copy_all() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(copy, sources))

    try:
        _touch_memory(store.generation.event_count)
        return _timed(copy_all)
    finally:
        shutil.rmtree(target)


def _stored_bytes(store: Path) -> int:
    """All files of a store but the mutable tier's."""
    files = (path for path in store.rglob("*") if path.is_file())
    return sum(path.stat().st_size for path in files if path.relative_to(store).parts[0] != "mutable")


def _run_polars(folder: Path, events: pa.Table) -> float:
    """Seconds, in a process that has as many threads as we have workers."""
    path = folder / "events.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, events.schema) as writer:
        writer.write_table(events)
    try:
        environment = {"POLARS_MAX_THREADS": str(WORKERS)}
        return run_apart(sort_with_polars, str(path), str(folder / "polars.parquet"), environment=environment)
    finally:
        path.unlink()


def sort_with_polars(events: str, target: str) -> float:
    """Sort by user and time and write Parquet. Returns: seconds. Reading the events is not timed."""
    import polars as pl

    with pa.memory_map(events) as source:
        frame = pl.DataFrame(pa.ipc.open_file(source).read_all())
        _touch_memory(frame.height)
        return _timed(lambda: frame.sort("user_id", "event_ts").write_parquet(target, compression="zstd"))


def _parquet_bytes(session: Session, folder: Path, events: pa.Table) -> int:
    """Of the same events in Parquet, by user and time, with the encodings that suit each trait."""
    session.tell("compact: writing Parquet, for its size")
    path = folder / "events.parquet"
    ordered = events.sort_by([("user_id", "ascending"), ("event_ts", "ascending")])
    encodings = {"event_ts": "DELTA_BINARY_PACKED", "item_id": "BYTE_STREAM_SPLIT", "author_id": "BYTE_STREAM_SPLIT",
                 "score": "BYTE_STREAM_SPLIT", "watch_ms": "BYTE_STREAM_SPLIT"}  # fmt: skip
    coded = [name for name in events.column_names if name not in encodings and name != "user_id"]
    pq.write_table(
        ordered, path, compression="zstd", compression_level=3, use_dictionary=["user_id", *coded],
        column_encoding=encodings,
    )  # fmt: skip
    return path.stat().st_size


def _timed(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began
