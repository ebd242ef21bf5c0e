"""From locations to storages, and the probe."""

from pathlib import Path

import pytest

from latewood.errors import StoreNotFoundError
from latewood.storage import open_storage, probe
from latewood.storage.local import LocalStorage
from latewood.storage.remote import ObstoreStorage


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_local_store_is_opened_by_path_or_uri(tmp_path: Path, form: str) -> None:
    storage = open_storage(form.format(tmp_path / "my store"))
    assert isinstance(storage, LocalStorage)
    assert storage.root == tmp_path / "my store"
    assert open_storage(tmp_path).root == tmp_path


def test_a_file_uri_is_unquoted() -> None:
    assert open_storage("file:///a%20b/c").root == Path("/a b/c")


def test_memory_is_shared_by_name() -> None:
    open_storage("memory://test-open/x").write("a", b"1")
    assert open_storage("memory://test-open/x").read("a") == b"1"
    assert not open_storage("memory://test-open/y").list()


def test_object_stores_are_left_to_obstore() -> None:
    storage = open_storage("s3://bucket/some/prefix")
    assert isinstance(storage, ObstoreStorage)
    assert storage.store.prefix == "some/prefix"


@pytest.mark.parametrize("uri", ["what://is/this", "file://elsewhere/path", "s3://"])
def test_what_nobody_knows_is_no_store(uri: str) -> None:
    with pytest.raises(StoreNotFoundError, match=uri):
        open_storage(uri)


class Overwriting(LocalStorage):
    """A place that takes put-if-absent for put."""

    def create(self, key: str, data: bytes) -> bool:
        self.write(key, data)
        return True


class Lying(LocalStorage):
    """A place that gives the right answers and does the wrong thing."""

    def create(self, key: str, data: bytes) -> bool:
        absent = not (self.root / key).exists()
        self.write(key, data)
        return absent


@pytest.mark.parametrize("storage", [Overwriting, Lying])
def test_the_probe_finds_a_place_that_cannot_decide_races(tmp_path: Path, storage: type[LocalStorage]) -> None:
    with pytest.raises(OSError, match="put-if-absent"):
        probe(storage(tmp_path))
    assert not storage(tmp_path).list()
