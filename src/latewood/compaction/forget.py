"""Forget: what a scrub asks for beyond a generation without the forgotten (docs/protocol.md R16).

    publish ▸ evict the mutable tier ▸ blank the values nobody else had ▸ delete older files ▸ settle the records

Every step can be done again, and each compaction first does what an earlier one, that broke off after publishing, has
left undone. Only one of them cannot be found out later: which values nobody had any more when it was published. So that
is noted before, and the note is deleted when it is done.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress

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
    store.vocabulary.follow(generation.schema)
    store.vocabulary.erase_left()
    store.catalog.collect(keep, now=store.clock.now())
    store.scrubs.refresh()
    store.scrubs.settle(generation.scrubs)


def note_unused(storage: Storage, generation: Generation, candidates: Mapping[int, NDArray[np.int32]]) -> None:
    """Note which of some codes no row of the new generation uses. Its files are written, its manifest is not."""
    unused = {str(trait): codes.tolist() for trait, codes in _not_used(storage, generation, candidates).items()}
    if any(unused.values()):
        body = {"epoch": generation.epoch.hex(), "generation": generation.id, "codes": unused}
        key = keys.unused(generation.id, generation.uuid)
        storage.write(key, encode_document(KIND, FORMAT_VERSION, body))


def _not_used(
    storage: Storage, generation: Generation, candidates: Mapping[int, NDArray[np.int32]]
) -> dict[int, NDArray[np.int32]]:
    """Those of some codes, by trait id, that no row of a generation uses; all of them of a trait that it does not have."""
    reader, left = GenerationReader(storage, generation), dict(candidates)
    for trait in generation.schema:
        if len(left.get(trait.id, ())):
            left[trait.id] = _not_used_of(reader, trait, left[trait.id])
    return left


def _not_used_of(reader: GenerationReader, trait: Trait, candidates: NDArray[np.int32]) -> NDArray[np.int32]:
    left = np.zeros(int(candidates.max()) + 1, np.bool_)
    left[candidates] = True
    for codes in _codes(reader, trait):
        left[codes[codes < len(left)]] = False
        if not left.any():
            break
    return np.flatnonzero(left).astype(np.int32)


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
    notes, and looks there. What a pinned one uses that stays pinned is let be: the next scrub to be applied moves the pin,
    and notes it again.
    """

    def still() -> bool:
        return store.catalog.latest().id == newest.id

    for stored in store.storage.list(keys.UNUSED):
        attempt = keys.parse_unused(stored.key)
        if attempt is None or attempt[0] > newest.id:  # of an attempt under way
            continue
        generation, uuid = attempt
        noted = store.catalog.load(generation)
        if noted.uuid == uuid:
            # who compacts need not have known its traits, and erases their values
            store.vocabulary.follow(noted.schema)
            codes = _read_note(store.storage, stored.key, newest.epoch)
            if generation != newest.id:  # whoever published since should have seen to it; look again all the same
                try:
                    codes = _not_used(store.storage, newest, codes)
                except FileNotFoundError:  # collected
                    if still():
                        raise
                    return
            for pinned in _pinned(store, newest):
                with suppress(FileNotFoundError):  # collected before the pin was there: nobody reads it
                    codes = _not_used(store.storage, pinned, codes)
            store.vocabulary.blank(tier_of(store), codes, still)
            if not still():
                return
        store.storage.delete([stored.key])


def _pinned(store: CompactionStore, newest: Generation) -> list[Generation]:
    """The older generations that are read as of pins. Pins are only ever set on the newest."""
    ids = store.catalog.read_as_of_pins(store.clock.now()) - {newest.id}
    return [store.catalog.load(id_) for id_ in sorted(ids)]


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
