"""Batches on a device. In the place of CUDA, a stand-in writes down what a copy beside the trainer's stream does."""

import threading
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw

torch = pytest.importorskip("torch")

from latewood.loading.device import DeviceDelivery, DeviceLoader  # noqa: E402
from latewood.loading.torch import PaddedBatch, SharedTorchBatch, TorchBatch  # noqa: E402

REQUESTS = 30
Pair = namedtuple("Pair", "ids rest")  # as a transform may return


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lw.Store, pa.Table]]:
    rng = np.random.default_rng(0)
    ts = pa.array(np.sort(rng.integers(1_000_000, 2_000_000, 200)))
    events = pa.table({"user": rng.integers(0, 5, 200), "at": ts, "item": np.arange(200)})
    folder = tmp_path_factory.mktemp("device") / "store"
    with lw.ingest(events, folder, user="user", time="at", ingest_time="at", unit="us", shards=1, quiet=True) as store:
        users = pa.array(rng.integers(0, 5, REQUESTS))
        requests = pa.table({"user_id": users, "request_ts": [2_000_001] * REQUESTS, "number": np.arange(REQUESTS)})
        yield store, lw.backfill(store, requests, complete=True)


def make_loader(data: tuple[lw.Store, pa.Table], **options: Any) -> lw.Loader:
    return lw.Loader(*data, lw.Projection(traits=["item"]), **{"batch_size": 4, "seed": 5} | options)


def numbers(batches: Any) -> list[list[int]]:
    return [batch.features["number"].tolist() for batch in batches]


@pytest.mark.parametrize("layout", ["jagged", "padded", "nested"])
@pytest.mark.parametrize("prefetch", [0, 3])
def test_on_the_cpu_they_are_the_loaders_batches(data: tuple[lw.Store, pa.Table], layout: str, prefetch: int) -> None:
    batches = DeviceLoader(make_loader(data, prefetch=prefetch), "cpu", layout)
    expected = [batch.to_torch(layout) for batch in make_loader(data)]
    found = list(batches)
    assert [type(batch) for batch in found] == [type(batch) for batch in expected]
    assert numbers(found) == numbers(expected)
    for batch, of in zip(found, expected, strict=True):
        assert batch.values["item"].device.type == "cpu"
        assert [row.tolist() for row in batch.values["item"]] == [row.tolist() for row in of.values["item"]]
    assert len(batches) == len(found)
    assert repr(batches).startswith("<DeviceLoader to cpu of <Loader of 30 examples")


def test_options_shared_batches_and_transforms(data: tuple[lw.Store, pa.Table]) -> None:
    padded = next(iter(DeviceLoader(make_loader(data), "cpu", "padded", max_len=3, side="left")))
    assert isinstance(padded, PaddedBatch)
    assert padded.values["item"].shape == (4, 3)
    shared = next(iter(DeviceLoader(make_loader(data, shared=True), "cpu")))
    assert isinstance(shared, SharedTorchBatch)
    loader = make_loader(
        data, transform=lambda batch: Pair(batch.to_torch(), {"n": len(batch), "all": [torch.ones(2)]})
    )
    pair = next(iter(DeviceLoader(loader, "meta")))  # a device where tensors have no values
    assert isinstance(pair, Pair)
    assert isinstance(pair.ids, TorchBatch)
    assert {pair.ids.offsets.device.type, pair.ids.values["item"].device.type} == {"meta"}
    assert (pair.rest["n"], pair.rest["all"][0].device.type) == (4, "meta")
    with pytest.raises(lw.SchemaError, match="layout 'wide'"):
        DeviceLoader(loader, "cpu", "wide")


@pytest.mark.parametrize("done", range(8))
def test_a_state_is_of_what_was_given_and_not_of_what_was_sent(data: tuple[lw.Store, pa.Table], done: int) -> None:
    whole = numbers(DeviceLoader(make_loader(data), "cpu"))
    batches = DeviceLoader(make_loader(data, prefetch=4), "cpu")
    steps = iter(batches)
    first = numbers(next(steps) for _ in range(done))
    other = DeviceLoader(make_loader(data), "cpu")
    other.load_state_dict(batches.state_dict())
    assert first + numbers(other) == whole
    other.set_epoch(1)
    assert sorted(n for batch in numbers(other) for n in batch) == list(range(REQUESTS))
    assert numbers(other) != whole


def test_making_tensors_and_copying_are_stages(data: tuple[lw.Store, pa.Table]) -> None:
    batches = DeviceLoader(make_loader(data), "cpu", "padded")
    list(batches)
    assert min(batches.stats().stages.values()) > 0
    assert batches.stats().batches == 8


class Streams:
    """In the place of torch.cuda: writes down who did what, in which thread and on which stream."""

    def __init__(self) -> None:
        self.log: list[tuple[str, ...]] = []
        self.on = ["trainer's"]
        self.made = 0

    def note(self, *what: str) -> None:
        where = "thread" if threading.current_thread().name == "latewood-prefetch" else "trainer"
        self.log.append((where, *what))

    def Stream(self, device: Any) -> str:  # noqa: N802 - torch's name
        self.note("stream")
        return "side"

    @contextmanager
    def stream(self, stream: str) -> Iterator[None]:
        self.on.append(stream)
        yield
        self.on.pop()

    def Event(self, enable_timing: bool) -> "Event":  # noqa: N802
        assert enable_timing
        self.made += 1
        return Event(self, f"event {self.made}")

    def current_stream(self, device: Any) -> "Current":
        return Current(self)


class Current:
    """The trainer's stream."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams

    def wait_event(self, event: "Event") -> None:
        self.streams.note("wait", event.name)


class Event:
    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name, self.is_over = streams, name, False

    def record(self, stream: str) -> None:
        self.streams.note("record", self.name, stream)

    def query(self) -> bool:
        return self.is_over

    def elapsed_time(self, other: "Event") -> float:
        return 2.0


class Part:
    """In the place of a tensor."""

    def __init__(self, streams: Streams, name: str) -> None:
        self.streams, self.name = streams, name

    def pin_memory(self) -> "Part":
        self.streams.note("pin", self.name)
        return Part(self.streams, f"pinned {self.name}")

    def to(self, device: Any, non_blocking: bool) -> "Part":
        self.streams.note("copy", self.name, self.streams.on[-1], str(non_blocking))
        return Part(self.streams, f"copied {self.name}")

    def record_stream(self, stream: Current) -> None:
        assert isinstance(stream, Current)
        self.streams.note("keep", self.name)


class Movable:
    """Something that can be moved and no more."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams

    def to(self, device: Any, non_blocking: bool) -> "Movable":
        self.streams.note("move", self.streams.on[-1], str(non_blocking))
        return self


def test_a_copy_beside_the_trainers_stream_is_waited_for_by_that_stream(data: tuple[lw.Store, pa.Table]) -> None:
    streams = Streams()
    delivery = DeviceDelivery(torch.device("cuda", 0), "jagged", {}, streams)
    loader = make_loader(
        data, batch_size=15, prefetch=1, transform=lambda batch: [Part(streams, "a"), {"b": Movable(streams)}, "c"]
    )
    items = list(loader.iterate(delivery))
    assert [(item[0].name, item[2]) for item in items] == [("copied pinned a", "c")] * 2
    thread = [entry[1:] for entry in streams.log if entry[0] == "thread"]
    trainer = [entry[1:] for entry in streams.log if entry[0] == "trainer"]
    sent = [
        [
            ("pin", "a"),
            ("record", f"event {2 * i + 1}", "side"),
            ("copy", "pinned a", "side", "True"),
            (
                "move",
                "side",
                "False",
            ),  # it cannot be kept for the trainer's stream, so the copy is over when it is there
            ("record", f"event {2 * i + 2}", "side"),
        ]
        for i in range(2)
    ]
    assert thread == [sent[0][0], ("stream",), *sent[0][1:], *sent[1]] or thread == [("stream",), *sent[0], *sent[1]]
    assert trainer == [
        ("wait", "event 2"),
        ("keep", "copied pinned a"),
        ("wait", "event 4"),
        ("keep", "copied pinned a"),
    ]


def test_copies_are_timed_by_the_device_once_they_are_over(data: tuple[lw.Store, pa.Table]) -> None:
    delivery = DeviceDelivery(torch.device("cuda", 0), "jagged", {}, Streams())
    sent = [delivery.send(Part(delivery._streams, "a")) for _ in range(3)]
    for one in sent:
        delivery.receive(one)
    assert delivery.copied_s() == 0
    sent[0].ended.is_over = sent[1].ended.is_over = True
    assert delivery.copied_s() == 0.004
    assert delivery.copied_s() == 0
