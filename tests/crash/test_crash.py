"""A slice of the crash run: a dozen kills, on a seed of its own. `make crash` does hundreds."""

import json
import subprocess
import sys
from pathlib import Path

KILLS = 12


def test_killed_processes_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "crash_run.py"), "--seed", "12", "--kills", str(KILLS)]
    run = subprocess.run([*command, "--folder", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(run.stdout)
    assert figures["kills"] == KILLS
    assert figures["checks"] >= KILLS
    assert figures["examples_compared"] > 0
    assert not list((tmp_path / "run").rglob("*.stripes"))
