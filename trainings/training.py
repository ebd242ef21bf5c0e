"""A model trained on a task and judged: the loop that a reader copies."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

import latewood as lw
from latewood.batch import Batch
from trainings.inputs import request_inputs, sequence_inputs
from trainings.task import SEEN, Task
from trainings.train import Judged, OverSomeItems, Quality, judge, make_model, over_all_items, train

TEST_BATCH_SIZE, REPORT_EVERY = 64, 100


@dataclass(frozen=True, slots=True)
class Options:
    """One training: everything that decides its result. Args: sequences: train on whole ones, not on requests."""

    data: str
    model: str
    length: int  # of the histories
    seed: int  # of the weights and the order
    epochs: int
    batch_size: int
    learning_rate: float
    sequences: bool


def run(task: Task, options: Options) -> dict[str, object]:
    """Train and judge. Returns: quality on requests of the test period, and how the trainer waited in its last epoch."""
    model, items = make_model(options.model, len(task.vocab), options.length, options.seed), len(task.vocab)
    if options.sequences:  # half of the events of each are targets: the other half is what the first of them sees
        examples, longest = task.sequences(max(1, options.length // 2)), options.length + 1  # the last is no input
        make_inputs, loss = sequence_inputs, OverSomeItems(items, seed=options.seed)
    else:
        examples, longest, make_inputs, loss = task.train, options.length, request_inputs, over_all_items
    sizes = {"batch_size": options.batch_size, "seed": options.seed}
    loader = lw.Loader(task.store, examples, projection(task, longest), **sizes)
    inputs = (make_inputs(batch, task.vocab) for batch in epochs_of(loader, options.epochs))
    for step, nats in enumerate(train(model, inputs, loss, options.learning_rate)):
        if step % REPORT_EVERY == 0:
            print(f"step {step:,} of {options.epochs * len(loader):,}: loss {nats:.4f}", flush=True)
    waiting = loader.stats()
    print(waiting, flush=True)
    judged, _ = judge_examples(task, model, task.test, options.length)
    return {
        **asdict(Quality.of(judged, len(task.vocab.values))),
        "steps": options.epochs * len(loader),
        "starvation": waiting.starvation,
        "first_s": waiting.first_s,
        "elapsed_s": waiting.elapsed_s,
    }


def judge_examples(task: Task, model: nn.Module, examples: pa.Table, length: int) -> tuple[Judged, NDArray[np.int64]]:
    """Judge a model on requests. Returns: also how many events the history of each has in all, in the same order."""
    loader = lw.Loader(task.store, examples, projection(task, length), batch_size=TEST_BATCH_SIZE, order="user")
    parts, seen = list[Judged](), list[NDArray[np.int64]]()
    for batch in loader:
        inputs = request_inputs(batch, task.vocab)
        parts.append(judge(model, inputs, task.vocab))
        seen.append(batch.features[SEEN].to_numpy()[inputs.asked[:, 0].numpy()])
    return Judged.concatenate(parts), np.concatenate(seen)


def projection(task: Task, length: int) -> lw.Projection:
    """What the models are fed: the newest `length` events."""
    return lw.Projection(max_len=length, traits=["event_ts", task.item])


def epochs_of(loader: lw.Loader, epochs: int) -> Iterator[Batch]:
    """The batches of some epochs."""
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        yield from loader
