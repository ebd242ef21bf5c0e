"""Ranks of a real process group: all make as many steps, on uneven data, and lose no example; others can go on."""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 finds pytest's threads
REQUESTS = 101  # no multiple of any number of ranks and batch size here
TIMEOUT_S = 120
_FORK = multiprocessing.get_context("fork")  # the store is a local folder, which forked processes can read


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ranks")
    rng = np.random.default_rng(0)
    ts = pa.array(np.sort(rng.integers(1_000_000, 2_000_000, 500)))
    events = pa.table({"user": rng.integers(0, 20, 500), "at": ts, "item": np.arange(500)})
    with lw.ingest(
        events, folder / "store", user="user", time="at", ingest_time="at", unit="us", shards=1, quiet=True
    ) as store:
        requests = {"user_id": rng.integers(0, 20, REQUESTS), "request_ts": pa.array([2_000_001] * REQUESTS)}
        examples = lw.backfill(store, pa.table({**requests, "number": np.arange(REQUESTS)}), complete=True)
    pq.write_table(examples, folder / "examples.parquet", row_group_size=40)
    return folder


def make_loader(folder: Path, rank: int, world_size: int, **options: Any) -> lw.Loader:
    store = lw.Store.open(folder / "store", read_only=True)
    projection = lw.Projection(traits=["item"])
    ranks = {"rank": rank, "world_size": world_size}
    return lw.Loader(store, str(folder / "examples.parquet"), projection, **{"batch_size": 4} | ranks | options)


def of(batch: lw.Batch) -> list[int]:
    """The requests of a batch that count."""
    numbers = batch.features["number"].to_pylist()
    return [number for number, weight in zip(numbers, batch.weights, strict=True) if weight]


def in_ranks(world_size: int, work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `work(rank)` gives in each process of a group that was joined by gloo."""
    results, meeting = _FORK.Queue(), folder / f"meeting-{os.urandom(4).hex()}"

    def run(rank: int) -> None:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world_size)
        results.put((rank, work(rank)))
        dist.barrier()
        dist.destroy_process_group()

    processes = [_FORK.Process(target=run, args=(rank,)) for rank in range(world_size)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=TIMEOUT_S) for _ in processes)
    for process in processes:
        process.join(TIMEOUT_S)
        assert process.exitcode == 0
    return [found[rank] for rank in range(world_size)]


@pytest.mark.parametrize("remainder", ["pad", "drop"])
@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_every_step_is_made_by_all(folder: Path, world_size: int, remainder: str) -> None:
    """A rank with a step more than the others would wait for them in the reduction for ever."""

    def work(rank: int) -> tuple[list[int], list[float]]:
        mine, sums = [], []
        for batch in make_loader(folder, rank, world_size, remainder=remainder, seed=3):
            total = torch.tensor([float(batch.weights.sum())])
            dist.all_reduce(total)  # what a trainer does with its gradients
            sums.append(total.item())
            mine += of(batch)
        return mine, sums

    found = in_ranks(world_size, work, folder)
    numbers, (first, *others) = [n for mine, _ in found for n in mine], [sums for _, sums in found]
    assert others == [first] * (world_size - 1)
    full = REQUESTS // (4 * world_size)
    assert len(first) == (full if remainder == "drop" else full + 1)
    assert first[:full] == [4.0 * world_size] * full
    assert (
        len(numbers) == len(set(numbers)) == sum(first) == (full * 4 * world_size if remainder == "drop" else REQUESTS)
    )


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_batches_by_tokens_are_as_many_on_all(folder: Path, world_size: int) -> None:
    def work(rank: int) -> tuple[list[int], list[float]]:
        mine, sums = [], []
        for batch in make_loader(folder, rank, world_size, batch_size=None, batch_tokens=150, seed=3):
            total = torch.tensor([float(batch.weights.sum())])
            dist.all_reduce(total)
            sums.append(total.item())
            mine += of(batch)
            assert batch.offsets[-1] <= 150
        return mine, sums

    found = in_ranks(world_size, work, folder)
    first, *others = [sums for _, sums in found]
    assert others == [first] * (world_size - 1)
    assert sorted(n for mine, _ in found for n in mine) == list(range(REQUESTS))


def test_a_run_goes_on_with_other_ranks(folder: Path) -> None:
    """1 rank, then 2, then 3, each from the state that rank 0 of those before saved: as in one process, nothing twice."""
    seen: list[int] = []
    state: dict[str, Any] | None = None
    for world_size, steps in ((1, 5), (2, 4), (3, None)):

        def work(rank: int, of_before: Any = state, steps: int | None = steps, ranks: int = world_size) -> Any:
            loader = make_loader(folder, rank, ranks, seed=7, prefetch=4)
            if of_before is not None:
                loader.load_state_dict(of_before)
            mine: list[int] = []
            for i, batch in enumerate(loader):
                mine += of(batch)
                if i + 1 == steps:
                    break
            states: list[Any] = [None] * ranks
            dist.all_gather_object(states, loader.state_dict())
            return mine, states

        found = in_ranks(world_size, work, folder)
        states = [state for _, all_of_them in found for state in all_of_them]
        assert states == [states[0]] * len(states)  # one small state, the same on every rank
        state = states[0]
        seen += [n for mine, _ in found for n in mine]
    assert sorted(seen) == list(range(REQUESTS))
