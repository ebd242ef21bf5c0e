"""Small JSON documents that know whether they are whole: `store.json`, manifests, pins and records.

A document is one JSON object with its `kind` and `format` first and the xxh3 of everything before it last:

    {"kind": "manifest", "format": 1, ..., "xxh3": "0123456789abcdef"}

so that people and tools can read it and no changed byte goes unseen. That frame is the same for all formats to come: a
document from the future is told apart from a damaged one.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import xxhash

from latewood.errors import CorruptionError, SchemaError

_TAIL = ', "xxh3": "{:016x}"}}\n'
_TAIL_BYTES = len(_TAIL.format(0))


def encode_document(kind: str, format_version: int, body: Mapping[str, Any]) -> bytes:
    """A JSON-able body as a document."""
    text = json.dumps({"kind": kind, "format": format_version, **body}, ensure_ascii=False, allow_nan=False)
    head = text[:-1].encode()
    return head + _TAIL.format(xxhash.xxh3_64_intdigest(head)).encode()


def whole(value: Any, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """A number that a document says, which may be anything. Raises: ValueError: not a whole one, or out of bounds."""
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{value!r} is not a whole number from {least} to {most}")
    return value


def decode_document(data: bytes, key: str, kind: str, format_version: int) -> dict[str, Any]:
    """The inverse of `encode_document`: the body, with `kind` and `format`.

    Args:
        key: the object's key, for messages.
        format_version: the newest format that the caller can read.
    Raises: CorruptionError: damaged, or of another kind. SchemaError: of a newer format.
    """
    head, tail = data[:-_TAIL_BYTES], data[-_TAIL_BYTES:]
    if tail != _TAIL.format(xxhash.xxh3_64_intdigest(head)).encode():
        raise CorruptionError(f"{key}: {len(data)} bytes that do not match their checksum")
    try:
        document = json.loads(head + b"}")
    except (ValueError, RecursionError) as error:  # the latter: brackets in brackets without end
        raise CorruptionError(f"{key}: not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("kind") != kind:
        raise CorruptionError(f"{key}: not a {kind}")
    version = document.get("format")
    if not isinstance(version, int) or version < 1:
        raise CorruptionError(f"{key}: no format version")
    if version > format_version:
        raise SchemaError(f"{key}: {kind} format {version}; this version of latewood reads up to {format_version}")
    return document


@contextmanager
def reading_document(key: str, what: str) -> Iterator[None]:
    """While a decoded document is looked at, which may say anything: whatever breaks is said of its key.

    Args: what: it is meant to be, for the message: "a manifest".
    Raises: CorruptionError: it is none. SchemaError: whole, but with a type that this version does not know.
    """
    try:
        yield
    except SchemaError as error:
        raise SchemaError(f"{key}: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CorruptionError(f"{key}: not {what}: {error!r}") from error
