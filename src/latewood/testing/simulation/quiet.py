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
from latewood.testing.simulation.comparing import check_batch, check_refusals, expect, of_one_type
from latewood.testing.simulation.model import NUMBER, Version
from latewood.testing.simulation.reading import draw_projection
from latewood.testing.simulation.tools import check_tools
from latewood.testing.simulation.world import World

Found = tuple[object, int, int, int, int]  # user, event_ts, ingest_ts, ordinal, number


def check_all(world: World) -> None:
    """Every law, over all that there is, as a trainer or as a writer finds it."""
    if not world.generations:
        return
    is_writer = world.chance.happens(0.5)
    store = world.look(read_only=not is_writer)
    check_generation(world, store)
    if is_writer:
        check_tier(world, store)
    is_full = world.chance.happens(0.5)
    check_examples(world, store, Projection() if is_full else draw_projection(world.chance, store.schema))
    if is_writer and world.chance.happens(0.1):
        check_tools(world, store)
    store.close()


def check_examples(world: World, store: Store, projection: Projection) -> None:
    """Law 1 for everything that was ever logged."""
    for group in of_one_type(world.model.logged):
        examples = pa.concat_tables([item.examples for item in group])
        batch = Materializer(store, projection, on_missing="mask")(examples)
        outcomes = expect(world, store, group, projection)
        check_batch(world, group, outcomes, batch, projection, [store.schema])
        check_refusals(world, store, group, projection)


def check_generation(world: World, store: Store) -> None:
    """The newest generation is found, and every block of it is whole."""
    reader = store.refresh()
    require(reader.generation.id == len(world.generations) - 1, "not the newest:", reader.generation)
    for number in range(len(reader.generation.shards)):
        if (shard := reader.shard(number)) is not None:
            shard.verify()


def check_tier(world: World, store: Store) -> None:
    """From the floor on the tier has every event that was appended; so that from W on it has what no generation has."""
    assert store.tier is not None
    state = store.tier.state()
    require(state.floor <= store.generation.watermark, "R11: a gap between the tiers:", state, store.generation)
    runs = store.tier.scan(state.floor, LATEST_TS + 1)
    held = [place for events in runs for place in found_in(events, store.schema)]
    appended = [v for v in world.model.versions if not v.loaded and v.ingest_ts >= state.floor and v.gone_by is None]
    same(held, appended, f"the tier from {state.floor} on")


def found_in(events: Events, schema: Schema) -> list[Found]:
    """What these events are."""
    numbers = events.traits[schema[NUMBER].id].known.tolist()
    columns = (events.event_ts.tolist(), events.ingest_ts.tolist(), events.ordinal.tolist(), numbers)
    return list(zip(events.user_ids.to_pylist(), *columns, strict=True))


def same(found: list[Found], versions: list[Version], what: str) -> None:
    """Each once, and no other."""
    expected = sorted((*version.place, version.row.number) for version in versions)
    if sorted(found) != expected:
        lost, other = set(expected) - set(found), set(found) - set(expected)
        require(False, f"{what}: lost {lost}, unexpected {other}, {len(found)} events for {len(expected)}")


def check_end(world: World) -> None:
    """Live on without faults, and nothing of what went wrong is left: no file that nothing names, no one forgotten."""
    store = world.look(read_only=False)
    store.compact(workers=1)
    require(world.generations[-1].change == len(world.changes), "R17: not applied:", world.changes[-1:])
    store.catalog.collect(2)
    check_generation(world, store)
    check_tier(world, store)
    check_examples(world, store, Projection())
    check_examples(world, store, draw_projection(world.chance, store.schema))
    check_files(world, store)
    check_forgotten(world)
    store.close()


def check_files(world: World, store: Store) -> None:
    """R19: no data that neither the newest generations nor a pin need."""
    newest = world.generations[-1]
    kept = {newest.id, newest.id - 1} | {pin.generation for pin in store.catalog.held_pins()}
    generations = [world.generations[number] for number in kept if number >= 0]
    named = {shard.key for known in generations if known.scrubs >= newest.scrubs for shard in known.shards}
    left = {key for key in world.disk.objects if (file := keys.parse_attempt_file(key)) and file[0] <= newest.id}
    require(left <= named, "R19: files that no generation needs:", sorted(left - named))


def check_forgotten(world: World) -> None:
    """R16: values that only forgotten events had are nowhere, neither in the store nor in the mutable tier."""
    model = world.model
    require(not model.scrubs or world.generations[-1].scrubs == len(model.scrubs), "R16: not applied:", model.scrubs)
    words = {word for version in model.versions if version.gone_by is not None for word in _secrets(version)}
    words -= {word for version in model.versions if version.gone_by is None for word in _secrets(version)}
    places = {**world.disk.objects, **world.log.runs, "the log's state": world.log.state}
    places |= {f"batch {n}": data for batches in world.log.segments.values() for n, data in batches.items()}
    for word in sorted(words):
        found = [place for place, data in places.items() if word.encode() in data]
        require(not found, f"R16: {word!r} is still in", found)


def _secrets(version: Version) -> list[str]:
    values = [item for value in version.values.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, str) and value.startswith("secret-")]
