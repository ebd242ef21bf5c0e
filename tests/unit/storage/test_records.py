"""Numbered documents: added once, in order, each for its own store and number."""

import pytest

from latewood.errors import CorruptionError, SchemaError
from latewood.storage import Storage, keys, open_storage
from latewood.storage.documents import encode_document
from latewood.storage.records import Records

EPOCH = bytes(range(16))


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> Storage:
    return open_storage(f"memory://{request.node.name}")


def records(storage: Storage, epoch: bytes = EPOCH) -> Records:
    return Records(storage, epoch, "scrub", 1, keys.scrub)


def test_a_record_is_added_once(storage: Storage) -> None:
    assert records(storage).read_if_any(0, dict) is None
    assert records(storage).create(0, {"a": 1})
    assert not records(storage).create(0, {"a": 1})
    assert records(storage).ensure(0, {"a": 1})
    assert not records(storage).ensure(0, {"a": 2})
    records(storage).replace(0, {"a": 3})
    assert records(storage).read_if_any(0, lambda document: document["a"]) == 3


def test_a_record_from_elsewhere_is_damage(storage: Storage) -> None:
    records(storage).create(0, {"a": 1})
    with pytest.raises(CorruptionError, match=r"scrubs/00000000.json: is number 0 of epoch 000102"):
        records(storage, bytes(16)).read_if_any(0, dict)
    storage.write(keys.scrub(1), storage.read(keys.scrub(0)))
    with pytest.raises(CorruptionError, match=r"scrubs/00000001.json: is number 0"):
        records(storage).read_if_any(1, dict)


def test_what_cannot_be_read_is_said_of_its_key(storage: Storage) -> None:
    records(storage).create(0, {"a": 1})
    with pytest.raises(CorruptionError, match=r"00000000.json: not a scrub record: KeyError\('b'\)"):
        records(storage).read_if_any(0, lambda document: document["b"])
    storage.write(keys.scrub(1), encode_document("scrub", 2, {"a": 1}))
    with pytest.raises(SchemaError, match=r"00000001.json: scrub format 2"):
        records(storage).read_if_any(1, dict)
