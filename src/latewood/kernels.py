"""How kernels are compiled: without the GIL, cached on disk, in machine arithmetic. The one place that decides it.

numba's cache notices a change only in the file of the function itself, but a kernel inlines functions of other files, and
numbers that they define. So a cached kernel is stamped with all that it may have inlined: the source of its own module,
and through that module's imports every other kernel and instruction with its source, and every number with its value.
An instruction is made by Python while a kernel compiles: where a module makes some, so are the plain functions that it
imports a part of them, and those that these import.

Nor does its cache cope with several processes at once, or with one that is killed: its index is written before the file
it names, so that a new kernel's name may stand for an older one's code, or one type's for another's. Here every compiled
kernel is a file of its own, named by all that it depends on, written whole or not at all, and nothing else is kept.
"""

import functools
import pickle
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeVar, cast

import numpy as np
import xxhash
from numba import njit
from numba.core.caching import IndexDataCacheFile
from numba.extending import intrinsic as _intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

intrinsic: Any = _intrinsic  # instructions of our own; untyped, since numba's type has their first argument
_stamps: dict[tuple[str, bool], int] = {}  # of modules, by file, and whether they make instructions


def kernel(function: Function) -> Function:
    """Compile a function with numba, for whatever types it is called with."""
    return cast(Function, _compiled(function))


def typed_kernel(signature: Any) -> Callable[[Function], Function]:
    """Compile a function for one signature, at once: calls with other types are refused."""

    def compile_(function: Function) -> Function:
        compiled = _compiled(function)
        compiled.compile(signature)
        compiled.disable_compile()
        return cast(Function, compiled)

    return compile_


def address(compiled: Any) -> int:
    """Where the machine code of a typed kernel is, for as long as the process lives; it takes arguments as numba does."""
    [version] = compiled.overloads.values()
    where: int = version.library.get_pointer_to_function(version.fndesc.mangled_name)
    return where


def _compiled(function: Callable[..., Any]) -> Any:
    """Where the cache cannot be written, warn and compile in every process anew."""
    compiled: Any = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    try:
        compiled.enable_caching()
        # a private place: tests/unit/test_kernels.py notices if it moves
        compiled._cache._cache_file = KernelFile(
            compiled._cache._cache_path, compiled._cache._impl.filename_base, stamp(function)
        )
    except RuntimeError:
        _warn_once()
    except AttributeError:  # another numba: its own stamp has to do
        pass
    return compiled


class KernelFile(IndexDataCacheFile):
    """Where the compiled versions of one kernel are: a file each, without an index.

    Args: as numba passes them: a folder, the beginning of the names, and what stands for the sources.
    """

    def save(self, key: Any, data: Any) -> None:
        """Keep a compiled version, and delete those of other sources."""
        name = self._name(key)
        self._save_data(name, (self._version, key, data))
        current = self._name_of_source()
        for path in Path(self._cache_path).glob(f"{self._base}.*.nbc"):
            if not path.name.startswith(current):
                with suppress(OSError):
                    path.unlink()

    def load(self, key: Any) -> Any:
        """What was kept; None if there is nothing, or nothing that can be read."""
        with suppress(OSError, EOFError, pickle.UnpicklingError):
            version, found, data = self._load_data(self._name(key))
            return data if (version, found) == (self._version, key) else None
        return None

    def flush(self) -> None:
        """Keep nothing any more."""
        for path in Path(self._cache_path).glob(f"{self._base}.*.nbc"):
            path.unlink(missing_ok=True)

    @property
    def _base(self) -> str:
        return str(self._index_name).removesuffix(".nbi")

    def _name_of_source(self) -> str:
        return f"{self._base}.{self._source_stamp:016x}."

    def _name(self, key: Any) -> str:
        """Types and processors print as what they are."""
        return f"{self._name_of_source()}{xxhash.xxh3_64_hexdigest(repr((self._version, key)).encode())}.nbc"


def stamp(function: Callable[..., Any]) -> int:
    """A hash of all that a function of this module, compiled, may have inlined."""
    return _stamp_function(function, makes_instructions=False)


def _stamp_function(function: Callable[..., Any], *, makes_instructions: bool) -> int:
    return _stamp_module(function.__code__.co_filename, function.__globals__, makes_instructions)


def _stamp_module(file: str, names: dict[str, Any], makes_instructions: bool) -> int:
    makes_instructions |= any(value is intrinsic for value in names.values())
    known = file, makes_instructions
    if known in _stamps:
        return _stamps[known]
    _stamps[known] = 0  # for modules that import each other
    digest = xxhash.xxh3_64(_source(Path(__file__)) + _source(Path(file)))
    for name, value in sorted(names.items()):
        digest.update(f"{name}={_stamp_value(value, names, makes_instructions)}".encode())
    _stamps[known] = digest.intdigest()
    return _stamps[known]


def _stamp_value(value: Any, names: dict[str, Any], makes_instructions: bool) -> str:
    """What a kernel, or what makes instructions, may take from a name of its module; empty for what it cannot."""
    if isinstance(value, tuple):
        return ",".join(_stamp_value(part, names, makes_instructions) for part in value)
    if isinstance(value, int | float | np.generic):
        return repr(value)
    package = names["__name__"].split(".")[0]
    if isinstance(value, ModuleType) and value.__name__.startswith(f"{package}."):
        return str(_stamp_module(str(value.__file__), vars(value), makes_instructions))
    if makes_instructions and isinstance(value, FunctionType) and str(value.__module__).startswith(f"{package}."):
        return str(_stamp_function(value, makes_instructions=True))
    function: Any = getattr(value, "py_func", None) or getattr(value, "_defn", None)  # of a kernel, of an instruction
    return str(stamp(function)) if hasattr(function, "__code__") else ""


@functools.cache
def _source(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""  # what is typed in has no file


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        "numba cannot write its cache, so kernels are compiled anew in every process (seconds); "
        "set NUMBA_CACHE_DIR to a writable directory",
        RuntimeWarning,
        stacklevel=4,
    )
