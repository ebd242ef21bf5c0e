"""How this package's kernels are compiled: for explicit types, without the GIL, cached on disk."""

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def kernel(signature: Any) -> Callable[[Function], Function]:
    """Compile a function for one signature; where the cache cannot be written, warn and compile in every process anew."""

    def compile_(function: Function) -> Function:
        cached: Callable[[Function], Function] = njit(signature, nogil=True, cache=True)
        anew: Callable[[Function], Function] = njit(signature, nogil=True)
        try:
            return cached(function)
        except RuntimeError as error:
            if "cache" not in str(error):
                raise
            _warn_once()
            return anew(function)

    return compile_


@functools.cache
def _warn_once() -> None:
    warnings.warn(
        "numba cannot write its cache, so kernels are compiled anew in every process (seconds); "
        "set NUMBA_CACHE_DIR to a writable directory",
        RuntimeWarning,
        stacklevel=3,
    )
