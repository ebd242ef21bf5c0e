"""What compaction needs of a store."""

from typing import Protocol

from latewood.clock import Clock
from latewood.errors import ConflictError
from latewood.immutable import Catalog, Changes, Scrubs
from latewood.mutable import MutableTier
from latewood.storage import Storage
from latewood.vocabulary import Vocabulary


class CompactionStore(Protocol):
    """A store, as far as compaction looks into it."""

    @property
    def storage(self) -> Storage: ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def changes(self) -> Changes: ...

    @property
    def scrubs(self) -> Scrubs: ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def tier(self) -> MutableTier | None: ...

    @property
    def clock(self) -> Clock: ...


def tier_of(store: CompactionStore) -> MutableTier:
    """The mutable tier. Raises: ConflictError: the store was opened read-only and has none."""
    if store.tier is None:
        raise ConflictError("the store was opened read_only: a generation is built with the mutable tier at hand")
    return store.tier
