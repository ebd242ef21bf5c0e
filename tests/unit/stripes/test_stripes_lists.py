"""Lists in stripes: written from any pool, read back by any range, and refused where lengths and items do not fit."""

import itertools
from typing import Any

import numpy as np
import pytest

from forged_shards import ForgedShard
from latewood.columns import Column, Lists, compact_lists
from latewood.errors import CorruptionError
from latewood.lists import LIST_ITEMS_MAX
from latewood.stripes import ListsOutput, Ranges, columns_of, decode_lists
from latewood.stripes.layout import are_possible
from made_shards import (
    all_lists,
    columns_for,
    decode_user,
    decode_user_lists,
    open_bytes,
    random_columns,
    ranges_of,
    run_of,
    same,
    same_lists,
    tables_of,
    take,
    write_shard,
)

LENGTHS = {5: 1, -7: 256, 2**62: 257, 11: 3, 12: 5000, 13: 512, 14: 600}
COLUMNS = columns_for(all_lists() | {"plain": np.int64}, superseded=True)
FIELDS = [place for place, column in enumerate(COLUMNS) if column.role != "items"]


@pytest.fixture(scope="module")
def users() -> dict[Any, list[Any]]:
    rng = np.random.default_rng(7)
    return {user: random_columns(rng, count, COLUMNS) for user, count in LENGTHS.items()}


@pytest.fixture(scope="module")
def shard(users):
    return open_bytes(write_shard(COLUMNS, run_of(users))[0])


def check(shard, index: int, place: int, expected: Any, start: int = 0, stop: int | None = None) -> None:
    stop = expected.event_count if stop is None else stop
    expected = expected.slice(start, stop)
    if isinstance(expected, Lists):
        assert same_lists(decode_user_lists(shard, index, place, start, stop), expected), COLUMNS[place].name
    else:
        assert same(decode_user(shard, index, place, start, stop), expected.values, expected.mask)


def test_lists_come_back(users, shard) -> None:
    shard.verify()
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for place, expected in zip(FIELDS, users[user], strict=True):
            check(shard, index, place, expected)


def test_any_range_comes_back(users, shard) -> None:
    rng = np.random.default_rng(3)
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for place, expected in zip(FIELDS, users[user], strict=True):
            for _ in range(6):
                start, stop = np.sort(rng.integers(0, LENGTHS[user] + 1, 2)).tolist()
                check(shard, index, place, expected, start, stop)


def test_many_ranges_are_decoded_into_one_pool(users, shard) -> None:
    rng, ids = np.random.default_rng(4), shard.user_ids.to_pylist()
    parts = []
    for user in rng.integers(0, len(ids), 40).tolist():
        start, stop = np.sort(rng.integers(0, LENGTHS[ids[user]] + 1, 2)).tolist()
        parts.append((0, user, start, stop))
    ranges = ranges_of(*parts)
    size = int((ranges.stop - ranges.start).sum())
    spread = Ranges(*ranges.matrix[:4], ranges.target + 5)  # places before and after stay as they are
    for place, of in enumerate(users[5]):
        if not isinstance(of, Lists):
            continue
        starts, lengths, mask = np.full(size + 9, -1), np.full(size + 9, -1, np.int32), np.ones(size + 9, np.bool_)
        output = ListsOutput(FIELDS[place], starts, lengths, mask)
        decoded = decode_lists(tables_of(shard), spread, output)
        for array in (starts, lengths):
            assert (array[:5] == -1).all()
            assert (array[-4:] == -1).all()
        for (_, user, start, stop), target in zip(parts, spread.target.tolist(), strict=True):
            rows = slice(target, target + stop - start)
            found = Lists(decoded.items, starts[rows], lengths[rows], mask[rows])
            assert same_lists(found, users[ids[user]][place].slice(start, stop))
        assert len(decoded.items) == lengths[5:-4].sum()
        assert decoded.size_bytes > 0


def test_without_a_mask_a_null_is_empty(users, shard) -> None:
    size = LENGTHS[12]
    index = shard.user_ids.to_pylist().index(12)
    for place, expected in zip(FIELDS, users[12], strict=True):
        if isinstance(expected, Lists):
            output = ListsOutput(place, np.zeros(size, np.int64), np.zeros(size, np.int32))
            decoded = decode_lists(tables_of(shard), ranges_of((0, index, 0, size)), output, verify=False)
            found = Lists(decoded.items, output.starts, output.lengths, expected.mask)
            assert same_lists(found, expected)
            assert decoded.nulls == (expected.mask is not None and bool(expected.mask.any()))


def one_list(items: Any, length: int, events: int = 300) -> Lists:
    return compact_lists(items, np.full(events, length, np.int32))


def small(lists: Lists) -> dict[Any, list[Any]]:
    return {1: [*random_columns(np.random.default_rng(1), lists.event_count, columns_for({})), lists]}


def shard_of(lists: Lists) -> bytes:
    return write_shard(columns_for({"tags": [lists.dtype]}), run_of(small(lists)))[0]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 100_000])
def test_one_event_may_have_any_number_of_items(count: int) -> None:
    items = np.random.default_rng(count).integers(0, 2**40, count)
    lengths = np.array([0, count, 0], np.int32)
    lists = Lists(items, np.array([0, 0, count]), lengths, np.array([True, False, False]))
    shard = open_bytes(shard_of(lists))
    assert same_lists(decode_user_lists(shard, 0, 3), lists)
    assert same_lists(decode_user_lists(shard, 0, 3, 2), lists.slice(2, 3))


def test_floats_keep_their_bits() -> None:
    bits = np.array([0x7FF8_0000_0000_0001, 1 << 63, 0, 0xFFF0_0000_0000_0000, 0x7FF4_0000_0000_0000], np.uint64)
    lists = one_list(np.tile(bits, 300).view(np.float64), 5)
    assert same_lists(decode_user_lists(open_bytes(shard_of(lists)), 0, 3), lists)


def test_lists_of_one_size_cost_nothing_for_their_lengths() -> None:
    lists = one_list(np.arange(1200, dtype=np.int64), 4)
    shard = open_bytes(shard_of(lists))
    assert shard.footer.column_bytes[3] <= 16  # a reference in each of two stripes
    assert same_lists(decode_user_lists(shard, 0, 3, list_size=4), lists)
    with pytest.raises(CorruptionError, match=r"'tags', stripe 0: the items are not as the lengths say"):
        decode_user_lists(shard, 0, 3, list_size=5)


def test_a_null_has_no_size() -> None:
    mask = np.arange(300) % 7 == 0
    lists = compact_lists(np.arange(int(4 * (~mask).sum())), np.where(mask, 0, 4).astype(np.int32), mask)
    assert same_lists(decode_user_lists(open_bytes(shard_of(lists)), 0, 3, list_size=4), lists)


def test_the_writer_refuses_lists_that_are_none() -> None:
    good = one_list(np.arange(600), 2)
    short, none = good.lengths.copy(), np.ones(300, np.bool_)
    short[7] = -1
    for bad, words in [
        (good._replace(lengths=short), "0 to"),
        (good._replace(lengths=np.full(300, LIST_ITEMS_MAX + 1, np.int32)), "0 to"),
        (good._replace(starts=good.starts + 1), "outside the items"),
        (good._replace(starts=good.starts - 1), "outside the items"),
        (good._replace(mask=none), "a null has items"),
        (good._replace(lengths=good.lengths.astype(np.int64)), "int32"),
        (good._replace(items=good.items.astype(np.int32)), "takes 300 values"),
        (Column(good.items[:300]), "is lengths"),
    ]:
        users = small(good)
        users[1][3] = bad
        with pytest.raises(ValueError, match=words):
            write_shard(columns_for({"tags": [np.int64]}), run_of(users))


# ---- carrying


def test_lists_are_carried_as_bytes(users, shard) -> None:
    ids = shard.user_ids.to_pylist()
    whole = {user: LENGTHS[user] // 256 for user in ids}
    tails = {user: [take(c, np.arange(256 * whole[user], LENGTHS[user])) for c in users[user]] for user in ids}
    places = {user: (ids.index(user), whole[user]) for user in ids}
    data = write_shard(COLUMNS, run_of(tails, places, shard))[0]
    assert data == write_shard(COLUMNS, run_of(users))[0]


def test_a_list_trait_comes_and_goes(users, shard) -> None:
    """Carried stripes are null for one that the old shard did not have."""
    ids = shard.user_ids.to_pylist()
    kept = [COLUMNS[place] for place in range(3, 9)]
    new = columns_for({"a": [np.int16]}, superseded=True)[3:5]
    new = tuple(type(column)(99, column.name, column.role, column.dtype) for column in new)
    columns = (*COLUMNS[:3], *kept[2:], *new, *kept[:2], COLUMNS[-1])
    assert are_possible(columns)
    nothing = {
        user: [take(users[user][i], slice(0, 0)) for i in (0, 1, 2, 4, 5)]
        + [one_list(np.zeros(0, np.int16), 0, 0)]
        + [take(users[user][i], slice(0, 0)) for i in (3, -1)]
        for user in ids
    }
    places = {user: (ids.index(user), -(-LENGTHS[user] // 256)) for user in ids}
    carried = open_bytes(write_shard(columns, run_of(nothing, places, shard))[0], columns=columns)
    carried.verify()
    for index, user in enumerate(carried.user_ids.to_pylist()):
        null = decode_user_lists(carried, index, 7)
        assert null.mask is not None
        assert null.mask.all()
        assert not null.lengths.any()
        for place, of in ((3, 4), (5, 5), (9, 3)):
            assert same_lists(decode_user_lists(carried, index, place), users[user][of])


# ---- columns


def test_lengths_and_items_stand_together() -> None:
    columns = columns_for({"a": [np.int8], "b": np.int8}, superseded=True)
    assert are_possible(columns)
    for order in ([0, 1, 2, 4, 3, 5, 6], [0, 1, 2, 3, 5, 4, 6], [0, 1, 2, 3, 5, 6], [0, 1, 2, 4, 5, 6]):
        assert not are_possible([columns[i] for i in order])
    assert not are_possible([*columns[:6], *columns[3:]])


def test_the_schema_s_columns_are_possible() -> None:
    import pyarrow as pa

    import latewood as lw

    schema = lw.Schema(
        user_id=pa.int64(),
        traits=pa.schema([("tags", pa.list_(pa.string())), ("x", pa.int8()), ("v", pa.list_(pa.float32(), 8))]),
    )
    columns = columns_of(schema)
    assert [(c.id, c.role, c.dtype.name) for c in columns[3:-1]] == [
        (0, "lengths", "int32"), (0, "items", "int32"), (1, "trait", "int8"), (2, "lengths", "int32"),
        (2, "items", "float32"),
    ]  # fmt: skip
    assert are_possible(columns)


# ---- damage


def forge(lists: Lists, change: Any) -> Any:
    """A shard with the first stripe of items changed, or with other lengths, and all checksums right."""
    forged = ForgedShard(shard_of(lists))
    starts = (forged.entries & np.uint64((1 << 40) - 1)).tolist()
    entries = [int(entry) & ~((1 << 40) - 1) for entry in forged.entries[:-1]]
    parts = [forged.payload[a:b].tobytes() for a, b in itertools.pairwise(starts)]
    at = forged.entry(0, 4, 0)
    parts[at] = change(parts[at])
    forged.replace_payload(parts, entries)
    return forged.seal()


def word(data: bytes, place: int) -> int:
    return int.from_bytes(data[4 * place : 4 * place + 4], "little")


def with_word(data: bytes, place: int, value: int) -> bytes:
    return data[: 4 * place] + value.to_bytes(4, "little") + data[4 * place + 4 :]


CHANGES = {
    "no bytes": lambda data: b"",
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "half a header": lambda data: data[:6],
    "more items": lambda data: with_word(data, 0, word(data, 0) + 1),
    "fewer items": lambda data: with_word(data, 0, word(data, 0) - 1),
    "another width": lambda data: with_word(data, 1, word(data, 1) ^ 1 << 3),
    "nulls": lambda data: with_word(data, 2, word(data, 2) | 1 << 21),
    "lists of lists": lambda data: with_word(data, 1, 6),
    "nothing but nulls": lambda data: with_word(data, 1, 5 | 1 << 21),
    "times": lambda data: with_word(data, 1, word(data, 1) | 2),
    "a high bit": lambda data: with_word(data, 1, word(data, 1) | 1 << 31),
    "the bit above": lambda data: with_word(data, 1, word(data, 1) | 1 << 23),
    "too many exceptions": lambda data: with_word(data, 1, word(data, 1) | 511 << 10),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.int16])
def test_items_that_are_not_as_the_lengths_say_are_refused(what: str, dtype: Any) -> None:
    lists = one_list(np.random.default_rng(1).integers(0, 5000, 900).astype(dtype), 3)
    shard = open_bytes(forge(lists, CHANGES[what]))
    with pytest.raises(CorruptionError, match=r"user 1, column 'tags', stripe 0: the items are not as the lengths say"):
        decode_user_lists(shard, 0, 3, 250)
    with pytest.raises(CorruptionError, match=r"the items of lists are not as their lengths say"):
        shard.verify()
    assert same_lists(decode_user_lists(shard, 0, 3, 256), lists.slice(256, 300))  # another stripe


def test_a_flipped_byte_of_items_is_found() -> None:
    data = bytearray(shard_of(one_list(np.random.default_rng(1).integers(0, 2**60, 900), 3)))
    shard = open_bytes(bytes(data))
    start = 64 + shard.footer.counts["payload_bytes"] - 100  # among the items of the last stripe
    data[start] ^= 1
    damaged = open_bytes(bytes(data))
    with pytest.raises(CorruptionError, match=r"column 'tags', block 0: the bytes are not those written"):
        decode_user_lists(damaged, 0, 3)
    with pytest.raises(CorruptionError, match=r"column 'tags', block 0"):
        damaged.verify()


def test_entries_of_items_are_checked_on_opening() -> None:
    lists = one_list(np.arange(900), 3)
    for flip in (1 << 43, 1 << 50, 1 << 59, 1 << 61, 1 << 62, 1 << 63, 1 << 40):
        forged = ForgedShard(shard_of(lists))
        forged.entries[forged.entry(0, 4, 0)] ^= np.uint64(flip)
        with pytest.raises(CorruptionError, match="an entry is not possible"):
            open_bytes(forged.seal())
    forged = ForgedShard(shard_of(lists))
    forged.entries[forged.entry(0, 3, 0)] |= np.uint64(6 << 40)
    with pytest.raises(CorruptionError, match="an entry is not possible"):
        open_bytes(forged.seal())
    forged = ForgedShard(shard_of(lists))
    forged.entries[forged.entry(0, 4, 1)] &= ~np.uint64((1 << 40) - 1)
    with pytest.raises(CorruptionError, match="bytes do not begin where"):
        open_bytes(forged.seal(mend_blocks=False))
    forged = ForgedShard(shard_of(lists))
    forged.entries[-1] += np.uint64(8)
    with pytest.raises(CorruptionError, match="do not fill the payload"):
        open_bytes(forged.seal(mend_blocks=False))


def test_ranges_that_are_not_there(shard) -> None:
    count = LENGTHS[shard.user_ids[0].as_py()]
    for wrong in [(0, 0, 0, count + 1), (0, -1, 0, 1), (1, 0, 0, 1), (0, 0, 2, 1), (0, len(LENGTHS), 0, 1)]:
        ranges = Ranges(*(np.array([part], np.int64) for part in (*wrong, 0)))
        output = ListsOutput(3, np.zeros(9000, np.int64), np.zeros(9000, np.int32))
        with pytest.raises(IndexError):
            decode_lists(tables_of(shard), ranges, output)
    with pytest.raises(IndexError, match="no list trait"):
        decode_user_lists(shard, 0, 4)
    output = ListsOutput(3, np.zeros(0, np.int64), np.zeros(0, np.int32))
    with pytest.raises(IndexError):
        decode_lists(tables_of(shard), ranges_of((0, 0, 0, 1)), output)
    with pytest.raises(ValueError, match="contiguous"):
        decode_lists(tables_of(shard), ranges_of((0, 0, 0, 1)), output._replace(lengths=np.zeros(0, np.int64)))
