"""Suite `checks`: what integrity costs: checksums of blocks, and of pointers.

*Pointers.* Every look-up compares the checksum of the events that a pointer means: running sums in the index, and the
ends added up row by row. It cannot be left out. So its cost is what a look-up needs, less what its twin does: the same
kernels but for those that sum, so that no identity is made, no running sum read and no ordinal decoded. Both ask for the
same memory ahead. What the Materializer needs for the same examples is compared with that time less this cost. Both
find the same rows, and the sums are those in the pointers.

*Blocks.* The checksum of a block is computed when it is first decoded after a store was opened, and not again, unless that
is asked for. So the Materializer reads the same examples in a store that was just opened, with `verify` and without, and
once more, and then with `verify="always"`. Blocks that are read to find a request's place are verified in any case.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
from numba import jit, uint64

import latewood as lw
from bench import sources
from bench.digests import digest, require_equal
from bench.histories import PROJECTIONS, TRAITS, Requests, draw_distinct
from bench.report import Line, Results, at_most, compare, speed_lines
from bench.session import Session
from bench.timing import Amount, Contender, Measurement, drain, interleave, processor_clock, speed_of
from latewood.immutable import desk as desks
from latewood.immutable import resolve, walk
from latewood.immutable.resolve import Resolution, Status
from latewood.kernels import kernel
from latewood.pointer import Pointers
from latewood.stripes.layout import ORDINAL
from latewood.users import user_keys

LENGTHS, BATCHES, BATCH_SIZE = (256, 4096, 65_536), {256: 16}, 512
FEW_BATCHES = 4
WHOLE, LESS = "Materializer", "Materializer, less checksums of pointers"
WITH, WITHOUT = "rows and sums", "rows alone"
FIRST_CHECKED, FIRST, AGAIN = "first read, verified", "first read, not verified", "read again"
ALWAYS = "read again, always verified"
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
    for search in searches:
        _require_same_rows(search(True), search(False), f"at {max_len:,} events")
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


Search = Callable[[bool], Resolution]  # with sums?


def _search_of(store: lw.Store, examples: pa.Table) -> Search:
    """A batch's look-up."""
    reader = store.reader()
    keys = user_keys(examples["user_id"].combine_chunks())
    pointers = Pointers.from_arrow(examples["uih"].combine_chunks(), store.epoch)
    unsummed = replace(pointers, checksum=np.zeros(len(pointers), np.uint64))
    reader.locate(keys)  # which opens the shards
    watermark = store.generation.watermark

    def search(with_sums: bool) -> Resolution:
        if with_sums:
            return resolve.resolve(reader.tables, keys, pointers, watermark)
        return resolve_without_sums(reader.tables, keys, unsummed, watermark)

    return search


def _require_same_rows(summed: Resolution, unsummed: Resolution, where: str) -> None:
    """Statuses say that each search found the sums that were asked for: the pointers', or none."""
    if (summed.status != Status.OK).any() or (unsummed.status != Status.OK).any() or unsummed.checksum.any():
        raise RuntimeError(f"pointers do not resolve, or are summed where they are not to be, {where}")
    found, bare = ((r.start, r.stop, r.count, r.last_ts, *r.runs) for r in (summed, unsummed))
    if not all(map(np.array_equal, found, bare)):
        raise RuntimeError(f"with sums other rows are found than without {where}")


def _twin(function: Any, **others: Any) -> Any:
    """A function that calls others by the names that its module has for them. Raises: KeyError: it has no such name."""
    if unknown := others.keys() - set(function.__code__.co_names):
        raise KeyError(f"{function.__qualname__} calls nothing by the names {sorted(unknown)}")
    return FunctionType(function.__code__, function.__globals__ | others, function.__name__, function.__defaults__)


def _twin_kernel(compiled: Any, **others: Any) -> Any:
    """Likewise a kernel, compiled alike. Not cached: by name and source it would be taken for the other."""
    return jit(**compiled.targetoptions)(_twin(compiled.py_func, **others))


@kernel
def nothing(*_: Any) -> Any:
    """In the stead of a sum."""
    return uint64(0)


@kernel
def decode_but_ordinals(place: Any, column: Any, itemsize: Any, out: Any, desk: Any) -> None:
    """In the stead of decoding whatever identities depend on: delays, by which rows are visible."""
    if column != ORDINAL:
        desks._decode(place, column, itemsize, out, desk)


def _make_twin() -> Callable[..., Resolution]:
    lay_out = _twin_kernel(desks.lay_out_columns, _decode=decode_but_ordinals)
    holes = _twin_kernel(desks.mark_holes, lay_out_columns=lay_out)
    sums = {"sum_all_clean": nothing, "sum_rows": nothing, "seeded_identity": nothing}
    back = _twin_kernel(walk.walk_back, mark_holes=holes, **sums)
    meant = _twin_kernel(walk.find_meant, walk_back=back)
    kernels = vars(walk) | {"resolve": _twin_kernel(walk.resolve, seed_of=nothing, find_meant=meant)}
    twin: Callable[..., Resolution] = _twin(resolve.resolve, walk=SimpleNamespace(**kernels))
    return twin


resolve_without_sums = _make_twin()


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
    seconds: dict[str, list[float]] = {FIRST_CHECKED: [], FIRST: [], AGAIN: [], ALWAYS: []}
    amount = Amount(0, 0, 0)
    for number in range(session.settings.passes + 1):
        for name, verify in ((FIRST_CHECKED, True), (FIRST, False)):
            with lw.Store.open(session.store.path, read_only=True) as store:
                materialize = lw.Materializer(store, projection, verify=verify)
                runs: dict[str, Contender] = {name: partial(_drain, materialize, tables)}
                if verify:
                    always = lw.Materializer(store, projection, verify="always")
                    runs |= {AGAIN: partial(_drain, materialize, tables), ALWAYS: partial(_drain, always, tables)}
                store.reader().open()  # maps and checks the index of all shards
                for what, read in runs.items():
                    began = processor_clock()
                    amount = read()
                    if number:  # the first pass is for the caches
                        seconds[what].append(processor_clock() - began)
    return Measurement({name: speed_of(amount, took) for name, took in seconds.items()}, None)
