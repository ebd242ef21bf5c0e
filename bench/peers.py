"""Peers that are not ours: readers of the same examples in other libraries, all optional.

Each gives batches that look like latewood's where it matters: `offsets`, `values` by trait, `features`, a length.
"""

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import latewood as lw
from bench.histories import TRAITS
from bench.timing import Amount


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n histories, as arrays or tensors. Shapes: offsets (n + 1,), every value (offsets[-1],), every feature (n,)."""

    offsets: Any
    values: Any
    features: Any

    def __len__(self) -> int:
        return len(self.offsets) - 1


def find(module: str) -> Any:
    """A peer's module, or None where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def missing(package: str) -> str:
    """What a line says of a peer that is not there."""
    return f"not installed: pip install {package}"


def read_bare(path: Path, traits: tuple[str, ...], batch_size: int) -> Amount:
    """The histories of Fat Rows with pyarrow alone: no features, nothing checked."""
    file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    count = examples = events = 0
    columns = [f"history.{trait}.list.element" for trait in traits]
    for rows in file.iter_batches(batch_size, columns=columns, use_threads=False):
        for lists in rows.column("history").flatten():
            values = lists.flatten().to_numpy(zero_copy_only=False)
        count, examples, events = count + 1, examples + len(rows), events + len(values)
    return Amount(count, examples, events)


def read_log(folder: Path, traits: tuple[str, ...]) -> None:
    """What a loader needs of an example log, with pyarrow alone: nothing checked, nothing put in order."""
    unread = {f"recent.{trait}.list.element" for trait in TRAITS if trait not in traits}
    for path in folder.rglob("*.parquet"):
        file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        leaves = [file.schema.column(number).path for number in range(len(file.schema))]
        wanted = [leaf for leaf in leaves if leaf not in unread]
        for group in range(file.num_row_groups):
            file.read_row_group(group, columns=wanted, use_threads=False)


class LanceLists:
    """A Lance data set with one list column per trait, read in its own order."""

    def __init__(self, lance: Any, path: Path, batches: Iterator[pa.Table]) -> None:
        first = next(batches)
        rest = (batch for table in (first, *batches) for batch in _flat(table).to_batches())
        self._dataset = lance.write_dataset(rest, str(path), schema=_flat(first).schema)
        self._features = [name for name in first.column_names if name != "history"]

    def batches(self, batch_size: int, traits: tuple[str, ...]) -> Iterator[Rows]:
        """The traits asked for, and all features."""
        for rows in self._dataset.to_batches(columns=[*self._features, *traits], batch_size=batch_size):
            lists = {trait: rows.column(trait) for trait in traits}
            offsets = lists[traits[0]].offsets.to_numpy().astype(np.int64)
            values = {trait: _numbers(array.flatten()) for trait, array in lists.items()}
            yield Rows(offsets - offsets[0], values, {name: rows.column(name) for name in self._features})


def _flat(table: pa.Table) -> pa.Table:
    """Fat Rows with `history` taken apart."""
    return table.flatten().rename_columns([name.removeprefix("history.") for name in table.flatten().column_names])


def _numbers(array: pa.Array) -> Any:
    if pa.types.is_timestamp(array.type):
        array = array.view(pa.int64())
    return array.to_numpy(zero_copy_only=False)


class TorchFatRows:
    """Fat Rows as a careful team feeds them to torch: an iterable data set over row groups, in a DataLoader.

    Each of n workers has every n-th row group. They stay until the traits change or it is closed, so that no epoch begins
    with starting processes. What they make goes to the trainer through shared memory, as torch does it.

    Args: one_by_one: the data set gives examples, as most do, and the DataLoader makes batches of them; else whole batches.
    """

    def __init__(self, torch: Any, path: Path, batch_size: int, workers: int = 0, one_by_one: bool = False) -> None:
        self._torch, self._path, self._batch_size, self._workers = torch, path, batch_size, workers
        self._one_by_one = one_by_one
        self._traits: tuple[str, ...] | None = None
        self._loader: Any = None

    def batches(self, traits: tuple[str, ...]) -> Iterator[Rows]:
        """One epoch, as tensors."""
        if traits != self._traits:
            self._loader, self._traits = self._load(traits), traits
        with warnings.catch_warnings():
            # Arrow's memory is read-only, and stays so: a copy would be the peer's loss
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
            # another peer, which no worker uses
            warnings.filterwarnings("ignore", "lance is not fork-safe", UserWarning)
            for tensors in self._loader:
                yield Rows(tensors["offsets"], tensors["values"], {"example": tensors["example"]})

    def close(self) -> None:
        """End the workers."""
        self._loader = self._traits = None

    def _load(self, traits: tuple[str, ...]) -> Any:
        torch, path, batch_size, one_by_one = self._torch, self._path, self._batch_size, self._one_by_one

        def to_tensors(rows: Rows) -> dict[str, Any]:
            values = {trait: torch.from_numpy(array) for trait, array in rows.values.items()}
            example = torch.from_numpy(rows.features["example"])
            return {"offsets": torch.from_numpy(rows.offsets), "example": example, "values": values}

        class FatRowDataset(torch.utils.data.IterableDataset):  # type: ignore[misc,name-defined]
            def __iter__(self) -> Iterator[Any]:
                worker = torch.utils.data.get_worker_info()
                first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
                for rows in _read_groups(path, batch_size, traits, first, step):
                    if one_by_one:
                        yield from _examples(rows)
                    else:
                        yield to_tensors(rows)

        options: dict[str, Any] = {"batch_size": None, "num_workers": self._workers}
        if one_by_one:
            options |= {"batch_size": batch_size, "collate_fn": lambda examples: to_tensors(_collate(examples))}
        if self._workers:
            options |= {"persistent_workers": True, "multiprocessing_context": "fork"}
        return torch.utils.data.DataLoader(FatRowDataset(), **options)


def _examples(rows: Rows) -> Iterator[dict[str, Any]]:
    """Each with an array per trait."""
    bounds = rows.offsets.tolist()
    for i, example in enumerate(rows.features["example"].tolist()):
        values = {trait: column[bounds[i] : bounds[i + 1]] for trait, column in rows.values.items()}
        yield {"example": example, "values": values}


def _collate(examples: list[dict[str, Any]]) -> Rows:
    """A jagged batch of examples."""
    traits = examples[0]["values"]
    values = {trait: np.concatenate([one["values"][trait] for one in examples]) for trait in traits}
    offsets = np.zeros(len(examples) + 1, np.int64)
    np.cumsum([len(one["values"][next(iter(traits))]) for one in examples], out=offsets[1:])
    return Rows(offsets, values, {"example": np.array([one["example"] for one in examples])})


def _read_groups(path: Path, batch_size: int, traits: tuple[str, ...], first: int, step: int) -> Iterator[Rows]:
    """Batches of every step-th row group, with pyarrow alone. All features are read, `example` is given."""
    file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    groups = list(range(first, file.num_row_groups, step))
    columns = ["user_id", "request_ts", "example", "label", *(f"history.{trait}.list.element" for trait in traits)]
    for rows in file.iter_batches(batch_size, row_groups=groups, columns=columns, use_threads=False):
        history = rows.column("history")
        lists = dict(zip((field.name for field in history.type), history.flatten(), strict=True))
        offsets = lists[traits[0]].offsets.to_numpy().astype(np.int64)
        values = {trait: _numbers(lists[trait].flatten()) for trait in traits}
        yield Rows(offsets - offsets[0], values, {"example": rows.column("example").to_numpy()})


def as_tensors(batch: lw.Batch) -> Rows:
    """Our batch as tensors, which share its memory."""
    tensors = batch.to_torch()
    return Rows(tensors.offsets, tensors.values, batch.features)
