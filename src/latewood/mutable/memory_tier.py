"""The mutable tier without files: for tests, notebooks, and stores that live in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from latewood.mutable.book import ScrubBook
from latewood.mutable.event_batch import EventBatch
from latewood.mutable.event_ids import IdRun
from latewood.mutable.log import LogState
from latewood.mutable.logged_tier import DEFAULTS, LoggedTier, Settings


class _MemoryLog:
    """Keeps the state and the last commit's batches: the arena has them all, unless it was interrupted just then."""

    def __init__(self) -> None:
        self._state = LogState()
        self._latest: dict[int, EventBatch] = {}
        self._runs: list[IdRun] = []
        self._loading = False

    def check_process(self) -> None:
        pass

    def head(self) -> LogState:
        return self._state

    def read(self, first_batch: int, state: LogState) -> Iterator[EventBatch]:
        return (self._latest[number] for number in range(first_batch, state.next_batch))

    @contextmanager
    def begin(self) -> Iterator["_MemoryTransaction"]:
        yield _MemoryTransaction(self, self._state)

    def id_runs(self) -> list[IdRun]:
        return self._runs

    def keep_ids(self, runs: list[IdRun]) -> None:
        self._runs = runs

    def forget(self, state: LogState) -> None:
        pass

    def claim_load(self) -> bool:
        claimed, self._loading = not self._loading, True
        return claimed

    def release_load(self) -> None:
        self._loading = False

    def close(self) -> None:
        pass


class _MemoryTransaction:
    def __init__(self, log: _MemoryLog, state: LogState) -> None:
        self._log, self.state = log, state
        self._batches: dict[int, EventBatch] = {}

    def put(self, number: int, batch: EventBatch) -> None:
        self._batches[number] = batch

    def commit(self, state: LogState) -> None:
        self._log._state, self._log._latest = state, self._batches


class InMemoryTier(LoggedTier):
    """Everything the tier promises except durability and other processes.

    Args:
        user_type: the schema's user id type.
        settings: see `Settings`.
        scrubs: the book of scrubs; None: a tier that knows of none.
    """

    def __init__(
        self, user_type: pa.DataType, settings: Settings = DEFAULTS, *, scrubs: ScrubBook | None = None
    ) -> None:
        super().__init__(_MemoryLog(), user_type, settings, scrubs=scrubs)
