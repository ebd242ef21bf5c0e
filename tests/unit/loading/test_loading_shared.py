"""Shared batches, from the loader and as tensors: each example's history as in a batch of its own."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw

torch = pytest.importorskip("torch")

from latewood.loading.torch import LoaderDataset  # noqa: E402

USERS, REQUESTS = 4, 60


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[lw.Store, pa.Table]]:
    rng = np.random.default_rng(0)
    ts = np.sort(rng.integers(1_000_000, 2_000_000, 700))
    number = rng.integers(0, 99, 700).tolist()
    tags = pa.array([None if n < 9 else [f"t{n}"] * (n % 3) for n in number])
    events = pa.table(
        {
            "user": rng.integers(0, USERS, 700),
            "at": ts,
            "number": pa.array([n if n % 7 else None for n in number]),
            "tags": tags,
            "pair": pa.array([[n, -n] for n in number], pa.list_(pa.int16(), 2)),
        }
    )
    folder = tmp_path_factory.mktemp("shared") / "store"
    with lw.ingest(events, folder, user="user", time="at", ingest_time="at", unit="us", shards=1, quiet=True) as store:
        requests = {"user_id": rng.integers(0, USERS, REQUESTS), "request_ts": rng.choice(ts[400:], REQUESTS)}
        examples = lw.backfill(store, pa.table({**requests, "row": np.arange(REQUESTS)}), complete=True)
        yield store, examples


def of(batches: Any) -> list[tuple[int, dict[str, Any]]]:
    """Each request with its history."""
    return [
        (row, history)
        for batch in batches
        for row, history in zip(batch.features["row"].to_pylist(), batch.to_arrow()["history"].to_pylist(), strict=True)
    ]


def make_loader(data: tuple[lw.Store, pa.Table], **options: Any) -> lw.Loader:
    return lw.Loader(*data, lw.Projection(max_len=50), **{"batch_size": 8, "seed": 2} | options)


def test_a_loader_gives_them(data: tuple[lw.Store, pa.Table]) -> None:
    shared = make_loader(data, shared=True)
    batches = list(shared)
    assert {type(batch) for batch in batches} == {lw.SharedBatch}
    assert of(batch.expand() for batch in batches) == of(make_loader(data))
    assert shared.stats().events == sum(int(batch.lengths.sum()) for batch in batches)
    with pytest.raises(lw.SchemaError, match="shared=True"):
        lw.Loader(*data, lw.Projection(streams={"a": lw.last(1)}), shared=True)


@pytest.mark.parametrize("at_once", [1 << 19, 1])
def test_columns_that_batches_share_are_counted_once(
    data: tuple[lw.Store, pa.Table], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else fewer batches than fit would be made ahead."""
    monkeypatch.setattr("latewood.loading.together.BYTES_AT_ONCE", at_once)
    counted: list[int] = []
    columns: dict[int, int] = {}  # what each array takes, by where it lies

    def count(source: Iterator[Any], depth: int, size_of: Any, *_: Any) -> Any:
        class Counted(list[Any]):
            def close(self) -> None:
                pass

        made = Counted(source)
        counted.extend(map(size_of, made))
        columns.update({c.ctypes.data: c.nbytes for one in made for c in one.item.values.values()})
        return made

    monkeypatch.setattr("latewood.loading.loader.Prefetch", count)
    monkeypatch.setattr("latewood.loading.stats.Meter.wait_for_each", lambda self, items: iter(items))
    batches = list(make_loader(data, shared=True))
    assert len(counted) == len(batches) == 8
    assert len(columns) == (4 if at_once > 1 else 8 * 4)
    assert sum(columns.values()) - len(batches) <= sum(counted) <= sum(columns.values())


def test_histories_that_are_the_same_are_one(data: tuple[lw.Store, pa.Table]) -> None:
    store, examples = data
    twice = pa.concat_tables([examples, examples])
    batch = lw.Materializer(store, lw.Projection(max_len=50)).shared(twice)
    starts, lengths, inverse = batch.distinct()
    assert starts[inverse].tolist() == batch.starts.tolist()
    assert lengths[inverse].tolist() == batch.lengths.tolist()
    assert inverse[:REQUESTS].tolist() == inverse[REQUESTS:].tolist()
    assert len(starts) <= REQUESTS


def test_as_tensors_they_share_memory_and_expand(data: tuple[lw.Store, pa.Table]) -> None:
    store, examples = data
    batch = lw.Materializer(store, lw.Projection(max_len=50)).shared(examples)
    tensors, expected = batch.to_torch(), batch.expand().to_torch()
    assert tensors.values["number"].data_ptr() == batch.values["number"].ctypes.data
    assert len(tensors) == REQUESTS
    found = tensors.expand()
    assert found.offsets.tolist() == expected.offsets.tolist()
    for name in ("event_ts", "number", "tags", "pair"):
        assert found.values[name].tolist() == expected.values[name].tolist(), name
    assert found.lists["tags"].tolist() == expected.lists["tags"].tolist()
    assert found.masks["number"].tolist() == expected.masks["number"].tolist()
    assert found.features["row"].tolist() == list(range(REQUESTS))
    distinct = tensors.distinct_starts[tensors.inverse], tensors.distinct_lengths[tensors.inverse]
    assert [part.tolist() for part in distinct] == [tensors.starts.tolist(), tensors.lengths.tolist()]
    assert repr(tensors).startswith(f"<SharedTorchBatch of {REQUESTS} examples")


def test_a_dataset_gives_them(data: tuple[lw.Store, pa.Table]) -> None:
    found = [batch.expand().values["number"].tolist() for batch in LoaderDataset(make_loader(data, shared=True))]
    assert found == [batch.values["number"].tolist() for batch in make_loader(data)]
