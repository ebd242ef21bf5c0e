"""Reading from the newest generation, whichever that is by the time its files are opened."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from latewood.immutable.reader import GenerationReader

T = TypeVar("T")


class NewestStore(Protocol):
    """What it needs of a store."""

    def refresh(self) -> GenerationReader:
        """Look for a newer generation; the newest."""


def read_newest(
    store: NewestStore, read: Callable[[GenerationReader], T], reader: GenerationReader | None = None
) -> tuple[GenerationReader, T]:
    """Read from a generation; should it be collected meanwhile, from a newer one, which holds what it held.

    Args: reader: where to begin, if that is new enough; the newest if it is not given.
    Returns: what it was read from, and what was read.
    """
    reader = reader or store.refresh()
    while True:
        try:
            return reader, read(reader)
        except FileNotFoundError:
            newest = store.refresh()
            if newest.generation.id == reader.generation.id:
                raise
            reader = newest
