"""What capture needs of a store."""

from typing import Protocol

from latewood.clock import Clock
from latewood.immutable import GenerationReader, Scrubs
from latewood.mutable import MutableTier
from latewood.schema import Schema
from latewood.vocabulary import Vocabulary


class CaptureStore(Protocol):
    """A store, as far as capture and backfill look into it."""

    epoch: bytes
    clock: Clock
    tier: MutableTier | None  # None in a store opened read-only
    vocabulary: Vocabulary
    scrubs: Scrubs

    @property
    def schema(self) -> Schema:
        """Of the generation that reads are answered from."""
        ...

    def reader(self) -> GenerationReader:
        """The newest generation known here."""
        ...

    def refresh(self) -> GenerationReader:
        """Look for a newer one."""
        ...
