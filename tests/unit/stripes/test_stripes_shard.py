"""Writing a shard and reading it back: users, ranges, many runs, many shards, and what is refused."""

import numpy as np
import pyarrow as pa
import pytest

from latewood.columns import Column, concat_columns
from latewood.errors import CorruptionError
from latewood.stripes import Ranges, ShardWriter, Tables, UserRun, decode_column, identities
from latewood.stripes.decode import Output, decode_columns
from latewood.stripes.layout import BUILT_IN
from latewood.stripes.runs import Pieces
from latewood.users import UserKeys, user_keys
from made_shards import (
    EPOCH,
    all_dtypes,
    columns_for,
    decode_user,
    open_bytes,
    random_columns,
    ranges_of,
    run_of,
    same,
    tables_of,
    take,
    write_shard,
)

COLUMNS = columns_for(all_dtypes())
LENGTHS = {5: 1, -7: 256, 2**62: 257, 11: 3, 12: 5000, 13: 512, 14: 600}


@pytest.fixture(scope="module")
def users():
    rng = np.random.default_rng(7)
    return {user: random_columns(rng, count, COLUMNS) for user, count in LENGTHS.items()}


@pytest.fixture(scope="module")
def shard(users):
    return open_bytes(write_shard(COLUMNS, run_of(users))[0])


def test_the_summary_counts(users) -> None:
    data, summary = write_shard(COLUMNS, run_of(users))
    shard = open_bytes(data, footer_xxh3=summary.footer_xxh3, columns=COLUMNS, epoch=EPOCH, generation=3, number=1)
    assert (summary.event_count, summary.user_count) == (sum(LENGTHS.values()), len(LENGTHS))
    assert summary.size_bytes == len(data) == shard.size_bytes
    assert summary.stripe_count == shard.stripe_count == sum(-(-n // 256) for n in LENGTHS.values())
    assert summary.latest_ingest == max(int((c[0].values + c[1].values).max()) for c in users.values())
    assert sum(shard.footer.column_bytes) == shard.footer.counts["payload_bytes"]


def test_users_are_found_by_key(shard) -> None:
    ids = pa.array(list(LENGTHS))
    found = shard.locate(user_keys(ids))
    assert shard.user_ids.take(pa.array(found)).equals(ids)
    assert (np.diff(shard.first_event)[found] == list(LENGTHS.values())).all()
    keys = shard.keys
    assert (shard.locate(UserKeys(keys.hash, keys.check + np.uint64(1))) == -1).all()
    assert (shard.locate(UserKeys(keys.hash + np.uint64(1), keys.check)) == -1).all()
    edges = np.array([0, 2**64 - 1], np.uint64)
    assert (shard.locate(UserKeys(edges, edges)) == -1).all()


def test_uneven_hashes_are_found_too() -> None:
    hashes = np.sort(np.concatenate([np.arange(3000), 2**63 + np.arange(3000, dtype=np.uint64) ** 3]).astype(np.uint64))
    checks = np.arange(len(hashes), dtype=np.uint64)
    one = [Column(np.zeros(len(hashes), t)) for t in (np.int64, np.int64, np.int32)]
    ids = pa.array(np.arange(len(hashes)))
    run = UserRun(ids, UserKeys(hashes, checks), np.arange(len(hashes) + 1), one)
    shard = open_bytes(write_shard(BUILT_IN, run)[0])
    assert (shard.locate(UserKeys(hashes, checks)) == np.arange(len(hashes))).all()
    assert (shard.locate(UserKeys(hashes + np.uint64(1), checks)) == -1).all()


def test_all_columns_of_all_users_come_back(users, shard) -> None:
    ids = shard.user_ids.to_pylist()
    for index, user in enumerate(ids):
        for column, (values, mask) in enumerate(users[user]):
            assert same(decode_user(shard, index, column), values, mask), (user, COLUMNS[column].name)


def test_ranges_start_and_stop_anywhere(users, shard) -> None:
    rng = np.random.default_rng(1)
    ids = shard.user_ids.to_pylist()
    for _ in range(5):
        picked = rng.integers(0, len(ids), 40)
        ends = np.sort([rng.integers(0, LENGTHS[ids[u]] + 1, 2) for u in picked], axis=1)
        ranges = ranges_of(*((0, u, a, b) for u, (a, b) in zip(picked, ends, strict=True)))
        for column in range(len(COLUMNS)):
            out, mask = np.zeros(int((ends[:, 1] - ends[:, 0]).sum()), COLUMNS[column].dtype), None
            mask = np.ones(len(out), np.bool_)
            nulls = decode_column(tables_of(shard), ranges, column, out, mask)
            parts = [users[ids[u]][column] for u in picked]
            values = np.concatenate([p.values[a:b] for p, (a, b) in zip(parts, ends, strict=True)])
            whole = [np.zeros(len(p.values), bool) if p.mask is None else p.mask for p in parts]
            masks = [m[a:b] for m, (a, b) in zip(whole, ends, strict=True)]
            assert same(Column(out, mask), values, np.concatenate(masks))
            assert nulls or not mask.any()


@pytest.mark.parametrize("count", [2, 63, 64, 65, 200])
def test_all_columns_of_many_ranges_come_at_once(users, shard, count: int) -> None:
    """More ranges than are taken together, in no order, some of them of nothing, behind a user's last event."""
    rng, ids = np.random.default_rng(count), shard.user_ids.to_pylist()
    picked = rng.integers(0, len(ids), count)
    lengths = np.array([LENGTHS[ids[u]] for u in picked])
    starts, stops = np.sort(rng.integers(0, lengths + 1, (2, count)), axis=0)
    starts[::5], stops[::5] = lengths[::5], lengths[::5]
    ranges, size = ranges_of(*((0, *r) for r in zip(picked, starts, stops, strict=True))), int((stops - starts).sum())
    outputs = [Output(c, np.zeros(size, COLUMNS[c].dtype), np.ones(size, np.bool_)) for c in range(len(COLUMNS))]
    decoded = decode_columns(tables_of(shard), ranges, outputs)
    for (column, values, mask), met_nulls in zip(outputs, decoded.nulls, strict=True):
        parts = [users[ids[u]][column].slice(a, b) for u, a, b in zip(picked, starts, stops, strict=True)]
        assert same(Column(values, mask), *concat_columns(parts))
        assert met_nulls or not mask.any()
    touched = [(b - 1) // 256 - a // 256 + 1 for a, b in zip(starts, stops, strict=True) if a < b]
    assert decoded.stripe_count == sum(touched) * len(COLUMNS)


def test_nothing_but_the_targets_is_written(users, shard) -> None:
    user = shard.user_ids.to_pylist().index(14)
    for column in range(len(COLUMNS)):
        out = np.full(1000, 1, COLUMNS[column].dtype)
        mask = np.full(1000, 1, np.uint8).view(np.bool_)
        ranges = Ranges(*(np.array(c) for c in ([0, 0], [user, user], [3, 250], [4, 530], [700, 10])))
        decode_column(tables_of(shard), ranges, column, out, mask)
        untouched = np.ones(1000, np.bool_)
        untouched[700], untouched[10:290] = False, False
        assert (out[untouched] == 1).all()
        assert mask[untouched].all()
        assert same(Column(out[10:290], mask[10:290]), *(None if a is None else a[250:530] for a in users[14][column]))


@pytest.mark.parametrize("seed", range(8))
def test_pieces_of_ranges_go_to_places_of_their_own(users, shard, seed: int) -> None:
    """Of 1 to 40 pieces, few or many in a stripe, over many stripes, in any order of targets; the rest is left alone."""
    rng, ids, picked = np.random.default_rng(seed), shard.user_ids.to_pylist(), []
    for u in rng.integers(0, len(ids), 70).tolist():
        length = LENGTHS[ids[u]]
        reach = max(2, int(length * rng.choice([0.05, 0.3, 1])))
        cuts = np.unique(rng.integers(max(0, length - reach), length + 1, int(rng.choice([2, 6, 80]))))
        pieces = [(a, b) for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True) if rng.random() < 0.8]
        picked += [(u, pieces)] if pieces else []
    flat = [(u, *piece) for u, pieces in picked for piece in pieces]
    lengths = np.array([b - a for _, a, b in flat])
    order, size = rng.permutation(len(flat)), int(lengths.sum()) + len(flat)
    target = np.empty(len(flat), np.int64)
    target[order] = np.cumsum(lengths[order] + 1) - lengths[order] - 1  # an element between any two
    offsets = np.append(0, np.cumsum([len(pieces) for _, pieces in picked]))
    of_ranges = Pieces(offsets, np.array([(a, b, t) for (_, a, b), t in zip(flat, target.tolist(), strict=True)]))
    ranges = ranges_of(*((0, u, pieces[0][0], pieces[-1][1]) for u, pieces in picked))
    outputs = [
        Output(c, np.full(size, 7).astype(of.dtype), np.full(size, 2, np.uint8).view(np.bool_))
        for c, of in enumerate(COLUMNS)
    ]
    decode_columns(tables_of(shard), ranges, outputs, pieces=of_ranges)
    untouched = np.ones(size, np.bool_)
    for (u, a, b), at in zip(flat, target.tolist(), strict=True):
        untouched[at : at + b - a] = False
        for column, values, mask in outputs:
            expected = users[ids[u]][column].slice(a, b)
            assert same(Column(values[at : at + b - a], mask[at : at + b - a]), *expected), (u, a, b, column)
    for _, values, mask in outputs:
        assert (values[untouched] == np.array(7).astype(values.dtype)).all()
        assert (mask.view(np.uint8)[untouched] == 2).all()


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, 10, 0), (5, 20, 10)], [(5, 10, 0), (10, 20, 5)], [(0, 10, 0), (10, 19, 10)], [(0, 10, 0), (10, 21, 10)],
        [(0, 10, 0), (10, 10, 10), (10, 20, 10)], [(0, 10, 91), (10, 20, 0)], [(0, 10, -1), (10, 20, 10)], [],
    ],
)  # fmt: skip
def test_pieces_that_do_not_fit_are_refused(shard, pieces: list[tuple[int, int, int]]) -> None:
    """That overlap, do not begin or end with their range, hold nothing, or find no room."""
    user = shard.user_ids.to_pylist().index(12)
    good = [(0, 20, 0)]
    each = Pieces(np.array([0, 1, 1 + len(pieces)]), np.array(good + pieces))
    ranges, outputs = ranges_of((0, user, 0, 20), (0, user, 0, 20)), [Output(0, np.zeros(100, np.int64))]
    with pytest.raises(IndexError, match="range 1"):
        decode_columns(tables_of(shard), ranges, outputs, pieces=each)
    with pytest.raises(ValueError, match="pieces of 1 range, not of 2"):
        decode_columns(tables_of(shard), ranges, outputs, pieces=Pieces(np.array([0, 1]), each.pieces))


def test_one_call_reads_many_shards() -> None:
    rng = np.random.default_rng(5)
    histories = [{n: random_columns(rng, 100 + n, COLUMNS)} for n in range(3)]
    tables = tables_of(*(open_bytes(write_shard(COLUMNS, run_of(users))[0]) for users in histories))
    for column in range(len(COLUMNS)):
        out = np.zeros(60, COLUMNS[column].dtype)
        decode_column(tables, ranges_of((2, 0, 80, 100), (0, 0, 0, 20), (1, 0, 5, 25)), column, out)
        parts = [histories[s][s][column] for s in (2, 0, 1)]
        rows = [slice(80, 100), slice(0, 20), slice(5, 25)]
        cut = [Column(p.values[r], None if p.mask is None else p.mask[r]) for p, r in zip(parts, rows, strict=True)]
        expected = np.concatenate([np.where(c.mask, 0, c.values) if c.mask is not None else c.values for c in cut])
        assert out.tobytes() == expected.astype(out.dtype).tobytes()


def test_runs_follow_each_other(users) -> None:
    run = run_of(users)
    halves = []
    for start, stop in ((0, 3), (3, 3), (3, 7)):
        rows = slice(run.offsets[start], run.offsets[stop])
        part = [Column(c.values[rows], None if c.mask is None else c.mask[rows]) for c in run.columns]
        keys = UserKeys(run.keys.hash[start:stop], run.keys.check[start:stop])
        offsets = run.offsets[start : stop + 1] - run.offsets[start]
        halves.append(UserRun(run.user_ids[start:stop], keys, offsets, part))
    assert write_shard(COLUMNS, *halves)[0] == write_shard(COLUMNS, run)[0]


def test_offsets_need_not_start_at_zero(users) -> None:
    run = run_of(users)
    rows = np.concatenate([np.arange(9), np.arange(run.offsets[-1])])
    columns = [take(column, rows) for column in run.columns]
    moved = UserRun(run.user_ids, run.keys, run.offsets + 9, columns)
    assert write_shard(COLUMNS, moved)[0] == write_shard(COLUMNS, run)[0]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_a_shard_may_be_empty(kind: pa.DataType) -> None:
    none = [Column(np.zeros(0, c.dtype)) for c in COLUMNS]
    run = UserRun(pa.array([], kind), UserKeys(*(np.zeros(0, np.uint64),) * 2), np.zeros(1, np.int64), none)
    shard = open_bytes(write_shard(COLUMNS, run)[0])
    assert (shard.user_count, shard.event_count, shard.latest_ingest) == (0, 0, None)
    assert shard.user_ids.equals(pa.array([], kind))
    assert shard.locate(UserKeys(np.ones(1, np.uint64), np.ones(1, np.uint64))).tolist() == [-1]
    shard.verify()


def test_text_ids_come_back() -> None:
    rng = np.random.default_rng(1)
    ids = ["", "a", "ü", "🌲" * 40, "a\x00b"]
    users = {user: random_columns(rng, 3, COLUMNS) for user in ids}
    run = run_of(users)
    shard = open_bytes(write_shard(COLUMNS, run)[0])
    assert shard.user_ids.equals(run.user_ids)
    assert (shard.locate(user_keys(pa.array(ids))) >= 0).all()


def test_stripe_records_hold_times_and_identities(users, shard) -> None:
    index = shard.user_ids.to_pylist().index(14)
    times, delays, ordinals = (column.values for column in users[14][:3])
    keys = user_keys(pa.array([14]))
    each = identities(UserKeys(keys.hash.repeat(600), keys.check.repeat(600)), times, times + delays, ordinals)
    first = int(shard.first_stripe[index])
    rows = slice(first, first + 3)
    starts = [0, 256, 512]
    assert shard.first_ts[rows].tolist() == times[starts].tolist()
    assert shard.latest_ingests[rows].tolist() == [int((times + delays)[s : s + 256].max()) for s in starts]
    assert shard.identity_sums[rows].tolist() == [int(each[: s + 256].sum()) for s in starts]


@pytest.mark.parametrize(
    "wrong",
    [(1, 0, 0, 1), (-1, 0, 0, 1), (0, 7, 0, 1), (0, -1, 0, 1), (0, 0, 0, 10**6), (0, 0, -1, 1), (0, 0, 2, 1)],
)
def test_ranges_that_are_not_there_are_refused(shard, wrong: tuple[int, int, int, int]) -> None:
    for good in ([], [(0, 0, 0, 1)] * 20):
        ranges = ranges_of(*good, wrong)
        with pytest.raises(IndexError, match=f"range {len(good)}"):
            decode_column(tables_of(shard), ranges, 0, np.zeros(10**7, np.int64)[: 10**6 + 100])


def test_outputs_that_do_not_fit_are_refused(shard) -> None:
    tables, ranges = tables_of(shard), ranges_of((0, 0, 0, 1))
    with pytest.raises(IndexError, match="range 0"):
        decode_column(tables, ranges, 0, np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="int64"):
        decode_column(tables, ranges, 0, np.zeros(1, np.int32))
    with pytest.raises(ValueError, match="contiguous"):
        decode_column(tables, ranges, 0, np.zeros(4, np.int64)[::2])
    with pytest.raises(ValueError, match="mask"):
        decode_column(tables, ranges, 0, np.zeros(4, np.int64), np.zeros(3, np.bool_))
    with pytest.raises(IndexError, match="column"):
        decode_column(tables, ranges, 99, np.zeros(4, np.int64))
    half_open = Tables(2)
    half_open.put(0, shard)
    with pytest.raises(IndexError, match="range 0"):
        decode_column(half_open, ranges_of((1, 0, 0, 0)), 0, np.zeros(4, np.int64))
    assert not decode_column(tables, ranges_of(), 0, np.zeros(0, np.int64))


def test_unsorted_input_is_refused(users) -> None:
    writer = ShardWriter(_Nowhere(), COLUMNS, epoch=EPOCH, generation=1, shard=0)
    run = run_of(users)
    writer.add(run)
    with pytest.raises(ValueError, match="order of their keys"):
        writer.add(run)
    backwards = [Column(np.array([5, 4])), Column(np.zeros(2, np.int64)), Column(np.zeros(2, np.int32))]
    with pytest.raises(ValueError, match="sorted by event_ts"):
        write_shard(BUILT_IN, run_of({1: backwards}))
    with pytest.raises(ValueError, match="no events"):
        write_shard(BUILT_IN, run_of({1: [Column(c.values[:0]) for c in backwards]}))
    with pytest.raises(ValueError, match="float64"):
        write_shard(BUILT_IN, run_of({1: [Column(c.values.astype(float)) for c in backwards]}))


class _Nowhere:
    def write(self, buffer: object, /) -> None: ...


def test_a_file_that_is_not_the_expected_one_is_refused(users) -> None:
    data, _ = write_shard(COLUMNS, run_of(users))
    for expected in ({"epoch": bytes(16)}, {"generation": 4}, {"number": 0}, {"columns": BUILT_IN}, {"footer_xxh3": 1}):
        with pytest.raises(CorruptionError, match="shard"):
            open_bytes(data, **expected)
