"""From an `event_id` column to what the tier remembers: 128 bits per id, and a hash of what each event says."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, lists_from_arrow, plain_array
from latewood.errors import SchemaError
from latewood.events import Events
from latewood.lists import is_list, positions
from latewood.mutable.supersedes import Supersedes
from latewood.schema import is_text
from latewood.users import splitmix

_PHI = np.uint64(0x9E3779B97F4A7C15)


def hash_ids(event_ids: pa.Array | pa.ChunkedArray, name: str = "event_id") -> NDArray[np.uint64]:
    """The hashes of event ids: xxh3_128 of their canonical bytes, (0, 0) where null.

    An integer's canonical bytes are the 16 of its value as a little-endian int128, so that its width does not matter;
    a string's are a tag byte and its UTF-8, so that "1" is not 1.

    Shapes: (n,) → (n, 2): high half, low half.
    Raises: SchemaError: neither integers, strings nor bytes; it says `name`.
    """
    array = plain_array(event_ids)
    if pa.types.is_null(array.type):
        return np.zeros((len(array), 2), np.uint64)
    values = _canonical(array, name)
    digests = b"".join(map(xxhash.xxh3_128_digest, values))
    ids = np.frombuffer(digests, ">u8").astype(np.uint64).reshape(len(array), 2)
    if array.null_count:
        ids[pc.is_null(array).to_numpy(zero_copy_only=False)] = 0
    return ids


def _canonical(array: pa.Array, name: str) -> list[bytes]:
    if pa.types.is_integer(array.type):
        filled = array.fill_null(0) if array.null_count else array
        numbers = filled.to_numpy()
        words = np.empty((len(numbers), 2), "<u8")
        words[:, 0] = numbers.astype(np.int64 if pa.types.is_signed_integer(array.type) else np.uint64).view(np.uint64)
        words[:, 1] = np.where(numbers < 0, np.uint64(2**64 - 1), np.uint64(0))
        raw = words.tobytes()
        return [raw[i : i + 16] for i in range(0, len(raw), 16)]
    text = is_text(array.type)
    binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    if not (text or binary or pa.types.is_fixed_size_binary(array.type)):
        raise SchemaError(f"column {name!r} is {array.type}; an id is an integer, a string or bytes")
    tag = b"s" if text else b"b"
    return [tag + (value or b"") for value in array.cast(pa.large_binary()).to_pylist()]


def hash_content(
    events: Events, supersedes: Supersedes | None = None, coded: Mapping[int, pa.Array] | None = None
) -> NDArray[np.uint64]:
    """What each event says, ingest time apart: user, event_ts, the traits that are not null, and what it supersedes.

    A trait added later is null in earlier events and changes nothing.

    Args: coded: what coded traits say, by id, instead of their codes: a value whose code was blanked gets another (R16).
    """
    h = splitmix(events.keys.hash ^ (events.keys.check * _PHI)) + events.event_ts.view(np.uint64)
    total = splitmix(h)
    said = dict(events.traits) | {trait: _hash_values(array) for trait, array in (coded or {}).items()}
    for trait, said_of in said.items():
        column = _in_one(said_of)
        seed = np.uint64((trait * 0xD6E8FEB86659FD93 + 1) % 2**64)
        hashes = splitmix(splitmix(_bits(column.values) + seed) ^ seed)
        total = total + (hashes if column.mask is None else np.where(column.mask, np.uint64(0), hashes))
    if supersedes is not None:
        total = total + np.where(supersedes.chosen, _superseded(supersedes), np.uint64(0))
    return splitmix(total)


def _in_one(column: TraitColumn) -> Column:
    """A number for each event: of a list, a hash of its items in their order."""
    if not isinstance(column, Lists):
        return column
    items, starts, lengths, mask = column.compact()
    places = positions(np.zeros(len(lengths), np.int64), lengths).view(np.uint64)
    hashes = splitmix(splitmix(_bits(items)) + places * _PHI)
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(hashes, dtype=np.uint64)])
    return Column(before[starts + lengths] - before[starts] + lengths.astype(np.uint64), mask)


def _hash_values(array: pa.Array) -> TraitColumn:
    """A hash of each text, or the integers as they are; of lists, of their items."""
    return lists_from_arrow(array, _hash_plain) if is_list(array.type) else _hash_plain(array)


def _hash_plain(array: pa.Array) -> Column:
    mask = pc.is_null(array).to_numpy(zero_copy_only=False) if array.null_count else None
    if not is_text(array.type):
        return Column(array.fill_null(0).to_numpy(), mask)
    texts = array.fill_null("").dictionary_encode()
    hashes = [xxhash.xxh3_64_intdigest(text.encode()) for text in texts.dictionary.to_pylist()]
    return Column(np.array(hashes, np.uint64)[texts.indices.to_numpy()], mask)


def _superseded(supersedes: Supersedes) -> NDArray[np.uint64]:
    """A hash of the event that each row supersedes, by the name it gives it."""
    h = splitmix(supersedes.deletions.astype(np.uint64) + _PHI)
    parts: tuple[NDArray[np.generic], ...]
    if supersedes.ids is not None:
        parts = supersedes.ids[:, 0], supersedes.ids[:, 1]
    else:
        assert supersedes.places is not None
        h = splitmix(h)
        parts = supersedes.places.event_ts, supersedes.places.ingest_ts, supersedes.places.ordinal
    for part in parts:
        h = splitmix((h ^ _bits(part)) * _PHI)
    return h


def _bits(values: NDArray[np.generic]) -> NDArray[np.uint64]:
    unsigned = np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
    return unsigned.astype(np.uint64)
