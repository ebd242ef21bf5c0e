"""One trait's list of values: append-only, shared by all who have the store open.

The list is the concatenation of the trait's chunks. Whoever has new values writes them as the next chunk by
put-if-absent; of several who try, one wins, and the others read its chunk and try again with what is still new.
Should a value stand in the list twice all the same, its first code is the one that is given out, and each code still
means that value.

Looking up known values takes no lock: the dictionary only grows, and codes enter it after their chunk is durable.
"""

import threading

import pyarrow as pa

from latewood.errors import CorruptionError, SchemaError
from latewood.schema import Trait
from latewood.storage import Storage, keys
from latewood.vocabulary.chunk import Place, decode_chunk, encode_chunk

CODES_MAX = 2**31 - 1


class Wordlist:
    """The values of one coded trait, in the order of their codes."""

    def __init__(self, storage: Storage, trait: Trait, epoch: bytes) -> None:
        self._storage = storage
        self._epoch = epoch
        self._trait = trait
        self._codes: dict[str | int, int] = {}
        self._chunks: list[pa.Array] = []  # as read; the list's values are their concatenation
        self._size = 0
        self._joined = pa.array([], trait.value_type)
        self._loaded = False
        self._lock = threading.RLock()  # held over I/O: one thread reads or writes chunks for all

    def lookup(self, words: list[str | int]) -> list[int | None]:
        """Codes of what is known here, None for the rest."""
        self._load()
        return list(map(self._codes.get, words))

    def add(self, words: pa.Array) -> None:
        """Make sure that the list has these distinct values, durably."""
        with self._lock:
            self._load()
            while True:
                known = self.lookup(words.to_pylist())
                new = words.filter(pa.array([code is None for code in known], pa.bool_()))
                if not len(new) or self._append(new):
                    return
                self.refresh()

    def refresh(self) -> None:
        """Read the chunks that others have added."""
        with self._lock:
            self._load()
            while self._read_next():
                pass

    def values(self, at_least: int) -> pa.Array:
        """All values by code. Raises: CorruptionError: there are fewer than that."""
        self._load()
        if self._size < at_least:
            self.refresh()
        if self._size < at_least:
            folder = keys.vocabulary_folder(self._trait.id)
            raise CorruptionError(
                f"{folder}: {self._size} values of trait {self._trait.name!r}, but code {at_least - 1} is in use"
            )
        joined = self._joined
        if len(joined) < self._size:
            with self._lock:
                joined = self._joined = pa.concat_arrays(self._chunks)
        return joined

    def _load(self) -> None:
        """The first read lists the chunks, so that one that is missing between others is noticed."""
        if self._loaded:
            return
        with self._lock:
            if self._loaded:
                return
            folder = keys.vocabulary_folder(self._trait.id)
            found = [keys.parse_vocabulary_chunk(stored.key) for stored in self._storage.list(folder)]
            seqs = sorted(parsed[1] for parsed in found if parsed)
            for expected, seq in enumerate(seqs):
                if seq != expected:
                    raise CorruptionError(
                        f"{keys.vocabulary_chunk(self._trait.id, expected)} is missing; {seq} is there"
                    )
            while len(self._chunks) < len(seqs) and self._read_next():
                pass
            self._loaded = True

    def _read_next(self) -> bool:
        place = self._next_place()
        key = keys.vocabulary_chunk(place.trait_id, place.seq)
        try:
            data = self._storage.read(key)
        except FileNotFoundError:
            return False
        self._take(decode_chunk(data, key, place, self._trait.value_type))
        return True

    def _append(self, new: pa.Array) -> bool:
        if self._size + len(new) > CODES_MAX:
            raise SchemaError(f"trait {self._trait.name!r} has more than {CODES_MAX} different values")
        place = self._next_place()
        if not self._storage.create(keys.vocabulary_chunk(place.trait_id, place.seq), encode_chunk(new, place)):
            return False
        self._take(new)
        return True

    def _next_place(self) -> Place:
        return Place(self._epoch, self._trait.id, len(self._chunks), self._size)

    def _take(self, values: pa.Array) -> None:
        for code, word in enumerate(values.to_pylist(), self._size):
            self._codes.setdefault(word, code)
        self._chunks.append(values)
        self._size += len(values)
