"""One trait's list of values: append-only, shared by all who have the store open.

The list is the concatenation of the trait's chunks. Whoever has new values writes them as the next chunk by
put-if-absent; of several who try, one wins, and the others read its chunk and try again with what is still new.
Should a value stand in the list twice all the same, its first code is the one that is given out, and each code still
means that value.

Values can be blanked (`blanked`): their codes are given out no more and mean null. A value that comes again gets a new
code. But an example may still carry one among its recent events, and must be read: in the process that reads it such a
value is a visitor, who stands in the place of some blanked code for as long as the process lives. One whose code was
read before it was blanked, and may be in a batch that is still to be made, stands in its own; in each of its own, if it
came again and was blanked again. What events have as codes is looked up without visitors: there a blanked code is null.

Looking up known values takes no lock: the dictionary only grows, and codes enter it after their chunk is durable.
"""

import threading
from collections.abc import Callable, Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import with_nulls
from latewood.errors import CorruptionError, SchemaError
from latewood.schema import Trait
from latewood.storage import Storage, keys
from latewood.vocabulary.blanked import Blanked
from latewood.vocabulary.chunk import Place, decode_chunk, encode_chunk
from latewood.vocabulary.extent import listed_chunks

CODES_MAX = 2**31 - 1


class Wordlist:
    """The values of one coded trait, in the order of their codes.

    Args:
        blanked: the store's; the vocabulary reads on in it.
        is_live: whether a trait was not dropped.
    """

    def __init__(
        self, storage: Storage, trait: Trait, epoch: bytes, blanked: Blanked, is_live: Callable[[int], bool]
    ) -> None:
        self._storage = storage
        self._epoch = epoch
        self._trait = trait
        self._blanked = blanked
        self._is_live = is_live
        self._gone: frozenset[int] = frozenset()  # the blanked codes that were taken out here
        self._codes: dict[str | int, int] = {}
        self._visitors: dict[int, str | int] = {}  # by code: values that are there in this process only
        self._places: dict[str | int, int] = {}  # a code of each visitor
        self._read = np.zeros(0, np.bool_)  # by code: whether one was given for reading
        self._chunks: list[pa.Array] = []  # as read; the list's values are their concatenation, but for blanked ones
        self._size = 0
        self._nothing = pa.array([], trait.item_type)
        self._joined = self._nothing, self._nothing  # the list's values, and these with the visitors
        self._loaded = False
        self.is_erased = False  # whether the stored chunks were looked through here for blanked values
        self._lock = threading.RLock()  # held over I/O: one thread reads or writes chunks for all

    @property
    def chunk_count(self) -> int:
        """How many chunks were read so far."""
        return len(self._chunks)

    def look_up(self, words: list[str | int]) -> list[int | None]:
        """Codes of what is known here, None for the rest."""
        self._load()
        return list(map(self._codes.get, words))

    def look_up_to_read(self, words: list[str | int]) -> list[int | None]:
        """Codes of what is known here, None for the rest. They go on meaning these words in this process."""
        with self._lock:
            codes = self.look_up(words)
            if len(self._read) < self._size:
                self._read = np.concatenate([self._read, np.zeros(self._size - len(self._read), np.bool_)])
            self._read[[code for code in codes if code is not None]] = True
            return codes

    def look_up_any(self, words: list[str | int]) -> list[int | None]:
        """Codes for reading: also of values that were blanked, as far as there are places for them. None for the rest."""
        codes = self.look_up_to_read(words)
        if None not in codes:
            return codes
        self.refresh()
        with self._lock:
            for word in words:
                if word not in self._codes and word not in self._places:
                    self._seat(word)
            codes = self.look_up_to_read(words)
            return [self._places.get(word) if code is None else code for code, word in zip(codes, words, strict=True)]

    def _seat(self, word: str | int) -> None:
        """Give a visitor the first free place, if there is one."""
        free = self._gone.difference(self._visitors)
        if free and (place := min(free)) < self._size:
            self._let_in({place: word})

    def _let_in(self, visitors: Mapping[int, str | int]) -> None:
        """Give visitors their places. The values are put together anew."""
        self._visitors |= visitors
        self._places |= {word: place for place, word in visitors.items()}
        self._joined = self._nothing, self._nothing

    def add(self, words: pa.Array) -> list[int | None]:
        """Make sure that the list has these distinct values, durably. Returns: their codes."""
        with self._lock:
            plain = words.to_pylist()
            while None in (codes := self.look_up(plain)):
                if not self._append(words.filter(pa.array([code is None for code in codes], pa.bool_()))):
                    self.refresh()
            return codes

    def refresh(self) -> None:
        """Read the chunks that others have added."""
        with self._lock:
            self._load()
            while self._read_next():
                pass

    def values(self, at_least: int, *, visitors: bool = True) -> pa.Array:
        """All values by code, and visitors in the places of blanked ones. Raises: CorruptionError: fewer than that."""
        self._load()
        if self._size < at_least:
            self.refresh()
        if self._size < at_least:
            folder = keys.vocabulary_folder(self._trait.id)
            raise CorruptionError(
                f"{folder}: {self._size} values of trait {self._trait.name!r}, but code {at_least - 1} is in use"
            )
        joined = self._joined
        if len(joined[0]) < self._size:
            with self._lock:
                own = _without(pa.concat_arrays(self._chunks), self._gone)
                joined = self._joined = own, _with(own, self._visitors)
        own, with_visitors = joined
        return with_visitors if visitors else own

    def live_codes(self) -> NDArray[np.int32]:
        """The codes of what was read so far that are not blanked."""
        with self._lock:
            return np.setdiff1d(np.arange(self._size, dtype=np.int32), np.array(sorted(self._gone), np.int32))

    def blank(self) -> None:
        """Take out the codes that the store's blankings name."""
        with self._lock:
            new = self._blanked.codes(self._trait.id) - self._gone
            if not new:
                return
            self._gone |= new
            stay = {
                code: word for word, code in self._codes.items() if code in new and self._read[code : code + 1].any()
            }
            # a new dictionary: others look up in the old one without a lock
            self._codes = {word: code for word, code in self._codes.items() if code not in new}
            self._let_in(stay)

    def erase(self) -> None:
        """Write the stored chunks that hold blanked values anew, without them. Costs a read of each that has such codes."""
        with self._lock:
            self.blank()
            if self._gone:
                self.refresh()
                self._erase_chunks()
            self.is_erased = True

    def _erase_chunks(self) -> None:
        first = 0
        for seq, values in enumerate(self._chunks):
            if held := {code - first for code in self._gone if first <= code < first + len(values)}:
                self._erase_stored(seq, first, held)
                self._chunks[seq] = _without(values, held)
            first += len(values)

    def _erase_stored(self, seq: int, first: int, held: Collection[int]) -> None:
        """What is stored counts, not what was read: who erases at the same time, and dies, may put a value back."""
        place, key = Place(self._epoch, self._trait.id, seq, first), keys.vocabulary_chunk(self._trait.id, seq)
        try:
            stored = decode_chunk(self._storage.read(key), key, place, self._trait.item_type)
        except FileNotFoundError:  # of a trait that was dropped
            return
        erased = _without(stored, held)
        if erased.null_count > stored.null_count:
            self._storage.write(key, encode_chunk(erased, place))

    def _load(self) -> None:
        """The first read lists the chunks, so that one that is missing before others is noticed.

        What is there is told by reading: a listing made while others append may show a later one and not an earlier one.
        """
        if self._loaded:
            return
        with self._lock:
            if self._loaded:
                return
            last = max(listed_chunks(self._storage, self._trait.id), default=-1)
            self.blank()
            while (missing := len(self._chunks)) <= last:
                if self._read_next():
                    continue
                if not self._is_live(self._trait.id):
                    break  # collected, and what is left of it came from a writer that did not know yet
                raise CorruptionError(f"{keys.vocabulary_chunk(self._trait.id, missing)} is missing; {last} is there")
            self._loaded = True

    def _read_next(self) -> bool:
        place = self._next_place()
        key = keys.vocabulary_chunk(place.trait_id, place.seq)
        try:
            data = self._storage.read(key)
        except FileNotFoundError:
            return False
        values = decode_chunk(data, key, place, self._trait.item_type)
        self._check_nulls(values, key)
        self._take(values)
        return True

    def _check_nulls(self, values: pa.Array, key: str) -> None:
        """Only what was blanked may be null."""
        if not values.null_count:
            return
        null = {self._size + row for row, is_null in enumerate(values.is_null().to_pylist()) if is_null}
        if null - self._blanked.codes(self._trait.id):
            self._blanked.refresh()
            self.blank()
        if unknown := null - self._blanked.codes(self._trait.id):
            raise CorruptionError(f"{key}: the value of code {min(unknown)} is null, and was never blanked")

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
            if code not in self._gone:
                self._codes.setdefault(word, code)
        self._chunks.append(values)
        self._size += len(values)


def _without(values: pa.Array, codes: Collection[int]) -> pa.Array:
    """Values, null at some places, and their bytes nowhere."""
    places = [code for code in codes if code < len(values)]
    if not places:
        return values
    mask = np.zeros(len(values), np.bool_)
    mask[places] = True
    return with_nulls(values, mask)


def _with(values: pa.Array, visitors: Mapping[int, str | int]) -> pa.Array:
    """Values, with others at some places."""
    if not visitors:
        return values
    mask = np.zeros(len(values), np.bool_)
    mask[list(visitors)] = True
    placed = pa.array([visitors[code] for code in sorted(visitors)], values.type)
    return pc.replace_with_mask(values, pa.array(mask), placed)
