"""What a server's own way does to the promises of a storage: conflicts, and answers that are lost."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from latewood.storage import Storage, open_storage, probe, remote
from small_s3 import SmallS3, serving


@pytest.fixture
def server() -> Iterator[SmallS3]:
    with serving() as server:
        yield server


@pytest.fixture
def storage(server: SmallS3) -> Storage:
    return open_storage("s3://bucket")


def test_who_meets_another_request_at_a_key_does_not_lose_to_nobody(server: SmallS3, storage: Storage) -> None:
    server.refused = [("PUT", 409), ("PUT", 409)]  # the other one was a delete, or came to nothing
    assert storage.create("a/b", b"mine")
    assert not storage.create("a/b", b"other")
    assert storage.read("a/b") == b"mine"


def test_a_conflict_without_end_is_an_os_error(
    server: SmallS3, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_WAITS_S", [0.0] * 3)
    server.refused = [("PUT", 409)] * 4
    with pytest.raises(OSError, match="a/b"):
        storage.create("a/b", b"mine")


def test_the_probe_believes_what_is_there_when_an_answer_was_lost(server: SmallS3, storage: Storage) -> None:
    server.lost = [("PUT", 503)]
    probe(storage)
    assert not server.objects


def test_a_large_object_whose_last_answer_was_lost_is_not_called_missing(server: SmallS3, storage: Storage) -> None:
    server.lost = [("COMPLETE", 503)]
    with pytest.raises(OSError, match="a/b") as raised, storage.writer("a/b") as writer:
        writer.write(bytes(9 << 20))
    assert not isinstance(raised.value, FileNotFoundError)


def test_a_large_object_arrives(server: SmallS3, storage: Storage) -> None:
    data = os.urandom(20 << 20)
    with storage.writer("a/b") as writer:
        writer.write(data)
    assert storage.read("a/b") == data


FORKED = """
import os
from latewood.storage import open_storage

storage = open_storage("s3://bucket")
storage.write("a", b"1")
child = os.fork()
if child == 0:
    for call in (lambda: storage.read("a"), lambda: open_storage("s3://bucket").list()):
        try:
            call()
        except OSError as error:
            if "fork" in str(error):
                continue
        os._exit(1)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


def test_a_forked_process_is_told_so_and_does_not_wait_for_ever(server: SmallS3) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=60)
