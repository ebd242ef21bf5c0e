"""The suites, by name. Each is a module with `run(session, folder) -> Results`, found here alone.

Args of `run`: session, the settings and the shared data; folder, an empty one that is deleted afterwards.
"""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from bench.report import Results
from bench.session import Session

SUITES = {
    "loader": "from an example log to numpy and torch, against Fat Rows in Parquet and list columns in Lance",
    "scan": "histories in memory to numpy, against the limits of the machine",
    "training": "shuffled order against user order, and torch tensors against a DataLoader over Fat Rows",
    "lists": "list traits, against slices of plain arrays and list columns in Parquet",
    "checks": "what checksums cost: of blocks, and of pointers",
    "streams": "the last 1,000 likes of long histories, against decoding them whole",
    "paper": "Table 1 of the paper, side by side with ours, on real purchases",
    "build": "backfill and a first epoch, against building Fat Rows and reading them",
    "append": "durable batches of events, against one opaque LMDB value per batch",
    "capture": "one request's history as served, against one LMDB get",
    "compact": "the first compaction and the daily one, against a sort and Parquet; bytes per event",
    "memory": "a loader's peak memory, in batches",
    "startup": "imports against pyarrow's and numba's, and kernels from a warm cache",
    "scale": "cost per event against users, length, requests per user and generations",
}


class Suite(Protocol):
    """A module of this package."""

    def run(self, session: Session, folder: Path) -> Results:
        """Compare outputs, then measure. Raises: RuntimeError: outputs differ."""


def load(name: str) -> Suite:
    """The suite of that name, imported now: some peers take a while to load."""
    return cast(Suite, import_module(f"bench.suites.{name}"))
