"""A store whose events come late and are corrected, and what the oracle says of it: where histories do not nest."""

from pathlib import Path

import numpy as np
import pyarrow as pa

import latewood as lw
from latewood.testing import ManualClock, Oracle

SCHEMA = lw.Schema(user_id=pa.int64(), traits=pa.schema([("number", pa.int64())]))
EVENTS, SPAN = 400, 3_000
BEGINS, ENDS = 1_200, 2_600
NEVER = 2**63 - 1
_PLACE = pa.struct([("ingest_ts", pa.timestamp("us", "UTC")), ("ordinal", pa.int32())])


class Made:
    """A store of late events and, by every 20th, of corrections; half of it compacted. Rows are in the order of arrival."""

    def __init__(self, folder: Path, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ts = rng.integers(1, SPAN // 10, EVENTS) * 10  # so that many events share their time
        ingest = ts + np.where(rng.random(EVENTS) < 0.05, rng.integers(1, 800, EVENTS), 1)
        order = np.argsort(ingest, kind="stable")
        ticks = np.arange(EVENTS)  # every ingest time is later than the one before
        self.user, self.ts = rng.integers(1, 5, EVENTS), ts[order]
        self.ingest = np.maximum.accumulate(ingest[order] - ticks) + ticks
        self.gone_by = np.full(EVENTS, NEVER)
        clock = ManualClock(1)
        self.store = lw.Store.create(folder / "store", SCHEMA, shards=2, clock=clock)
        for row in range(EVENTS):
            clock.advance(max(0, int(self.ingest[row]) - clock.now()))
            event = {
                "event_ts": pa.array([self.ts[row]]),
                "ingest_ts": pa.array([self.ingest[row]]),
                "event_id": [f"{row}"],
            }
            old = row - 20
            if row % 20 == 19 and old >= 0 and self.gone_by[old] == NEVER and self.ingest[row] > self.ingest[old]:
                self.user[row], self.gone_by[old] = self.user[old], self.ingest[row]
                event["supersedes"] = [f"{old}"]
            self.store.append(pa.table({"user_id": [self.user[row]], "number": [row], **event}))
            if row == EVENTS // 2:
                self.store.compact()
        clock.advance(SPAN)
        late = [None if at == NEVER else int(at) for at in self.gone_by]
        columns = {"user_id": self.user, "event_ts": self.ts, "ingest_ts": self.ingest, "number": np.arange(EVENTS)}
        self.oracle = Oracle(pa.table({**columns, "superseded_at": pa.array(late, pa.int64())}))
        # every event as an anchor, also those that were corrected since: they were there when the period ended
        place = pa.array([{"ingest_ts": int(at), "ordinal": 0} for at in self.ingest], _PLACE)
        requests = pa.table({"user_id": self.user, "request_ts": self.ts, "anchor": place})
        seen = self.oracle.fat_rows(requests, lw.Projection(traits=["number"]))["history"].to_pylist()
        self.sees = [row["number"] for row in seen]

    def whole(self) -> dict[int, list[int]]:
        """Each user's sequence as of the period's end."""
        users = sorted(set(self.user.tolist()))
        requests = pa.table({"user_id": users, "request_ts": [ENDS] * len(users)})
        rows = self.oracle.fat_rows(requests, lw.Projection(traits=["number"]))["history"].to_pylist()
        return {user: row["number"] for user, row in zip(users, rows, strict=True)}
