"""Materializer: what goes in, what comes out, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

import latewood as lw
from latewood.immutable import GenerationReader
from latewood.materialize import Materializer
from latewood.schema import TIME_TYPE
from latewood.testing import ManualClock, different_rows

START = 1_700_000_000_000_000
SECOND = 1_000_000
SCHEMA = lw.Schema(
    user_id=pa.int64(),
    groups={
        "core": pa.schema([("item", pa.int64()), ("action", pa.dictionary(pa.int32(), pa.string()))]),
        "more": pa.schema([("score", pa.float32()), pa.field("like", pa.bool_(), nullable=False)]),
    },
)


def events(users: list[int], seconds: list[int]) -> pa.Table:
    n = len(users)
    return pa.table(
        {
            "user_id": users,
            "event_ts": times(seconds),
            "item": pa.array([None if s % 7 == 0 else s for s in seconds], pa.int64()),
            "action": ["buy" if s % 2 else "view" for s in seconds],
            "score": pa.array([s / 2 for s in seconds], pa.float32()),
            "like": [s % 3 == 0 for s in seconds],
        }
    ).slice(0, n)


def times(seconds: list[int]) -> pa.Array:
    return pa.array([START + s * SECOND for s in seconds], pa.int64()).view(TIME_TYPE)


@pytest.fixture
def store(store_path: Path, clock: ManualClock) -> lw.Store:
    """Users 0, 1, 2 with an event each second: 60 seconds stored, 10 more recent, one of them older than stored ones."""
    store = lw.Store.create(store_path, SCHEMA, shards=2, clock=clock)
    clock.set(START + 60 * SECOND)
    store.append(events([s % 3 for s in range(60)], list(range(60))))
    store.compact()
    clock.set(START + 70 * SECOND)
    store.append(events([0] * 9 + [1], [*range(60, 69), 30]))
    return store


@pytest.fixture
def examples(store: lw.Store) -> pa.Table:
    requests = pa.table({"user_id": [0, 1, 2, 9, 0], "request_ts": times([70, 70, 70, 70, 65]), "label": list("abcde")})
    return store.capture(requests).columns


def seconds(batch: lw.Batch) -> list[list[int]]:
    flat = (batch.values["event_ts"] - START) // SECOND
    return [row.tolist() for row in np.split(flat, batch.offsets[1:-1])]


def with_pointer(examples: pa.Table, row: int, **changes: Any) -> pa.Table:
    rows = examples["uih"].to_pylist()
    rows[row] |= changes
    at = examples.column_names.index("uih")
    return examples.set_column(at, "uih", pa.array(rows, examples["uih"].type))


def test_stored_and_recent_events_come_as_one_history(store: lw.Store, examples: pa.Table) -> None:
    batch = Materializer(store, lw.Projection())(examples)
    assert seconds(batch) == [
        [*range(0, 60, 3), *range(60, 69)],
        sorted([*range(1, 60, 3), 30]),  # a late event, not compacted yet, among stored ones
        [*range(2, 60, 3)],
        [],
        [*range(0, 60, 3), *range(60, 65)],
    ]
    assert batch.features.column_names == ["user_id", "request_ts", "label"]
    assert set(batch.values) == {"event_ts", "item", "action", "score", "like"}
    assert set(batch.masks) == {"item"}
    assert batch.masks["item"].tolist() == [s % 7 == 0 for row in seconds(batch) for s in row]
    actions = batch.dictionaries["action"].take(pa.array(batch.values["action"])).to_pylist()
    assert actions == ["buy" if s % 2 else "view" for row in seconds(batch) for s in row]
    assert [batch.values[name].dtype.name for name in batch.values] == ["int64", "int64", "int32", "float32", "bool"]


@pytest.mark.parametrize(("max_len", "expected"), [(0, [[]] * 5), (1, [[68], [58], [59], [], [64]])])
def test_max_len_keeps_the_newest(store: lw.Store, examples: pa.Table, max_len: int, expected: list[list[int]]) -> None:
    assert seconds(Materializer(store, lw.Projection(max_len))(examples)) == expected


def test_a_late_event_counts_among_the_newest(store: lw.Store, examples: pa.Table) -> None:
    batch = Materializer(store, lw.Projection(12, traits=["event_ts"]))(examples.slice(1, 1))
    assert seconds(batch) == [[28, 30, *range(31, 60, 3)]]
    assert set(batch.values) == {"event_ts"}
    assert seconds(Materializer(store, lw.Projection(10))(examples.slice(1, 1))) == [[*range(31, 60, 3)]]


@pytest.mark.parametrize("max_len", [None, 0, 1, 12, 300])
def test_shared_histories_are_the_same(store: lw.Store, clock: ManualClock, max_len: int | None) -> None:
    store.compact()  # a part without recent events, among others
    stored = store.capture(pa.table({"user_id": [0, 0, 2, 9, 0], "request_ts": times([70, 66, 40, 70, 31])})).columns
    clock.set(START + 80 * SECOND)
    store.append(events([0, 1], [71, 2]))
    both = pa.concat_tables(
        [stored, store.capture(pa.table({"user_id": [0, 1, 2], "request_ts": times([80, 80, 60])})).columns]
    )
    materializer = Materializer(store, lw.Projection(max_len))
    apart, shared = materializer(both), materializer.shared(both)
    assert shared.lengths.tolist() == apart.lengths.tolist()
    for i in range(len(shared)):
        start, stop = apart.offsets[i : i + 2]
        assert {k: v.tolist() for k, v in shared.history(i).items()} == {
            name: values[start:stop].tolist() for name, values in apart.values.items()
        }
        assert set(shared.mask(i)) == set(shared.masks)
    assert len(different_rows(shared.expand().to_arrow(), apart.to_arrow())) == 0
    assert set(shared.expand().masks) == set(apart.masks)
    with pytest.raises(IndexError, match="no example 8: the batch has 8"):
        shared.history(8)
    if max_len is None:
        assert len(shared.values["item"]) < len(apart.values["item"])
        assert repr(shared).startswith(f"<SharedBatch of 8 examples: {shared.lengths.sum()} events, event_ts, item,")


def test_a_null_between_shared_histories_is_nobodys(store_path: Path, clock: ManualClock) -> None:
    clock.set(START + 10 * SECOND)
    store = lw.Store.create(store_path, SCHEMA, shards=1, clock=clock)
    store.append(events([1, 1], [5, 8]))
    store.compact()
    examples = store.capture(pa.table({"user_id": [1], "request_ts": times([9])})).columns
    clock.set(START + 20 * SECOND)
    store.append(events([1], [7]))  # late, and its item is null
    store.compact()
    materializer = Materializer(store, lw.Projection(traits=["item"]))
    shared = materializer.shared(examples)
    assert shared.history(0)["item"].tolist() == [5, 8]
    assert shared.mask(0) == shared.masks == materializer(examples).masks == {}


def test_feature_groups_and_order_of_traits(store: lw.Store, examples: pa.Table) -> None:
    grouped = Materializer(store, lw.Projection(groups=["more"]))(examples)
    assert list(grouped.values) == ["event_ts", "score", "like"]
    ordered = Materializer(store, lw.Projection(traits=["like", "item"]))(examples)
    assert list(ordered.values) == ["like", "item"]
    assert not ordered.dictionaries


def test_record_batches_and_polars_frames_are_as_good_as_tables(store: lw.Store, examples: pa.Table) -> None:
    polars = pytest.importorskip("polars")
    materializer = Materializer(store, lw.Projection())
    expected = materializer(examples).to_arrow()["history"].combine_chunks()
    for data in (examples.combine_chunks().to_batches()[0], polars.from_arrow(examples)):
        assert materializer(data).to_arrow()["history"].combine_chunks().equals(expected)


def test_many_chunks_are_one_batch(store: lw.Store, examples: pa.Table) -> None:
    materializer = Materializer(store, lw.Projection())
    parts = pa.concat_tables([examples.slice(0, 2), examples.slice(2, 0), examples.slice(2, 3)])
    assert materializer(parts).to_arrow()["history"].combine_chunks().equals(
        materializer(examples).to_arrow()["history"].combine_chunks()
    )  # fmt: skip


def test_no_examples(store: lw.Store, examples: pa.Table) -> None:
    batch = Materializer(store, lw.Projection())(examples.slice(0, 0))
    assert len(batch) == 0
    assert batch.offsets.tolist() == [0]
    assert batch.to_arrow().num_rows == 0


def test_later_generations_give_the_same(store: lw.Store, examples: pa.Table, clock: ManualClock) -> None:
    before = Materializer(store, lw.Projection())(examples).to_arrow()
    store.compact()
    store.append(events([0, 1], [3, 4]))  # late, and inside every pointer's range
    clock.advance(SECOND)
    store.compact()
    assert Materializer(store, lw.Projection())(examples).to_arrow().equals(before)


def test_a_reader_refreshes_for_a_newer_pointer(store: lw.Store, store_path: Path, clock: ManualClock) -> None:
    trainer = lw.Store.open(store_path, read_only=True)
    materializer = Materializer(trainer, lw.Projection())
    assert trainer.generation.id == 1
    store.append(events([0], [69]).set_column(3, "action", pa.array(["a new word"])))
    store.compact()
    newer = store.capture(pa.table({"user_id": [0], "request_ts": times([70])})).columns
    batch = materializer(newer)
    assert trainer.generation.id == 2
    assert seconds(batch)[0][-1] == 69
    assert batch.to_arrow()["history"][0].as_py()["action"][-1] == "a new word"


def test_a_pointer_newer_than_all_generations_is_named(store: lw.Store, examples: pa.Table) -> None:
    newer = with_pointer(examples, 2, watermark=START + 69 * SECOND)
    for on_missing in ("raise", "mask"):
        with pytest.raises(lw.PointerError, match="row 2"):
            Materializer(store, lw.Projection(), on_missing=on_missing)(newer)


def test_missing_events_are_named_or_masked(store: lw.Store, examples: pa.Table) -> None:
    broken = with_pointer(with_pointer(examples, 1, length=21), 3, length=5)
    with pytest.raises(lw.PointerError, match="row 1, user 1"):
        Materializer(store, lw.Projection())(broken)
    batch = Materializer(store, lw.Projection(), on_missing="mask")(broken)
    whole = Materializer(store, lw.Projection())(examples)
    assert batch.weights.tolist() == [1, 0, 1, 0, 1]
    assert batch.weights.dtype == np.float32
    assert seconds(batch)[1] == []
    assert [seconds(batch)[i] for i in (0, 2, 4)] == [seconds(whole)[i] for i in (0, 2, 4)]


def test_a_wrong_checksum_is_never_masked(store: lw.Store, examples: pa.Table) -> None:
    broken = with_pointer(examples, 2, checksum=1)
    for on_missing in ("raise", "mask"):
        with pytest.raises(lw.PointerError, match="row 2"):
            Materializer(store, lw.Projection(), on_missing=on_missing)(broken)


def test_another_stores_pointer_is_refused(store: lw.Store, examples: pa.Table) -> None:
    with pytest.raises(lw.PointerError, match="epoch"):
        Materializer(store, lw.Projection(), on_missing="mask")(with_pointer(examples, 0, epoch=b"\x07" * 16))


def test_a_leak_is_refused(store: lw.Store, examples: pa.Table) -> None:
    at = examples.column_names.index("cutoff")
    early = pc.subtract(examples["cutoff"], pa.scalar(5 * SECOND, pa.duration("us")))
    with pytest.raises(lw.LeakageError, match="row 0"):
        Materializer(store, lw.Projection(), on_missing="mask")(examples.set_column(at, "cutoff", early))


@pytest.mark.parametrize("column", ["user_id", "uih", "recent", "cutoff"])
def test_a_missing_column_is_named(store: lw.Store, examples: pa.Table, column: str) -> None:
    with pytest.raises(lw.SchemaError, match=f"lack {column}"):
        Materializer(store, lw.Projection())(examples.drop_columns([column]))


@pytest.mark.parametrize("column", ["user_id", "uih", "recent", "cutoff"])
def test_a_repeated_column_is_named(store: lw.Store, examples: pa.Table, column: str) -> None:
    with pytest.raises(lw.SchemaError, match=f"two columns '{column}'"):
        lw.Materializer(store, lw.Projection())(examples.append_column(column, examples[column]))
    with pytest.raises(lw.SchemaError, match=f"two columns '{column}'"):
        lw.Loader(store, examples.append_column(column, examples[column]), lw.Projection())


def test_wrong_user_ids_are_named(store: lw.Store, examples: pa.Table) -> None:
    at = examples.column_names.index("user_id")
    for users, message in [
        (pa.array(list("abcde")), "string; the store has int64"),
        (pa.array([1, 2, None, 3, 4]), "null in row 2"),
        (pa.array([2**64 - 1] * 5, pa.uint64()), "does not fit"),
    ]:
        with pytest.raises(lw.SchemaError, match=message):
            Materializer(store, lw.Projection())(examples.set_column(at, "user_id", users))
    narrow = examples.set_column(at, "user_id", examples["user_id"].cast(pa.int8()))
    assert len(Materializer(store, lw.Projection())(narrow)) == 5


def test_not_a_table(store: lw.Store) -> None:
    with pytest.raises(lw.SchemaError, match="expected a table"):
        Materializer(store, lw.Projection())([1, 2])


def test_options_are_checked(store: lw.Store) -> None:
    with pytest.raises(lw.SchemaError, match="on_missing"):
        Materializer(store, lw.Projection(), on_missing="skip")  # type: ignore[arg-type]
    with pytest.raises(lw.SchemaError, match="unknown trait 'price'"):
        Materializer(store, lw.Projection(traits=["price"]))


def test_damage_is_named(store: lw.Store, store_path: Path, examples: pa.Table) -> None:
    for path in store_path.glob("generations/**/*.stripes"):
        data = bytearray(path.read_bytes())
        data[100] ^= 0xFF  # in the payload
        path.write_bytes(data)
    trainer = lw.Store.open(store_path, read_only=True)
    with pytest.raises(lw.CorruptionError, match="stripes"):
        Materializer(trainer, lw.Projection(), on_missing="mask")(examples)


def test_a_file_that_is_gone_is_damage(store: lw.Store, store_path: Path, examples: pa.Table) -> None:
    for path in store_path.glob("generations/**/*.stripes"):
        path.unlink()
    with pytest.raises(lw.CorruptionError, match="lacks a file"):
        Materializer(lw.Store.open(store_path, read_only=True), lw.Projection())(examples)


def test_several_generations_may_be_collected_in_a_row(
    store: lw.Store, store_path: Path, examples: pa.Table, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Materializer(store, lw.Projection())(examples).to_arrow()
    trainer = lw.Store.open(store_path, read_only=True)
    stale = [trainer.reader()]
    for second in (80, 90):
        clock.set(START + second * SECOND)
        store.append(events([0], [second - 1]))
        generation = store.compact(keep=1)
        stale.append(GenerationReader(trainer.storage, generation))
    *gone, newest = stale
    monkeypatch.setattr(trainer, "reader", lambda: gone[0])
    monkeypatch.setattr(trainer, "refresh", iter([*gone[1:], newest]).__next__)
    assert different_rows(Materializer(trainer, lw.Projection())(examples).to_arrow(), expected).tolist() == []


def test_batches_do_not_change_under_their_holders(store: lw.Store, examples: pa.Table) -> None:
    """Buffers are pooled: whatever a caller still holds must stay as it is."""
    many = pa.concat_tables([examples] * 2000)
    materializer = Materializer(store, lw.Projection())
    held = [materializer(many) for _ in range(3)]
    column, tensor = pa.array(materializer(many).values["item"]), materializer(many).values["event_ts"][5:]
    copies = ([{k: v.copy() for k, v in batch.values.items()} for batch in held], column.to_pylist(), tensor.copy())
    for _ in range(3):
        materializer(many.slice(1))
    for batch, copy in zip(held, copies[0], strict=True):
        for name, values in batch.values.items():
            np.testing.assert_array_equal(values, copy[name])
    assert column.to_pylist() == copies[1]
    np.testing.assert_array_equal(tensor, copies[2])


def test_examples_of_one_user_share_one_decoding(store: lw.Store, examples: pa.Table) -> None:
    materializer = Materializer(store, lw.Projection(traits=["item"]))
    materializer(pa.concat_tables([examples.slice(2, 1)] * 16))
    stats = materializer.last_stats
    assert (stats.batches, stats.examples, stats.events) == (1, 16, 16 * 20)
    assert stats.decoded_events == 20
    assert stats.stripes == 1
    assert 0 < stats.lookup_bytes < 20 * 9
    materializer(examples.slice(2, 1))
    assert materializer.stats.examples == 17
    assert materializer.stats.lookup_bytes == 2 * stats.lookup_bytes


def set_clock(clock: ManualClock, second: int) -> None:
    clock.set(START + second * SECOND)


def test_names_are_those_of_the_schema_of_now(store: lw.Store, examples: pa.Table, clock: ManualClock) -> None:
    renamed, everything = (Materializer(store, p) for p in (lw.Projection(traits=["item", "like"]), lw.Projection()))
    grouped = Materializer(store, lw.Projection(traits=["score"]))
    before = renamed(examples)
    store.alter(rename={"item": "thing"}, drop=["score"], add=pa.schema([("rank", pa.int16()), ("score", pa.string())]))
    set_clock(clock, 80)
    store.compact()
    store.append(
        pa.table(
            {"user_id": [0], "event_ts": times([75]), "thing": [7], "action": ["buy"], "like": [True], "rank": [3]}
        )
    )
    store.compact()
    later = store.capture(pa.table({"user_id": [0], "request_ts": times([90])})).columns
    after = renamed(examples)
    assert list(after.values) == ["item", "like"]
    assert after.values["item"].tolist() == before.values["item"].tolist()
    assert after.to_arrow().equals(before.to_arrow())
    assert set(everything(later).values) == {"event_ts", "thing", "action", "like", "rank", "score"}
    assert everything(later).to_arrow()["history"][0].as_py()["rank"][-2:] == [None, 3]
    assert everything(examples).masks["rank"].all()  # of stored and of logged recent events alike
    assert grouped(examples).types["score"] == pa.string()  # another trait of that name
    assert grouped(examples).masks["score"].all()
    store.alter(drop=["score", "thing"])
    store.compact()
    for materializer in (renamed, grouped):
        with pytest.raises(lw.SchemaError, match=r"unknown trait '(item|score)'"):
            materializer(examples)
    assert "thing" not in everything(examples).values


def test_a_trainer_follows_the_schema_when_it_refreshes(
    store: lw.Store, store_path: Path, examples: pa.Table, clock: ManualClock
) -> None:
    trainer = lw.Store.open(store_path, read_only=True)
    materializer = Materializer(trainer, lw.Projection())
    store.alter(add=pa.schema([("rank", pa.int16())]), drop=["like"])
    store.append(events([0], [69]))
    store.compact()
    assert "like" in materializer(examples).values  # all that is asked for is in the generation at hand
    newer = store.capture(pa.table({"user_id": [0], "request_ts": times([70])})).columns
    batch = materializer(newer)
    assert "like" not in batch.values
    assert batch.masks["rank"].all()
    batch = materializer(examples)
    assert seconds(batch)[0] == [*range(0, 60, 3), *range(60, 69)]
    assert batch.masks["rank"].all()


def test_an_older_generation_of_another_schema_is_read_through_its_pin(
    store: lw.Store, examples: pa.Table, clock: ManualClock
) -> None:
    from datetime import timedelta

    store.pin("before", timedelta(days=1))
    before = Materializer(store, lw.Projection())(examples).to_arrow()
    store.alter(drop=["score"], rename={"item": "thing"})
    store.append(events([0], [69]))
    store.compact()
    pinned = Materializer(store.at("before"), lw.Projection())(examples)
    assert pinned.to_arrow().equals(before)
    assert list(Materializer(store, lw.Projection())(examples).values) == ["event_ts", "thing", "action", "like"]


def test_a_scrubbed_user_is_refused_before_anything_is_read(
    store: lw.Store, examples: pa.Table, clock: ManualClock
) -> None:
    """Their recents may hold values that the store has forgotten."""
    store.append(events([0], [68]).set_column(3, "action", pa.array(["a word of user 0"])))
    with_word = store.capture(pa.table({"user_id": [1, 0], "request_ts": times([70, 70])})).columns
    store.scrub([0])
    with pytest.raises(lw.ScrubbedError, match="row 1, user 0: the user was scrubbed at"):
        Materializer(store, lw.Projection())(with_word)
    batch = Materializer(store, lw.Projection(), on_missing="mask")(pa.concat_tables([with_word] * 2))
    assert batch.weights.tolist() == [1, 0, 1, 0]
    assert seconds(batch)[1] == []
    set_clock(clock, 100)
    store.append(events([0], [90]))
    returned = store.capture(pa.table({"user_id": [0], "request_ts": times([100])})).columns
    assert seconds(Materializer(store, lw.Projection())(returned)) == [[90]]


def test_corrections_are_seen_from_when_they_came(store: lw.Store, examples: pa.Table, clock: ManualClock) -> None:
    before = Materializer(store, lw.Projection())(examples)
    old = [row for row in range(60) if row % 3 == 0][5]  # an event of user 0, which is stored
    place = {"event_ts": START + old * SECOND, "ingest_ts": 0, "ordinal": 0}
    place["ingest_ts"] = _ingest_of(store, 0, old)
    correction = events([0], [old + 1]).append_column("supersedes", pa.array([place]))
    set_clock(clock, 75)
    store.append(correction)
    later = store.capture(pa.table({"user_id": [0], "request_ts": times([70])})).columns
    expected = sorted([*(s for s in range(0, 60, 3) if s != old), old + 1, *range(60, 69)])
    for _ in range(2):  # while the correction is recent, and once it is compacted
        assert seconds(Materializer(store, lw.Projection())(later)) == [expected]
        assert Materializer(store, lw.Projection())(examples).to_arrow().equals(before.to_arrow())
        store.compact()
    newest = store.capture(pa.table({"user_id": [0], "request_ts": times([70])})).columns
    assert seconds(Materializer(store, lw.Projection())(newest)) == [expected]


def test_to_delete_what_a_pointer_does_not_count_any_more_changes_nothing(
    store: lw.Store, examples: pa.Table, clock: ManualClock
) -> None:
    """By place, with a compaction in between."""
    place = {"event_ts": START + 15 * SECOND, "ingest_ts": _ingest_of(store, 0, 15), "ordinal": 0}
    deletion = pa.table({"user_id": [0], "supersedes": [place]})
    set_clock(clock, 75)
    store.append(deletion)
    store.compact()
    assert store.append(deletion).duplicates == 1
    later = store.capture(pa.table({"user_id": [0], "request_ts": times([70])})).columns
    assert later["recent"][0].as_py()["supersedes"] == []
    expected = [*(s for s in range(0, 60, 3) if s != 15), *range(60, 69)]
    assert seconds(Materializer(store, lw.Projection())(later)) == [expected]
    assert seconds(Materializer(store, lw.Projection())(examples))[0] == [*range(0, 60, 3), *range(60, 69)]


def _ingest_of(store: lw.Store, user: int, second: int) -> int:
    for run in store.reader().scan([]):
        for owner, event_ts, ingest_ts in zip(run.user_ids.to_pylist(), run.event_ts, run.ingest_ts, strict=True):
            if owner == user and event_ts == START + second * SECOND:
                return int(ingest_ts)
    raise AssertionError
