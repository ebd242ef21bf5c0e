"""Both backends against a dull model: lists, loops and the rules as docs/protocol.md words them."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError
from latewood.events import Events
from latewood.mutable import AppendReceipt, InMemoryTier, LmdbTier, MutableTier, Settings, hash_content, hash_ids
from latewood.testing.recent_events import histories, make_events, rows_of
from latewood.users import user_keys

USERS = ["a", "b", "ü", "d"]
SETTINGS = Settings(max_ahead_us=50, id_window_us=10**9)
LONG = 2**60


class DullTier:
    """What the mutable tier means, without any of its machinery."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []  # (user, event_ts, ingest_ts, ordinal, item), by arrival, never evicted
        self.ids: dict[str, tuple[tuple[Any, ...], int, int]] = {}  # id → (content, ingest_ts, ordinal)
        self.last, self.frontier, self.floor, self.captured = EARLIEST_TS - 1, EARLIEST_TS, EARLIEST_TS, False
        self.load: int | None = None

    def append(self, rows: list[dict[str, Any]], explicit: bool, late: str, now: int) -> tuple[list[Any], int]:
        """Returns (ingest_ts, ordinal) per row, and the count of new ones. Raises ValueError where it must be refused."""
        self.refuse(self.load is not None)
        ids, fresh, given = dict(self.ids), [], {}
        for i, row in enumerate(rows):
            content = (row["user"], row["event_ts"], row["item"])
            if row["id"] is None:
                fresh.append(i)
            elif row["id"] in ids:
                self.refuse(ids[row["id"]][0] != content)
            else:
                ids[row["id"]] = content, -1, -1
                fresh.append(i)
        stamped = fresh
        if explicit:
            limit = self.last + 1 if self.captured else self.frontier
            stamped = [i for i in fresh if rows[i]["ingest_ts"] < limit]
            self.refuse(late == "raise" and bool(stamped))
        kept = {i: rows[i]["ingest_ts"] for i in fresh if i not in stamped}
        first = max([now, self.last + 1, *(ingest + 1 for ingest in kept.values())])
        counts: dict[str, int] = {}
        for i in fresh:
            user = rows[i]["user"]
            given[i] = kept[i] if i in kept else first + counts.get(user, 0)
            counts[user] = counts.get(user, 0) + (i in stamped)
        self.refuse(any(ingest > now + SETTINGS.max_ahead_us for ingest in given.values()))
        for i in fresh:
            row = rows[i]
            tie = (row["user"], row["event_ts"], given[i])
            ordinal = sum(event[:3] == tie for event in self.events)
            self.events.append((*tie, ordinal, row["item"]))
            if row["id"] is not None:
                self.ids[row["id"]] = (row["user"], row["event_ts"], row["item"]), given[i], ordinal
            given[i] = given[i], ordinal
        self.last = max([self.last, *(pair[0] for pair in given.values())])
        return [given[i] if i in given else self.ids[rows[i]["id"]][1:] for i in range(len(rows))], len(fresh)

    def refuse(self, condition: bool) -> None:
        if condition:
            raise ValueError

    def recent(
        self, user: str, end_ts: int, min_ingest: int, cutoff: int | None, tie: tuple[int, int] | None
    ) -> list[Any]:
        self.refuse(self.load is not None)
        below = self.last + 1 if cutoff is None else cutoff
        found = [
            event
            for event in self.events
            if event[0] == user
            and (event[1] < end_ts or (tie is not None and event[1] == end_ts and event[2:4] < tie))
            and max(min_ingest, self.floor) <= event[2] < below
        ]
        return sorted(found, key=lambda event: event[1:4])


times = st.integers(0, 120)
row = st.fixed_dictionaries(
    {
        "user": st.sampled_from(USERS),
        "event_ts": st.integers(0, 6),
        "ingest_ts": times,
        "item": st.one_of(st.none(), st.integers(0, 2)),
        "id": st.one_of(st.none(), st.sampled_from("pqrstuvw")),
    }
)


def events_of(rows: list[dict[str, Any]]) -> Events:
    columns = {name: [row[name] for row in rows] for name in ("user", "event_ts", "ingest_ts", "item")}
    return make_events(columns["user"], columns["event_ts"], columns["ingest_ts"], columns["item"])


class TierMachine(RuleBasedStateMachine):
    """Every step goes to the model and to each tier: same result, or refused by all."""

    watermarks: Bundle[int] = Bundle("watermarks")

    @initialize()
    def start(self) -> None:
        memory = Path("/dev/shm")  # where there is one, a commit need not wait for a disk
        self.folder = Path(tempfile.mkdtemp(prefix="latewood-", dir=memory if memory.is_dir() else None))
        self.model = DullTier()
        self.tiers: list[MutableTier] = [InMemoryTier(pa.string(), SETTINGS), self.open_lmdb(), self.open_lmdb()]

    def open_lmdb(self) -> MutableTier:
        return LmdbTier(self.folder / "mutable", pa.string(), SETTINGS, map_size=1 << 16)

    def teardown(self) -> None:
        if hasattr(self, "tiers"):
            for tier in self.tiers:
                tier.close()
            shutil.rmtree(self.folder)

    def writers(self, which: int) -> list[MutableTier]:
        """The tier in memory, and one of the two that share a directory."""
        return [self.tiers[0], self.tiers[which]]

    def refused(self, which: int, act: Any) -> None:
        for tier in self.writers(which):
            with pytest.raises(ConflictError):
                act(tier)

    @rule(
        rows=st.lists(row, min_size=1, max_size=8),
        with_ids=st.booleans(),
        explicit=st.booleans(),
        late=st.sampled_from(["raise", "stamp"]),
        now=times,
        which=st.integers(1, 2),
    )
    def append(
        self, rows: list[dict[str, Any]], with_ids: bool, explicit: bool, late: str, now: int, which: int
    ) -> None:
        rows = rows if with_ids else [{**row, "id": None} for row in rows]
        events = events_of(rows)
        ids = hash_ids(pa.array([row["id"] for row in rows], pa.string())) if with_ids else None
        content = hash_content(events) if with_ids else None

        def act(tier: MutableTier) -> AppendReceipt:
            return tier.append(events, ids=ids, content=content, explicit=explicit, late=late, now=now)  # type: ignore[arg-type]

        try:
            expected, count = self.model.append(rows, explicit, late, now)
        except ValueError:
            self.refused(which, act)
            return
        for tier in self.writers(which):
            receipt = act(tier)
            assert (receipt.count, receipt.duplicates) == (count, len(rows) - count)
            assert list(zip(receipt.ingest_ts.tolist(), receipt.ordinal.tolist(), strict=True)) == expected

    @rule(target=watermarks, back=st.integers(-1, 5) | st.none(), which=st.integers(1, 2))
    def cut(self, back: int | None, which: int) -> int:
        closed = self.model.last + 1
        watermark = None if back is None else closed - back
        cut = closed if watermark is None else watermark
        if self.model.load is not None or not self.model.frontier <= cut <= closed:
            self.refused(which, lambda tier: tier.cut(watermark))
            return self.model.frontier
        assert [tier.cut(watermark) for tier in self.writers(which)] == [cut, cut]
        self.model.frontier = cut
        return cut

    @rule(floor=watermarks, ahead=st.integers(0, 1), which=st.integers(1, 2))
    def evict(self, floor: int, ahead: int, which: int) -> None:
        if floor + ahead > self.model.frontier:
            self.refused(which, lambda tier: tier.evict(floor + ahead))
            return
        for tier in self.writers(which):
            tier.evict(floor + ahead)
        self.model.floor = max(self.model.floor, floor + ahead)

    @rule(which=st.integers(1, 2))
    def capture(self, which: int) -> None:
        if self.model.load is not None:
            if not self.model.captured:
                self.refused(which, lambda tier: tier.mark_captured())
            return
        for tier in self.writers(which):
            tier.mark_captured()
        self.model.captured = True

    @rule(ahead=st.integers(-3, 3), last=st.none() | st.integers(0, 3), which=st.integers(1, 2))
    def raise_frontier(self, ahead: int, last: int | None, which: int) -> None:
        model = self.model
        if model.last < 0:  # the beginning of time: nothing to promise yet
            return
        cutoff, declared = model.last + 1 + ahead, None if last is None else model.last + last
        after = model.last if declared is None else max(model.last, declared)
        if model.load is not None or cutoff > after + 1:
            self.refused(which, lambda tier: tier.raise_frontier(cutoff, last=declared))
            return
        for tier in self.writers(which):
            tier.raise_frontier(cutoff, last=declared)
        model.last, model.frontier = after, max(model.frontier, cutoff)

    @rule(first=times, span=st.integers(0, 30), now=times, which=st.integers(1, 2))
    def begin_load(self, first: int, span: int, now: int, which: int) -> None:
        model = self.model
        limit = model.last + 1 if model.captured else model.frontier
        if model.load is not None or first < limit or first + span > now + SETTINGS.max_ahead_us:
            self.refused(which, lambda tier: tier.begin_load(first, first + span, "token", now=now))
            return
        model.load = max(model.last + 1, first + span + 1)
        for tier in self.writers(which):
            assert tier.begin_load(first, first + span, "token", now=now) == model.load

    @rule(published=st.booleans(), which=st.integers(1, 2))
    def end_load(self, published: bool, which: int) -> None:
        model = self.model
        if model.load is None:
            self.refused(which, lambda tier: tier.end_load("token", published=published))
            return
        for tier in self.writers(which):
            tier.end_load("token", published=published)
        if published:
            model.last, model.frontier = max(model.last, model.load - 1), model.load
        model.load = None

    @rule(
        requests=st.lists(
            st.tuples(st.sampled_from([*USERS, "?"]), st.integers(0, 8), times, st.integers(0, 3)),
            min_size=1,
            max_size=5,
        ),
        min_ingest=times,
        cutoff=st.none() | times,
        anchored=st.booleans(),
        which=st.integers(1, 2),
    )
    def recent(
        self, requests: list[tuple[str, int, int, int]], min_ingest: int, cutoff: int | None, anchored: bool, which: int
    ) -> None:
        users, ends, tie_ingest, tie_ordinal = (list(column) for column in zip(*requests, strict=True))
        ties: dict[str, Any] = {}
        if anchored:
            ties = {"tie_ingest": np.array(tie_ingest), "tie_ordinal": np.array(tie_ordinal, np.int32)}
        cutoffs = None if cutoff is None else np.full(len(users), cutoff)

        def act(tier: MutableTier) -> Any:
            keys = user_keys(pa.array(users, pa.string()))
            return tier.recent(keys, end_ts=np.array(ends), min_ingest=min_ingest, cutoff=cutoffs, **ties)

        if self.model.load is not None:
            self.refused(which, act)
            return
        expected = [
            self.model.recent(user, end, min_ingest, cutoff, (ingest, ordinal) if anchored else None)
            for user, end, ingest, ordinal in requests
        ]
        for tier in self.writers(which):
            assert histories(act(tier)) == expected

    @rule(which=st.integers(1, 2), alone=st.booleans())
    def reopen(self, which: int, alone: bool) -> None:
        if self.model.load is not None:
            return
        self.tiers[which].close()
        if alone:  # the directory is closed altogether, and opened from its files
            self.tiers[3 - which].close()
            self.tiers[3 - which] = self.open_lmdb()
        self.tiers[which] = self.open_lmdb()

    @invariant()
    def states_and_events_agree(self) -> None:
        if not hasattr(self, "tiers"):
            return
        model = self.model
        kept = [event for event in model.events if model.floor <= event[2]]
        for tier in self.tiers:
            state = tier.state()
            assert (state.last, state.frontier, state.floor) == (model.last, model.frontier, model.floor)
            assert state.captured == model.captured
            assert state.floor <= state.frontier <= state.closed
            assert state.latest_ingest == max((event[2] for event in model.events), default=EARLIEST_TS - 1)
            assert [row for run in tier.scan(model.floor, LONG) for row in rows_of(run)] == kept


TestTiers = TierMachine.TestCase
TestTiers.settings = settings(settings.get_profile("default"), max_examples=15, stateful_step_count=30, deadline=None)
