"""All coded traits of a store, each with its list of values."""

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import (
    Column,
    Lists,
    TraitColumn,
    column_to_arrow,
    compact_lists,
    lists_from_arrow,
    lists_to_arrow,
    one_array,
    times_to_arrow,
)
from latewood.errors import PointerError, SchemaError, ScrubbedError
from latewood.events import Events
from latewood.pointer import EPOCH_BYTES
from latewood.schema import EVENT_TS, Schema, Trait
from latewood.storage import Storage, keys
from latewood.vocabulary.blanked import Blanked
from latewood.vocabulary.wordlist import Wordlist

CODES_AT_ONCE = 4096  # the mutable tier keeps the latest blanking in its state
PutBlanked = Callable[[int, Mapping[int, Sequence[int]]], None]


class Blanker(Protocol):
    """What decides which codes can be blanked, in one step with the appends: the mutable tier."""

    def blank(
        self, candidates: Mapping[int, NDArray[np.int32]], put: PutBlanked, still: Callable[[], bool] | None = None
    ) -> int | None:
        """Put, as a blanking of the next number, the candidates that no event here uses; None: nothing is left."""


class Vocabulary:
    """Values to codes and back, for every coded trait of a schema. Thread-safe.

    Args:
        epoch: the store's; chunks of another are damage. Zeros for a vocabulary that stands alone.
        is_live: whether the newest generation has a trait: the chunks of others are collected, in any order.
    """

    def __init__(
        self,
        storage: Storage,
        schema: Schema,
        read_only: bool = False,
        *,
        epoch: bytes = bytes(EPOCH_BYTES),
        is_live: Callable[[int], bool] = lambda trait_id: True,
    ) -> None:
        self._storage, self._epoch, self._read_only, self._is_live = storage, epoch, read_only, is_live
        self._blanked = Blanked(storage, epoch)
        self._applied = 0  # how many blankings every list goes by; others may be read, and are of no account yet
        self._lists: Mapping[int, Wordlist] = {}
        self._lock = threading.Lock()
        self.follow(schema)

    @property
    def blanked_codes(self) -> int:
        """How many codes were blanked, of all traits."""
        return sum(len(self._blanked.codes(trait_id)) for trait_id in self._lists)

    def follow(self, schema: Schema) -> None:
        """Take in the coded traits of a schema that are not known here yet."""
        if all(trait.id in self._lists for trait in schema if trait.coded):
            return
        with self._lock:
            new = [trait for trait in schema if trait.coded and trait.id not in self._lists]
            made = {
                trait.id: Wordlist(self._storage, trait, self._epoch, self._blanked, self._is_live) for trait in new
            }
            self._lists = {**self._lists, **made}  # another dictionary: threads may be going through the old one

    @property
    def blanked(self) -> int:
        """How many blankings codes are given out by. An append says so, and is refused if there are newer ones."""
        return self._applied

    @property
    def blanked_known(self) -> int:
        """How many blankings were read here: values that were read since may be null for any of them."""
        return len(self._blanked)

    def encode(self, trait: Trait, values: pa.Array | pa.ChunkedArray) -> TraitColumn:
        """Codes of values, adding those that are new (durably, before this returns). Nulls: code 0 and the mask.

        Args:
            values: of the trait's value type, or a dictionary of it. Of lists, it is the items that have codes.
        Raises: PointerError: a new value, and the vocabulary is read-only. SchemaError: text that is not UTF-8.
        """
        return self._column(trait, values, add=not self._read_only)

    def codes(self, trait: Trait, values: pa.Array | pa.ChunkedArray) -> TraitColumn:
        """Codes of values that the store knows or knew, for reading: of a blanked one it is good for this process only.

        Raises: PointerError: one that it never knew, by name.
        """
        return self._column(trait, values, add=False)

    def values(self, trait_id: int, at_least: int = 0) -> pa.Array:
        """The values by code, at least `at_least` of them: what is known here, or the storage if that is less.

        In the place of a blanked one may stand another, whose code `codes` gave out here. A null has code 0 even where
        there is no value yet, so mask before taking.
        Raises: CorruptionError: the store has fewer.
        """
        return self._lists[trait_id].values(at_least)

    def unified(self, trait_id: int, column: TraitColumn) -> TraitColumn:
        """A column with each code as the first that means the same: a value may stand in its list twice.

        A column of a trait that is not coded comes back as it is. Shapes: (n,) → (n,), int32 codes.
        Raises: CorruptionError: a code without a value.
        """
        used = column.known
        if trait_id not in self._lists or not len(used):
            return column
        values = self.values(trait_id, int(used.max()) + 1)
        encoded = pc.dictionary_encode(values, null_encoding="encode").indices.to_numpy()
        _, first, of = np.unique(encoded, return_index=True, return_inverse=True)
        codes = first[of].astype(np.int32)
        if isinstance(column, Lists):
            return compact_lists(codes[used], column.lengths, column.mask)
        return Column(codes[column.values], column.mask)  # nulls have code 0

    def to_arrow(self, trait: Trait, column: TraitColumn) -> pa.Array:
        """A coded column of events as values, each looked at once: as a dictionary, or as lists of the values themselves.

        Raises: CorruptionError: a code without a value. ScrubbedError: a value was blanked after the column was read,
            which was of a generation or segment that is there no more.
        """
        if isinstance(column, Lists):
            return lists_to_arrow(column, trait.value_type, lambda of: self.to_arrow(trait, of).dictionary_decode())
        codes = pa.array(column.values, pa.int32(), mask=column.mask)
        used = column.known
        # numpy's maximum: Arrow's takes ten times as long, and captures ask for a few codes at a time
        at_least = int(used.max()) + 1 if len(used) else 0
        # without visitors: the column may have been read before they came
        values = self._lists[trait.id].values(at_least, visitors=False)
        if values.null_count and values.take(codes).null_count > codes.null_count:
            raise ScrubbedError(f"a value of trait {trait.name!r} was forgotten while it was read; read again")
        return pa.DictionaryArray.from_arrays(codes, values)

    def trait_to_arrow(self, trait: Trait, events: Events) -> pa.Array:
        """One trait of some events; coded ones as dictionary arrays, and all null where these events have none."""
        column = events.traits.get(trait.id)
        if column is None:
            return pa.nulls(len(events), trait.value_type)
        return self.to_arrow(trait, column) if trait.coded else column_to_arrow(column, trait.type)

    def columns(self, schema: Schema, events: Events, names: Iterable[str]) -> dict[str, pa.Array]:
        """What conditions look at: some traits and event_ts, by name."""
        return {
            name: times_to_arrow(events.event_ts) if name == EVENT_TS else self.trait_to_arrow(schema[name], events)
            for name in names
        }

    def missing(self, extent: Iterable[tuple[int, int]], trait_ids: Collection[int]) -> str | None:
        """A chunk that was there when a generation was built, and is not known here: the key of the first.

        Args: extent: the generation's. trait_ids: those to look at, of which `values` was asked for.
        """
        for trait_id, count in extent:
            if trait_id in trait_ids and (known := self._lists[trait_id].chunk_count) < count:
                return keys.vocabulary_chunk(trait_id, known)
        return None

    def refresh(self, trait_id: int) -> None:
        """Read what others have added, so that `values` has every code of the generations published by now."""
        self.refresh_blanked()
        self._lists[trait_id].refresh()

    def live_codes(self, trait_id: int) -> NDArray[np.int32]:
        """The codes that mean something: all that anyone has given out by now, less the blanked ones."""
        self.refresh(trait_id)
        return self._lists[trait_id].live_codes()

    def refresh_blanked(self) -> None:
        """Read the blankings that others have made, and go by them; by those that could be read, should reading fail."""
        with self._lock:
            try:
                self._blanked.refresh()
            finally:
                read = len(self._blanked)
                if read > self._applied:
                    for wordlist in self._lists.values():
                        wordlist.blank()
                    self._applied = read

    def blank(
        self, tier: "Blanker", candidates: Mapping[int, NDArray[np.int32]], still: Callable[[], bool] | None = None
    ) -> int:
        """Make values unknown, for ever: those of some codes, by trait id, that no stored event uses any more.

        Args:
            tier: leaves out the codes that its own events use, and sees to it that none is given out again.
            still: whether that can be said of the candidates still; asked when the tier lets nothing come between.
        Returns: how many codes were blanked.
        """
        before = self.blanked_codes
        for some in _few(candidates):
            if tier.blank(some, self.put_blanked, still) is not None:
                self.erase_blanked()
        return self.blanked_codes - before

    def put_blanked(self, number: int, codes: Mapping[int, Sequence[int]]) -> None:
        """Write down a blanking that the mutable tier has decided on, and go by it. Doing it again is fine."""
        self._blanked.write(number, codes)
        self.refresh_blanked()

    def erase_blanked(self) -> None:
        """Write the chunks that still hold blanked values anew, without them. Doing it again is fine."""
        self.refresh_blanked()
        erased = 0
        while erased < self.blanked:
            erased = self.blanked
            for wordlist in self._lists.values():
                wordlist.erase()
            self.refresh_blanked()  # what another erased meanwhile may be back with a chunk that was written here

    def erase_left(self) -> None:
        """Do so once per process: one that died while it erased may have put back what another had erased meanwhile."""
        if not all(wordlist.is_erased for wordlist in self._lists.values()):
            self.erase_blanked()

    def _column(self, trait: Trait, values: pa.Array | pa.ChunkedArray, add: bool) -> TraitColumn:
        if trait.is_list:
            return lists_from_arrow(one_array(values), lambda items: self._codes(trait, items, add))
        return self._codes(trait, one_array(values), add)

    def _codes(self, trait: Trait, values: pa.Array, add: bool) -> Column:
        encoded = _distinct(values, trait)
        indices = encoded.indices
        mask: NDArray[np.bool_] | None = None
        if indices.null_count:
            mask = pc.is_null(indices).to_numpy(zero_copy_only=False)
            indices = indices.fill_null(0)
        table = self._code_table(trait, encoded.dictionary, add)
        if mask is None:
            return Column(table[indices.to_numpy()])
        if not len(table):  # nothing but nulls
            return Column(np.zeros(len(indices), np.int32), mask)
        codes = table[indices.to_numpy()]
        codes[mask] = 0
        return Column(codes, mask)

    def _code_table(self, trait: Trait, words: pa.Array, add: bool) -> NDArray[np.int32]:
        """The code of each distinct value."""
        wordlist = self._lists[trait.id]
        try:
            plain = words.to_pylist()
        except UnicodeDecodeError as error:
            raise SchemaError(f"column {trait.name!r} holds text that is not UTF-8: {error}") from None
        codes = wordlist.look_up(plain) if add else wordlist.look_up_to_read(plain)
        if None in codes and add:
            codes = wordlist.add(words)  # all of them: one that was known may be blanked meanwhile
        elif None in codes:
            self.refresh_blanked()
            codes = wordlist.look_up_any(plain)
        if None in codes:
            unknown = plain[codes.index(None)]
            raise PointerError(
                f"the store does not know the value {unknown!r} of trait {trait.name!r}: it is from another store, "
                "or newer than what can be read"
            )
        return np.array(codes, np.int32)


def _distinct(values: pa.Array, trait: Trait) -> pa.DictionaryArray:
    """Values as a dictionary without repeats, of the type of the trait's values, or its items."""
    if not pa.types.is_dictionary(values.type):
        return pc.dictionary_encode(values.cast(trait.item_type))
    # only the values in use, each once: a dictionary may hold more, and repeats
    plain = pa.DictionaryArray.from_arrays(values.indices, values.dictionary.cast(trait.item_type))
    return pc.dictionary_encode(plain.dictionary_decode())


def _few(codes: Mapping[int, NDArray[np.int32]]) -> Iterator[dict[int, NDArray[np.int32]]]:
    """Codes by trait id, a bounded number at a time."""
    for trait_id, all_of_it in codes.items():
        for start in range(0, len(all_of_it), CODES_AT_ONCE):
            yield {trait_id: all_of_it[start : start + CODES_AT_ONCE]}
