"""Forged shards in a whole store: what reads them must live with any values, as the reader of shards does.

The manifest is forged along with the shard, so that nothing but validation stands between the bytes and materialization.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import whole_store
from fuzz import READ, REFUSED, run
from mutations import mutate

from damage import sealed
from forged_shards import ForgedShard
from latewood.errors import LatewoodError
from latewood.stripes.footer import read_trailer


class ForgedStore:
    """A store whose only shard is another one for each case."""

    def __init__(self, folder: Path, *, users: int = 3, events: int = 5) -> None:
        whole_store.make(folder / "store", folder / "log", traits=whole_store.EVERY, users=users, events=events)
        self._place, self.examples = folder / "store", whole_store.read_examples(folder / "log")
        (self._shard,) = self._place.rglob("*.stripes")
        self._manifest = max(self._place.glob("manifests/*.json"))
        self._sound, self._document = self._shard.read_bytes(), json.loads(self._manifest.read_bytes())
        self._document.pop("xxh3")

    def read(self) -> str:
        return whole_store.read_store(self._place, self.examples)

    def put(self, data: bytes) -> None:
        """Another shard, which the manifest names as its own."""
        self._shard.write_bytes(data)
        shard = self._document["shards"][0] | {"footer_xxh3": f"{read_trailer(data[-24:], '')[1]:016x}"}
        self._manifest.write_bytes(sealed(json.dumps(self._document | {"shards": [shard]}, ensure_ascii=False)))

    def __call__(self, number: int) -> int:
        """Raises: whatever should not be."""
        rng, forged = np.random.default_rng([11, number]), ForgedShard(self._sound)
        mutate(forged, rng)
        self.put(forged.seal())
        try:
            self.read()
        except LatewoodError:
            return REFUSED
        return READ


@pytest.fixture
def forged(tmp_path: Path) -> ForgedStore:
    return ForgedStore(tmp_path)


def test_putting_the_same_shard_changes_nothing(forged: ForgedStore) -> None:
    expected = forged.read()
    forged.put(forged._sound)
    assert forged.read() == expected


def test_forged_shards_are_refused_or_read(forged: ForgedStore) -> None:
    forged.read()  # compiles what the workers will use
    assert run(forged, seconds=300, stop=100, tell=0) == []
