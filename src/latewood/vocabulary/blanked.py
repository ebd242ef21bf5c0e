"""Values that were blanked: the codes stay, what they meant is gone (docs/protocol.md R16).

A value that only forgotten events had must go too, but codes are for ever. So blankings are lists of codes, numbered
from 0 without gaps. From the moment a list is there its codes are given out no more and mean null; the chunks that
hold the values are written anew without them after that, by whoever made the list or, after a crash, by the next who
compacts.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from latewood.errors import CorruptionError
from latewood.storage import Storage, keys
from latewood.storage.records import Records

KIND = "blanked"
FORMAT_VERSION = 1


class Blanked:
    """The blanked codes of one store, as far as they were read. Thread-safe.

    Args: epoch: the store's; a list of another is damage.
    """

    def __init__(self, storage: Storage, epoch: bytes) -> None:
        self._records = Records(storage, epoch, KIND, FORMAT_VERSION, keys.blanked)
        self._count = 0
        self._codes: dict[int, frozenset[int]] = {}
        self._lock = threading.Lock()  # held over I/O: a list that two threads read at once would count twice

    def __len__(self) -> int:
        return self._count

    def codes(self, trait_id: int) -> frozenset[int]:
        """The blanked codes of a trait."""
        return self._codes.get(trait_id, frozenset())

    def refresh(self) -> None:
        """Read the lists that were added. Costs one read of a key that is not there."""
        with self._lock:
            while (added := self._records.read_if_any(self._count, _from_document)) is not None:
                for trait_id, codes in added.items():
                    self._codes[trait_id] = self.codes(trait_id) | codes
                self._count += 1

    def write(self, number: int, codes: Mapping[int, Sequence[int]]) -> None:
        """Put a list, durably. Writing it again is fine. Raises: CorruptionError: another has that number."""
        listed = {str(trait_id): [int(code) for code in some] for trait_id, some in codes.items()}
        if not self._records.ensure(number, {"codes": listed}):
            raise CorruptionError(f"{keys.blanked(number)} is another blanking's")


def _from_document(document: dict[str, Any]) -> dict[int, frozenset[int]]:
    return {int(trait_id): frozenset(map(int, codes)) for trait_id, codes in document["codes"].items()}
