"""A chunk: consecutive values of one trait's list, as the bytes of one object.

The bytes are an Arrow IPC stream with one column, `value`, which any Arrow reader can open, and behind it a seal of 64
bytes, little-endian: the store's epoch (16 bytes), trait id, sequence number, code of the first value and count of values
(uint64 each), the format version (uint32), the magic `LWV\\n`, and the xxh3_64 of everything before. The seal is the
same in all formats to come, so that a chunk from the future is told apart from a damaged one.
"""

import struct
from typing import NamedTuple

import pyarrow as pa
import xxhash

from latewood.errors import CorruptionError, SchemaError

FORMAT_VERSION = 1
_SEAL = struct.Struct("<16sQQQQI4s")
_CHECKSUM = struct.Struct("<Q")
_SEAL_BYTES = _SEAL.size + _CHECKSUM.size
_MAGIC = b"LWV\n"


class Place(NamedTuple):
    """Which part of which list of which store a chunk is."""

    epoch: bytes
    trait_id: int
    seq: int
    first_code: int


def encode_chunk(values: pa.Array, place: Place) -> bytes:
    """Values as a chunk; null where a value was blanked."""
    batch = pa.record_batch([values], names=["value"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as stream:
        stream.write_batch(batch)
    body = sink.getvalue().to_pybytes() + _SEAL.pack(*place, len(values), FORMAT_VERSION, _MAGIC)
    return body + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body))


def decode_chunk(data: bytes, key: str, place: Place, value_type: pa.DataType) -> pa.Array:
    """The inverse of `encode_chunk`: the values.

    Raises: CorruptionError: damaged, or not the chunk of that place. SchemaError: a newer format.
    """
    body = memoryview(data)[: -_CHECKSUM.size]
    if len(data) < _SEAL_BYTES or data[-_CHECKSUM.size :] != _CHECKSUM.pack(xxhash.xxh3_64_intdigest(body)):
        raise CorruptionError(f"{key}: {len(data)} bytes that do not match their checksum")
    *written, count, version, magic = _SEAL.unpack(body[-_SEAL.size :])
    if magic != _MAGIC:
        raise CorruptionError(f"{key}: not a vocabulary chunk")
    if version > FORMAT_VERSION:
        raise SchemaError(f"{key}: vocabulary format {version}; this version of latewood reads up to {FORMAT_VERSION}")
    if Place(*written) != place:
        raise CorruptionError(f"{key}: is {Place(*written)} and stands where {place} belongs")
    values = _read_stream(body[: -_SEAL.size], key)
    if values.type != value_type or len(values) != count:
        raise CorruptionError(f"{key}: {len(values)} values of {values.type}, not {count} of {value_type}")
    return values


def _read_stream(body: memoryview, key: str) -> pa.Array:
    try:
        with pa.ipc.open_stream(body) as stream:
            table = stream.read_all()
        table.validate(full=True)
        column = table.column("value")
        return column.chunk(0) if column.num_chunks == 1 else pa.array([], column.type)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise CorruptionError(f"{key}: not an Arrow stream of values: {error}") from None
