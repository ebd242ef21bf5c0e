"""Writes one shard file, user by user in key order, in bounded memory: the payload goes straight to the sink, only the
index is kept until the end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from latewood.columns import Lists, TraitColumn
from latewood.errors import CorruptionError
from latewood.events import NEVER
from latewood.lists import LIST_ITEMS_MAX
from latewood.stripes.assemble import (
    BLOCKS,
    DAMAGED,
    EVENTS,
    ITEMSIZE,
    KIND,
    LATEST,
    MASK,
    NOT_THERE,
    OK,
    PAYLOAD_BYTES,
    SCRATCH_WORDS,
    SOURCE,
    STARTS,
    STRIPES,
    UNSORTED,
    VALUES,
    assemble_users,
    measure_carried,
)
from latewood.stripes.encode import kind_of
from latewood.stripes.footer import Footer, Section, header_bytes, padding, trailer_bytes
from latewood.stripes.layout import (
    BLOCK_STRIPES,
    CHUNK_ITEMS,
    DELAY,
    EVENT_TS,
    HEADER_WORD_BYTES,
    NO_COLUMN,
    NULLABLE,
    OFFSET_BITS,
    PAD_BYTES,
    STRIPE_EVENTS,
    StripeColumn,
    fields_of,
    sources,
    superseded_index,
)
from latewood.stripes.runs import ShardSummary, UserRun, plain
from latewood.stripes.superseded import superseded_column

CHUNK_BYTES = 8 << 20  # payload written at a time, unless one user has more
_INDEX = {"users": 5, "stripes": 3, "entries": 1, "checksums": 1}  # uint64 per record


class Sink(Protocol):
    """What storage.writer() gives: something that takes bytes."""

    def write(self, buffer: Any, /) -> object: ...


@dataclass(frozen=True, slots=True)
class _Described:
    """A run as kernels take it. Shapes: columns (columns, 6); users, stripes, tail_stripes (users,)."""

    kept: object  # the arrays that `columns` has the addresses of
    columns: NDArray[np.uint64]
    old: np.uint64  # the address of the old shard's table row, or 0
    users: NDArray[np.int64]
    stripes: NDArray[np.int64]  # carried ones
    tail_stripes: NDArray[np.int64]


class ShardWriter:
    """Streams one shard to a sink, users in key order.

    Args:
        writer: takes the bytes; opening and closing it is its owner's.
        columns: of the shard, as `columns_of(schema)` gives them.
        user_type: int64 or string; where it is not given the first run says.
    """

    def __init__(
        self,
        writer: Sink,
        columns: Sequence[StripeColumn],
        *,
        epoch: bytes,
        generation: int,
        shard: int,
        user_type: pa.DataType | None = None,
    ) -> None:
        self._writer, self._columns = writer, tuple(columns)
        self._epoch, self._generation, self._shard = epoch, generation, shard
        self._totals = np.zeros(5, np.uint64)
        self._totals[LATEST] = 1 << 63  # the smallest int64
        self._column_bytes = np.zeros(len(self._columns), np.uint64)
        self._index: dict[str, list[NDArray[np.uint64]]] = {name: [] for name in _INDEX}
        self._user_ids: list[pa.Array] = []
        self._user_type = user_type
        self._last_key = (-1, -1)
        self._payload = np.empty(0, np.uint8)
        self._scratch = np.zeros(SCRATCH_WORDS, np.uint64)
        self._fields = fields_of(self._columns)
        self._row_bytes = sum(column.dtype.itemsize for _, column in self._fields)
        self._position = 0
        self._write(header_bytes())

    def add(self, run: UserRun) -> None:
        """Write users that come after all earlier ones.

        Raises:
            ValueError: users or times are unsorted, a user without events, or arrays that do not fit the columns.
            CorruptionError: a block that was to be carried in part is damaged.
        """
        run = self._complete(run)
        self._check(run)
        carried = run.carried
        users = carried.user if carried else np.full(len(run.keys.hash), -1, np.int64)
        stripes = np.where(users >= 0, carried.stripes, 0) if carried else np.zeros(len(users), np.int64)
        if ((np.diff(run.offsets) == 0) & (stripes == 0)).any():
            nobody = int(np.argmax((np.diff(run.offsets) == 0) & (stripes == 0)))
            raise ValueError(f"user {run.user_ids[nobody]} has no events")
        of = self._describe(run, users, stripes)
        ends = np.cumsum(self._room(run, of))
        first = 0
        while first < len(users):
            began = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, began + CHUNK_BYTES, side="right")), first + 1)
            self._reserve(int(ends[last - 1]) - began)
            self._assemble(run, of, first, last)
            first = last
        self._user_ids.append(run.user_ids)

    def finish(self) -> ShardSummary:
        """Write the index and the footer; the sink is left open."""
        self._write(bytes(PAD_BYTES))
        self._add_sentinels()
        sections = {name: self._section(parts) for name, parts in self._index.items()}
        user_type = self._user_type or (self._user_ids[0].type if self._user_ids else pa.int64())
        user_ids = pa.chunked_array(self._user_ids, user_type)
        is_text = not pa.types.is_integer(user_type)
        for name, parts in (_text_parts(user_ids) if is_text else _integer_parts(user_ids)).items():
            sections[name] = self._section(parts)
        self._write(bytes(padding(self._position)))
        users = sum(len(ids) for ids in self._user_ids)
        totals = self._totals[:LATEST].tolist()
        counts = dict(zip(("events", "stripes", "blocks", "payload_bytes"), totals, strict=True))
        latest = int(self._totals[LATEST].astype(np.int64)) if counts["events"] else None
        footer = Footer(
            self._epoch, self._generation, self._shard, {"users": users} | counts, latest,
            self._columns, tuple(self._column_bytes.tolist()), "string" if is_text else "int64", sections,
        ).to_bytes()  # fmt: skip
        self._write(footer)
        self._write(trailer_bytes(footer))
        return ShardSummary(
            self._position, counts["events"], users, counts["stripes"], latest,
            xxhash.xxh3_64_intdigest(footer),
        )  # fmt: skip

    def _complete(self, run: UserRun) -> UserRun:
        """With the column superseded_at, which a run may leave out where none of its events is."""
        if superseded_index(self._columns) is None or len(run.columns) != len(self._fields) - 1:
            return run
        return replace(run, columns=[*run.columns, superseded_column(None, int(run.offsets[-1]))])

    def _check(self, run: UserRun) -> None:
        """Everything that kernels take for granted."""
        users, columns, fields = len(run.keys.hash), self._columns, self._fields
        if not (len(run.user_ids) == len(run.keys.check) == users == len(run.offsets) - 1):
            raise ValueError("user ids, keys and offsets of a run belong together")
        if len(run.columns) != len(fields):
            raise ValueError(f"a run of {len(run.columns)} columns for a shard of {len(fields)}")
        offsets = run.offsets
        rows = int(offsets[-1])
        if offsets.dtype != np.int64 or offsets[0] < 0 or (np.diff(offsets) < 0).any():
            raise ValueError("offsets are int64 and do not decrease")
        for (place, column), given in zip(fields, run.columns, strict=True):
            dtype = columns[place + 1].dtype if column.role == "lengths" else column.dtype
            if given.dtype != dtype or given.event_count < rows:
                raise ValueError(f"column {column.name!r} takes {rows} values of {dtype}, not {given.dtype}")
            if isinstance(given, Lists) != (column.role == "lengths"):
                raise ValueError(f"column {column.name!r} is {column.role}")
            mask = given.mask
            if mask is not None and (column.role not in NULLABLE or mask.dtype != np.bool_ or len(mask) < rows):
                raise ValueError(f"column {column.name!r} takes no such mask")
            if isinstance(given, Lists):
                _check_lists(given.slice(int(offsets[0]), rows), column.name)
        if users:
            _check_sorted(run.keys.hash, run.keys.check, self._last_key)
            self._last_key = (int(run.keys.hash[-1]), int(run.keys.check[-1]))
        if superseded_index(columns) is not None:
            _check_superseded(run.columns, int(offsets[0]), rows)
        carried = run.carried
        if carried is None:
            return
        if superseded_index(columns) is None and superseded_index(carried.shard.columns) is not None:
            raise ValueError("stripes of a shard with superseded events are carried to one that has such, too")
        if len(carried.user) != users or len(carried.stripes) != users:
            raise ValueError("carried users stand beside the users of the run")
        known = carried.user >= 0
        if (carried.user >= carried.shard.user_count).any() or (carried.stripes[known] < 0).any():
            raise ValueError("carried users or stripes that are not there")
        old = carried.shard.keys.take(carried.user[known])
        if (old.hash != run.keys.hash[known]).any() or (old.check != run.keys.check[known]).any():
            raise ValueError("carried stripes are of another user")

    def _reserve(self, size_bytes: int) -> None:
        if len(self._payload) < size_bytes:
            self._payload = np.empty(size_bytes, np.uint8)

    def _describe(self, run: UserRun, users: NDArray[np.int64], stripes: NDArray[np.int64]) -> "_Described":
        arrays = [array for column in run.columns for array in _stored_arrays(column)]
        described = np.zeros((len(arrays), 6), np.uint64)
        places = sources(self._columns, run.carried.shard.columns if run.carried else ())
        for row, (values, mask, starts), place in zip(described, arrays, places, strict=True):
            row[VALUES], row[MASK] = values.ctypes.data, 0 if mask is None else mask.ctypes.data
            row[ITEMSIZE], row[SOURCE], row[KIND] = values.itemsize, place, kind_of(values.dtype)
            row[STARTS] = 0 if starts is None else starts.ctypes.data
        old = np.uint64(run.carried.shard.table.ctypes.data if run.carried else 0)
        tail_stripes = (np.diff(run.offsets) + STRIPE_EVENTS - 1) // STRIPE_EVENTS
        users, stripes = np.ascontiguousarray(users), np.ascontiguousarray(stripes)
        return _Described(arrays, described, old, users, stripes, tail_stripes)

    def _room(self, run: UserRun, of: "_Described") -> NDArray[np.int64]:
        """How many bytes each user can take at most: those carried as they are, and what encoding may reach into."""
        carried = np.zeros(len(of.users), np.int64)
        if run.carried is not None:
            measure_carried(of.old, of.users, of.stripes, of.columns, carried)
        bitmaps = len(self._fields) * STRIPE_EVENTS // 8
        room = carried + np.diff(run.offsets) * self._row_bytes + of.tail_stripes * bitmaps + PAD_BYTES
        for column in run.columns:
            if isinstance(column, Lists):
                items = np.diff(column.offsets[run.offsets])
                room += items * column.dtype.itemsize + HEADER_WORD_BYTES * (items // CHUNK_ITEMS + 2 * of.tail_stripes)
        return room

    def _assemble(self, run: UserRun, of: "_Described", first: int, last: int) -> None:
        stripes_after = (of.stripes + of.tail_stripes)[first:last]
        count, stripes = len(self._columns), int(stripes_after.sum())
        blocks = int(((stripes_after + BLOCK_STRIPES - 1) // BLOCK_STRIPES).sum())
        superseded = superseded_index(self._columns)
        users, records = np.empty((last - first, 5), np.uint64), np.empty((stripes, 3), np.uint64)
        entries, checksums = np.empty(stripes * count, np.uint64), np.empty(blocks * count, np.uint64)
        before, where = int(self._totals[PAYLOAD_BYTES]), np.zeros(2, np.int64)
        status = assemble_users(
            first, last, np.ascontiguousarray(run.offsets), np.ascontiguousarray(run.keys.hash),
            np.ascontiguousarray(run.keys.check), of.columns, np.uint64(NO_COLUMN if superseded is None else superseded),
            of.old, of.users, of.stripes, self._totals, self._payload, users, records, entries, checksums,
            self._column_bytes, self._scratch, where,
        )  # fmt: skip
        if status != OK:
            raise self._refusal(status, run, where)
        written = int(self._totals[PAYLOAD_BYTES]) - before
        if before + written >= 1 << OFFSET_BITS:
            raise ValueError("a shard holds at most 1 TiB: use more shards")
        self._write(self._payload[:written].data)
        for name, part in (("users", users), ("stripes", records), ("entries", entries), ("checksums", checksums)):
            self._index[name].append(part)

    def _refusal(self, status: int, run: UserRun, where: NDArray[np.int64]) -> Exception:
        user = run.user_ids[int(where[0])].as_py()
        if status == DAMAGED and run.carried:
            name = self._columns[int(where[1])].name
            return CorruptionError(
                f"{run.carried.shard.key}: user {user!r}, column {name!r}: a block to be carried is not as written"
            )
        if status == NOT_THERE:
            return ValueError(f"user {user!r}: stripes are carried that are not there, or a partial one with a tail")
        assert status == UNSORTED
        return ValueError(f"user {user!r}: events are not sorted by event_ts")

    def _add_sentinels(self) -> None:
        users = sum(len(ids) for ids in self._user_ids)
        assert users == sum(len(part) for part in self._index["users"])
        top = np.array([(1 << 64) - 1] * 2 + self._totals[[EVENTS, STRIPES, BLOCKS]].tolist(), np.uint64)
        self._index["users"].append(top)
        self._index["entries"].append(self._totals[PAYLOAD_BYTES : PAYLOAD_BYTES + 1])

    def _section(self, parts: Iterable[NDArray[Any]]) -> Section:
        """Write one section at an aligned position."""
        self._write(bytes(padding(self._position)))
        offset, digest = self._position, xxhash.xxh3_64()
        for part in parts:
            data = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            digest.update(data)
            self._write(data)
        return Section(offset, self._position - offset, digest.intdigest())

    def _write(self, data: bytes | memoryview) -> None:
        if len(data):
            self._writer.write(data)
            self._position += len(data)


def _stored_arrays(
    column: TraitColumn,
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None, NDArray[np.int64] | None]]:
    """Of each column of the shard that a column of a run becomes: values, mask, and the starts where they are items."""
    mask = None if column.mask is None else np.ascontiguousarray(column.mask)
    if not isinstance(column, Lists):
        yield np.ascontiguousarray(column.values), mask, None
        return
    yield np.ascontiguousarray(column.lengths), mask, None
    # one at least: that there is an address of starts tells kernels what the column is
    starts = column.starts if column.event_count else np.zeros(1, np.int64)
    yield np.ascontiguousarray(column.items), None, np.ascontiguousarray(starts)


def _check_lists(lists: Lists, name: str) -> None:
    """That every list lies in the pool, and that nulls have no items."""
    items, starts, lengths, mask = lists
    if starts.dtype != np.int64 or lengths.dtype != np.int32 or len(starts) != len(lengths):
        raise ValueError(f"column {name!r} takes starts of int64 and as many lengths of int32")
    if not len(lengths):
        return
    if lengths.min() < 0 or lengths.max() > LIST_ITEMS_MAX:
        raise ValueError(f"column {name!r}: a list has 0 to {LIST_ITEMS_MAX:,} items")
    used = lengths > 0
    if (starts[used] < 0).any() or (starts[used] > len(items) - lengths[used]).any():
        raise ValueError(f"column {name!r}: a list that lies outside the items")
    if mask is not None and (used & mask).any():
        raise ValueError(f"column {name!r}: a null has items")


def _check_sorted(hashes: NDArray[np.uint64], checks: NDArray[np.uint64], last: tuple[int, int]) -> None:
    ascending = (hashes[1:] > hashes[:-1]) | ((hashes[1:] == hashes[:-1]) & (checks[1:] > checks[:-1]))
    if not ascending.all() or (int(hashes[0]), int(checks[0])) <= last:
        raise ValueError("users are written once each, in the order of their keys")


def _check_superseded(columns: Sequence[TraitColumn], start: int, stop: int) -> None:
    """An event is superseded by a version that came no earlier, at a time that is not NEVER."""
    event_ts, delay, (values, mask) = (plain(column) for column in (columns[EVENT_TS], columns[DELAY], columns[-1]))
    rows = np.arange(start, stop) if mask is None else np.flatnonzero(~mask[start:stop]) + start
    ingest_ts = event_ts.values[rows] + delay.values[rows]
    if (values[rows] < ingest_ts).any() or (values[rows] == NEVER).any():
        raise ValueError("an event is superseded no earlier than it was ingested, and not at the end of time")


def _integer_parts(user_ids: pa.ChunkedArray) -> dict[str, list[NDArray[Any]]]:
    return {"user_ids": [chunk.to_numpy() for chunk in user_ids.chunks]}


def _text_parts(user_ids: pa.ChunkedArray) -> dict[str, list[NDArray[Any]]]:
    """Offsets and bytes of text, as of one array."""
    offsets, data, total = [np.zeros(1, np.int64)], [], 0
    for chunk in user_ids.cast(pa.large_string()).chunks:
        if not len(chunk):
            continue
        places = np.frombuffer(chunk.buffers()[1], np.int64, len(chunk) + 1, chunk.offset * 8)
        offsets.append(places[1:] - places[0] + total)
        if chunk.buffers()[2] is not None:
            data.append(np.frombuffer(chunk.buffers()[2], np.uint8)[places[0] : places[-1]])
        total += int(places[-1] - places[0])
    return {"user_offsets": offsets, "user_bytes": data}
