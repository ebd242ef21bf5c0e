"""The training side of the demo: three models share one example log; Fat Rows of the same examples stand beside them.

Every sequence of every tenant is compared with the oracle, which works from the raw events alone. The Fat Rows are one
union data set (4,096 events, all traits), as a market with several models keeps it, read with column projection; a model
that wants fewer events cuts them after reading.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pyarrow as pa

from latewood.batch import Batch
from latewood.demo.live import Replay
from latewood.demo.purchases import SCHEMA, Purchases
from latewood.examples import FatRows, FatRowWriter, open_examples
from latewood.examples.source import ParquetSource
from latewood.loading import Loader
from latewood.projection import Projection
from latewood.schema import EVENT_TS
from latewood.store import Store
from latewood.testing import Oracle, different_rows

BATCH_SIZE = 512
UNION_LENGTH = 4096
TENANTS = {
    "long": Projection(max_len=UNION_LENGTH),
    "mid": Projection(max_len=512, groups=["item"]),
    "short": Projection(max_len=64, traits=[EVENT_TS, "product_id", "department"]),
}
# Table 1 of arXiv 2604.24806, in per cent of Fat Rows
PAPER = {
    "long": {"primary_write": -46.2, "primary_read": -70.3, "lookup_log": 62.7, "lookup_user": 24.6, "load_ms": 9.7},
    "mid": {"primary_write": -46.2, "primary_read": -50.9, "lookup_log": 16.2, "lookup_user": 6.5, "load_ms": -26.4},
    "short": {"primary_write": -46.2, "primary_read": -47.7, "lookup_log": 8.7, "lookup_user": 3.4, "load_ms": -36.2},
}


@dataclass(slots=True)
class _Side:
    """One pass over all examples by one of the two systems."""

    seconds: float = 0.0
    batches: int = 0
    examples: int = 0

    def add(self, batch: Batch, seconds: float) -> None:
        self.seconds += seconds
        self.batches += 1
        self.examples += len(batch)

    def figures(self) -> dict[str, float]:
        return {
            "load_ms_per_batch": round(self.seconds / max(self.batches, 1) * 1e3, 3),
            "examples_per_s": round(self.examples / max(self.seconds, 1e-9)),
        }


def compare_tenants(
    purchases: Purchases, year: Replay, folder: Path, advance: Callable[[str], None] = lambda what: None
) -> dict[str, Any]:
    """Materialize for every tenant, compare with the oracle, measure beside Fat Rows. Returns Table 1, JSON-able."""
    requests = purchases.requests.append_column("cutoff", pa.array(year.cutoff))
    groups = {name: [trait.name for trait in traits] for name, traits in SCHEMA.groups.items()}
    oracle = Oracle(year.events, groups=groups)
    with Store.open(year.store, read_only=True) as store:
        advance("writing Fat Rows, comparing with the oracle")
        by_user = _sorted_by_user(year)
        with ThreadPoolExecutor(2) as pool:  # nothing is timed here, and Arrow leaves the interpreter free
            written = pool.submit(_write_fat_rows, store, year, folder / "fat_rows.parquet")
            checks = {
                name: pool.submit(_compare, store, by_user, projection, oracle, requests)
                for name, projection in TENANTS.items()
            }
            running: list[Future[Any]] = [written, *checks.values()]
            for done in as_completed(running):
                done.result()
                advance("writing Fat Rows, comparing with the oracle")
        fat = written.result()
        stored = {"fat_row": fat.size_bytes, "store": store.generation.size_bytes, "examples": _size(year.examples)}
        tenants: dict[str, dict[str, Any]] = {}
        for name, projection in TENANTS.items():
            advance(f"{name}: measuring")
            tenants[name] = (
                _measure(store, year, projection, fat.path)
                | checks[name].result()
                | {"paper_per_cent": PAPER[name]}
                | {"primary_write_bytes": {"fat_row": stored["fat_row"], "latewood": stored["examples"]}}
            )
    return {
        "compared": sum(tenant["compared"] for tenant in tenants.values()),
        "different": sum(tenant["different"] for tenant in tenants.values()),
        "late_kept_out": _late_kept_out(requests, year),
        "stored_bytes": stored | {"latewood": stored["store"] + stored["examples"]},
        "tenants": tenants,
    }


def _write_fat_rows(store: Store, year: Replay, path: Path) -> FatRows:
    """One union data set, in the order in which the requests were logged."""
    with FatRowWriter(path, nullable=("department", "category", "brand")) as writer:
        for batch in Loader(store, year.examples, TENANTS["long"], batch_size=1_000, order="time"):
            writer.write(batch)
    return FatRows(path)


def _sorted_by_user(year: Replay) -> pa.Table:
    """All examples, each user's together: the log is by day, and batch training sorts it once."""
    log = open_examples(year.examples)
    order = np.lexsort((log.column("request_id").to_numpy(), log.column("user_id").to_numpy()))
    return log.take(order)


def _compare(
    store: Store, by_user: pa.Table, projection: Projection, oracle: Oracle, requests: pa.Table
) -> dict[str, int]:
    """How many sequences were compared, how many differ, and the bytes looked up on the way, in user order."""
    loader = Loader(store, by_user, projection, batch_size=BATCH_SIZE, order="user")
    compared = different = 0
    for batch in loader:
        asked = requests.take(batch.features["request_id"])
        different += len(different_rows(batch.to_arrow(), _as_features(oracle.fat_rows(asked, projection), batch)))
        compared += len(batch)
    lookup = loader.materializer.stats.lookup_bytes
    return {"compared": compared, "different": different, "lookup_user_bytes": lookup}


def _as_features(expected: pa.Table, batch: Batch) -> pa.Table:
    """The oracle keeps the requests' own types; the log has made times of int64 µs."""
    return expected.cast(batch.features.schema.remove_metadata().append(expected.schema.field("history")))


def _measure(store: Store, year: Replay, projection: Projection, fat_path: Path) -> dict[str, Any]:
    """Both systems read all examples in the order of the requests, batch by batch in turn."""
    loader = Loader(store, year.examples, projection, batch_size=BATCH_SIZE, order="time", prefetch=0)
    fat = FatRows(fat_path)
    traits = list(projection.names(SCHEMA))
    ours, theirs = _Side(), _Side()
    fat_rows = _timed(_cut(batch, projection.max_len) for batch in fat.batches(BATCH_SIZE, traits))
    for batch, seconds in _timed(loader):
        ours.add(batch, seconds)
        theirs.add(*next(fat_rows))
    source = loader.source
    assert isinstance(source, ParquetSource)
    return {
        "fat_row": theirs.figures() | {"primary_read_bytes": fat.bytes_read},
        "latewood": ours.figures() | {"primary_read_bytes": source.bytes_read},
        "lookup_log_bytes": loader.materializer.stats.lookup_bytes,
    }


def _timed(batches: Any) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds it took to come."""
    iterator = iter(batches)
    while True:
        began = perf_counter()
        batch = next(iterator, None)
        if batch is None:
            return
        yield batch, perf_counter() - began


def _cut(batch: Batch, max_len: int | None) -> Batch:
    """Keep each row's newest events: what a model that wants less must do to a union data set."""
    lengths = np.diff(batch.offsets)
    if max_len is None or int(lengths.max(initial=0)) <= max_len:
        return batch
    kept = np.minimum(lengths, max_len)
    offsets = np.concatenate([[0], np.cumsum(kept)])
    rows = np.arange(offsets[-1]) + np.repeat(batch.offsets[1:] - offsets[1:], kept)
    values = {name: column[rows] for name, column in batch.values.items()}
    masks = {name: mask[rows] for name, mask in batch.masks.items()}
    return Batch(offsets, values, masks, batch.dictionaries, batch.weights, batch.features, batch.types)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.parquet"))


def _late_kept_out(requests: pa.Table, year: Replay) -> int:
    """Late purchases that happened before a request, and were learned only after it: (request, purchase) pairs."""
    late = year.events.filter(pa.array(year.late))
    user, ts, ingest = (late[name].to_numpy() for name in ("user_id", "event_ts", "ingest_ts"))
    order = np.argsort(user, kind="stable")
    user, ts, ingest = user[order], ts[order], ingest[order]
    asked, end, cutoff = (requests[name].to_numpy() for name in ("user_id", "request_ts", "cutoff"))
    start, stop = np.searchsorted(user, asked), np.searchsorted(user, asked, side="right")
    pairs = zip(start.tolist(), stop.tolist(), end.tolist(), cutoff.tolist(), strict=True)
    return sum(int(np.count_nonzero((ts[a:b] < t) & (ingest[a:b] >= c))) for a, b, t, c in pairs)
