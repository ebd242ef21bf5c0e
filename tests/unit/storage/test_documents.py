"""Documents: read back as written, and no changed byte goes unseen."""

import json

import pytest
import xxhash

from latewood.errors import CorruptionError, SchemaError
from latewood.storage.documents import decode_document, encode_document, whole

BODY = {"name": "grüße", "numbers": [1, -2, 2**63], "nested": {"none": None}}


def test_a_document_is_read_as_it_was_written() -> None:
    document = decode_document(encode_document("thing", 3, BODY), "a/b", "thing", 3)
    assert document == {"kind": "thing", "format": 3, **BODY}


def test_a_document_is_plain_json() -> None:
    text = encode_document("thing", 1, BODY).decode()
    assert json.loads(text) | {"xxh3": ""} == {"kind": "thing", "format": 1, **BODY, "xxh3": ""}
    assert encode_document("thing", 1, {}) != encode_document("thing", 2, {})


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 50_000, "null", "[1", '"x"'])
def test_what_is_sealed_but_no_document_is_refused(text: str) -> None:
    head = text.encode()
    sealed = head + f', "xxh3": "{xxhash.xxh3_64_intdigest(head):016x}"}}\n'.encode()
    with pytest.raises(CorruptionError, match="a/b"):
        decode_document(sealed, "a/b", "thing", 1)


def test_numbers_are_whole_and_within_bounds() -> None:
    assert whole(-(2**63)) == -(2**63)
    assert whole(7, 7, 7) == 7
    for value in (True, 1.0, "1", None, 2**63, [1]):
        with pytest.raises(ValueError, match="whole number"):
            whole(value)
    with pytest.raises(ValueError, match="from 0 to"):
        whole(-1, 0)


def test_every_changed_byte_is_found() -> None:
    data = encode_document("thing", 1, BODY)
    for i in range(len(data)):
        for flip in (1, 0x20, 0x80):
            damaged = data[:i] + bytes([data[i] ^ flip]) + data[i + 1 :]
            with pytest.raises(CorruptionError, match="a/b"):
                decode_document(damaged, "a/b", "thing", 1)


def test_every_cut_is_found() -> None:
    data = encode_document("thing", 1, BODY)
    for size in range(len(data)):
        with pytest.raises(CorruptionError, match="a/b"):
            decode_document(data[:size], "a/b", "thing", 1)
    with pytest.raises(CorruptionError):
        decode_document(data + b"\n", "a/b", "thing", 1)


def test_a_newer_format_is_not_damage() -> None:
    with pytest.raises(SchemaError, match=r"a/b: thing format 4.*up to 3"):
        decode_document(encode_document("thing", 4, BODY), "a/b", "thing", 3)


def test_another_kind_is_damage() -> None:
    with pytest.raises(CorruptionError, match="a/b: not a thing"):
        decode_document(encode_document("other", 1, BODY), "a/b", "thing", 1)
