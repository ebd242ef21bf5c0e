"""From an `event_id` column to what the tier remembers: 128 bits per id, and a hash of what each event says."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numba import boolean, types, uint64
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, lists_from_arrow, plain_array, require_valid
from latewood.errors import SchemaError
from latewood.events import Events
from latewood.kernels import kernel, typed_kernel
from latewood.lists import is_list, positions
from latewood.mutable.id_hash import hash_pieces
from latewood.mutable.supersedes import Supersedes
from latewood.schema import is_text
from latewood.users import splitmix

_PHI = np.uint64(0x9E3779B97F4A7C15)
_IN_U64S = types.Array(uint64, 1, "C", readonly=True)
_IN_FLAGS = types.Array(boolean, 1, "C", readonly=True)


def hash_ids(event_ids: pa.Array | pa.ChunkedArray, name: str = "event_id") -> NDArray[np.uint64]:
    """The hashes of event ids: xxh3_128 of their canonical bytes, (0, 0) where null.

    An integer's canonical bytes are the 16 of its value as a little-endian int128, so that its width does not matter;
    a string's are a tag byte and its UTF-8, so that "1" is not 1.

    Shapes: (n,) → (n, 2): high half, low half.
    Raises: SchemaError: neither integers, strings nor bytes, or memory that is not as the type says; it says `name`.
    """
    require_valid(event_ids, name)
    array = plain_array(event_ids)
    if pa.types.is_null(array.type):
        return np.zeros((len(array), 2), np.uint64)
    pieces = _canonical(array, name)
    try:
        ids = hash_pieces(*pieces)
    except ValueError as error:
        raise SchemaError(f"column {name!r} is not as Arrow has it: {error}") from None
    if array.null_count:
        ids[pc.is_null(array).to_numpy(zero_copy_only=False)] = 0
    return ids


def _canonical(array: pa.Array, name: str) -> tuple[bytes, NDArray[np.int64], NDArray[np.uint8]]:
    """The tag, and the bytes of each id behind it: see `hash_pieces`."""
    if pa.types.is_integer(array.type):
        filled = array.fill_null(0) if array.null_count else array
        numbers = filled.to_numpy()
        words = np.empty((len(numbers), 2), "<u8")
        words[:, 0] = numbers.astype(np.int64 if pa.types.is_signed_integer(array.type) else np.uint64).view(np.uint64)
        words[:, 1] = np.where(numbers < 0, np.uint64(2**64 - 1), np.uint64(0))
        return b"", np.arange(0, words.nbytes + 1, 16), words.reshape(-1).view(np.uint8)
    text = is_text(array.type)
    binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    if not (text or binary or pa.types.is_fixed_size_binary(array.type)):
        raise SchemaError(f"column {name!r} is {array.type}; an id is an integer, a string or bytes")
    tag = b"s" if text else b"b"
    if not len(array):
        return tag, np.zeros(1, np.int64), np.zeros(0, np.uint8)
    plain = array.cast(pa.large_binary())
    _, offsets, data = plain.buffers()
    pieces = np.frombuffer(offsets, np.int64, len(plain) + 1, plain.offset * 8)
    return tag, pieces, np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)


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
        mask = np.zeros(0, np.bool_) if column.mask is None else np.ascontiguousarray(column.mask)
        _add_said(_bits(column.values), mask, np.uint64((trait * 0xD6E8FEB86659FD93 + 1) % 2**64), total)
    if supersedes is not None:
        total = total + np.where(supersedes.chosen, _superseded(supersedes), np.uint64(0))
    return splitmix(total)


_splitmix = kernel(splitmix)


@typed_kernel(types.void(_IN_U64S, _IN_FLAGS, uint64, types.Array(uint64, 1, "C")))
def _add_said(values, mask, seed, total):  # type: ignore[no-untyped-def]
    """Add to each event's hash that of what one trait says, where it is not null. An empty mask is none."""
    for i in range(len(values)):
        if len(mask) == 0 or not mask[i]:
            total[i] += _splitmix(_splitmix(values[i] + seed) ^ seed)


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
