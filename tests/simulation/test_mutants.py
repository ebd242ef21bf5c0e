"""The simulation notices when a rule is switched off.

Only the mutants that it finds soon; all of them: `python -m tests.simulation.mutants`.
"""

import pytest

from simulation.mutants import MUTANTS, Mutant, hunt

SOON = 50  # cases, most of which are not needed


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.within <= SOON], ids=lambda m: f"{m.rule} {m.name}")
def test_a_mutant_is_found(mutant: Mutant) -> None:
    found = hunt(mutant, 0, mutant.within)
    assert found.cases is not None, f"{mutant.rule} does not matter: {mutant.what} {found.error}"


def test_every_mutant_says_what_it_does() -> None:
    assert all(mutant.what.endswith(".") for mutant in MUTANTS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.rule for mutant in MUTANTS} == {f"R{n}" for n in range(1, 21)} - {"R18"}
