"""Functions that run in a process of their own: for peak memory, and for peers whose threads are set before they load."""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_SAMPLE_S = 0.002


def run_apart(function: Callable[..., T], *arguments: Any, environment: Mapping[str, str] | None = None) -> T:
    """Run a module's function in a new process. Args: environment: set there, before anything is imported."""
    with _environment(environment or {}), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def watch_memory(function: Callable[..., T], *arguments: Any) -> tuple[T, int]:
    """Run a module's function in a new process, and sample its memory from here. Returns: its result, peak bytes.

    What is counted is anonymous memory (RssAnon): what the process wrote itself. Pages of mapped files are not, since
    they are the page cache's, shared, and given back when memory is short. Sampled every 2 ms: a peak that is
    shorter may be missed.
    """
    peak = 0
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        process = pool.submit(os.getpid).result()
        job = pool.submit(function, *arguments)
        while not job.done():
            peak = max(peak, anonymous_bytes(process))
            time.sleep(_SAMPLE_S)
        return job.result(), peak


def anonymous_bytes(process: int | str = "self") -> int:
    """Resident anonymous memory. Raises: OSError: not Linux, which alone tells it apart."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0  # it is ending


class _environment:  # noqa: N801 - a context manager, used as a function
    """Variables for processes that start inside."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._before: dict[str, str] = {}

    def __enter__(self) -> None:
        self._before = dict(os.environ)
        os.environ.update(self._variables)

    def __exit__(self, *_: object) -> None:
        for name in self._variables:
            if name in self._before:
                os.environ[name] = self._before[name]
            else:
                del os.environ[name]
