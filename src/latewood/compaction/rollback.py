"""Rollback: build the next generation from an older one, as if those after it had never been.

A generation may turn out bad: damaged files, a bug, a feed that should not have been. As long as the mutable tier still
has all that came after an older one, that one and the tier make a good generation. It is published as the newest, with a
watermark no lower than any before, so that every pointer finds what it means. Changes of the store and scrubs are no
part of what is undone: they are applied as by any compaction.
"""

from latewood.clock import show_ts
from latewood.compaction.publish import build, retire
from latewood.compaction.settings import MEMORY_BYTES, Progress, Settings
from latewood.compaction.store import CompactionStore, tier_of
from latewood.errors import ConflictError, PointerError
from latewood.immutable import Generation


def rollback(
    store: CompactionStore,
    generation_id: int,
    *,
    keep: int = 2,
    workers: int = 0,
    memory_bytes: int = MEMORY_BYTES,
    progress: Progress | None = None,
) -> Generation:
    """Publish a generation made of an older one and what the mutable tier has since.

    Args: keep, workers, memory_bytes, progress: as for `compact`.
    Raises: ConflictError: that cannot be done, and why; or someone else published first.
    """
    tier, settings = tier_of(store), Settings(workers, memory_bytes, keep)
    newest = store.catalog.latest()
    parent = _parent(store, newest, generation_id)
    cut = tier.cut()
    try:
        generation = build(store, parent, newest.id + 1, cut, "rollback", settings, progress)
    except FileNotFoundError as error:
        if store.catalog.is_stored(parent):
            raise
        raise ConflictError(_refused(generation_id) + "its files were deleted meanwhile") from error
    retire(store, generation, parent, keep)
    return generation


def _refused(generation_id: int) -> str:
    return f"cannot go back to generation {generation_id}: "


def _parent(store: CompactionStore, newest: Generation, generation_id: int) -> Generation:
    """The generation to go back to. Raises: ConflictError: it cannot be gone back to."""
    refused = _refused(generation_id)
    if generation_id == newest.id:
        raise ConflictError(refused + "it is the newest")
    try:
        parent = store.catalog.load(generation_id)
    except PointerError as error:
        raise ConflictError(refused + str(error)) from None
    if parent.scrubs < newest.scrubs:
        raise ConflictError(refused + f"it has what generation {newest.id} has forgotten for good")
    undone = [store.catalog.load(number) for number in range(generation_id + 1, newest.id + 1)]
    for generation in undone:
        if generation.origin == "load":
            raise ConflictError(refused + f"generation {generation.id} is a bulk load, whose events are nowhere else")
    for after in undone:
        before = _parent_of(store, after)
        if before.retention is None or not before.retention.lets_go_of_more_than(after.retention):
            continue
        # what came late after that may lie before what is gone, and there pointers count it without what is gone
        if not _descends(store, parent, before):
            raise ConflictError(
                refused + f"it may have what generation {before.id} let go of, and {after.id} would keep"
            )
    floor = tier_of(store).state().floor
    if floor > parent.watermark:
        span = f"{show_ts(parent.watermark)} to {show_ts(floor)}"
        raise ConflictError(refused + f"what was ingested from {span} is gone from the mutable tier")
    if not store.catalog.is_stored(parent):
        raise ConflictError(refused + "its files are deleted")
    return parent


def _parent_of(store: CompactionStore, generation: Generation) -> Generation:
    """What a generation other than the first was made of: an older one than that before it, after a rollback."""
    assert generation.parent is not None
    return store.catalog.load(generation.parent)


def _descends(store: CompactionStore, generation: Generation, ancestor: Generation) -> bool:
    """Whether a generation is another one, or was made of it, so that it lacks what that one let go of."""
    while generation.id > ancestor.id:
        generation = _parent_of(store, generation)
    return generation.id == ancestor.id
