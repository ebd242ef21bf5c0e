"""Pins: a run says which generation it still needs, so that its files stay (docs/protocol.md R19).

A pin holds back the deletion of data files until it expires, and nothing else. Forgetting goes before: files that hold
what was to be forgotten are deleted all the same, and the pin moves on to the generation that forgot it (R16). Nobody
writes that down: the manifests tell it (`Catalog.held_pins`), and the pin's file is its owner's alone.
"""

from dataclasses import dataclass

from latewood.errors import CorruptionError, SchemaError
from latewood.storage import Storage, keys
from latewood.storage.documents import decode_document, encode_document, reading_document, whole

KIND = "pin"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """One run's claim. Units: µs since epoch, UTC."""

    name: str
    generation: int
    expires_ts: int
    moved: bool = False  # whether a scrub moved it off the generation that it was set on; not in its file


class Pins:
    """The pins of one store.

    Args: epoch: the store's; a pin of another is damage.
    """

    def __init__(self, storage: Storage, epoch: bytes) -> None:
        self._storage, self._epoch = storage, epoch

    def write(self, pin: Pin) -> None:
        """Set a pin, or set it anew. Raises: SchemaError: a name that cannot be that of a file."""
        if keys.parse_pin(keys.pin(pin.name)) != pin.name:
            raise SchemaError(
                f"pin {pin.name!r}: a name is of letters, digits, '.', '-' and '_', a letter or digit first"
            )
        claim = {"generation": pin.generation, "expires_ts": pin.expires_ts}
        body = {"epoch": self._epoch.hex(), "name": pin.name} | claim
        self._storage.write(keys.pin(pin.name), encode_document(KIND, FORMAT_VERSION, body))

    def read(self, name: str) -> Pin | None:
        """A pin as it was set, expired or not; None if there is none of that name. Raises: CorruptionError."""
        key = keys.pin(name)
        try:
            data = self._storage.read(key)
        except (FileNotFoundError, ValueError):
            return None
        document = decode_document(data, key, KIND, FORMAT_VERSION)
        with reading_document(key, "a pin"):
            if document["epoch"] != self._epoch.hex() or document["name"] != name:
                raise CorruptionError(f"{key}: is pin {document['name']!r} of epoch {document['epoch']}")
            return Pin(name, whole(document["generation"], 0), whole(document["expires_ts"]))

    def delete(self, name: str) -> None:
        """Let go; a pin that is gone already is fine."""
        self._storage.delete([keys.pin(name)])

    def all(self) -> list[Pin]:
        """Every pin as it was set, by name."""
        names = (keys.parse_pin(stored.key) for stored in self._storage.list(keys.PINS))
        return [pin for name in names if name is not None and (pin := self.read(name)) is not None]
