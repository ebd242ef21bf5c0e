"""Verifying examples: derived anew by brute force, they are what the materializer gives, and any meddling shows."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import latewood as lw
from latewood.testing import ManualClock
from moments import START

LISTS = [("tags", pa.list_(pa.string())), ("pair", pa.list_(pa.float32(), 2))]
SCHEMA = lw.Schema(
    user_id=pa.string(),
    traits=pa.schema(
        [("item", pa.int64()), ("word", pa.string()), ("score", pa.float32()), ("like", pa.bool_()), *LISTS]
    ),
)
SECOND = 1_000_000
_numbers = itertools.count()


def events(rng: np.random.Generator, count: int, now: int) -> dict[str, Any]:
    times = now - rng.integers(-3, 40, count) * SECOND  # ties, late ones, and some of the future
    return {
        "user_id": rng.choice(["a", "b", "c"], count),
        "event_ts": times,
        "item": rng.integers(0, 99, count),
        "word": pa.array(rng.choice(["x", "y", "ü"], count), mask=rng.random(count) < 0.2),
        "score": pa.array(rng.choice([0.5, -0.0, np.nan], count).astype(np.float32), mask=rng.random(count) < 0.2),
        "like": rng.random(count) < 0.5,
        "tags": [["x", "y", "z"][:k] if k < 4 else None for k in rng.integers(0, 5, count).tolist()],
        "pair": pa.array(
            [[k, -0.0] if k < 4 else None for k in rng.integers(0, 5, count).tolist()], pa.list_(pa.float32(), 2)
        ),
    }


def as_times(requests: pa.Table) -> pa.Table:
    times = requests["request_ts"].cast(pa.timestamp("us", "UTC"))
    return requests.set_column(1, "request_ts", times)


@pytest.fixture(scope="module")
def made() -> tuple[lw.Store, pa.Table]:
    """A store that lived for a while, and examples captured and filled back meanwhile."""
    clock, rng = ManualClock(START), np.random.default_rng(4)
    store = lw.Store.create(f"memory://verified-{next(_numbers)}", SCHEMA, shards=2, clock=clock)
    tables = []
    for step in range(12):
        now = clock.advance(10 * SECOND)
        store.append(events(rng, 60, now))
        requests = pa.table(
            {"user_id": ["a", "b", "c", "nobody"], "request_ts": [now, now - 15 * SECOND, now + 1, now]}
        )
        tables.append(store.capture(as_times(requests)).columns)
        if step % 4 == 1:
            store.compact()
    asked = pa.table({"user_id": ["a", "b"] * 3, "request_ts": [START + s * SECOND for s in (5, 33, 60, 71, 90, 111)]})
    tables.append(lw.backfill(store, as_times(asked)))
    anchors = lw.anchors(store, lw.col("like") == True, min_history=3).slice(0, 20)  # noqa: E712
    tables.append(lw.backfill(store, anchors, complete=True).select(tables[0].column_names))
    return store, pa.concat_tables(tables).combine_chunks()


def test_examples_are_what_they_must_be(made: tuple[lw.Store, pa.Table]) -> None:
    store, examples = made
    for max_len in (None, 7, 0):
        report = lw.verify(store, examples, sample=None, max_len=max_len)
        assert report.ok, report.differences
        assert (report.examples, report.sampled) == (len(examples), len(examples))
        assert (report.compared > 0) == (max_len != 0)


def test_a_sample_is_chosen_by_the_seed(made: tuple[lw.Store, pa.Table]) -> None:
    store, examples = made
    reports = [lw.verify(store, examples, sample=5, seed=seed) for seed in (1, 1, 2)]
    assert reports[0] == reports[1]
    assert reports[0].compared != reports[2].compared
    assert [report.sampled for report in reports] == [5, 5, 5]
    assert lw.verify(store, examples, sample=0).sampled == 0
    with pytest.raises(lw.SchemaError, match="counts examples"):
        lw.verify(store, examples, sample=-1)


def test_what_was_recent_when_it_was_logged_is_compared_in_a_store_opened_read_only(
    made: tuple[lw.Store, pa.Table],
) -> None:
    store, examples = made
    reachable = examples.filter(pc.greater(pc.struct_field(examples["uih"], "length"), 0))
    with lw.Store.open(store.path, read_only=True) as opened:
        report = lw.verify(opened, reachable, sample=None)
    assert report.ok, report.differences


def with_field(examples: pa.Table, column: str, name: str, change: Any) -> pa.Table:
    """Examples with one field of a struct column changed."""
    struct = examples[column].combine_chunks()
    fields = {field.name: values for field, values in zip(struct.type, struct.flatten(), strict=True)}
    fields[name] = change(fields[name])
    changed = pa.StructArray.from_arrays(list(fields.values()), fields=list(struct.type))
    return examples.set_column(examples.column_names.index(column), examples.schema.field(column), changed)


def only(report: lw.VerifyReport) -> str:
    assert report.difference_count >= 1
    return " / ".join(difference.message for difference in report.differences)


def example_with_recents(examples: pa.Table) -> pa.Table:
    counts = pc.list_value_length(pc.struct_field(examples["recent"], "item"))
    lengths = pc.struct_field(examples["uih"], "length")
    row = pc.index(pc.and_(pc.greater(counts, 3), pc.greater(lengths, 3)), True).as_py()
    return examples.slice(row, 1).combine_chunks()


class TestMeddling:
    def test_with_the_checksum(self, made: tuple[lw.Store, pa.Table]) -> None:
        example = example_with_recents(made[1])
        meddled = with_field(example, "uih", "checksum", lambda sums: pa.array([sums[0].as_py() ^ 1], pa.uint64()))
        assert "checksum" in only(lw.verify(made[0], meddled))

    def test_with_the_length(self, made: tuple[lw.Store, pa.Table]) -> None:
        example = example_with_recents(made[1])
        meddled = with_field(example, "uih", "length", lambda lengths: pc.add(lengths, 1))
        assert "of its pointer are stored" in only(lw.verify(made[0], meddled))

    def test_with_a_value_of_a_recent_event(self, made: tuple[lw.Store, pa.Table]) -> None:
        def change(lists: pa.ListArray) -> pa.ListArray:
            return pa.array([[value + 1 for value in lists[0].as_py()]], lists.type)

        meddled = with_field(example_with_recents(made[1]), "recent", "item", change)
        assert "other values than the store has" in only(lw.verify(made[0], meddled))

    def test_with_a_list_of_a_recent_event(self, made: tuple[lw.Store, pa.Table]) -> None:
        def change(lists: pa.ListArray) -> pa.ListArray:
            return pa.array([[(of or [])[::-1] for of in lists[0].as_py()]], lists.type)

        meddled = with_field(example_with_recents(made[1]), "recent", "tags", change)
        assert "other values than the store has" in only(lw.verify(made[0], meddled))

    def test_with_the_number_of_recent_events(self, made: tuple[lw.Store, pa.Table]) -> None:
        example = example_with_recents(made[1])
        for field in example.schema.field("recent").type:
            if field.name != "supersedes":
                example = with_field(
                    example, "recent", field.name, lambda lists: pa.array([lists[0].as_py()[1:]], lists.type)
                )
        assert "recent events, but not that of" in only(lw.verify(made[0], example))

    def test_names_the_example_and_spares_the_others(self, made: tuple[lw.Store, pa.Table]) -> None:
        store, examples = made

        def change(sums: pa.Array) -> pa.Array:
            return pa.array([value ^ (row == 17) for row, value in enumerate(sums.to_pylist())], pa.uint64())

        report = lw.verify(store, with_field(examples, "uih", "checksum", change), sample=None)
        assert report.difference_count == 1
        assert report.differences[0].where.startswith("example 17")
        assert report.sampled == len(examples)

    def test_examples_of_another_store(self, made: tuple[lw.Store, pa.Table]) -> None:
        other = lw.Store.create(f"memory://verified-{next(_numbers)}", SCHEMA)
        report = lw.verify(other, made[1].slice(0, 3))
        assert report.difference_count == 3
        assert "epoch" in only(report)


@pytest.mark.parametrize("name", ["score", "pair"])
def test_a_materializer_that_gives_another_value_is_found(
    made: tuple[lw.Store, pa.Table], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    honest = lw.Materializer.__call__

    def wrong(self: lw.Materializer, examples: Any) -> lw.Batch:
        batch = honest(self, examples)
        values = batch.values[name].copy()
        values[values == 0] = 0.0  # -0.0 to 0.0: equal, and other bits
        return replace(batch, values=batch.values | {name: values})

    monkeypatch.setattr(lw.Materializer, "__call__", wrong)
    assert f"values of {name!r} differ, first at event" in only(lw.verify(*made, sample=None))


@pytest.mark.parametrize("what", ["order", "length", "null"])
def test_a_materializer_that_gives_another_list_is_found(
    made: tuple[lw.Store, pa.Table], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    honest = lw.Materializer.__call__

    def wrong(self: lw.Materializer, examples: Any) -> lw.Batch:
        batch = honest(self, examples)
        items, ends, mask = batch.values["tags"].copy(), batch.lists["tags"].copy(), batch.masks["tags"].copy()
        first = int(np.argmax(np.diff(ends) == 3))
        if what == "order":
            items[ends[first] : ends[first + 1]] = items[ends[first] : ends[first + 1]][::-1]
        elif what == "length":
            ends[first + 1] -= 1
        else:
            mask[:] = False
        lists, masks = batch.lists | {"tags": ends}, batch.masks | {"tags": mask}
        return replace(batch, values=batch.values | {"tags": items}, lists=lists, masks=masks)

    monkeypatch.setattr(lw.Materializer, "__call__", wrong)
    assert "values of 'tags' differ, first at event" in only(lw.verify(made[0], made[1].slice(20, 1)))
