"""`python -m trainings`: train a model on a data set and say how good it is, and how long it waited for data."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

import latewood as lw
from trainings.inputs import Inputs, make_inputs
from trainings.parity import compare
from trainings.task import Task, complete_journey, git_events
from trainings.train import MODELS, evaluate, make_model, train

DATA = ("git-events", "completejourney")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainings", description=__doc__)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--events", type=Path, help="git-events: the Parquet file")
    parser.add_argument("--length", type=int, nargs="+", default=[256], help="of the histories; one training for each")
    parser.add_argument(
        "--seed", type=int, nargs="+", default=[0], help="of the weights and the order; a training each"
    )
    parser.add_argument("--examples", type=int, default=100_000, help="to train on")
    parser.add_argument("--test-examples", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--parity", type=int, metavar="STEPS", help="instead: so many steps, fed from Fat Rows too")
    parser.add_argument("--json", type=Path, help="write the results there")
    arguments = parser.parse_args()
    if (arguments.data == "git-events") != (arguments.events is not None):
        parser.error("--events goes with git-events")
    results = []
    with TemporaryDirectory() as name:
        folder, sizes = Path(name), {"train": arguments.examples, "test": arguments.test_examples}
        if arguments.data == "git-events":
            task = git_events(folder, arguments.events, **sizes)
        else:
            task = complete_journey(folder, **sizes)
        print(f"{len(task.train):,} examples, {len(task.test):,} to test, {len(task.vocab):,} items", flush=True)
        for length in arguments.length:
            if arguments.parity:
                parity = compare(task, folder, arguments.model, length, arguments.parity)
                results.append({"length": length, "steps": len(parity.latewood), "different": parity.different})
                print(results[-1], flush=True)
                continue
            for seed in arguments.seed:
                results.append(run(task, arguments, length, seed))
                print(results[-1], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


def run(task: Task, arguments: argparse.Namespace, length: int, seed: int) -> dict[str, float]:
    """One training. Returns: its quality, and how it starved for batches in its last epoch."""
    model = make_model(arguments.model, len(task.vocab), length, seed)
    loader = _loader(task, task.train, length, batch_size=arguments.batch_size, seed=seed)
    for epoch in range(arguments.epochs):
        loader.set_epoch(epoch)
        for step, loss in enumerate(train(model, _inputs(task, loader, length))):
            if step % 100 == 0:
                print(f"length {length}, seed {seed}, epoch {epoch}, step {step}: loss {loss:.4f}", flush=True)
        print(loader.stats(), flush=True)
    test = _loader(task, task.test, length, batch_size=arguments.batch_size, order="user")
    quality = evaluate(model, _inputs(task, test, length))
    return {"length": length, "seed": seed, **asdict(quality), "starvation": loader.stats().starvation}


def _inputs(task: Task, loader: lw.Loader, length: int) -> Iterator[Inputs]:
    return (make_inputs(batch, task.item, task.vocab, length) for batch in loader)


def _loader(task: Task, examples: pa.Table, length: int, **options: object) -> lw.Loader:
    return lw.Loader(task.store, examples, lw.Projection(max_len=length, traits=["event_ts", task.item]), **options)


if __name__ == "__main__":
    main()
