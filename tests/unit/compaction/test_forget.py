"""What a scrub asks of compaction: rows, files, recent events and values gone, also where that broke off at any step."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from latewood.columns import Column
from latewood.compaction import bulk_load, compact, forget, publish
from latewood.errors import ConflictError, CorruptionError
from latewood.events import Events
from latewood.immutable import Generation, GenerationReader
from latewood.immutable.pins import Pin
from latewood.schema import Schema
from latewood.storage import keys
from latewood.users import UserKeys, user_keys

Parts = Any  # the class in conftest.py
SCHEMA = Schema(
    user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("word", pa.dictionary(pa.int32(), pa.string()))])
)
SECRET = b"secret"


@pytest.fixture
def parts(make_parts: Callable[..., Parts]) -> Parts:
    return make_parts(SCHEMA)


def append(parts: Parts, users: list[int], words: list[str | None], event_ts: int = 0) -> Events:
    n = len(users)
    events = parts.events(users, list(range(event_ts, event_ts + n)))
    events.traits[1] = parts.vocabulary.encode(SCHEMA["word"], pa.array(words, pa.string()))
    receipt = parts.tier.append(events, now=parts.clock.advance(1_000_000), blanked=parts.vocabulary.blanked)
    return replace(events, ingest_ts=receipt.ingest_ts, ordinal=receipt.ordinal)


def scrub(parts: Parts, users: list[int], events: Events | None = None) -> int:
    body = parts.scrubs.body(user_keys(pa.array(users, pa.int64())), events)
    scrub_ts: int = parts.tier.scrub(body, now=parts.clock.advance(1_000_000))[1]
    return scrub_ts


def holds(parts: Parts, what: bytes) -> list[str]:
    return [key for key in parts.listed() if what in parts.storage.read(key)]


def words(parts: Parts) -> list[tuple[int, str | None]]:
    reader = GenerationReader(parts.storage, parts.catalog.latest())
    found = []
    for events in reader.scan(list(SCHEMA)):
        codes, mask = events.traits[1]
        values = parts.vocabulary.values(1, int(codes.max()) + 1).take(pa.array(codes, mask=mask)).to_pylist()
        found += zip(events.user_ids.to_pylist(), values, strict=True)
    return sorted(found, key=repr)


def a_store_to_scrub(parts: Parts) -> None:
    """Two generations and recent events, with values that only user 1 has in each of them."""
    append(parts, [1, 1, 2], ["secret one", "common", "common"])
    compact(parts)
    append(parts, [1, 2, 3], ["secret two", None, "other"], 10)
    compact(parts)
    append(parts, [1, 2], ["secret three", "other"], 20)
    assert holds(parts, SECRET)


LEFT = [(2, "common"), (2, "other"), (2, None), (3, "other")]


def test_nothing_is_left_of_a_user(parts: Parts) -> None:
    a_store_to_scrub(parts)
    scrub_ts = scrub(parts, [1])
    generation = compact(parts, keep=5)
    assert (generation.scrubs, generation.event_count, generation.user_count) == (1, 4, 2)
    assert generation.watermark == scrub_ts + 1 == parts.tier.state().floor
    assert parts.shard_files() == parts.files_of(generation)
    assert holds(parts, SECRET) == []
    assert parts.storage.list(keys.UNUSED) == []
    assert words(parts) == LEFT
    assert compact(parts) == generation


def test_values_of_a_user_who_never_reached_a_generation_go_too(parts: Parts) -> None:
    append(parts, [1, 2], ["secret one", "common"])
    scrub(parts, [1])
    assert compact(parts).event_count == 1
    assert holds(parts, SECRET) == []
    append(parts, [1], ["secret one"], 2 * 10**15)  # who comes back has valid new events
    assert compact(parts).event_count == 2
    assert words(parts) == [(1, "secret one"), (2, "common")]


def test_a_scrub_of_events_keeps_the_rest_and_its_list_goes(parts: Parts) -> None:
    listed = append(parts, [1, 2, 1], ["secret one", "common", "kept"])
    compact(parts)
    recent = append(parts, [2, 1], ["secret two", "kept"], 10)
    taken = [events.take(np.array([0])) for events in (listed, recent)]
    for events in taken:
        scrub(parts, events.user_ids.to_pylist(), events)
    assert str(int(listed.ingest_ts[0])).encode() in parts.storage.read(keys.scrub(0))
    generation = compact(parts)
    assert (generation.scrubs, words(parts)) == (2, [(1, "kept"), (1, "kept"), (2, "common")])
    assert holds(parts, SECRET) == []
    parts.scrubs.refresh()
    assert str(int(listed.ingest_ts[0])).encode() not in parts.storage.read(keys.scrub(0))
    scrubbed_at = parts.scrubs.scrubbed_at(user_keys(pa.array([1, 2])))
    assert (scrubbed_at < generation.watermark).all()


def test_many_stripes_of_a_scrubbed_user_are_all_opened(parts: Parts) -> None:
    events = append(parts, [1] * 1000 + [2] * 600, ["common"] * 1600)
    compact(parts)
    scrub(parts, [1], events.take(np.arange(0, 1000, 10)))
    scrub(parts, [2])
    assert compact(parts).event_count == 900
    assert sorted(row[4] for row in parts.stored()) == [item for item in range(1000) if item % 10]


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_broke_off_at_any_step_is_finished_by_the_next_compaction(
    make_parts: Callable[..., Parts], when: str
) -> None:
    fault, failed = 0, True
    while failed:
        parts, failed, step = make_parts(SCHEMA), False, 0
        a_store_to_scrub(parts)
        scrub(parts, [1])

        def fail(_: str) -> None:
            nonlocal step, failed
            step += 1
            if step > fault:  # noqa: B023 - called within this round
                failed = True
                raise KeyboardInterrupt

        setattr(parts.storage, when, fail)
        with suppress(KeyboardInterrupt):
            compact(parts, workers=1)
        setattr(parts.storage, when, lambda _: None)
        compact(parts)
        assert words(parts) == LEFT
        assert holds(parts, SECRET) == []
        assert parts.shard_files() == parts.files_of(parts.catalog.latest())
        assert parts.storage.list(keys.UNUSED) == []
        fault += 1
    assert fault >= 10


@pytest.mark.parametrize("method", ["evict", "blank"])
def test_a_tier_that_fails_after_publishing_is_asked_again(
    parts: Parts, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_store_to_scrub(parts)
    scrub(parts, [1])
    with monkeypatch.context() as patched:

        def fail(*_: Any) -> None:
            raise OSError("no")

        patched.setattr(parts.tier, method, fail)
        with pytest.raises(OSError, match="no"):
            compact(parts)
    generation = parts.catalog.latest()
    assert generation.scrubs == 1
    assert holds(parts, SECRET)
    assert compact(parts) == generation
    assert holds(parts, SECRET) == []
    assert parts.tier.state().floor == generation.watermark


def test_once_all_is_done_nothing_is_written(parts: Parts) -> None:
    a_store_to_scrub(parts)
    scrub(parts, [1])
    generation = compact(parts)

    def refuse(verb: str) -> None:
        assert verb == "delete"  # of no keys

    before, parts.storage.before = parts.listed(), refuse
    assert compact(parts) == generation
    assert parts.listed() == before


def test_a_scrub_that_comes_after_the_cut_is_applied_again_by_the_next(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events between the cut and the scrub are in no generation yet: they must not be published by the next one."""
    append(parts, [1, 2], ["secret one", "common"])
    cut = parts.tier.cut

    def cut_and_scrub(watermark: int | None) -> int:
        chosen: int = cut(watermark)
        append(parts, [1], ["secret two"], 10)
        scrub(parts, [1])
        return chosen

    with monkeypatch.context() as patched:
        patched.setattr(parts.tier, "cut", cut_and_scrub)
        generation = compact(parts)
    assert generation.scrubs == 0
    assert compact(parts).scrubs == 1
    assert words(parts) == [(2, "common")]
    assert holds(parts, SECRET) == []


def test_scrubs_go_before_pins_and_before_generations_to_keep(parts: Parts) -> None:
    a_store_to_scrub(parts)
    pinned = parts.catalog.latest()
    parts.catalog.pins.write(Pin("run", pinned.id, parts.clock.now() + 10**12))
    scrub(parts, [1])
    generation = compact(parts, keep=9)
    assert parts.shard_files() == parts.files_of(generation)
    (held,) = parts.catalog.held_pins()
    assert (held.generation, held.moved) == (generation.id, True)


def test_a_lost_attempts_note_is_nobodys(parts: Parts) -> None:
    a_store_to_scrub(parts)
    kept = parts.vocabulary.encode(SCHEMA["word"], pa.array(["common"])).values.tolist()
    scrub(parts, [1])
    other = parts.beside()
    note = parts.storage.read

    def overtake(verb: str) -> None:
        if verb == "create" and parts.storage.list(keys.UNUSED):  # noted, not yet published
            parts.storage.before = lambda _: None
            compact(other)

    parts.storage.before = overtake
    with pytest.raises(ConflictError, match="another compaction"):
        compact(parts)
    parts.storage.write(keys.unused(1, "gone"), note(keys.scrub(0)))  # of one that died: never read
    compact(parts)
    assert parts.storage.list(keys.UNUSED) == []
    assert parts.vocabulary.encode(SCHEMA["word"], pa.array(["common"])).values.tolist() == kept


def test_a_generation_collected_while_an_older_note_is_looked_at_leaves_it_to_the_winner(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_store_to_scrub(parts)
    scrub(parts, [1])
    other = parts.beside()
    with monkeypatch.context() as patched:  # two that publish and die, the second without a look at what the first left
        patched.setattr(publish, "finish_forgetting", lambda *_: None)
        patched.setattr(parts.catalog, "collect", lambda *_, **__: [])
        compact(parts)
        append(parts, [2], ["other"], 30)
        newest = compact(parts)
    look = forget._not_used

    def overtaken(storage: Any, generation: Generation, codes: Any) -> Any:
        monkeypatch.setattr(forget, "_not_used", look)
        append(other, [2], ["common"], 40)
        compact(other, keep=1)
        return look(storage, generation, codes)

    monkeypatch.setattr(forget, "_not_used", overtaken)
    parts.vocabulary.refresh_blanked()
    forget.finish_forgetting(parts, newest, 1)
    assert holds(parts, SECRET) == []
    assert other.catalog.latest().id == newest.id + 1


def test_a_damaged_note_is_damage(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    a_store_to_scrub(parts)
    scrub(parts, [1])
    with monkeypatch.context() as patched:
        patched.setattr(parts.tier, "evict", lambda _: (_ for _ in ()).throw(OSError("no")))
        with pytest.raises(OSError, match="no"):
            compact(parts)
    (stored,) = parts.storage.list(keys.UNUSED)
    parts.storage.write(stored.key, b"{}")
    with pytest.raises(CorruptionError, match=stored.key):
        compact(parts)


def test_a_bulk_load_skips_what_happened_before_a_scrub(parts: Parts) -> None:
    append(parts, [1, 2], ["secret one", "common"])
    scrub_ts = scrub(parts, [1])
    times = [scrub_ts - 5, scrub_ts + 5, scrub_ts - 5]
    events = parts.events([1, 1, 2], times, [scrub_ts + 10] * 3)
    codes = parts.vocabulary.encode(SCHEMA["word"], pa.array(["secret replayed", "common", "common"]))
    events.traits[1] = Column(*codes)
    seen: list[tuple[int, int]] = []
    generation = bulk_load(parts, [events], progress=lambda done, total: seen.append((done, total)))
    assert (generation.origin, generation.scrubs, generation.event_count) == ("load", 1, 3)
    assert words(parts) == [(1, "common"), (2, "common"), (2, "common")]
    assert holds(parts, SECRET) == []
    assert seen[-1][0] == seen[-1][1]


def test_a_bulk_load_of_values_that_were_blanked_meanwhile_is_refused(parts: Parts) -> None:
    """Found by the simulation: its events would have had nulls for them."""
    append(parts, [1, 2], ["secret one", "common"])

    def coded() -> Events:
        events = parts.events([2], [5], [parts.clock.now() + 60_000_000])
        events.traits[1] = Column(*parts.vocabulary.encode(SCHEMA["word"], pa.array(["secret one"])))
        return events

    def late() -> Iterator[Events]:
        yield coded()
        scrub(parts, [1])
        compact(parts)

    with pytest.raises(ConflictError, match="blanked values"):
        bulk_load(parts, late())
    parts.clock.advance(1_000_000)
    bulk_load(parts, [coded()])
    assert words(parts) == [(2, "common"), (2, "secret one")]


def test_keys_of_nobody_touch_nobody(parts: Parts) -> None:
    append(parts, [1], ["common"])
    parts.tier.scrub(parts.scrubs.body(UserKeys(np.zeros(0, np.uint64), np.zeros(0, np.uint64))), now=parts.clock.now())
    assert compact(parts).event_count == 1


LISTED = Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64()), ("words", pa.list_(pa.string()))]))


def append_lists(parts: Parts, users: list[int], words: list[list[str] | None], event_ts: int = 0) -> None:
    events = parts.events(users, list(range(event_ts, event_ts + len(users))))
    events.traits[1] = parts.vocabulary.encode(LISTED["words"], pa.array(words, pa.list_(pa.string())))
    parts.tier.append(events, now=parts.clock.advance(1_000_000), blanked=parts.vocabulary.blanked)


@pytest.mark.parametrize("memory_bytes", [1, 1 << 30])
def test_nothing_is_left_of_the_words_in_a_user_s_lists(make_parts: Callable[..., Parts], memory_bytes: int) -> None:
    """Words that others have, in lists or alone in one, stay."""
    parts = make_parts(LISTED)
    append_lists(parts, [1, 2, 1], [["secret one", "common"], ["kept", "common"], ["shared"]])
    compact(parts)
    append_lists(parts, [1, 3, 3, 2], [["secret two", "secret one"], ["shared"], None, []], 10)
    compact(parts)
    append_lists(parts, [1, 2], [["common", "secret three", "kept"], ["common"]], 20)
    assert holds(parts, SECRET)
    scrub(parts, [1])
    generation = compact(parts, memory_bytes=memory_bytes)
    assert holds(parts, SECRET) == []
    found = []
    for events in GenerationReader(parts.storage, generation).scan(list(LISTED)):
        lists = parts.vocabulary.to_arrow(LISTED["words"], events.traits[1]).to_pylist()
        found += zip(events.user_ids.to_pylist(), lists, strict=True)
    expected = [(2, ["kept", "common"]), (2, []), (2, ["common"]), (3, ["shared"]), (3, None)]
    assert sorted(found, key=repr) == sorted(expected, key=repr)
    assert [holds(parts, word) != [] for word in (b"kept", b"shared", b"common")] == [True] * 3


def test_nothing_is_left_of_the_words_in_lists_that_a_bulk_load_spilled(make_parts: Callable[..., Parts]) -> None:
    """Of a user who was scrubbed after they happened: they are skipped, and their words are nobody's."""
    parts = make_parts(LISTED)
    append_lists(parts, [1, 2], [["secret one"], ["kept"]])
    scrub_ts = scrub(parts, [1])
    events = parts.events([1, 2, 1], [scrub_ts - 5] * 3, [scrub_ts + 10] * 3)
    words = [["secret four", "common"], ["common"], ["secret five"]]
    events.traits[1] = parts.vocabulary.encode(LISTED["words"], pa.array(words, pa.list_(pa.string())))
    assert holds(parts, SECRET)
    assert bulk_load(parts, [events], memory_bytes=1).event_count == 2
    assert holds(parts, SECRET) == []
    assert [holds(parts, word) != [] for word in (b"kept", b"common")] == [True] * 2
