"""A mutant: the real code with one rule of docs/protocol.md switched off, and how soon the simulation must notice.

If the simulation finds nothing, either the rule is not needed or it is not tested.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from latewood.mutable.logged_tier import LoggedTier
from latewood.retention import Retention
from latewood.testing.simulation import CaseError, plan, run_case
from latewood.testing.simulation.case import WRITERS
from latewood.testing.simulation.chance import Chance
from latewood.testing.simulation.host import Faults
from latewood.testing.simulation.plan import Plan
from latewood.testing.simulation.process import Action

Patches = Iterable[AbstractContextManager[object]]
Story = AbstractContextManager[object]  # as a patch of what a case is drawn from; entered again and again


@dataclass(frozen=True)
class Mutant:
    """What is switched off. `within`: in so many cases it must be found.

    `story`: what is likelier in these cases than in others, where it would take too long to come about by chance.
    """

    rule: str
    name: str
    what: str
    within: int
    make: Callable[[], Patches]
    story: tuple[Story, ...] = ()


@dataclass(frozen=True)
class Found:
    """After how many cases, and what was seen; `cases` is None if nothing was."""

    cases: int | None
    error: str


MUTANTS: list[Mutant] = []


def often(*actions: Action) -> Story:
    """Writers do these things ten times as often."""
    return patch.dict(WRITERS, {action: 10 * WRITERS[action] for action in actions})


def never(*actions: Action) -> Story:
    """Writers do none of these things."""
    return patch.dict(WRITERS, dict.fromkeys(actions, 0.0))


def faults(**rates: float) -> Story:
    """What goes wrong, wherever anything does, is this and nothing else."""
    return patch.object(plan, "_draw_faults", lambda chance: Faults(**rates))


def planned(*, busy: int = 1, max_events: int | None = None) -> Story:
    """Processes do so many times as much between two looks at everything; stores begin with this retention."""
    draw = Plan.draw

    def drawn(chance: Chance) -> Plan:
        usual = draw(chance)
        retention = usual.retention if max_events is None else Retention(None, max_events)
        return replace(usual, actions=busy * usual.actions, retention=retention)

    return patch.object(Plan, "draw", drawn)


def with_lists() -> Story:
    """Events have traits of lists."""
    draw = Plan.draw
    return patch.object(Plan, "draw", lambda chance: replace(draw(chance), lists=True))


def slow(owner: Any, name: str) -> Story:
    """So much time passes before this method of the mutable tier, or this function of a store, that others come first."""
    call = getattr(owner, name)

    def late(first: Any, *arguments: Any, **options: Any) -> Any:
        look_around(first if isinstance(first, LoggedTier) else first.tier)
        return call(first, *arguments, **options)

    return patch.object(owner, name, late)


def look_around(tier: LoggedTier) -> None:
    """Take so long that somebody else is likely to come in between, and do no harm otherwise."""
    for _ in range(30):
        tier.state()


def mutant(
    rule: str, within: int, *, story: tuple[Story, ...] = ()
) -> Callable[[Callable[[], Patches]], Callable[[], Patches]]:
    """Register a function that says which patches make the mutant; its docstring says what it does wrong, and then why."""

    def register(make: Callable[[], Patches]) -> Callable[[], Patches]:
        what = (make.__doc__ or "").split("\n\n")[0]
        MUTANTS.append(Mutant(rule, make.__name__, " ".join(what.split()), within, make, story))
        return make

    return register


def hunt(mutant: Mutant, start: int, cases: int) -> Found:
    """Run cases until one fails that the real code passes: a case that fails anyhow says nothing about the mutant.

    An error that Python makes of a patch that does not fit the code is no finding, and ends the hunt.
    """
    with ExitStack() as stories:
        for story in mutant.story:
            stories.enter_context(story)
        for seed in range(start, start + cases):
            if (error := _failure(seed, mutant.make)) is None or _failure(seed, tuple) is not None:
                continue
            if isinstance(error, KeyError):
                continue  # a simulated place trips over what it was not made for: no law says so
            said = f"{type(error).__name__}: {error}"
            if isinstance(error, (TypeError, AttributeError, NameError)):
                return Found(None, f"the patch does not fit the code: seed {seed}: {said}")
            return Found(seed - start + 1, said)
    return Found(None, "")


def _failure(seed: int, make: Callable[[], Patches]) -> BaseException | None:
    """What a case fails with under some patches, which last for this case."""
    with ExitStack() as stack:
        try:
            for patched in make():
                stack.enter_context(patched)
            run_case(seed)
        except CaseError as error:
            return error.error
        except AttributeError as error:  # what is to be patched is not there
            return error
    return None
