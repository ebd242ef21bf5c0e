"""Files written by released versions stay readable: they are kept here, with what is in them.

`PYTHONPATH=src:tests:tests/compatibility python tests/compatibility/test_old_files.py NAME` writes a file as the current
version does, which is done once, when it is released. A kept file is never written again. The first two are from before
there was a column superseded_at, the first three from before there were lists.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from plain_reader import NEVER, PlainReader

from latewood.columns import Column, Lists, compact_lists
from latewood.stripes import fields_of
from latewood.stripes.identity import identities
from latewood.users import UserKeys, user_keys
from made_shards import (
    all_dtypes,
    all_lists,
    columns_for,
    decode_user,
    decode_user_lists,
    open_bytes,
    run_of,
    same,
    same_lists,
    take,
    write_shard,
)

FILES = {
    "int64": "shard-v1-int64.stripes",
    "string": "shard-v1-string.stripes",
    "superseded": "shard-v1-superseded.stripes",
}
LISTS = "shard-v1-lists.stripes"
PLAIN = ["int64", "string"]  # those with all that the format had then
COLUMNS = columns_for(all_dtypes())
WITH_SUPERSEDED = columns_for(all_dtypes(), superseded=True)
WITH_LISTS = columns_for(all_lists(), superseded=True)
HERE = Path(__file__).parent


def users(kind: str) -> dict[Any, list[Column]]:
    """What the files hold: arithmetic, no chance, so that it never changes."""
    names = ["", "größe", "u" * 40] if kind == "string" else [-5, 7, 2**40]
    histories = [history(3 + number, count) for number, count in enumerate([1, 700, 256])]
    if kind == "superseded":
        histories = [[*columns, _superseded(columns)] for columns in histories]
    return dict(zip(names, histories, strict=True))


def _superseded(columns: list[Column]) -> Column:
    """Every seventh late event was, of the longest history: some stripes have such, some not."""
    times, delays = columns[0].values, columns[1].values
    mask = (delays % 7 != 1) | (np.arange(len(times)) < 256)
    return Column(np.where(mask, 0, times + 3 * delays), mask)


def history(seed: int, count: int) -> list[Column]:
    i = np.arange(count, dtype=np.uint64)
    noise = (i + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    noise ^= noise >> np.uint64(29)
    noise *= np.uint64(0xBF58476D1CE4E5B9)
    noise ^= noise >> np.uint64(32)
    few = noise % np.uint64(50) == 0
    times = np.cumsum(np.where(few, 7_200_000_000, 1_000 * (1 + noise % np.uint64(90)).astype(np.int64))) - 10**15
    delays = np.where(few, noise >> np.uint64(24), np.uint64(0)).astype(np.int64)
    columns = [Column(times), Column(delays), Column((few & (i > 300)).astype(np.int32))]
    return columns + [Column(*_values(column.dtype, noise, few, i)) for column in COLUMNS[3:]]


def users_with_lists() -> dict[Any, list[Any]]:
    """As `users`, each trait a list of what it is there."""
    plain = users("superseded")
    return {user: [*columns[:3], *map(_listed, columns[3:-1]), columns[-1]] for user, columns in plain.items()}


def _listed(column: Column) -> Lists:
    """Lists of 0 to 6 of the values, and one of 300; null where the value is, and empty in a stripe of its own."""
    values, count = column.values, len(column.values)
    if column.values.dtype == np.int32:  # all of them 100 and some sevens
        few = values[(values >= 100) & (values <= 177)]
        values = few if len(few) else values
    lengths = (np.arange(count) * 7 % 11 % 7).astype(np.int32)
    lengths[512:] = 0
    lengths[-1] = 300
    if column.mask is not None:
        lengths[column.mask] = 0
    places = (np.arange(lengths.sum()) * 5 + 3) % len(values)
    return compact_lists(values[places], lengths, column.mask)


def _values(dtype: np.dtype[Any], noise: Any, few: Any, i: Any) -> tuple[Any, Any]:
    """Of each dtype something that another encoding suits, with nulls in some stripes, and all null in others."""
    unsigned = np.dtype(f"u{dtype.itemsize}")
    narrow = noise % np.uint64(11) * np.uint64(7 if dtype.kind == "i" else 1) + np.uint64(100)
    mixed = np.where(few, noise >> np.uint64(3), narrow)
    if dtype.kind == "b":
        values = np.where(i < 256, few, noise % np.uint64(2) == 0)
    elif dtype.kind == "f":
        values = (noise % np.uint64(1000)).astype(dtype) / dtype.type(8)
        values[few] = np.array(TOP >> (64 - dtype.itemsize * 8), np.uint64).astype(unsigned).view(dtype)  # a NaN
    else:
        values = mixed.astype(unsigned).view(dtype)
    mask = None
    if dtype.itemsize in (2, 8) or dtype.kind == "b":
        mask = (few & (i >= 256)) | (i >= 600)
    if dtype.name == "int32":
        mask = i >= 256
    return values, mask


TOP = (1 << 64) - 1


def stored(kind: str) -> bytes:
    return (HERE / FILES[kind]).read_bytes()


@pytest.mark.parametrize("kind", FILES)
def test_files_of_version_1_are_read(kind: str) -> None:
    shard = open_bytes(stored(kind), columns=WITH_SUPERSEDED)  # the hidden column may be missing
    shard.verify()
    expected = users(kind)
    assert set(shard.user_ids.to_pylist()) == set(expected)
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for column, (values, mask) in enumerate(expected[user]):
            assert same(decode_user(shard, index, column), values, mask), (user, COLUMNS[column].name)
            middle = slice(len(values) // 3, len(values) // 2)
            part = take(Column(values, mask), middle)
            assert same(decode_user(shard, index, column, middle.start, middle.stop), part.values, part.mask)


@pytest.mark.parametrize("kind", FILES)
def test_the_format_is_as_written_down(kind: str) -> None:
    reader, expected = PlainReader(stored(kind)), users(kind)
    assert set(reader.user_ids()) == set(expected)
    for index, user in enumerate(reader.user_ids()):
        for column, (values, mask) in enumerate(expected[user]):
            found, nulls = reader.column(index, column)
            assert same(Column(found, np.array(nulls)), values, mask), (user, column)
        assert reader.superseded(index) == superseded(expected[user])
        times, delays, ordinals = (column.values for column in expected[user][:3])
        keys = UserKeys(*(half.repeat(len(times)) for half in user_keys(pa.array([user]))))
        sums = np.cumsum(identities(keys, times, times + delays, ordinals))
        first, stop = reader.users[index][3], reader.users[index + 1][3]
        ends = [*range(255, len(times) - 1, 256), len(times) - 1]
        assert [row[2] for row in reader.stripes[first:stop]] == sums[ends].tolist()


@pytest.mark.parametrize("kind", PLAIN)
def test_the_format_is_used_in_full(kind: str) -> None:
    """The kept files have every mode, exceptions, nulls and references, or they would guard little."""
    entries = PlainReader(stored(kind)).entries[:-1]
    assert {entry >> 40 & 7 for entry in entries} == set(range(6))
    assert any(entry >> 50 & 511 and entry >> 40 & 7 != 4 for entry in entries)
    assert {entry >> 59 & 3 for entry in entries} >= {0, 1, 2, 3}
    for bit in (61, 62):
        assert {entry >> bit & 1 for entry in entries} == {0, 1}
    assert any(entry >> 43 & 127 > 32 for entry in entries)


def superseded(columns: list[Column]) -> list[int]:
    """superseded_at of a history, NEVER where an event was not."""
    if len(columns) == len(COLUMNS):
        return [NEVER] * len(columns[0].values)
    values, mask = columns[-1]
    return np.where(mask, NEVER, values).tolist()


def test_some_stripes_of_the_kept_file_have_superseded_events_and_some_do_not() -> None:
    reader = PlainReader(stored("superseded"))
    latest = [row[1] for row in reader.stripes]
    assert {time == NEVER for time in latest} == {False, True}
    assert reader.footer["latest_ingest"] < NEVER


@pytest.mark.parametrize("kind", FILES)
def test_stripes_of_old_files_are_carried_into_new_ones(kind: str) -> None:
    old, expected = open_bytes(stored(kind)), users(kind)
    nothing = {user: [take(column, slice(0, 0)) for column in columns] for user, columns in expected.items()}
    places = {
        user: (index, -(-len(expected[user][0].values) // 256)) for index, user in enumerate(old.user_ids.to_pylist())
    }
    data = write_shard(WITH_SUPERSEDED, run_of(nothing, places, old))[0]
    assert data == write_shard(WITH_SUPERSEDED, run_of(expected))[0]
    reader = PlainReader(data)
    for index, user in enumerate(reader.user_ids()):
        assert reader.superseded(index) == superseded(expected[user])


@pytest.mark.parametrize("kind", FILES)
def test_the_current_writer_is_read_by_the_plain_reader(kind: str) -> None:
    columns = WITH_SUPERSEDED if kind == "superseded" else COLUMNS
    reader, expected = PlainReader(write_shard(columns, run_of(users(kind)))[0]), users(kind)
    for index, user in enumerate(reader.user_ids()):
        for column, (values, mask) in enumerate(expected[user]):
            found, nulls = reader.column(index, column)
            assert same(Column(found, np.array(nulls)), values, mask)


# ---- lists


def same_as_plain(found: list[Any], expected: Lists) -> bool:
    """Every list that the plain reader found, bit for bit."""
    nulls = np.zeros(expected.event_count, np.bool_) if expected.mask is None else expected.mask
    wanted = zip(nulls.tolist(), expected.starts.tolist(), expected.lengths.tolist(), strict=True)
    lists = [None if null else expected.items[start : start + length] for null, start, length in wanted]
    return all(
        (mine is None) == (theirs is None) and (mine is None or mine.tobytes() == theirs.tobytes())
        for mine, theirs in zip(found, lists, strict=True)
    )


def test_lists_of_version_1_are_read() -> None:
    shard, expected = open_bytes((HERE / LISTS).read_bytes(), columns=WITH_LISTS), users_with_lists()
    shard.verify()
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for (place, of), column in zip(fields_of(WITH_LISTS), expected[user], strict=True):
            if of.role == "lengths":
                for start in {0, column.event_count // 3}:
                    found = decode_user_lists(shard, index, place, start)
                    assert same_lists(found, column.slice(start, column.event_count)), (user, of.name)
            else:
                assert same(decode_user(shard, index, place), column.values, column.mask), (user, of.name)


@pytest.mark.parametrize("current", [False, True])
def test_the_plain_reader_reads_lists(current: bool) -> None:
    expected = users_with_lists()
    reader = PlainReader(write_shard(WITH_LISTS, run_of(expected))[0] if current else (HERE / LISTS).read_bytes())
    for index, user in enumerate(reader.user_ids()):
        for (place, of), column in zip(fields_of(WITH_LISTS), expected[user], strict=True):
            if of.role == "lengths":
                assert same_as_plain(reader.lists(index, place), column), (user, of.name)
            else:
                found, nulls = reader.column(index, place)
                assert same(Column(found, np.array(nulls)), column.values, column.mask)


def test_lists_are_used_in_full() -> None:
    """The kept file has every mode that chunks have, exceptions, stripes without items, and many chunks."""
    reader, words = PlainReader((HERE / LISTS).read_bytes()), list[int]()
    for index in range(len(reader.user_ids())):
        stripes = reader.users[index + 1][3] - reader.users[index][3]
        for place, column in enumerate(reader.columns):
            if column["role"] != "items":
                continue
            base = reader.users[index][3] * len(reader.columns) + place * stripes
            for entry, end in itertools.pairwise(reader.entries[base : base + stripes + 1]):
                data = reader.payload[entry & ((1 << 40) - 1) : end & ((1 << 40) - 1)]
                count = int.from_bytes(data[:4], "little")
                chunks = range(-(-count // 256))
                words += [int.from_bytes(data[4 * k + 4 : 4 * k + 8], "little") for k in chunks] or [-1]
    assert {word & 7 for word in words if word >= 0} == {0, 1, 3, 4}
    assert any(word >= 0 and word >> 10 & 511 and word & 7 != 4 for word in words)
    assert -1 in words


def test_the_example_is_as_written_down() -> None:
    """docs/format.md has it."""
    lists = compact_lists(np.full(4, 7, np.int16), np.array([1, 0, 3], np.int32), np.array([False, True, False]))
    built_in = [Column(np.arange(3)), Column(np.zeros(3, np.int64)), Column(np.zeros(3, np.int32))]
    reader = PlainReader(write_shard(columns_for({"x": [np.int16]}), run_of({1: [*built_in, lists]}))[0])
    start, stop = (entry & ((1 << 40) - 1) for entry in reader.entries[4:6])
    assert reader.payload[start:stop] == bytes([4, 0, 0, 0, 3, 0, 0, 0, 7, 0, 7, 0, 7, 0, 7, 0])
    assert same_as_plain(reader.lists(0, 3), lists)


def test_lists_of_old_files_are_carried_into_new_ones() -> None:
    old, expected = open_bytes((HERE / LISTS).read_bytes()), users_with_lists()
    nothing = {user: [take(column, slice(0, 0)) for column in columns] for user, columns in expected.items()}
    places = {
        user: (index, -(-len(expected[user][0].values) // 256)) for index, user in enumerate(old.user_ids.to_pylist())
    }
    data = write_shard(WITH_LISTS, run_of(nothing, places, old))[0]
    assert data == write_shard(WITH_LISTS, run_of(expected))[0]


if __name__ == "__main__":
    kind = sys.argv[1]
    if kind == "lists":
        (HERE / LISTS).write_bytes(write_shard(WITH_LISTS, run_of(users_with_lists()))[0])
        sys.exit(0)
    columns = WITH_SUPERSEDED if kind == "superseded" else COLUMNS
    (HERE / FILES[kind]).write_bytes(write_shard(columns, run_of(users(kind)))[0])
