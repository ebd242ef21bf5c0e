"""Hunt mutants from the shell: see the package's docstring."""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import monotonic

from tests.simulation.mutants import MUTANTS, hunt_one


def main() -> int:
    """Returns: the exit status, 1 if a mutant survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants", description=__doc__)
    parser.add_argument("chosen", nargs="*", help="rules or names; none: all")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--longer", type=float, default=1.0, help="run so many times the cases each must be found in")
    options = parser.parse_args()
    places = [i for i, m in enumerate(MUTANTS) if not options.chosen or {m.rule, m.name} & set(options.chosen)]
    survived, needed, started = 0, 0, monotonic()
    print("| rule | mutant | cases | what is seen |\n|---|---|---|---|", flush=True)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        jobs = [(place, pool.submit(hunt_one, place, options.start, options.longer)) for place in places]
        for place, job in jobs:
            mutant, found = MUTANTS[place], job.result()
            allowed = int(mutant.within * options.longer)
            survived += found.cases is None
            needed += allowed if found.cases is None else found.cases
            cases = f"{found.cases or 'none'} of {allowed}{'*' if mutant.story else ''}"
            error = found.error.replace("\n", " ").replace("|", "/")[:140]
            print(f"| {mutant.rule} | {mutant.name}: {mutant.what} | {cases} | {error} |", flush=True)
    print("\n*: in cases in which something is likelier than in others: see `story` in the mutants")
    took = f"{needed:,} cases in all, {(monotonic() - started) / 60:.1f} minutes"
    print(f"{len(places)} mutants, {survived} not found, {took}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
