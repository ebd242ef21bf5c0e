"""Everything that is ever done to an opened shard, with guards around what is read and what is written.

Any answer will do, for what is in the file is not ours: but each ends, stays in its memory, and where two ways lead to
the same values they agree.
"""

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from choosing import Room, choose
from guarded import Region
from numpy.typing import NDArray
from plain_reader import PlainReader

from latewood.columns import Column, Lists, TraitColumn, compact_lists
from latewood.errors import CorruptionError
from latewood.immutable import desk, resolve
from latewood.pointer import Pointers
from latewood.stripes import (
    Carried,
    ListsOutput,
    Ranges,
    Shard,
    ShardWriter,
    StripeColumn,
    Tables,
    UserRun,
    decode_list_column,
    decode_lists,
    fields_of,
)
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.layout import NEVER_CLEAN, SUPERSEDED_AT, list_columns, superseded_index
from made_shards import same, same_lists, tables_of

Rng = np.random.Generator
EARLIEST, LATEST = -(2**63), 2**63 - 1
SENTINEL = 7


class Memory:
    """The guarded regions that one process uses for case after case."""

    def __init__(self) -> None:
        self.shard, self.values, self.mask, self.desk, self.payload, self.starts, self.items = (
            Region(size) for size in (4 << 20, 1 << 20, 1 << 18, 1 << 16, 4 << 20, 1 << 20, 16 << 20)
        )
        self.room = Room()

    def pool(self, count: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Room for items, as far as there are guards for so many."""
        is_small = count * dtype.itemsize <= 16 << 20
        return self.items.array(dtype, count) if is_small else np.empty(count, dtype)


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
    """Decode, search, pick, look up, measure, resolve, verify, carry."""
    tables, ranges = tables_of(shard), ranges_of(shard, rng)
    for column, of in fields_of(shard.columns):
        decode(tables, ranges, column, memory, rng)
        if of.role == "lengths":
            decode_items(tables, ranges, column, memory, rng)
    choose(tables, shard, memory.room, rng)
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


def decode_items(tables: Tables, ranges: Ranges, column: int, memory: Memory, rng: Rng) -> None:
    """A list trait: parts are parts of the whole, and nothing outside is written, or it is refused."""
    size = 3 + int((ranges.stop - ranges.start).sum())
    at_end = bool(rng.random() < 0.8)
    starts = memory.starts.array(np.int64, size, at_end=at_end)
    lengths = memory.values.array(np.int32, size, at_end=at_end)
    mask = memory.mask.array(np.bool_, size, at_end=at_end)
    starts[:3], lengths[:3], mask[:3] = SENTINEL, SENTINEL, True
    list_size = int(rng.integers(0, 3)) if rng.random() < 0.1 else None
    output = ListsOutput(column, starts, lengths, mask, list_size)
    try:
        items = decode_lists(tables, ranges, output, verify=False, empty=memory.pool).items
    except CorruptionError:
        return
    finally:
        assert (starts[:3] == SENTINEL).all(), "starts before the target were written"
        assert (lengths[:3] == SENTINEL).all(), "lengths before the target were written"
        assert mask[:3].all(), "masks before the target were written"
    assert not lengths[3:][mask[3:]].any(), "a null with items"
    assert list_size is None or (lengths[3:][~mask[3:]] == list_size).all(), "a list of another size"
    assert (starts[3:] == np.cumsum(lengths[3:]) - lengths[3:]).all(), "items that are not back to back"
    assert lengths[3:].sum() == len(items), "items of nobody"
    for user, start, stop, target in zip(*ranges.matrix[1:].tolist(), strict=True):
        whole = int(ranges.target[user]) + start
        part, other = (Lists(items, starts, lengths, mask).slice(at, at + stop - start) for at in (target, whole))
        assert same_lists(part, other), "a part differs from the same part of the whole"


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
        found = resolve.resolve(tables, keys, pointers, LATEST, expired=bool(rng.random() < 0.5))
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
    found = memory.desk.array(np.int64, desk.WORDS)
    found[:] = desk.NOWHERE
    return found


# ---- carrying


def carry(shard: Shard, memory: Memory, rng: Rng) -> None:
    """Into a shard with other columns; what it took over reads as before."""
    fields = [shard.columns[place : place + 1 + (c.role == "lengths")] for place, c in fields_of(shard.columns)[3:]]
    fields = [field for field in fields if field[0].role != "superseded_at" and rng.random() < 0.7]
    kept = [column for i in rng.permutation(len(fields)) for column in fields[i]]
    added = (StripeColumn(1000, "added", "trait", np.dtype(np.int16)), *list_columns(1001, "more", np.dtype(np.int8)))
    columns = (*shard.columns[:3], *kept, *added, SUPERSEDED_AT)
    stripes = rng.integers(1, np.diff(shard.first_stripe), endpoint=True)
    sink = io.BytesIO()
    writer = GuardedWriter(sink, columns, epoch=bytes(16), generation=1, shard=0)
    writer.region = memory.payload
    nothing = [_nothing(columns, place) for place, _ in fields_of(columns)]
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


def _nothing(columns: Sequence[StripeColumn], place: int) -> TraitColumn:
    if columns[place].role == "lengths":
        return compact_lists(np.zeros(0, columns[place + 1].dtype), np.zeros(0, np.int32))
    return Column(np.zeros(0, columns[place].dtype))


def _compare(new: Shard, old: Shard) -> None:
    """The columns that both have, as far as the new one goes."""
    places = {column.id: index for index, column in fields_of(old.columns)}
    sizes = np.diff(new.first_event)
    users = np.arange(new.user_count)
    ranges = Ranges(0 * users, users, 0 * users, sizes, np.cumsum(sizes) - sizes)
    for index, column in fields_of(new.columns):
        if column.id in places:
            assert _column(new, ranges, index) == _column(old, ranges, places[column.id]), "carried, and not the same"
            if column.role == "lengths":
                lists = _lists(new, ranges, index), _lists(old, ranges, places[column.id])
                assert (lists[0] is None) == (lists[1] is None), "carried, and refused only once"
                assert lists[0] is None or lists[1] is None or same_lists(lists[0], lists[1])


def _column(shard: Shard, ranges: Ranges, column: int) -> bytes:
    size = int((ranges.stop - ranges.start).sum())
    values, mask = np.zeros(size, shard.columns[column].dtype), np.zeros(size, np.bool_)
    decode_columns(tables_of(shard), ranges, [Output(column, values, mask)], verify=False)
    return values.tobytes() + mask.tobytes()


def _lists(shard: Shard, ranges: Ranges, column: int) -> Lists | None:
    try:
        size = int((ranges.stop - ranges.start).sum())
        return decode_list_column(tables_of(shard), ranges, column, size, verify=False)
    except CorruptionError:
        return None


# ---- the other reader


def compare_with_plain_reader(data: bytes, shard: Shard) -> None:
    """Bit for bit what the reader that was written from docs/format.md alone reads."""
    reader, tables = PlainReader(data), tables_of(shard)
    for user in range(shard.user_count):
        stop = int(shard.first_event[user + 1] - shard.first_event[user])
        ranges = Ranges(*(np.array([x], np.int64) for x in (0, user, 0, stop, 0)))
        for column, of in fields_of(shard.columns):
            if of.role == "lengths":
                _compare_lists(reader, shard, user, column)
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


def _compare_lists(reader: PlainReader, shard: Shard, user: int, column: int) -> None:
    """Both read the same lists, or both refuse them."""
    stop = int(shard.first_event[user + 1] - shard.first_event[user])
    whole = Ranges(*(np.array([x], np.int64) for x in (0, user, 0, stop, 0)))
    found = _lists(shard, whole, column)
    try:
        expected = reader.lists(user, column)
    except (
        AssertionError,
        IndexError,
    ):  # a checksum that was not mended; an exception's position past the chunk's items
        return
    except ValueError:
        assert found is None, f"the plain reader refuses the lists of {user}, {column}"
        return
    assert found is not None, f"the plain reader does not refuse the lists of {user}, {column}"
    for i, items in enumerate(expected):
        start, length = int(found.starts[i]), int(found.lengths[i])
        is_null = found.mask is not None and bool(found.mask[i])
        assert is_null == (items is None), f"the plain reader disagrees on null: {user}, {column}, {i}"
        assert items is None or found.items[start : start + length].tobytes() == items.tobytes(), (
            f"the plain reader disagrees: {user}, {column}, {i}"
        )
