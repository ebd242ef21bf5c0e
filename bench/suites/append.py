"""Suite `append`: durable batches of 10,000 events, against one opaque LMDB value per batch.

Both are on disk when the call returns, in the same folder. The peer is the least that durability costs: the bytes are
ready, nothing is checked, and nothing can be looked up but the batch. Ours checks, stamps and indexes every event. Timed
by the wall clock, since it is the disk that is waited for; a plain file, written and synced, stands beside.
"""

import os
import shutil
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa

import latewood as lw
from bench import sources
from bench.histories import MS, TRAITS
from bench.report import WALL, Results, at_least, speed_lines
from bench.session import Session
from bench.timing import Amount, Measurement, speed_of, wall_clock

BATCH_EVENTS, BATCHES = 10_000, 50
OURS, PEER, FILE = "Store.append", "LMDB, one value per batch", "a file, synced"
TARGET = at_least(0.3)


def run(session: Session, folder: Path) -> Results:
    """Append the same batches in every pass, to a new place each; the three take turns batch by batch."""
    settings = session.settings
    size = settings.size(BATCH_EVENTS, 500)
    tables = arriving(session, size, settings.batches or settings.size(BATCHES, 3))
    blobs = [_to_bytes(table) for table in tables]
    compared = _verify(folder / "verify", tables)
    session.tell(f"append: {len(tables)} batches of {size:,} events")
    passes = [_pass(folder / str(number), tables, blobs) for number in range(settings.passes + 1)][1:]
    amount = Amount(len(tables), 0, sum(map(len, tables)))
    speeds = {name: speed_of(amount, [seconds[name] for seconds in passes]) for name in passes[0]}
    cell = f"batches of {size:,} events, {len(TRAITS)} traits"
    lines = speed_lines(cell, Measurement(speeds, None), "M events/s", PEER, targets={OURS: TARGET})
    return Results(lines, compared, WALL)


def arriving(session: Session, size: int, count: int) -> list[pa.Table]:
    """The first events of all users in the order of their times, as a service sees them, in batches."""
    histories = session.histories
    first = np.argsort(histories.columns["event_ts"], kind="stable")[: size * count]
    table = sources.events_table(histories).take(pa.array(first)).combine_chunks()
    return [table.slice(start, size) for start in range(0, len(table), size)]


def empty_store(path: Path, events: pa.Table) -> lw.Store:
    """A new store for such events, whose clock stands just after them."""
    traits = pa.schema([field for field in events.schema if field.name not in ("user_id", "event_ts")])
    clock = lw.testing.ManualClock(int(events["event_ts"].cast(pa.int64()).to_numpy().max()) + 10 * MS)
    return lw.Store.create(path, lw.Schema(user_id=pa.int64(), traits=traits), clock=clock)


def _verify(path: Path, tables: list[pa.Table]) -> int:
    """Compare what one user's appended history holds with what was given. Returns: events compared.

    Raises: RuntimeError: it is not the same.
    """
    with empty_store(path, pa.concat_tables(tables)) as store:
        for table in tables:
            store.append(table)
        given = pa.concat_tables(tables)
        user = given["user_id"][0].as_py()
        mine = given.filter(pa.array(given["user_id"].to_numpy() == user)).drop_columns(["user_id"])
        found = store.history(user)
    if not found.select(mine.column_names).equals(mine.sort_by("event_ts")):
        raise RuntimeError(f"{OURS}: the history of user {user} is not what was appended")
    return len(found)


def _pass(folder: Path, tables: list[pa.Table], blobs: list[bytes]) -> dict[str, float]:
    """Append every batch to each side. Returns: seconds by side."""
    folder.mkdir()
    seconds = dict.fromkeys((OURS, PEER, FILE), 0.0)
    map_size = 2 * sum(map(len, blobs)) + (64 << 20)
    with (
        empty_store(folder / "store", pa.concat_tables(tables)) as store,
        lmdb.open(str(folder), map_size=map_size) as environment,
        (folder / "file").open("wb", buffering=0) as file,
    ):
        for number, (table, blob) in enumerate(zip(tables, blobs, strict=True)):
            began = wall_clock()
            store.append(table)
            appended = wall_clock()
            with environment.begin(write=True) as transaction:
                transaction.put(number.to_bytes(8, "big"), blob)
            put = wall_clock()
            file.write(blob)
            os.fdatasync(file.fileno())
            for name, took in ((OURS, appended - began), (PEER, put - appended), (FILE, wall_clock() - put)):
                seconds[name] += took
    shutil.rmtree(folder)
    return seconds


def _to_bytes(table: pa.Table) -> bytes:
    """As Arrow's own format, ready to be read back."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content
