"""What must hold after a kill, asked of the store itself by a process that was not there."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import latewood as lw
import real_stores
from latewood.testing import different_rows
from real_ledger import Ledger, ordinals


@dataclass
class Found:
    """What a check found. `landed`: the batch under way, as it is stored, if it is."""

    problems: list[str] = field(default_factory=list)
    landed: pa.Table | None = None
    logged: set[int] = field(default_factory=set)  # requests of which there are examples
    added: pa.Table | None = None  # events that the check itself appended
    compared: int = 0  # examples


class Checker:
    """Checks one store again and again; kept open in between, it is a process that lived through other's deaths."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store: Any = None

    def check(self, ledger: Ledger, tidy_serial: int | None) -> Found:
        """Everything. With `tidy_serial`, also compact, and see that nothing is left that should not be."""
        found = Found()
        if self._store is None:
            try:
                self._store = lw.Store.open(self._folder / "store")
            except lw.StoreNotFoundError:
                if ledger.opened:
                    raise
                return found
        self._check_events(ledger, found)
        self._check_examples(ledger, found)
        if tidy_serial is not None:
            self._check_tidy(tidy_serial, found)
        return found

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None

    def _check_events(self, ledger: Ledger, found: Found) -> None:
        stored = real_stores.in_order(real_stores.stored_events(self._store))
        if repeated := real_stores.repeated(stored["serial"]):
            found.problems.append(f"events more than once: serials {repeated[:5]}")
            return
        found.landed = _landed(stored, ledger.unsure, found)
        parts = [*ledger.events, *([] if found.landed is None else [found.landed])]
        self._known = real_stores.in_order(pa.concat_tables([stored.slice(0, 0), *parts]))
        if len(stored) != len(self._known) or len(different_rows(stored, self._known)):
            found.problems.append(_difference(stored, self._known))
        self._check_histories(found)

    def _check_histories(self, found: Found) -> None:
        names = ["event_ts", *real_stores.TRAITS.names]
        of_user = self._known["user_id"].to_numpy()
        for user in range(real_stores.USERS):
            expected = self._known.filter(pa.array(of_user == user)).select(names)
            history = self._store.history(user)
            history = history.set_column(3, "action", history["action"].cast(pa.string())).select(names)
            if len(history) != len(expected) or len(different_rows(history, expected)):
                found.problems.append(
                    f"the history of user {user} has {len(history)} of {len(expected)} events, or others"
                )

    def _check_examples(self, ledger: Ledger, found: Found) -> None:
        log = real_stores.read_log(self._folder / "examples")
        ids = [] if log is None else log["request_id"].to_pylist()
        found.logged = set(ids)
        if len(ids) != len(found.logged):
            found.problems.append("requests were logged more than once")
        if lost := ledger.requests - found.logged:
            found.problems.append(f"examples of requests {sorted(lost)[:5]} were acknowledged and are not logged")
        if strange := found.logged - ledger.requests - ledger.unsure_requests:
            found.problems.append(f"examples of requests {sorted(strange)[:5]} that nobody made")
        if log is not None:
            with lw.Store.open(self._store.path, read_only=True) as trainer:
                found.problems += real_stores.different_examples(trainer, log, self._known)
            found.compared = len(log)

    def _check_tidy(self, serial: int, found: Found) -> None:
        """Two compactions collect whatever the dead left behind."""
        added = []
        for number in (serial, serial + 1):
            table = real_stores.make_events(np.random.default_rng(number), np.array([number]), self._store.clock.now())
            receipt = self._store.append(table)
            added.append(real_stores.with_receipt(table, receipt.ingest_ts, receipt.ordinal))
            newest = self._store.compact(keep=2)
        found.added = pa.concat_tables(added)
        kept = [newest, self._store.catalog.load(newest.id - 1)]
        if stray := real_stores.stray_files(Path(self._store.path), kept):
            found.problems.append(f"left behind: {stray}")
        if len(segments := list(Path(self._store.path).glob("mutable/segments/*.lmdb"))) > 2:
            found.problems.append(f"segments that nobody needs: {sorted(path.name for path in segments)}")


def _landed(stored: pa.Table, unsure: pa.Table | None, found: Found) -> pa.Table | None:
    """The batch that was under way, with the ingest times that it got; None if it is not there at all."""
    if unsure is None:
        return None
    serials = unsure["serial"].to_pylist()
    times = dict(zip(stored["serial"].to_pylist(), stored["ingest_ts"].to_pylist(), strict=True))
    there = [serial for serial in serials if serial in times]
    if not there:
        return None
    if len(there) < len(serials):
        found.problems.append(f"half a batch: {len(there)} of {len(serials)} events")
        return None
    ingest_ts = np.array([times[serial] for serial in serials], np.int64)
    if "ingest_ts" in unsure.column_names and unsure["ingest_ts"].cast(pa.int64()).to_pylist() != ingest_ts.tolist():
        found.problems.append("ingest times are not those that were given")
    return real_stores.in_order(real_stores.with_receipt(unsure, ingest_ts, ordinals(unsure, ingest_ts)))


def _difference(stored: pa.Table, known: pa.Table) -> str:
    have, want = set(stored["serial"].to_pylist()), set(known["serial"].to_pylist())
    if have == want:
        rows = different_rows(stored, known)
        one, other = (table.slice(rows[0], 1).to_pylist() for table in (stored, known))
        return f"{len(rows)} events differ, e.g. {one} for {other}"
    return f"lost: serials {sorted(want - have)[:5]} of {len(want)}; nobody appended: {sorted(have - want)[:5]}"
