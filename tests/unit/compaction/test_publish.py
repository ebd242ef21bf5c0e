"""Compaction as a whole: what it publishes, what it leaves alone, races, and crashes at every step."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from latewood.compaction import compact, parent
from latewood.errors import ConflictError, CorruptionError
from latewood.immutable import Catalog
from latewood.stripes import layout

Parts = Any  # the class in conftest.py


def test_events_become_a_generation(parts: Parts) -> None:
    parts.append([1, 2, 1], [50, 60, 40])
    generation = compact(parts)
    assert (generation.id, generation.parent, generation.event_count, generation.user_count) == (1, 0, 3, 2)
    assert generation.watermark == parts.tier.state().closed == parts.tier.state().frontier
    assert generation.size_bytes == sum(parts.storage.map(file.key).size for file in generation.shards if file.exists)
    assert sorted((row[0], row[1], row[4]) for row in parts.stored()) == [(1, 40, 2), (1, 50, 0), (2, 60, 1)]


def test_nothing_new_writes_nothing_and_cuts_nothing(parts: Parts) -> None:
    assert compact(parts).id == 0
    parts.append([1], [50])
    generation = compact(parts)
    parts.tier.raise_frontier(generation.watermark, last=generation.watermark + 100)
    before, state = parts.listed(), parts.tier.state()

    def refuse(verb: str) -> None:
        raise AssertionError(f"{verb} with nothing new")

    parts.storage.before = refuse
    assert compact(parts) == generation
    assert compact(parts, watermark=generation.watermark + 50) == generation
    assert (parts.listed(), parts.tier.state()) == (before, state)


def test_a_given_cut_holds_back_the_open_tick(parts: Parts) -> None:
    parts.append([1], [50])
    parts.append([1], [40])
    last = parts.tier.state().last
    assert compact(parts, watermark=last).event_count == 1
    assert compact(parts, watermark=last).id == 1
    assert compact(parts).event_count == 2
    assert [row[1] for row in parts.stored()] == [40, 50]


def test_a_cut_past_the_closed_time_is_refused(parts: Parts) -> None:
    parts.append([1], [50])
    with pytest.raises(ConflictError):
        compact(parts, watermark=parts.tier.state().closed + 1)
    assert compact(parts).event_count == 1


def test_eviction_stays_one_generation_behind_and_old_files_go(parts: Parts) -> None:
    generations = []
    for day in range(4):
        parts.append([day], [day])
        generations.append(compact(parts, keep=2))
    assert parts.tier.state().floor == generations[2].watermark
    assert parts.shard_files() == parts.files_of(*generations[2:])


def test_an_untouched_users_stripes_are_never_decoded(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.append([1] * 700 + [2] * 700 + [3] * 700, list(range(2100)))
    first = compact(parts)
    decoded: list[tuple[int, int, int]] = []

    def watch(tables: Any, ranges: Any, column: int, *rest: Any) -> bool:
        ids = tables.shards[0].user_ids.take(ranges.user.tolist()).to_pylist()
        decoded.extend((column, *row) for row in zip(ids, ranges.start.tolist(), ranges.stop.tolist(), strict=True))
        return decode_column(tables, ranges, column, *rest)

    decode_column = parent.decode_column
    monkeypatch.setattr(parent, "decode_column", watch)
    before = {row for row in parts.stored(first) if row[0] != 2}
    parts.append([2], [10**6])
    compact(parts)
    assert decoded == [(column, 2, 512, 700) for column in range(4)]
    assert before < set(parts.stored())


def payloads(parts: Parts, generation: Any) -> dict[int, bytes]:
    """All stripes of all columns of each user, as bytes: they lie back to back."""
    users = {}
    for shard in parts.open(generation):
        data, section = parts.storage.map(shard.key), shard.footer.sections["entries"]
        entries = data[section.offset : section.offset + section.size_bytes].view(np.uint64)
        offsets = (entries & np.uint64((1 << layout.OFFSET_BITS) - 1)).astype(np.int64) + layout.HEADER_BYTES
        ends = offsets[shard.first_stripe * len(shard.columns)]
        for user, start, stop in zip(shard.user_ids.to_pylist(), ends[:-1], ends[1:], strict=True):
            users[user] = data[start:stop].tobytes()
    return users


def test_an_untouched_users_bytes_stay_the_same(parts: Parts) -> None:
    rng = np.random.default_rng(3)
    parts.append(np.repeat(np.arange(20), 600).tolist(), rng.integers(0, 10**6, 12_000).tolist())
    before = payloads(parts, compact(parts))
    parts.append([4, 99], [10**6, 5])
    after = payloads(parts, compact(parts))
    assert after.keys() == before.keys() | {99}
    assert [user for user in before if before[user] != after[user]] == [4]


def test_the_loser_of_a_race_leaves_nothing_and_can_go_on(parts: Parts) -> None:
    parts.append([1, 2, 3], [10, 20, 30])
    other = parts.beside()

    def overtake(verb: str) -> None:
        if verb == "create":
            parts.storage.before = lambda _: None
            compact(other)

    parts.storage.before = overtake
    with pytest.raises(ConflictError, match="generation 1"):
        compact(parts)
    winner = other.catalog.latest()
    assert parts.shard_files() == parts.files_of(winner)
    parts.append([4], [40])
    assert compact(parts).event_count == 4


def test_files_collected_under_a_compaction_are_a_conflict(parts: Parts) -> None:
    parts.append(list(range(30)), list(range(30)))
    compact(parts)
    parts.append(list(range(30)), list(range(30)))
    other = parts.beside()

    def overtake(verb: str) -> None:
        if verb == "open":
            parts.storage.before = lambda _: None
            compact(other, keep=1)

    parts.storage.before = overtake
    with pytest.raises(ConflictError, match="generation 2 was published by another compaction first"):
        compact(parts, workers=1)
    assert compact(parts).event_count == 60


def every_fault(run: Callable[[int], bool]) -> int:
    """Run with a fault at step 0, 1, 2… until a run has no such step; how many there were."""
    step = 0
    while run(step):
        step += 1
    return step


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_a_crash_at_any_step_loses_nothing(parts: Parts, when: str, error: BaseException) -> None:
    days = 0

    def run(fault: int) -> bool:
        nonlocal days
        days += 1
        parts.append([1, 2, 3, days], [days, 5, 1000 - days, 0])
        step = 0

        def fail(verb: str) -> None:
            nonlocal step
            step += 1
            if step > fault:
                raise error

        setattr(parts.storage, when, fail)
        failed = False
        try:
            compact(parts, workers=1 + fault % 2)
        except type(error):
            failed = True
        setattr(parts.storage, when, lambda _: None)
        newest = Catalog(parts.storage, parts.catalog._epoch).latest()
        assert len(parts.stored(newest)) == newest.event_count
        parts.catalog = Catalog(parts.storage, parts.catalog._epoch)
        assert compact(parts).event_count == 4 * days
        assert len(set(parts.stored())) == 4 * days
        return failed

    assert every_fault(run) >= (10 if when == "before" else 5)
    parts.append([1], [1])
    before, newest = parts.catalog.latest(), compact(parts)
    assert parts.shard_files() == parts.files_of(before, newest)


@pytest.mark.parametrize("method", ["cut", "scan", "evict"])
def test_a_tier_that_fails_loses_nothing(parts: Parts, method: str) -> None:
    parts.append([1, 2], [10, 20])
    compact(parts)
    parts.append([1, 2], [10, 20])
    original = getattr(parts.tier, method)

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("no")

    setattr(parts.tier, method, fail)
    with pytest.raises(OSError, match="no"):
        compact(parts)
    setattr(parts.tier, method, original)
    assert compact(parts).event_count == 4


def test_a_damaged_old_shard_is_not_carried_on_in_silence(parts: Parts) -> None:
    parts.append([1] * 300, list(range(300)))
    (file,) = [file for file in compact(parts).shards if file.exists]
    data = bytearray(parts.storage.read(file.key))
    data[layout.HEADER_BYTES + 8] ^= 0x10
    parts.storage.write(file.key, bytes(data))
    parts.append([1], [1000])
    with suppress(CorruptionError):
        compact(parts)
        with pytest.raises(CorruptionError):
            parts.stored()


def test_progress_counts_every_event(parts: Parts) -> None:
    seen: list[tuple[int, int]] = []
    parts.append([1, 2, 3], [10, 20, 30])
    compact(parts, progress=lambda done, total: seen.append((done, total)))
    parts.append([4], [10])
    compact(parts, progress=lambda done, total: seen.append((done, total)))
    assert (3, 3) in seen
    assert seen[-1] == (4, 4)
