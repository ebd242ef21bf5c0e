"""Quality against the length of histories: the same targets, steps and tests, and more of what came before.

Training examples are whole sequences in chunks, made once: whether a model sees 16 events before each target or 1,024 is a
matter of the projection alone. The model has one layer, in which an event sees as many events as the length says; so what
is trained on a chunk is exactly what is asked of a request that is cut to that length. A seed draws weights, order and
negatives.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import latewood as lw
from trainings.inputs import sequence_inputs
from trainings.results import Results
from trainings.task import SEEN, Task
from trainings.train import Judged, OverSomeItems, Quality, judge_popularity, make_model, train
from trainings.training import epochs_of, judge_examples, projection

CHUNK, BATCH_SIZE, LEARNING_RATE, LAYERS = 128, 16, 1e-2, 1
EPOCHS = {"completejourney": 1, "git-events": 2}  # about as many steps: 725 and 904
LONG = 1024  # events: requests with so many before them are judged apart, too, since others cannot gain from more


@dataclass(frozen=True, slots=True)
class Cell:
    """One training: everything that decides its result."""

    data: str
    length: int
    seed: int
    test_examples: int
    epochs: int
    model: str = "hstu"
    layers: int = LAYERS
    chunk: int = CHUNK
    batch_size: int = BATCH_SIZE
    learning_rate: float = LEARNING_RATE


def measure(
    make_task: Mapping[str, Callable[[], Task]], cells: Sequence[Cell], results: Results
) -> Iterator[dict[str, object]]:
    """Train and judge every cell whose result is not there yet. Yields: each new result."""
    made = dict[str, tuple[Task, pa.Table]]()
    for cell in cells:
        if results.find("lengths", asdict(cell)):
            continue
        if cell.data not in made:
            task = make_task[cell.data]()
            made[cell.data] = task, task.sequences(CHUNK)
            key = {"data": cell.data, "chunk": CHUNK, "test_examples": cell.test_examples}
            results.put("data", key, _about(*made[cell.data]))
        yield results.put("lengths", asdict(cell), _run(*made[cell.data], cell))


def _run(task: Task, sequences: pa.Table, cell: Cell) -> dict[str, object]:
    """Returns: quality over all requests and over those with long histories, and what the training took."""
    began, items = perf_counter(), len(task.vocab)
    loader = lw.Loader(
        task.store,
        sequences,
        projection(task, cell.length + cell.chunk),
        batch_size=cell.batch_size,
        seed=cell.seed,
    )
    model = make_model(cell.model, items, cell.length, cell.seed, layers=cell.layers)
    steps = cell.epochs * len(loader)
    inputs = (sequence_inputs(batch, task.vocab) for batch in epochs_of(loader, cell.epochs))
    losses = list(train(model, inputs, OverSomeItems(items, seed=cell.seed), cell.learning_rate, steps))
    judged, seen = judge_examples(task, model, task.test, cell.length)
    return {
        **_qualities(judged, seen, task),
        "steps": len(losses),
        "loss": float(np.mean(losses[-50:])),
        "starvation": loader.stats().starvation,
        "seconds": perf_counter() - began,
    }


def _qualities(judged: Judged, seen: NDArray[np.int64], task: Task) -> dict[str, object]:
    """Over all requests of the test period, and over those that had LONG events or more before them."""
    items = len(task.vocab.values)
    return {
        "all": asdict(Quality.of(judged, items)),
        "long": asdict(Quality.of(judged.of(seen >= LONG), items)) if (seen >= LONG).any() else None,
    }


def _about(task: Task, sequences: pa.Table) -> dict[str, object]:
    """What a reader has to know of the data, and what a prediction is worth that looks at no history."""
    targets = sum(sum(row) for row in sequences["targets"].to_pylist())
    seen = task.test[SEEN].to_numpy()
    popular = judge_popularity(task.vocab.encode(task.test[task.item]), task.vocab)
    return {
        "events": len(task.events),
        "items": len(task.vocab.values),
        "targets": targets,
        "unfit": sum(sequences["unfit"].to_pylist()),
        "test": len(task.test),
        "test_users": len(task.test["user_id"].unique()),
        "reaching": {str(length): float((seen >= length).mean()) for length in (16, 64, 256, LONG)},
        "popularity": _qualities(popular, seen, task),
    }
