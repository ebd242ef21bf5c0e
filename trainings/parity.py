"""One training fed twice, from Fat Rows and from latewood: the loss must be the same at every step, bit for bit.

The Fat Rows get their histories from the raw events, by the oracle, which shares no code with the store; they are written
in the order in which the loader gives the examples, and read as any reader of Fat Rows would.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import latewood as lw
from latewood.batch import Batch
from latewood.testing import Oracle
from trainings.inputs import request_inputs
from trainings.task import ROW, Task
from trainings.train import make_model, train
from trainings.training import projection

BATCH_SIZE = 64


@dataclass(frozen=True, slots=True)
class Parity:
    """The losses of both runs, step by step. `events`: of the histories that latewood gave, all steps together."""

    fat_rows: list[float]
    latewood: list[float]
    events: int

    @property
    def different(self) -> int:
        """Steps whose losses differ in any bit."""
        return sum(ours.hex() != theirs.hex() for ours, theirs in zip(self.latewood, self.fat_rows, strict=True))

    def summary(self) -> dict[str, float]:
        """What a reader wants of it: `events` are those of the histories, of all steps together."""
        return {
            "compared": len(self.latewood),
            "different": self.different,
            "events": self.events,
            "first_loss": self.latewood[0],
            "last_loss": self.latewood[-1],
        }


def compare(task: Task, folder: Path, model: str, max_len: int, **sizes: int) -> Parity:
    """Train an epoch both ways, with the same weights at the start. Args: sizes: of the model."""
    torch.use_deterministic_algorithms(True)
    loader = lw.Loader(task.store, task.train, projection(task, max_len), batch_size=BATCH_SIZE, seed=1)
    fat_rows = lw.write_fat_rows(folder / "fat_rows.parquet", _histories(task, loader, projection(task, max_len)))

    def losses(batches: Iterable[Batch]) -> list[float]:
        trained = make_model(model, len(task.vocab), max_len, **sizes)
        return list(train(trained, (request_inputs(batch, task.vocab) for batch in batches)))

    theirs, ours = losses(fat_rows.batches(BATCH_SIZE)), losses(loader)
    return Parity(theirs, ours, loader.stats().events)


def _histories(task: Task, batches: Iterable[Batch], projection: lw.Projection) -> Iterator[object]:
    """The oracle's Fat Rows of the same requests, batch by batch."""
    oracle = Oracle(task.events)
    for batch in batches:
        yield oracle.fat_rows(task.requests.take(batch.features[ROW]), projection)
