"""The arena against plain Python: long chains, many users, colliding keys, and rebuilding."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from numpy.typing import NDArray

from latewood.columns import compact_lists
from latewood.errors import CorruptionError
from latewood.events import Events, Suppressions
from latewood.mutable.arena import Arena
from latewood.mutable.event_batch import EventBatch, Versions, decode_batch, encode_batch
from latewood.mutable.growable import Growable
from latewood.mutable.supersedes import Places
from latewood.testing.recent_events import make_events, places_of, rows_of
from latewood.users import UserKeys, user_keys

FOREVER = 2**62


def assign(arena: Arena, events: Events) -> NDArray[np.int64]:
    return arena.assign(events.keys, events.user_ids)


def add(arena: Arena, events: Events, *, place_ties: bool = True) -> list[int]:
    ordinal = arena.add(EventBatch(events, None, None), assign(arena, events), place_ties=place_ties)
    arena.commit()
    return ordinal.tolist()


def gathered(arena: Arena, keys: UserKeys, end_ts: int = FOREVER) -> list[list[tuple[Any, ...]]]:
    n = len(keys.hash)
    whole = np.full(n, end_ts), np.full(n, -FOREVER), np.full(n, FOREVER)
    offsets, rows = arena.gather(keys, *whole, None, None)
    events = rows_of(arena.view().take(rows))
    return [events[a:b] for a, b in pairwise(offsets)]


@pytest.mark.parametrize("seed", range(3))
def test_long_chains_come_out_sorted(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arena, everything = Arena(pa.int64()), []
    for _ in range(5):
        n = int(rng.integers(1, 40_000))
        users, times, ingest = rng.integers(0, 3, n), rng.integers(0, 50, n), rng.integers(0, 50, n)
        events = make_events(users.tolist(), times.tolist(), ingest.tolist())
        ordinal = np.array(add(arena, events), np.int32)
        everything += rows_of(events.stamped(events.ingest_ts, ordinal))
    assert len({row[:4] for row in everything}) == len(everything)  # ordinals tell ties apart
    expected = sorted(everything, key=lambda row: row[1:4])
    for user, rows in enumerate(gathered(arena, user_keys(pa.array([0, 1, 2])), end_ts=25)):
        assert rows == [row for row in expected if row[0] == user and row[1] < 25]


def test_rows_that_came_with_their_ordinals_count_as_ties() -> None:
    """Of those nothing is entered in the table of tied groups until someone asks for places."""
    rng = np.random.default_rng(7)
    arena, arrived = Arena(pa.int64()), Counter[tuple[int, ...]]()
    for with_ordinals in [True, True, False, True, True, False, False, True]:
        n = int(rng.integers(500, 3_000))
        users, times, ingest = rng.integers(0, 20, n), rng.integers(0, 9, n), rng.integers(0, 9, n)
        expected = []
        for place in zip(users.tolist(), times.tolist(), ingest.tolist(), strict=True):
            expected.append(arrived[place])
            arrived[place] += 1
        events = make_events(users.tolist(), times.tolist(), ingest.tolist())
        if with_ordinals:
            events = events.stamped(events.ingest_ts, np.array(expected, np.int32))
        assert add(arena, events, place_ties=not with_ordinals) == expected
    asked = np.array([[*place, count - 1] for place, count in arrived.items()])
    keys, places = user_keys(pa.array(asked[:, 0])), Places(asked[:, 1], asked[:, 2], asked[:, 3].astype(np.int32))
    rows = arena.rows_at(arena.find_users(keys), places)
    found = arena.view().take(rows)
    assert np.array_equal(np.stack([found.event_ts, found.ingest_ts, found.ordinal], 1), asked[:, 1:])
    assert found.user_ids.to_pylist() == asked[:, 0].tolist()


def test_many_users_and_tables_that_grow() -> None:
    arena = Arena(pa.string())
    names = [f"user-{i}" for i in range(30_000)]
    for start in range(0, len(names), 7_000):
        some = names[start : start + 7_000]
        add(arena, make_events(some, [start + i for i in range(len(some))]))
    found = gathered(arena, user_keys(pa.array(names)))
    assert [rows[0][:2] for rows in found] == list(zip(names, range(30_000), strict=True))


def test_users_whose_hashes_collide_are_told_apart() -> None:
    base = make_events([1, 2, 3, 1], [4, 5, 6, 7])
    same = np.array([9, 9, 9 + (1 << 40), 9], np.uint64)  # the third collides in the table only
    keys = UserKeys(same, np.array([1, 2, 1, 1], np.uint64))
    arena = Arena(pa.int64())
    add(arena, Events(base.user_ids, keys, base.event_ts, base.ingest_ts, base.ordinal, base.traits))
    found = gathered(arena, keys.take(np.array([0, 1, 2])))
    assert [[row[1] for row in rows] for rows in found] == [[4, 7], [5], [6]]
    assert gathered(arena, UserKeys(same[:1], np.array([3], np.uint64))) == [[]]


def test_pending_rows_are_counted_but_not_seen() -> None:
    arena, keys = Arena(pa.int64()), user_keys(pa.array([1]))
    add(arena, make_events([1], [5]))
    pending = make_events([1, 1], [5, 3])
    assert arena.add(EventBatch(pending, None, None), assign(arena, pending), place_ties=True).tolist() == [1, 0]
    assert len(gathered(arena, keys)[0]) == len(arena.rows_between(-1, 1)) == 1
    back = arena.rebuilt(0)  # the commit failed
    assert (back.rows, back.next_batch) == (1, 1)
    arena.commit()
    assert [row[1] for row in gathered(arena, keys)[0]] == [3, 5, 5]
    assert add(back, make_events([1], [5])) == [1]


def test_a_view_stays_what_it_was() -> None:
    """And there is one for every commit: pending rows and a mask that they bring are not in it."""
    arena = Arena(pa.int64())
    add(arena, make_events([1, 2], [5, 6], item=[10, 20]))
    view = arena.view()
    assert arena.view() is view
    pending = make_events([1] * 5_000, [7] * 5_000, item=[None] * 5_000)
    arena.add(EventBatch(pending, None, None), assign(arena, pending), place_ties=True)
    arena.commit()
    assert arena.view() is not view
    assert [row[4] for row in rows_of(view.take(np.array([0, 1])))] == [10, 20]
    assert [row[4] for row in rows_of(arena.view().take(np.array([1, 2, 5_001])))] == [20, None, None]


def test_rebuilding_drops_batches_from_the_front() -> None:
    arena = Arena(pa.int64(), first_batch=10)
    for i in range(5):
        events = make_events([1, i], [i, i])
        ids = np.array([[i + 1, 1], [0, 0]], np.uint64)
        arena.add(EventBatch(events, ids, np.array([i, i], np.uint64)), assign(arena, events), place_ties=True)
    arena.commit()
    later = arena.rebuilt(12)
    assert (later.first_batch, later.next_batch, later.rows) == (12, 15, 6)
    assert [row[1] for row in gathered(later, user_keys(pa.array([1])))[0]] == [2, 3, 4]
    ids = np.array([[i + 1, 1] for i in range(5)], np.uint64)
    found, clash = later.ids.match(ids, np.arange(5, dtype=np.uint64))
    assert found.tolist() == [-1, -1, 0, 1, 2]
    assert later.ids.row.array[:3].tolist() == [0, 2, 4]
    assert not clash.any()
    assert len(arena.ids_before(12, latest=0)) == 2
    assert later.rebuilt(99).rows == 0


@pytest.mark.parametrize("users", [["ä", "", "b"], [3, -1, 2**62]])
@pytest.mark.parametrize("with_ids", [True, False])
def test_a_batch_survives_as_bytes(users: list[Any], with_ids: bool) -> None:
    events = make_events(users, [1, -2, 3], [4, 5, 6], [None, 8, 9])
    ids = np.arange(6, dtype=np.uint64).reshape(3, 2) if with_ids else None
    batch = EventBatch(events, ids, None if ids is None else ids[:, 0])
    again = decode_batch(encode_batch(batch, 7), 7, "here")
    assert rows_of(again.events) == rows_of(events)
    assert again.events.user_ids.type == events.user_ids.type
    assert [half.tolist() for half in again.events.keys] == [half.tolist() for half in events.keys]
    assert (again.ids is None) == (not with_ids)
    if ids is not None and again.ids is not None and again.content is not None:
        assert again.ids.tolist() == ids.tolist()
        assert again.content.tolist() == ids[:, 0].tolist()


@pytest.mark.parametrize("users", [["ä", "", "b"], [3, -1, 2**62]])
def test_what_a_batch_supersedes_survives_as_bytes(users: list[Any]) -> None:
    events = make_events(users, [1, -2, 3], [4, 5, 6])
    suppressions = Suppressions(
        events.keys, events.event_ts - 7, events.ingest_ts, events.ordinal + 9, events.ingest_ts + 1
    )
    ids = np.arange(6, dtype=np.uint64).reshape(3, 2)
    versions = Versions(events.user_ids, suppressions, ids, ids[:, 1])
    for rows in (np.arange(3), np.zeros(0, np.int64)):  # with events, and deletions alone
        blob = encode_batch(EventBatch(events.take(rows), None, None, versions), 7)
        again = decode_batch(blob, 7, "here")
        assert rows_of(again.events) == rows_of(events.take(rows))
        assert again.versions is not None
        assert places_of(again.versions.suppressions) == places_of(suppressions)
        assert [half.tolist() for half in again.versions.suppressions.keys] == [half.tolist() for half in events.keys]
        assert again.versions.user_ids == events.user_ids
        assert again.versions.ids.tolist() == ids.tolist()
        assert again.versions.content.tolist() == ids[:, 1].tolist()
        assert again.latest_ingest == 7
        with pytest.raises(CorruptionError):
            decode_batch(bytes(blob[:-20]) + b"x" + blob[-19:], 7, "here")


def forged(blob: Any, place: int, put: bytes) -> bytes:
    """A batch of number 7 with other bytes somewhere, and the checksum of those."""
    body = bytearray(blob[:-8])
    body[place : place + len(put)] = put
    return bytes(body) + xxhash.xxh3_64_intdigest(bytes(body), seed=7).to_bytes(8, "little")


N, TABLE, COLUMNS = 8, 24, 32  # where the header has the events, where the first trait is described, and what follows
ONE = make_events([3, -1, 2**62], [1, -2, 3], [4, 5, 6])
LISTS = replace(ONE, traits={0: compact_lists(np.array([5, 6, 7], np.int64), np.array([1, 0, 2], np.int32))})


@pytest.mark.parametrize(
    ("events", "place", "put"),
    [
        (ONE, 4, b"\0\0"),  # a version that never was
        (ONE, N, (2**40).to_bytes(8, "little")),
        (ONE, N, (2**64 - 1).to_bytes(8, "little")),
        (ONE, N, (2).to_bytes(8, "little")),
        (ONE, N + 8, (2**31).to_bytes(4, "little")),  # more traits than there are bytes
        (ONE, TABLE + 4, b"O8"),
        (ONE, TABLE + 4, b"S9"),
        (ONE, TABLE + 4, b"\xff\xff"),
        (ONE, TABLE + 4, b"i3"),
        (ONE, TABLE + 4, b"i0"),
        (ONE, TABLE + 4, b"08"),
        (ONE, COLUMNS + 8, (3).to_bytes(8, "little")),  # user ids of a width that none has
        (make_events(["ä", "", "b"], [1, 2, 3]), COLUMNS, (2**30).to_bytes(8, "little")),  # offsets that begin too late
        (make_events(["ä", "", "b"], [1, 2, 3]), COLUMNS + 17, bytes([200])),  # and one that lies outside
        (make_events(["ä", "", "b"], [1, 2, 3]), COLUMNS + 24, b"\xff\xff"),  # no UTF-8
        (LISTS, -64, (-9).to_bytes(8, "little", signed=True)),  # lengths below zero
        (LISTS, -64, (2**30).to_bytes(8, "little")),
        (ONE, -16, (-1).to_bytes(8, "little", signed=True)),  # so many superseded events
        (ONE, -16, (2**40).to_bytes(8, "little")),
    ],
)
def test_what_cannot_have_been_written_so_is_refused_whatever_its_checksum(
    events: Events, place: int, put: bytes
) -> None:
    blob = encode_batch(EventBatch(events, None, None), 7)
    assert len(decode_batch(forged(blob, 0, b""), 7, "here").events) == 3
    with pytest.raises(CorruptionError, match="here: batch 7"):
        decode_batch(forged(blob, place if place > 0 else len(blob) - 8 + place, put), 7, "here")


def test_batches_cut_short_or_with_more_behind_are_refused_whatever_their_checksum() -> None:
    for events in (ONE, LISTS, make_events(["ä", "", "b"], [1, 2, 3])):
        blob = encode_batch(EventBatch(events, None, None), 7)
        for stop in range(24, len(blob) - 8):
            with pytest.raises(CorruptionError, match="here: batch 7"):
                decode_batch(forged(blob[: stop + 8], 0, b""), 7, "here")
        with pytest.raises(CorruptionError, match="here: batch 7"):
            decode_batch(forged(bytes(blob) + bytes(8), 0, b""), 7, "here")


def test_rebuilding_keeps_what_was_superseded() -> None:
    arena, keys = Arena(pa.int64()), user_keys(pa.array([1, 2]))
    add(arena, make_events([1, 2], [5, 5], [1, 1]))
    add(arena, make_events([1, 2], [6, 6], [2, 2]))
    for batch in range(3):  # the last one stays pending
        times, nines = (np.full(2, 5 + batch), np.full(2, 1 + batch)), np.full(2, 9)
        of = Suppressions(keys, *times, np.zeros(2, np.int32), nines)
        versions = Versions(pa.array([1, 2]), of, np.array([[batch + 1, 1], [0, 0]], np.uint64), np.zeros(2, np.uint64))
        if batch < 2:
            arena.take_in(EventBatch(make_events([], []), None, None, versions))
        else:
            arena.add(EventBatch(make_events([], []), None, None), np.zeros(0, np.int64), place_ties=True)
            arena.supersede(versions, arena.assign(keys, versions.user_ids))
    assert (arena.next_batch, len(arena.superseded_between(0, 10))) == (5, 4)
    assert gathered(arena, keys) == [[], []]
    for first_batch, superseded in ((0, 4), (1, 4), (2, 4), (3, 2), (4, 0)):
        later = arena.rebuilt(first_batch)
        assert later.next_batch == 4
        assert len(later.superseded_between(0, 10)) == superseded
        assert gathered(later, keys) == [[], []]
        found, _ = later.ids.match(np.array([[1, 1], [2, 1], [3, 1]], np.uint64), np.zeros(3, np.uint64))
        assert (found >= 0).tolist() == [first_batch <= 2, first_batch <= 3, False]
        assert later.ids.ordinal.array[: later.ids.count].tolist() == [-1] * later.ids.count
        assert len(later.ids_before(99, latest=0)) == later.ids.count


def test_user_ids_of_a_slice_are_those_of_the_slice() -> None:
    whole = make_events(["aa", "b", "ccc", "d"], [1, 2, 3, 4])
    part = whole.user_ids.slice(1, 2)
    events = make_events(["b", "ccc"], [2, 3])
    sliced = Events(part, events.keys, events.event_ts, events.ingest_ts, events.ordinal, events.traits)
    assert decode_batch(encode_batch(EventBatch(sliced, None, None), 0), 0, "").events.user_ids.to_pylist() == [
        "b",
        "ccc",
    ]
    arena = Arena(pa.string())
    add(arena, sliced)
    assert [row[0] for rows in gathered(arena, events.keys) for row in rows] == ["b", "ccc"]


@pytest.mark.parametrize("fill", [None, 0])
def test_a_column_is_whole_at_every_moment_that_it_grows(fill: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Views take user ids from it without a lock, from other threads: a compaction that lasts, while events come in."""
    column = Growable(np.int64, fill)
    column.put(0, np.arange(1, 1025))
    before, written = column.array, list[bool]()

    class Watched(np.ndarray[Any, Any]):
        def __setitem__(self, key: Any, value: Any) -> None:
            written.append(column.array is before)
            super().__setitem__(key, value)

    def empty(*arguments: Any) -> Any:
        return np.zeros(*arguments).view(Watched)

    with monkeypatch.context() as patched:
        patched.setattr("latewood.mutable.growable.np.empty", empty)
        column.reserve(1025)
    assert written
    assert all(written)
    assert column.array is not before
    assert column.array[:1024].tolist() == list(range(1, 1025))
