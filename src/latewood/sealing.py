"""Seal: examples whose recent events have become history, rewritten as pointers alone (docs/protocol.md R12).

An example copies the events that no generation held when its request came. Once a generation holds them, it can say the
same with a pointer at its own cutoff and no recents: it is of a fixed size then, and carries none of its user's bytes.

The new pointer is computed from what the example says, and not by looking at what is there: retention may have taken
some of it meanwhile, and a recount would be silently short. It is written only if the old pointer still means all that
it meant, and the new one finds exactly what the sums say; otherwise the example is left as it is, and counted.
"""

import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import one_array, read_table, struct_fields, take_rows
from latewood.errors import SchemaError, refuse_path
from latewood.examples import rewrite_log
from latewood.immutable import GenerationReader, read_newest
from latewood.immutable.resolve import Resolution, Status
from latewood.materialize import MaterializeStore
from latewood.materialize.logged import UIH, Heads, Logged, read_heads
from latewood.materialize.recents import RECENT, Recents
from latewood.materialize.suppress import SUPERSEDES, hit_rows
from latewood.pointer import Pointers
from latewood.stripes import identities
from latewood.users import UserKeys

_AT_ONCE = 1 << 14  # examples


@dataclass(frozen=True, slots=True)
class SealReport:
    """What became of examples, counted."""

    sealed: int = 0  # rewritten as a pointer alone
    already: int = 0  # had no recent events
    not_covered: int = 0  # captured after the newest generation's cut: for a later time
    refused: int = 0  # left as they are: retention or damage stands between them and the sums
    scrubbed: int = 0  # of scrubbed users: their recents are dropped, and the examples mean nothing any more

    def __add__(self, other: "SealReport") -> "SealReport":
        return SealReport(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def seal(store: MaterializeStore, examples: Any) -> Any:
    """Rewrite examples as pointers without recent events, where a generation holds these by now.

    What the examples mean, for every projection, is the same before and after, as long as retention lets it be.

    Args: examples: a table; or a path, glob, directory or URI of an example log, or several of these, whose files are
        rewritten in place, one by one. A run that reads as of a pin should keep its own copy: sealed pointers are newer
        than what it can read.
    Returns: of a table, the table with `uih` and `recent` changed; of a log, a SealReport.
    Raises: SchemaError, PointerError, LeakageError: not examples of this store, as when they are materialized.
    """
    refuse_path(store, read_only=True)
    if not isinstance(examples, (str, os.PathLike)) and not _are_paths(examples):
        return seal_with_report(store, examples)[0]
    return seal_log(store, examples)


def seal_log(store: MaterializeStore, place: Any) -> SealReport:
    """Seal the files of an example log, as `seal` does."""
    _, reports = rewrite_log(place, partial(seal_with_report, store))
    return sum(reports, SealReport())


def seal_with_report(store: MaterializeStore, examples: Any) -> tuple[pa.Table, SealReport]:
    """Seal a table of examples. Returns: the table, which is the very same if nothing changed, and what became of it."""
    table = read_table(examples)
    if not len(table):
        read_heads(table, store.schema, store.epoch)
        return table, SealReport()
    parts = [_seal(store, table.slice(start, _AT_ONCE)) for start in range(0, len(table), _AT_ONCE)]
    report = sum((of_part for _, of_part in parts), SealReport())
    if not report.sealed and not report.scrubbed:
        return table, report
    return pa.concat_tables([part for part, _ in parts]), report


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What was taken out of an example log."""

    examples: int  # whose recent events were dropped: of scrubbed users
    files: tuple[str, ...]  # those rewritten


def purge_log(store: MaterializeStore, place: Any) -> PurgeReport:
    """Take the recent events of scrubbed users out of the files of an example log, each rewritten in place.

    The examples stay, each in its row, and are refused as before: what a scrub could not reach is gone, and a run that is
    resumed finds its rows where they were.

    Args: place: a path, glob, directory or URI, or several of these.
    Raises: SchemaError, PointerError: not examples of this store. OSError: a file could not be written, and is as it was.
    """
    files, counts = rewrite_log(place, partial(forget_recents, store))
    return PurgeReport(sum(counts), tuple(files))


def forget_recents(store: MaterializeStore, examples: Any) -> tuple[pa.Table, int]:
    """Only drop the recent events of scrubbed users. Returns: the table, and how many examples had some."""
    table = read_table(examples)
    heads = read_heads(table, store.schema, store.epoch)
    dropped = _carry_any(heads.recent) & _are_scrubbed(store, heads)
    return _without_recents(table, dropped) if dropped.any() else table, int(dropped.sum())


def _are_paths(examples: Any) -> bool:
    return isinstance(examples, Sequence) and bool(examples) and isinstance(examples[0], (str, os.PathLike))


def _seal(store: MaterializeStore, table: pa.Table) -> tuple[pa.Table, SealReport]:
    heads = read_heads(table, store.schema, store.epoch)
    carrying, scrubbed = _carry_any(heads.recent), _are_scrubbed(store, heads)
    while True:
        logged = heads.read_recents([], store.vocabulary, scrubbed)
        asking = np.flatnonzero(carrying & ~scrubbed)
        covered, pointers = _at_cutoff(store, logged, asking)
        # asked again now that a generation was chosen: what it lacks for a scrub, the scrub is the reason for
        before, scrubbed = scrubbed, _are_scrubbed(store, heads)
        if (before == scrubbed).all():
            break
    sealed = asking[covered > _REFUSED]
    report = SealReport(
        sealed=len(sealed),
        already=int((~carrying).sum()),
        not_covered=int((covered == _NOT_COVERED).sum()),
        refused=int((covered == _REFUSED).sum()),
        scrubbed=int((carrying & scrubbed).sum()),
    )
    emptied = carrying & scrubbed
    emptied[sealed] = True
    if not emptied.any():
        return table, report
    return _without_recents(_with_pointers(table, logged.pointers, sealed, pointers), emptied), report


def _carry_any(recent: pa.Array) -> NDArray[np.bool_]:
    """Which examples have recent events, or suppress stored ones."""
    lists = struct_fields(recent)
    if "event_ts" not in lists:
        raise SchemaError(
            f"column 'recent' is {recent.type}; it is a struct of lists, as capture and backfill write it"
        )
    carry = np.zeros(len(recent), np.bool_)
    for name in ("event_ts", SUPERSEDES):
        if name in lists:
            carry |= pc.fill_null(pc.list_value_length(lists[name]), 0).to_numpy(zero_copy_only=False) > 0
    return carry


def _are_scrubbed(store: MaterializeStore, heads: Heads) -> NDArray[np.bool_]:
    store.scrubs.refresh()
    scrubbed: NDArray[np.bool_] = heads.cutoff <= store.scrubs.scrubbed_at(heads.keys)
    return scrubbed


_NOT_COVERED, _REFUSED, _SEALED = range(3)


def _at_cutoff(store: MaterializeStore, logged: Logged, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Pointers]:
    """The examples at `rows` as pointers at their cutoffs: what became of each, and those that were sealed."""
    keys, pointers, cutoff = logged.keys.take(rows), logged.pointers.take(rows), logged.cutoff[rows]
    recents = logged.recents.take(rows)

    def looked_up(reader: GenerationReader) -> tuple[Resolution, Pointers, Resolution]:
        old = reader.resolve(keys, pointers)
        new = _summed(reader, keys, pointers, cutoff, recents, old)
        return old, new, reader.resolve(keys, new)

    reader, (old, new, found) = read_newest(store, looked_up)
    covered = cutoff <= reader.generation.watermark
    whole = (old.status == Status.OK) & (found.status == Status.OK) & (new.length >= new.end_ties)
    became = np.where(covered, np.where(whole, _SEALED, _REFUSED), _NOT_COVERED)
    return became, new.take(np.flatnonzero(became == _SEALED))


def _summed(
    reader: GenerationReader,
    keys: UserKeys,
    pointers: Pointers,
    cutoff: NDArray[np.int64],
    recents: Recents,
    resolution: Resolution,
) -> Pointers:
    """The pointers that mean the same at the cutoff as these and the recents together."""
    n, owner = len(pointers), np.repeat(np.arange(len(pointers)), np.diff(recents.offsets))
    start_ts = pointers.start_ts.copy()
    np.minimum.at(start_ts, owner, recents.order[0])
    length, ties, checksum = _totals(keys, owner, recents.order, pointers.end_ts)
    if recents.supersedes is not None:
        hit = hit_rows(reader, resolution, pointers, recents.supersedes) >= 0
        of_hits = _totals(keys, recents.supersedes.owner[hit], recents.supersedes.order[:, hit], pointers.end_ts)
        length, ties, checksum = length - of_hits[0], ties - of_hits[1], checksum - of_hits[2]
    assert len(length) == n
    return replace(
        pointers,
        watermark=cutoff,
        start_ts=start_ts,
        end_ties=(pointers.end_ties + ties).astype(np.int32),
        length=pointers.length + length,
        checksum=pointers.checksum + checksum,
    )


def _totals(
    keys: UserKeys, owner: NDArray[np.int64], order: NDArray[np.int64], end_ts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]:
    """Of the events of each of n examples: how many there are, how many at the end, and the sum of their identities."""
    n = len(end_ts)
    checksum = np.zeros(n, np.uint64)
    np.add.at(checksum, owner, identities(keys.take(owner), *order))
    at_end = owner[order[0] == end_ts[owner]]
    return np.bincount(owner, minlength=n), np.bincount(at_end, minlength=n), checksum


def _with_pointers(table: pa.Table, old: Pointers, rows: NDArray[np.int64], new: Pointers) -> pa.Table:
    """With other pointers in some rows, in the column's own type."""
    columns = {}
    for name in ("watermark", "start_ts", "end_ties", "length", "checksum"):
        columns[name] = getattr(old, name).copy()
        columns[name][rows] = getattr(new, name)
    pointers = replace(old, **columns).to_arrow()
    uih = one_array(table[UIH])
    own = struct_fields(uih)
    children = [pointers.field(f.name).cast(f.type) if f.name in columns else own[f.name] for f in uih.type]
    return _with_column(table, UIH, pa.StructArray.from_arrays(children, fields=list(uih.type)))


def _without_recents(table: pa.Table, emptied: NDArray[np.bool_]) -> pa.Table:
    """Without recent events in some rows, in the column's own type."""
    recent = one_array(table[RECENT])
    nothing = pa.array([{field.name: [] for field in recent.type}], recent.type)
    places = np.where(emptied, len(recent), np.arange(len(recent)))
    return _with_column(table, RECENT, take_rows(pa.concat_arrays([recent, nothing]), places))


def _with_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, table.schema.field(at), column)
