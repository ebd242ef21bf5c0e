"""Tiers: which mutable tier is a store's, and whether it may be.

A tier lies in a local folder, beside a local store or where the caller says, with a file in it that names its store; for a
store in memory it lies in memory, too. A folder that is new to its store (the store was copied, or its recent events were
lost) is brought up to what the store has promised before anything is written to it.
"""

from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from latewood.errors import ConflictError, SchemaError
from latewood.immutable import Generation, Scrubs
from latewood.mutable import InMemoryTier, LmdbTier, MutableTier, TierState, WasPublished, delete_log
from latewood.storage import Storage
from latewood.storage.local import UNFINISHED, LocalStorage

OWNER = "store"  # the file in a tier's folder that says whose it is, by the store's epoch
_IN_MEMORY = "memory://"

# Stores in memory live as long as the process; whoever opens one again must meet the same recent events. By the store's
# epoch: one that is created where another was deleted is another, from when its description is written on.
_TIERS_IN_MEMORY: dict[bytes, InMemoryTier] = {}


def tier_folder(place: str, storage: Storage, mutable: str | Path | None) -> Path | None:
    """The folder of a store's tier; None if it is in memory. Raises: SchemaError: nobody said where it is."""
    if mutable is not None:
        return Path(mutable)
    if isinstance(storage, LocalStorage):
        return storage.root / "mutable"
    if place.startswith(_IN_MEMORY):
        return None
    raise SchemaError(f"{place}: a store that is not a local folder needs mutable=<folder> for its recent events")


def refuse_used(folder: Path | None) -> None:
    """For a store that is yet to be created. Raises: ConflictError: the folder is another's."""
    if folder is not None and (folder / OWNER).exists():
        raise ConflictError(_of_another(folder))


def open_tier(
    folder: Path | None, epoch: bytes, user_type: pa.DataType, was_published: WasPublished, scrubs: Scrubs
) -> MutableTier:
    """Open a store's tier, and make it if there is none. Raises: ConflictError: the folder is another store's."""
    if folder is None:
        return _TIERS_IN_MEMORY.setdefault(epoch, InMemoryTier(user_type, scrubs=scrubs))
    owner = LocalStorage(folder)
    owner.create(OWNER, epoch.hex().encode())
    if owner.read(OWNER) != epoch.hex().encode():
        raise ConflictError(_of_another(folder))
    return LmdbTier(folder, user_type, was_published=was_published, scrubs=scrubs)


def close_tier(tier: MutableTier) -> None:
    """Let go of a tier, but for one in memory, which all who open the store share."""
    if not isinstance(tier, InMemoryTier):
        tier.close()


def delete_tier(folder: Path) -> None:
    """Delete a tier that a bulk load keeps from being used, and nothing else in its folder, which can hold a new one then.

    What says whose it is goes last: an interruption leaves a folder that no other store takes for its own.
    """
    delete_log(folder)
    with suppress(OSError):  # not empty: someone is writing
        (folder / UNFINISHED).rmdir()
    (folder / OWNER).unlink(missing_ok=True)


def align_tier(tier: MutableTier, generation: Generation, scrubs: Scrubs, blanked: int) -> None:
    """A tier that is new beside generations that are not: its clock starts where they end, and it counts what they count.

    A store copied to another machine, or one that lost its mutable tier, may go on; what it must not do is to take
    events below what has been published, captured and scrubbed.
    """
    closed = max([generation.watermark - 1, *(record.scrub_ts for record in scrubs)])
    tier.catch_up(
        TierState(
            last=closed,
            frontier=closed + 1,
            floor=generation.watermark,
            scrubs=len(scrubs),
            blanked=blanked,
            changes=generation.change,
        )
    )


def _of_another(folder: Path) -> str:
    return f"{folder} holds the recent events of another store"
