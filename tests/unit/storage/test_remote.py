"""The obstore backend, in memory and on obstore's own local store: the contract, and how its errors come out."""

import uuid
from pathlib import Path

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError
from obstore.store import LocalStore

from latewood.storage import Storage
from latewood.storage.remote import ObstoreStorage
from latewood.testing.storage_contract import StorageContract


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return ObstoreStorage.in_memory(uuid.uuid4().hex)


def test_a_store_that_stops_at_a_missing_key_still_deletes_the_rest(tmp_path: Path) -> None:
    storage = ObstoreStorage(LocalStore(tmp_path))  # such a store, as Google's and Azure's are
    for key in ("a", "b", "c"):
        storage.write(key, b"")
    storage.delete(["none", "a", "none/either", "c"])
    assert [item.key for item in storage.list()] == ["b"]


def test_a_name_is_one_store() -> None:
    name = uuid.uuid4().hex
    ObstoreStorage.in_memory(name).write("a", b"1")
    assert ObstoreStorage.in_memory(name).read("a") == b"1"
    with pytest.raises(FileNotFoundError):
        ObstoreStorage.in_memory(name + "x").read("a")


@pytest.mark.parametrize(("raised", "expected"), [(GenericError, OSError), (PermissionDeniedError, PermissionError)])
def test_obstores_errors_are_os_errors(
    monkeypatch: pytest.MonkeyPatch, raised: type[Exception], expected: type[OSError]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised("the line is down")

    storage = ObstoreStorage.in_memory("errors")
    for name in ("get", "get_ranges", "head", "put", "list", "delete", "open_writer"):
        monkeypatch.setattr(obstore, name, fail)

    def use_writer() -> None:
        with storage.writer("some/key") as writer:
            writer.write(b"")

    for call in (
        lambda: storage.read("some/key"),
        lambda: storage.read_ranges("some/key", [0], [1]),
        lambda: storage.map("some/key"),
        lambda: storage.write("some/key", b""),
        lambda: storage.create("some/key", b""),
        lambda: storage.list("some/key"),
        lambda: storage.delete(["some/key"]),
        use_writer,
    ):
        with pytest.raises(expected, match=r"some/key.*the line is down"):
            call()
