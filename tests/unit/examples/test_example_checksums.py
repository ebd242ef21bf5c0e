"""The checksums of an example log's files: of the footer and of every column chunk, and files that do not have them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from latewood.errors import CorruptionError
from latewood.examples.checked import CheckedParquet
from latewood.examples.footer import FOOTER_WORD, WORD, chunk_ranges, with_checksums

TABLE = pa.table({"a": list(range(100)), "s": [{"x": i, "y": str(i)} for i in range(100)]})
TAIL = 8


@pytest.fixture
def plain() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(TABLE, sink, row_group_size=40)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def checked(plain: bytes) -> bytes:
    return with_checksums(pa.py_buffer(plain)).to_pybytes()


def opened(data: bytes) -> CheckedParquet:
    return CheckedParquet(pa.BufferReader(data), "log.parquet")


def test_it_stays_a_parquet_file(checked: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(checked)
    assert pq.read_table(tmp_path / "x.parquet").equals(TABLE)
    assert opened(checked).read().equals(TABLE)
    assert opened(checked).read_row_group(1).equals(TABLE.slice(40, 40))


def test_every_chunk_is_checked_before_it_is_read(checked: bytes) -> None:
    ranges = list(chunk_ranges(pq.read_metadata(pa.BufferReader(checked))))
    assert len(ranges) == 9
    names = ["a", "s.x", "s.y"]
    for chunk, (start, stop) in enumerate(ranges):
        group, column = divmod(chunk, 3)
        for place in (start, (start + stop) // 2, stop - 1):
            data = checked[:place] + bytes([checked[place] ^ 1]) + checked[place + 1 :]
            with pytest.raises(
                CorruptionError, match=f"log.parquet: the bytes of '{names[column]}' in row group {group}"
            ):
                opened(data).read_row_group(group)
            with pytest.raises(CorruptionError, match="row group"):
                opened(data).read(columns=[names[column].partition(".")[0]])
            assert opened(data).read_row_group(group, columns=["s" if column == 0 else "a"]).num_rows


def test_the_hashes_and_the_footer_are_covered(checked: bytes) -> None:
    word = checked.rindex(WORD)
    first = word - 8 * 10
    for place in [*range(first, word), *range(word + len(WORD), len(checked))]:
        data = checked[:place] + bytes([checked[place] ^ 0x40]) + checked[place + 1 :]
        with pytest.raises((CorruptionError, pa.ArrowInvalid, OSError)):
            opened(data).read()


def test_files_of_others_are_read_as_they_are(plain: bytes) -> None:
    assert opened(plain).read().equals(TABLE)


def test_files_with_a_checksum_of_the_footer_alone_are_still_read(plain: bytes) -> None:
    """As they were written before there were hashes of chunks."""
    start = len(plain) - TAIL - int.from_bytes(plain[-TAIL:-4], "little")
    old = plain[:start] + FOOTER_WORD + xxhash.xxh3_64_digest(plain[start:]) + plain[start:]
    assert opened(old).read().equals(TABLE)
    with pytest.raises(CorruptionError, match="footer's checksum"):
        opened(old[: start + 40] + b"\xff" + old[start + 41 :])


def test_a_forged_number_of_chunks_is_refused(plain: bytes) -> None:
    start = len(plain) - TAIL - int.from_bytes(plain[-TAIL:-4], "little")
    for count, hashes in ((1, bytes(8)), (2**60, b""), (9, b"")):
        head = hashes + count.to_bytes(8, "little")
        forged = plain[:start] + head + WORD + xxhash.xxh3_64_digest(head + plain[start:]) + plain[start:]
        with pytest.raises(CorruptionError, match=r"log\.parquet"):
            opened(forged)


def test_a_list_of_columns_that_is_used_again_is_read_again(checked: bytes) -> None:
    [(start, _)] = list(chunk_ranges(pq.read_metadata(pa.BufferReader(checked))))[1:2]  # of s.x in the first row group
    damaged = bytearray(checked)
    damaged[start + 3] ^= 1
    file, columns = opened(bytes(damaged)), ["a"]
    assert file.read_row_group(0, columns=columns).equals(TABLE.select(["a"]).slice(0, 40))
    columns.append("s.x")
    with pytest.raises(CorruptionError, match=r"'s\.x' in row group 0"):
        file.read_row_group(0, columns=columns)
