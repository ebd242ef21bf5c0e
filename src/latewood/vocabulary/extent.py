"""How far a store's vocabulary reaches, without reading it: a generation says what its codes rest on.

Chunks are only ever added. Should the newest be lost, as by copying a store in the wrong order, their codes would be
given out a second time, to other values; so a store with fewer chunks than its newest generation had is not used.
"""

from collections.abc import Iterable

from latewood.errors import CorruptionError
from latewood.schema import Schema
from latewood.storage import Storage, keys


def extent(storage: Storage, schema: Schema) -> tuple[tuple[int, int], ...]:
    """The number of chunks of each coded trait, by its id."""
    return tuple((trait.id, max(listed_chunks(storage, trait.id), default=-1) + 1) for trait in schema if trait.coded)


def check_extent(storage: Storage, expected: Iterable[tuple[int, int]]) -> None:
    """Raises: CorruptionError: there are fewer chunks than that."""
    for trait_id, count in expected:
        listed = listed_chunks(storage, trait_id)
        for seq in (seq for seq in range(count) if seq not in listed):  # one by one: a forged count may be huge
            key = keys.vocabulary_chunk(trait_id, seq)
            try:
                storage.read(key)  # a listing made while others write may lack what is there
            except FileNotFoundError:
                raise CorruptionError(
                    f"{key} is missing: {count} chunks were there when the newest generation was built"
                ) from None


def listed_chunks(storage: Storage, trait_id: int) -> set[int]:
    """The numbers of the chunks of a trait that a listing shows, which may not be all while others write."""
    found = (keys.parse_vocabulary_chunk(stored.key) for stored in storage.list(keys.vocabulary_folder(trait_id)))
    return {parsed[1] for parsed in found if parsed is not None}
