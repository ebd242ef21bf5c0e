"""What must hold at every commit of the log and at every publication: checked as they happen.

Rules are those of docs/protocol.md. What is checked here is written anew from its text, and not with the store's code.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

from latewood.immutable import Generation
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.log import LogState
from latewood.mutable.tier import TierState
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.model import NUMBER, Row
from latewood.testing.simulation.process import Asked, Process

if TYPE_CHECKING:
    from latewood.testing.simulation.world import World


def check_state(before: TierState, after: TierState) -> None:
    """R5, R7, R11: the clocks never go back, and keep their order."""
    for name in ("last", "frontier", "floor", "latest_ingest", "captured"):
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


def take_batch(world: "World", process: Process, asked: Asked, before: LogState, batch: EventBatch) -> None:
    """An append was committed: its rows enter the model, if they are what was asked for and stamped as R1, R5, R7 say."""
    state, now, events = before.tier, process.told, batch.events
    numbers = events.traits[world.schema[NUMBER].id].values.tolist()
    given = {row.number: row for row in asked.rows}
    require(len(set(numbers)) == len(numbers) and set(numbers) <= set(given), "not what was asked for:", numbers)
    check_repeats(world, asked, state, set(numbers))
    stamps = list(zip(numbers, events.ingest_ts.tolist(), events.ordinal.tolist(), strict=True))
    kept = [ingest_ts for number, ingest_ts, _ in stamps if _keeps(given[number], asked, state)]
    first = max(now, state.last + 1, max(kept, default=state.last) + 1)
    met: Counter[Any] = Counter()
    for number, ingest_ts, ordinal in stamps:
        row = given[number]
        if _keeps(row, asked, state):
            require(ingest_ts == row.ingest_ts, "R7: another ingest time than was given:", row, ingest_ts)
        else:
            require(ingest_ts == first + met[row.user], "R1, R5: stamped", ingest_ts, "and not", first, met, row)
            met[row.user] += 1
        require(ingest_ts <= now + world.settings.max_ahead_us, "R5: too far ahead of the clock:", ingest_ts, now)
        require(ingest_ts >= state.frontier, "R7: below the frontier:", ingest_ts, state)
        version = world.model.add(row, ingest_ts)
        require(version.ordinal == ordinal, f"R1: ordinal {ordinal}, not {version.ordinal}:", row)
        asked.taken[number] = version


def earliest_import(state: TierState) -> int:
    """R7: below it no explicit ingest time is accepted."""
    return state.last + 1 if state.captured else state.frontier


def _keeps(row: Row, asked: Asked, state: TierState) -> bool:
    """Whether a row's own ingest time counts. Raises: BrokenLawError: it is too old, and was not to be stamped."""
    if row.ingest_ts is None:
        return False
    is_old = row.ingest_ts < earliest_import(state)
    require(not is_old or asked.stamp_late, "R7: accepted an ingest time that is too old:", row, state)
    return not is_old


def check_repeats(world: "World", asked: Asked, state: TierState, numbers: set[int]) -> None:
    """R14: rows are left out iff their id is known; known it is at least in the tier, and in the window beyond."""
    seen: set[str] = set()
    for row in asked.rows:
        if row.event_id is None:
            require(row.number in numbers, "an event without an id was left out:", row)
            continue
        known = world.model.by_id.get(row.event_id)
        if row.event_id in seen or (known is not None and is_remembered(world, known.ingest_ts, state)):
            require(row.number not in numbers, "R14: the id was used before:", row)
        elif known is None:
            require(row.number in numbers, "an event with a new id was left out:", row)
        seen.add(row.event_id)


def is_remembered(world: "World", ingest_ts: int, state: TierState) -> bool:
    """Whether the id of an event of this time must be known still."""
    return ingest_ts >= state.floor or state.last - ingest_ts <= world.settings.id_window_us


def check_publication(world: "World", generation: Generation) -> None:
    """R6, R7, R19: what a manifest may say, given the log at this moment."""
    state, previous = world.log.head().tier, world.generations[-1] if world.generations else None
    require(generation.id == len(world.generations), "R19: a gap or a repetition:", generation)
    if previous is None:
        require(generation.event_count == 0, "the first generation is empty:", generation)
        return
    require(generation.parent == previous.id, "R19: not merged from the newest:", generation)
    require(generation.watermark >= previous.watermark, "the watermark went back:", generation)
    if generation.origin == "load" or state.load_token == generation.uuid:
        require(state.load_token == generation.uuid, "a load that the tier does not know:", generation)
    else:
        require(generation.watermark <= state.frontier, "R7: past the frontier:", generation, state)
    for shard in generation.shards:
        require(not shard.exists or shard.key in world.disk.objects, "R19: a file is missing:", shard)


def check_counts(world: "World", generation: Generation) -> None:
    """A generation holds exactly what was ingested before its watermark."""
    expected = len(world.model.below(generation.watermark))
    require(generation.event_count == expected, f"{generation} holds {generation.event_count}, not {expected}")
