"""Both backends against a dull model: lists, loops and the rules as docs/protocol.md words them."""

import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from latewood.clock import EARLIEST_TS
from latewood.errors import ConflictError
from latewood.events import Events
from latewood.immutable import Scrubs
from latewood.mutable import (
    GONE,
    AppendReceipt,
    InMemoryTier,
    LmdbTier,
    MutableTier,
    Newer,
    Settings,
    StoredTargets,
    Supersedes,
    UnseenTargetsError,
    hash_content,
    hash_ids,
)
from latewood.storage import open_storage
from latewood.testing.recent_events import histories, make_events, of_ids, of_places, places_of, rows_of
from latewood.users import user_keys

USERS = ["a", "b", "ü", "d"]
SETTINGS = Settings(max_ahead_us=50, id_window_us=10**9)
LONG = 2**60
Row = tuple[Any, ...]  # (user, event_ts, ingest_ts, ordinal, item)


class Version(NamedTuple):
    """What an event id was given to."""

    content: Any
    ingest_ts: int
    event: Row | None  # None: a deletion


def said(row: dict[str, Any]) -> Any:
    return row["user"], row["event_ts"], row["item"], row["deletion"], row["target"]


class DullTier:
    """What the mutable tier means, without any of its machinery."""

    def __init__(self) -> None:
        self.events: list[Row] = []  # by arrival, never evicted
        self.superseded: list[tuple[Any, ...]] = []  # (user, event_ts, ingest_ts, ordinal, at), by arrival
        self.deleted: dict[tuple[Any, ...], bool] = {}  # by place: whether by a deletion, as far as its time tells
        self.ids: dict[str, list[Version]] = {}  # by arrival
        self.told: list[dict[str, Any]] = []  # rows as they were appended
        self.scrubbed: dict[str, int] = {}
        self.last, self.frontier, self.floor, self.captured = EARLIEST_TS - 1, EARLIEST_TS, EARLIEST_TS, False
        self.load: int | None = None
        self.loaded = EARLIEST_TS  # events below it may never have been here

    def refuse(self, condition: bool) -> None:
        if condition:
            raise ValueError

    def ahead(self, delta: int) -> int:
        """A time by how far it lies from the clock's last."""
        return max(0, max(0, self.last) + delta)

    def append(self, rows: list[dict[str, Any]], explicit: bool, late: str, now: int) -> tuple[list[Any], list[str]]:
        """(ingest_ts, ordinal) per row, None where it is open, and what became of it. Raises ValueError to refuse."""
        self.refuse(self.load is not None)
        fate, twin = self.sort_out(rows)
        targets = self.find_targets(rows, fate, twin)
        fresh = [i for i in range(len(rows)) if fate[i] == "new"]
        given = self.stamp(rows, fresh, explicit, late, now)
        for i in fresh:
            target = targets.get(i)
            self.refuse(target is not None and (given[target] if isinstance(target, int) else target[2]) > given[i])
        out: dict[int, Any] = {
            i: (self.scrubbed[rows[i]["user"]], -1) for i in range(len(rows)) if fate[i] == "skipped"
        }
        for i in fresh:
            out[i] = given[i], self.enter(rows[i], given[i])
            if (target := targets.get(i)) is not None:
                place = (
                    (rows[target]["user"], rows[target]["event_ts"], *out[target])
                    if isinstance(target, int)
                    else target
                )
                self.superseded.append((*place, given[i]))
                same_time = [j for j in fresh if (rows[j]["user"], given[j]) == (place[0], given[i])]
                self.deleted[place] = all(rows[j]["deletion"] for j in same_time)
        for i in range(len(rows)):
            if fate[i] == "repeated":
                out[i] = out[twin[i]] if isinstance(twin[i], int) else self.receipt_of(twin[i])
        self.told += rows
        return [out[i] for i in range(len(rows))], fate

    def sort_out(self, rows: list[dict[str, Any]]) -> tuple[list[str], dict[int, Any]]:
        """Which rows are skipped, repeated or new; and what the repeated ones repeat, a row above or a version."""
        fate: list[str] = []
        twin: dict[int, Any] = {}
        above: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            if not row["deletion"] and row["event_ts"] < self.scrubbed.get(row["user"], EARLIEST_TS):
                fate.append("skipped")
                continue
            earlier: list[Any] = [*self.ids.get(row["id"], ()), *above.get(row["id"], ())] if row["id"] else []
            same = [v for v in earlier if (said(rows[v]) if isinstance(v, int) else v.content) == said(row)]
            if same:
                twin[i] = same[0]
            else:
                self.refuse(bool(earlier) and row["target"] != row["id"])
                above.setdefault(row["id"], []).append(i)
            fate.append("repeated" if same else "new")
        return fate, twin

    def find_targets(self, rows: list[dict[str, Any]], fate: list[str], twin: dict[int, Any]) -> dict[int, Any]:
        """What the new rows supersede: a row above, or a place with its user. Nothing is superseded twice.

        Skips deletions of what was scrubbed; those of what is deleted are repetitions.
        """
        targets: dict[int, Any] = {}
        usable = [i for i, row in enumerate(rows) if fate[i] == "new" and not row["deletion"]]
        for i, row in enumerate(rows):
            if fate[i] != "new" or row["target"] is None:
                continue
            target = (
                self.target_by_place(row) if isinstance(row["target"], tuple) else self.target_by_id(i, rows, usable)
            )
            owner = None if target is None else rows[target]["user"] if isinstance(target, int) else target[0]
            if target is not None:
                self.refuse(owner != row["user"])
                first = next((j for j in targets if targets[j] == target), None)
                at = [at for *place, at in self.superseded if tuple(place) == target]
                if not at and first is None:
                    targets[i] = target
                    continue
                deleted = self.deleted[target] if at else first is not None and rows[first]["deletion"]
                self.refuse(not row["deletion"] or not deleted)
                fate[i], twin[i] = "repeated", Version(None, at[0], None) if at else first
            elif row["user"] not in self.scrubbed:
                raise ValueError
            elif row["deletion"]:
                fate[i] = "skipped"
        return targets

    def target_by_id(self, i: int, rows: list[dict[str, Any]], usable: list[int]) -> Any:
        above = [j for j in usable if j < i and rows[j]["id"] == rows[i]["target"]]
        events = [version.event for version in self.ids.get(rows[i]["target"], ()) if version.event is not None]
        if above:
            return above[-1]
        return events[-1][:4] if events and not self.is_forgotten(events[-1]) else None

    def target_by_place(self, row: dict[str, Any]) -> Any:
        place = (row["user"], *row["target"])
        here = place in [event[:4] for event in self.events] or place[2] < max(self.floor, self.loaded)
        return place if here and not self.is_forgotten(place) else None

    def is_forgotten(self, event: tuple[Any, ...]) -> bool:
        return bool(event[2] <= self.scrubbed.get(event[0], EARLIEST_TS - 1))

    def stamp(
        self, rows: list[dict[str, Any]], fresh: list[int], explicit: bool, late: str, now: int
    ) -> dict[int, int]:
        stamped, given = fresh, {}
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
        return given

    def enter(self, row: dict[str, Any], ingest_ts: int) -> int:
        """Take in a row; its ordinal."""
        self.last = max(self.last, ingest_ts)
        event, ordinal = None, -1
        if not row["deletion"]:
            tie = (row["user"], row["event_ts"], ingest_ts)
            ordinal = sum(other[:3] == tie for other in self.events)
            event = (*tie, ordinal, row["item"])
            self.events.append(event)
        if row["id"] is not None:
            self.ids.setdefault(row["id"], []).append(Version(said(row), ingest_ts, event))
        return ordinal

    def receipt_of(self, version: Version) -> tuple[int, int] | None:
        """None: scrubbed, so that the receipt depends on whether it was evicted."""
        if version.event is None:
            return version.ingest_ts, -1
        return None if self.is_forgotten(version.event) else version.event[2:4]

    def recent(
        self, user: str, end_ts: int, min_ingest: int, cutoff: int | None, tie: tuple[int, int] | None
    ) -> tuple[list[Any], list[Any]]:
        """The events, and the suppressed places with the earliest time of each."""
        self.refuse(self.load is not None)
        below = self.last + 1 if cutoff is None else cutoff
        earliest = max(min_ingest, self.floor, self.scrubbed.get(user, EARLIEST_TS) + 1)
        hidden = {version[:4] for version in self.superseded if version[4] < below}
        found = [
            event
            for event in self.events
            if event[0] == user
            and (event[1] < end_ts or (tie is not None and event[1] == end_ts and event[2:4] < tie))
            and earliest <= event[2] < below
            and event[:4] not in hidden
        ]
        suppressed: dict[Any, int] = {}
        for owner, *place, at in self.superseded:
            if owner == user and place[0] <= end_ts and place[1] < min_ingest and earliest <= at < below:
                suppressed[tuple(place)] = min(at, suppressed.get(tuple(place), at))
        return sorted(found, key=lambda event: event[1:4]), sorted((*place, at) for place, at in suppressed.items())


IDS = "pqrstuvw"
deltas = st.one_of(st.integers(0, 6), st.integers(-55, 6))  # from where the clock stands: seldom too far behind
row = st.fixed_dictionaries(
    {
        "user": st.sampled_from(USERS),
        "event_ts": st.integers(0, 6) | st.integers(1000, 1003),  # those that a scrub's user may have later
        "ingest_ts": deltas,
        "item": st.one_of(st.none(), st.integers(0, 2)),
        "id": st.one_of(st.none(), st.sampled_from(IDS)),
        "pick": st.one_of(st.none(), st.integers(0, 60)),
        "again": st.one_of(st.none(), st.none(), st.integers(0, 60)),
        "deletion": st.booleans(),
    }
)


def aimed(rows: list[dict[str, Any]], by: str, model: DullTier) -> list[dict[str, Any]]:
    """The rows with what they supersede, mostly something that is there; with ids only if they have some."""
    done: list[dict[str, Any]] = []
    kind = {"ids": str, "places": tuple, "nothing": int}[by]
    for row in rows:
        pick, new = row["pick"], row | {"target": None, "deletion": False}
        new["ingest_ts"] = model.ahead(row["ingest_ts"])
        told = [old for old in model.told if old["target"] is None or isinstance(old["target"], kind)]
        if row["again"] is not None and told:
            done.append(told[row["again"] % len(told)] | {"ingest_ts": new["ingest_ts"]})
            continue
        if pick is not None and by == "ids":
            known = [name for name, versions in model.ids.items() if versions[-1].content[0] == row["user"]]
            known += [other["id"] for other in done if other["user"] == row["user"] and other["id"]]
            new["target"] = known[pick % len(known)] if known and pick % 6 else IDS[pick % len(IDS)]
            new["id"] = new["target"] if pick % 2 else row["id"]
        elif pick is not None and by == "places" and model.events:
            user, *place, _ = model.events[pick % len(model.events)]
            new["target"], new["user"] = tuple(place), user if pick % 6 else row["user"]
        if new["target"] is not None and row["deletion"]:
            new |= {"deletion": True, "event_ts": 0, "item": None}
        if (
            new["id"] in {*model.ids, *(other["id"] for other in done)}
            and new["target"] != new["id"]
            and row["event_ts"]
        ):
            new["id"] = None  # mostly: else it is a conflict
        done.append(new)
    return done


def events_of(rows: list[dict[str, Any]]) -> Events:
    columns = {name: [row[name] for row in rows] for name in ("user", "event_ts", "ingest_ts", "item")}
    return make_events(columns["user"], columns["event_ts"], columns["ingest_ts"], columns["item"])


def versions_of(rows: list[dict[str, Any]], by: str) -> Supersedes | None:
    targets, deletions = [row["target"] for row in rows], [row["deletion"] for row in rows]
    if all(target is None for target in targets):
        return None
    return of_ids(targets, deletions) if by == "ids" else of_places(targets, deletions)


class TierMachine(RuleBasedStateMachine):
    """Every step goes to the model and to each tier: same result, or refused by all."""

    watermarks: Bundle[int] = Bundle("watermarks")

    @initialize()
    def start(self) -> None:
        memory = Path("/dev/shm")  # where there is one, a commit need not wait for a disk
        self.folder = Path(tempfile.mkdtemp(prefix="latewood-", dir=memory if memory.is_dir() else None))
        self.model = DullTier()
        memory_tier = InMemoryTier(pa.string(), SETTINGS, scrubs=self.book("of memory"))
        self.tiers: list[MutableTier] = [memory_tier, self.open_lmdb(), self.open_lmdb()]

    def book(self, name: str) -> Scrubs:
        return Scrubs(open_storage(str(self.folder / name)), bytes(range(16)))

    def open_lmdb(self) -> MutableTier:
        options: Any = {"map_size": 1 << 16, "scrubs": self.book("of lmdb")}
        return LmdbTier(self.folder / "mutable", pa.string(), SETTINGS, **options)

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
        by=st.sampled_from(["nothing", "ids", "places"]),
        explicit=st.booleans(),
        late=st.sampled_from(["raise", "stamp"]),
        delta=deltas,
        which=st.integers(1, 2),
    )
    def append(
        self, rows: list[dict[str, Any]], with_ids: bool, by: str, explicit: bool, late: str, delta: int, which: int
    ) -> None:
        rows = rows if with_ids else [{**row, "id": None} for row in rows]
        rows, now = aimed(rows, by, self.model), self.model.ahead(delta)
        rows = rows if with_ids else [{**row, "id": None} for row in rows]
        events, supersedes = events_of(rows), versions_of(rows, by)
        ids = hash_ids(pa.array([row["id"] for row in rows], pa.string())) if with_ids else None
        content = hash_content(events, supersedes) if with_ids else None

        def act(tier: MutableTier) -> AppendReceipt:
            given: Any = {"supersedes": supersedes, "explicit": explicit, "late": late, "now": now}
            stored = StoredTargets.unseen()
            while True:
                try:
                    return tier.append(events, ids=ids, content=content, stored=stored, **given)
                except UnseenTargetsError as asked:
                    stored = self.look([rows[row]["user"] for row in asked.rows.tolist()], asked)

        try:
            expected, fate = self.model.append(rows, explicit, late, now)
        except ValueError:
            self.refused(which, act)
            return
        counts = tuple(fate.count(what) for what in ("new", "repeated", "skipped"))
        for tier in self.writers(which):
            receipt = act(tier)
            assert (receipt.count, receipt.duplicates, receipt.skipped) == counts
            pairs = zip(receipt.ingest_ts.tolist(), receipt.ordinal.tolist(), strict=True)
            assert [pair if wanted else None for pair, wanted in zip(pairs, expected, strict=True)] == expected

    def look(self, users: list[str], asked: UnseenTargetsError) -> StoredTargets:
        """What the oldest generation that will do would say: what was superseded below the floor."""
        newer = Newer.none(len(users))
        columns = asked.places.event_ts, asked.places.ingest_ts, asked.places.ordinal
        for i, place in enumerate(zip(users, *(column.tolist() for column in columns), strict=True)):
            for *known, at in self.model.superseded:
                if tuple(known) == place and at < asked.floor:
                    newer.at[i], newer.ordinal[i] = at, GONE if self.model.deleted[place] else 0
        return StoredTargets(asked.floor, asked.rows, asked.places, newer, np.zeros(len(asked.rows), np.bool_))

    @precondition(lambda self: self.model.last % 3 == 1)
    @rule(users=st.sets(st.sampled_from(USERS), min_size=1, max_size=2), delta=deltas, which=st.integers(1, 2))
    def scrub(self, users: set[str], delta: int, which: int) -> None:
        model, now, keys = self.model, self.model.ahead(delta), user_keys(pa.array(sorted(users), pa.string()))
        body = self.book("of nobody").body(keys)
        if model.load is not None:
            self.refused(which, lambda tier: tier.scrub(body, now=now))
            return
        scrub_ts = max(now, model.last + 1)
        for tier in self.writers(which):
            assert tier.scrub(body, now=now)[1] == scrub_ts
        model.last, model.frontier = scrub_ts, scrub_ts + 1
        model.scrubbed |= dict.fromkeys(users, scrub_ts)

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

    @precondition(lambda self: self.model.last % 4 == 0)  # seldom: nothing else can be done meanwhile
    @rule(first=deltas, span=st.integers(0, 9), now=deltas, which=st.integers(1, 2))
    def begin_load(self, first: int, span: int, now: int, which: int) -> None:
        model = self.model
        first, now = model.ahead(first), model.ahead(now)
        limit = model.last + 1 if model.captured else model.frontier
        if model.load is not None or first < limit or first + span > now + SETTINGS.max_ahead_us:
            self.refused(which, lambda tier: tier.begin_load(first, first + span, "token", now=now))
            return
        model.load = model.loaded = max(model.last + 1, first + span + 1)
        for tier in self.writers(which):
            assert tier.begin_load(first, first + span, "token", now=now) == model.load

    @precondition(lambda self: self.model.load is not None)
    @rule(published=st.booleans(), which=st.integers(1, 2))
    def end_load(self, published: bool, which: int) -> None:
        model = self.model
        for tier in self.writers(which):
            tier.end_load("token", published=published)
        if published and model.load is not None:
            model.last, model.frontier = max(model.last, model.load - 1), model.load
        model.load = None

    @rule(
        requests=st.lists(
            st.tuples(st.sampled_from([*USERS, "?"]), st.sampled_from([3, 5, 1001, 2000]), deltas, st.integers(0, 3)),
            min_size=1,
            max_size=5,
        ),
        min_ingest=st.just(-200) | st.integers(-12, 1),
        cutoff=st.none() | deltas,
        anchored=st.booleans(),
        which=st.integers(1, 2),
    )
    def recent(
        self, requests: list[tuple[str, int, int, int]], min_ingest: int, cutoff: int | None, anchored: bool, which: int
    ) -> None:
        ahead = self.model.ahead
        min_ingest, cutoff = ahead(min_ingest), None if cutoff is None else ahead(cutoff)
        requests = [(user, end, ahead(ingest), ordinal) for user, end, ingest, ordinal in requests]
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
            found = act(tier)
            places, offsets = places_of(found.suppressed), found.suppressed_offsets
            suppressed = [places[a:b] for a, b in pairwise(offsets)]
            assert list(zip(histories(found), suppressed, strict=True)) == expected

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
        kept = [event for event in model.events if model.floor <= event[2] and not model.is_forgotten(event)]
        superseded = [version[1:] for version in model.superseded if model.floor <= version[4]]
        newest = [event[2] for event in model.events] + [version[4] for version in model.superseded]
        for tier in self.tiers:
            state = tier.state()
            assert (state.last, state.frontier, state.floor) == (model.last, model.frontier, model.floor)
            assert state.captured == model.captured
            assert state.floor <= state.frontier <= state.closed
            assert state.latest_ingest == max(newest, default=EARLIEST_TS - 1)
            assert [row for run in tier.scan(model.floor, LONG) for row in rows_of(run)] == kept
            assert places_of(tier.suppressions(model.floor, LONG)) == superseded


TestTiers = TierMachine.TestCase
TestTiers.settings = settings(settings.get_profile("default"), max_examples=20, stateful_step_count=35, deadline=None)
