"""A bulk load whose process is killed: the next to open the tier finds out whether it happened."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from latewood.columns import Column
from latewood.compaction import compact, settle_load
from latewood.events import Events
from latewood.immutable import Catalog, Changes, Scrubs
from latewood.mutable import LmdbTier
from latewood.schema import Schema
from latewood.storage import open_storage
from latewood.testing import ManualClock
from latewood.users import user_keys
from latewood.vocabulary import Vocabulary

EPOCH = bytes(range(16))
START = 1_700_000_000_000_000


class LocalParts:
    """A store's parts in a folder."""

    def __init__(self, path: Path) -> None:
        self.storage = open_storage(path)
        self.catalog = Catalog(self.storage, EPOCH)
        self.catalog.ensure_first(Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())])), 2)
        self.tier = LmdbTier(path / "mutable", pa.int64(), was_published=partial(settle_load, self.catalog))
        self.clock = ManualClock(START)
        self.changes, self.scrubs = Changes(self.storage, EPOCH), Scrubs(self.storage, EPOCH)
        self.vocabulary = Vocabulary(self.storage, self.catalog.latest().schema, epoch=EPOCH)


def make_events(ingest_ts: int) -> Events:
    ids = pa.array([1, 2, 3], pa.int64())
    times = np.arange(3, dtype=np.int64)
    stamps = np.full(3, ingest_ts, np.int64)
    return Events(ids, user_keys(ids), times, stamps, np.zeros(3, np.int32), {0: Column(times)})


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from test_killed import LocalParts, make_events
from latewood.compaction import bulk_load
parts = LocalParts(Path(sys.argv[1]))
create = parts.storage.create
def dies(key, data):
    if sys.argv[2] == "after":
        create(key, data)
    os._exit(9)
parts.storage.create = dies
bulk_load(parts, [make_events(1000)])
"""


@pytest.mark.parametrize(("when", "loaded"), [("before", False), ("after", True)])
def test_a_killed_load_happened_iff_its_manifest_is_there(tmp_path: Path, when: str, loaded: bool) -> None:
    script = KILLED.format(folder=str(Path(__file__).parent))
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path), when], check=False).returncode == 9
    parts = LocalParts(tmp_path)
    newest, state = parts.catalog.latest(), parts.tier.state()
    assert (newest.id, newest.event_count) == (1, 3 * loaded)
    assert state.load_token is None
    assert state.frontier == newest.watermark
    parts.tier.append(make_events(0), now=START)
    assert compact(parts).event_count == 3 * (loaded + 1)
    parts.tier.close()
