"""What operators do: compact at any cut, change what the store is like, forget, pin, roll back, seal."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pyarrow as pa

from latewood.conditions import col
from latewood.schema import Schema
from latewood.sealing import seal
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.comparing import compare
from latewood.testing.simulation.expected import Logged, Seen
from latewood.testing.simulation.model import NUMBER, WORD, Version
from latewood.testing.simulation.plan import draw_retention
from latewood.testing.simulation.process import AskedScrub, Process
from latewood.testing.simulation.reading import draw_projection, in_us
from latewood.testing.simulation.writing import draw_user

ADDED = {"extra": pa.int64(), "note": pa.string()}
LISTS_ADDED = {"tags": pa.list_(pa.string()), "pair": pa.list_(pa.int8(), 2)}
RENAMED = {"kind": "sort", "sort": "kind", "extra": "more"}


def compact(process: Process) -> None:
    """R6, R19: at any cut that is allowed, and some that are not; the loser of a race loses nothing."""
    world, chance = process.world, process.chance
    state, before = world.log.head().tier, len(world.generations)
    cut = None if chance.happens(0.6) else max(state.frontier, state.closed - chance.between(-1, 6))
    keep = chance.between(1, 3)

    def refused() -> bool:
        frontier = world.log.head().tier.frontier
        return len(world.generations) > before or (cut is not None and not frontier <= cut <= state.closed)

    generation = process.attempt(lambda: process.store.compact(cut, keep=keep, workers=1), refused)
    if generation is not None:
        require(generation.id >= before - 1, "compaction returned an older generation:", generation, before)
        told = world.log.head().tier.changes
        require(told >= generation.change, "R17: the tier was not told of a change that counts:", told, generation)


def roll_back(process: Process) -> None:
    """Build on an older generation, as far as it is there."""
    world, chance = process.world, process.chance
    number = max(0, len(world.generations) - 1 - chance.between(0, 3))
    process.attempt(lambda: process.store.rollback(number, keep=chance.between(1, 3), workers=1), lambda: True)


def alter(process: Process) -> None:
    """R15, R17, R20: another schema, another retention, another number of shards."""
    chance, store = process.chance, process.store
    latest = process.attempt(lambda: store.changes.latest(store.generation))
    if latest is None:
        return
    change = draw_change(chance, latest.schema)
    if chance.happens(0.4):
        change["shards"] = chance.between(1, 3)
    if chance.happens(0.5):
        change["retention"] = draw_retention(chance) if chance.happens(0.8) else None
    changes = len(process.world.changes)
    process.attempt(lambda: store.alter(**change), lambda: True, outdated=lambda: len(process.world.changes) > changes)


def draw_change(chance: Chance, schema: Schema) -> dict[str, Any]:
    """Something to add, drop or rename, by what the schema has."""
    names = [trait.name for trait in schema if trait.name not in (NUMBER, WORD)]
    added = ADDED | LISTS_ADDED if any(trait.is_list for trait in schema) else ADDED
    missing = [pa.field(name, type_) for name, type_ in added.items() if name not in names]
    if missing and chance.happens(0.4):
        return {"add": [chance.among(missing)]}
    if names and chance.happens(0.5):
        return {"drop": [chance.among(names)]}
    renamed = {name: RENAMED[name] for name in names if name in RENAMED and RENAMED[name] not in names}
    return {"rename": renamed} if renamed and chance.happens(0.7) else {}


def scrub_users(process: Process) -> None:
    """R16: forget users, known or not."""
    chance = process.chance
    users = frozenset(draw_user(process) for _ in range(chance.among([1, 1, 2])))
    process.asked_scrub = AskedScrub(users)
    at_once = chance.happens(0.4)
    process.attempt(lambda: process.store.scrub(sorted(users), compact=at_once))


def scrub_events(process: Process) -> None:
    """R16: forget the events that meet a condition; their users keep the rest."""
    chance, world = process.chance, process.world
    numbers = {version.row.number for version in chance.some(world.model.versions[-30:], 3)}
    if not numbers or process.store.schema != world.generations[-1].schema:
        return

    def meets(version: Version) -> bool:
        return version.row.number in numbers

    held, watermark = world.held[-1], world.generations[-1].watermark
    there = [v for v in world.model.versions if v.index in held or v.ingest_ts >= watermark]
    known = [v for v in there if meets(v) and v.gone_by is None]
    process.asked_scrub = AskedScrub(None, meets, known)
    at_once = chance.happens(0.4)
    process.attempt(lambda: process.store.scrub(where=col(NUMBER).is_in(sorted(numbers)), compact=at_once))


def pin(process: Process) -> None:
    """R19: keep the current generation's files for a while."""
    ttl = timedelta(hours=1) if process.chance.happens(0.7) else timedelta(microseconds=5)
    process.pinned = None  # should it fail, it may be there or not
    process.pinned = process.attempt(lambda: process.store.pin(process.name, ttl))


def unpin(process: Process) -> None:
    """Let go of the pin, if there is one."""
    process.pinned = None
    process.attempt(lambda: process.store.unpin(process.name))


def train_pinned(process: Process) -> None:
    """Law 1 as of a pin, whatever was published since; a scrub moves it on."""
    world, chance = process.world, process.chance
    if process.pinned is None and chance.happens(0.7):
        pin(process)

    def is_over() -> bool:
        if process.pinned is None and process.name in world.pins_back:
            return True
        pinned = process.pinned or world.pin(process.name)
        return pinned is None or pinned.expires_ts <= process.told + 2 * world.plan.clock_error

    view = process.attempt(lambda: process.store.at(process.name), lacks=is_over)
    if view is None:
        return
    watermark, schema = view.generation.watermark, view.generation.schema
    known = [
        item for item in world.model.logged if item.watermark <= watermark and item.has_traits_of(schema, watermark)
    ]
    if known:
        compare(process, view, chance.some(known, 3), draw_projection(chance, schema), lacks=is_over)


def seal_examples(process: Process) -> None:
    """R12: what was logged, rewritten as pointers alone, says the same."""
    world, chance = process.world, process.chance
    if not world.model.logged:
        return
    item = chance.among(world.model.logged)
    sealed = process.attempt(lambda: seal(process.store, item.examples))
    if sealed is None:
        return
    watermark, rows = process.store.generation.watermark, in_us(sealed)
    seen = tuple(
        saw if saw.cutoff <= world.model.scrubbed_at(saw.user) else _sealed(saw, row, watermark)
        for saw, row in zip(item.seen, rows, strict=True)
    )
    world.model.logged.append(Logged(sealed, item.requests, seen))


def _sealed(saw: Seen, row: dict[str, Any], watermark: int) -> Seen:
    """What a row saw, told by its pointer alone; the same as before where it was left alone."""
    pointer, recents = row["uih"], len(row["recent"]["event_ts"])
    if pointer["watermark"] != saw.cutoff or recents:
        return saw
    require(saw.cutoff <= watermark or not saw.recent, "R12: sealed before a generation has it:", row, watermark)
    stored = tuple(v for v in saw.stored if v.superseded_at >= saw.cutoff) + saw.recent
    said, ties = (pointer["length"], pointer["end_ties"]), sum(v.row.event_ts == pointer["end_ts"] for v in stored)
    require(said == (len(stored), ties), "R12: length and ties", said, "for", stored)
    return replace(saw, stored=tuple(sorted(stored, key=lambda v: v.place[1:])), recent=())
