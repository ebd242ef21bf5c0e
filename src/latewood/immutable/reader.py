"""One generation, opened: users to rows, pointers to rows, rows to columns.

Shards are opened when they are first needed and stay open; a reader may be used from many threads. Everything is done
for a whole batch at once, across shards, in one kernel call per question.
"""

import threading
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from latewood.columns import Column
from latewood.events import Events
from latewood.immutable.manifest import Generation
from latewood.immutable.resolve import Located, Measured, Resolution, Rows
from latewood.pointer import Pointers
from latewood.schema import Trait
from latewood.storage import Storage
from latewood.stripes import Shard
from latewood.users import UserKeys


class GenerationReader:
    """Reads one generation. Thread-safe; results hold no reference into it."""

    def __init__(self, storage: Storage, generation: Generation) -> None:
        self.storage = storage
        self.generation = generation
        self._lock = threading.Lock()
        raise NotImplementedError

    @property
    def tables(self) -> NDArray[np.uint64]:
        """The address table of all shards (shards, FIELDS), for kernels; opens what is not open yet."""
        raise NotImplementedError

    def shard(self, number: int) -> Shard:
        """One shard, opened and validated."""
        raise NotImplementedError

    def column(self, trait: Trait) -> int | None:
        """The column number of a trait in every shard of this generation; None if it was added later (all null)."""
        raise NotImplementedError

    def locate(self, keys: UserKeys) -> Located:
        """Where users are: their shard and index in it."""
        raise NotImplementedError

    def event_counts(self, located: Located) -> NDArray[np.int64]:
        """How many stored events each user has; 0 for an unknown one."""
        raise NotImplementedError

    def measure(
        self,
        keys: UserKeys,
        end_ts: NDArray[np.int64],
        watermark: NDArray[np.int64] | int,
        tie_ingest: NDArray[np.int64] | None = None,
        tie_ordinal: NDArray[np.int32] | None = None,
    ) -> Measured:
        """What requests that end at `end_ts` can see of the events ingested before `watermark`.

        Args:
            tie_ingest, tie_ordinal: for anchors, the anchor's own place among those at `end_ts`: events exactly at
                `end_ts` count if they sort before it. None, or EARLIEST_TS in a row: none of them counts.
        """
        raise NotImplementedError

    def resolve(self, keys: UserKeys, pointers: Pointers) -> Resolution:
        """The rows that pointers mean, with length and checksum compared; `resolve.require` raises what did not match."""
        raise NotImplementedError

    def visible_rows(
        self, rows: Rows, watermark: NDArray[np.int64], newest: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of dirty ranges that were ingested before each range's watermark, oldest first; or the newest n of them.

        Shapes: (n,) ranges → offsets (n + 1,), rows (offsets[-1],).
        """
        raise NotImplementedError

    def clean_tail(self, rows: Rows, watermark: NDArray[np.int64], newest: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the newest n visible rows of each range start (a row number). Shapes: (n,) → (n,)."""
        raise NotImplementedError

    def read(self, rows: Rows, traits: Sequence[Trait]) -> Events:
        """Runs of rows as events, back to back in the order given (user ids, all three parts of the order, traits)."""
        raise NotImplementedError

    def read_column(self, rows: Rows, column: int, dtype: np.dtype, nullable: bool) -> Column:
        """One column of runs of rows, back to back."""
        raise NotImplementedError

    def scan(self, traits: Sequence[Trait], *, at_once: int = 1 << 20) -> Iterator[Events]:
        """All events, user by user in key order, about `at_once` events at a time; users are never split."""
        raise NotImplementedError
