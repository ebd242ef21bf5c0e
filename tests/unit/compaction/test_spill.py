"""The spill: what goes in comes out, in order of arrival, whether it was held in memory or written out."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latewood.columns import Column, Lists, TraitColumn, compact_lists
from latewood.compaction.spill import Spill
from latewood.errors import SchemaError
from latewood.events import NEVER, Events, concat_events
from latewood.mutable import EventsView
from latewood.mutable.arena import Arena
from latewood.mutable.event_batch import EventBatch
from latewood.schema import Schema
from latewood.users import shard_of, user_keys
from made_columns import cells, random_trait

TRAITS = pa.schema(
    [
        ("item", pa.int64()),
        ("like", pa.bool_()),
        ("score", pa.float32()),
        ("kind", pa.dictionary(pa.int32(), pa.string())),
        ("tags", pa.list_(pa.string())),
    ]
)


def events_of(rng: np.random.Generator, schema: Schema, n: int) -> Events:
    numbers = rng.integers(-50, 50, n)
    ids = pa.array(numbers)
    if schema.user_id == pa.string():
        ids = pa.array([f"ü{number}" for number in numbers], pa.string())
    traits = {trait.id: random_trait(rng, trait, n) for trait in schema}
    times = rng.integers(-1000, 1000, (2, n))
    return Events(ids, user_keys(ids), times[0], times[1], rng.integers(-1, 9, n).astype(np.int32), traits)


def content(events: Events) -> list[tuple[object, ...]]:
    columns = [events.user_ids.to_pylist(), *(c.tolist() for c in (*events.keys, events.event_ts, events.ingest_ts))]
    columns.append(events.ordinal.tolist())
    columns += [cells(column) for _, column in sorted(events.traits.items())]
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize("user_type", [pa.int64(), pa.string()])
@pytest.mark.parametrize("memory_bytes", [1, 20_000, 1 << 30])
def test_buckets_give_back_what_was_added_in_order_of_arrival(
    user_type: pa.DataType, memory_bytes: int, tmp_path: Path
) -> None:
    schema = Schema(user_id=user_type, traits=TRAITS)
    rng = np.random.default_rng(7)
    batches = [events_of(rng, schema, n) for n in (100, 0, 300, 1, 250)]
    everything = concat_events(batches)
    with Spill(schema, (3,), memory_bytes, str(tmp_path)) as spill:
        for batch in batches[:4]:
            spill.add(batch)
        spill.finish()
        spill.add(batches[4])
        spill.finish()
        assert (spill.spilled_bytes > 0) == (memory_bytes < 1 << 30)
        assert spill.event_count == 651
        assert (spill.min_ingest, spill.max_ingest) == (everything.ingest_ts.min(), everything.ingest_ts.max())
        assert spill.counts().sum() == 651
        for shard in range(3):
            buckets = spill.buckets(shard, 3)
            edges = [buckets.start, buckets.start + len(buckets) // 3, buckets.stop]
            for start, stop in pairwise(edges):
                bucket = spill.bucket_of(everything.keys.hash)
                rows = np.flatnonzero((bucket >= start) & (bucket < stop))
                read = spill.read(start, stop)
                assert (shard_of(everything.keys.hash[rows], 3) == shard).all()
                assert spill.counts()[start:stop].sum() == len(rows)
                assert read is not None
                expected = everything.take(rows)
                if memory_bytes == 1:  # every batch was written by bucket; within one, arrival is kept
                    assert sorted(map(repr, content(read))) == sorted(map(repr, content(expected)))
                assert by_user(read) == by_user(expected)


@pytest.mark.parametrize("user_type", [pa.int64(), pa.string()])
@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_a_view_is_read_from_where_it_lies(
    user_type: pa.DataType, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside what was added, and whatever is appended behind it meanwhile."""
    monkeypatch.setattr("latewood.compaction.spill._SORTED_AT_ONCE", at_once)
    schema, rng = Schema(user_id=user_type, traits=TRAITS), np.random.default_rng(8)
    arena = Arena(user_type)
    batches = [events_of(rng, schema, n) for n in (40, 30, 500)]
    for trait in (1, 4):
        del batches[0].traits[trait]  # they came later: null until then
    for batch in batches[:2]:
        arena.add(EventBatch(batch, None, None), arena.assign(batch.keys, batch.user_ids), place_ties=False)
        arena.commit()
    rows = np.flatnonzero(rng.random(70) < 0.8)
    view, added = EventsView(arena.view(), rows), events_of(rng, schema, 60)
    expected = concat_events([view.columns.take(rows), added])
    batch = batches[2]
    arena.add(EventBatch(batch, None, None), arena.assign(batch.keys, batch.user_ids), place_ties=False)
    arena.commit()
    with Spill(schema, (3,), 10_000, threads=2) as spill:
        spill.add(added)
        spill.add_view(view)
        spill.finish()
        assert spill.event_count == spill.counts().sum() == len(expected)
        assert (spill.min_ingest, spill.max_ingest) == (expected.ingest_ts.min(), expected.ingest_ts.max())
        lists = expected.traits[4]
        assert isinstance(lists, Lists)
        assert spill.item_bytes == int(lists.lengths.sum()) * lists.dtype.itemsize
        for shard in range(3):
            buckets, bucket = spill.buckets(shard, 3), spill.bucket_of(expected.keys.hash)
            for start, stop in pairwise([buckets.start, buckets.start + 200, buckets.stop]):
                read = spill.read(start, stop)
                chosen = np.flatnonzero((bucket >= start) & (bucket < stop))
                assert spill.counts()[start:stop].sum() == len(chosen)
                found = {} if read is None else by_user(read)
                theirs = by_user(expected.take(chosen))
                assert {user: sorted(rows, key=repr) for user, rows in found.items()} == {
                    user: sorted(rows, key=repr) for user, rows in theirs.items()
                }


def test_a_view_has_to_fit() -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    events, arena = events_of(np.random.default_rng(0), schema, 10), Arena(pa.int64())
    events.traits[9] = events.traits[0]
    arena.add(EventBatch(events, None, None), arena.assign(events.keys, events.user_ids), place_ties=False)
    arena.commit()
    with Spill(schema, (1,), 1 << 20) as spill, pytest.raises(SchemaError, match="id 9"):
        spill.add_view(EventsView(arena.view(), np.arange(10)))


def by_user(events: Events) -> dict[object, list[tuple[object, ...]]]:
    users: dict[object, list[tuple[object, ...]]] = {}
    for row in content(events):
        users.setdefault(row[0], []).append(row)
    return users


def test_what_was_readable_is_written_out_when_more_comes() -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    rng = np.random.default_rng(11)
    first, second = events_of(rng, schema, 100), events_of(rng, schema, 300)
    with Spill(schema, (2,), 15_000) as spill:
        spill.add(first)
        spill.finish()
        assert spill.spilled_bytes == 0
        spill.add(second)
        assert spill.spilled_bytes > 0
        spill.finish()
        assert spill.counts().sum() == 400
        read = spill.read(0, spill.buckets(1, 2).stop)
        assert read is not None
        assert by_user(read) == by_user(concat_events([first, second]))


def test_an_empty_spill_and_an_empty_bucket() -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    with Spill(schema, (2,), 1 << 20) as spill:
        spill.finish()
        assert spill.counts().sum() == 0
        assert spill.read(0, spill.buckets(1, 2).stop) is None
        assert spill.min_ingest is None


def test_a_trait_that_events_lack_is_null_and_one_too_many_is_an_error() -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    events = events_of(np.random.default_rng(0), schema, 10)
    with Spill(schema, (1,), 1 << 20) as spill:
        del events.traits[2]
        spill.add(events)
        spill.finish()
        read = spill.read(0, spill.buckets(0, 1).stop)
        assert read is not None
        assert read.traits[2].mask is not None
        assert read.traits[2].mask.all()
    events.traits[9] = events.traits[0]
    with Spill(schema, (1,), 1 << 20) as spill:
        spill.add(events)
        with pytest.raises(SchemaError, match="id 9"):
            spill.finish()


def test_nothing_is_left_in_the_directory(tmp_path: Path) -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    with Spill(schema, (1,), 1, str(tmp_path)) as spill:
        spill.add(events_of(np.random.default_rng(0), schema, 10))
        assert spill.spilled_bytes
        assert list(tmp_path.iterdir()) == []


def test_the_first_user_of_a_bucket() -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    edges = np.array([0, 1, 2**64 - 1, 2**63, 2**32, 2**32 - 1], np.uint64)
    hashes = np.sort(np.concatenate([edges, user_keys(pa.array(range(500))).hash]))
    for shards in (1, 3, 7):
        with Spill(schema, (shards,), 1) as spill:
            buckets = spill.bucket_of(hashes)
            last = spill.buckets(shards - 1, shards).stop
            for bucket in [*range(0, last, 97), last]:
                assert spill.first_user(hashes, bucket) == np.searchsorted(buckets, bucket)


def test_a_trait_that_was_dropped_is_left_out() -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    with Spill(schema.altered(drop=["like"]), (1,), 1) as spill:
        spill.add(events_of(np.random.default_rng(0), schema, 10))
        spill.finish()
        read = spill.read(0, spill.buckets(0, 1).stop)
        assert read is not None
        assert list(read.traits) == [0, 2, 3, 4]


@pytest.mark.parametrize("counts", [(3, 3), (3, 5), (5, 3), (16, 48), (1, 4096), (4097, 2)])
def test_buckets_have_the_borders_of_both_numbers_of_shards(counts: tuple[int, int]) -> None:
    hashes = np.sort(user_keys(pa.array(range(2000))).hash)
    with Spill(Schema(user_id=pa.int64(), traits=TRAITS), counts, 1) as spill:
        buckets = spill.bucket_of(hashes)
        assert (np.diff(buckets) >= 0).all()
        for shards in counts:
            assert spill.buckets(shards - 1, shards).stop == len(spill.counts())
            for shard in range(0, shards, max(1, shards // 7)):
                of = spill.buckets(shard, shards)
                assert ((buckets >= of.start) & (buckets < of.stop)).tolist() == (
                    shard_of(hashes, shards) == shard
                ).tolist()
                assert spill.first_user(hashes, of.start) == np.searchsorted(buckets, of.start)
        with pytest.raises(ValueError, match="not for 9"):
            spill.buckets(0, 9)


@pytest.mark.parametrize("counts", [(1, 1), (3, 3), (3, 7), (7, 3), (2048, 2049), (1, 5000), (5000, 1)])
def test_the_old_shards_of_a_new_one_are_those_that_share_buckets_with_it(counts: tuple[int, int]) -> None:
    old, new = counts
    with Spill(Schema(user_id=pa.int64(), traits=TRAITS), counts, 1) as spill:
        theirs = [spill.buckets(number, old) for number in range(old)]
        for shard in {0, 1, new // 2, new - 1}.intersection(range(new)):
            mine = spill.buckets(shard, new)
            shared = [i for i, of in enumerate(theirs) if range(max(mine.start, of.start), min(mine.stop, of.stop))]
            assert list(spill.shards_of(mine, old)) == shared


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30])
def test_when_events_were_superseded_comes_back_and_counts_as_known(memory_bytes: int) -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    plain, marked = (events_of(np.random.default_rng(seed), schema, 200) for seed in (1, 2))
    marked = replace(marked, superseded_at=np.where(np.arange(200) % 3, NEVER, 5000 + np.arange(200)))
    with Spill(schema, (2,), memory_bytes) as spill:
        spill.add(plain)
        spill.add(marked)
        spill.finish()
        assert (spill.spilled_bytes > 0) == (memory_bytes == 1)
        assert spill.max_ingest == 5198
        read = spill.read(0, spill.buckets(1, 2).stop)
        assert read is not None
        assert read.superseded_at is not None
        found = sorted(zip(content(read), read.superseded_at.tolist(), strict=True), key=repr)
        expected = [(row, NEVER) for row in content(plain)]
        assert marked.superseded_at is not None
        expected += zip(content(marked), marked.superseded_at.tolist(), strict=True)
        assert found == sorted(expected, key=repr)


def test_lists_are_held_without_the_items_of_others() -> None:
    """What was cut out of a large batch would keep all of it in memory."""
    schema = Schema(user_id=pa.int64(), traits=pa.schema([pa.field("tags", pa.list_(pa.int64(), 50), nullable=False)]))
    batch = events_of(np.random.default_rng(3), schema, 1000)
    with Spill(schema, (2,), 1 << 20) as spill:
        for start in range(0, 100, 10):
            spill.add(batch.slice(start, start + 10))
        assert spill.item_bytes == 100 * 50 * 8
        assert [len(held.traits[0].items) for held in spill._added] == [500] * 10
        spill.finish()
        read = spill.read(0, spill.buckets(1, 2).stop)
        assert read is not None
        assert len(read.traits[0].items) == 5000
        assert by_user(read) == by_user(batch.slice(0, 100))


@pytest.mark.parametrize("wrong", [Column(np.zeros(10, np.int32)), compact_lists(np.zeros(0, np.int64), np.zeros(10))])
def test_a_trait_of_another_kind_is_an_error(wrong: TraitColumn) -> None:
    schema = Schema(user_id=pa.int64(), traits=TRAITS)
    events = events_of(np.random.default_rng(0), schema, 10)
    events.traits[4] = wrong
    with Spill(schema, (1,), 1) as spill, pytest.raises(SchemaError, match="trait 'tags' holds"):
        spill.add(events)
