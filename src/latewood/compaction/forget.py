"""Forget: what a scrub asks for beyond a generation without the forgotten (docs/protocol.md R16).

    publish ▸ evict the mutable tier ▸ blank the values nobody else had ▸ delete older files ▸ settle the records

Every step can be done again, and each compaction first does what an earlier one, that broke off after publishing, has
left undone. Only one of them cannot be found out later: which values nobody else had, since the rows that used them are
gone. So that is noted before the generation is published, and the note is deleted when it is done.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from latewood.columns import portions
from latewood.compaction.store import CompactionStore, tier_of
from latewood.errors import CorruptionError
from latewood.immutable import Generation, GenerationReader
from latewood.immutable.resolve import Rows
from latewood.schema import Trait
from latewood.storage import Storage, keys
from latewood.storage.documents import decode_document, encode_document, reading_document

KIND = "unused"
FORMAT_VERSION = 1
_ROWS_AT_ONCE = 1 << 22
_LISTS_AT_ONCE = 1 << 18


def finish_forgetting(store: CompactionStore, generation: Generation, keep: int) -> None:
    """Do what the scrubs that the newest generation has applied still ask for. Costs a few listings if it is nothing."""
    if not generation.scrubs:
        return
    tier = tier_of(store)
    parent = store.catalog.load(generation.parent or 0)
    # this generation lacks what its parent's readers may still ask the tier for, and it has to go from there, too
    floor = generation.watermark if generation.scrubs > parent.scrubs else parent.watermark
    if tier.state().floor < floor:
        tier.evict(floor)
    _blank_unused(store, generation)
    store.catalog.collect(keep, now=store.clock.now())
    store.scrubs.refresh()
    store.scrubs.settle(generation.scrubs)


def note_unused(storage: Storage, generation: Generation, codes: Mapping[int, set[int]]) -> None:
    """Note which codes of forgotten rows no row of the new generation uses. Its files are written, its manifest is not."""
    reader = GenerationReader(storage, generation)
    unused = {}
    for trait in generation.schema:
        if candidates := codes.get(trait.id):
            unused[str(trait.id)] = _unused(reader, trait, candidates)
    if any(unused.values()):
        body = {"epoch": generation.epoch.hex(), "generation": generation.id, "codes": unused}
        key = keys.unused(generation.id, generation.uuid)
        storage.write(key, encode_document(KIND, FORMAT_VERSION, body))


def _unused(reader: GenerationReader, trait: Trait, candidates: set[int]) -> list[int]:
    left = np.array(sorted(candidates), np.int32)
    for codes in _codes(reader, trait):
        left = np.setdiff1d(left, codes, assume_unique=False)
        if not len(left):
            break
    unused: list[int] = left.tolist()
    return unused


def _codes(reader: GenerationReader, trait: Trait) -> Iterator[NDArray[np.int32]]:
    """All codes of a trait in a generation, without nulls, in portions."""
    for number in range(len(reader.generation.shards)):
        shard = reader.shard(number)
        if shard is None:
            continue
        counts = np.diff(shard.first_event)
        for first, last in portions(counts, _LISTS_AT_ONCE if trait.is_list else _ROWS_AT_ONCE):
            users, zeros = np.arange(first, last), np.zeros(last - first, np.int64)
            rows = Rows(zeros + number, users, zeros, counts[first:last])
            if (column := reader.read_trait(rows, trait)) is not None:
                yield column.known


def _blank_unused(store: CompactionStore, newest: Generation) -> None:
    """Blank what was noted, and delete the notes. Those of attempts that lost are nobody's.

    What was unused in the newest generation may be used in a newer one, published meanwhile: who published it sees to the
    notes, and looks there.
    """

    def still() -> bool:
        return store.catalog.latest().id == newest.id

    for stored in store.storage.list(keys.UNUSED):
        attempt = keys.parse_unused(stored.key)
        if attempt is None or attempt[0] > newest.id:  # of an attempt under way
            continue
        generation, uuid = attempt
        if store.catalog.load(generation).uuid == uuid:
            codes = _read_note(store.storage, stored.key, newest.epoch)
            if generation != newest.id:  # whoever published since should have seen to it; look again all the same
                try:
                    codes = _still_unused(store.storage, newest, codes)
                except FileNotFoundError:  # collected
                    if still():
                        raise
                    return
            store.vocabulary.blank(tier_of(store), codes, still)
            if not still():
                return
        store.storage.delete([stored.key])


def _still_unused(
    storage: Storage, newest: Generation, codes: dict[int, NDArray[np.int32]]
) -> dict[int, NDArray[np.int32]]:
    reader = GenerationReader(storage, newest)
    live = {trait.id: trait for trait in newest.schema}
    return {
        id_: np.array(_unused(reader, live[id_], set(some.tolist())), np.int32) if id_ in live else some
        for id_, some in codes.items()
    }


def _read_note(storage: Storage, key: str, epoch: bytes) -> dict[int, NDArray[np.int32]]:
    """The codes by trait id; none where another has blanked them and deleted the note just now."""
    try:
        data = storage.read(key)
    except FileNotFoundError:
        return {}
    document = decode_document(data, key, KIND, FORMAT_VERSION)
    with reading_document(key, "a list of codes"):
        if document["epoch"] != epoch.hex():
            raise CorruptionError(f"{key}: is of epoch {document['epoch']}")
        return {int(trait): np.array(codes, np.int32) for trait, codes in document["codes"].items() if codes}
