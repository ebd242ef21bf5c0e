"""A deterministic simulation of a store: real code on a simulated disk, log and clock, driven by one seed.

    chance     whatever is drawn comes from the seed          scheduler   threads that pass one baton
    host       a process that can fail and die                trace       what happened, line by line
    storage    objects, shared by all processes               log         the log below the mutable tier, likewise
    clock      one time, and clocks that are wrong            store       the real `Store` on those places
    plan       what can happen in a case                      process     opens the store, acts, dies, comes back

    writing    append, correct, load                          reading     capture, backfill, materialize, look back
    changing   compact, alter, scrub, pin, roll back, seal    upkeep      restarts, sudden deaths, time

    model      what the store was given, and the oracle       expected    what becomes of an example: served or refused
    laws       checked at every commit and publication        admission   what an append must have done
    comparing  sequences beside the oracle's                  quiet       checked whenever nothing is under way
    tools      `verify` and `why`, judged                     world       all of these together
    case       one seed, from plan to verdict                 runner      many seeds, on several processors

Only the places below the storage seam and below the log are simulated, and time. Everything else is the code that ships.
A process may die before and after every operation of a seam; storage may refuse, fail after success, let a put that was
given up come through later, deny put-if-absent to the one who won, list in pages between which things change, and bring
back after a power cut what it was just deleting.

    python -m latewood.testing.simulation --cases 10000 --processes 2     many cases, from --start on
    python -m latewood.testing.simulation --seed 7 --trace                one case, and all that happened in it
"""

from latewood.testing.simulation.case import CaseError, Report, run_case
from latewood.testing.simulation.runner import Summary, run_cases

__all__ = ["CaseError", "Report", "Summary", "run_case", "run_cases"]
