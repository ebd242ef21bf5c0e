"""Chunks: read back as written, and no changed byte goes unseen."""

import pyarrow as pa
import pytest

from latewood.errors import CorruptionError, SchemaError
from latewood.vocabulary import chunk
from latewood.vocabulary.chunk import Place, decode_chunk, encode_chunk

EPOCH = bytes(range(16))
PLACE = Place(EPOCH, 3, 7, 100)
WORDS = pa.array(["", "größe", "a\nb\0", "𝔘𝔫𝔦" * 10], pa.string())


@pytest.mark.parametrize(
    "values",
    [WORDS, WORDS[1:3], pa.array([-(2**63), 0, 2**63 - 1]), pa.array([], pa.string()), pa.array([255], pa.uint8())],
)
def test_a_chunk_is_read_as_it_was_written(values: pa.Array) -> None:
    read = decode_chunk(encode_chunk(values, PLACE), "a/b", PLACE, values.type)
    assert read.equals(values)
    read.validate(full=True)


def test_any_arrow_reader_opens_a_chunk() -> None:
    table = pa.ipc.open_stream(encode_chunk(WORDS, PLACE)).read_all()
    assert table.to_pydict() == {"value": WORDS.to_pylist()}


def test_every_changed_byte_is_found() -> None:
    data = encode_chunk(WORDS, PLACE)
    for i in range(len(data)):
        for flip in (1, 0x80):
            damaged = data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :]
            with pytest.raises(CorruptionError, match="a/b"):
                decode_chunk(damaged, "a/b", PLACE, pa.string())


def test_every_cut_is_found() -> None:
    data = encode_chunk(WORDS, PLACE)
    for size in range(len(data)):
        with pytest.raises(CorruptionError, match="a/b"):
            decode_chunk(data[:size], "a/b", PLACE, pa.string())
    with pytest.raises(CorruptionError):
        decode_chunk(data + b"\0", "a/b", PLACE, pa.string())


@pytest.mark.parametrize(
    "place", [Place(bytes(16), 3, 7, 100), Place(EPOCH, 4, 7, 100), Place(EPOCH, 3, 8, 100), Place(EPOCH, 3, 7, 99)]
)
def test_a_chunk_in_another_place_is_damage(place: Place) -> None:
    with pytest.raises(CorruptionError, match="a/b"):
        decode_chunk(encode_chunk(WORDS, PLACE), "a/b", place, pa.string())


def test_a_chunk_of_another_type_is_damage() -> None:
    with pytest.raises(CorruptionError, match=r"a/b.*string"):
        decode_chunk(encode_chunk(WORDS, PLACE), "a/b", PLACE, pa.int64())


def test_a_chunk_may_hold_blanked_values() -> None:
    assert decode_chunk(encode_chunk(pa.array(["a", None]), PLACE), "a/b", PLACE, pa.string()).to_pylist() == [
        "a",
        None,
    ]


def test_a_chunk_from_the_future_is_a_schema_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as future:
        future.setattr(chunk, "FORMAT_VERSION", 2)
        data = encode_chunk(WORDS, PLACE)
    with pytest.raises(SchemaError, match="a/b: vocabulary format 2"):
        decode_chunk(data, "a/b", PLACE, pa.string())
