"""The simulated places keep the contracts of the real ones."""

from pathlib import Path

import pyarrow as pa
import pytest

from latewood.immutable import Scrubs
from latewood.mutable import MutableTier, Settings
from latewood.mutable.logged_tier import LoggedTier
from latewood.storage import Storage
from latewood.testing.mutable_contract import MutableTierContract
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.host import CrashedError, Faults, Host
from latewood.testing.simulation.log import LogHandle, SimulatedLog
from latewood.testing.simulation.scheduler import Scheduler, StuckError, Task
from latewood.testing.simulation.storage import SimulatedDisk, SimulatedStorage
from latewood.testing.simulation.trace import Trace
from latewood.testing.storage_contract import StorageContract


def make_host(faults: Faults | None = None, seed: int = 0) -> Host:
    chance = Chance(seed)
    return Host("host", Scheduler(chance, 0.5), chance, Trace(), faults or Faults())


class TestSimulatedStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return SimulatedStorage(SimulatedDisk(), make_host())


class TestSimulatedLog(MutableTierContract):
    def open_tier(
        self, path: Path, user_type: pa.DataType, settings: Settings, scrubs: Scrubs | None = None
    ) -> MutableTier:
        return LoggedTier(LogHandle(SimulatedLog(), make_host()), user_type, settings, scrubs=scrubs)


def test_a_process_that_crashed_changes_nothing_any_more() -> None:
    disk = SimulatedDisk()
    storage = SimulatedStorage(disk, make_host(Faults(crash=1.0)))
    with pytest.raises(CrashedError):
        storage.write("a", b"1")
    for act in (lambda: storage.create("a", b"1"), lambda: storage.delete(["a"]), lambda: storage.read("a")):
        with pytest.raises(CrashedError):
            act()
    assert disk.objects == {}


def test_an_error_after_success_has_succeeded() -> None:
    disk = SimulatedDisk()
    with pytest.raises(OSError, match="after success"):
        SimulatedStorage(disk, make_host(Faults(after=1.0))).create("a", b"1")
    assert disk.objects == {"a": b"1"}


def test_what_was_just_being_deleted_may_come_back_after_a_power_cut() -> None:
    disk = SimulatedDisk()
    storage = SimulatedStorage(disk, make_host())
    for key in ("a", "b"):
        storage.write(key, b"1")
    storage.delete(["a"])
    with pytest.raises(OSError, match="after success"):
        SimulatedStorage(disk, make_host(Faults(after=1.0))).delete(["b"])
    assert disk.objects == {}
    assert disk.cut_power(lambda: True) == ["b"]
    assert storage.read("b") == b"1"


def test_tasks_take_turns() -> None:
    scheduler = Scheduler(Chance(1), 0.5)
    story: list[str] = []

    def work(name: str) -> None:
        for _ in range(20):
            story.append(name)
            scheduler.pause()

    scheduler.run([Task(name, lambda name=name: work(name)) for name in "ab"])
    assert sorted(story) == ["a"] * 20 + ["b"] * 20
    assert story != sorted(story)


def test_the_first_error_stops_all_tasks() -> None:
    scheduler = Scheduler(Chance(1), 1.0)

    def fail() -> None:
        raise ValueError("first")

    def work() -> None:
        while True:
            scheduler.pause()

    with pytest.raises(ValueError, match="first"):
        scheduler.run([Task("a", work), Task("b", fail)])


def test_tasks_that_wait_for_each_other_are_found_out() -> None:
    scheduler = Scheduler(Chance(1), 0.5)
    with pytest.raises(StuckError):
        scheduler.run([Task(name, lambda: scheduler.wait_until(lambda: False)) for name in "ab"])
