"""A store on a simulated disk and a simulated log: the real class, with its places swapped."""

from functools import partial
from pathlib import Path
from typing import Self

from latewood.clock import Clock
from latewood.compaction import settle_load
from latewood.immutable import StoreDescription
from latewood.mutable import MutableTier, Settings
from latewood.mutable.log import Log
from latewood.mutable.logged_tier import LoggedTier
from latewood.storage import Storage, keys
from latewood.store import Store
from latewood.testing.simulation.plan import CLOCK_ERROR_MAX

PLACE = "simulated"
CLOCK_SKEW_US = 2 * CLOCK_ERROR_MAX


class SimulatedStore(Store):
    """A `Store` whose mutable tier lies on a given log."""

    _log: Log
    _settings: Settings

    @classmethod
    def start(cls, storage: Storage, clock: Clock, log: Log | None, settings: Settings) -> Self:
        """Open the store, read-only where there is no log."""
        description = StoreDescription.from_bytes(storage.read(keys.STORE), keys.STORE)
        store = cls(PLACE, storage, description, clock)
        store.catalog.clock_skew_us = CLOCK_SKEW_US
        if log is not None:
            store._log, store._settings = log, settings
            store._open_for_writing(None)
        return store

    def _open_tier(self, mutable: str | Path | None) -> MutableTier:
        assert mutable is None
        return LoggedTier(
            self._log, self.schema.user_id, self._settings, partial(settle_load, self.catalog), self.scrubs
        )
