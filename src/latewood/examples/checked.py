"""A Parquet file that looks at the checksum of a column chunk before it decodes it, once, where there is one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from latewood.errors import CorruptionError
from latewood.examples.footer import check_footer, chunk_ranges


class CheckedParquet(pq.ParquetFile):
    """As its parent, for the ways to read that are used here. Raises: CorruptionError: damage, by its column and row group.

    Args: name: of the file, for messages.
    """

    def __init__(self, file: pa.NativeFile, name: str) -> None:
        self._file, self._name = file, name
        self._hashes: NDArray[np.uint64] | None = check_footer(file, name)
        super().__init__(file, page_checksum_verification=True)
        schema = self.metadata.schema
        self._paths = [schema.column(number).path for number in range(len(schema))]
        self._ranges = list(chunk_ranges(self.metadata))
        self._checked = np.zeros(len(self._ranges), np.bool_)
        self._newest: tuple[Sequence[str] | None, list[int]] = None, list(range(len(self._paths)))
        if self._hashes is not None and len(self._hashes) != len(self._ranges):
            raise CorruptionError(f"{name}: the checksums are of other column chunks than the footer's")

    def read_row_group(self, i: int, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        self._check(range(i, i + 1), columns)
        return super().read_row_group(i, columns=columns, **options)

    def read(self, columns: Sequence[str] | None = None, **options: Any) -> pa.Table:
        self._check(range(self.metadata.num_row_groups), columns)
        return super().read(columns=columns, **options)

    def _check(self, groups: range, columns: Sequence[str] | None) -> None:
        if self._hashes is None:
            return
        for number in self._leaves(columns):
            for group in groups:
                self._check_chunk(group * len(self._paths) + number, group, number)

    def _leaves(self, columns: Sequence[str] | None) -> list[int]:
        """The numbers of the leaves that are read of some columns: mostly of the same as before."""
        if (None if columns is None else tuple(columns)) != self._newest[0]:
            names = () if columns is None else columns
            within = tuple(f"{name}." for name in names)
            numbers = [
                number
                for number, path in enumerate(self._paths)
                if columns is None or path in names or path.startswith(within)
            ]
            self._newest = None if columns is None else tuple(columns), numbers
            return numbers
        return self._newest[1]

    def _check_chunk(self, chunk: int, group: int, number: int) -> None:
        if self._hashes is None or self._checked[chunk]:
            return
        start, stop = self._ranges[chunk]
        if xxhash.xxh3_64_intdigest(self._file.read_at(stop - start, start)) != self._hashes[chunk]:
            raise CorruptionError(
                f"{self._name}: the bytes of {self._paths[number]!r} in row group {group} are not those written"
            )
        self._checked[chunk] = True
