"""The simulation from the shell: see the package's docstring."""

import argparse
import sys
import time
import traceback

from latewood.testing.simulation.case import CaseError, run_case
from latewood.testing.simulation.runner import Summary, run_cases

EVERY_S = 30.0  # between two lines of progress


def main() -> int:
    """Returns: the exit status, 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m latewood.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run the one case of this seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--failures", type=int, default=1, help="stop after so many")
    options = parser.parse_args()
    if options.seed is not None:
        return run_one(options.seed, options.trace)
    return run_many(options)


def run_one(seed: int, trace: bool) -> int:
    """One case."""
    try:
        report = run_case(seed, show=print if trace else None)
    except CaseError as error:
        traceback.print_exception(error.error)
        print(error)
        return 1
    counts = f"{report.operations:,} operations, {report.comparisons:,} sequences compared"
    print(f"seed {seed}: {counts}, no difference; story {report.digest}")
    return 0


def run_many(options: argparse.Namespace) -> int:
    """A range of seeds."""
    began = told = time.monotonic()
    shown: set[int] = set()

    def tell(stop: int, summary: Summary) -> None:
        nonlocal told
        now = time.monotonic()
        for seed, text in summary.failed.items():
            if seed not in shown:
                shown.add(seed)
                print(text, flush=True)
        if now - told >= EVERY_S:
            told = now
            print(f"{summary}, {summary.cases / (now - began):.1f} cases/s; go on with --start {stop}", flush=True)

    summary = run_cases(options.start, options.cases, options.processes, failures=options.failures, progress=tell)
    print(f"{summary}, {summary.cases / (time.monotonic() - began):.1f} cases/s")
    return 1 if summary.failed else 0


if __name__ == "__main__":
    sys.exit(main())
