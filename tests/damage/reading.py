"""Everything that is ever done to an opened shard, with guards around what is read and what is written.

Any answer will do, for what is in the file is not ours: but each ends, stays in its memory, and where two ways lead to
the same values they agree.
"""

import io
from functools import partial
from typing import Any

import numpy as np
from guarded import Region
from numpy.typing import NDArray
from plain_reader import PlainReader

from latewood.columns import Column
from latewood.errors import CorruptionError
from latewood.immutable import desk, resolve
from latewood.pointer import Pointers
from latewood.stripes import Carried, Ranges, Shard, ShardWriter, StripeColumn, Tables, UserRun
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.layout import NEVER_CLEAN, SUPERSEDED_AT, superseded_index
from made_shards import same, tables_of

Rng = np.random.Generator
EARLIEST, LATEST = -(2**63), 2**63 - 1
SENTINEL = 7


class Memory:
    """The guarded regions that one process uses for case after case."""

    def __init__(self) -> None:
        self.shard, self.values, self.mask, self.desk, self.payload = (
            Region(size) for size in (1 << 20, 1 << 20, 1 << 18, 1 << 16, 4 << 20)
        )


class OneFile:
    """As a storage with one object, whatever its key."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data = data

    def map(self, key: str) -> NDArray[np.uint8]:
        return self._data


class GuardedWriter(ShardWriter):
    """Writes payloads into guarded memory first."""

    region: Region

    def _reserve(self, size_bytes: int) -> None:
        self._payload = self.region.array(np.uint8, size_bytes)


def open_guarded(data: bytes, memory: Memory, rng: Rng) -> Shard:
    """Raises: CorruptionError, SchemaError: refused."""
    array = memory.shard.file(data, at_end=bool(rng.random() < 0.8))
    return Shard.open(OneFile(array), "shard")  # type: ignore[arg-type]


def read_all(shard: Shard, memory: Memory, rng: Rng) -> None:
    """Decode, look up, measure, resolve, verify, carry."""
    tables, ranges = tables_of(shard), ranges_of(shard, rng)
    for column in range(len(shard.columns)):
        decode(tables, ranges, column, memory, rng)
    check_superseded(shard)
    ids_are_text = _is_fine(lambda: shard.user_ids)
    _is_fine(lambda: shard.locate(shard.keys))
    _is_fine(shard.verify)
    ask(tables, shard, memory, rng)
    if ids_are_text and shard.user_count:
        carry(shard, memory, rng)


def _is_fine(action: Any) -> bool:
    try:
        action()
    except CorruptionError:
        return False
    return True


# ---- decoding


def ranges_of(shard: Shard, rng: Rng) -> Ranges:
    """Whole users, and parts of some, one after the other behind three places that stay free."""
    counts = np.diff(shard.first_event)
    users = np.concatenate([np.arange(len(counts)), rng.integers(0, max(1, len(counts)), 4 if len(counts) else 0)])
    ends = np.sort(rng.integers(0, counts[users][:, None] + 1, (len(users), 2)), axis=1)
    ends[: len(counts)] = np.stack([np.zeros_like(counts), counts], axis=1)
    sizes = ends[:, 1] - ends[:, 0]
    return Ranges(
        np.zeros(len(users), np.int64), users, ends[:, 0].copy(), ends[:, 1].copy(), 3 + np.cumsum(sizes) - sizes
    )


def decode(tables: Tables, ranges: Ranges, column: int, memory: Memory, rng: Rng) -> None:
    """One column: its parts are parts of the whole, and nothing outside is written."""
    size = 3 + int((ranges.stop - ranges.start).sum())
    at_end = bool(rng.random() < 0.8)
    values = memory.values.array(tables.columns[column].dtype, size, at_end=at_end)
    mask = memory.mask.array(np.bool_, size, at_end=at_end)
    values[:3], mask[:3] = SENTINEL, True
    output = Output(column, values, mask)
    if rng.random() < 0.5:
        _is_fine(lambda: decode_columns(tables, ranges, [output]))
    nulls = decode_columns(tables, ranges, [output], verify=False).nulls[0]
    assert (values[:3] == np.array(SENTINEL).astype(values.dtype)).all(), "values before the target were written"
    assert mask[:3].all(), "masks before the target were written"
    assert nulls or not mask[3:].any(), "nulls that were not announced"
    for user, start, stop, target in zip(*ranges.matrix[1:].tolist(), strict=True):
        whole = int(ranges.target[user]) + start  # the first ranges are whole users
        for array in (values, mask):
            part, other = array[target : target + stop - start], array[whole : whole + stop - start]
            assert part.tobytes() == other.tobytes(), "a part differs from the same part of the whole"


def check_superseded(shard: Shard) -> None:
    """Where a stripe's record does not say otherwise, none of its events is superseded: kernels do not look."""
    index = superseded_index(shard.columns)
    for user in range(shard.user_count) if index is not None else ():
        first, last = shard.first_stripe[user : user + 2].tolist()
        count = int(shard.first_event[user + 1] - shard.first_event[user])
        values, mask = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        whole = Ranges(*(np.array([x], np.int64) for x in (0, user, 0, count, 0)))
        decode_columns(tables_of(shard), whole, [Output(index or 0, values, mask)], verify=False)
        for stripe in np.flatnonzero(shard.latest_ingests[first:last] != NEVER_CLEAN).tolist():
            assert mask[256 * stripe : 256 * (stripe + 1)].all(), "a superseded event in a clean stripe"


# ---- pointers


def ask(tables: Tables, shard: Shard, memory: Memory, rng: Rng) -> None:
    """Measure what requests see, resolve the pointers made of it, find rows."""
    count = shard.user_count
    if not count:
        return
    n = 12
    user = rng.integers(-1, count, n)
    located = resolve.Located(np.zeros(n, np.int64), user)
    keys = shard.keys.take(np.maximum(user, 0))
    first_ts, latest = shard.first_ts, shard.latest_ingests
    end_ts = _near(rng, first_ts, n)
    watermark = _near(rng, latest, n)
    tie_ingest, tie_ordinal = _near(rng, latest, n), rng.integers(-1, 3, n).astype(np.int32)
    desk.new_desk = lambda: _fresh_desk(memory)
    try:
        measured = resolve.measure(tables, keys, located, end_ts, watermark, tie_ingest, tie_ordinal)
        pointers = Pointers(
            bytes(16), watermark, measured.start_ts, end_ts, measured.end_ties, measured.length, measured.checksum
        )
        found = resolve.resolve(tables, keys, located, pointers, LATEST, expired=bool(rng.random() < 0.5))
        assert ((found.start >= 0) & (found.start <= found.stop)).all(), "a hull that is none"
        events = np.diff(shard.first_event)[np.maximum(user, 0)]
        assert (found.stop <= np.where(user < 0, 0, events)).all(), "a hull outside the user's events"
        assert (found.runs.counts == found.count).all(), "runs of other rows than were counted"
        rows = resolve.find_rows(tables, located, end_ts, tie_ingest, np.zeros(n, np.int64), watermark)
        assert (rows < events).all(), "a row that is not there"
    except CorruptionError:
        pass


def _near(rng: Rng, times: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Times like these, a little before or after, and the ends of time."""
    near = rng.choice(times, n) + rng.integers(-2, 10**6, n)
    return np.where(rng.random(n) < 0.2, rng.choice(np.array([EARLIEST, -1, 0, LATEST], np.int64), n), near)


def _fresh_desk(memory: Memory) -> NDArray[np.int64]:
    found = memory.desk.array(np.int64, desk.FIRST_NOTE + 5)
    found[:] = desk.NOWHERE
    return found


# ---- carrying


def carry(shard: Shard, memory: Memory, rng: Rng) -> None:
    """Into a shard with other columns; what it took over reads as before."""
    kept = list(shard.columns[3:])
    kept = [c for c in kept if c.role == "trait" and rng.random() < 0.7]
    kept = [kept[i] for i in rng.permutation(len(kept))]
    columns = (*shard.columns[:3], *kept, StripeColumn(1000, "added", "trait", np.dtype(np.int16)), SUPERSEDED_AT)
    stripes = rng.integers(1, np.diff(shard.first_stripe), endpoint=True)
    sink = io.BytesIO()
    writer = GuardedWriter(sink, columns, epoch=bytes(16), generation=1, shard=0)
    writer.region = memory.payload
    nothing = [Column(np.zeros(0, c.dtype)) for c in columns]
    users = np.arange(shard.user_count)
    try:
        writer.add(
            UserRun(
                shard.user_ids, shard.keys, np.zeros(len(users) + 1, np.int64), nothing, Carried(shard, users, stripes)
            )
        )
        writer.finish()
    except CorruptionError:
        return  # a block to be carried in part, or one with superseded events
    carried = Shard.open(OneFile(np.frombuffer(sink.getvalue(), np.uint8)), "carried")  # type: ignore[arg-type]
    _compare(carried, shard)


def _compare(new: Shard, old: Shard) -> None:
    """The columns that both have, as far as the new one goes."""
    places = {column.id: index for index, column in enumerate(old.columns)}
    sizes = np.diff(new.first_event)
    users = np.arange(new.user_count)
    ranges = Ranges(0 * users, users, 0 * users, sizes, np.cumsum(sizes) - sizes)
    for index, column in enumerate(new.columns):
        if column.id in places:
            assert _column(new, ranges, index) == _column(old, ranges, places[column.id]), "carried, and not the same"


def _column(shard: Shard, ranges: Ranges, column: int) -> bytes:
    size = int((ranges.stop - ranges.start).sum())
    values, mask = np.zeros(size, shard.columns[column].dtype), np.zeros(size, np.bool_)
    decode_columns(tables_of(shard), ranges, [Output(column, values, mask)], verify=False)
    return values.tobytes() + mask.tobytes()


# ---- the other reader


def compare_with_plain_reader(data: bytes, shard: Shard) -> None:
    """Bit for bit what the reader that was written from docs/format.md alone reads."""
    reader, tables = PlainReader(data), tables_of(shard)
    for user in range(shard.user_count):
        stop = int(shard.first_event[user + 1] - shard.first_event[user])
        ranges = Ranges(*(np.array([x], np.int64) for x in (0, user, 0, stop, 0)))
        for column, of in enumerate(shard.columns):
            values, mask = np.zeros(stop, of.dtype), np.zeros(stop, np.bool_)
            if not _is_fine(partial(decode_columns, tables, ranges, [Output(column, values, mask)])):
                continue  # a block whose checksum was not mended
            try:
                expected, nulls = reader.column(user, column)
            except IndexError:  # an exception's position past the stripe's events: the values are undefined
                continue
            assert same(Column(values, mask), expected, np.array(nulls)), (
                f"the plain reader disagrees: {user}, {of.name}"
            )
