"""The LMDB tier keeps the contract, and its promises about files, processes and damage."""

from pathlib import Path

import pyarrow as pa

from latewood.mutable import LmdbTier, MutableTier, Settings
from latewood.testing.mutable_contract import MutableTierContract


class TestLmdbTier(MutableTierContract):
    def open_tier(self, path: Path, user_type: pa.DataType, settings: Settings) -> MutableTier:
        return LmdbTier(path, user_type, settings)
