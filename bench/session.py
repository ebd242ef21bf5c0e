"""What all suites of one run share: the settings, and the data, which is drawn and ingested when first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import latewood as lw
from bench import sources
from bench.cxx import CxxStripes
from bench.dirty import DirtyHistories, soil, write_dirty_store
from bench.histories import SEED, Histories, draw_histories

USERS, TINY_USERS = 10_000, 48  # 10,000 users are about 19 M events
PASSES = 7
FEW_PASSES = 3  # of what takes minutes
TINY = {"longest": 2_000, "items": 10_000, "authors": 1_000}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Settings:
    """What was asked for; None is the suite's own choice."""

    users: int = USERS
    passes: int = PASSES
    seed: int = SEED
    lengths: Sequence[int] | None = None
    batches: int | None = None
    yardstick: Path | None = None
    tiny: bool = False
    quick: bool = False  # only what `make bench` is for: us and Fat Rows in request order

    def size(self, full: T, tiny: T) -> T:
        """One of two sizes: tiny ones are for tests, and their figures mean nothing."""
        return tiny if self.tiny else full

    def describe(self) -> dict[str, Any]:
        """What has to be the same for two results to be of the same run."""
        return {
            "seed": self.seed,
            "users": self.users,
            "passes": self.passes,
            "tiny": self.tiny,
            "quick": self.quick,
            "lengths": None if self.lengths is None else list(self.lengths),
            "batches": self.batches,
            "yardstick": self.yardstick is not None,
        }

    @property
    def few_passes(self) -> int:
        return min(self.passes, FEW_PASSES)

    def draw(self, users: int, **lengths: int) -> Histories:
        """Histories of another number of users of the same recipe. Args: lengths: `shortest`, `longest`."""
        catalogue: dict[str, int] = dict(TINY) if self.tiny else {}
        return draw_histories(users, seed=self.seed, **(catalogue | lengths))


class Session:
    """Settings, a folder for the data, and whom to tell what takes long."""

    def __init__(self, settings: Settings, folder: Path, tell: Callable[[str], Any]) -> None:
        self.settings, self.folder, self.tell = settings, folder, tell

    @cached_property
    def histories(self) -> Histories:
        """The yardstick's data."""
        self.tell(f"drawing the histories of {self.settings.users:,} users")
        return self.settings.draw(self.settings.users)

    @cached_property
    def store(self) -> lw.Store:
        """A store that holds all of it, each event learned of when it happened; open for writing."""
        histories = self.histories
        self.tell(f"ingesting {histories.event_count:,} events")
        return sources.write_store(histories, self.folder / "store")

    @cached_property
    def cxx(self) -> CxxStripes | None:
        """The yardstick's own stripes of the same histories, if there is a yardstick."""
        yardstick = self.settings.yardstick
        if yardstick is None:
            return None
        self.tell(f"encoding the C++ stripes of {yardstick}")
        return CxxStripes(yardstick, self.histories, self.folder)

    @cached_property
    def dirty(self) -> tuple[DirtyHistories, lw.Store]:
        """The same histories with late and tied events, and a store of them."""
        dirty = soil(self.histories)
        self.tell(f"ingesting {self.histories.event_count:,} events, some late, some at once")
        return dirty, write_dirty_store(dirty, self.folder / "dirty")

    def close(self) -> None:
        """Close the stores that were made."""
        for store in (self.__dict__.pop("store", None), self.__dict__.pop("dirty", (None, None))[1]):
            if store is not None:
                store.close()
