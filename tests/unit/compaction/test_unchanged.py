"""Shards in which nothing changes are named again, not written; everything that changes anything writes them anew."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.compaction import compact, rollback
from latewood.compaction.spill import Spill
from latewood.errors import ConflictError
from latewood.immutable import Generation, GenerationReader
from latewood.mutable import Places, Supersedes
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.users import shard_of, user_keys

Parts = Any  # the class in conftest.py
SHARDS = 3


def shard_of_user(user: int) -> int:
    return int(shard_of(user_keys(pa.array([user])).hash, SHARDS)[0])


def one_user_per_shard() -> list[int]:
    """Users by the shard that they are in."""
    users = {shard_of_user(user): user for user in range(30)}
    return [users[shard] for shard in range(SHARDS)]


USERS = one_user_per_shard()


def a_generation(parts: Parts) -> Generation:
    parts.append(USERS * 2, list(range(2 * SHARDS)))
    generation: Generation = compact(parts)
    return generation


def written(before: Generation, after: Generation) -> list[int]:
    """The shards that the later generation has in files of its own."""
    return [number for number, file in enumerate(after.shards) if file not in before.shards]


def test_a_shard_without_anything_new_is_named_again(parts: Parts) -> None:
    first = a_generation(parts)
    parts.append([USERS[1]], [100])
    seen: list[tuple[int, int]] = []
    second = compact(parts, progress=lambda done, total: seen.append((done, total)))
    assert written(first, second) == [1]
    assert second.event_count == len(parts.stored(second)) == 2 * SHARDS + 1
    assert seen[-1] == (second.event_count, second.event_count)
    assert sum(len(events) for events in GenerationReader(parts.storage, second).scan([])) == second.event_count
    parts.append([USERS[0]], [100])
    third = compact(parts)  # from a file of the first generation, of the second, and of the first again
    assert written(second, third) == [0]
    assert third.shards[2] == first.shards[2]
    assert sorted(parts.stored(third))[-1] == max(parts.stored())


def test_a_file_goes_with_the_last_generation_that_names_it(parts: Parts) -> None:
    generations = [a_generation(parts)]
    for day in range(3):
        parts.append([USERS[0]], [100 + day])
        generations.append(compact(parts, keep=2))
    assert generations[-1].shards[1:] == generations[0].shards[1:]
    assert parts.shard_files() == parts.files_of(*generations[-2:])
    parts.append(USERS, [200] * SHARDS)
    newest = compact(parts, keep=1)
    assert parts.shard_files() == parts.files_of(newest)
    assert len(parts.stored(newest)) == newest.event_count


def test_who_loses_a_race_leaves_the_files_that_it_would_have_named(parts: Parts) -> None:
    a_generation(parts)
    parts.append([USERS[0]], [100])
    other = parts.beside()

    def overtake(verb: str) -> None:
        if verb == "create":
            parts.storage.before = lambda _: None
            compact(other, keep=1)

    parts.storage.before = overtake
    with pytest.raises(ConflictError, match="generation 2"):
        compact(parts)
    assert parts.shard_files() == parts.files_of(other.catalog.latest())
    assert len(parts.stored()) == 2 * SHARDS + 1


def test_a_scrub_writes_only_the_shards_of_whom_it_takes(parts: Parts) -> None:
    first = a_generation(parts)
    parts.tier.scrub(parts.scrubs.body(user_keys(pa.array([USERS[2]]))), now=parts.clock.now())
    second = compact(parts)
    assert written(first, second) == [2]
    assert {row[0] for row in parts.stored()} == set(USERS[:2])
    assert parts.shard_files() == parts.files_of(second)


def test_a_suppression_writes_the_shard_of_what_it_names(parts: Parts) -> None:
    events = parts.events(USERS, list(range(SHARDS)))
    receipt = parts.tier.append(events, now=parts.clock.advance(1_000_000))
    first = compact(parts)
    places = Places(np.array([1]), receipt.ingest_ts[1:2], receipt.ordinal[1:2])
    deletion = Supersedes(np.array([True]), np.array([True]), places=places)
    parts.append([USERS[1]], [1], supersedes=deletion)
    second = compact(parts)
    assert written(first, second) == [1]


@pytest.mark.parametrize(
    "retention",
    [Retention(max_events=1), Retention(max_age=timedelta(days=1))],
    ids=["too many events", "too old events"],
)
def test_what_retention_takes_is_written_anew(parts: Parts, retention: Retention) -> None:
    first = a_generation(parts)
    parts.changes.add(replace(parts.changes.latest(first), number=1, retention=retention))
    second = compact(parts)
    assert not parts.files_of(first) & parts.files_of(second)


def test_a_change_of_columns_or_shards_writes_all(parts: Parts) -> None:
    first = a_generation(parts)
    change = parts.changes.latest(first)
    schema = change.schema.altered(add=pa.schema([("price", pa.float32())]))
    parts.changes.add(replace(change, number=1, schema=schema))
    second = compact(parts)
    assert written(first, second) == list(range(SHARDS))
    parts.changes.add(replace(change, number=2, schema=schema, shards=SHARDS + 1))
    third = compact(parts)
    assert len(third.shards) == SHARDS + 1
    assert not parts.files_of(second) & parts.files_of(third)


def test_a_rollback_writes_all(parts: Parts) -> None:
    """The files of its parent may be collected at any time."""
    first = a_generation(parts)
    parts.append([USERS[0]], [100])
    second = compact(parts)
    third = rollback(parts, first.id)
    assert not parts.files_of(third) & parts.files_of(first, second)
    assert len(parts.stored(third)) == second.event_count


def test_a_new_shard_is_compared_with_the_old_ones_that_it_overlaps_alone(
    make_parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = make_parts(Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())])), 300)
    asked, buckets = list[int](), Spill.buckets

    def counted(spill: Spill, shard: int, shards: int) -> range:
        asked.append(shard)
        return buckets(spill, shard, shards)

    monkeypatch.setattr(Spill, "buckets", counted)
    parts.append([1, 2, 3], [1, 2, 3])
    assert compact(parts).event_count == 3
    assert len(asked) <= 3 * 300  # and not 300 for each
