"""All coded traits of a store, each with its list of values."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from latewood.columns import Column, one_array
from latewood.errors import PointerError, SchemaError
from latewood.pointer import EPOCH_BYTES
from latewood.schema import Schema, Trait
from latewood.storage import Storage
from latewood.vocabulary.wordlist import Wordlist


class Vocabulary:
    """Values to codes and back, for every coded trait of a schema. Thread-safe.

    Args: epoch: the store's; chunks of another are damage. Zeros for a vocabulary that stands alone.
    """

    def __init__(
        self, storage: Storage, schema: Schema, read_only: bool = False, *, epoch: bytes = bytes(EPOCH_BYTES)
    ) -> None:
        self._traits = {trait.id: trait for trait in schema if trait.coded}
        self._lists = {trait.id: Wordlist(storage, trait, epoch) for trait in schema if trait.coded}
        self._read_only = read_only

    def encode(self, trait: Trait, values: pa.Array | pa.ChunkedArray) -> Column:
        """Codes of values, adding those that are new (durably, before this returns). Nulls: code 0 and the mask.

        Args:
            values: of the trait's value type, or a dictionary of it.
        Raises: PointerError: a new value, and the vocabulary is read-only. SchemaError: text that is not UTF-8.
        """
        return self._column(trait, values, add=not self._read_only)

    def codes(self, trait: Trait, values: pa.Array | pa.ChunkedArray) -> Column:
        """Codes of values that the store must know. Raises: PointerError: one that it does not know, by name."""
        return self._column(trait, values, add=False)

    def values(self, trait_id: int, at_least: int = 0) -> pa.Array:
        """The values by code, at least `at_least` of them: what is known here, or the storage if that is less.

        A null has code 0 even where there is no value yet, so mask before taking.
        Raises: CorruptionError: the store has fewer.
        """
        return self._lists[trait_id].values(at_least)

    def refresh(self, trait_id: int) -> None:
        """Read what others have added, so that `values` has every code of the generations published by now."""
        self._lists[trait_id].refresh()

    def _column(self, trait: Trait, values: pa.Array | pa.ChunkedArray, add: bool) -> Column:
        encoded = _distinct(one_array(values), trait)
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
        codes = wordlist.lookup(plain)
        if None in codes:
            if add:
                wordlist.add(words.filter(pa.array([code is None for code in codes], pa.bool_())))
            else:
                wordlist.refresh()
            codes = wordlist.lookup(plain)
        if None in codes:
            unknown = plain[codes.index(None)]
            raise PointerError(
                f"the store does not know the value {unknown!r} of trait {trait.name!r}: it is from another store, "
                "or newer than what can be read"
            )
        return np.array(codes, np.int32)


def _distinct(values: pa.Array, trait: Trait) -> pa.DictionaryArray:
    """Values as a dictionary without repeats, of the trait's value type."""
    if not pa.types.is_dictionary(values.type):
        return pc.dictionary_encode(values.cast(trait.value_type))
    # only the values in use, each once: a dictionary may hold more, and repeats
    plain = pa.DictionaryArray.from_arrays(values.indices, values.dictionary.cast(trait.value_type))
    return pc.dictionary_encode(plain.dictionary_decode())
