"""What the parent knows for sure of a store, from what its workers said before they died."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import real_stores

EVENT_ACTS = ("append", "repeat", "correct", "load")
EXAMPLE_ACTS = ("capture", "backfill")


class LedgerError(AssertionError):
    """A worker's acknowledgement says what cannot be."""


@dataclass(frozen=True)
class Batch:
    """Events that are about to be appended; row i takes the place of the event with serial `targets[i]`, if any."""

    table: pa.Table
    targets: tuple[int | None, ...] = ()

    @property
    def deletions(self) -> NDArray[np.bool_]:
        """Rows that are no events."""
        return np.asarray(self.table["event_ts"].is_null())

    def serials(self) -> list[int]:
        """Of its events."""
        return [serial for serial in self.table["serial"].to_pylist() if serial is not None]


@dataclass
class Ledger:
    """Acknowledged events (as they must be stored) and requests; and the act that was under way at the last kill."""

    events: list[pa.Table] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)  # of all events that were ever stored
    superseded: dict[int, int] = field(default_factory=dict)  # serial → when
    forgotten: set[int] = field(default_factory=set)  # serials
    scrubbed_at: dict[int, int] = field(default_factory=dict)  # user → when last, wholly or in part
    scrubs: int = 0
    requests: set[int] = field(default_factory=set)
    opened: bool = False  # whether there must be a store
    in_flight: tuple[str, Any] | None = None
    acts: int = 0

    def begin(self, act: str, plan: Any) -> None:
        self.in_flight = (act, plan)

    def done(self, act: str, outcome: Any) -> None:
        """Take in an acknowledgement. Raises: LedgerError."""
        assert self.in_flight is not None
        plan, self.in_flight = self.in_flight[1], None
        self.acts += 1
        if act == "open":
            self.opened = True
        elif act in EXAMPLE_ACTS:
            self.requests |= set(plan)
        elif act == "load":
            self.add(plan, outcome)
        elif act in EVENT_ACTS:
            self._landed(plan, *outcome)
        elif act == "scrub" and outcome is not None:
            self.scrub(plan, outcome)

    def table(self) -> pa.Table:
        """All events that are to be there, in order."""
        events = pa.concat_tables([real_stores.NO_EVENTS, *self.events])
        serials = events["serial"].to_pylist()
        times = pa.array([self.superseded.get(serial) for serial in serials], pa.int64())
        events = events.set_column(events.column_names.index("superseded_at"), "superseded_at", times)
        return real_stores.in_order(
            events.filter(pa.array([serial not in self.forgotten for serial in serials], pa.bool_()))
        )

    # Events

    def _landed(self, batch: Batch, count: int, duplicates: int, skipped: int, ingest_ts: Any, ordinal: Any) -> None:
        table, gone = batch.table, self.skips(batch)
        fresh = 0 if self.serials & set(batch.serials()) else len(table) - int(gone.sum())
        expected = fresh, len(table) - fresh - int(gone.sum()), int(gone.sum())
        if (count, duplicates, skipped) != expected:
            raise LedgerError(f"a batch of {len(table)} counted as {count, duplicates, skipped}, not {expected}")
        if fresh:
            self.add(batch, ingest_ts, ordinal)

    def skips(self, batch: Batch) -> NDArray[np.bool_]:
        """Rows that tell of the time before their user's scrub."""
        users = batch.table["user_id"].to_pylist()
        times = batch.table["event_ts"].cast(pa.int64()).fill_null(2**62).to_pylist()
        before = [ts < self.scrubbed_at.get(user, ts) for user, ts in zip(users, times, strict=True)]
        return np.array(before, np.bool_)

    def add(self, batch: Batch, ingest_ts: NDArray[np.int64], ordinal: Any = None) -> None:
        """A batch that is in the store for sure. Raises: LedgerError: ordinals that cannot be."""
        gone, deletions = self.skips(batch), batch.deletions
        expected = np.where(gone | deletions, -1, ordinals(batch.table, ingest_ts))
        if ordinal is not None and ordinal.tolist() != expected.tolist():
            raise LedgerError("ordinals are not those of the order of arrival")
        for row, target in enumerate(batch.targets):
            if target is not None and not gone[row]:
                self.superseded[target] = min(int(ingest_ts[row]), self.superseded.get(target, 2**62))
        self.keep(real_stores.with_receipt(batch.table, ingest_ts, expected).filter(pa.array(~gone & ~deletions)))

    def keep(self, events: pa.Table) -> None:
        """Events as they are in the store for sure."""
        self.events.append(real_stores.in_order(events))
        self.serials |= set(events["serial"].to_pylist())

    @property
    def unsure(self) -> Batch | None:
        """The batch that was under way and may have landed."""
        act, plan = self.in_flight or ("", None)
        return plan if act in EVENT_ACTS and not self.serials & set(plan.serials()) else None

    # Forgetting

    def scrub(self, plan: dict[str, Any], scrub_ts: int) -> None:
        """Forget what a scrub takes: users, or events by a word."""
        known = self.table()
        columns = (known[name].to_pylist() for name in ("serial", "user_id", "word", "ingest_ts"))
        taken = [
            (serial, user)
            for serial, user, word, ingest_ts in zip(*columns, strict=True)
            if ingest_ts <= scrub_ts and (user in plan.get("users", ()) or word == plan.get("word", ""))
        ]
        self.forgotten |= {serial for serial, _ in taken}
        self._scrub(plan.get("users", {user for _, user in taken}), scrub_ts)

    def _scrub(self, users: Iterable[int], scrub_ts: int) -> None:
        self.scrubs += 1
        for user in users:
            self.scrubbed_at[user] = max(scrub_ts, self.scrubbed_at.get(user, scrub_ts))

    @property
    def unsure_scrub(self) -> dict[str, Any] | None:
        act, plan = self.in_flight or ("", None)
        return plan if act == "scrub" else None

    # Examples

    @property
    def unsure_requests(self) -> set[int]:
        act, plan = self.in_flight or ("", None)
        return set(plan) if act in EXAMPLE_ACTS else set()


def ordinals(table: pa.Table, ingest_ts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Each row's place among the rows of its user with the same times; no earlier batch has them."""
    met: dict[tuple[Any, ...], int] = {}
    event_ts = table["event_ts"].cast(pa.int64()).to_pylist()
    found = []
    for key in zip(table["user_id"].to_pylist(), event_ts, ingest_ts.tolist(), strict=True):
        found.append(met.get(key, 0))
        met[key] = found[-1] + 1
    return np.array(found, np.int32)
