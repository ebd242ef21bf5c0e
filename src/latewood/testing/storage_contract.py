"""What every storage must do, as a test suite: subclass it, give it a `storage` fixture, and run it with pytest.

class TestMyStorage(StorageContract):
    @pytest.fixture
    def storage(self):
        return MyStorage(...)   # empty
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest

from latewood.errors import CorruptionError
from latewood.storage import Storage, StoredObject, probe

BAD_KEYS = ["", "/", "a/", "/a", "a//b", "..", "../a", "a/../b", "a/..", "./a", "a/.", ".a", "a/.b", "a\\..\\b", "a\0b"]


class InterruptedBlockError(Exception):
    """Something went wrong in the middle of a block."""


class StorageContract:
    """The contract of `latewood.storage.Storage`."""

    @pytest.fixture
    def storage(self) -> Storage:
        """An empty storage."""
        raise NotImplementedError

    def test_a_new_storage_is_empty(self, storage: Storage) -> None:
        assert list(storage.list()) == []
        assert list(storage.list("a")) == []

    @pytest.mark.parametrize("data", [b"", b"x", b"0123456789" * 100_000], ids=["empty", "byte", "megabyte"])
    def test_what_is_written_is_read(self, storage: Storage, data: bytes) -> None:
        storage.write("a/b", data)
        assert storage.read("a/b") == data
        assert storage.map("a/b").tobytes() == data
        assert list(storage.list()) == [StoredObject("a/b", len(data))]

    @pytest.mark.parametrize(
        "data",
        [
            bytearray(b"abcdefgh"),
            memoryview(b"abcdefgh"),
            pa.py_buffer(b"abcdefgh"),
            np.frombuffer(b"abcdefgh", np.int16),
        ],
        ids=["bytearray", "memoryview", "arrow", "numpy"],
    )
    def test_any_buffer_is_written(self, storage: Storage, data: bytes) -> None:
        storage.write("a", data)
        assert storage.create("b", data)
        with storage.writer("c") as writer:
            writer.write(data)
            writer.write(np.zeros((0, 3)))
            writer.write(data)
        assert [storage.read(key) for key in "abc"] == [b"abcdefgh", b"abcdefgh", b"abcdefghabcdefgh"]

    def test_write_replaces(self, storage: Storage) -> None:
        storage.write("a", b"long content")
        storage.write("a", b"short")
        assert storage.read("a") == b"short"

    def test_a_reader_sees_one_version_or_the_other(self, storage: Storage) -> None:
        versions = [bytes([i]) * 50_000 for i in range(4)]
        storage.write("a", versions[0])
        stop = threading.Event()

        def write() -> None:
            for i in range(2_000):  # a reader that has to wait for the processor must not wait for ever
                if stop.is_set():
                    break
                storage.write("a", versions[i % 4])

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            try:
                assert all(storage.read("a") in versions for _ in range(100))
            finally:
                stop.set()
            writing.result()

    def test_create_keeps_the_first(self, storage: Storage) -> None:
        assert storage.create("a/b", b"first")
        assert not storage.create("a/b", b"second")
        assert storage.read("a/b") == b"first"
        storage.delete(["a/b"])
        assert storage.create("a/b", b"third")

    def test_of_many_threads_one_creates(self, storage: Storage) -> None:
        with ThreadPoolExecutor(8) as pool:
            for round_ in range(10):
                barrier = threading.Barrier(8)

                def create(i: int, key: str = f"race/{round_}", barrier: threading.Barrier = barrier) -> bool:
                    barrier.wait()
                    return storage.create(key, b"%d" % i)

                won = list(pool.map(create, range(8)))
                assert sum(won) == 1
                assert storage.read(f"race/{round_}") == b"%d" % won.index(True)

    def test_the_probe_is_passed_and_leaves_nothing(self, storage: Storage) -> None:
        probe(storage)
        assert list(storage.list()) == []

    def test_a_writer_takes_pieces_of_any_size(self, storage: Storage) -> None:
        random = np.random.default_rng(0)
        pieces = [random.bytes(int(size)) for size in random.integers(0, 70_000, 60)] + [random.bytes(11 << 20), b"end"]
        with storage.writer("a/b/c") as writer:
            for piece in pieces:
                writer.write(piece)
        assert storage.read("a/b/c") == b"".join(pieces)

    def test_a_writer_may_reuse_its_buffer(self, storage: Storage) -> None:
        buffer = bytearray(3 << 20)
        with storage.writer("a") as writer:
            for i in range(5):
                buffer[:] = bytes([i]) * len(buffer)
                writer.write(buffer)
        assert storage.read("a") == b"".join(bytes([i]) * len(buffer) for i in range(5))

    def test_a_writer_without_pieces_makes_an_empty_object(self, storage: Storage) -> None:
        with storage.writer("a"):
            pass
        assert storage.read("a") == b""

    def test_an_object_appears_when_its_writer_ends(self, storage: Storage) -> None:
        with storage.writer("a/b") as writer:
            writer.write(b"x" * 20_000_000)
            assert list(storage.list()) == []
            with pytest.raises(FileNotFoundError):
                storage.read("a/b")
        assert list(storage.list()) == [StoredObject("a/b", 20_000_000)]

    @pytest.mark.parametrize("size", [1, 20_000_000])
    def test_a_writer_that_fails_leaves_nothing(self, storage: Storage, size: int) -> None:
        storage.write("kept", b"as it was")
        for key in ("a/b", "kept"):
            with pytest.raises(InterruptedBlockError):
                _write_and_fail(storage, key, size)
        assert list(storage.list()) == [StoredObject("kept", 9)]
        assert storage.read("kept") == b"as it was"

    def test_ranges_come_in_the_order_asked_for(self, storage: Storage) -> None:
        data = np.random.default_rng(1).bytes(3_000_000)
        storage.write("a", data)
        starts, lengths = [2_999_990, 0, 5, 5, 1_000_000, 3_000_000], [10, 1, 0, 7, 1_500_000, 0]
        parts = storage.read_ranges("a", starts, lengths)
        assert [bytes(part) for part in parts] == [data[s : s + n] for s, n in zip(starts, lengths, strict=True)]
        assert list(storage.read_ranges("a", [], [])) == []

    @pytest.mark.parametrize(("start", "length"), [(0, 11), (9, 2), (10, 1), (11, 1), (2**40, 5)])
    def test_a_range_past_the_end_is_damage(self, storage: Storage, start: int, length: int) -> None:
        storage.write("a/b", b"0123456789")
        with pytest.raises(CorruptionError, match="a/b"):
            storage.read_ranges("a/b", [0, start], [1, length])

    @pytest.mark.parametrize(("start", "length"), [(-1, 3), (2, -1)])
    def test_a_range_is_not_negative(self, storage: Storage, start: int, length: int) -> None:
        storage.write("a", b"0123456789")
        with pytest.raises(ValueError):
            storage.read_ranges("a", [start], [length])

    def test_a_mapping_is_read_only_and_outlives_its_object(self, storage: Storage) -> None:
        storage.write("a", b"first")
        mapped = storage.map("a")
        assert mapped.dtype == np.uint8
        assert not mapped.flags.writeable
        storage.write("a", b"other")
        assert mapped.tobytes() == b"first"
        storage.delete(["a"])
        assert mapped.tobytes() == b"first"

    @pytest.mark.parametrize("key", ["none", "a", "a/none", "a/b/c"])
    def test_a_missing_key_is_a_missing_file(self, storage: Storage, key: str) -> None:
        storage.write("a/b", b"")
        calls: list[Callable[[], object]] = [
            lambda: storage.read(key),
            lambda: storage.map(key),
            lambda: storage.read_ranges(key, [0], [1]),
        ]
        for call in calls:
            with pytest.raises(FileNotFoundError):
                call()

    def test_a_listing_is_sorted_and_recursive(self, storage: Storage) -> None:
        keys = ["b", "a/10", "a/2", "a/c/d/e", "ab/f", "a-b", "ü/é b"]
        for size, key in enumerate(keys):
            storage.write(key, b"." * size)
        objects = sorted(StoredObject(key, size) for size, key in enumerate(keys))
        assert list(storage.list()) == objects
        for prefix in ("a", "a/"):
            assert list(storage.list(prefix)) == [item for item in objects if item.key.startswith("a/")]
        assert list(storage.list("a/c")) == [StoredObject("a/c/d/e", 3)]
        assert list(storage.list("b")) == [], "an object is not a folder"
        assert list(storage.list("none")) == []

    def test_delete_removes_what_is_there(self, storage: Storage) -> None:
        for key in ("a/b", "a/c", "d"):
            storage.write(key, b"")
        storage.delete(iter(["a/none", "a/b", "none/none", "d", "d", "a/c/e"]))
        assert list(storage.list()) == [StoredObject("a/c", 0)]
        storage.delete([])
        storage.delete(["a/c"])
        storage.write("a/b/c", b"a folder where an object was")
        assert list(storage.list()) == [StoredObject("a/b/c", 28)]

    @pytest.mark.parametrize("key", BAD_KEYS)
    def test_no_key_leaves_the_root(self, storage: Storage, key: str) -> None:
        storage.write("a", b"")

        def use_writer() -> None:
            with storage.writer(key) as writer:
                writer.write(b"")

        calls: list[Callable[[], object]] = [
            lambda: storage.read(key),
            lambda: storage.map(key),
            lambda: storage.read_ranges(key, [0], [1]),
            lambda: storage.write(key, b""),
            lambda: storage.create(key, b""),
            use_writer,
            lambda: storage.delete(["a", key]),
        ]
        for call in calls:
            with pytest.raises(ValueError):
                call()
        assert list(storage.list()) == [StoredObject("a", 0)], "nothing was done"


def _write_and_fail(storage: Storage, key: str, size: int) -> None:
    with storage.writer(key) as writer:
        writer.write(b"x" * size)
        raise InterruptedBlockError
