"""Searching stripes and picking rows against plain Python: every dtype and mode, with nulls, and no further than needed."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.columns import Column, concat_columns
from latewood.errors import CorruptionError
from latewood.stripes import Output, Shard, decode_column
from latewood.stripes.pick import group_rows, pick_columns
from latewood.stripes.search import BEYOND, DAMAGED
from made_shards import (
    all_dtypes,
    columns_for,
    decode_user,
    open_bytes,
    random_columns,
    run_of,
    same,
    tables_of,
    write_shard,
)
from plain_streams import meets
from searching import found_by

EVENTS = 1_300  # five whole stripes and a short one
DTYPES = all_dtypes()
OPERATORS = ["==", "!=", "<", "<=", ">", ">="]


def plain_values(column: Column) -> list[Any]:
    nulls = [False] * column.event_count if column.mask is None else column.mask.tolist()
    return [None if null else value for value, null in zip(column.values.tolist(), nulls, strict=True)]


def compared_with(rng: np.random.Generator, column: Column) -> list[Any]:
    """Values of the column and others, also those that its type cannot hold."""
    own = [value for value in plain_values(column) if value is not None]
    values = [own[int(i)] for i in rng.integers(0, len(own), 4)] if own else []
    if column.dtype.kind == "b":
        return [True, False]
    if column.dtype.kind == "f":
        return [*values, 0.0, -0.0, float("inf"), float("-inf"), float("nan"), 0.1, 10**400]
    info = np.iinfo(column.dtype)
    extremes = [int(info.min), int(info.max), int(info.min) - 1, int(info.max) + 1, 0, -1]
    return [*values, *extremes, 0.5, -1.5, 1e300, float("inf"), float("-inf"), float("nan")]


def made(seed: int) -> tuple[list[Any], Shard]:
    rng = np.random.default_rng(seed)
    columns = columns_for(DTYPES)
    user = random_columns(rng, EVENTS, columns)
    for place, column in enumerate(columns):
        if column.dtype.kind == "f":  # what is not a number, and both zeros
            odd = [float("nan"), -0.0, 0.0, float("inf"), float("-inf"), -1.5]
            some = rng.random(EVENTS) < 0.3
            values = user[place].values.copy()
            values[some] = rng.choice(odd, int(some.sum()))
            if user[place].mask is not None:
                values[user[place].mask] = 0
            user[place] = Column(values, user[place].mask)
        elif column.dtype.kind == "i" and place > 2 and rng.random() < 0.5:
            user[place] = Column(np.where(user[place].values == 0, 0, -user[place].values), user[place].mask)
    return user, open_bytes(write_shard(columns, run_of({7: user}))[0])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", [*DTYPES, "event_ts"])
def test_comparisons_find_what_plain_python_finds(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    user, shard = made(seed)
    place = [column.name for column in shard.columns].index(name)
    values, others = plain_values(user[place]), compared_with(rng, user[place])
    conditions: list[Any] = [lw.conditions.OPERATORS[op](lw.col(name), value) for op in OPERATORS for value in others]
    conditions += [lw.col(name).is_in(others[:k]) for k in range(4)] + [lw.col(name).is_null()]
    conditions += [lw.col(name).is_in(list({value for value in values if value is not None}))]
    conditions += [~condition for condition in conditions[::3]]
    found, _ = found_by(shard, conditions)
    types = {name: shard.columns[place].dtype.name}
    for condition, rows in zip(conditions, found, strict=True):
        expected = [meets(condition, {name: value}, types) for value in values]
        assert rows.tolist() == expected, condition


@pytest.mark.parametrize("seed", range(10))
def test_combinations_find_what_plain_python_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    user, shard = made(seed)
    names = [column.name for column in shard.columns]
    types = {column.name: column.dtype.name for column in shard.columns}

    def draw(depth: int) -> Any:
        kind = rng.integers(0, 4) if depth else 3
        if kind == 0:
            return ~draw(depth - 1)
        if kind < 3:
            left, right = draw(depth - 1), draw(depth - 1)
            return left & right if kind == 1 else left | right
        name = str(rng.choice([*DTYPES, "event_ts", "new"]))
        if name == "new":
            return lw.col("new").is_null() if rng.random() < 0.5 else lw.col("new") != 3
        if rng.random() < 0.2:
            return lw.col(name).is_null()
        values = compared_with(rng, user[names.index(name)])
        return lw.conditions.OPERATORS[str(rng.choice(OPERATORS))](lw.col(name), values[int(rng.integers(len(values)))])

    conditions = [draw(4) for _ in range(12)]
    found, _ = found_by(shard, [*conditions, None])
    columns = {name: plain_values(column) for name, column in zip(names, user, strict=True)} | {"new": [None] * EVENTS}
    for condition, rows in zip(conditions, found, strict=False):
        used = condition.names
        expected = [meets(condition, {name: columns[name][row] for name in used}, types) for row in range(EVENTS)]
        assert rows.tolist() == expected, condition
    assert found[-1].all()


def shard_of(**columns: Any) -> Shard:
    return open_bytes(bytes_of(**columns))


def bytes_of(**columns: Any) -> bytes:
    """A shard of one user with these traits, and events a second apart."""
    first = next(iter(columns.values()))
    count = first.event_count if isinstance(first, Column) else len(first)
    times = Column(np.arange(count) * 1_000_000)
    built_in = [times, Column(np.zeros(count, np.int64)), Column(np.zeros(count, np.int32))]
    traits = [column if isinstance(column, Column) else Column(column) for column in columns.values()]
    dtypes = {name: trait.dtype for name, trait in zip(columns, traits, strict=True)}
    return write_shard(columns_for(dtypes), run_of({7: [*built_in, *traits]}))[0]


def test_what_bounds_a_stripe_s_values_spares_decoding_it() -> None:
    rising = np.repeat(np.arange(8), 256) * 1_000 + np.tile(np.arange(256), 8)
    same_ = np.repeat(np.array([3, 9], np.int32), 1_024)
    shard = shard_of(rising=rising.astype(np.int32), same=same_, wide=rising * 10**9, flag=same_ == 9)
    for condition, decoded in [
        (lw.col("rising") == 2_100, 1),
        (lw.col("rising") >= 7_256, 0),
        (lw.col("rising") >= 0, 0),
        ((lw.col("rising") >= 2_000) & (lw.col("rising") < 3_000), 0),
        ((lw.col("wide") == 5) & (lw.col("rising") == 2_100), 0),
        (lw.col("wide") > 6_500 * 10**9, 0),
        (lw.col("same") == 9, 0),
        (lw.col("flag") == True, 0),  # noqa: E712
        (lw.col("event_ts") < 600_000_000, 2),  # and the last, of which nothing says where it ends
        (lw.col("rising").is_in(list(range(100, 8_000, 300))), 8),
        (lw.col("rising").is_in(list(range(500, 8_000, 1_000))), 0),
        (lw.col("rising").is_null(), 0),
    ]:
        found, stripes = found_by(shard, [condition])
        assert stripes == decoded, condition
        assert found.any() == (decoded > 0 or bool(found.sum())), condition


def test_codes_are_tested_by_their_values() -> None:
    rng = np.random.default_rng(4)
    mask = rng.random(EVENTS) < 0.2
    codes = np.where(mask, 0, rng.integers(0, 40, EVENTS)).astype(np.int32)
    shard = shard_of(word=Column(codes, mask))
    words = pa.array([f"w{i % 7}" if i % 5 else None for i in range(40)])
    values = [None if null else words[int(code)].as_py() for code, null in zip(codes, mask, strict=True)]
    conditions = [
        lw.col("word") == "w3",
        lw.col("word") != "w3",
        ~(lw.col("word") < "w4"),
        lw.col("word").is_in(["w1", "w6"]),
    ]
    found, _ = found_by(shard, conditions, {"word": words})
    for condition, rows in zip(conditions, found, strict=True):
        assert rows.tolist() == [meets(condition, {"word": value}) for value in values], condition
    assert found_by(shard, conditions, {"word": words.slice(0, 39)})[0] == BEYOND
    assert found_by(shard, conditions[:1], {"word": words.slice(0, 0)})[0] == BEYOND
    nulls = shard_of(word=Column(np.zeros(EVENTS, np.int32), np.arange(EVENTS) >= 0))
    assert not found_by(nulls, conditions[:1], {"word": words.slice(0, 0)})[0].any()
    # above all that is known, so that what bounds the codes says that none can be "w3"
    above = shard_of(word=Column(codes + 40, mask))
    for condition in conditions[:2]:
        assert found_by(above, [condition], {"word": words})[0] == BEYOND, condition
    assert found_by(shard, [lw.col("word").is_null()], {"word": words.slice(0, 1)})[0][0].tolist() == mask.tolist()


def test_a_damaged_block_is_met_before_it_is_believed() -> None:
    data = bytearray(bytes_of(number=np.arange(5_000, dtype=np.int64) * 7 + 1_000))
    intact = open_bytes(bytes(data))
    first_entry = intact._words("entries")[3 * int(intact.first_stripe[1])]
    data[64 + 4] ^= 1  # in the times
    data[64 + int(first_entry & np.uint64((1 << 40) - 1))] ^= 1  # of a reference
    shard = open_bytes(bytes(data))
    assert found_by(shard, [lw.col("event_ts") < 100_000_000])[0] == DAMAGED
    for condition in (lw.col("number") == 5, ~((lw.col("number") == 5) & (lw.col("number") == 6))):
        assert found_by(shard, [condition])[0] == DAMAGED
    picks = group_rows(tables_of(shard), np.array([0]), np.array([0]), np.array([0, 1]), np.array([3]))
    with pytest.raises(CorruptionError, match="column 'number', block 0"):
        pick_columns(tables_of(shard), picks, [Output(3, np.zeros(1, np.int64))])


@pytest.mark.parametrize("share", [0.004, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_picked_is_decoded(seed: int, share: float) -> None:
    rng = np.random.default_rng([seed, int(share * 1_000)])
    columns = columns_for(DTYPES, superseded=True)
    users = {user: random_columns(rng, int(rng.integers(1, 1_500)), columns) for user in range(5)}
    if seed == 3:  # gaps of years, whose sums take more than 32 bits
        for user in users.values():
            steps = np.where(rng.random(user[0].event_count) < 0.5, 2**31, 1) * 1_000
            user[0] = Column(np.cumsum(steps))
    shard = open_bytes(write_shard(columns, run_of(users))[0])
    tables, lengths = tables_of(shard), np.diff(shard.first_event)
    order = np.array([2, 0, 4, 4, 1, 3])
    rows = [np.flatnonzero(rng.random(lengths[user]) < share) for user in order]
    rows = [np.insert(part, [0, len(part) // 2, len(part)], -1) for part in rows]  # between them, what is not stored
    offsets = np.concatenate([[0], np.cumsum([len(part) for part in rows])])
    flat = np.concatenate(rows)
    picks = group_rows(tables, np.zeros(6, np.int64), order, offsets, flat)
    assert picks.stored_count == (flat >= 0).sum()
    stored = [part[part >= 0] for part in rows]
    for place, column in enumerate(columns):
        values, mask = np.full(len(flat), 1, column.dtype), np.full(len(flat), True)
        expected = [decode_user(shard, int(user), place).take(part) for user, part in zip(order, stored, strict=True)]
        decoded = pick_columns(tables, picks, [Output(place, values, mask)])
        whole = concat_columns(expected)
        assert isinstance(whole, Column)
        assert same(Column(values[flat >= 0], mask[flat >= 0]), whole.values, whole.mask), column.name
        assert (values[flat < 0] == 1).all()
        assert mask[flat < 0].all()
        assert decoded.stripe_count == len(picks.groups)
        assert decoded.nulls[0] or not mask[flat >= 0].any()
        plain = np.full(len(flat), 1, column.dtype)
        pick_columns(tables, picks, [Output(place, plain)])
        assert plain.tobytes() == values.tobytes()
    ranges, places = picks.ranges()
    times = np.zeros(int((ranges.stop - ranges.start).sum()), np.int64)
    decode_column(tables, ranges, 0, times)
    picked = np.zeros(len(flat), np.int64)
    pick_columns(tables, picks, [Output(0, picked)])
    assert (times[places[flat >= 0]] == picked[flat >= 0]).all()


def test_rows_that_are_not_there_are_refused() -> None:
    shard = shard_of(number=np.arange(300))
    tables, zero = tables_of(shard), np.array([0])
    for user, rows in [(0, [300]), (0, [5, 5]), (0, [5, 4]), (1, [0]), (-1, [0])]:
        with pytest.raises(IndexError, match="is not there"):
            group_rows(tables, zero, np.array([user]), np.array([0, len(rows)]), np.array(rows))
    with pytest.raises(IndexError, match="is not there"):
        group_rows(tables, np.array([1]), zero, np.array([0, 1]), zero)
    with pytest.raises(ValueError, match="as many shards"):
        group_rows(tables, zero, zero, np.array([0, 2]), zero)
    picks = group_rows(tables, zero, zero, np.array([0, 2]), np.array([0, 1]))
    for output in (
        Output(3, np.zeros(3, np.int64)),
        Output(3, np.zeros(2, np.int32)),
        Output(3, np.zeros(4, np.int64)[::2]),
        Output(3, np.zeros(2, np.int64), np.zeros(1, np.bool_)),
    ):
        with pytest.raises(ValueError, match="contiguous arrays of int64, 2 long"):
            pick_columns(tables, picks, [output])
    with pytest.raises(IndexError, match="no column 9"):
        pick_columns(tables, picks, [Output(9, np.zeros(2, np.int64))])
    nothing = group_rows(tables, zero, np.array([-1]), np.array([0, 1]), np.array([-1]))
    assert pick_columns(tables, nothing, [Output(3, np.zeros(1, np.int64))]).stripe_count == 0
