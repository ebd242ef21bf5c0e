"""What a server's own way does to the promises of a storage: conflicts, and answers that are lost."""

from collections.abc import Iterator

import pytest
from small_s3 import SmallS3, serving

from latewood.storage import Storage, open_storage, probe


@pytest.fixture
def server() -> Iterator[SmallS3]:
    with serving() as server:
        yield server


@pytest.fixture
def storage(server: SmallS3) -> Storage:
    return open_storage("s3://bucket")


def test_the_probe_believes_what_is_there_when_an_answer_was_lost(server: SmallS3, storage: Storage) -> None:
    server.lost = [("PUT", 503)]
    probe(storage)
    assert not server.objects
