"""Where a loader's time goes, by a clock that the test moves."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import latewood as lw
from latewood.loading import stats
from latewood.loading.prefetch import Prefetch
from latewood.loading.stats import STAGES, Meter
from latewood.testing import ManualClock


class Clock:
    """A stopwatch's clock in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stats, "perf_counter", clock)
    return clock


def test_waiting_for_the_first_batch_is_told_apart(clock: Clock) -> None:
    meter = Meter()

    def slow() -> Iterator[int]:
        for wait in (5.0, 1.0, 2.0):
            clock.now += wait
            yield 0
        clock.now += 0.5

    for _ in meter.wait_for_each(slow()):
        clock.now += 3.0  # a step of the trainer
        meter.count(10, 100, 5)
    found = meter.stats()
    clock.now += 1_000  # after the end nothing counts
    assert (
        (found.first_s, found.waited_s, found.elapsed_s)
        == (5.0, 3.5, 12.5)
        == (found.first_s, 3.5, meter.stats().elapsed_s)
    )
    assert found.starvation == 3.5 / 12.5
    assert (found.batches, found.examples, found.events) == (3, 30, 300)


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_after_an_early_end_nothing_counts(clock: Clock, how: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        clock.now += 2.0
        if how == "failed":
            raise OSError
        yield 2

    meter = Meter()
    given = meter.wait_for_each(items())
    next(given)
    clock.now += 3.0
    if how == "failed":
        with pytest.raises(OSError):
            next(given)
    else:
        next(given)
        given.close()
    clock.now += 1_000
    assert (meter.stats().elapsed_s, meter.stats().waited_s) == (5.0, 2.0)


def test_stages_and_idleness_are_added_up(clock: Clock) -> None:
    meter = Meter()
    with meter.idle():
        clock.now += 7  # before the first batch was taken: nobody could have
    for _ in meter.wait_for_each(iter([1])):
        meter.count(examples=10, events=2_000, users=8)
        meter.made(events=3_000, decoded=1_000)
        with meter.idle():
            clock.now += 2
    for _ in range(2):
        with meter.time("plan"):
            clock.now += 1

    def items() -> Iterator[int]:
        clock.now += 4
        yield 1

    assert list(meter.time_each("examples", items())) == [1]
    found = meter.stats()
    assert (found.idle_s, found.waste) == (2.0, 1.0)
    assert found.stages == {"examples": 4.0, "plan": 2.0, "materialize": 0.0, "transform": 0.0, "copy": 0.0}
    assert str(found) == (
        "1 batch, 10 examples, 2,000 events in 2.0 s: starved 0.0%, wasted 100.0%; "
        "8 users per batch, each event decoded made 3.0; "
        "examples 67%, plan 33%, materialize 0%, transform 0%, copy 0%"
    )


def test_a_thread_that_waits_for_room_is_idle() -> None:
    meter = Meter()
    entered = []

    class Idle:
        def __enter__(self) -> None:
            entered.append(True)

        def __exit__(self, *_: object) -> None:
            pass

    assert list(Prefetch(iter(range(5)), 2, idle=Idle)) == list(range(5))
    assert len(entered) == 5
    assert meter.stats().batches == 0


@pytest.mark.parametrize("prefetch", [0, 2])
def test_a_loader_tells_what_it_gave(tmp_path: Path, prefetch: int) -> None:
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
    with lw.Store.create(tmp_path / "store", schema, clock=ManualClock(50)) as store:
        times = pa.array([10, 20, 30])
        store.append(pa.table({"user_id": [1, 1, 2], "event_ts": times, "ingest_ts": times, "item": [1, 2, 3]}))
        store.compact()
        requests = pa.table({"user_id": [1, 2, *[1] * 8], "request_ts": [45] * 10})
        examples = lw.backfill(store, requests, complete=True)
        loader = lw.Loader(
            store, examples, lw.Projection(), batch_size=5, order="user", prefetch=prefetch, transform=len
        )
        assert loader.stats().batches == 0
        assert list(loader) == [5, 5]
        found = loader.stats()
        assert (found.batches, found.examples, found.events, found.users) == (2, 10, 19, 3)
        # user 1's events are seen nine times, in one run of steps
        assert (found.made_events, found.decoded_events) == (19, 3)
        assert (found.reuse, found.users_per_batch) == (19 / 3, 1.5)
        assert list(found.stages) == list(STAGES)
        assert {stage for stage, seconds in found.stages.items() if not seconds} == {"copy"}  # there is no device
        assert 0 <= found.starvation <= 1
        assert 0 <= found.waste <= 1
        next(iter(loader))
        assert loader.stats().batches == 1  # of the newest iterator alone
