"""Results as JSON, one file for all: written whole after each, so that a run that is stopped goes on where it was."""

import json
from collections.abc import Mapping
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
        """Add an entry, or replace the one with the same key."""
        entry = {"key": dict(key), **result}
        self.all[kind] = [other for other in self.of(kind) if other["key"] != entry["key"]] + [entry]
        if self._path:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = self._path.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(self.all, indent=1) + "\n")
            unfinished.replace(self._path)
        return entry
