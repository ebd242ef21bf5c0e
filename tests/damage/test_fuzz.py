"""The fuzzer finds what it is there to find, and some hundred cases of it find nothing."""

import ctypes
import os
import signal

import numpy as np
import pytest
from fuzz import READ, Fuzzer, run
from guarded import Region


def test_some_hundred_cases_find_nothing() -> None:
    assert run(Fuzzer(7), seconds=300, stop=400, tell=0) == []


@pytest.mark.parametrize("at_end", [False, True])
def test_a_byte_read_or_written_outside_is_a_finding(at_end: bool) -> None:
    """And the worker goes on with the next case."""
    region = Region(100)
    array = region.array(np.uint8, 100, at_end=at_end)
    array[:] = 1

    def case(number: int) -> int:
        offset = {2: -1, 4: 100}.get(number, 50)
        ctypes.string_at(array.ctypes.data + offset, 1)
        return READ

    expected = {4} if at_end else {2}
    found = run(case, seconds=60, stop=6, tell=0)
    assert [int(line.split()[1].rstrip(":")) for line in found] == sorted(expected)
    assert signal.Signals.SIGSEGV.name in found[0]


def test_forked_workers_do_not_share_their_memory() -> None:
    array = Region(100).array(np.int64, 1)

    def case(number: int) -> int:
        array[0] = os.getpid()
        for _ in range(1000):
            assert array[0] == os.getpid()
        return READ

    assert run(case, seconds=60, workers=2, stop=400, tell=0) == []


def test_what_was_opened_cannot_be_written_to() -> None:
    region = Region(100)
    array = region.file(bytes(100))

    def case(number: int) -> int:
        ctypes.memset(array.ctypes.data, 0, 1)
        return READ

    assert "SIGSEGV" in run(case, seconds=60, stop=1, tell=0)[0]
    assert region.file(b"abc").tobytes() == b"abc"


def test_an_error_that_is_none_of_ours_is_a_finding() -> None:
    def case(number: int) -> int:
        if number == 1:
            raise ZeroDivisionError("no damage")
        return READ

    (found,) = run(case, seconds=60, stop=3, tell=0)
    assert found.startswith("case 1: ")
    assert "ZeroDivisionError: no damage" in found


def test_a_hang_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    import fuzz

    monkeypatch.setattr(fuzz, "HANG_S", 0.2)

    def case(number: int) -> int:
        while number == 1:
            os.getpid()
        return READ

    assert run(case, seconds=60, stop=3, tell=0) == ["case 1: hangs"]
