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


class MisfitError(Exception):
    """A mutant's patch calls what is not there, or with other arguments: the code has changed since."""


MUTANTS: list[Mutant] = []


def mutant(rule: str, within: int) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    """Register a function that says which patches make the mutant; its docstring says what it does wrong."""

    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        MUTANTS.append(Mutant(rule, make.__name__, " ".join((make.__doc__ or "").split()), within, make))
        return make

    return register


def hunt(mutant: Mutant, start: int, cases: int) -> Found:
    """Run cases until one fails that the real code passes: a case that fails anyhow says nothing about the mutant.

    Raises: MisfitError: the patch does not fit the code that it patches.
    """
    for seed in range(start, start + cases):
        if (error := _failure(seed, mutant.make())) is None or _failure(seed, ()) is not None:
            continue
        said = f"{type(error).__name__}: {error}"
        if isinstance(error, (TypeError, AttributeError, NameError)):
            raise MisfitError(f"{mutant.name}: no law was broken by seed {seed}, but {said}") from error
        return Found(seed - start + 1, said)
    return Found(None, "")


def _failure(seed: int, patches: Patches) -> BaseException | None:
    """What a case fails with under some patches, which last for this case."""
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        try:
            run_case(seed)
        except CaseError as error:
            return error.error
    return None
