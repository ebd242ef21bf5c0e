"""Working ahead: bounded, in order, errors in their place, and no thread left behind."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from latewood.loading.prefetch import Prefetch


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "latewood-prefetch"}


def wait_until(condition: object) -> bool:
    for _ in range(500):
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_items_come_in_order_and_then_an_end_that_lasts(depth: int) -> None:
    items = Prefetch(iter(range(50)), depth)
    assert list(items) == list(range(50))
    assert list(items) == []
    items.close()


def test_no_more_than_depth_items_are_ready() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    items = Prefetch(source(), 3)
    assert wait_until(lambda: len(made) == 3)
    time.sleep(0.05)
    assert len(made) == 3
    assert next(items) == 0
    assert wait_until(lambda: len(made) == 4)
    items.close()
    assert not threads()


def test_large_items_are_made_ahead_one_at_a_time() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for i in range(9):
            made.append(i)
            yield i

    items = Prefetch(source(), 3, size_of=lambda i: 40 if i < 4 else 100, limit=80)
    for ready in (2, 3, 4, 5, 5, 6, 7):  # of the small ones two fit; of the large ones there is one all the same
        assert wait_until(lambda: len(made) == ready)  # noqa: B023 - called within this round
        time.sleep(0.02)
        assert len(made) == ready
        next(items)
    items.close()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_after_the_items_before_it_and_once(depth: int) -> None:
    def source() -> Iterator[int]:
        yield 1
        yield 2
        raise KeyError("broken")

    items = Prefetch(source(), depth)
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(KeyError, match="broken"):
        next(items)
    assert list(items) == []


def test_closing_stops_the_thread_and_the_iteration() -> None:
    items = Prefetch(iter(range(1000)), 2)
    assert next(items) == 0
    items.close()
    assert not threads()
    assert list(items) == []
    items.close()


def test_an_abandoned_iterator_stops_its_thread() -> None:
    items = Prefetch(iter(range(1000)), 2)
    assert next(items) == 0
    del items
    gc.collect()
    assert not threads()


def test_closing_waits_for_the_item_at_work() -> None:
    started, done = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        started.set()
        time.sleep(0.1)
        done.set()
        yield 1

    items = Prefetch(source(), 1)
    started.wait()
    items.close()
    assert done.is_set()
