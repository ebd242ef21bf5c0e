"""Compact: fix the cut, merge what is new into the newest generation, publish it in one step, let go of the old.

    cut ▸ read what is new ▸ write every shard ▸ put the manifest ▸ evict ▸ collect

Nothing counts before the manifest is there, and everything does once it is. A crash before leaves files that no
manifest names (collected later) and a frontier, which is a promise that does no harm; a crash after leaves events in
two places, of which readers take one by the watermark. Of several who build the same generation one wins; the others
get a ConflictError and their files are deleted.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from latewood.clock import show_ts
from latewood.compaction.settings import MEMORY_BYTES, Progress, Settings
from latewood.compaction.spill import Spill
from latewood.compaction.store import CompactionStore, tier_of
from latewood.compaction.write import write_shards
from latewood.errors import ConflictError, CorruptionError, LatewoodError
from latewood.immutable import Catalog, Generation
from latewood.mutable import MutableTier
from latewood.storage import Storage, keys
from latewood.vocabulary import extent


def compact(
    store: CompactionStore,
    *,
    watermark: int | None = None,
    keep: int = 2,
    workers: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    spill_directory: str | None = None,
    progress: Progress | None = None,
) -> Generation:
    """Publish a generation that holds what is new in the mutable tier.

    Args:
        watermark: the cut, anywhere from the frontier to closed; None is closed. A replay with a coarse clock holds
            back the open tick so (docs/protocol.md R6).
        keep, workers, memory_bytes, spill_directory: see `Settings`.
        progress: called with (events written, events in all).
    Returns: the new generation; or, where nothing is new, the current one: then nothing was written and no cut chosen.
    Raises: ConflictError: someone else published first, or a bulk load is under way. Compact again.
    Units: µs since epoch, UTC.
    """
    tier, settings = tier_of(store), Settings(workers, memory_bytes, keep, spill_directory)
    previous = store.catalog.latest()
    if not _anything_new(tier, previous, watermark):
        return previous
    cut = tier.cut(watermark)
    with Spill(previous.schema, len(previous.shards), settings.held_bytes, spill_directory) as new:
        for events in tier.scan(previous.watermark, cut):
            new.add(events)
        new.finish()
        generation = publish_merged(store, previous, new, cut, uuid4().hex, settings, progress)
    retire(store.catalog, tier, previous, keep)
    return generation


def publish_merged(
    store: CompactionStore,
    previous: Generation,
    new: Spill,
    watermark: int,
    uuid: str,
    settings: Settings,
    progress: Progress | None = None,
) -> Generation:
    """Write and publish the generation after `previous`: its events and the new ones, up to the watermark.

    Raises: ConflictError: another attempt at that generation was first; this one's files are gone again.
        OSError: from the put of the manifest: unknown whether published, so the files stay.
    """
    number = previous.id + 1
    with _attempt(store, previous, uuid):
        _check_range(previous, new, watermark)
        shards = write_shards(store.storage, previous, new, number, uuid, settings, progress)
        words = extent(store.storage, previous.schema)  # durable before the events that use them
        generation = Generation(
            number, watermark, uuid, previous.epoch, previous.schema, shards, parent=previous.id, vocabulary=words
        )
        _check_counts(generation, previous.event_count + new.event_count)
    try:
        store.catalog.publish(generation)
    except ConflictError:
        _delete_attempt(store.storage, number, uuid)
        raise
    return generation


def retire(catalog: Catalog, tier: MutableTier, previous: Generation, keep: int) -> None:
    """After publishing: evict what even the previous generation has, and delete the files of older ones (R11, R19).

    Evicting one generation late spares a capture that still reads the previous one its retry.
    """
    if catalog.latest().id > previous.id:
        tier.evict(previous.watermark)
    catalog.collect(keep)


def _anything_new(tier: MutableTier, previous: Generation, watermark: int | None) -> bool:
    state = tier.state()
    if state.latest_ingest < previous.watermark:
        return False
    end = state.closed if watermark is None else watermark
    return any(len(events) for events in tier.scan(previous.watermark, end))


@contextmanager
def _attempt(store: CompactionStore, previous: Generation, uuid: str) -> Iterator[None]:
    """While files are written: an error deletes them, and is a conflict where someone else has published meanwhile.

    The winner may have collected the files of `previous` under our hands, which looks like a missing file.
    """
    try:
        yield
    except BaseException as error:
        _delete_attempt(store.storage, previous.id + 1, uuid)
        newest = previous.id
        with suppress(LatewoodError, OSError):
            newest = store.catalog.latest().id
        if newest > previous.id and isinstance(error, LatewoodError | OSError) and not isinstance(error, ConflictError):
            raise ConflictError(f"generation {newest} was published by another compaction first") from error
        raise


def _delete_attempt(storage: Storage, number: int, uuid: str) -> None:
    """Best effort: what cannot be deleted now is collected once the generation exists."""
    with suppress(LatewoodError, OSError):
        storage.delete([stored.key for stored in storage.list(keys.attempt_folder(number, uuid))])


def _check_range(previous: Generation, new: Spill, watermark: int) -> None:
    """That all events lie between the watermarks: merging and every reader rely on it."""
    if new.min_ingest is None or new.max_ingest is None:
        return
    if new.min_ingest < previous.watermark or new.max_ingest >= watermark:
        span = f"{show_ts(new.min_ingest)} to {show_ts(new.max_ingest)}"
        bounds = f"[{show_ts(previous.watermark)}, {show_ts(watermark)})"
        raise CorruptionError(f"the new events were ingested from {span}, outside the watermarks {bounds}")


def _check_counts(generation: Generation, expected: int) -> None:
    if generation.event_count != expected:
        held = generation.event_count
        raise CorruptionError(f"generation {generation.id} would hold {held} events, not {expected}; not published")
