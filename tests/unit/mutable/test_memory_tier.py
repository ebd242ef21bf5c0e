"""The in-memory tier keeps the contract."""

from pathlib import Path

import pyarrow as pa

from latewood.immutable import Scrubs
from latewood.mutable import InMemoryTier, MutableTier, Settings
from latewood.testing.mutable_contract import MutableTierContract


class TestInMemoryTier(MutableTierContract):
    def open_tier(
        self, path: Path, user_type: pa.DataType, settings: Settings, scrubs: Scrubs | None = None
    ) -> MutableTier:
        return InMemoryTier(user_type, settings, scrubs=scrubs)
