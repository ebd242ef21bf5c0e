"""Attempt: one try at building a generation, in a folder of its own, which leaves nothing behind where it fails.

Its name is the one thing in compaction that is left to chance, so that of two who build the same generation neither
overwrites the other's files.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from latewood.compaction.store import CompactionStore
from latewood.errors import ConflictError, LatewoodError
from latewood.storage import Storage, keys


def attempt_uuid() -> str:
    """A new attempt's name. A simulation puts its own source of chance here."""
    return uuid4().hex


@contextmanager
def attempt(store: CompactionStore, number: int, uuid: str) -> Iterator[None]:
    """While the files of generation `number` are written: an error deletes them. See `race`."""
    try:
        with race(store, number):
            yield
    except BaseException:
        delete_attempt(store.storage, number, uuid)
        raise


@contextmanager
def race(store: CompactionStore, number: int) -> Iterator[None]:
    """While generation `number` is prepared: an error is a conflict where someone else has published it meanwhile.

    The winner may have collected the files of the parent under our hands, which looks like a missing file.
    """
    try:
        yield
    except ConflictError:
        raise
    except (LatewoodError, OSError) as error:
        newest = number - 1
        with suppress(LatewoodError, OSError):
            newest = store.catalog.latest().id
        if newest >= number:
            raise ConflictError(f"generation {newest} was published by another compaction first") from error
        raise


def delete_attempt(storage: Storage, number: int, uuid: str) -> None:
    """Best effort: what cannot be deleted now is collected once the generation exists."""
    with suppress(LatewoodError, OSError):
        files = [stored.key for stored in storage.list(keys.attempt_folder(number, uuid))]
        storage.delete([*files, keys.unused(number, uuid)])
