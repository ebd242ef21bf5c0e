"""This process's copy of the log, ready to be read, and the one way to write: an arena that follows the log's head.

A batch is entered in the arena as pending, the log commits, and only then do readers see it. Readers look at the log's
head and take in what other processes added since, under one lock, so that what is read and the state it was read with
belong together (R10).
"""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pyarrow as pa

from latewood.errors import ConflictError, CorruptionError
from latewood.mutable.arena import Arena
from latewood.mutable.event_ids import IdRun
from latewood.mutable.log import Log, LogBusyError, LogFullError, LogState, LogTransaction, SegmentGoneError

T = TypeVar("T")


class UnsettledError(Exception):
    """A scrub has to be finished first: nothing was entered."""


class Replica:
    """The arena as of the log's newest state, or of a moment ago."""

    def __init__(self, log: Log, user_type: pa.DataType) -> None:
        self._log, self._user_type = log, user_type
        self._writing = threading.Lock()
        self._reading = threading.Lock()
        self._landed = threading.Condition(self._reading)
        self._in_flight = False  # whether the arena holds rows of a commit that is not over
        self.state = LogState(version=-1)
        self.arena = Arena(user_type)
        self.runs: list[IdRun] = []
        self._runs_as_of = -1, -1  # the first batch not evicted, and the floor, when the runs were read
        self._closed = False

    @property
    def writing(self) -> threading.Lock:
        """The write lock: taken first, held across a commit."""
        self._log.check_process()  # in a forked one, it may be held by a thread that is not there
        return self._writing

    @property
    def reading(self) -> threading.Lock:
        """The read lock: guards all that is here, never held across a commit."""
        self._log.check_process()
        return self._reading

    def write(self, change: Callable[[LogTransaction], tuple[LogState, T]]) -> T:
        """Run `change` as the only writer and commit the state it returns. The caller holds the write lock."""
        self._check_open()
        while True:
            with suppress(LogFullError), self._log.begin() as transaction:
                with self.reading:
                    self._follow(transaction.state)
                    self._in_flight = True
                landed, spoilt = transaction.state, True
                try:
                    state, result = change(transaction)
                    if state is not transaction.state:
                        transaction.commit(state)
                    landed, spoilt = state, False
                except (ConflictError, UnsettledError):  # refused before anything was entered
                    spoilt = False
                    raise
                finally:
                    self._land(landed, spoilt)
                return result

    def _land(self, state: LogState, spoilt: bool) -> None:
        """The commit is over: show its rows to the readers, or take them back if it broke off halfway.

        It may have become durable all the same, if it broke off late: then the log brings them.
        """
        with self.reading:
            if spoilt:
                self.arena = self.arena.rebuilt(0)
            self._in_flight = False
            self._follow(state)
            self._landed.notify_all()

    def _follow(self, state: LogState) -> None:
        """Take in what was committed up to `state`. The caller holds the read lock."""
        if state.version <= self.state.version:
            return
        arena = self.arena
        arena.commit()
        if arena.next_batch < state.first_batch:  # all it holds was evicted, and more
            arena = Arena(self._user_type, state.first_batch)
        for batch in self._log.read(arena.next_batch, state) if arena.next_batch < state.next_batch else ():
            arena.take_in(batch)
        if arena.first_batch < state.first_batch:
            arena = arena.rebuilt(state.first_batch)
        if self._runs_as_of != (as_of := (state.first_batch, state.tier.floor)):
            self.runs, self._runs_as_of = self._log.id_runs(), as_of
        self.arena, self.state = arena, state

    def refresh(self) -> LogState:
        """The newest state, with the arena as of it. The caller holds the read lock."""
        self._check_open()
        before = None
        while True:
            try:
                head = self._log.head()
                if head.version > self.state.version and self._in_flight:
                    self._landed.wait()  # it is our own commit, landing: a matter of microseconds
                    continue
                self._follow(head)
                return self.state
            except LogBusyError:
                self._landed.wait(0.001)
            except SegmentGoneError as error:
                if head.version == before:  # nobody evicted it
                    raise CorruptionError(f"segment {error} is missing") from None
                before = head.version

    def close(self, close_log: Callable[[], None]) -> None:
        """Let go of everything. Closing twice is fine."""
        with self.writing, self.reading:
            if not self._closed:
                self._closed = True
                close_log()
                self.arena, self.runs = Arena(self._user_type), []

    def _check_open(self) -> None:
        if self._closed:
            raise ConflictError("the mutable tier was closed")
