"""A mutant: the real code with one rule of docs/protocol.md switched off, and how soon the simulation must notice.

If the simulation finds nothing, either the rule is not needed or it is not tested.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from latewood.testing.simulation import CaseError, run_case

Patches = Iterable[AbstractContextManager[object]]


@dataclass(frozen=True)
class Mutant:
    """What is switched off. `within`: in so many cases it must be found."""

    rule: str
    name: str
    what: str
    within: int
    make: Callable[[], Patches]


@dataclass(frozen=True)
class Found:
    """After how many cases, and what was seen; `cases` is None if nothing was."""

    cases: int | None
    error: str


MUTANTS: list[Mutant] = []


def mutant(rule: str, within: int) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    """Register a function that says which patches make the mutant; its docstring says what it does wrong."""

    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTANTS.append(Mutant(rule, make.__name__, " ".join((make.__doc__ or "").split()), within, make))
        return make

    return register


def hunt(mutant: Mutant, start: int, cases: int) -> Found:
    """Run cases until one fails."""
    with ExitStack() as stack:
        for patch in mutant.make():
            stack.enter_context(patch)
        for seed in range(start, start + cases):
            try:
                run_case(seed)
            except CaseError as error:
                return Found(seed - start + 1, f"{type(error.error).__name__}: {error.error}")
    return Found(None, "")
