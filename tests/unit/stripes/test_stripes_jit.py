"""Kernels are cached, stamped with the sources they inline, and work without a cache."""

import os
import subprocess
import sys

from latewood.stripes import jit
from latewood.stripes.checksum import xxh64

KERNEL = """
from latewood.stripes.jit import kernel

@kernel
def double(x):
    return x + x

assert double(21) == 42
"""


def test_a_kernel_s_stamp_is_ours() -> None:
    """numba's own stamp sees only the file of the kernel itself; this is the private place where it keeps it."""
    folder = jit.HERE
    assert xxh64._cache._cache_file._source_stamp == jit._stamp(folder) + jit._stamp(folder)


def test_the_stamp_follows_the_kernel_files(tmp_path) -> None:
    (tmp_path / "plain.py").write_text("x = 1")
    nothing = jit._stamp(tmp_path)
    (tmp_path / "kernels.py").write_text("@kernel\ndef f(): ...")
    jit._stamp.cache_clear()
    assert jit._stamp(tmp_path) != nothing


def test_without_a_cache_kernels_warn_and_work() -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": "/proc/nowhere", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KERNEL], env=environment, capture_output=True, text=True, check=False)
    # a function of -c has no file, so numba finds no place for it whoever runs the test
    assert done.returncode == 0, done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr
