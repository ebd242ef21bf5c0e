"""What must hold at every commit of the log and at every publication: checked as they happen.

Rules are those of docs/protocol.md. What is checked here is written anew from its text, and not with the store's code.
"""

from typing import TYPE_CHECKING, Any

from latewood.events import NEVER, Events
from latewood.immutable import Generation
from latewood.mutable.book import PendingScrub
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.log import LogState
from latewood.mutable.tier import TierState
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.model import NUMBER, ModelScrub, Version

if TYPE_CHECKING:
    from latewood.testing.simulation.process import AskedScrub
    from latewood.testing.simulation.world import World


def check_state(before: TierState, after: TierState) -> None:
    """R5, R7, R11: the clocks never go back, and keep their order."""
    for name in ("last", "frontier", "floor", "latest_ingest", "captured", "scrubs", "blanked", "changes"):
        require(getattr(after, name) >= getattr(before, name), f"{name} went back:", before, after)
    require(after.floor <= after.frontier <= after.closed, "floor ≤ frontier ≤ closed does not hold:", after)
    require(after.latest_ingest <= after.last, "an event lies past the clock:", after)


def check_commit(world: "World", before: LogState, after: LogState, batches: list[EventBatch]) -> None:
    """What any commit must keep to."""
    check_state(before.tier, after.tier)
    require(after.version == before.version + 1, "a version was left out:", before, after)
    require(after.next_batch == before.next_batch + len(batches), "batches were lost:", before, after)
    newest = world.generations[-1] if world.generations else None
    floor = after.tier.floor
    if floor > before.tier.floor:
        require(newest is not None and floor <= newest.watermark, "R11: let go of what no generation has:", after)


def check_traits(world: "World", changes: int, events: Events) -> None:
    """R17: nothing is appended to a trait that was dropped, once the tier was told."""
    if changes:
        schema = world.changes[changes - 1].schema
        dropped = {id_ for id_ in events.traits if id_ < schema.next_id} - {trait.id for trait in schema}
        require(not dropped, "R17: values of dropped traits were taken in:", dropped, schema)


def take_scrub(world: "World", asked: "AskedScrub", before: TierState, pending: PendingScrub) -> None:
    """R16: a scrub's moment is fixed. It takes the users that were asked for, or the events that meet the condition."""
    model = world.model
    require(pending.number == before.scrubs == len(model.scrubs), "R16: another scrub's number:", pending)
    require(pending.scrub_ts > before.last, "R16: a scrub in the past:", pending, before)
    if asked.users is not None:
        users = asked.users
        taken = [v for user in users for v in model.of(user) if v.ingest_ts <= pending.scrub_ts]
    else:
        taken = _listed(world, asked, pending)
        users = frozenset(version.row.user for version in taken)
    named = {f"{first:016x}{second:016x}" for first, second in world.hashes(users)}
    require(set(pending.body["users"]) == named, "R16: other users:", pending, users)
    model.scrub(ModelScrub(pending.number, pending.scrub_ts, frozenset(users)), taken)


def _listed(world: "World", asked: "AskedScrub", pending: PendingScrub) -> list[Version]:
    """The events that a scrub lists: all that met its condition when it began, and none that does not meet it."""
    model, by_hash = world.model, {}
    for user in {version.row.user for version in model.versions}:
        [(first, second)] = world.hashes([user])
        by_hash[f"{first:016x}{second:016x}"] = user
    users = [by_hash[hashed] for hashed in pending.body["users"]]
    taken = [model.by_place[users[index], *place] for index, *place in pending.body["events"]]
    require(all(map(asked.meets, taken)), "R16: events that do not meet the condition:", taken)
    held, watermark = world.held[-1], world.generations[-1].watermark
    there = [v for v in asked.known if v.gone_by is None and (v.index in held or v.ingest_ts >= watermark)]
    missed = [version for version in there if version not in taken]  # retention may have taken others meanwhile
    require(not missed, "R16: events that were not found:", missed, asked)
    return taken


def check_publication(world: "World", generation: Generation) -> None:
    """R6, R7, R19: what a manifest may say, given the log at this moment."""
    state, previous = world.log.head().tier, world.generations[-1] if world.generations else None
    require(generation.id == len(world.generations), "R19: a gap or a repetition:", generation)
    if previous is None:
        require(generation.event_count == 0, "the first generation is empty:", generation)
        return
    is_rollback = generation.origin == "rollback"
    require(is_rollback or generation.parent == previous.id, "R19: not merged from the newest:", generation)
    require(generation.watermark >= previous.watermark, "the watermark went back:", generation)
    require(generation.scrubs >= previous.scrubs, "R16: scrubs were undone:", generation, previous)
    if generation.origin == "load":
        require(state.load_token == generation.uuid, "a load that the tier does not know:", generation)
    else:
        require(generation.watermark <= state.frontier, "R7: past the frontier:", generation, state)
    for shard in generation.shards:
        require(not shard.exists or shard.key in world.disk.objects, "R19: a file is missing:", shard)
    change = world.changes[generation.change - 1] if generation.change else None
    if change is not None:
        require(generation.schema == change.schema, "R17: another schema than was asked for:", generation, change)
        require(len(generation.shards) == change.shards, "R20: another number of shards:", generation, change)
        require(generation.retention == change.retention, "R15: another retention:", generation, change)
    require(generation.change >= previous.change, "R17: changes were undone:", generation, previous)


def check_contents(world: "World", generation: Generation, stored: list[Events]) -> frozenset[int]:
    """A generation holds its parent's events and the new ones below its watermark, less what was to go; each once.

    Returns: the versions it holds, by index.
    """
    found: set[int] = set()
    for events in stored:
        found |= _recognise(world, generation, events, found)
    if not generation.id:
        return frozenset(found)
    assert generation.parent is not None
    parent, held = world.generations[generation.parent], world.held[generation.parent]
    entering = [
        version
        for version in world.model.versions
        if version.index in held or parent.watermark <= version.ingest_ts < generation.watermark
    ]
    # What a scrub takes that is newer than the cut may be there still, or be withheld by the mutable tier already.
    optional = {v.index for v in entering if v.gone_by is not None and v.gone_by >= generation.scrubs}
    applied = [v for v in entering if v.gone_by is None or v.gone_by >= generation.scrubs]
    choices = [[v for v in applied if v.index not in optional or v.index in found], applied]
    expected = [{v.index for v in retained(choice, generation)} for choice in choices]
    for kept in expected:
        if kept - optional == found - optional:
            return frozenset(found)
    versions = world.model.versions
    lost = [versions[index] for index in sorted(expected[0] - found - optional)]
    other = [versions[index] for index in sorted(found - expected[0] - optional)]
    require(False, f"{generation}, of generation {generation.parent}: lost {lost}, unexpected {other}")
    return frozenset()


def _recognise(world: "World", generation: Generation, events: Events, found: set[int]) -> set[int]:
    """Which versions these stored events are: by their places, and with the right number and superseded_at."""
    numbers = events.traits[generation.schema[NUMBER].id].known.tolist()
    at = [NEVER] * len(events) if events.superseded_at is None else events.superseded_at.tolist()
    columns = (events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist())
    recognised = set[int]()
    for user, event_ts, ingest_ts, ordinal, number, superseded_at in zip(
        events.user_ids.to_pylist(), *columns, numbers, at, strict=True
    ):
        version = world.model.by_place.get((user, event_ts, ingest_ts, ordinal))
        require(version is not None, "an event that nobody appended:", user, event_ts, ingest_ts, ordinal, number)
        assert version is not None
        require(version.row.number == number, "another event's values:", version, number)
        require(version.index not in found | recognised, "an event twice:", version)
        is_known = version.superseded_at < generation.watermark
        expected = version.superseded_at if is_known else NEVER
        require(superseded_at == expected, "R13: superseded at", superseded_at, "and not", expected, version)
        recognised.add(version.index)
    return recognised


def retained(versions: list[Version], generation: Generation) -> list[Version]:
    """R15: what retention leaves: never a part of what happened at one time, always the newest."""
    if (retention := generation.retention) is None:
        return versions
    by_user: dict[Any, list[int]] = {}
    for version in versions:
        by_user.setdefault(version.row.user, []).append(version.row.event_ts)
    earliest = {user: _earliest(sorted(moments), retention.max_events) for user, moments in by_user.items()}
    horizon = retention.horizon(generation.watermark)
    return [
        version
        for version in versions
        if version.row.event_ts >= earliest[version.row.user] and (horizon is None or version.row.event_ts >= horizon)
    ]


def _earliest(moments: list[int], max_events: int | None) -> int:
    if max_events is None or len(moments) <= max_events:
        return moments[0]
    return moments[-max_events]
