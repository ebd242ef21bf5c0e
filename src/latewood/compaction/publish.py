"""Compact: fix the cut, merge what is new into the newest generation, publish it in one step, let go of the old.

    cut ▸ read what is new ▸ write every shard ▸ put the manifest ▸ evict ▸ collect

Nothing counts before the manifest is there, and everything does once it is. A crash before leaves files that no
manifest names (collected later) and a frontier, which is a promise that does no harm; a crash after leaves events in
two places, of which readers take one by the watermark. Of several who build the same generation one wins; the others
get a ConflictError and their files are deleted.

Scrubs and corrections are read after the cut, never before it, since those from before the cut have to be applied. For a
change of the schema it does not matter: rows of the new one are appended only once a generation has applied it, and who
builds by the older one then loses the race for that number, at the latest when it meets such rows.
"""

import numpy as np
from numpy.typing import NDArray

from latewood.clock import show_ts
from latewood.compaction import attempt
from latewood.compaction.forget import finish_forgetting, note_unused
from latewood.compaction.pending import anything_to_do
from latewood.compaction.recipe import Recipe
from latewood.compaction.runs import Tally
from latewood.compaction.settings import MEMORY_BYTES, Progress, Settings
from latewood.compaction.spill import Spill
from latewood.compaction.store import CompactionStore, tier_of
from latewood.compaction.write import write_shards
from latewood.errors import ConflictError, CorruptionError
from latewood.immutable import Change, Generation, ShardFile
from latewood.immutable.manifest import Origin
from latewood.mutable import TierState
from latewood.vocabulary import extent


def compact(
    store: CompactionStore,
    *,
    watermark: int | None = None,
    keep: int = 2,
    workers: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    progress: Progress | None = None,
) -> Generation:
    """Publish a generation that holds what is new in the mutable tier, and is what was asked for meanwhile.

    Args:
        watermark: the cut, anywhere from the frontier to closed; None is closed, also where no event is new: a scrub is
            done only by a cut past it. A replay with a coarse clock holds back the open tick so (docs/protocol.md R6).
        keep, workers, memory_bytes: see `Settings`.
        progress: called with (events written, events in all).
    Returns: the new generation; or, where there is nothing to do, the current one: then nothing was written and no cut
        chosen. What a scrub still asks for after a crash is done in any case.
    Raises: ConflictError: someone else published first, or a bulk load is under way. Compact again.
    Units: µs since epoch, UTC.
    """
    tier, settings = tier_of(store), Settings(workers, memory_bytes, keep)
    parent = store.catalog.latest()
    finish_publishing(store, parent, keep)
    with attempt.race(store, parent.id + 1):
        if not anything_to_do(store, parent, watermark):
            return parent
    cut = tier.cut(watermark)
    generation = build(store, parent, parent.id + 1, cut, "compaction", settings, progress)
    retire(store, generation, parent, keep)
    return generation


def build(
    store: CompactionStore,
    parent: Generation,
    number: int,
    cut: int,
    origin: Origin,
    settings: Settings,
    progress: Progress | None = None,
) -> Generation:
    """Merge the mutable tier's events up to the cut into `parent`, and publish that as generation `number`."""
    target = store.changes.latest(parent)
    shards = (len(parent.shards), target.shards)
    with Spill(target.schema, shards, settings.added_bytes, threads=settings.threads) as new:
        with attempt.race(store, number):  # rows of a newer schema do not fit, and are there once it is published
            recipe = make_recipe(store, parent, target, number, attempt.attempt_uuid(), cut, origin)
            new.add_view(tier_of(store).view(parent.watermark, cut))
        generation = write_merged(store, recipe, new, settings, progress)
    publish_written(store, generation)
    return generation


def make_recipe(
    store: CompactionStore, parent: Generation, target: Change, number: int, uuid: str, watermark: int, origin: Origin
) -> Recipe:
    """The recipe of a generation whose cut is fixed.

    A suppression from before the cut names an event from before it: a version supersedes what is known, and so is
    ingested no earlier. What it names is therefore in the parent or among the new events, unless it has gone since.
    """
    store.scrubs.refresh()
    suppressions = tier_of(store).suppressions(parent.watermark, watermark)
    by_user = suppressions.take(np.argsort(suppressions.keys.hash, kind="stable"))
    return Recipe(parent, target, number, uuid, watermark, origin, by_user, store.scrubs.as_of_now())


def write_merged(
    store: CompactionStore, recipe: Recipe, new: Spill, settings: Settings, progress: Progress | None = None
) -> Generation:
    """Write the files of a recipe's generation: the parent's events and the new ones. An error deletes them again.

    Raises: ConflictError: another attempt at that generation was first.
    """
    with attempt.attempt(store, recipe.number, recipe.uuid):
        _check_range(recipe, new)
        shards, tally = write_shards(store.storage, recipe, new, settings, progress)
        words = extent(store.storage, recipe.schema)  # durable before the events that use them
        generation = _generation(recipe, shards, words, tally)
        _check_counts(generation, recipe.parent.event_count + new.event_count - tally.forgotten - tally.expired)
        note_unused(store.storage, generation, _perhaps_unused(store, recipe, generation, tally))
    return generation


def publish_written(store: CompactionStore, generation: Generation) -> None:
    """Publish a generation whose files are written.

    Raises: ConflictError: another attempt at that generation was first; this one's files are gone again.
        OSError: from the put of the manifest: unknown whether published, so the files stay.
    """
    try:
        store.catalog.publish(generation)
    except ConflictError:
        attempt.delete_attempt(store.storage, generation.id, generation.uuid)
        raise


def finish_publishing(store: CompactionStore, newest: Generation, keep: int) -> None:
    """What is still to be done about the newest generation, if whoever published it has died since."""
    tier_of(store).catch_up(TierState(changes=newest.change))  # before words of dropped traits may be collected
    finish_forgetting(store, newest, keep)


def retire(store: CompactionStore, generation: Generation, parent: Generation, keep: int) -> None:
    """After publishing: evict what even the parent has, and delete the files of older ones (R11, R19).

    First the tier is told of the changes that count from now on (R17). Evicting one generation late spares a capture that
    still reads the parent its retry; where something was forgotten nobody is spared.
    """
    tier_of(store).catch_up(TierState(changes=generation.change))
    tier_of(store).evict(parent.watermark)
    if generation.scrubs:
        finish_forgetting(store, generation, keep)
    else:
        store.catalog.collect(keep, now=store.clock.now())


def _generation(
    recipe: Recipe, shards: tuple[ShardFile, ...], words: tuple[tuple[int, int], ...], tally: Tally
) -> Generation:
    """The manifest. What retention took, and from when, is remembered for good: earlier pointers may ask for it."""
    parent, target = recipe.parent, recipe.target
    horizons = [horizon for horizon in (parent.horizon, recipe.horizon) if horizon is not None]
    return Generation(
        id=recipe.number,
        watermark=recipe.watermark,
        uuid=recipe.uuid,
        epoch=parent.epoch,
        schema=target.schema,
        shards=shards,
        parent=parent.id,
        vocabulary=words,
        origin=recipe.origin,
        change=target.number,
        scrubs=recipe.scrub_count,
        retention=target.retention,
        expired=parent.expired or tally.expired > 0,
        horizon=max(horizons, default=None),
    )


def _perhaps_unused(
    store: CompactionStore, recipe: Recipe, generation: Generation, tally: Tally
) -> dict[int, NDArray[np.int32]]:
    """The codes, by trait id, whose values may be nobody's any more.

    Where a scrub is done, any may be: it cannot be told whose values retention has taken, nor what an append coded that
    was then refused, or died. Else only those of rows that a bulk load brings of before a scrub.
    """
    if generation.scrubs == recipe.parent.scrubs:
        return {trait_id: np.array(sorted(codes), np.int32) for trait_id, codes in tally.codes.items()}
    store.vocabulary.follow(generation.schema)  # a trait may be new
    return {trait.id: store.vocabulary.live_codes(trait.id) for trait in generation.schema if trait.coded}


def _check_range(recipe: Recipe, new: Spill) -> None:
    """That all events lie between the watermarks: merging and every reader rely on it."""
    if new.min_ingest is None or new.max_ingest is None:
        return
    previous, watermark = recipe.parent.watermark, recipe.watermark
    if new.min_ingest < previous or new.max_ingest >= watermark:
        span = f"{show_ts(new.min_ingest)} to {show_ts(new.max_ingest)}"
        bounds = f"[{show_ts(previous)}, {show_ts(watermark)})"
        raise CorruptionError(f"the new events were ingested from {span}, outside the watermarks {bounds}")


def _check_counts(generation: Generation, expected: int) -> None:
    if generation.event_count != expected:
        held = generation.event_count
        raise CorruptionError(f"generation {generation.id} would hold {held} events, not {expected}; not published")
