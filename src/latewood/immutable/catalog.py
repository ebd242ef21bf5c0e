"""Which generations there are, and which is the newest."""

from latewood.immutable.manifest import Generation
from latewood.storage import Storage, StoredObject


class Catalog:
    """The generations of one store."""

    def __init__(self, storage: Storage, epoch: bytes) -> None: ...

    def latest(self) -> Generation:
        """The newest generation known: from memory after the first call; `refresh` looks for newer ones."""
        ...

    def refresh(self) -> Generation:
        """Look for generations that others have published since, and return the newest."""
        ...

    def load(self, generation_id: int) -> Generation:
        """Raises: PointerError: no such generation."""
        ...

    def publish(self, generation: Generation) -> None:
        """Raises: ConflictError: another attempt at this id was first. OSError: unknown whether published."""
        ...

    def collect(self, keep: int = 2) -> list[StoredObject]:
        """Delete the data that neither the newest `keep` generations nor an attempt under way need; what was deleted."""
        ...
