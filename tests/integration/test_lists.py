"""Traits that are lists, as a user meets them: in and out of a store, through every layer, against the oracle."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.examples import FatRows
from latewood.testing import ManualClock, different_rows, fat_rows
from moments import START

SECOND = 1_000_000
TRAITS = pa.schema(
    [
        ("item", pa.int64()),
        ("tags", pa.list_(pa.string())),
        ("kinds", pa.list_(pa.dictionary(pa.int32(), pa.string()), 2)),
        ("neighbours", pa.list_(pa.int64())),
        ("vector", pa.list_(pa.float32(), 3)),
        ("flags", pa.list_(pa.bool_())),
        pa.field("seen", pa.list_(pa.timestamp("us", "UTC")), nullable=False),
    ]
)
SCHEMA = lw.Schema(user_id=pa.int64(), traits=TRAITS)
NAN = np.array([0x7FC0_1234], np.uint32).view(np.float32)[0]


class World:
    """A store, all that was appended to it, and the examples that were logged."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        self.path, self.clock, self.rng = path, ManualClock(START), np.random.default_rng(seed)
        self.store = lw.Store.create(path, SCHEMA, shards=2, clock=self.clock)
        self.parts: list[pa.Table] = []
        self.logged: list[tuple[pa.Table, pa.Table]] = []

    def events(self, count: int) -> pa.Table:
        """Of four users, up to a minute old."""
        rng, now = self.rng, self.clock.now()

        def below(n: int) -> int:
            return int(rng.integers(0, n))

        def among(choices: Any) -> Any:
            return choices[below(len(choices))]

        def maybe(make: Any) -> list[Any]:
            return [None if below(10) == 0 else make() for _ in range(count)]

        def of(most: int, make: Any) -> Any:
            return lambda: [make() for _ in range(among([0, 1, below(most)]))]

        columns = {
            "item": [below(50) for _ in range(count)],
            "tags": maybe(of(7, lambda: among(["", "a", "b", "ü", "long " * 9]))),
            "kinds": maybe(lambda: [among("xyz"), "x"]),
            "neighbours": maybe(of(40, lambda: among([below(9), int(rng.integers(-(2**63), 2**63))]))),
            "vector": maybe(lambda: [among([NAN, -0.0, rng.random()]) for _ in range(3)]),
            "flags": maybe(of(9, lambda: below(2) == 0)),
            "seen": [of(3, lambda: below(10**15))() for _ in range(count)],
        }
        arrays = {field.name: pa.array(columns[field.name], field.type, from_pandas=False) for field in TRAITS}
        times = [now - below(60) * SECOND for _ in range(count)]
        return pa.table({"user_id": [below(4) for _ in range(count)], "event_ts": times} | arrays)

    def append(self, count: int) -> None:
        events = self.events(count)
        receipt = self.store.append(events)
        self.parts.append(events.append_column("ingest_ts", pa.array(receipt.ingest_ts)))
        self.clock.advance(timedelta(minutes=1))

    def log(self) -> None:
        """One example of every user, and of one that has no events."""
        requests = pa.table({"user_id": [0, 1, 2, 3, 9], "request_ts": [self.clock.now()] * 5})
        examples = self.store.capture(requests).columns
        examples.validate(full=True)
        self.logged.append((examples, requests.append_column("cutoff", examples["cutoff"])))

    def wanted(self, requests: pa.Table, projection: lw.Projection) -> pa.Table:
        return fat_rows(pa.concat_tables(self.parts), requests, projection)

    def check(self, store: lw.Store | None = None) -> None:
        """Everything that was logged, in several projections."""
        for projection in (
            lw.Projection(),
            lw.Projection(max_len=9),
            lw.Projection(traits=["vector", "tags"], max_len=99),
        ):
            materialize = lw.Materializer(store or self.store, projection)
            for examples, requests in self.logged:
                wanted = self.wanted(requests, projection)
                assert not len(different_rows(materialize(examples).to_arrow(), wanted))
                assert not len(different_rows(materialize.shared(examples).expand().to_arrow(), wanted))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Events in two generations and in the mutable tier, and examples from before, between and after."""
    world = World(tmp_path / "store")
    for step in range(4):
        world.append(300)
        world.log()
        if step in (1, 2):
            world.store.compact()
    yield world
    world.store.close()


def test_what_is_materialized_is_the_fat_row(world: World) -> None:
    world.check()
    world.store.compact()
    world.check()
    with lw.Store.open(world.path, read_only=True) as trainer:
        world.check(trainer)
    for user in range(4):
        [whole] = world.wanted(pa.table({"user_id": [user], "request_ts": [world.clock.now()]}), lw.Projection())[
            "history"
        ]
        history = world.store.history(user)
        assert history.schema.field("vector").type == pa.list_(pa.float32(), 3)
        for name in ("tags", "kinds", "neighbours", "flags", "seen"):
            assert history[name].to_pylist() == whole[name].as_py()
    assert not lw.verify(world.store, world.logged[0][0]).differences


def test_a_batch_has_items_and_offsets_or_rows(world: World) -> None:
    examples, requests = world.logged[-1]
    materialize = lw.Materializer(world.store, lw.Projection())
    batch, shared = materialize(examples), materialize.shared(examples)
    events = int(batch.offsets[-1])
    history = world.wanted(requests, lw.Projection())["history"].combine_chunks()
    assert batch.lists.keys() == {"tags", "neighbours", "flags", "seen"}
    for name in batch.lists:
        lists, ends = history.field(name).flatten().to_pylist(), batch.lists[name]
        assert ends.dtype == np.int64
        assert np.diff(ends).tolist() == [len(of or []) for of in lists]
        assert len(batch.values[name]) == ends[-1]
    tags = [batch.dictionaries["tags"][code].as_py() for code in batch.values["tags"].tolist()]
    assert tags == [tag for of in history.field("tags").flatten().to_pylist() for tag in of or []]
    assert batch.values["vector"].shape == (events, 3)
    assert batch.values["kinds"].shape == (events, 2)
    assert not batch.values["vector"][batch.masks["vector"]].any()
    assert batch.masks["tags"].shape == (events,)
    assert "seen" not in batch.masks
    for i in range(len(batch)):
        part = batch.slice(i, i + 1)
        views, offsets = shared.history(i), shared.list_offsets(i)
        for name, values in part.values.items():
            assert views[name].tobytes() == values.tobytes()
        for name, ends in part.lists.items():
            assert offsets[name].tolist() == ends.tolist()


def test_torch_gets_them_jagged(world: World) -> None:
    pytest.importorskip("torch")
    batch = lw.Materializer(world.store, lw.Projection())(world.logged[-1][0])
    tensors = batch.to_torch()
    assert tensors.lists.keys() == batch.lists.keys()
    assert tensors.values["tags"].data_ptr() == batch.values["tags"].ctypes.data
    assert tensors.lists["tags"].tolist() == batch.lists["tags"].tolist()
    assert tuple(tensors.values["vector"].shape) == (int(batch.offsets[-1]), 3)


def test_a_loader_batches_them_anew(world: World, tmp_path: Path) -> None:
    """From the files of an example log."""
    examples = pa.concat_tables([examples for examples, _ in world.logged])
    requests = pa.concat_tables([requests for _, requests in world.logged])
    pq.write_table(examples, tmp_path / "examples.parquet")
    projection = lw.Projection(max_len=50)
    wanted = world.wanted(requests, projection).to_pylist()
    for order in ("time", "shuffle"):
        loader = lw.Loader(world.store, str(tmp_path / "*.parquet"), projection, batch_size=3, order=order)
        rows = [row for batch in loader for row in batch.to_arrow().to_pylist()]
        assert sorted(map(repr, rows)) == sorted(
            repr({k: v for k, v in row.items() if k != "cutoff"}) for row in wanted
        )


def test_fat_rows_are_written_and_read(world: World, tmp_path: Path) -> None:
    examples, _ = world.logged[-1]
    batch = lw.Materializer(world.store, lw.Projection())(examples)
    written: FatRows = lw.write_fat_rows(tmp_path / "fat.parquet", [batch, batch.slice(1, 3)])
    read = list(written.batches(batch_size=4))
    both = pa.concat_tables([batch.to_arrow(), batch.slice(1, 3).to_arrow()])
    assert not len(different_rows(pa.concat_tables([part.to_arrow() for part in read]), both))
    assert read[0].values["vector"].shape[1] == 3
    assert read[0].lists.keys() == batch.lists.keys()
    lw.export_fat_rows(world.store, examples, lw.Projection(), tmp_path / "again.parquet")
    [again] = FatRows(tmp_path / "again.parquet").batches(batch_size=9)
    assert not len(different_rows(again.to_arrow(), batch.to_arrow()))


def test_fat_rows_are_compared(world: World) -> None:
    examples, _ = world.logged[-1]
    rows = lw.Materializer(world.store, lw.Projection())(examples).to_arrow()
    assert lw.shadow(world.store, rows).same == len(rows)
    history = rows["history"].combine_chunks()
    tags = history.field("tags")
    other = pa.array([[[*(of or []), "other"] for of in events] for events in tags.to_pylist()], tags.type)
    fields = [other if field.name == "tags" else history.field(field.name) for field in history.type]
    changed = pa.StructArray.from_arrays(fields, fields=list(history.type))
    report = lw.shadow(world.store, rows.set_column(rows.column_names.index("history"), "history", changed))
    assert {(kind.kind, *kind.by_trait) for kind in report.kinds} == {("value", "tags")}


def test_events_go_out_and_come_in_again(world: World, tmp_path: Path) -> None:
    lw.export_events(world.store, tmp_path / "events.parquet")
    times = {"user": "user_id", "time": "event_ts", "ingest_time": "ingest_ts", "superseded_time": "superseded_at"}
    with lw.ingest(tmp_path / "events.parquet", tmp_path / "again", **times, quiet=True) as again:
        assert [(t.name, t.type, t.nullable) for t in again.schema] == [(t.name, t.type, True) for t in SCHEMA]
        for user in range(4):
            mine, theirs = (
                store.history(user).cast(world.store.history(user).schema) for store in (world.store, again)
            )
            assert not len(different_rows(mine, theirs))


def test_they_are_ingested_from_files(tmp_path: Path) -> None:
    events = pa.table({"uid": [1, 1], "ts": [1, 2], "tags": pa.array([["a"], None]), "x": pa.array([[1, 2], []])})
    pq.write_table(events, tmp_path / "events.parquet")
    with lw.ingest(
        tmp_path / "events.parquet", tmp_path / "store", user="uid", time="ts", ingest_time="ts", unit="s", quiet=True
    ) as store:
        assert "pa.list_(pa.string())" in store.schema.to_code()
        assert store.history(1)["x"].to_pylist() == [[1, 2], []]
        assert store.history(1)["tags"].to_pylist() == [["a"], None]


def test_corrections_and_repeats(world: World) -> None:
    store, clock = world.store, world.clock
    row = {"user_id": [7], "event_ts": [clock.now()], "event_id": ["one"]}
    row |= {name: pa.nulls(1, SCHEMA[name].type) for name in TRAITS.names} | {
        "seen": pa.array([[]], TRAITS.field("seen").type)
    }
    first = row | {"tags": [["a", "b"]]}
    store.append(first)
    clock.advance(SECOND)
    before = store.capture({"user_id": [7], "request_ts": [clock.now()]}).columns
    assert store.append(first).duplicates == 1
    for other in (["b", "a"], ["a"], [], ["a", "b", "b"], None):
        with pytest.raises(lw.ConflictError, match="row 0"):
            store.append(first | {"tags": pa.array([other], pa.list_(pa.string()))})
    clock.advance(SECOND)
    store.append(first | {"tags": [["c"]], "event_id": ["two"], "supersedes": ["one"]})
    clock.advance(SECOND)
    after = store.capture({"user_id": [7], "request_ts": [clock.now()]}).columns
    for _ in range(2):
        materialize = lw.Materializer(store, lw.Projection(traits=["tags"]))
        assert materialize(before).to_arrow()["history"].to_pylist() == [{"tags": [["a", "b"]]}]
        assert materialize(after).to_arrow()["history"].to_pylist() == [{"tags": [["c"]]}]
        store.compact()


def test_added_and_dropped(world: World) -> None:
    store = world.store
    store.alter(add=pa.schema([("later", pa.list_(pa.string())), ("triple", pa.list_(pa.int8(), 3))]), drop=["kinds"])
    store.compact()
    events = world.events(20).drop_columns(["kinds"])
    events = events.append_column("later", pa.array([["new"]] * 20))
    store.append(events.append_column("triple", pa.array([[1, 2, 3]] * 20, pa.list_(pa.int8(), 3))))
    world.clock.advance(timedelta(minutes=1))
    projection = lw.Projection(traits=["event_ts", "later", "triple", "tags"])
    examples = store.capture({"user_id": [0, 1, 2, 3], "request_ts": [world.clock.now()] * 4}).columns
    for _ in range(2):
        batch = lw.Materializer(store, projection)(examples)
        added = batch.to_arrow()["history"].combine_chunks()
        new = [of for of in added.field("later").flatten().to_pylist() if of is not None]
        assert new == [["new"]] * 20
        assert np.count_nonzero(~batch.masks["triple"]) == 20
        assert batch.values["triple"][~batch.masks["triple"]].tolist() == [[1, 2, 3]] * 20
        # what was logged before lacks them, and is null there
        old = lw.Materializer(store, projection)(world.logged[0][0])
        assert old.masks["later"].all()
        assert old.values["later"].tolist() == []
        assert old.values["triple"].shape == (int(old.offsets[-1]), 3)
        store.compact()
    with pytest.raises(lw.SchemaError, match="kinds"):
        lw.Materializer(store, lw.Projection(traits=["kinds"]))


def test_retention_and_sealing(world: World) -> None:
    store = world.store
    store.compact()
    examples, requests = world.logged[-1]
    sealed = lw.seal(store, examples)
    assert not sum(len(history["tags"]) for history in sealed["recent"].to_pylist())
    wanted = world.wanted(requests, lw.Projection())
    found = lw.Materializer(store, lw.Projection())(sealed).to_arrow()
    assert not len(different_rows(found.select(["history"]), wanted.select(["history"])))
    store.alter(retention=lw.Retention(max_events=10))
    store.compact()
    assert all(10 <= len(store.history(user)) < 100 for user in range(4))  # a tie is kept whole
    newest = lw.Materializer(store, lw.Projection(max_len=5))(sealed).to_arrow()["history"].to_pylist()
    assert [of["tags"] for of in newest] == [of["tags"][-5:] for of in wanted["history"].to_pylist()]


def test_conditions_only_ask_whether_they_are_null(world: World) -> None:
    anchors = lw.anchors(world.store, lw.col("tags").is_null())
    assert len(anchors)
    assert anchors["tags"].null_count == len(anchors)
    assert anchors["vector"].type == pa.list_(pa.float32(), 3)
    examples = lw.backfill(world.store, anchors, allow_empty=True)
    wanted = world.wanted(anchors, lw.Projection())
    found = lw.Materializer(world.store, lw.Projection())(examples).to_arrow()
    assert not len(different_rows(found.select(["history"]), wanted.select(["history"])))
    for condition in (lw.col("tags") == "a", lw.col("flags") == True, lw.col("vector").is_in([1.0])):  # noqa: E712
        with pytest.raises(lw.SchemaError, match="it cannot be compared"):
            lw.anchors(world.store, condition)
    with pytest.raises(lw.SchemaError, match="is compared with a bool"):
        lw.col("tags") == ["a"]  # noqa: B015 - refused, before it is anything
