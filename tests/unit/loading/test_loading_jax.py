"""Batches as JAX arrays, checked in a process of their own: where JAX was imported, forks warn, and other tests fork."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from latewood.batch import Batch

CHECKS = Path(__file__).with_name("jax_checks.py")


def test_batches_become_jax_arrays() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", str(CHECKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_jax_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_spec("latewood.loading.jax")
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "latewood.loading.jax", raising=False)
    with pytest.raises(ImportError, match=r"latewood\[jax\]"):
        Batch.to_jax(None)  # type: ignore[arg-type]
