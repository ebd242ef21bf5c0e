"""Laws 1 and 2, whatever happens: every example gives the Fat Row of its request, then and ever after.

A state machine appends (on time, late, with ingest times of its own, repeated), compacts at any cut, captures,
backfills, asks for anchors, ingests in bulk, closes and opens; a model keeps nothing but the list of events and a few
numbers. Every example ever made is materialized again and again, under projections of all kinds, by the writer and by a
trainer that opens the store read-only, and compared bit for bit with the oracle over *all* events known by then: what
came after a request must not show.
"""

import itertools
import os
import shutil
import tempfile
import uuid
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import latewood as lw
from latewood.clock import EARLIEST_TS
from latewood.compaction import bulk_load
from latewood.intake import read_events
from latewood.mutable import InMemoryTier
from latewood.pointer import PLACE_TYPE
from latewood.schema import TIME_TYPE
from latewood.testing import ManualClock, Oracle, different_rows, strategies
from plain_streams import chosen

START = 1_000_000  # the clock's first time; event times stay near it, so that they tie
OFFSET = st.integers(-12, 3)
MEMORY = "/dev/shm"  # thousands of durable writes, and durability is not what is tested here


@dataclass
class Logged:
    """Examples that were logged, and the requests that the oracle answers instead."""

    examples: pa.Table
    requests: pa.Table


class Model:
    """The events that a store was given, and what R5-R8 keep count of."""

    def __init__(self, schema: lw.Schema) -> None:
        self.schema = schema
        traits = [(trait.name, trait.type) for trait in schema]
        fields = [("user_id", schema.user_id), ("event_ts", TIME_TYPE), ("ingest_ts", TIME_TYPE), *traits]
        self.events = pa.schema(fields).empty_table()
        self.ordinals: list[int] = []  # each event's place by arrival among those of its user with the same times
        self.met: Counter[Any] = Counter()
        self.last, self.frontier, self.watermark, self.captured = EARLIEST_TS - 1, EARLIEST_TS, EARLIEST_TS, False

    @property
    def closed(self) -> int:
        return self.last + 1

    @property
    def earliest_import(self) -> int:
        return self.closed if self.captured else self.frontier

    def add(self, table: pa.Table, ingest_ts: np.ndarray) -> list[int]:
        """Take in new events; returns the ordinals that the store must have given."""
        times = pa.array(ingest_ts, pa.int64()).view(TIME_TYPE)
        table = table.select(["user_id", "event_ts", *(trait.name for trait in self.schema)])
        table = table.add_column(2, "ingest_ts", times).cast(self.events.schema)
        before = len(self.events)
        self.events = pa.concat_tables([self.events, table]).combine_chunks()
        self.last = max(self.last, *ingest_ts.tolist()) if len(ingest_ts) else self.last
        times = (table[name].cast(pa.int64()).to_pylist() for name in ("event_ts", "ingest_ts"))
        for key in zip(table["user_id"].to_pylist(), *times, strict=True):
            self.ordinals.append(self.met[key])
            self.met[key] += 1
        return self.ordinals[before:]


def ingest_times(events: pa.Table) -> np.ndarray:
    return events["ingest_ts"].cast(pa.int64()).to_numpy()


def assert_same(actual: pa.Table, expected: pa.Table) -> None:
    rows = different_rows(actual, expected)
    if len(rows):
        row = int(rows[0])
        got, want = actual.slice(row, 1).to_pylist(), expected.slice(row, 1).to_pylist()
        raise AssertionError(f"{len(rows)} of {len(expected)} rows differ; row {row}:\n{got}\nexpected\n{want}")


class Equivalence(RuleBasedStateMachine):
    """The machine over a store with LMDB and local files."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="latewood-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
        self.clock = ManualClock(START)
        self.logged: list[Logged] = []
        self.repeatable: list[tuple[pa.Table, Any]] = []
        self.ids = 0

    # ---- the store

    @initialize(schema=strategies.schemas(min_traits=1), shards=st.integers(1, 3))
    def create(self, schema: lw.Schema, shards: int) -> None:
        self.model = Model(schema)
        self.store = self.create_store(schema, shards)

    def create_store(self, schema: lw.Schema, shards: int) -> lw.Store:
        return lw.Store.create(self.folder / "store", schema, shards=shards, clock=self.clock)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = lw.Store.open(self.folder / "store", clock=self.clock)

    def open_read_only(self) -> lw.Store:
        return lw.Store.open(self.folder / "store", read_only=True)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.check_all(lw.Projection())
            self.store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- events

    @rule(by=st.integers(0, 6) | st.just(-5))
    def time_passes(self, by: int) -> None:
        self.clock.advance(by)

    def draw_events(self, data: st.DataObject, *, max_size: int = 12) -> pa.Table:
        start, schema = self.clock.now() - 9, self.model.schema
        size = data.draw(st.integers(0, max_size))
        events = strategies.events(schema, start=start, ingest_time=False, min_size=size, max_size=size)
        return data.draw(events)

    def ingest_column(self, data: st.DataObject, size: int) -> pa.Array:
        now = self.clock.now()
        drawn = data.draw(st.lists(OFFSET, min_size=size, max_size=size))
        return pa.array([now + offset for offset in drawn], pa.int64()).view(TIME_TYPE)

    def added(self, table: pa.Table, receipt: Any, last: int) -> None:
        """Check a receipt by R1 and R5 and tell the model."""
        assert (receipt.count, receipt.duplicates, receipt.skipped) == (len(table), 0, 0)
        assert receipt.ordinal.tolist() == self.model.add(table, receipt.ingest_ts)

    @rule(data=st.data())
    def append(self, data: st.DataObject) -> None:
        table, last = self.draw_events(data), self.model.last
        receipt = self.store.append(table)
        self.added(table, receipt, last)
        assert (receipt.ingest_ts >= max(self.clock.now(), last + 1)).all()
        by_user: dict[Any, list[int]] = {}
        for user, stamp in zip(table["user_id"].to_pylist(), receipt.ingest_ts.tolist(), strict=True):
            by_user.setdefault(user, []).append(stamp)
        assert all(stamps == sorted(set(stamps)) for stamps in by_user.values())

    @rule(data=st.data(), late=st.sampled_from(["raise", "stamp"]))
    def append_with_ingest_times(self, data: st.DataObject, late: Any) -> None:
        table, last = self.draw_events(data), self.model.last
        table = table.append_column("ingest_ts", self.ingest_column(data, len(table)))
        given = ingest_times(table)
        old = given < self.model.earliest_import
        if late == "raise" and old.any():
            with pytest.raises(lw.ConflictError, match=f"row {np.argmax(old)}\\b"):
                self.store.append(table)
            return
        receipt = self.store.append(table, late=late)
        assert receipt.ingest_ts[~old].tolist() == given[~old].tolist()
        assert (receipt.ingest_ts[old] >= max(self.clock.now(), last + 1)).all()
        self.added(table, receipt, last)

    @rule(data=st.data())
    def append_with_ids(self, data: st.DataObject) -> None:
        table, last = self.draw_events(data, max_size=3), self.model.last
        ids = [f"id-{self.ids + k}" for k in range(len(table))]
        self.ids += len(table)
        table = table.append_column("event_id", pa.array(ids, pa.string()))
        receipt = self.store.append(table)
        self.added(table, receipt, last)
        self.repeatable.append((table, receipt))

    @precondition(lambda self: self.repeatable)
    @rule(data=st.data())
    def append_again(self, data: st.DataObject) -> None:
        table, first = data.draw(st.sampled_from(self.repeatable))
        receipt = self.store.append(table)
        assert (receipt.count, receipt.duplicates) == (0, len(table))
        assert receipt.ingest_ts.tolist() == first.ingest_ts.tolist()
        assert receipt.ordinal.tolist() == first.ordinal.tolist()

    @rule(data=st.data(), size=st.integers(200, 700), seed=st.integers(0, 2**32 - 1))
    def append_many(self, data: st.DataObject, size: int, seed: int) -> None:
        """Enough for several stripes of one user, made of a few events."""
        few, last = self.draw_events(data), self.model.last
        if not len(few):
            return
        rng = np.random.default_rng(seed)
        table = few.take(pa.array(rng.integers(0, len(few), size)))
        spread = pa.array(self.clock.now() + rng.integers(-300, 3, size), pa.int64()).view(TIME_TYPE)
        table = table.set_column(1, "event_ts", spread)
        self.added(table, self.store.append(table), last)
        self.clock.advance(size)

    @rule(data=st.data())
    def load_in_bulk(self, data: st.DataObject) -> None:
        table, model, before = self.draw_events(data), self.model, self.store.generation
        table = table.append_column("ingest_ts", self.ingest_column(data, len(table)))
        split = data.draw(st.integers(0, len(table)))
        parts = [
            read_events(part, model.schema, self.store.encode).events
            for part in (table.slice(0, split), table.slice(split))
        ]
        given = ingest_times(table)
        if (given < model.earliest_import).any():
            with pytest.raises(lw.ConflictError):
                bulk_load(self.store, parts)
            return
        generation = bulk_load(self.store, parts)
        self.store.refresh()
        if not len(table):
            assert generation.id == before.id
            return
        model.add(table, given)
        model.watermark = model.frontier = model.closed
        assert (generation.id, generation.watermark) == (before.id + 1, model.closed)
        assert generation.event_count == len(model.events)

    # ---- generations

    @rule(data=st.data(), keep=st.integers(1, 3))
    def compact(self, data: st.DataObject, keep: int) -> None:
        model, before = self.model, self.store.generation
        cut = data.draw(st.none() | st.integers(0, 6).map(lambda back: max(model.frontier, model.closed - back)))
        generation = self.store.compact(cut, keep=keep)
        watermark = model.closed if cut is None else cut
        times = ingest_times(model.events)
        if not ((times >= model.watermark) & (times < watermark)).any():
            assert generation.id == before.id
            return
        assert (generation.id, generation.watermark) == (before.id + 1, watermark)
        model.watermark, model.frontier = watermark, max(model.frontier, watermark)
        assert generation.event_count == (times < watermark).sum()

    # ---- requests

    def draw_requests(self, data: st.DataObject, latest: int | None = None) -> pa.Table:
        start, min_size = self.clock.now() - 10, data.draw(st.sampled_from([3, 3, 0]))
        table = data.draw(strategies.requests(self.model.schema, start=start, min_size=min_size, max_size=6))
        if latest is not None:
            times = np.minimum(table["request_ts"].cast(pa.int64()).to_numpy(), latest)
            table = table.set_column(1, "request_ts", pa.array(times).view(TIME_TYPE))
        return table

    @rule(data=st.data())
    def capture(self, data: st.DataObject) -> None:
        requests = self.draw_requests(data)
        captured = self.store.capture(requests)
        self.model.captured = True
        closed = pa.array([self.model.closed] * len(requests), pa.int64()).view(TIME_TYPE)
        assert captured.columns["cutoff"].cast(pa.int64()).to_pylist() == closed.cast(pa.int64()).to_pylist()
        self.log(captured.columns, requests.append_column("cutoff", closed))
        projection = lw.Projection(**data.draw(strategies.projections(self.model.schema)))
        assert_same(captured.history(projection).to_arrow(), self.expected(self.logged[-1].requests, projection))

    @rule(data=st.data(), complete=st.booleans())
    def backfill(self, data: st.DataObject, complete: bool) -> None:
        model = self.model
        past = data.draw(st.booleans())
        requests = self.draw_requests(data, latest=model.closed if past else None)
        times = requests["request_ts"].cast(pa.int64()).to_numpy()
        newest = int(times.max(initial=EARLIEST_TS))
        if newest > model.closed and (not complete or newest - 1 > self.clock.now()):
            with pytest.raises(lw.ConflictError):
                self.run_backfill(requests, complete)
            return
        examples = self.run_backfill(requests, complete)
        if len(requests):
            model.frontier = max(model.frontier, newest)
            model.last = max(model.last, newest - 1) if complete else model.last
        assert examples["cutoff"].cast(pa.int64()).to_pylist() == times.tolist()
        self.log(examples, requests)

    @rule(data=st.data(), min_history=st.integers(0, 3))
    def backfill_anchors(self, data: st.DataObject, min_history: int) -> None:
        trait = data.draw(st.sampled_from(self.model.schema.traits))
        value = None if trait.is_list else data.draw(strategies.values(trait))
        where = lw.col(trait.name).is_null() if value is None else lw.col(trait.name) == value
        where = data.draw(st.sampled_from([where, ~where]))
        anchors = lw.anchors(self.store, where, min_history=min_history)
        assert_same(anchors, self.expected_anchors(where, min_history))
        examples = self.run_backfill(anchors, complete=False)
        cutoffs = examples["cutoff"].cast(pa.int64()).to_numpy()
        self.model.frontier = max(self.model.frontier, int(cutoffs.max(initial=EARLIEST_TS)))
        self.log(examples, anchors)

    def run_backfill(self, requests: pa.Table, complete: bool) -> pa.Table:
        with warnings.catch_warnings():  # events and requests here are all in µs, and as coarse as they happen to be
            warnings.simplefilter("ignore", UserWarning)
            return lw.backfill(self.store, requests, complete=complete, allow_empty=True)

    def expected_anchors(self, where: Any, min_history: int) -> pa.Table:
        """Each event as a request, its history counted against every other event."""
        events, ordinal = self.model.events, np.array(self.model.ordinals, np.int32)
        user = events["user_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        event_ts, ingest_ts = (events[name].cast(pa.int64()).to_numpy() for name in ("event_ts", "ingest_ts"))
        meets = where.evaluate(events)

        def sees(row: int) -> np.ndarray:
            place = (ingest_ts < ingest_ts[row]) | ((ingest_ts == ingest_ts[row]) & (ordinal < ordinal[row]))
            before = (event_ts < event_ts[row]) | ((event_ts == event_ts[row]) & place)
            return (user == user[row]) & before & (ingest_ts <= min(event_ts[row], ingest_ts[row]))

        kept = [row for row in np.flatnonzero(meets).tolist() if sees(row).sum() >= min_history]
        users = [utf8(value) for value in events["user_id"].to_pylist()]
        kept.sort(key=lambda row: (event_ts[row], users[row], ingest_ts[row], ordinal[row]))
        rows = pa.array(kept, pa.int64())
        fields = [pa.field("ingest_ts", TIME_TYPE), pa.field("ordinal", pa.int32()), pa.field("end", PLACE_TYPE)]
        places = [events["ingest_ts"].combine_chunks(), pa.array(ordinal), pa.nulls(len(events), PLACE_TYPE)]
        anchor = pa.StructArray.from_arrays(places, fields=fields).take(rows)
        table = events.take(rows).drop_columns(["ingest_ts"]).rename_columns({"event_ts": "request_ts"})
        plain = ((trait.name, trait.value_type) for trait in self.model.schema)
        return table.cast(pa.schema([*list(table.schema)[:2], *plain])).append_column("anchor", anchor)

    @rule(data=st.data())
    def history(self, data: st.DataObject) -> None:
        user = data.draw(strategies.user_ids(self.model.schema))
        as_of = data.draw(st.none() | OFFSET.map(lambda offset: self.clock.now() + offset))
        moment = 2**60 if as_of is None else as_of
        request = pa.table({"user_id": pa.array([user], self.model.schema.user_id), "request_ts": [moment]})
        expected = self.expected(request, lw.Projection())["history"].combine_chunks()
        table = self.store.history(user, as_of)
        lists = zip([field.name for field in expected.type], expected.flatten(), strict=True)
        assert_same(table, pa.table({name: values.flatten() for name, values in lists}))

    # ---- the laws

    def log(self, examples: pa.Table, requests: pa.Table) -> None:
        """Keep examples. Their recents stand in the total order, from the pointer's watermark to the cutoff."""
        for uih, recent, cutoff in zip(
            *(examples[name].to_pylist() for name in ("uih", "recent", "cutoff")), strict=True
        ):
            order = list(zip(recent["event_ts"], recent["ingest_ts"], recent["ordinal"], strict=True))
            assert order == sorted(set(order))
            assert all(uih["watermark"] <= ingest_ts < cutoff for _, ingest_ts, _ in order)
        self.logged.append(Logged(examples, requests))

    def oracle(self) -> Oracle:
        groups = {group: [t.name for t in traits] for group, traits in self.model.schema.groups.items()}
        return Oracle(self.model.events, groups=groups)

    def expected(self, requests: pa.Table, projection: lw.Projection) -> pa.Table:
        return self.oracle().fat_rows(requests, projection)

    def check_all(self, projection: lw.Projection, store: lw.Store | None = None) -> None:
        materializer, oracle = lw.Materializer(store or self.store, projection), self.oracle()
        for logged in self.logged:
            assert_same(materializer(logged.examples).to_arrow(), oracle.fat_rows(logged.requests, projection))

    @precondition(lambda self: self.logged)
    @rule(data=st.data(), trainer=st.booleans())
    def materialize(self, data: st.DataObject, trainer: bool) -> None:
        projection = lw.Projection(**data.draw(strategies.projections(self.model.schema)))
        if not trainer:
            self.check_all(projection)
            return
        with self.open_read_only() as store:
            self.check_all(projection, store)

    @precondition(lambda self: self.logged)
    @rule(data=st.data(), trainer=st.booleans())
    def materialize_streams(self, data: st.DataObject, trainer: bool) -> None:
        start = self.clock.now() - 10
        projection = lw.Projection(**data.draw(strategies.streams(self.model.schema, start=start)))
        if not trainer:
            self.check_streams(projection, self.store)
            return
        with self.open_read_only() as store:
            self.check_streams(projection, store)

    def check_streams(self, projection: lw.Projection, store: lw.Store) -> None:
        """Against the oracle's histories, filtered and cut event by event."""
        materializer, oracle, schema = lw.Materializer(store, projection), self.oracle(), self.model.schema
        for logged in self.logged:
            whole = oracle.fat_rows(logged.requests, lw.Projection())["history"].combine_chunks()
            assert_same(
                materializer(logged.examples).to_arrow(),
                logged_features(logged.requests).append_column("history", cut_streams(whole, projection, schema)),
            )


def logged_features(requests: pa.Table) -> pa.Table:
    """What of requests is an example's own."""
    return requests.drop_columns([name for name in ("cutoff", "anchor") if name in requests.column_names])


def cut_streams(histories: pa.StructArray, projection: lw.Projection, schema: lw.Schema) -> pa.StructArray:
    """Of whole histories, what streams hold: each trait's values and the bits of the streams."""
    columns = dict(zip([field.name for field in histories.type], histories.flatten(), strict=True))
    types = {name: str(column.type.value_type) for name, column in columns.items()}
    flat = {name: column.values for name, column in columns.items()}
    plain = {
        name: (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_pylist()
        for name, values in flat.items()
    }
    offsets, places, bits = [0], list[int](), list[int]()
    ends = next(iter(columns.values())).offsets.to_pylist()
    for start, stop in itertools.pairwise(ends):
        history = [{name: values[at] for name, values in plain.items()} for at in range(start, stop)]
        kept = chosen(history, projection, types)
        places += [start + place for place, _ in kept]
        bits += [found for _, found in kept]
        offsets.append(len(places))
    ends, taken = pa.array(offsets, pa.int32()), pa.array(places, pa.int64())
    made = {name: flat[name].take(taken) for name in projection.names(schema)} | {"stream": pa.array(bits, pa.int64())}
    lists = [pa.ListArray.from_arrays(ends, values) for values in made.values()]
    return pa.StructArray.from_arrays(lists, names=list(made))


class InMemoryEquivalence(Equivalence):
    """The machine over the in-memory tier and in-memory storage."""

    def create_store(self, schema: lw.Schema, shards: int) -> lw.Store:
        self.uri = f"memory://{uuid.uuid4()}"
        store = lw.Store.create(self.uri, schema, shards=shards, clock=self.clock, mutable=self.folder)
        assert store.tier is not None
        store.tier.close()
        store.tier = InMemoryTier(schema.user_id)
        return store

    @rule()
    def reopen(self) -> None:
        """Nothing to close: what is in memory stays open."""

    def open_read_only(self) -> lw.Store:
        return lw.Store.open(self.uri, read_only=True)


def utf8(user: Any) -> Any:
    return user.encode() if isinstance(user, str) else user


EXAMPLES = settings().max_examples  # of the profile loaded
TestEquivalence = Equivalence.TestCase
TestEquivalence.settings = settings(max_examples=EXAMPLES // 4, stateful_step_count=30)
TestInMemoryEquivalence = InMemoryEquivalence.TestCase
TestInMemoryEquivalence.settings = settings(max_examples=EXAMPLES * 2 // 3, stateful_step_count=30)
