"""Event ids and contents as hashes: what must agree agrees, what must differ differs."""

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from latewood.columns import Column, Lists
from latewood.errors import SchemaError
from latewood.mutable import hash_content, hash_ids
from latewood.testing.recent_events import make_events


def as_int(halves: np.ndarray) -> int:
    return int(halves[0]) << 64 | int(halves[1])


def test_ids_are_the_hash_of_canonical_bytes() -> None:
    assert as_int(hash_ids(pa.array(["ä"]))[0]) == xxhash.xxh3_128_intdigest("sä".encode())
    assert as_int(hash_ids(pa.array([-2]))[0]) == xxhash.xxh3_128_intdigest((-2).to_bytes(16, "little", signed=True))


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary(), pa.binary(9)])
def test_ids_of_any_length_and_of_a_slice_are_those_hashes(type_: pa.DataType) -> None:
    lengths = [9] * 40 if pa.types.is_fixed_size_binary(type_) else [*range(40), 127, 128, 129, 5_000, 0, 3]
    values = [bytes(33 + (7 * i + k) % 90 for k in range(length)) for i, length in enumerate(lengths)]
    values[4] = None
    array = pa.array(values, type_ if pa.types.is_fixed_size_binary(type_) else pa.binary()).cast(type_)
    tag = b"b" if "binary" in str(type_) else b"s"
    expected = [0 if value is None else xxhash.xxh3_128_intdigest(tag + value) for value in values]
    for start, stop in ((0, len(values)), (3, 30), (5, 5)):
        assert [as_int(halves) for halves in hash_ids(array.slice(start, stop - start))] == expected[start:stop]


def test_the_width_of_an_integer_does_not_matter_but_its_sign_does() -> None:
    same = [pa.array([7], type_) for type_ in (pa.int8(), pa.uint8(), pa.int64(), pa.uint64())]
    assert len({as_int(hash_ids(array)[0]) for array in same}) == 1
    big = hash_ids(pa.array([2**64 - 1], pa.uint64()))
    assert as_int(big[0]) != as_int(hash_ids(pa.array([-1]))[0])


def test_text_bytes_and_numbers_are_told_apart() -> None:
    arrays = [pa.array([1]), pa.array(["1"]), pa.array([b"1"])]
    assert len({as_int(hash_ids(array)[0]) for array in arrays}) == 3
    alike = [pa.array(["x"]), pa.array(["x"], pa.large_string()), pa.array(["x"]).dictionary_encode()]
    assert len({as_int(hash_ids(array)[0]) for array in alike}) == 1


@pytest.mark.parametrize("array", [pa.array([None, 5]), pa.array([None, "x"]), pa.nulls(2)])
def test_a_null_is_no_id(array: pa.Array) -> None:
    ids = hash_ids(array)
    assert ids.shape == (2, 2)
    assert not ids[0].any()
    assert ids[1].any() == (array[1].as_py() is not None)


def test_other_types_are_no_ids() -> None:
    with pytest.raises(SchemaError, match="event_id"):
        hash_ids(pa.array([1.5]))


@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()])
@pytest.mark.parametrize("offsets", [[0, 9, 4], [0, 1 << 30, 4], [0, -5, 4], [2, 1, 4]])
def test_ids_that_lie_outside_their_memory_are_refused(type_: pa.DataType, offsets: list[int]) -> None:
    """As of a damaged file."""
    places = np.array(offsets, np.int64 if "large" in str(type_) else np.int32)
    forged = pa.Array.from_buffers(type_, 2, [None, pa.py_buffer(places), pa.py_buffer(b"abcd")])
    with pytest.raises(SchemaError, match="column 'event_id' is not as Arrow has it"):
        hash_ids(forged)


def test_content_is_everything_but_the_ingest_time() -> None:
    first = make_events([1, 1, 1, 1, 2], [5, 5, 6, 5, 5], [1, 2, 1, 1, 1], [3, 3, 3, None, 3])
    hashes = hash_content(first).tolist()
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_a_null_is_as_if_the_trait_were_not_there() -> None:
    events = make_events([1], [5], item=[None])
    without = make_events([1], [5])
    del without.traits[0]
    assert hash_content(events).tolist() == hash_content(without).tolist()
    events.traits[3] = Column(np.zeros(1, np.float32))  # a zero is not a null
    assert hash_content(events).tolist() != hash_content(without).tolist()


def test_the_same_value_of_another_trait_is_another_content() -> None:
    one, other = make_events([1], [5], item=[9]), make_events([1], [5], item=[9])
    other.traits[1] = other.traits.pop(0)
    assert hash_content(one).tolist() != hash_content(other).tolist()


def test_the_content_of_a_list_is_its_items_in_their_order_wherever_they_lie() -> None:
    """None is like another, but those that say the same: the first three."""
    pool = np.array([1, 2, 1, 2, 0], np.int16)
    starts, lengths = [0, 2, 0, 1, 0, 1, 0, 4, 0, 0], [2, 2, 2, 2, 1, 1, 0, 1, 0, 4]
    nulls = [row == 8 for row in range(10)]
    events = make_events([1] * 10, [5] * 10, item=[None] * 10)
    events.traits[0] = Lists(pool, np.array(starts), np.array(lengths, np.int32), np.array(nulls))
    hashes = hash_content(events).tolist()
    assert hashes[0] == hashes[1] == hashes[2]
    assert len(set(hashes)) == 8
    events.traits[0] = events.traits[0].compact()
    assert hash_content(events).tolist() == hashes
    del events.traits[0]
    assert hash_content(events).tolist() == [hashes[8]] * 10  # as if the trait were not there


def test_words_in_lists_are_told_apart_whatever_their_codes() -> None:
    events = make_events([1] * 4, [5] * 4, item=[None] * 4)
    words = pa.array([["ab", "c"], ["a", "bc"], ["abc"], ["ab", "c"]])
    hashes = hash_content(events, None, {7: words}).tolist()
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3
    pairs = words.cast(pa.list_(pa.large_string())).take(pa.array([0, 1]))
    assert hash_content(events.slice(0, 2), None, {7: pairs.cast(words.type)}).tolist() == hashes[:2]
