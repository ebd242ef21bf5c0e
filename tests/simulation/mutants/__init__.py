"""Mutants: the real code with one rule of docs/protocol.md switched off each, for the simulation to find.

    python -m tests.simulation.mutants              all of them, and a table of how many cases each one took
    python -m tests.simulation.mutants R11 R16      those of some rules
    python -m tests.simulation.mutants no_cutoff    one of them

Some are hunted in cases in which something is likelier than in others (`story`): what writers do ten times as often, one
kind of fault alone, more of everything. The code, the laws and the seeds are the same; it would only take too long.

R18 is not here: checksums find accidents, and the simulated disk has none; see tests/damage. R21 is about a mutable tier
that there is not.
"""

from . import changes, clocks, publishing, reads
from .mutant import MUTANTS, Found, Mutant, hunt


def hunt_one(place: int, start: int, longer: float) -> Found:
    """Hunt the mutant at a place of the list, for so many times as long as it must be found in."""
    return hunt(MUTANTS[place], start, int(MUTANTS[place].within * longer))


__all__ = ["MUTANTS", "Found", "Mutant", "changes", "clocks", "hunt", "hunt_one", "publishing", "reads"]
