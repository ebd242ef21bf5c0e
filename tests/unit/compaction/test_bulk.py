"""Bulk load: order, places among ties, what is already there, and loads that fail at any step."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from latewood.compaction import bulk_load, compact, settle_load
from latewood.errors import ConflictError
from latewood.storage import keys

Parts = Any  # the class in conftest.py
HOUR = 3_600_000_000


def test_old_data_in_any_order_becomes_a_generation(parts: Parts) -> None:
    rng = np.random.default_rng(5)
    users, times = rng.integers(0, 40, 5000).tolist(), rng.integers(0, 300, 5000).tolist()
    events = parts.events(users, times, [time + 10 for time in times])
    batches = [events.slice(start, start + 700) for start in range(0, 5000, 700)]
    generation = bulk_load(parts, batches, memory_bytes=100_000)  # a seventh of what it takes
    seen: dict[tuple[int, int], int] = {}
    expected = []
    for item, (user, time) in enumerate(zip(users, times, strict=True)):
        ordinal = seen[user, time] = seen.get((user, time), -1) + 1
        expected.append((user, time, time + 10, ordinal, item))
    assert sorted(parts.stored()) == sorted(expected)
    of_user: dict[int, list[tuple[int, ...]]] = {}
    for row in parts.stored():
        of_user.setdefault(row[0], []).append(row)
    assert all(rows == sorted(rows) for rows in of_user.values())
    state = parts.tier.state()
    assert generation.watermark == state.frontier == state.closed == 299 + 10 + 1


def test_nothing_to_load_changes_nothing(parts: Parts) -> None:
    assert bulk_load(parts, []).id == 0
    assert bulk_load(parts, [parts.events([], [])]).id == 0
    assert parts.tier.state().load_token is None


def test_a_load_takes_the_recent_events_along_and_its_ties_come_after_them(parts: Parts) -> None:
    parts.tier.append(parts.events([1, 1], [5, 5], [100, 100]), explicit=True, now=parts.clock.now())
    generation = bulk_load(parts, [parts.events([1, 2], [5, 5], [100, 100])])
    assert [row for row in parts.stored() if row[0] == 1] == [(1, 5, 100, 0, 0), (1, 5, 100, 1, 1), (1, 5, 100, 2, 0)]
    assert generation.event_count == 4
    assert compact(parts) == generation
    parts.append([1], [5])
    assert compact(parts).event_count == 5


def test_a_second_load_merges_with_the_generation(parts: Parts) -> None:
    bulk_load(parts, [parts.events([1, 2], [10, 10], [10, 10])])
    bulk_load(parts, [parts.events([1, 3], [5, 5], [20, 20])])
    assert sorted(row[:3] for row in parts.stored()) == [(1, 5, 20), (1, 10, 10), (2, 10, 10), (3, 5, 20)]


def test_what_was_already_seen_cannot_be_loaded_into(parts: Parts) -> None:
    generation = bulk_load(parts, [parts.events([1], [10], [10])])
    with pytest.raises(ConflictError):
        bulk_load(parts, [parts.events([1], [5], [10])])
    assert parts.catalog.latest() == generation
    assert parts.tier.state().load_token is None
    parts.append([1], [5])
    assert compact(parts).event_count == 2


def test_times_far_ahead_of_the_clock_are_refused(parts: Parts) -> None:
    with pytest.raises(ConflictError):
        bulk_load(parts, [parts.events([1], [5], [parts.clock.now() + 2 * HOUR])])
    assert parts.catalog.latest().id == 0


def test_a_batch_that_fails_is_no_load(parts: Parts) -> None:
    def batches() -> Any:
        yield parts.events([1], [5], [10])
        raise OSError("the file is torn")

    with pytest.raises(OSError, match="torn"):
        bulk_load(parts, batches())
    assert parts.tier.state().load_token is None
    assert parts.catalog.latest().id == 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_load_that_fails_at_any_step_happened_or_did_not(parts: Parts, when: str) -> None:
    expected = 0
    for fault in range(100):
        step = 0

        def fail(verb: str, fault: int = fault) -> None:
            nonlocal step
            step += 1
            if step > fault:
                raise OSError("the disk is full")

        setattr(parts.storage, when, fail)
        ingest_ts = parts.clock.advance(HOUR)
        failed = False
        try:
            bulk_load(parts, [parts.events([1, 2, 3], [5, 6, 7], [ingest_ts] * 3)], workers=1)
        except OSError:
            failed = True
        setattr(parts.storage, when, lambda _: None)
        if (token := parts.tier.state().load_token) is not None:  # nothing could be decided: whoever comes next does
            parts.tier.end_load(token, published=settle_load(parts.beside().catalog, token))
        newest = parts.catalog.latest()
        assert len(parts.stored()) == newest.event_count in (expected, expected + 3)
        assert parts.tier.state().load_token is None
        assert (parts.tier.state().frontier == newest.watermark) or newest.id == 0
        expected = newest.event_count + 1
        parts.append([9], [fault])
        assert compact(parts).event_count == expected
        if not failed:
            break
    assert 5 <= fault < 99


def test_a_load_beaten_by_a_compaction_is_a_conflict(parts: Parts) -> None:
    """The compaction cuts before the load begins, and publishes before the load does."""
    parts.append([1], [5])
    slow, ingest_ts = parts.beside(), parts.clock.advance(HOUR)

    def begin_and_finish_the_compaction(verb: str) -> None:
        if verb == "create":
            slow.storage.before = lambda _: None
            with pytest.raises(ConflictError, match="bulk load"):
                compact(parts.beside())
            parts.catalog.publish(replace(slow.catalog.latest(), id=1, watermark=ingest_ts, uuid="fast", parent=0))

    slow.storage.before = begin_and_finish_the_compaction
    with pytest.raises(ConflictError, match="generation 1"):
        bulk_load(slow, [parts.events([1, 2], [5, 6], [ingest_ts] * 2)])
    assert parts.tier.state().load_token is None
    assert [key for key in parts.listed() if key.startswith("generations/")] == []


def put_late(parts: Parts) -> list[tuple[str, bytes]]:
    """From now on a put of a manifest times out; what was to be put, which may come through at any time."""
    late: list[tuple[str, bytes]] = []
    create = parts.storage.create

    def times_out(key: str, data: bytes) -> bool:
        if not key.startswith(keys.MANIFESTS):
            return create(key, data)
        parts.storage.create = create
        late.append((key, data))
        raise OSError("timed out")

    parts.storage.create = times_out
    return late


def test_a_manifest_that_comes_late_comes_too_late(parts: Parts) -> None:
    parts.append([1], [5])
    compact(parts)
    late, ingest_ts = put_late(parts), parts.clock.advance(HOUR)
    with pytest.raises(OSError, match="timed out"):
        bulk_load(parts, [parts.events([2], [6], [ingest_ts])])
    assert parts.tier.state().load_token is None
    parts.append([1], [7])
    [put] = late
    assert not parts.storage.create(*put)
    assert compact(parts.beside()).event_count == 2
    assert {row[:2] for row in parts.stored()} == {(1, 5), (1, 7)}


def test_a_load_that_nobody_can_decide_about_stays_open(parts: Parts) -> None:
    late, ingest_ts = put_late(parts), parts.clock.advance(HOUR)

    def is_down(verb: str) -> None:
        if late:
            raise OSError("no route to host")

    parts.storage.before = is_down
    with pytest.raises(OSError, match="timed out"):
        bulk_load(parts, [parts.events([2], [6], [ingest_ts])])
    token = parts.tier.state().load_token
    assert token is not None
    parts.storage.before = lambda _: None
    assert parts.storage.create(*late[0])
    assert settle_load(parts.beside().catalog, token)


def test_a_load_that_fails_before_its_manifest_is_put_leaves_no_generation(parts: Parts) -> None:
    def is_full(verb: str) -> None:
        raise OSError("the disk is full")

    parts.storage.before = is_full
    with pytest.raises(OSError, match="full"):
        bulk_load(parts, [parts.events([2], [6], [parts.clock.advance(HOUR)])])
    assert parts.tier.state().load_token is None
    assert parts.catalog.latest().id == 0


def test_a_load_is_settled_by_whether_its_token_was_published(parts: Parts) -> None:
    generation = bulk_load(parts, [parts.events([1], [10], [10])])
    parts.append([1], [5])
    before = compact(parts)
    assert settle_load(parts.catalog, generation.uuid)
    assert parts.catalog.latest() == before
    assert not settle_load(parts.catalog, "another")
    after = parts.catalog.latest()
    assert (after.id, after.parent, after.shards) == (before.id + 1, before.id, before.shards)


@pytest.mark.parametrize("first", ["the load", "another"])
def test_a_load_is_settled_by_who_takes_its_number_first(first: str, parts: Parts) -> None:
    other, newest = parts.beside(), parts.catalog.latest()

    def publish(verb: str) -> None:
        other.catalog.publish(replace(newest, id=1, uuid=first, parent=0))

    parts.storage.before = publish
    assert settle_load(parts.catalog, "the load") == (first == "the load")
    assert parts.catalog.latest().uuid == first
