"""What a generation is built by: corrections, retention, schema and shards; and what makes a compaction run at all."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.compaction import attempt, bulk_load, compact, parent, publish
from latewood.compaction.pending import anything_to_do
from latewood.errors import ConflictError
from latewood.events import NEVER
from latewood.immutable import Change, Generation, GenerationReader
from latewood.mutable import Places, Supersedes
from latewood.retention import Retention
from latewood.schema import Schema
from latewood.stripes import columns_of
from latewood.users import shard_of

Parts = Any  # the class in conftest.py
SECOND = 1_000_000


def supersede(
    parts: Parts, user: int, event_ts: int, ingest_ts: int, *, ordinal: int = 0, deletes: bool = False
) -> int:
    """A correction, or a deletion; when."""
    places = Places(np.array([event_ts]), np.array([ingest_ts]), np.array([ordinal], np.int32))
    what = Supersedes(np.array([True]), np.array([deletes]), places=places)
    receipt = parts.tier.append(parts.events([user], [event_ts]), supersedes=what, now=parts.clock.advance(SECOND))
    at: int = receipt.ingest_ts[0]
    return at


def superseded(parts: Parts) -> dict[tuple[int, int, int], int]:
    """(user, event_ts, item) → when it was superseded, of those events of the newest generation that are."""
    generation = parts.catalog.latest()
    found = {}
    for events in GenerationReader(parts.storage, generation).scan(list(generation.schema)):
        times = np.full(len(events), NEVER) if events.superseded_at is None else events.superseded_at
        columns = (
            events.user_ids.to_pylist(),
            events.event_ts.tolist(),
            events.traits[0].values.tolist(),
            times.tolist(),
        )
        found |= {row[:3]: row[3] for row in zip(*columns, strict=True) if row[3] < NEVER}
    for shard in parts.open(generation):
        shard.verify()
    return found


def alter(parts: Parts, **changes: Any) -> Change:
    before = parts.changes.latest(parts.catalog.latest())
    change = replace(before, number=before.number + 1, **changes)
    parts.changes.add(change)
    return change


def test_a_correction_marks_the_old_row_in_whichever_stripe_it_lies(parts: Parts) -> None:
    parts.append([1] * 600 + [2], [*range(600), 7])
    first = compact(parts)
    stamps = {row[1]: row[2] for row in parts.stored() if row[0] == 1}
    at = {event_ts: supersede(parts, 1, event_ts, stamps[event_ts]) for event_ts in (255, 256, 599)}
    generation = compact(parts)
    assert generation.event_count == first.event_count + 3
    assert superseded(parts) == {(1, event_ts, event_ts): time for event_ts, time in at.items()}
    parts.append([1], [1000])
    compact(parts)
    assert len(superseded(parts)) == 3  # in stripes that were carried, and in one that was opened


def test_a_deletion_alone_makes_a_generation(parts: Parts) -> None:
    parts.append([1, 2], [5, 5])
    compact(parts)
    ((_, _, ingest_ts, *_),) = (row for row in parts.stored() if row[0] == 1)
    at = supersede(parts, 1, 5, ingest_ts, deletes=True)
    generation = compact(parts)
    assert (generation.id, generation.event_count, generation.watermark) == (2, 2, at + 1)
    assert superseded(parts) == {(1, 5, 0): at}
    assert compact(parts) == generation


def test_new_events_are_marked_too_and_one_of_a_tie_alone(parts: Parts) -> None:
    parts.tier.append(parts.events([1, 1, 1], [5, 5, 5], [100] * 3), explicit=True, now=parts.clock.now())
    at = supersede(parts, 1, 5, 100, ordinal=1, deletes=True)
    compact(parts)
    assert superseded(parts) == {(1, 5, 1): at}


def test_a_target_that_is_gone_is_ignored(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())])), 1, Retention(max_events=1))
    receipt = parts.tier.append(parts.events([1, 1, 2], [1, 2, 3]), now=parts.clock.now())
    compact(parts)
    supersede(parts, 1, 1, int(receipt.ingest_ts[0]), deletes=True)
    assert compact(parts).event_count == 2
    assert superseded(parts) == {}


ITEMS = Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))


def test_retention_by_count_keeps_ties_whole_and_says_so(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(ITEMS, 2, Retention(max_events=3))
    parts.append([1] * 5 + [2] * 3, [1, 2, 2, 2, 3, 1, 2, 3])
    generation = compact(parts)
    assert sorted(row[:2] for row in parts.stored()) == [(1, 2), (1, 2), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]
    assert (generation.expired, generation.horizon, generation.retention) == (True, None, Retention(max_events=3))
    alter(parts, retention=None)
    later = compact(parts)
    assert (later.expired, later.retention, later.event_count) == (True, None, 7)


def test_retention_by_age_takes_whole_users_and_their_shards(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(ITEMS, 3, Retention(timedelta(hours=1)))
    now = parts.clock.now()
    parts.append([1, 2, 2], [now, now - 3590 * SECOND, now - 3600 * SECOND])
    first = compact(parts)
    assert (first.event_count, first.expired, first.horizon) == (2, True, first.watermark - 3600 * SECOND)
    parts.clock.advance(3600 * SECOND)
    parts.append([3], [now + 3600 * SECOND])
    second = compact(parts)
    assert {row[0] for row in parts.stored()} == {3}
    assert (second.user_count, sum(file.exists for file in second.shards)) == (1, 1)
    assert second.horizon == second.watermark - 3600 * SECOND


def test_time_alone_lets_events_expire(make_parts: Callable[..., Parts]) -> None:
    parts = make_parts(ITEMS, 3, Retention(timedelta(hours=1)))
    parts.append([1, 2], [parts.clock.now(), parts.clock.now() + 1000 * SECOND])
    generation = compact(parts)
    last = generation.watermark + 1800 * SECOND
    parts.tier.raise_frontier(last, last=last)
    assert compact(parts) == generation
    last = generation.watermark + 3700 * SECOND
    parts.tier.raise_frontier(last, last=last)
    assert compact(parts).event_count == 1


def test_files_collected_while_it_is_asked_what_expires_are_a_conflict(
    make_parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by the simulation: a missing file, where another compaction had published and collected."""
    parts = make_parts(ITEMS, 3, Retention(timedelta(hours=1)))
    parts.append([1, 2], [parts.clock.now(), parts.clock.now() + 1000 * SECOND])
    last = compact(parts).watermark + 1800 * SECOND
    parts.tier.raise_frontier(last, last=last)

    def overtaken(*arguments: Any) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(publish, "anything_to_do", anything_to_do)
            other = parts.beside()
            other.append([1], [parts.clock.now()])
            compact(other, keep=1)
        return anything_to_do(*arguments)

    monkeypatch.setattr(publish, "anything_to_do", overtaken)
    with pytest.raises(ConflictError, match="generation 2 was published by another compaction first"):
        compact(parts, watermark=last)  # no new event is before this cut


def test_who_loses_nothing_is_not_decoded(make_parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch) -> None:
    parts = make_parts(ITEMS, 1, Retention(max_events=600))
    parts.append([1] * 600 + [2] * 600, list(range(1200)))
    compact(parts)
    decoded: set[tuple[int, int, int]] = set()

    def watch(tables: Any, ranges: Any, column: int, *rest: Any) -> bool:
        ids = tables.shards[0].user_ids.take(ranges.user.tolist()).to_pylist()
        decoded.update(zip(ids, ranges.start.tolist(), ranges.stop.tolist(), strict=True))
        return decode_column(tables, ranges, column, *rest)

    decode_column = vars(parent)["decode_column"]
    monkeypatch.setattr(parent, "decode_column", watch)
    parts.append([2] * 300, list(range(1200, 1500)))
    assert compact(parts).event_count == 1200
    assert decoded == {(2, 0, 600)}
    parts.append([2] * 300, list(range(1500, 1800)))
    decoded.clear()
    compact(parts)
    assert decoded == {(2, 0, 600)}
    alter(parts, retention=Retention(max_events=10))
    decoded.clear()
    assert compact(parts).event_count == 20
    assert decoded == {(1, 256, 600), (2, 256, 600)}  # what the index shows to be too many is not even read


def test_a_dropped_trait_goes_and_an_added_one_is_null(parts: Parts) -> None:
    parts.append([1] * 300 + [2], list(range(301)))
    size = compact(parts).size_bytes
    schema = ITEMS.altered(add=[pa.field("score", pa.float32())], drop=["item"])
    change = alter(parts, schema=schema)
    parts.append([2], [1000])  # by the schema of before
    generation = compact(parts)
    assert (generation.change, generation.schema, generation.event_count) == (change.number, schema, 302)
    assert generation.size_bytes < size
    for shard in parts.open(generation):
        assert shard.columns == columns_of(schema)
        shard.verify()
    for events in GenerationReader(parts.storage, generation).scan(list(schema)):
        assert events.traits[1].mask is not None
        assert events.traits[1].mask.all()


def test_a_change_made_before_the_cut_counts_for_what_was_appended_by_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the values of a trait would be lost that was added while the compaction began."""
    parts.append([1], [1])
    cut = parts.tier.cut

    def alter_append_and_cut(watermark: int | None) -> int:
        alter(parts, schema=ITEMS.altered(add=[pa.field("more", pa.int64())]))
        events = parts.events([1], [2])
        events.traits[1] = events.traits[0]
        parts.tier.append(events, now=parts.clock.advance(1))
        chosen: int = cut(watermark)
        return chosen

    monkeypatch.setattr(parts.tier, "cut", alter_append_and_cut)
    generation = compact(parts)
    (events,) = GenerationReader(parts.storage, generation).scan(list(generation.schema))
    assert events.traits[1].mask is not None
    assert events.traits[1].mask.tolist() == [True, False]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("counts", [(3, 1, 7), (1, 2, 3), (4, 6, 4), (2, 2048, 3)])
def test_shards_are_split_and_joined(make_parts: Callable[..., Parts], counts: tuple[int, ...], workers: int) -> None:
    parts = make_parts(ITEMS, counts[0])
    rng = np.random.default_rng(0)
    parts.append(rng.integers(0, 50, 3000).tolist(), rng.integers(0, 10**6, 3000).tolist())
    compact(parts)
    for shards in counts[1:]:
        before = parts.stored()
        alter(parts, shards=shards)
        parts.append([60], [1])
        generation = compact(parts, workers=workers)
        assert len(generation.shards) == shards
        assert set(before) < set(parts.stored())
        assert generation.event_count == len(before) + 1
        for shard in parts.open(generation):
            assert (shard_of(shard.keys.hash, shards) == shard.number).all()


def test_resharding_alone_carries_every_stripe(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.append([1] * 700 + [2] * 3, list(range(703)))
    compact(parts)
    monkeypatch.setattr(parent, "decode_column", None)
    alter(parts, shards=5)
    assert compact(parts).event_count == 703


def test_a_change_that_is_asked_for_during_a_load_waits_for_the_next_compaction(parts: Parts) -> None:
    def batches() -> Any:
        yield parts.events([1], [5], [10])
        alter(parts, schema=ITEMS.altered(add=[pa.field("score", pa.float32())], drop=["item"]), shards=2)

    before = parts.catalog.latest()
    loaded = bulk_load(parts, batches())
    assert (loaded.change, loaded.schema, loaded.event_count) == (0, before.schema, 1)
    applied = compact(parts)
    assert (applied.change, len(applied.shards), applied.event_count) == (1, 2, 1)
    assert [trait.name for trait in applied.schema] == ["score"]


@pytest.mark.parametrize("pending", [False, True])
def test_a_load_of_rows_read_before_a_change_was_applied_is_a_conflict(pending: bool, parts: Parts) -> None:
    def batches() -> Any:
        yield parts.events([1], [5], [10])
        compact(parts.beside())

    alter(parts, shards=2)
    if not pending:
        compact(parts)
    with pytest.raises(ConflictError, match="altered"):
        bulk_load(parts, batches(), change=0)
    assert parts.tier.state().load_token is None
    ingest_ts = parts.clock.advance(SECOND)
    assert bulk_load(parts, [parts.events([1], [5], [ingest_ts])], change=1).event_count == 1


def test_a_load_of_rows_read_before_a_change_may_apply_it(parts: Parts) -> None:
    alter(parts, shards=2)
    assert bulk_load(parts, [parts.events([1], [5], [10])], change=0).change == 1


def test_a_load_brings_superseded_events(parts: Parts) -> None:
    parts.append([9], [5])
    ingest = parts.tier.state().closed
    events = parts.events([1] * 3, [5, 5, 6], [ingest] * 3)
    marked = replace(events, superseded_at=np.array([NEVER, ingest + 50, NEVER]))
    generation = bulk_load(parts, [events, marked], memory_bytes=1)
    assert superseded(parts) == {(1, 5, 1): ingest + 50}
    assert generation.watermark == ingest + 51  # what superseded it was known before
    assert sorted(row[3] for row in parts.stored() if row[:2] == (1, 5)) == [0, 1, 2, 3]


def test_one_worker_runs_inline_and_names_can_be_given(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr("latewood.compaction.write.ThreadPoolExecutor", refuse)
    monkeypatch.setattr(attempt, "attempt_uuid", iter(["first", "second"]).__next__)
    parts.append([1, 2, 3], [1, 2, 3])
    assert compact(parts, workers=1).uuid == "first"
    ingest_ts = parts.clock.advance(SECOND)
    assert bulk_load(parts, [parts.events([1], [5], [ingest_ts])], workers=1).uuid == "second"


def test_nothing_that_is_pending_means_nothing_to_do(parts: Parts) -> None:
    parts.append([1], [1])
    generations: list[Generation] = [compact(parts)]
    for pending in (lambda: alter(parts, shards=2), lambda: alter(parts, retention=Retention(max_events=5))):
        pending()
        generations.append(compact(parts))
        assert compact(parts) == generations[-1]
    assert all(later.id == earlier.id + 1 for earlier, later in pairwise(generations))
    assert len({generation.watermark for generation in generations}) == 1  # nothing came: the closed time stands
