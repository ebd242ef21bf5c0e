"""Suite `build`: from requests to the first batches of training: backfill and one epoch, against Fat Rows built and read.

Everybody has the events already: we in a store, DuckDB and Polars in a table in memory, sorted by user and time. We make a
pointer per request, log the examples and load them; the peers find with an asof join how many events each request sees,
slice that many from the user's lists, write Parquet with zstd, and read it. That is much faster than joining all events
and sorting them again per request. One thread everywhere, wall time: Polars in a process of its own, which alone can be
told so. Reading is that of suite `loader`.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pyarrow.feather as feather

import latewood as lw
from bench import peers, sources
from bench.apart import run_apart
from bench.digests import collect, require_equal
from bench.histories import PROJECTIONS, TRAITS, Histories, Requests, draw_requests
from bench.report import WALL, Line, Results, absent, at_least, compare
from bench.session import Session
from bench.timing import drain

REQUESTS, BATCH_SIZE = 100_000, 512
AT_ONCE = 500  # rows that Polars joins at a time: its fastest; whole lists are copied, and 5,000 leave the caches
MAX_LEN = 4096
OURS, DUCKDB, POLARS = "backfill, log, Loader", "DuckDB, Parquet, read", "Polars, Parquet, read"
TARGET = at_least(20)
_ALL_DAYS = 36_500


@dataclass(frozen=True, slots=True)
class Built:
    """What one side has made: how to read it, and how long that took it. Units: seconds."""

    read: Callable[[], Iterable[Any]]
    seconds: float


def run(session: Session, folder: Path) -> Results:
    """Compare what each side's epoch holds, then time all of it, few passes: they are long."""
    settings, lines, compared = session.settings, list[Line](), 0
    requests = draw_requests(session.histories, settings.size(REQUESTS, 600))
    max_len = max(settings.lengths or [settings.size(MAX_LEN, 300)])
    builder = _Builder(session, folder, requests, max_len)
    sides, missing = builder.sides()
    for traits in PROJECTIONS.values():
        cell = f"{len(requests):,} requests, {max_len:,} events, {len(traits)} traits"
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(settings.few_passes):
            for name, build in sides.items():
                session.tell(f"build: {cell}: pass {number + 1} of {settings.few_passes}, {name}")
                built = build(traits)
                began = perf_counter()
                drain(built.read())
                seconds[name].append(built.seconds + perf_counter() - began)
                if number == 0:
                    compared += _verify(session.histories, requests, max_len, traits, name, built.read())
        rates = {name: len(requests) / median(took) for name, took in seconds.items()}
        peer = max((name for name in rates if name != OURS), key=rates.__getitem__, default=OURS)
        lines += compare(cell, rates, "examples/s", peer, targets={OURS: TARGET} if peer != OURS else {})
        lines += [absent(cell, name, why) for name, why in missing.items()]
    return Results(lines, compared, WALL)


class _Builder:
    """The same requests, made into batches by each side from what it starts with."""

    def __init__(self, session: Session, folder: Path, requests: Requests, max_len: int) -> None:
        self._store, self._folder, self._max_len, self._runs = session.store, folder, max_len, 0
        self._requests = sources.requests_table(session.histories, requests)
        self._events = sources.events_table(session.histories)
        feather.write_feather(self._requests, str(folder / "requests.arrow"), compression="uncompressed")
        feather.write_feather(self._events, str(folder / "events.arrow"), compression="uncompressed")

    def sides(self) -> tuple[dict[str, Callable[[tuple[str, ...]], Built]], dict[str, str]]:
        """How to build, by side; and which peers are not installed."""
        sides: dict[str, Callable[[tuple[str, ...]], Built]] = {OURS: self._ours}
        missing = {}
        for name, module, build in ((DUCKDB, "duckdb", self._duckdb), (POLARS, "polars", self._polars)):
            if peers.find(module) is None:
                missing[name] = peers.missing(module)
            else:
                sides[name] = build
        return sides, missing

    def _place(self) -> Path:
        """A new one; what was built before is not needed any more."""
        old, self._runs = self._folder / str(self._runs), self._runs + 1
        shutil.rmtree(old, ignore_errors=True)
        return self._folder / str(self._runs)

    def _ours(self, traits: tuple[str, ...]) -> Built:
        place, projection = self._place(), lw.Projection(max_len=self._max_len, traits=traits)
        began = perf_counter()
        with lw.ExampleLog(place, days=_ALL_DAYS) as log:
            log.append(sources.backfill(self._store, self._requests))
        seconds = perf_counter() - began
        return Built(
            lambda: lw.Loader(self._store, str(place), projection, batch_size=BATCH_SIZE, seed=1, prefetch=0), seconds
        )

    def _duckdb(self, traits: tuple[str, ...]) -> Built:
        import duckdb

        place = self._place()
        place.mkdir()
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.execute("SET preserve_insertion_order = false")
            connection.execute("SET TimeZone = 'UTC'")
            connection.register("events", self._events)
            connection.register("requests", self._requests)
            began = perf_counter()
            connection.execute(_duckdb_query(traits, self._max_len, place / "fat_rows.parquet"))
            seconds = perf_counter() - began
        return Built(lambda: _read(place, traits), seconds)

    def _polars(self, traits: tuple[str, ...]) -> Built:
        place = self._place()
        seconds = run_apart(
            build_with_polars, str(self._folder), str(place), traits, self._max_len,
            environment={"POLARS_MAX_THREADS": "1"},
        )  # fmt: skip
        return Built(lambda: _read(place, traits), seconds)


def _read(folder: Path, traits: tuple[str, ...]) -> Iterator[lw.Batch]:
    for part in sorted(folder.glob("*.parquet")):
        yield from lw.FatRows(part).batches(BATCH_SIZE, traits)


def _duckdb_query(traits: tuple[str, ...], max_len: int, target: Path) -> str:
    """One statement: events seen per request by an asof join, then slices of the users' lists."""
    lists = ", ".join(f'list("{trait}" ORDER BY event_ts) AS "{trait}"' for trait in traits)
    slices = ", ".join(f"'{trait}': u.\"{trait}\"[greatest(seen - {max_len} + 1, 1):seen]" for trait in traits)
    return f"""
        COPY (
            WITH numbered AS (
                SELECT user_id, event_ts, row_number() OVER (PARTITION BY user_id ORDER BY event_ts) AS seen FROM events
            ), counted AS (
                SELECT r.*, n.seen FROM requests r ASOF JOIN numbered n
                ON r.user_id = n.user_id AND r.request_ts > n.event_ts
            ), users AS (SELECT user_id, {lists} FROM events GROUP BY user_id)
            SELECT c.user_id, c.request_ts, c.example, c.label, {{{slices}}} AS history
            FROM counted c JOIN users u ON c.user_id = u.user_id
        ) TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 2048)"""


def build_with_polars(folder: str, target: str, traits: tuple[str, ...], max_len: int) -> float:
    """The same in Polars, some requests at a time, each time to a file of its own.

    Returns: seconds, without reading events and requests.
    """
    import polars as pl

    Path(target).mkdir()
    events = pl.read_ipc(f"{folder}/events.arrow")
    requests = pl.read_ipc(f"{folder}/requests.arrow")
    began = perf_counter()
    numbered = events.select("user_id", "event_ts", seen=pl.int_range(1, pl.len() + 1).over("user_id"))
    users = events.group_by("user_id", maintain_order=True).agg(pl.col(traits))
    counted = requests.sort("request_ts").join_asof(
        numbered.sort("event_ts"),
        left_on="request_ts",
        right_on="event_ts",
        by="user_id",
        allow_exact_matches=False,
        check_sortedness=False,
    )
    counted = counted.drop("event_ts", strict=False).sort("user_id")
    first = (pl.col("seen") - max_len).clip(lower_bound=0)
    slices = [pl.col(trait).list.slice(first, pl.col("seen") - first) for trait in traits]
    for number, start in enumerate(range(0, len(counted), AT_ONCE)):
        rows = counted.slice(start, AT_ONCE).join(users, on="user_id", how="left")
        rows = rows.select("user_id", "request_ts", "example", "label", history=pl.struct(slices))
        rows.write_parquet(f"{target}/{number:05}.parquet", compression="zstd")
    return perf_counter() - began


def _verify(
    histories: Histories, requests: Requests, max_len: int, traits: tuple[str, ...], name: str, batches: Iterable[Any]
) -> int:
    """Compare one side's epoch with the raw arrays. Raises: RuntimeError: names the first difference."""
    truth = collect(_truth(histories, requests, max_len), len(requests), traits)
    require_equal(collect(batches, len(requests), traits), truth, traits, name)
    return len(requests)


def _truth(histories: Histories, requests: Requests, max_len: int) -> Iterable[peers.Rows]:
    features = sources.requests_table(histories, requests)
    for start in range(0, len(requests), BATCH_SIZE):
        rows = requests.slice(start, start + BATCH_SIZE).rows(histories, max_len)
        yield peers.Rows(*sources.cut(histories, *rows, tuple(TRAITS)), features.slice(start, BATCH_SIZE))
