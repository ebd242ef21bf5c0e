"""How kernels are compiled: without the GIL, cached on disk, in machine arithmetic.

numba's cache notices a change only in the file of the function itself, but a kernel inlines functions of other files.
So here a cached kernel is stamped with the contents of every kernel file that it may have inlined: those of this
package and those of its own.
"""

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import xxhash
from numba import njit
from numba.extending import intrinsic as _intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])
HERE = Path(__file__).parent

intrinsic: Any = _intrinsic  # instructions of our own; untyped, since numba's type has their first argument


def kernel(function: Function) -> Function:
    """Compile a function with numba; where the cache cannot be written, warn and compile in every process anew."""
    compiled: Any = njit(nogil=True, error_model="numpy", boundscheck=False)(function)
    try:
        compiled.enable_caching()
        stamp = _stamp(HERE) + _stamp(Path(function.__code__.co_filename).parent)
        compiled._cache._cache_file._source_stamp = stamp  # tests/unit/stripes/test_jit.py notices if this moves
    except RuntimeError:
        _warn_once()
    except AttributeError:  # another numba: its own stamp has to do
        pass
    return cast(Function, compiled)


@functools.cache
def _stamp(folder: Path) -> int:
    """A hash of the kernel files of a folder."""
    digest = xxhash.xxh3_64()
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        if b"@kernel" in source or b"intrinsic" in source or path.name == "layout.py":
            digest.update(source)
    return digest.intdigest()


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        "numba cannot write its cache, so kernels are compiled anew in every process (seconds); "
        "set NUMBA_CACHE_DIR to a writable directory",
        RuntimeWarning,
        stacklevel=3,
    )
