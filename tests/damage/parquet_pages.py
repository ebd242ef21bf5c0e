"""Where the headers of a Parquet file's pages lie: a small reader of Thrift's compact protocol, enough to skip a header.

A page is a header and bytes that the header's checksum covers; nothing covers the header.
"""

import pyarrow as pa
import pyarrow.parquet as pq

STOP, TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(13)
COMPRESSED_SIZE = 3  # the field of a page header


def page_headers(data: bytes) -> list[range]:
    """The bytes of every page header of a file."""
    metadata = pq.read_metadata(pa.BufferReader(data))
    found = []
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            column = metadata.row_group(group).column(number)
            at = column.dictionary_page_offset or column.data_page_offset
            stop = at + column.total_compressed_size
            while at < stop:
                reader = _Header(data, at)
                found.append(range(at, reader.at))
                at = reader.at + reader.fields[COMPRESSED_SIZE]
    return found


class _Header:
    """One struct from `at` on; its integers by field number, and where it ends."""

    def __init__(self, data: bytes, at: int) -> None:
        self.fields: dict[int, int]
        self._data, self.at, self.fields = data, at, {}
        self._struct(self.fields)

    def _struct(self, fields: dict[int, int]) -> None:
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            if (value := self._value(head & 15)) is not None:
                fields[number] = value

    def _value(self, kind: int) -> int | None:
        if kind in (I16, I32, I64):
            return self._integer()
        if kind == BINARY:
            size = self._unsigned()
            self.at += size
        elif kind == BYTE:
            self.at += 1
        elif kind == DOUBLE:
            self.at += 8
        elif kind == STRUCT:
            self._struct({})
        elif kind not in (TRUE, FALSE):
            raise ValueError(f"a page header with a field of kind {kind}")
        return None

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _unsigned(self) -> int:
        value, shift = 0, 0
        while (byte := self._byte()) & 0x80:
            value, shift = value | (byte & 0x7F) << shift, shift + 7
        return value | byte << shift

    def _integer(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
