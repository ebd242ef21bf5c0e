"""What must hold after a kill, asked of the store itself by a process that was not there."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import latewood as lw
import real_stores
from latewood.schema import TIME_TYPE
from latewood.testing import different_rows
from latewood.users import user_keys
from real_ledger import Batch, Ledger


@dataclass
class Found:
    """What a check found: of what was under way, what has happened; and problems."""

    problems: list[str] = field(default_factory=list)
    landed: NDArray[np.int64] | None = None  # the ingest times of the batch under way, if it is there
    scrub_ts: int | None = None  # when the scrub under way was, if it was
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
            self._check_tidy(ledger, tidy_serial, found)
        return found

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
        self._store = None

    def _check_events(self, ledger: Ledger, found: Found) -> None:
        """Also brings the ledger, of which this is a copy, up to what has happened of what was under way."""
        self._store.history(0)  # whoever comes next finishes a scrub that was begun
        records = list(self._store.scrubs) if self._store.scrubs.refresh() > ledger.scrubs else []
        if records and ledger.unsure_scrub is not None:
            found.scrub_ts = records[-1].scrub_ts
            ledger.scrub(ledger.unsure_scrub, found.scrub_ts)
        if len(self._store.scrubs) != ledger.scrubs:
            found.problems.append(f"{len(self._store.scrubs)} scrubs are recorded, of {ledger.scrubs}")
        stored = real_stores.in_order(real_stores.stored_events(self._store))
        if repeated := real_stores.repeated(stored["serial"]):
            found.problems.append(f"events more than once: serials {repeated[:5]}")
            return
        self._check_forgotten(ledger, stored, found)
        gone = pc.is_in(stored["serial"], pa.array(sorted(ledger.forgotten), pa.int64()))
        stored = stored.filter(pc.invert(gone))
        if ledger.unsure is not None:
            found.landed = _landed(stored, ledger.unsure, found)
            if found.landed is not None:
                ledger.add(ledger.unsure, found.landed)
        self._known = ledger.table()
        if len(stored) != len(self._known) or len(different_rows(stored, self._known)):
            found.problems.append(_difference(stored, self._known))
        self._check_histories(found)

    def _check_forgotten(self, ledger: Ledger, stored: pa.Table, found: Found) -> None:
        """A generation that has applied all scrubs has nothing of what they took."""
        left = ledger.forgotten & set(stored["serial"].to_pylist())
        if left and self._store.generation.scrubs == ledger.scrubs:
            found.problems.append(f"forgotten and still there: serials {sorted(left)[:5]}")

    def _check_histories(self, found: Found) -> None:
        names = ["event_ts", *real_stores.TRAITS.names]
        of_user = self._known["user_id"].to_numpy()
        users = np.arange(real_stores.USERS)
        withheld = self._store.scrubs.scrubbed_at(user_keys(pa.array(users))) >= self._store.generation.watermark
        for user in users[~withheld].tolist():
            seen = (of_user == user) & self._known["superseded_at"].is_null().to_numpy()
            expected = self._known.filter(pa.array(seen)).select(names)
            history = self._store.history(user)
            history = history.select(names).set_column(3, "action", history["action"].cast(pa.string()))
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
                found.problems += real_stores.different_examples(trainer, log, self._known, ledger.scrubbed_at)
            found.compared = len(log)

    def _check_tidy(self, ledger: Ledger, serial: int, found: Found) -> None:
        """Two compactions collect whatever the dead left behind, and what was forgotten."""
        added = []
        for number in (serial, serial + 1):
            now = self._store.clock.now()
            table = real_stores.make_events(
                np.random.default_rng(number), np.array([number]), now + 10 * real_stores.TICK
            )
            table = table.set_column(1, "event_ts", pa.array([now + real_stores.TICK]).view(TIME_TYPE))
            receipt = self._store.append(table)
            added.append(real_stores.with_receipt(table, receipt.ingest_ts, receipt.ordinal))
            newest = self._store.compact(keep=2)
        found.added = pa.concat_tables(added)
        folder, catalog = Path(self._store.path), self._store.catalog
        kept = [newest, *(catalog.load(pin.generation) for pin in catalog.held_pins())]
        if newest.scrubs == catalog.load(newest.id - 1).scrubs:
            kept.append(catalog.load(newest.id - 1))
        if stray := real_stores.stray_files(folder, kept):
            found.problems.append(f"left behind: {stray}")
        if len(segments := list(folder.glob("mutable/segments/*.lmdb"))) > 2:
            found.problems.append(f"segments that nobody needs: {sorted(path.name for path in segments)}")
        self._search(ledger, folder, found)

    def _search(self, ledger: Ledger, folder: Path, found: Found) -> None:
        """No file has a word that only forgotten events had. LMDB's locks are not files to be opened and closed."""
        parts = [
            events.filter(pc.is_in(events["serial"], pa.array(sorted(ledger.forgotten)))) for events in ledger.events
        ]
        words = _words(pa.concat_tables([real_stores.NO_EVENTS, *parts]))
        words -= _words(self._known) | _words(found.added or self._known)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lmdb-lock"):
            data = path.read_bytes()
            if there := [word for word in words if re.search(rf"{word}(?!\d)".encode(), data)]:
                found.problems.append(f"{path.relative_to(folder)} holds what was forgotten: {there[:5]}")


def _words(events: pa.Table) -> set[str]:
    """All words of some events, also those in lists."""
    return {*events["word"].to_pylist(), *events["tags"].combine_chunks().flatten().to_pylist()} - {None}


def _landed(stored: pa.Table, unsure: Batch, found: Found) -> NDArray[np.int64] | None:
    """The ingest times that the batch under way got; None if it is not there at all."""
    columns = (stored[name].to_pylist() for name in ("serial", "ingest_ts", "superseded_at"))
    times, superseded = {}, {}
    for serial, ingest_ts, at in zip(*columns, strict=True):
        times[serial], superseded[serial] = ingest_ts, at
    there = [serial for serial in unsure.serials() if serial in times]
    if not there:
        return None
    targets = unsure.targets or (None,) * len(unsure.table)
    rows = zip(unsure.table["serial"].to_pylist(), targets, strict=True)
    # a row that is skipped has no time, nor need it have one
    ingest_ts = [times.get(serial) if serial is not None else superseded.get(target) for serial, target in rows]
    given = unsure.table.column_names
    if "ingest_ts" in given:
        expected = unsure.table["ingest_ts"].cast(pa.int64()).to_pylist()
        if any(time not in (None, want) for time, want in zip(ingest_ts, expected, strict=True)):
            found.problems.append("ingest times are not those that were given")
    return np.array([-1 if time is None else time for time in ingest_ts], np.int64)


def _difference(stored: pa.Table, known: pa.Table) -> str:
    have, want = set(stored["serial"].to_pylist()), set(known["serial"].to_pylist())
    if have == want:
        rows = different_rows(stored, known)
        one, other = (table.slice(rows[0], 1).to_pylist() for table in (stored, known))
        return f"{len(rows)} events differ, e.g. {one} for {other}"
    return f"lost: serials {sorted(want - have)[:5]} of {len(want)}; nobody appended: {sorted(have - want)[:5]}"
