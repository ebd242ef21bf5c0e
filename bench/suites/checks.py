"""Suite `checks`: what integrity costs: checksums of blocks, and of pointers.

*Pointers.* Every look-up compares the checksum of the events that a pointer means: running sums in the index, and the
ends added up row by row. It cannot be left out. So its cost is what the look-up's own kernels need for finding and summing
a pointer's rows, less what a search needs that only finds them, and looks at ingest times where it has to. What the
Materializer needs for the same examples is compared with that time less this cost. Both searches find the same rows, and
the sums are those in the pointers.

*Blocks.* The checksum of a block is computed when it is first decoded after a store was opened, and not again. So the
Materializer reads the same examples in a store that was just opened, with `verify` and without, and once more. Blocks
that are read to find a request's place are verified in any case.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numba import int64, uint64
from numpy.typing import NDArray

import latewood as lw
from bench import sources
from bench.digests import digest, require_equal
from bench.histories import PROJECTIONS, TRAITS, Requests, draw_distinct
from bench.report import Line, Results, at_most, compare, speed_lines
from bench.session import Session
from bench.timing import Amount, Contender, Measurement, drain, interleave, processor_clock, speed_of
from latewood.clock import EARLIEST_TS
from latewood.immutable import ahead, walk
from latewood.immutable import desk as desks
from latewood.immutable.desk import INGESTS, IS_WHOLE, ingest_at, lay_out_times, time_at, write_note
from latewood.kernels import kernel
from latewood.pointer import Pointers
from latewood.stripes.addresses import address_of
from latewood.stripes.entries import latest_ingest, latest_until
from latewood.stripes.layout import DELAY, STRIPE_EVENTS
from latewood.stripes.stripe import table_at
from latewood.users import user_keys

LENGTHS, BATCHES, BATCH_SIZE = (256, 4096, 65_536), {256: 16}, 512
FEW_BATCHES = 4
WHOLE, LESS = "Materializer", "Materializer, less checksums of pointers"
WITH, WITHOUT = "rows and sums", "rows alone"
FIRST_CHECKED, FIRST, AGAIN = "first read, verified", "first read, not verified", "read again"
POINTER_TARGET = at_most(1.05)  # times a batch without: on by default, if it costs no more


def run(session: Session, _: Path) -> Results:
    """Every length: pointers, then blocks."""
    settings, lines, compared = session.settings, list[Line](), 0
    batch_size = min(BATCH_SIZE, session.histories.user_count)
    for max_len in sorted(settings.lengths or settings.size(LENGTHS, (256, 1_000))):
        count = settings.batches or settings.size(BATCHES.get(max_len, FEW_BATCHES), 2)
        requests = draw_distinct(session.histories, batch_size, count)
        examples = sources.backfill(session.store, sources.requests_table(session.histories, requests))
        tables = [examples.slice(start, batch_size) for start in range(0, len(examples), batch_size)]
        session.tell(f"checks: pointers at {max_len:,} events")
        more, verified = _pointers(session, requests, tables, max_len)
        lines, compared = lines + more, compared + verified
        session.tell(f"checks: blocks at {max_len:,} events")
        lines += _blocks(session, tables, max_len)
    return Results(lines, compared)


def _pointers(session: Session, requests: Requests, tables: list[pa.Table], max_len: int) -> tuple[list[Line], int]:
    searches = [_search_of(session.store, table) for table in tables]
    for search, table in zip(searches, tables, strict=True):
        sums = np.asarray(table["uih"].combine_chunks().field("checksum"))
        if not (np.array_equal(search(True)[1], sums) and np.array_equal(search(True)[0], search(False)[0])):
            raise RuntimeError(f"the rows or sums of a batch differ from its pointers' at {max_len:,} events")
    _verify(session, requests, tables, max_len)
    lines = []
    for traits in PROJECTIONS.values():
        materialize = lw.Materializer(session.store, lw.Projection(max_len=max_len, traits=traits))
        amount = drain(map(materialize, tables))
        measured = interleave(
            {
                WHOLE: partial(_drain, materialize, tables),
                WITH: partial(_search, searches, True, amount),
                WITHOUT: partial(_search, searches, False, amount),
            },
            session.settings.passes,
        )
        took = {name: 1e6 * speed.seconds / amount.examples for name, speed in measured.speeds.items()}
        figures = took | {LESS: took[WHOLE] - (took[WITH] - took[WITHOUT])}
        cell = f"pointers: {max_len:,} events, {len(traits)} traits"
        lines += compare(cell, figures, "µs/example", LESS, targets={WHOLE: POINTER_TARGET})
    return lines, 2 * len(requests)


def _verify(session: Session, requests: Requests, tables: list[pa.Table], max_len: int) -> None:
    materialize, traits, start = lw.Materializer(session.store, lw.Projection(max_len=max_len)), tuple(TRAITS), 0
    for table in tables:
        batch = materialize(table)
        rows = requests.slice(start, start + len(table)).rows(session.histories, max_len)
        truth = digest(*sources.cut(session.histories, *rows), traits)
        require_equal(digest(batch.offsets, batch.values, traits), truth, traits, f"{WHOLE} with {max_len} events")
        start += len(table)


Search = Callable[[bool], tuple[NDArray[np.uint64], NDArray[np.uint64]]]  # with sums? → first rows, sums


def _search_of(store: lw.Store, examples: pa.Table) -> Search:
    """A batch's look-up, as far as its pointers' rows and checksums; users are found beforehand."""
    reader = store.reader()
    keys = user_keys(examples["user_id"].combine_chunks())
    pointers = Pointers.from_arrow(examples["uih"].combine_chunks(), store.epoch)
    place = reader.locate(keys)
    asked = tuple(np.array(column) for column in (pointers.end_ts, pointers.length, pointers.watermark))

    def search(with_sums: bool) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        starts, sums = np.zeros((2, len(pointers)), np.uint64)
        search_rows(reader.tables.rows, tuple(keys), tuple(place), asked, with_sums, starts, sums, desks.new_desk())
        return starts, sums

    return search


@kernel
def search_rows(
    tables: Any, keys: Any, place: Any, asked: Any, with_sums: Any, starts: Any, sums: Any, desk_array: Any
) -> None:
    """The first row that each pointer means, and the sum of the identities of all; as `walk.resolve`, without ties."""
    hashes, checks = keys
    shard, user = place
    end_ts, length, watermark = asked
    desk, no_runs = address_of(desk_array), np.empty((2, 0), np.int64)
    stripes = walk.find_ends(tables, shard, user, end_ts)
    for i in range(len(user)):
        ahead.end_stripe(tables, shard, user, stripes, i)
        table, u, wanted = table_at(tables, shard[i]), uint64(user[i]), uint64(length[i])
        stop = walk.end_before(table, u, stripes[i], end_ts[i], desk)
        if with_sums:
            key = (hashes[i], checks[i])
            _, total, start, _, _ = walk.walk_back(table, u, key, stop, wanted, watermark[i], no_runs, 0, desk)
            sums[i] = total
        else:
            start = find_start(table, u, stop, wanted, watermark[i], desk)
        starts[i] = start
        walk.time_of(table, u, start, desk)  # is compared with the pointer's, whatever else is


@kernel
def find_start(table: Any, user: Any, row: Any, wanted: Any, watermark: Any, desk: Any) -> Any:
    """`walk.walk_back` as it would be without sums, where nothing came late: row 0 where something did."""
    start = row - min(row, wanted)
    while row > start:
        stripe = (row - uint64(1)) // uint64(STRIPE_EVENTS)
        base = stripe * uint64(STRIPE_EVENTS)
        low = max(base, start)
        if latest_until(table, user, stripe) < watermark:
            break
        if latest_ingest(table, user, stripe) >= watermark and any_late(
            table, user, stripe, low - base, row - base, watermark, desk
        ):
            return uint64(0)
        row = low
    return start


@kernel
def any_late(table: Any, user: Any, stripe: Any, first: Any, last: Any, watermark: Any, desk: Any) -> Any:
    """Whether any of the rows [first, last) of a stripe was not known before the watermark."""
    lay_out_times(table, user, stripe, desk)
    write_note(desk, IS_WHOLE, 0)  # only these rows are decoded, and delays stay delays
    delays = desk + uint64(INGESTS)
    walk.decode_rows(table, user, uint64(DELAY), stripe, uint64(8), (first, last), delays)
    latest = int64(EARLIEST_TS)
    for row in range(first, last):
        latest = max(latest, time_at(desk, row) + ingest_at(desk, row))
    return latest >= watermark


def _drain(materialize: lw.Materializer, tables: list[pa.Table]) -> Amount:
    return drain(map(materialize, tables))


def _search(searches: list[Search], with_sums: bool, amount: Amount) -> Amount:
    for search in searches:
        search(with_sums)
    return amount


def _blocks(session: Session, tables: list[pa.Table], max_len: int) -> list[Line]:
    lines = []
    for traits in PROJECTIONS.values():
        projection = lw.Projection(max_len=max_len, traits=traits)
        measured = _first_reads(session, tables, projection)
        cell = f"blocks: {max_len:,} events, {len(traits)} traits"
        lines += speed_lines(cell, measured, "ms/batch", FIRST)
    return lines


def _first_reads(session: Session, tables: list[pa.Table], projection: lw.Projection) -> Measurement:
    """Each pass in stores that are opened anew, which is not timed. The files are in the page cache."""
    seconds: dict[str, list[float]] = {FIRST_CHECKED: [], FIRST: [], AGAIN: []}
    amount = Amount(0, 0, 0)
    for number in range(session.settings.passes + 1):
        for name, verify in ((FIRST_CHECKED, True), (FIRST, False)):
            with lw.Store.open(session.store.path, read_only=True) as store:
                materialize = lw.Materializer(store, projection, verify=verify)
                runs: dict[str, Contender] = {name: partial(_drain, materialize, tables)}
                if verify:
                    runs[AGAIN] = partial(_drain, materialize, tables)
                store.reader().open()  # maps and checks the index of all shards
                for what, read in runs.items():
                    began = processor_clock()
                    amount = read()
                    if number:  # the first pass is for the caches
                        seconds[what].append(processor_clock() - began)
    return Measurement({name: speed_of(amount, took) for name, took in seconds.items()}, None)
