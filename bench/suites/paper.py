"""Suite `paper`: Table 1 of arXiv 2604.24806, side by side with ours, on a year of real purchases.

`latewood demo` replays the year as a live system would see it, compares every sequence with the oracle, and counts the
bytes that both systems read for three tenants; this suite reports that. Ratios are to Fat Rows: what is read in addition,
the lookups, is given as a share of what Fat Rows read, as the paper does.

Then the long tenant in batch training: examples sorted by user, one window, bytes requested on both sides: for us the
examples and the stripes looked up, for Fat Rows the compressed columns, in the order of the requests and by user.
"""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import latewood as lw
from bench.report import Line, Results, absent, at_most, compare
from bench.session import Session
from latewood.demo import TENANTS, Purchases, Replay, compare_tenants, load_purchases, replay
from latewood.examples.source import ParquetSource

OURS, SEALED, FAT, PAPER = "latewood", "latewood, sealed", "Fat Rows", "the paper"
BY_USER = "Fat Rows, user order"
TARGETS = {FAT: at_most(0.10), BY_USER: at_most(0.50)}  # bytes: at least 90 % and 50 % less
TINY_DAYS = 8
CLOCK = "bytes counted; times are wall time, batch by batch in turn"
_MB = 1e6
_ALL_DAYS = 36_500


def run(session: Session, folder: Path) -> Results:
    """Replay, compare with the oracle, count. Raises: RuntimeError: a sequence differs."""
    settings = session.settings
    try:
        purchases = load_purchases(settings.size(None, TINY_DAYS), 0)
    except lw.LatewoodError as error:
        return Results([absent("Table 1", OURS, str(error))], clock=CLOCK)
    session.tell("paper: replaying the year, day by day")
    year = replay(purchases, folder)
    table = compare_tenants(purchases, year, folder, lambda what: session.tell(f"paper: {what}"))
    if table["different"]:
        raise RuntimeError(f"{table['different']} of {table['compared']} sequences differ from the oracle")
    lines = [line for name, tenant in table["tenants"].items() for line in _tenant(name, tenant)]
    return Results(lines + _by_user(session, purchases, year, folder, table), table["compared"], CLOCK)


def _tenant(name: str, tenant: dict[str, Any]) -> list[Line]:
    """One tenant's rows of Table 1: ours, Fat Rows, and the paper's ratio."""
    ours, fat, write = tenant["latewood"], tenant["fat_row"], tenant["primary_write_bytes"]
    read, paper = fat["primary_read_bytes"], tenant["paper_per_cent"]
    rows = {
        "primary write": (write["latewood"], write["fat_row"], 1 + paper["primary_write"] / 100),
        "primary read": (ours["primary_read_bytes"], read, 1 + paper["primary_read"] / 100),
        "lookup, log order": (tenant["lookup_log_bytes"], read, paper["lookup_log"] / 100),
        "lookup, user order": (tenant["lookup_user_bytes"], read, paper["lookup_user"] / 100),
    }
    lines = []
    for what, (mine, theirs, quoted) in rows.items():
        cell = f"{name}: {what}"
        lines += _sides(cell, mine / _MB, theirs / _MB, "MB", quoted)
    load_ms = ours["load_ms_per_batch"], fat["load_ms_per_batch"]
    return lines + _sides(f"{name}: load", *load_ms, "ms/batch", 1 + paper["load_ms"] / 100)


def _sides(cell: str, mine: float, theirs: float, unit: str, quoted: float) -> list[Line]:
    return [
        Line(cell, OURS, mine, unit, mine / theirs, FAT),
        Line(cell, FAT, theirs, unit, 1.0, FAT),
        Line(cell, PAPER, None, unit, quoted, FAT, note="its ratio to its Fat Rows; it names no absolute figures"),
    ]


def _by_user(session: Session, purchases: Purchases, year: Replay, folder: Path, table: dict[str, Any]) -> list[Line]:
    """Bytes of the long tenant, everything read once, by user; also of examples sealed since, which are pointers alone."""
    session.tell("paper: the long tenant in user order")
    window = len(purchases.requests)
    for name in ("by-user", "sealed"):
        with lw.ExampleLog(folder / name, days=_ALL_DAYS) as log:  # what batch training sorts once
            for part in sorted(year.examples.rglob("*.parquet")):
                log.append(pq.ParquetFile(part).read())
    with lw.Store.open(year.store, read_only=True) as store:
        lw.seal(store, folder / "sealed")
        fat = _write_fat_rows(store, folder, window)
        ours = {
            OURS: _read_all(store, folder / "by-user", window),
            SEALED: _read_all(store, folder / "sealed", window),
        }
    for _ in fat.batches():
        pass
    read = {FAT: table["tenants"]["long"]["fat_row"]["primary_read_bytes"], BY_USER: fat.bytes_read}
    lines = []
    for peer, theirs in read.items():
        figures = {name: sum(parts.values()) / _MB for name, parts in ours.items()} | {peer: theirs / _MB}
        cell = f"long, user order, primary + lookup: {peer}"
        lines += compare(cell, figures, "MB", peer, targets={OURS: TARGETS[peer]}, details=ours)
    return lines


def _read_all(store: lw.Store, examples: Path, window: int) -> dict[str, float]:
    """Bytes requested of the examples and of the store, for one epoch in the log's order."""
    loader = lw.Loader(store, examples, TENANTS["long"], order="user", window=window, prefetch=0)
    for _ in loader:
        pass
    source = loader.source
    assert isinstance(source, ParquetSource)
    return {"primary_bytes": source.bytes_read, "lookup_bytes": loader.materializer.stats.lookup_bytes}


def _write_fat_rows(store: lw.Store, folder: Path, window: int) -> lw.FatRows:
    """The long tenant's, in the order of the log that is sorted by user."""
    loader = lw.Loader(store, folder / "by-user", TENANTS["long"], order="user", window=window, prefetch=0)
    return lw.write_fat_rows(folder / "by-user.parquet", loader, nullable=("department", "category", "brand"))
