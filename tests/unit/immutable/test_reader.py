"""The reader: users to rows, rows to events, and what happens when files are missing or damaged."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from plain_histories import SCHEMA, Histories, keys_of, random_rows, write_generation

import latewood as lw
from latewood.columns import Lists
from latewood.errors import CorruptionError
from latewood.events import NEVER
from latewood.immutable.reader import GenerationReader
from latewood.immutable.resolve import Rows
from latewood.schema import Trait
from latewood.storage import open_storage
from latewood.stripes import FIRST_TRAIT, Shard
from made_columns import cells


@pytest.fixture(scope="module")
def store() -> Histories:
    return write_generation(random_rows(np.random.default_rng(1), 40, 700, span=500, late=0.2), watermark=2000)


def test_every_user_is_found_and_nobody_else(store: Histories) -> None:
    located = store.reader.locate(keys_of([*range(40), 40, -1, 1 << 60]))
    assert (located.user[:40] >= 0).all()
    assert located.user[40:].tolist() == [-1] * 3
    counts = store.reader.event_counts(located)
    assert counts.tolist() == [len(store.rows[user]) for user in range(40)] + [0] * 3


def test_users_are_found_in_large_shards() -> None:
    users = np.random.default_rng(2).integers(-(2**62), 2**62, 5000)
    many = write_generation({int(user): [(1, 2, 0)] for user in users}, watermark=10, shards=2)
    assert (many.reader.locate(keys_of(users.tolist())).user >= 0).all()
    assert (many.reader.locate(keys_of((users + 1).tolist())).user < 0).all()


def test_rows_come_back_as_events(store: Histories) -> None:
    users = [3, 17, 3, 39]
    shard, user = store.reader.locate(keys_of(users))
    rows = Rows(shard, user, np.array([0, 1, 2, 0]), np.array([len(store.rows[3]), 1, 5, 1]))
    events = store.reader.read(rows, list(SCHEMA))
    expected = [*store.rows[3], *store.rows[3][2:5], store.rows[39][0]]
    columns = (events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist())
    assert list(zip(*columns, strict=True)) == expected
    assert events.user_ids.to_pylist() == [3] * len(store.rows[3]) + [3] * 3 + [39]
    assert events.keys.hash.tolist() == keys_of(events.user_ids.to_pylist()).hash.tolist()
    item, like = events.traits[0], events.traits[1]
    assert item.values.tolist() == [3 * ts + ordinal for ts, _, ordinal in expected]
    assert like.mask is not None
    assert like.mask.tolist() == [value % 5 == 0 for value in item.values.tolist()]


def test_events_say_when_they_were_superseded(store: Histories) -> None:
    rows = {1: [(k, k, 0) for k in range(300)], 2: [(1, 1, 0), (2, 2, 0)], 3: [(1, 1, 0)]}
    superseded = {1: [NEVER] * 299 + [400], 3: [7]}
    corrected = write_generation(rows, watermark=500, superseded=superseded, shards=1)
    for run in corrected.reader.scan([SCHEMA["item"]]):
        assert run.superseded_at is not None
        at = [time for user in dict.fromkeys(run.user_ids.to_pylist()) for time in corrected.superseded_at(user)]
        assert run.superseded_at.tolist() == at
    located = corrected.reader.locate(keys_of([2, 3]))
    one = np.zeros(1, np.int64)
    assert corrected.reader.read(Rows(located.shard[:1], located.user[:1], one, one + 2), []).superseded_at is None
    assert corrected.reader.read(Rows(located.shard[1:], located.user[1:], one, one + 1), []).superseded_at == [7]
    assert all(run.superseded_at is None for run in store.reader.scan([]))


def test_no_rows_come_back_as_no_events(store: Histories) -> None:
    none = np.zeros(0, np.int64)
    assert len(store.reader.read(Rows(none, none, none, none), list(SCHEMA))) == 0


@pytest.mark.parametrize("at_once", [1, 1000, 1 << 20])
def test_a_scan_yields_everything_once_and_splits_no_user(store: Histories, at_once: int) -> None:
    runs = list(store.reader.scan([SCHEMA["item"]], at_once=at_once))
    found: dict[int, list[tuple[int, int, int]]] = {}
    for run in runs:
        mine: dict[int, list[tuple[int, int, int]]] = {}
        columns = (run.user_ids.to_pylist(), run.event_ts.tolist(), run.ingest_ts.tolist(), run.ordinal.tolist())
        for user, *row in zip(*columns, strict=True):
            mine.setdefault(user, []).append(tuple(row))
        assert not mine.keys() & found.keys()
        found |= mine
    assert found == store.rows
    assert len(runs) == {1: 40, 1 << 20: 3}.get(at_once, len(runs))


def test_an_empty_generation_has_nobody() -> None:
    reader = write_generation({}, watermark=1000).reader
    assert reader.locate(keys_of([1, 2])).user.tolist() == [-1, -1]
    assert reader.measure(keys_of([1]), np.array([5]), 10).length.tolist() == [0]
    assert list(reader.scan([])) == []
    assert len(reader.sample_times(keys_of([1]), users=5, newest=5)) == 0


def test_a_trait_added_later_has_no_column(store: Histories) -> None:
    assert store.reader.column(SCHEMA["item"]) == FIRST_TRAIT
    later = Trait(99, "later", pa.int64(), True, "default", "later")
    assert store.reader.column(later) is None
    shard, user = store.reader.locate(keys_of([3]))
    events = store.reader.read(Rows(shard, user, np.array([0]), np.array([1])), [later])
    assert events.traits == {}


def test_the_newest_times_of_some_users(store: Histories) -> None:
    times = store.reader.sample_times(keys_of([5, 5, 99]), users=10, newest=3)
    assert times.tolist() == [row[0] for row in store.rows[5][-3:]]


def test_shards_open_when_they_are_needed(store: Histories, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = Shard.open.__func__  # type: ignore[attr-defined]

    def counting(cls: type[Shard], storage: object, key: str, **expected: object) -> Shard:
        opened.append(key)
        return real(cls, storage, key, **expected)

    monkeypatch.setattr(Shard, "open", classmethod(counting))
    reader = GenerationReader(store.storage, store.reader.generation)
    reader.locate(keys_of([]))
    assert opened == []
    reader.locate(keys_of([3, 3]))
    assert len(opened) == 1
    threads = [threading.Thread(target=reader.locate, args=(keys_of(range(40)),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == len(set(opened)) == 3


def test_a_missing_file_is_a_missing_file(store: Histories) -> None:
    reader = GenerationReader(open_storage("memory://nothing-here"), store.reader.generation)
    with pytest.raises(FileNotFoundError):
        reader.locate(keys_of([3]))


def test_a_flipped_byte_is_found_when_it_is_read() -> None:
    times = np.cumsum(np.random.default_rng(3).integers(0, 1000, 900)).tolist()
    rows = {1: [(ts, ts + 7, 0) for ts in times], 2: [(5, 6, 0)]}
    damaged = write_generation(rows, watermark=500_000, shards=1)
    file = damaged.reader.generation.shards[0]
    data = bytearray(damaged.storage.read(file.key))
    data[64 + 300] ^= 1  # the payload starts after the header; user 2 has a few bytes, user 1 its times, then the rest
    damaged.storage.write(file.key, bytes(data))
    reader = GenerationReader(damaged.storage, damaged.reader.generation)
    users, end_ts = [2, 1, 2, 1], np.array([6, 90_000, 6, 50_000])
    for _ in range(2):  # a damaged block is never taken for verified
        with pytest.raises(CorruptionError, match=file.key):
            reader.measure(keys_of(users), end_ts, 500_000)
    with pytest.raises(CorruptionError, match="event_ts"):
        list(reader.scan(list(SCHEMA)))
    assert reader.measure(keys_of([2]), np.array([6]), 500_000).length.tolist() == [1]


def test_lists_come_back_compact(tmp_path: Path) -> None:
    """Of any rows, in the order asked for; a scan reads fewer of them at once."""
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("tags", pa.list_(pa.int64())), ("item", pa.int64())]))
    lists = [None if n % 7 == 0 else list(range(n % 5)) for n in range(1000)]
    clock = lw.testing.ManualClock(10**6)
    with lw.Store.create(tmp_path / "store", schema, shards=1, clock=clock) as kept:
        users = [n % 2 for n in range(1000)]
        kept.append(pa.table({"user_id": users, "event_ts": range(1000), "tags": lists, "item": range(1000)}))
        clock.advance(10)
        kept.compact()
        reader = kept.refresh()
        assert (reader.column(schema["tags"]), reader.column(schema["item"])) == (FIRST_TRAIT, FIRST_TRAIT + 2)
        shard, user = reader.locate(keys_of([1, 0, 1]))
        rows = Rows(shard, user, np.array([100, 3, 0]), np.array([400, 4, 2]))
        events = reader.read(rows, list(schema))
        tags, items = events.traits[0], events.traits[1].values.tolist()
        assert isinstance(tags, Lists)
        assert cells(tags) == [None if lists[n] is None else tuple(lists[n]) for n in items]
        assert len(tags.items) == tags.lengths.sum()
        assert [len(run) for run in reader.scan(list(schema), at_once=16 * 300)] == [500, 500]
        assert [len(run) for run in reader.scan([schema["item"]], at_once=16 * 300)] == [1000]
        none = np.zeros(0, np.int64)
        assert reader.read_trait(Rows(none, none, none, none), schema["tags"]).event_count == 0


def test_lists_of_another_size_than_the_trait_s_are_damage(tmp_path: Path) -> None:
    """A schema that was changed by hand, or a file of another store."""
    schemas = [
        lw.Schema(user_id=pa.int64(), traits=pa.schema([("pair", pa.list_(pa.int64(), size))])) for size in (2, 3)
    ]
    clock = lw.testing.ManualClock(10**6)
    with lw.Store.create(tmp_path / "store", schemas[0], shards=1, clock=clock) as kept:
        kept.append(pa.table({"user_id": [5], "event_ts": [1], "pair": pa.array([[1, 2]], pa.list_(pa.int64(), 2))}))
        clock.advance(10)
        generation = replace(kept.compact(), schema=schemas[1])
        with pytest.raises(
            CorruptionError, match=r"user 5, column 'pair', stripe 0: the items are not as the lengths say"
        ):
            list(GenerationReader(kept.storage, generation).scan(list(schemas[1])))
