"""Suite `capture`: one request's history as served, against one LMDB get of the same recent events.

The requests are of users with 65,536 events in the immutable tier and 64 in the mutable one, whom others' recent events
surround. A capture checks the request, finds the recent events, resolves the pointer and its checksum, and makes a
table; the peer opens a transaction and gets one packed value, without a copy. Beside them, what Arrow alone takes to make
that table of bytes that lie ready: no capture can take less. Calls alternate, and each is timed by itself, by the wall
clock: a server waits. Then the same requests in batches.
"""

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import lmdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.histories import MS, Histories
from bench.report import Line, Results, at_least, at_most, compare
from bench.session import Session

RECENT, OTHERS = 64, 2_000  # events of each user asked for; other users with as many
CALLS, BATCH_SIZE = 2_000, 512
SINGLE, PEER, BATCHED = "Store.capture, one request", "LMDB get", "Store.capture, batches of 512"
ARROW = "its table, made of bytes that lie ready"
P99_TARGET, BATCH_TARGET = at_most(5), at_least(10)
CLOCK = "wall time of single calls, alternating; the machine's other work is in the p99"


def run(session: Session, folder: Path) -> Results:
    """Fill both tiers, compare every user's capture with the raw arrays, then call in turn."""
    settings, histories = session.settings, session.histories
    longest = np.argsort(histories.lengths, kind="stable")[-settings.size(60, 4) :]
    users = np.union1d(longest, np.arange(min(settings.size(OTHERS, 20), histories.user_count)))
    session.tell(f"capture: ingesting the histories of {len(users):,} users")
    cut, recent, end = _split(histories, users)
    clock = lw.testing.ManualClock(end)
    stored = sources.events_table(histories).take(pa.array(cut))
    with lw.ingest(
        stored, folder / "store", user="user_id", time="event_ts", ingest_time="event_ts", clock=clock, quiet=True
    ) as store:
        events = sources.events_table(histories).take(pa.array(np.concatenate(recent)))
        clock.set(end + MS)
        store.append(events)
        clock.set(end + 2 * MS)
        compared = _verify(store, histories, longest, end + MS)
        with lmdb.open(str(folder), map_size=1 << 30, subdir=True) as environment:
            _fill(environment, users, recent, histories)
            requests = [_request([user], end + MS) for user in np.resize(longest, settings.size(CALLS, 50)).tolist()]
            session.tell("capture: single requests")
            took = _alternate(store, environment, requests)
        session.tell("capture: batches")
        users_of_batch = np.resize(longest, BATCH_SIZE)
        batch_s = [
            _timed(lambda: store.capture(_request(users_of_batch, end + MS))) for _ in range(settings.passes + 1)
        ]
    return Results(_lines(took, np.array(batch_s[1:]), int(histories.lengths[longest].min())), compared, CLOCK)


def _split(histories: Histories, users: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]], int]:
    """Which rows are stored; which are each user's recent ones; and when the newest of all happened."""
    stored, recent = [], []
    for a, b in zip(histories.offsets[users].tolist(), histories.offsets[users + 1].tolist(), strict=True):
        first = max(a, b - RECENT)
        stored.append(np.arange(a, first))
        recent.append(np.arange(first, b))
    rows = np.concatenate(stored)
    return rows, recent, int(histories.columns["event_ts"].max()) + MS


def _verify(store: lw.Store, histories: Histories, users: NDArray[np.int64], now: int) -> int:
    """Every event of every user, as captured. Raises: RuntimeError: a difference."""
    for user in users.tolist():
        captured = store.capture(_request([user], now)).history(lw.Projection())
        a, b = histories.offsets[user], histories.offsets[user + 1]
        for name, values in captured.values.items():
            if not np.array_equal(values, histories.columns[name][a:b]):
                raise RuntimeError(f"the capture of user {user} differs from the raw events in {name!r}")
    return len(users)


def _request(users: list[int] | NDArray[np.int64], now: int) -> pa.Table:
    return pa.table({"user_id": pa.array(users, pa.int64()), "request_ts": pa.array([now] * len(users), pa.int64())})


def _fill(
    environment: lmdb.Environment, users: NDArray[np.int64], recent: list[NDArray[np.int64]], histories: Histories
) -> None:
    """One packed value per user: all traits of the recent events, end to end."""
    with environment.begin(write=True) as transaction:
        for user, rows in zip(users.tolist(), recent, strict=True):
            packed = b"".join(column[rows].tobytes() for column in histories.columns.values())
            transaction.put(user.to_bytes(8, "big"), packed)


def _alternate(
    store: lw.Store, environment: lmdb.Environment, requests: list[pa.Table]
) -> dict[str, NDArray[np.float64]]:
    """Seconds of every call of each. Shapes: (calls,)."""
    keys = [request["user_id"][0].as_py().to_bytes(8, "big") for request in requests]

    def get(key: bytes) -> None:
        with environment.begin(buffers=True) as transaction:
            np.frombuffer(transaction.get(key, b""), np.uint8)

    ready = _to_message(store.capture(requests[0]).columns)
    calls: dict[str, Callable[[pa.Table, bytes], object]] = {
        SINGLE: lambda request, _: store.capture(request),
        PEER: lambda _, key: get(key),
        ARROW: lambda request, _: _from_message(request, *ready),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for request, key in (*zip(requests[:50], keys, strict=False), *zip(requests, keys, strict=True)):
        for name, call in calls.items():
            seconds[name].append(_timed(lambda: call(request, key)))  # noqa: B023 - called before the next one
    return {name: np.array(took[-len(requests) :]) for name, took in seconds.items()}


def _to_message(columns: pa.Table) -> tuple[pa.Buffer, pa.Schema]:
    """What a capture adds to a request, as bytes."""
    [batch] = columns.select(["uih", "recent", "cutoff"]).combine_chunks().to_batches()
    return batch.serialize(), batch.schema


def _from_message(request: pa.Table, message: pa.Buffer, schema: pa.Schema) -> pa.Table:
    batch = pa.ipc.read_record_batch(message, schema)
    for field, column in zip(schema, batch.columns, strict=True):
        request = request.append_column(field, column)
    return request


def _timed(call: Callable[[], object]) -> float:
    began = perf_counter()
    call()
    return perf_counter() - began


def _lines(took: dict[str, NDArray[np.float64]], batches: NDArray[np.float64], length: int) -> list[Line]:
    cell = f"history of {length:,} events and {RECENT} recent"
    lines = []
    for name, share, targets in (("p99", 99, {SINGLE: P99_TARGET}), ("median", 50, {})):
        figures = {name: 1e6 * float(np.percentile(calls, share)) for name, calls in took.items()}
        lines += compare(f"{cell}, {name}", figures, "µs", PEER, targets=targets)
    rates = {BATCHED: BATCH_SIZE / float(np.median(batches)), SINGLE: 1 / float(np.median(took[SINGLE]))}
    return lines + compare(f"{cell}, rate", rates, "requests/s", SINGLE, targets={BATCHED: BATCH_TARGET})
