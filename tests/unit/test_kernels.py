"""Kernels are cached, stamped with what they inline, and work without a cache."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import latewood
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


STAMPS = """
import pkgutil
from importlib import import_module
import latewood
from latewood import kernels
for name in sorted(module.name for module in pkgutil.walk_packages(latewood.__path__, "latewood.")):
    if name.split(".")[1] in {names}:
        for kernel in vars(import_module(name)).values():
            if hasattr(kernel, "py_func"):
                print(name, kernel.__name__, kernels.stamp(kernel.py_func))
"""


def test_stamps_are_the_same_in_every_process(tmp_path: Path) -> None:
    """Else what one process compiled no other finds, and each throws away what the others kept: seconds at every start."""
    code = STAMPS.replace("{names}", repr({"stripes", "immutable", "mutable", "compaction", "capture", "materialize"}))
    one, other = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in "12"
    )
    assert len(one.stdout.splitlines()) > 100
    assert one.stdout.splitlines() == other.stdout.splitlines()


def test_no_kernel_takes_the_address_of_an_array_of_its_own() -> None:
    """numba frees an array after its last use, and an address is none: what is written there may be another's by then."""
    for path in sorted(Path(latewood.__path__[0]).rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                given = {argument.arg for argument in function.args.args}
                calls = [call for call in ast.walk(function) if isinstance(call, ast.Call)]
                taken = [call.args[0] for call in calls if getattr(call.func, "id", None) == "address_of"]
                own = [ast.unparse(array) for array in taken if ast.unparse(array) not in given]
                assert not own, f"{path.name}, {function.name}: {own}"


def run(folder: Path, code: str, cache: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *sys.path])
    environment |= {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    environment = os.environ | environment
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


INSTRUCTION = """
from numba import types
from latewood.kernels import intrinsic
from made.sums import plus

@intrinsic
def more(typing_context, x):
    def generate(context, builder, signature, arguments):
        return plus(builder, arguments[0])
    return types.uint64(types.uint64), generate
"""
SUMS = """
from made.numbers import number

def plus(builder, value):
    return builder.add(value, number(value))
"""
NUMBERS = "def number(value):\n    return value.type(2)\n"
INSTRUCTED = """
from numba import uint64
from latewood.kernels import kernel
from made.instruction import more

@kernel
def most(x):
    return more(uint64(x))

print(most(10), sum(most.stats.cache_hits.values()))
"""


def test_a_kernel_is_compiled_anew_when_what_makes_its_instructions_changes(tmp_path: Path) -> None:
    """That is Python, in other modules too, which runs when a kernel is compiled, and not when it is loaded."""

    def outcome() -> str:
        done = run(tmp_path, "import made.instructed", str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    made = tmp_path / "made"
    made.mkdir()
    sources = {"instructed": INSTRUCTED, "instruction": INSTRUCTION, "sums": SUMS, "numbers": NUMBERS, "__init__": ""}
    for name, source in sources.items():
        (made / f"{name}.py").write_text(source)
    assert outcome() == "12 0"
    assert outcome() == "12 1"
    (made / "sums.py").write_text(SUMS.replace("builder.add", "builder.mul"))
    assert outcome() == "20 0"
    (made / "numbers.py").write_text(NUMBERS.replace("2", "7"))
    assert outcome() == "70 0"
    assert outcome() == "70 1"


ONE = "from latewood.kernels import kernel\n\n@kernel\ndef one(x):\n    return {}\n"
KILLED_WHILE_SAVING = """
import os
from numba.core.caching import IndexDataCacheFile
from latewood import kernels
def die(*_):
    os._exit(9)
for file in {IndexDataCacheFile, getattr(kernels, "KernelFile", IndexDataCacheFile)}:
    file._save_data = die
import one
one.one(1)
"""
OVERTAKEN_WHILE_SAVING = """
import os, subprocess, sys
from numba.core.caching import IndexDataCacheFile
from latewood import kernels
save = IndexDataCacheFile._save_data
def let_another_save(self, *arguments):
    # a process that looked at the cache before we wrote to it, and writes now
    code = "from numba.core.caching import IndexDataCacheFile; IndexDataCacheFile._load_index = lambda self: {}"
    subprocess.run([sys.executable, "-c", code + "; import one; assert one.one(1.5) == 3.0"], check=True)
    save(self, *arguments)
for file in {IndexDataCacheFile, getattr(kernels, "KernelFile", IndexDataCacheFile)}:
    file._save_data = let_another_save
import one
assert one.one(1) == 2
"""


def test_a_process_killed_while_it_saves_a_kernel_leaves_no_other_in_its_place(tmp_path: Path) -> None:
    """numba's index would name the new kernel where the file still holds that of an older source: wrong for ever after."""
    (tmp_path / "one.py").write_text(ONE.format("1"))
    assert run(tmp_path, "import one; print(one.one(1))", str(tmp_path / "cache")).stdout.strip() == "1"
    (tmp_path / "one.py").write_text(ONE.format("2"))
    assert run(tmp_path, KILLED_WHILE_SAVING, str(tmp_path / "cache")).returncode == 9
    assert run(tmp_path, "import one; print(one.one(1))", str(tmp_path / "cache")).stdout.strip() == "2"


def test_two_processes_that_save_a_kernel_for_two_types_at_once(tmp_path: Path) -> None:
    """numba would give both the same file, and one would later be loaded for the other."""
    (tmp_path / "one.py").write_text(ONE.format("x + x"))
    done = run(tmp_path, OVERTAKEN_WHILE_SAVING, str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    code = "import one; print(one.one(1), one.one(1.5), sum(one.one.stats.cache_hits.values()))"
    done = run(tmp_path, code, str(tmp_path / "cache"))
    assert done.stdout.split() == ["2", "3.0", "2"], done.stderr


def test_kernels_of_older_sources_do_not_pile_up(tmp_path: Path) -> None:
    for version in range(3):
        (tmp_path / "one.py").write_text(ONE.format(version))
        assert run(tmp_path, "import one; one.one(1); one.one(1.5)", str(tmp_path / "cache")).returncode == 0
    assert len([path for path in (tmp_path / "cache").rglob("*") if path.is_file()]) <= 3


def test_kernels_for_another_processor_lie_beside_and_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(ONE.format("x + x"))
    code = "import one; print(one.one(1), sum(one.one.stats.cache_hits.values()))"
    least = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    for hits in (0, 1):
        for processor in ({}, least):
            done = run(tmp_path, code, str(tmp_path / "cache"), **processor)
            assert done.stdout.split() == ["2", str(hits)], done.stderr


def test_without_a_cache_kernels_warn_and_work(tmp_path: Path) -> None:
    # a function of -c has no file, so numba finds no place for it whoever runs the test
    done = run(tmp_path, TYPED_IN, "/proc/nowhere")
    assert done.returncode == 0, done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr
