"""Kernels are cached, stamped with what they inline, and work without a cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latewood import kernels
from latewood.mutable.chains import gather
from latewood.stripes.checksum import xxh64

TYPED_IN = """
from latewood.kernels import kernel

@kernel
def double(x):
    return x + x

assert double(21) == 42
"""

CALLED = (
    "from latewood.kernels import kernel\nfrom layout import TIMES\n\n@kernel\ndef many(x):\n    return TIMES * x\n"
)
CALLER = """
from latewood.kernels import kernel
from called import many

@kernel
def first(x):
    return second(x)  # defined below: what the module imports counts, not what has a name by now

@kernel
def second(x):
    return many(x) + 1

print(first(10), sum(first.stats.cache_hits.values()))
"""


@pytest.mark.parametrize("compiled", [xxh64, gather])
def test_a_kernel_s_stamp_is_ours(compiled) -> None:
    """numba's own stamp sees only the file of the kernel itself; this is the private place where it keeps it."""
    assert compiled._cache._cache_file._source_stamp == kernels.stamp(compiled.py_func)


def run(folder: Path, code: str, cache: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *sys.path])
    environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_a_kernel_is_compiled_anew_when_what_it_inlines_changes(tmp_path: Path) -> None:
    def outcome() -> str:
        done = run(tmp_path, "import caller", str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    (tmp_path / "layout.py").write_text("TIMES = 2\n")
    (tmp_path / "called.py").write_text(CALLED)
    (tmp_path / "caller.py").write_text(CALLER)
    assert outcome() == "21 0"
    assert outcome() == "21 1"
    (tmp_path / "called.py").write_text(CALLED.replace("* x", "* x + 5"))
    assert outcome() == "26 0"
    (tmp_path / "layout.py").write_text("TIMES = 3\n")
    assert outcome() == "36 0"
    assert outcome() == "36 1"


def test_without_a_cache_kernels_warn_and_work(tmp_path: Path) -> None:
    # a function of -c has no file, so numba finds no place for it whoever runs the test
    done = run(tmp_path, TYPED_IN, "/proc/nowhere")
    assert done.returncode == 0, done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr
