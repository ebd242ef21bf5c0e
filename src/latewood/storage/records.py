"""Records: numbered documents that a store only adds to, such as its changes, its scrubs and its blankings.

Numbers have no gaps. So whoever reads on from the last one known has read them all, and whoever creates the next one
has added it, if nobody was first. Each says its number and the store's epoch: one that was copied from elsewhere, or to
another number, is damage.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from latewood.errors import CorruptionError
from latewood.storage.documents import decode_document, encode_document, reading_document
from latewood.storage.storage import Storage

T = TypeVar("T")


class Records:
    """The records of one kind in one store.

    Args:
        epoch: the store's.
        kind, format_version: of the documents.
        key: the object key of a number.
    """

    def __init__(
        self, storage: Storage, epoch: bytes, kind: str, format_version: int, key: Callable[[int], str]
    ) -> None:
        self._storage, self._epoch, self._key = storage, epoch.hex(), key
        self._kind, self._format_version = kind, format_version

    def read_if_any(self, number: int, parse: Callable[[dict[str, Any]], T]) -> T | None:
        """What `parse` makes of a record; None if there is none of that number yet.

        Raises: CorruptionError: damaged, or not that record. SchemaError: from a newer version.
        """
        key = self._key(number)
        try:
            data = self._storage.read(key)
        except FileNotFoundError:
            return None
        document = decode_document(data, key, self._kind, self._format_version)
        with reading_document(key, f"a {self._kind} record"):
            if document["epoch"] != self._epoch or document["number"] != number:
                raise CorruptionError(f"{key}: is number {document['number']} of epoch {document['epoch']}")
            return parse(document)

    def create(self, number: int, body: Mapping[str, Any]) -> bool:
        """Put a record, durably, unless there is one of that number. Returns: whether this call put it."""
        return self._storage.create(self._key(number), self._encode(number, body))

    def ensure(self, number: int, body: Mapping[str, Any]) -> bool:
        """Put a record as `create` does. Returns: whether it is there now, by this call or an earlier one."""
        return self.create(number, body) or self.has(number, body)

    def has(self, number: int, body: Mapping[str, Any]) -> bool:
        """Whether that is the record of that number. Raises: FileNotFoundError: there is none."""
        return self._storage.read(self._key(number)) == self._encode(number, body)

    def replace(self, number: int, body: Mapping[str, Any]) -> None:
        """Write a record anew, durably."""
        self._storage.write(self._key(number), self._encode(number, body))

    def _encode(self, number: int, body: Mapping[str, Any]) -> bytes:
        return encode_document(self._kind, self._format_version, {"epoch": self._epoch, "number": number, **body})
