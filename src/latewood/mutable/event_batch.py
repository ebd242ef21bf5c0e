"""Between events and the checksummed bytes of one batch in the log.

A batch is a header, a table of its traits, and the columns back to back, all little-endian and wide integers written
narrow (see `packing`); the last 8 bytes are the xxh3_64 of the rest, seeded with the batch's number, so that a batch that
turns up in another's place is found out as well as a flipped bit. A list trait has its lengths, a mask if its entry says
so, and its items. Behind the columns come the count of what corrections and deletions supersede, the bytes of text of their
user ids and, if there are any, those columns. Keys that follow from integer user ids are left out.

Before version 4 nothing was narrow or left out. Only batches with corrections or deletions, of version 2, or with lists, of
version 3, had what they supersede; any other was of version 1.
"""

import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from latewood.columns import Column, Lists, TraitColumn, compact_lists
from latewood.errors import CorruptionError, SchemaError
from latewood.events import Events, Suppressions
from latewood.lists import LIST_ITEMS_MAX
from latewood.mutable.packing import Packer, Unpacker
from latewood.users import UserKeys, user_keys

VERSION = 4
_PLAIN, _NARROW = 1, 4
_HEADER = struct.Struct("<4sHBBQII")  # magic, version, text users, ids, events, traits, bytes of text
_TRAIT = struct.Struct("<i2sBB")  # id, dtype, whether a mask follows, whether lists
_DTYPES = frozenset(["b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)), "f2", "f4", "f8"])
_CHECKSUM = struct.Struct("<Q")
_MAGIC = b"LWmt"


@dataclass(frozen=True, slots=True)
class Versions:
    """What m rows appended together supersede: corrections and deletions.

    Shapes: user_ids (m,), suppressions (m,); ids (m, 2) and content (m,) are of deletions that have an event id of their
    own, else zero: a correction's stand with its event.
    """

    user_ids: pa.Array
    suppressions: Suppressions
    ids: NDArray[np.uint64]
    content: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.suppressions)


class EventBatch(NamedTuple):
    """Events as appended together, with their event ids where they have some, and what they and deletions supersede."""

    events: Events
    ids: NDArray[np.uint64] | None  # (n, 2), (0, 0) for none
    content: NDArray[np.uint64] | None  # (n,)
    versions: Versions | None = None

    @property
    def latest_ingest(self) -> int:
        """The largest ingest time in it, deletions too."""
        given = (
            [self.events.ingest_ts] if self.versions is None else [self.events.ingest_ts, self.versions.suppressions.at]
        )
        return max(int(times.max()) for times in given if len(times))


def encode_batch(batch: EventBatch, number: int) -> memoryview:
    """The bytes of batch `number`."""
    events, versions = batch.events, batch.versions
    text = pa.types.is_string(events.user_ids.type)
    users = _user_columns(events.user_ids, events.keys)
    columns = [*users, events.event_ts, events.ingest_ts, events.ordinal]
    columns += [] if batch.ids is None or batch.content is None else [batch.ids, batch.content]
    for of in events.traits.values():
        columns += _trait_columns(of)
    columns += _version_columns(versions)
    header = _HEADER.pack(
        _MAGIC, VERSION, text, batch.ids is not None, len(events), len(events.traits), _text_bytes(users)
    )
    table = [
        _TRAIT.pack(trait, column.dtype.str[1:].encode(), column.mask is not None, isinstance(column, Lists))
        for trait, column in events.traits.items()
    ]
    head = b"".join([header, *table])
    packer = Packer(len(head) + sum(column.nbytes for column in columns) + _CHECKSUM.size, 1 + len(columns))
    packer.put(head)
    for column in columns:
        packer.put_narrow(column)
    packer.put(_CHECKSUM.pack(xxhash.xxh3_64_intdigest(packer.packed, seed=number)))
    return packer.packed


def _user_columns(user_ids: pa.Array, keys: UserKeys) -> list[NDArray[Any]]:
    if not pa.types.is_string(user_ids.type):
        return [user_ids.to_numpy()]
    offsets, data = text_parts(user_ids)
    return [offsets, np.frombuffer(data, np.uint8), *keys]


def _text_bytes(users: list[NDArray[Any]]) -> int:
    """Of the columns of users: integers have one."""
    return len(users[1]) if len(users) > 1 else 0


def _trait_columns(column: TraitColumn) -> list[NDArray[Any]]:
    mask = [] if column.mask is None else [column.mask]
    if not isinstance(column, Lists):
        return [column.values, *mask]
    compact = column.compact()
    return [compact.lengths, *mask, compact.items]


def _version_columns(versions: Versions | None) -> list[NDArray[Any]]:
    if versions is None or not len(versions):
        return [np.zeros(2, np.int64)]
    of = versions.suppressions
    users = _user_columns(versions.user_ids, of.keys)
    places: list[NDArray[Any]] = [of.event_ts, of.ingest_ts, of.ordinal, of.at]
    return [np.array([len(of), _text_bytes(users)], np.int64), *users, *places, versions.ids, versions.content]


def decode_batch(blob: Any, number: int, where: str) -> EventBatch:
    """The inverse; columns that were not written narrow are views of `blob`.

    Raises: CorruptionError: the bytes are not those that were written; the message says `where`.
        SchemaError: written by a newer version.
    """
    view = memoryview(blob)
    body = view[:-8]
    if len(view) < _HEADER.size + 8 or _CHECKSUM.unpack(view[-8:])[0] != xxhash.xxh3_64_intdigest(body, seed=number):
        raise CorruptionError(f"{where}: the checksum of batch {number} differs ({len(view)} bytes)")
    magic, version = _HEADER.unpack_from(body)[:2]
    if magic != _MAGIC or version > VERSION:
        raise SchemaError(f"{where}: batch {number} has format version {version}; this code reads {VERSION}")
    try:
        return _take_batch(body)
    except (struct.error, ValueError, TypeError, OverflowError) as error:  # of numpy, or of Arrow, too
        raise CorruptionError(f"{where}: batch {number} is not as a batch is written: {error}") from None


def _take_batch(body: memoryview) -> EventBatch:
    """Raises: ValueError, TypeError, OverflowError, struct.error: it cannot have been written so."""
    _, version, text, has_ids, n, traits, text_bytes = _HEADER.unpack_from(body)
    _check_count(n, body)  # no two events have one place, so that not all that tells them apart can take no room
    table = [_TRAIT.unpack_from(body, _HEADER.size + i * _TRAIT.size) for i in range(traits)]
    reader = Unpacker(body, _HEADER.size + traits * _TRAIT.size, narrow=version >= _NARROW)
    take = reader.take_narrow
    if version >= _NARROW:
        user_ids, keys = _take_users(reader, n, text_bytes if text else None)
        times = take("<i8", n), take("<i8", n), take("<i4", n)
    else:
        keys = UserKeys(take("<u8", n), take("<u8", n))
        times = take("<i8", n), take("<i8", n), take("<i4", n)
        user_ids = _take_user_ids(reader, n, text_bytes if text else None)
    ids = take("<u8", 2 * n).reshape(n, 2) if has_ids else None
    content = take("<u8", n) if has_ids else None
    columns = {trait: _take_trait(reader, n, dtype.decode(), masked, lists) for trait, dtype, masked, lists in table}
    versions = None
    if version >= _NARROW:
        versions = _take_versions(reader, bool(text), body)
    elif version != _PLAIN:
        versions = _take_wide_versions(reader, bool(text), body) or None
    reader.require_end()
    return EventBatch(Events(user_ids, keys, *times, columns), ids, content, versions)


def _check_count(count: int, body: memoryview) -> None:
    if not 0 <= count <= len(body):
        raise ValueError(f"{count} rows in {len(body)} bytes")


def _take_trait(reader: Unpacker, n: int, dtype: str, masked: bool, lists: bool) -> TraitColumn:
    if dtype not in _DTYPES:
        raise ValueError(f"values of type {dtype!r}")
    values = reader.take_narrow("<i4" if lists else dtype, n)
    mask = reader.take("?", n) if masked else None
    if not lists:
        return Column(values, mask)
    if n and not 0 <= values.min() <= values.max() <= LIST_ITEMS_MAX:
        raise ValueError("lists of impossible lengths")
    return compact_lists(reader.take_narrow(dtype, int(values.sum(dtype=np.int64))), values, mask)


def _take_users(reader: Unpacker, n: int, text_bytes: int | None) -> tuple[pa.Array, UserKeys]:
    user_ids = _take_user_ids(reader, n, text_bytes)
    if text_bytes is None:
        return user_ids, user_keys(user_ids)
    return user_ids, UserKeys(reader.take("<u8", n), reader.take("<u8", n))


def _take_user_ids(reader: Unpacker, n: int, text_bytes: int | None) -> pa.Array:
    if text_bytes is None:
        return pa.array(reader.take_narrow("<i8", n))
    user_ids = text_array(reader.take_narrow("<i4", n + 1), reader.take("<u1", text_bytes), pa.string())
    user_ids.validate(full=True)
    return user_ids


def _take_versions(reader: Unpacker, text: bool, body: memoryview) -> Versions | None:
    m, text_bytes = reader.take_narrow("<i8", 2).tolist()
    _check_count(m, body)
    if not m:
        return None
    user_ids, keys = _take_users(reader, m, text_bytes if text else None)
    take = reader.take_narrow
    suppressions = Suppressions(keys, take("<i8", m), take("<i8", m), take("<i4", m), take("<i8", m))
    return Versions(user_ids, suppressions, take("<u8", 2 * m).reshape(m, 2), take("<u8", m))


def _take_wide_versions(reader: Unpacker, text: bool, body: memoryview) -> Versions:
    """As before version 4."""
    m, text_bytes = reader.take("<i8", 2).tolist()
    _check_count(m, body)
    keys = UserKeys(reader.take("<u8", m), reader.take("<u8", m))
    place = reader.take("<i8", m), reader.take("<i8", m), reader.take("<i4", m)
    suppressions = Suppressions(keys, *place, reader.take("<i8", m))
    user_ids = _take_user_ids(reader, m, text_bytes if text else None)
    return Versions(user_ids, suppressions, reader.take("<u8", 2 * m).reshape(m, 2), reader.take("<u8", m))


def text_parts(array: pa.Array) -> tuple[NDArray[np.int32], bytes]:
    """The offsets, from 0, and the UTF-8 bytes of a string array."""
    if not len(array):
        return np.zeros(1, np.int32), b""
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, np.int32, len(array) + 1, array.offset * 4)
    if places[-1] == places[0]:
        return np.zeros(len(places), np.int32), b""
    return places - places[0], memoryview(data)[int(places[0]) : int(places[-1])].tobytes()


def text_array(offsets: NDArray[Any], data: NDArray[np.uint8], type_: pa.DataType) -> pa.Array:
    """A (large) string array over the buffers given, without a copy."""
    return pa.Array.from_buffers(type_, len(offsets) - 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
