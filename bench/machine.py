"""What a result was measured on: a figure without its machine and versions means nothing."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("latewood", "numpy", "pyarrow", "numba", "lmdb", "polars", "duckdb", "pylance", "torch")


def describe(scratch: Path) -> dict[str, Any]:
    """The machine and the versions, for a report. Args: scratch: where the data lies: its file system counts."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "filesystem": _filesystem(scratch),
        "commit": _commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _memory_gib() -> float | None:
    try:
        size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return round(size_bytes / 2**30, 1)


def _filesystem(folder: Path) -> str:
    """The type of the mount that a folder is on: on one in memory nothing waits for a disk."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown file system"
    place, types = folder.resolve(), dict[Path, str]()
    for line in mounts.read_text().splitlines():
        _, point, kind, *_ = line.split()
        if place.is_relative_to(point):
            types[Path(point)] = kind
    return types[max(types, key=lambda point: len(point.parts))] if types else "unknown file system"


def _commit() -> str | None:
    """Of the clone that this lies in, with "+" where the code differs from it; None where it is no clone."""
    folder = Path(__file__).parents[1]

    def git(*command: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True).stdout

    try:
        changed = git("status", "--porcelain", "--", "src", "bench")
        return git("rev-parse", "--short", "HEAD").strip() + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
