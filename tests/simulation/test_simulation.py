"""A bounded slice of the simulation, and that a seed always tells the same story."""

import os
import subprocess
import sys

import pytest

from latewood.testing.simulation import run_case, run_cases
from latewood.testing.simulation.case import replay

CASES = int(os.environ.get("LATEWOOD_SIMULATION_CASES", "100"))
SLICES = 4


@pytest.mark.parametrize("slice_", range(SLICES))
def test_no_case_fails(slice_: int) -> None:
    summary = run_cases(slice_ * CASES // SLICES, CASES // SLICES)
    assert not summary.failed, "\n".join(summary.failed.values())
    assert summary.comparisons > CASES // SLICES


def test_a_seed_always_tells_the_same_story() -> None:
    assert [run_case(seed) for seed in range(5)] == [run_case(seed) for seed in range(5)]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_tells_the_same_story(hash_seed: str) -> None:
    report = run_case(3)
    command = [sys.executable, *replay(3).split()[1:]]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *trace, verdict = done.stdout.splitlines()
    assert len(trace) == report.operations
    assert verdict.endswith(f"no difference; story {report.digest}")
