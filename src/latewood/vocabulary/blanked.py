"""Values that were blanked: the codes stay, what they meant is gone (docs/protocol.md R16).

A value that only forgotten events had must go too, but codes are for ever. So blankings are lists of codes, numbered
from 0 without gaps. From the moment a list is there its codes are given out no more and mean null; the chunks that
hold the values are written anew without them after that, by whoever made the list or, after a crash, by the next who
compacts.
"""

from collections.abc import Mapping, Sequence

from latewood.errors import CorruptionError
from latewood.storage import Storage, keys
from latewood.storage.documents import decode_document, encode_document

KIND = "blanked"
FORMAT_VERSION = 1


class Blanked:
    """The blanked codes of one store, as far as they were read.

    Args: epoch: the store's; a list of another is damage.
    """

    def __init__(self, storage: Storage, epoch: bytes) -> None:
        self._storage, self._epoch = storage, epoch
        self._count = 0
        self._codes: dict[int, frozenset[int]] = {}

    def __len__(self) -> int:
        return self._count

    def codes(self, trait_id: int) -> frozenset[int]:
        """The blanked codes of a trait."""
        return self._codes.get(trait_id, frozenset())

    def refresh(self) -> bool:
        """Read the lists that were added; whether there were any. Costs one read of a key that is not there."""
        before = self._count
        while (added := self._read_if_any(self._count)) is not None:
            for trait_id, codes in added.items():
                self._codes[trait_id] = self.codes(trait_id) | codes
            self._count += 1
        return self._count > before

    def write(self, number: int, codes: Mapping[int, Sequence[int]]) -> None:
        """Put a list, durably. Writing it again is fine. Raises: CorruptionError: another has that number."""
        listed = {str(trait_id): [int(code) for code in some] for trait_id, some in codes.items()}
        document = {"epoch": self._epoch.hex(), "number": number, "codes": listed}
        data = encode_document(KIND, FORMAT_VERSION, document)
        key = keys.blanked(number)
        if not self._storage.create(key, data) and self._storage.read(key) != data:
            raise CorruptionError(f"{key} is another blanking's")

    def _read_if_any(self, number: int) -> dict[int, frozenset[int]] | None:
        key = keys.blanked(number)
        try:
            data = self._storage.read(key)
        except FileNotFoundError:
            return None
        document = decode_document(data, key, KIND, FORMAT_VERSION)
        try:
            if document["epoch"] != self._epoch.hex() or document["number"] != number:
                raise CorruptionError(f"{key}: is blanking {document['number']} of epoch {document['epoch']}")
            return {int(trait_id): frozenset(map(int, codes)) for trait_id, codes in document["codes"].items()}
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CorruptionError(f"{key}: not a blanking: {error!r}") from error
