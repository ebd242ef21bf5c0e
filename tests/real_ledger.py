"""What the parent knows for sure of a store, from what its workers said before they died."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import real_stores

EVENT_ACTS = ("append", "repeat", "load")
EXAMPLE_ACTS = ("capture", "backfill")


class LedgerError(AssertionError):
    """A worker's acknowledgement says what cannot be."""


@dataclass
class Ledger:
    """Acknowledged events (as they must be stored) and requests; and the act that was under way at the last kill."""

    events: list[pa.Table] = field(default_factory=list)
    serials: set[int] = field(default_factory=set)
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
        elif act in EVENT_ACTS:
            self._landed(plan, *outcome)

    def _landed(self, table: pa.Table, count: int, duplicates: int, ingest_ts: NDArray[np.int64], ordinal: Any) -> None:
        if known := self.serials & set(table["serial"].to_pylist()):
            if (count, duplicates, len(known)) != (0, len(table), len(table)):
                raise LedgerError(f"a repeated batch of {len(table)}: {count} new, {duplicates} duplicates")
            return
        if (count, duplicates) != (len(table), 0):
            raise LedgerError(f"a batch of {len(table)}: {count} new, {duplicates} duplicates")
        expected = ordinals(table, ingest_ts)
        if ordinal is not None and ordinal.tolist() != expected.tolist():
            raise LedgerError("ordinals are not those of the order of arrival")
        self.add(real_stores.with_receipt(table, ingest_ts, expected))

    def add(self, events: pa.Table) -> None:
        """Events that are in the store for sure, as they are there."""
        self.events.append(real_stores.in_order(events))
        self.serials |= set(events["serial"].to_pylist())

    @property
    def unsure(self) -> pa.Table | None:
        """The batch that was under way and may have landed."""
        act, plan = self.in_flight or ("", None)
        unknown = act in EVENT_ACTS and not self.serials & set(plan["serial"].to_pylist())
        return plan if unknown else None

    @property
    def unsure_requests(self) -> set[int]:
        act, plan = self.in_flight or ("", None)
        return set(plan) if act in EXAMPLE_ACTS else set()


def ordinals(table: pa.Table, ingest_ts: NDArray[np.int64]) -> NDArray[np.int32]:
    """Each row's place among the rows of its user with the same times; no earlier batch has them."""
    met: dict[tuple[int, ...], int] = {}
    times = zip(
        table["user_id"].to_pylist(), table["event_ts"].cast(pa.int64()).to_pylist(), ingest_ts.tolist(), strict=True
    )
    found = []
    for key in times:
        found.append(met.get(key, 0))
        met[key] = found[-1] + 1
    return np.array(found, np.int32)
