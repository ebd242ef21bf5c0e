"""Rollback: a generation made of an older one and the mutable tier, and every reason why it cannot be."""

from dataclasses import replace
from typing import Any

import pytest

from latewood.compaction import bulk_load, compact, rollback
from latewood.errors import ConflictError
from latewood.retention import Retention
from latewood.users import user_keys

Parts = Any  # the class in conftest.py


def days(parts: Parts, count: int) -> list[Any]:
    generations = []
    for day in range(count):
        parts.append([1, 2], [day, day])
        generations.append(compact(parts))
    return generations


def test_an_older_generation_and_the_tier_make_a_new_one(parts: Parts) -> None:
    older, bad = days(parts, 2)
    expected = sorted(parts.stored())
    for file in bad.shards:
        if file.exists:
            parts.storage.write(file.key, b"bad")
    parts.append([3], [9])
    generation = rollback(parts, older.id)
    assert (generation.id, generation.parent, generation.origin) == (3, older.id, "rollback")
    assert generation.watermark == parts.tier.state().closed > bad.watermark
    assert sorted(row for row in parts.stored() if row[0] < 3) == expected
    assert generation.event_count == 5
    assert compact(parts) == generation
    parts.append([3], [10])
    assert compact(parts).event_count == 6


def test_changes_and_scrubs_are_applied_and_not_undone(parts: Parts) -> None:
    older, _ = days(parts, 2)
    before = parts.changes.latest(older)
    parts.changes.add(replace(before, number=1, shards=2))
    parts.tier.scrub(parts.scrubs.body(user_keys(parts.events([1], [0]).user_ids)), now=parts.clock.now())
    generation = rollback(parts, older.id)
    assert (generation.change, len(generation.shards), generation.scrubs) == (1, 2, 1)
    assert {row[0] for row in parts.stored()} == {2}
    with pytest.raises(ConflictError, match="forgotten for good"):
        rollback(parts, older.id)


@pytest.mark.parametrize(("number", "why"), [(3, "it is the newest"), (7, "no generation 7"), (1, "mutable tier")])
def test_what_cannot_be_gone_back_to_is_refused_with_the_reason(parts: Parts, number: int, why: str) -> None:
    days(parts, 3)
    before = parts.listed()
    with pytest.raises(ConflictError, match=f"cannot go back to generation {number}: .*{why}"):
        rollback(parts, number)
    assert parts.listed() == before


def test_files_that_are_deleted_meanwhile_are_a_reason(parts: Parts) -> None:
    """Found by the simulation: a missing file, where another process collected what was gone back to."""
    older, _ = days(parts, 2)
    cut = parts.tier.cut

    def collect_first() -> int:
        parts.beside().catalog.collect(keep=1)
        chosen: int = cut()
        return chosen

    parts.tier.cut = collect_first
    with pytest.raises(ConflictError, match="cannot go back to generation 1: its files were deleted meanwhile"):
        rollback(parts, older.id)


def test_deleted_files_and_bulk_loads_are_reasons_too(parts: Parts) -> None:
    older, _ = days(parts, 2)
    parts.catalog.collect(keep=1)
    with pytest.raises(ConflictError, match="files are deleted"):
        rollback(parts, older.id)
    ingest_ts = parts.clock.advance(1_000_000)
    loaded = bulk_load(parts, [parts.events([1], [5], [ingest_ts])])
    with pytest.raises(ConflictError, match=f"generation {loaded.id} is a bulk load"):
        rollback(parts, loaded.id - 1)


@pytest.mark.parametrize(("loosened", "refused"), [(None, True), (3, True), (2, False), (1, False)])
def test_what_a_retention_took_that_was_loosened_since_does_not_come_back(
    parts: Parts, loosened: int | None, refused: bool
) -> None:
    """A late event from before the gap would have it filled behind its back, and its pointers count what is no more."""

    def retain(number: int, max_events: int | None) -> None:
        retention = None if max_events is None else Retention(max_events=max_events)
        parts.changes.add(replace(parts.changes.latest(older), number=number, retention=retention))

    parts.append([1] * 5, [1, 2, 3, 4, 5])
    older = compact(parts, keep=9)
    retain(1, 2)
    assert compact(parts, keep=9).event_count == 2
    retain(2, loosened)
    parts.append([1], [2])
    assert compact(parts, keep=9).event_count == min(loosened or 3, 3)
    if refused:
        with pytest.raises(ConflictError, match="may have what generation 2 let go of"):
            rollback(parts, older.id, keep=9)
        assert rollback(parts, 2, keep=9).event_count == 3
    else:
        assert rollback(parts, older.id, keep=9).event_count == loosened


def test_what_a_retention_took_does_not_come_back_by_way_of_a_rollback(parts: Parts) -> None:
    """Generation 4 is made of 2, which let go of events, and not of 3, the one before it."""
    parts.append([1] * 5, [1, 2, 3, 4, 5])
    whole = compact(parts, keep=9)
    for number, retention in enumerate((Retention(max_events=2), None), 1):
        parts.changes.add(replace(parts.changes.latest(whole), number=number, retention=retention))
        if retention:
            assert compact(parts, keep=9).event_count == 2
    assert rollback(parts, whole.id, keep=9).event_count == 5
    parts.append([1], [2])
    assert rollback(parts, 2, keep=9).event_count == 3
    with pytest.raises(ConflictError, match="may have what generation 2 let go of, and 4 would keep"):
        rollback(parts, 3, keep=9)
    assert rollback(parts, 2, keep=9).event_count == 3


def test_a_sibling_that_lacks_the_same_can_be_gone_back_to(parts: Parts) -> None:
    """Generations 2 and 3 are both made of 1, and what that let go of neither has."""
    parts.append([1] * 5, [1, 2, 3, 4, 5])
    first = parts.catalog.latest()
    parts.changes.add(replace(parts.changes.latest(first), number=1, retention=Retention(max_events=2)))
    short = compact(parts, keep=9)
    parts.changes.add(replace(parts.changes.latest(short), number=2, retention=None))
    parts.append([1], [2])
    assert compact(parts, keep=9).event_count == 3
    assert rollback(parts, short.id, keep=9).event_count == 3
    assert rollback(parts, 2, keep=9).event_count == 3


def test_the_loser_of_a_race_leaves_nothing(parts: Parts) -> None:
    older, bad = days(parts, 2)
    parts.append([3], [3])
    other = parts.beside()

    def overtake(verb: str) -> None:
        if verb == "create":
            parts.storage.before = lambda _: None
            compact(other)

    parts.storage.before = overtake
    with pytest.raises(ConflictError, match="published by another"):
        rollback(parts, older.id)
    winner = parts.catalog.latest()
    kept = {file.key for generation in (bad, winner) for file in generation.shards if file.exists}
    assert {key for key in parts.listed() if key.startswith("generations/")} == kept
