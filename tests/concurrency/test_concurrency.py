"""A few seconds of the concurrency run. `make concurrency` runs for minutes."""

import json
import subprocess
import sys
from pathlib import Path


def test_processes_share_a_store(tmp_path: Path) -> None:
    command = [sys.executable, str(Path(__file__).parent / "concurrency_run.py"), "--seconds", "6", "--seed", "12"]
    run = subprocess.run([*command, "--folder", str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    figures = json.loads(run.stdout)
    assert figures["kills"] > 0
    assert figures["generations"] > 1
    assert figures["examples_compared"] > 0
    everyone = {"Writer", "Corrector", "Compactor", "Server", "Trainer", "Scrubber", "Victim"}
    assert set(figures["acts"]) == everyone
