"""Between events and the checksummed bytes of one batch in the log.

A batch is a header, a table of its traits, and the columns back to back, each padded to 8 bytes, all little-endian; the
last 8 bytes are the xxh3_64 of the rest, seeded with the batch's number, so that a batch that turns up in another's
place is found out as well as a flipped bit. A batch with corrections or deletions is of version 2: behind the columns come
the count of what it supersedes, the bytes of text of their user ids, and those columns. A batch with lists is of version 3,
and has all that too, if of nothing: a list trait has its lengths, a mask if its entry says so, and its items. Any other is
of version 1.
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
from latewood.events import Events, Suppressions, no_suppressions
from latewood.users import UserKeys

VERSION = 3
_PLAIN, _CORRECTED, _WITH_LISTS = 1, 2, VERSION
_HEADER = struct.Struct("<4sHBBQII")  # magic, version, text users, ids, events, traits, bytes of text
_TRAIT = struct.Struct("<i2sBB")  # id, dtype, whether a mask follows, whether lists
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


def encode_batch(batch: EventBatch, number: int) -> bytes:
    """The bytes of batch `number`."""
    events, versions = batch.events, batch.versions
    lists = any(isinstance(column, Lists) for column in events.traits.values())
    if lists and versions is None:
        versions = _no_versions(events.user_ids.type)
    version = _WITH_LISTS if lists else _PLAIN if versions is None else _CORRECTED
    text = pa.types.is_string(events.user_ids.type)
    offsets, data = text_parts(events.user_ids) if text else (None, b"")
    header = _HEADER.pack(_MAGIC, version, text, batch.ids is not None, len(events), len(events.traits), len(data))
    table = [
        _TRAIT.pack(trait, column.dtype.str[1:].encode(), column.mask is not None, isinstance(column, Lists))
        for trait, column in events.traits.items()
    ]
    columns: list[Any] = [*events.keys, events.event_ts, events.ingest_ts, events.ordinal]
    columns += [offsets, data] if text else [events.user_ids.to_numpy()]
    if batch.ids is not None:
        columns += [batch.ids, batch.content]
    for of in events.traits.values():
        columns += _trait_columns(of)
    if versions is not None:
        columns += _version_columns(versions, text)
    body = b"".join([header, *table, *(part for column in columns for part in _padded(column))])
    return body + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body, seed=number))


def _trait_columns(column: TraitColumn) -> list[NDArray[Any]]:
    mask = [] if column.mask is None else [column.mask]
    if not isinstance(column, Lists):
        return [column.values, *mask]
    compact = column.compact()
    return [compact.lengths, *mask, compact.items]


def _no_versions(user_type: pa.DataType) -> Versions:
    nothing = np.zeros(0, np.uint64)
    return Versions(pa.array([], user_type), no_suppressions(), nothing.reshape(0, 2), nothing)


def _version_columns(versions: Versions, text: bool) -> list[Any]:
    of = versions.suppressions
    offsets, data = text_parts(versions.user_ids) if text else (None, b"")
    users = [offsets, data] if text else [versions.user_ids.to_numpy()]
    count = np.array([len(of), len(data)], "<i8")
    return [count, *of.keys, of.event_ts, of.ingest_ts, of.ordinal, of.at, *users, versions.ids, versions.content]


def _padded(column: Any) -> tuple[bytes, bytes]:
    data = column if isinstance(column, bytes) else column.tobytes()
    return data, bytes(-len(data) % 8)


def decode_batch(blob: Any, number: int, where: str) -> EventBatch:
    """The inverse; columns are views of `blob`.

    Raises: CorruptionError: the bytes are not those that were written; the message says `where`.
        SchemaError: written by a newer version.
    """
    view = memoryview(blob)
    body = view[:-8]
    if len(view) < _HEADER.size + 8 or _CHECKSUM.unpack(view[-8:])[0] != xxhash.xxh3_64_intdigest(body, seed=number):
        raise CorruptionError(f"{where}: the checksum of batch {number} differs ({len(view)} bytes)")
    magic, version, text, has_ids, n, traits, text_bytes = _HEADER.unpack_from(body)
    if magic != _MAGIC or version > VERSION:
        raise SchemaError(f"{where}: batch {number} has format version {version}; this code reads {VERSION}")
    table = [_TRAIT.unpack_from(body, _HEADER.size + i * _TRAIT.size) for i in range(traits)]
    reader = _Reader(body, _HEADER.size + traits * _TRAIT.size)
    keys = UserKeys(reader.take("<u8", n), reader.take("<u8", n))
    times = reader.take("<i8", n), reader.take("<i8", n), reader.take("<i4", n)
    user_ids = _take_users(reader, n, text_bytes if text else None)
    ids = reader.take("<u8", 2 * n).reshape(n, 2) if has_ids else None
    content = reader.take("<u8", n) if has_ids else None
    columns = {trait: _take_trait(reader, n, dtype.decode(), masked, lists) for trait, dtype, masked, lists in table}
    versions = None if version == _PLAIN else _take_versions(reader, bool(text))
    if version == _WITH_LISTS and not versions:
        versions = None
    return EventBatch(Events(user_ids, keys, *times, columns), ids, content, versions)


def _take_trait(reader: "_Reader", n: int, dtype: str, masked: bool, lists: bool) -> TraitColumn:
    values = reader.take("<i4" if lists else dtype, n)
    mask = reader.take("?", n) if masked else None
    if not lists:
        return Column(values, mask)
    return compact_lists(reader.take(dtype, int(values.sum(dtype=np.int64))), values, mask)


def _take_users(reader: "_Reader", n: int, text_bytes: int | None) -> pa.Array:
    if text_bytes is None:
        return pa.array(reader.take("<i8", n))
    return text_array(reader.take("<i4", n + 1), reader.take("<u1", text_bytes), pa.string())


def _take_versions(reader: "_Reader", text: bool) -> Versions:
    m, text_bytes = reader.take("<i8", 2).tolist()
    keys = UserKeys(reader.take("<u8", m), reader.take("<u8", m))
    place = reader.take("<i8", m), reader.take("<i8", m), reader.take("<i4", m)
    suppressions = Suppressions(keys, *place, reader.take("<i8", m))
    user_ids = _take_users(reader, m, text_bytes if text else None)
    return Versions(user_ids, suppressions, reader.take("<u8", 2 * m).reshape(m, 2), reader.take("<u8", m))


class _Reader:
    """Takes padded columns off the front of a buffer."""

    def __init__(self, body: memoryview, offset: int) -> None:
        self._body, self._offset = body, offset

    def take(self, dtype: str, count: int) -> NDArray[Any]:
        array = np.frombuffer(self._body, np.dtype(dtype), count, self._offset)
        self._offset += array.nbytes + -array.nbytes % 8
        return array


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
