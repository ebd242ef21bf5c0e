"""`python -m trainings`: train a model on a data set and say how good it is, and how long it waited for data."""

import argparse
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from trainings.lengths import EPOCHS, Cell, measure
from trainings.parity import compare
from trainings.results import Results
from trainings.task import Task, complete_journey, git_events
from trainings.train import MODELS
from trainings.training import Options, run

DATA = ("git-events", "completejourney")


def main() -> None:
    arguments = _parse()
    with TemporaryDirectory() as name:
        if arguments.what == "lengths":
            _lengths(Path(name), arguments)
        elif arguments.parity:
            _parity(Path(name), arguments)
        else:
            _train(Path(name), arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainings", description=__doc__)
    verbs = parser.add_subparsers(dest="what", required=True)
    for name in sorted(MODELS):
        verb = verbs.add_parser(name, help=f"train {name} to predict the next item")
        verb.add_argument("data", choices=DATA)
        verb.add_argument("--examples", type=int, default=100_000, help="to train on: requests, drawn at random")
        verb.add_argument("--sequences", action="store_true", help="train on whole sequences instead: on every event")
        verb.add_argument("--batch-size", type=int, help="128 requests, or 16 sequences")
        verb.add_argument("--epochs", type=int, default=1)
        verb.add_argument("--learning-rate", type=float, default=1e-3)
        verb.add_argument("--parity", action="store_true", help="instead: an epoch of them, fed from Fat Rows too")
        _add_common(verb, lengths=[256], seeds=[0])
    verb = verbs.add_parser(
        "lengths", help="quality against history length; what is in --json already is not run again"
    )
    verb.add_argument("data", choices=DATA, nargs="+")
    _add_common(verb, lengths=[16, 64, 256, 1024], seeds=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    if ("git-events" in arguments.data) != (arguments.events is not None):
        parser.error("--events goes with git-events")
    return arguments


def _add_common(verb: argparse.ArgumentParser, lengths: list[int], seeds: list[int]) -> None:
    verb.add_argument("--events", type=Path, help="git-events: the Parquet file")
    verb.add_argument("--length", type=int, nargs="+", default=lengths, help="of the histories; one training for each")
    verb.add_argument(
        "--seed", type=int, nargs="+", default=seeds, help="of the weights and the order; a training each"
    )
    verb.add_argument("--test-examples", type=int, default=10_000)
    verb.add_argument("--json", type=Path, help="keep the results there, beside those that are there")


def _task(folder: Path, data: str, arguments: argparse.Namespace, train: int) -> Task:
    sizes = {"train": train, "test": arguments.test_examples}
    make = partial(git_events, folder / data, arguments.events) if data == "git-events" else None
    task = (make or partial(complete_journey, folder / data))(**sizes)
    print(f"{data}: {len(task.train):,} examples, {len(task.test):,} to test, {len(task.vocab):,} items", flush=True)
    return task


def _train(folder: Path, arguments: argparse.Namespace) -> None:
    task, results = _task(folder, arguments.data, arguments, arguments.examples), Results(arguments.json)
    batch_size = arguments.batch_size or (16 if arguments.sequences else 128)
    for length in arguments.length:
        for seed in arguments.seed:
            sizes = (arguments.epochs, batch_size, arguments.learning_rate, arguments.sequences)
            options = Options(arguments.data, arguments.what, length, seed, *sizes)
            print(results.put("runs", asdict(options), run(task, options)), flush=True)


def _parity(folder: Path, arguments: argparse.Namespace) -> None:
    task, results = _task(folder, arguments.data, arguments, arguments.examples), Results(arguments.json)
    for length in arguments.length:
        parity = compare(task, folder, arguments.what, length)
        key = {"data": arguments.data, "model": arguments.what, "length": length, "examples": len(task.train)}
        print(results.put("parity", key, parity.summary()), flush=True)


def _lengths(folder: Path, arguments: argparse.Namespace) -> None:
    tasks: dict[str, Callable[[], Task]] = {
        data: partial(_task, folder, data, arguments, train=1) for data in arguments.data
    }
    cells = [
        Cell(data, length, seed, arguments.test_examples, EPOCHS[data])
        for seed in arguments.seed
        for data in arguments.data
        for length in arguments.length
    ]
    for result in measure(tasks, cells, Results(arguments.json)):
        print(result, flush=True)


if __name__ == "__main__":
    main()
