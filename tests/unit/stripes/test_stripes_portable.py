"""No kernel needs a certain processor: without vector instructions beyond SSE2 the results are the same, and the machine
code of another architecture can be made of what numba hands to LLVM."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba import njit, types

from latewood.stripes import unroll
from latewood.stripes.addresses import prefetch
from latewood.stripes.checksum import xxh64
from latewood.stripes.pack import pack_values
from latewood.stripes.pick import _pick_times
from latewood.stripes.running import run_sums
from latewood.stripes.search import search_stripe, true_places
from latewood.stripes.unpack import unpack_rows

TESTS = Path(__file__).parents[2]
U64 = types.uint64


def test_encodings_without_wide_vectors() -> None:
    """As on the oldest x86-64: numba compiles every kernel once more, for a processor with nothing but the base.

    That takes most of a minute, so it is cached like all kernels are, beside those for the processor that is there.
    """
    least = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    units = Path(__file__).parent
    tests = [
        TESTS / "property" / "test_encodings.py",
        units / "test_stripes_places.py",
        f"{units / 'test_stripes_search.py'}::test_picked_is_decoded",
        f"{units / 'test_stripes_search.py'}::test_combinations_find_what_plain_python_finds",
    ]
    command = [sys.executable, "-m", "pytest", *map(str, tests), "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        command, env=os.environ | least, capture_output=True, text=True, check=False, cwd=TESTS.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr


@njit
def ask(address: Any) -> None:
    prefetch(address)


@pytest.fixture(scope="module")
def arm() -> llvm.TargetMachine:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    return llvm.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(opt=2)


@pytest.mark.parametrize(
    ("compiled", "arguments"),
    [
        *((kernel, [U64] * 5) for kernel in unroll._COMPILED.values()),
        (unpack_rows, [U64] * 7),
        (pack_values, [U64] * 7),
        (run_sums, [U64] * 3),
        (_pick_times, [U64] * 9),
        (search_stripe, [*[U64] * 4, types.boolean, U64]),
        (true_places, [*[U64] * 4, types.boolean, U64]),
        (xxh64, [U64] * 2),
        (ask, [U64]),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_machine_code_for_arm(arm: llvm.TargetMachine, compiled: Any, arguments: list[Any]) -> None:
    fresh = njit(nogil=True, error_model="numpy", boundscheck=False)(compiled.py_func)
    fresh.compile(tuple(arguments))
    [source] = fresh.inspect_llvm().values()
    assert "llvm.x86" not in source
    module = llvm.parse_assembly(source)
    module.triple, module.data_layout = arm.triple, str(arm.target_data)
    assert np.frombuffer(arm.emit_object(module)[:4], "S4") == b"\x7fELF"
