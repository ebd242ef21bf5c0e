"""What must hold whenever nothing is under way, whatever was left half done: looked at by a process without faults."""

import pyarrow as pa

from latewood.clock import LATEST_TS
from latewood.events import Events
from latewood.materialize import Materializer
from latewood.projection import Projection
from latewood.schema import Schema
from latewood.storage import keys
from latewood.store import Store
from latewood.testing.simulation.broken import require
from latewood.testing.simulation.model import NUMBER, Version
from latewood.testing.simulation.reading import check_same, draw_projection
from latewood.testing.simulation.world import World

Place = tuple[object, int, int, int, int]


def check_all(world: World) -> None:
    """Every law, over all that there is, as a trainer or as a writer finds it."""
    if not world.generations:
        return
    is_writer = world.chance.happens(0.5)
    store = world.look(read_only=not is_writer)
    check_generation(world, store)
    if is_writer:
        check_tier(world, store)
    check_examples(world, store, Projection() if world.chance.happens(0.5) else draw_projection(world.chance))
    store.close()


def check_examples(world: World, store: Store, projection: Projection) -> None:
    """Law 1 for everything that was ever logged."""
    logged = world.model.logged
    if logged:
        examples = pa.concat_tables([item.examples for item in logged])
        made = Materializer(store, projection)(examples).to_arrow()
        check_same(world, made, pa.concat_tables([item.requests for item in logged]), projection)


def check_generation(world: World, store: Store) -> None:
    """The newest generation holds what was ingested before its watermark, each event once; every block is whole."""
    reader = store.refresh()
    generation = reader.generation
    require(generation.id == len(world.generations) - 1, "not the newest:", generation)
    for number in range(len(generation.shards)):
        if (shard := reader.shard(number)) is not None:
            shard.verify()
    stored = [place for events in reader.scan(list(store.schema)) for place in places_of(events, store.schema)]
    same(stored, world.model.below(generation.watermark), f"{generation}")


def check_tier(world: World, store: Store) -> None:
    """From the floor on the tier has every event that was appended; so that from W on it has what no generation has."""
    assert store.tier is not None
    state = store.tier.state()
    require(state.floor <= store.generation.watermark, "R11: a gap between the tiers:", state, store.generation)
    runs = store.tier.scan(state.floor, LATEST_TS + 1)
    held = [place for events in runs for place in places_of(events, store.schema)]
    appended = [v for v in world.model.versions if not v.loaded and v.ingest_ts >= state.floor]
    same(held, appended, f"the tier from {state.floor} on")


def check_end(world: World) -> None:
    """Live on without faults, and nothing of what went wrong is left: no file that no generation names."""
    store = world.look(read_only=False)
    store.compact(workers=1)
    store.catalog.collect(2)
    check_generation(world, store)
    check_tier(world, store)
    check_examples(world, store, Projection())
    check_examples(world, store, draw_projection(world.chance))
    store.close()
    newest = len(world.generations) - 1
    named = {shard.key for generation in world.generations[-2:] for shard in generation.shards}
    left = [key for key in world.disk.objects if (file := keys.parse_attempt_file(key)) and file[0] <= newest]
    require(set(left) <= named, "R19: files that no generation needs:", sorted(set(left) - named))


def places_of(events: Events, schema: Schema) -> list[Place]:
    """(user, event_ts, ingest_ts, ordinal, number) of each event."""
    numbers = events.traits[schema[NUMBER].id].values.tolist()
    columns = (events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist(), numbers)
    return list(zip(events.user_ids.to_pylist(), *columns, strict=True))


def same(found: list[Place], versions: list[Version], what: str) -> None:
    """Each once, and no other."""
    expected = sorted((*version.place, version.row.number) for version in versions)
    if sorted(found) != expected:
        lost, other = set(expected) - set(found), set(found) - set(expected)
        require(False, f"{what}: lost {lost}, unexpected {other}, {len(found)} events for {len(expected)}")
