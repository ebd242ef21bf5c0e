"""Results as JSON: a file is written whole after each, so that a run that is stopped goes on where it was."""

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

Entry = dict[str, Any]


class Results:
    """Entries by kind ("lengths", "parity", "runs"), in memory alone if there is no path."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.all: dict[str, list[Entry]] = json.loads(path.read_text()) if path and path.exists() else {}

    def of(self, kind: str) -> list[Entry]:
        """All entries of a kind, in the order in which they came."""
        return self.all.get(kind, [])

    def find(self, kind: str, key: Mapping[str, Any]) -> Entry | None:
        """The entry whose `key` this is: what was run, as opposed to what came of it."""
        return next((entry for entry in self.of(kind) if entry["key"] == dict(key)), None)

    def put(self, kind: str, key: Mapping[str, Any], result: Mapping[str, Any]) -> Entry:
        """Add an entry, or replace the one with the same key; and say on what machine, with which versions."""
        entry = {"key": dict(key), **result}
        self.all[kind] = [other for other in self.of(kind) if other["key"] != entry["key"]] + [entry]
        self.all["machine"] = [_machine()]
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(self.all, indent=1) + "\n")
            unfinished.replace(self._path)
        return entry


def _machine() -> Entry:
    names = ("latewood", "numpy", "pyarrow", "torch")
    versions = {"python": platform.python_version()} | {name: version(name) for name in names}
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"processor": (models or [platform.machine()])[0], "cores": os.cpu_count(), "versions": versions}
