"""Superseded events: stored beside the others, told by their stripe's record, decoded as NEVER where they are not."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.columns import Column
from latewood.errors import CorruptionError
from latewood.events import NEVER
from latewood.kernels import kernel
from latewood.schema import Schema
from latewood.stripes import NEVER_CLEAN, Shard, ShardWriter, columns_of, superseded_column, superseded_times
from latewood.stripes.addresses import address_of
from latewood.stripes.layout import BUILT_IN, DELAY, EVENT_TS, NO_COLUMN, SUPERSEDED, SUPERSEDED_AT
from latewood.stripes.stripe import decode_superseded
from latewood.users import user_keys
from made_shards import (
    EPOCH,
    all_dtypes,
    columns_for,
    decode_user,
    open_bytes,
    random_columns,
    run_of,
    same,
    tables_of,
    take,
    write_shard,
)

COLUMNS = columns_for(all_dtypes(), superseded=True)
LENGTHS = {5: 1, -7: 256, 2**62: 257, 12: 5000}


def events(count: int, superseded: dict[int, int] | None) -> list[Column]:
    """One a second, known at once; `superseded`: row → when, or that all of them are, at 10**9."""
    times = np.arange(count, dtype=np.int64) * 10**6
    at = np.full(count, NEVER if superseded is not None else 10**9, np.int64)
    for row, when in (superseded or {}).items():
        at[row] = when
    return [
        Column(times),
        Column(np.zeros_like(times)),
        Column(np.zeros(count, np.int32)),
        superseded_column(at, count),
    ]


HIDDEN = (*BUILT_IN, SUPERSEDED_AT)


@kernel
def decode_all(tables: Any, user: Any, stripe: Any, out: Any) -> Any:
    return decode_superseded(address_of(tables), user, stripe, address_of(out))


def decoded(shard: Shard, user: int) -> list[int]:
    """superseded_at of all of a user's events, as the kernels of other packages get it."""
    rows: list[int] = []
    total = int(shard.first_event[user + 1] - shard.first_event[user])
    for stripe in range(-(-total // 256)):
        out = np.zeros(256, np.int64)
        assert decode_all(tables_of(shard).rows, np.uint64(user), np.uint64(stripe), out) == 0
        rows += out[: min(256, total - 256 * stripe)].tolist()
    return rows


@pytest.mark.parametrize("kind", ["int64", "string"])
def test_superseded_events_come_back(kind: str) -> None:
    rng = np.random.default_rng(8)
    users = {user if kind == "int64" else f"u{user}": random_columns(rng, n, COLUMNS) for user, n in LENGTHS.items()}
    data, summary = write_shard(COLUMNS, run_of(users))
    shard = open_bytes(data, columns=COLUMNS)
    shard.verify()
    assert (
        shard.latest_ingest == summary.latest_ingest == max((u[0].values + u[1].values).max() for u in users.values())
    )
    for index, user in enumerate(shard.user_ids.to_pylist()):
        for column, (values, mask) in enumerate(users[user]):
            assert same(decode_user(shard, index, column), values, mask), (user, COLUMNS[column].name)
        values, mask = users[user][-1]
        assert decoded(shard, index) == np.where(mask, NEVER, values).tolist()


def test_a_schema_has_the_hidden_column_last() -> None:
    columns = columns_of(Schema(user_id=pa.int64(), traits=pa.schema([("a", pa.int8()), ("b", pa.string())])))
    assert [(c.id, c.name) for c in columns[3:]] == [(0, "a"), (1, "b"), (-4, "superseded_at")]


def test_a_stripe_with_a_superseded_event_is_never_clean() -> None:
    shard = open_bytes(write_shard(HIDDEN, run_of({1: events(700, {300: 10**9})}))[0])
    assert shard.latest_ingests.tolist() == [255 * 10**6, NEVER_CLEAN, 699 * 10**6]
    assert shard.latest_ingest == 699 * 10**6
    expected = [NEVER] * 700
    expected[300] = 10**9
    assert decoded(shard, 0) == expected


def test_all_events_of_a_stripe_may_be_superseded() -> None:
    shard = open_bytes(write_shard(HIDDEN, run_of({1: events(300, None)}))[0])
    shard.verify()
    assert shard.latest_ingests.tolist() == [NEVER_CLEAN] * 2
    assert decoded(shard, 0) == [10**9] * 300
    columns = [*events(300, None)[:3], Column(np.full(300, 10**9))]  # without a mask
    assert decoded(open_bytes(write_shard(HIDDEN, run_of({1: columns}))[0]), 0) == [10**9] * 300


def test_where_nothing_is_superseded_the_column_takes_no_bytes() -> None:
    columns = events(5000, {})
    shard = open_bytes(write_shard(HIDDEN, run_of({1: columns}))[0])
    assert shard.footer.column_bytes[-1] == 0
    assert write_shard(HIDDEN, run_of({1: columns[:-1]}))[0] == write_shard(HIDDEN, run_of({1: columns}))[0]
    plain = open_bytes(write_shard(BUILT_IN, run_of({1: columns[:-1]}))[0])
    assert plain.footer.counts["payload_bytes"] == shard.footer.counts["payload_bytes"]


def test_a_shard_without_the_column_has_nothing_superseded() -> None:
    shard = open_bytes(write_shard(BUILT_IN, run_of({1: events(300, {})[:3]}))[0], columns=HIDDEN)
    assert shard.table[SUPERSEDED] == NO_COLUMN
    assert decoded(shard, 0) == [NEVER] * 300
    with pytest.raises(CorruptionError, match="columns"):
        open_bytes(write_shard(HIDDEN, run_of({1: events(3, {})}))[0], columns=BUILT_IN)


def test_shards_of_one_generation_have_the_same_columns() -> None:
    with_, without = (
        open_bytes(write_shard(columns, run_of({1: events(3, {})[: len(columns)]}))[0])
        for columns in (HIDDEN, BUILT_IN)
    )
    with pytest.raises(CorruptionError, match="columns"):
        tables_of(with_, without)


def test_damage_is_noticed() -> None:
    data = bytearray(write_shard(HIDDEN, run_of({1: events(700, {300: 10**9})}))[0])
    payload = open_bytes(bytes(data)).footer.counts["payload_bytes"]
    data[64 + payload - 1] ^= 1
    shard, out = open_bytes(bytes(data)), np.zeros(256, np.int64)
    assert decode_all(tables_of(shard).rows, np.uint64(0), np.uint64(1), out) == 1
    with pytest.raises(CorruptionError, match="superseded_at"):
        shard.verify()


def carried(old: Shard, stripes: int, tail: list[Column]) -> Shard:
    data, summary = write_shard(HIDDEN, run_of({1: tail}, {1: (0, stripes)}, old))
    shard = open_bytes(data)
    shard.verify()
    assert summary.latest_ingest == shard.latest_ingest
    return shard


def test_carried_stripes_stay_never_clean_and_the_latest_ingest_is_the_true_one() -> None:
    columns = events(700, {300: 10**9})
    columns[DELAY].values[[10, 310, 650]] = 2 * 10**9, 3 * 10**9, 4 * 10**9
    old = open_bytes(write_shard(HIDDEN, run_of({1: columns}))[0])
    nothing = [take(column, slice(0, 0)) for column in columns]
    assert carried(old, 2, nothing).latest_ingests.tolist()[1] == NEVER_CLEAN
    for stripes, row in ((1, 10), (2, 310), (3, 650)):
        latest = int(columns[EVENT_TS].values[row] + columns[DELAY].values[row])
        assert carried(old, stripes, nothing).latest_ingest == latest
    assert decoded(carried(old, 2, [take(c, slice(512, 700)) for c in columns]), 0) == decoded(old, 0)


def test_damage_to_a_carried_stripe_with_superseded_events_is_named() -> None:
    columns = events(300, {1: 10**9})
    columns[DELAY].values[:] = np.random.default_rng(1).integers(0, 10**9, 300)
    columns[3].values[1] = 10**15
    data = bytearray(write_shard(HIDDEN, run_of({1: columns}))[0])
    shard = open_bytes(bytes(data))
    data[64 + shard.footer.column_bytes[0] + 5] ^= 1
    nothing = [take(column, slice(0, 0)) for column in columns]
    with pytest.raises(CorruptionError, match=r"column 'delay'.*carried"):
        carried(open_bytes(bytes(data)), 2, nothing)


def test_the_column_is_not_dropped_by_carrying() -> None:
    old = open_bytes(write_shard(HIDDEN, run_of({1: events(3, {1: 10**9})}))[0])
    with pytest.raises(ValueError, match="superseded"):
        write_shard(BUILT_IN, run_of({1: [take(c, slice(0, 0)) for c in events(1, {})[:3]]}, {1: (0, 1)}, old))


@pytest.mark.parametrize("at", [999_999, -5, NEVER])
def test_impossible_times_are_refused(at: int) -> None:
    columns = events(3, {})
    columns[3].values[1], columns[3].mask[1] = at, False
    with pytest.raises(ValueError, match="superseded no earlier"):
        write_shard(HIDDEN, run_of({1: columns}))


def test_only_some_columns_may_have_a_mask() -> None:
    columns = events(3, {})
    columns[1] = Column(columns[1].values, np.zeros(3, np.bool_))
    with pytest.raises(ValueError, match="mask"):
        write_shard(HIDDEN, run_of({1: columns}))


def test_times_and_column_are_inverse() -> None:
    at = np.array([NEVER, 7, NEVER], np.int64)
    assert superseded_times(superseded_column(at, 3)).tolist() == at.tolist()
    assert superseded_times(superseded_column(None, 3)) is None
    assert superseded_times(superseded_column(at[:1], 1)) is None
    assert superseded_times(superseded_column(None, 0)) is None
    assert superseded_times(Column(at[1:2])).tolist() == [7]


def test_rows_outside_a_run_do_not_count() -> None:
    """Offsets may begin after the first row and end before the last: what lies there is not looked at."""
    columns = [Column(np.concatenate([c.values[:2], c.values, c.values[:2]]), c.mask) for c in events(3, {1: 10**9})]
    mask = np.array([False, False, *events(3, {1: 10**9})[3].mask, False, False])
    columns[3] = Column(columns[3].values, mask)
    run = run_of({1: events(3, {1: 10**9})})
    sink = io.BytesIO()
    writer = ShardWriter(sink, HIDDEN, epoch=EPOCH, generation=3, shard=1)
    writer.add(type(run)(run.user_ids, user_keys(run.user_ids), run.offsets + 2, columns))
    writer.finish()
    assert sink.getvalue() == write_shard(HIDDEN, run)[0]
