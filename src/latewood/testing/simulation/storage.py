"""A place for objects that any number of simulated processes share, each through a handle that can fail and die.

It is as strong as `latewood.storage.Storage` promises and no stronger: objects appear whole or not at all, listings are
paged (what changes meanwhile may show or not), deletes of several keys are several deletes, and until they return a power
cut can bring back what they removed.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latewood.storage import StoredObject, keys
from latewood.storage.buffers import as_bytes, check_range
from latewood.storage.keys import check_key, check_prefix
from latewood.testing.simulation.host import CrashedError, Host

Created = Callable[[Host, str, bytes], None]


class SimulatedDisk:
    """The objects, and who wants to know of new ones: `created(host, key, data)` is called as they become durable."""

    def __init__(self, created: Created = lambda host, key, data: None) -> None:
        self.objects: dict[str, bytes | bytearray] = {}
        self.created = created
        self.late: list[tuple[Host, str, bytearray]] = []  # puts that were given up, and may come through yet
        self._deleted: dict[str, bytes | bytearray] = {}  # by a call that has not returned, or never will

    def create(self, host: Host, key: str, stored: bytearray) -> bool:
        """Put an object, unless there is one. Returns: whether that put it."""
        if self.objects.setdefault(key, stored) is not stored:
            return False
        self.created(host, key, bytes(stored))
        return True

    def delete(self, key: str) -> None:
        if (data := self.objects.pop(key, None)) is not None:
            self._deleted[key] = data

    def sync_deletions(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._deleted.pop(key, None)

    def cut_power(self, brings_back: Callable[[], bool]) -> list[str]:
        """What was deleted, not durably, and not written anew may come back; which."""
        self.late.clear()
        back = [key for key in self._deleted if key not in self.objects and brings_back()]
        self.objects.update((key, self._deleted[key]) for key in back)
        self._deleted.clear()
        return back


class SimulatedStorage:
    """One process's handle. See `latewood.storage.Storage`."""

    def __init__(self, disk: SimulatedDisk, host: Host) -> None:
        self._disk, self._host = disk, host

    def __repr__(self) -> str:
        return f"<SimulatedStorage of {self._host.name}>"

    def read(self, key: str) -> bytes:
        self._host.begin(f"read {check_key(key)}")
        self._land()
        return bytes(self._get(key))

    def read_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> Sequence[bytes]:
        self._host.begin(f"read_ranges {check_key(key)}")
        data = self._get(key)
        for start, length in zip(starts, lengths, strict=True):
            check_range(key, start, length, len(data))
        return [bytes(data[start : start + length]) for start, length in zip(starts, lengths, strict=True)]

    def map(self, key: str) -> NDArray[np.uint8]:
        self._host.begin(f"map {check_key(key)}")
        return np.frombuffer(bytes(self._get(key)), np.uint8)

    def write(self, key: str, data: Any) -> None:
        self._host.begin(f"write {check_key(key)}")
        self._disk.objects[key] = bytes(as_bytes(data))
        self._host.end(f"write {key}")

    def create(self, key: str, data: Any) -> bool:
        host = self._host
        host.begin(f"create {check_key(key)}")
        self._land()
        stored = bytearray(as_bytes(data))  # an object of its own, to know it again
        if host.happens(host.faults.late):
            self._disk.late.append((host, key, stored))
            host.fail(f"create {key}: no answer")
        if not self._disk.create(host, key, stored):
            return False
        host.end(f"create {key}")
        return not host.happens(host.faults.denied)

    @contextmanager
    def writer(self, key: str) -> Iterator["_Pieces"]:
        host, pieces = self._host, _Pieces()
        host.begin(f"writer {check_key(key)}")
        try:
            yield pieces
            host.begin(f"finish {key}")
        except CrashedError:
            if keys.parse_attempt_file(key) and host.happens(host.faults.torn):
                self._disk.objects[key] = bytes(pieces.data[: host.below(len(pieces.data) + 1)])
            raise
        self._disk.objects[key] = bytes(pieces.data)
        host.end(f"finish {key}")

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        folder = check_prefix(prefix)
        self._host.begin(f"list {folder}")
        first = self._listed(folder)
        page = self._host.below(len(first) + 1)
        if page == len(first):
            return first
        self._host.begin(f"list {folder} from {first[page].key}")
        return [*first[:page], *(item for item in self._listed(folder) if item.key >= first[page].key)]

    def delete(self, keys: Iterable[str]) -> None:
        asked = [check_key(key) for key in keys]
        for key in asked:
            self._host.begin(f"delete {key}")
            self._disk.delete(key)
            self._host.end(f"delete {key}")
        self._disk.sync_deletions(asked)

    def _land(self) -> None:
        """Now and then a put that was given up comes through."""
        if self._disk.late and self._host.happens(0.1 if self._host.faults.late else 0.0):
            host, key, stored = self._disk.late.pop(self._host.below(len(self._disk.late)))
            self._host.note(f"late: {key} of {host.name}, {self._disk.create(host, key, stored)}")

    def _get(self, key: str) -> bytes | bytearray:
        try:
            return self._disk.objects[key]
        except KeyError:
            raise FileNotFoundError(f"{self}: no object {key!r}") from None

    def _listed(self, folder: str) -> Sequence[StoredObject]:
        start = f"{folder}/" if folder else ""
        return sorted(StoredObject(key, len(data)) for key, data in self._disk.objects.items() if key.startswith(start))


class _Pieces:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, buffer: Any, /) -> None:
        self.data += as_bytes(buffer)
