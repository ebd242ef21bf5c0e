"""Streams against filtering the oracle's histories by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import latewood as lw
from latewood.storage import keys
from latewood.testing import ManualClock, Oracle
from latewood.vocabulary.chunk import Place, decode_chunk, encode_chunk

SCHEMA = lw.Schema(
    user_id=pa.int64(),
    traits=pa.schema(
        [
            ("number", pa.int64()),
            ("action", pa.string()),
            ("sparse", pa.dictionary(pa.int32(), pa.int64())),
            ("tags", pa.list_(pa.string())),
            ("pair", pa.list_(pa.int16(), 2)),
            ("score", pa.float32()),
        ]
    ),
)
ACTIONS = ["play", "like", "skip", None]
USERS, SPAN = 6, 10_000
Row = dict[str, Any]
# name → (what it is, the same as plain Python)
KINDS: dict[str, tuple[lw.Stream, int, Callable[[Row], bool]]] = {
    "likes": (lw.last(3, where=lw.col("action") == "like"), 3, lambda row: row["action"] == "like"),
    "plays": (
        lw.last(10, where=lw.col("action").is_in(["play", "skip"])),
        10,
        lambda row: row["action"] in ("play", "skip"),
    ),
    "high": (lw.last(5, where=lw.col("score") > 0.5), 5, lambda row: row["score"] is not None and row["score"] > 0.5),
    "few": (lw.last(2, where=~(lw.col("sparse") >= 10**12 + 3)), 2, lambda row: not (row["sparse"] or 0) >= 10**12 + 3),
    "untagged": (lw.last(4, where=lw.col("tags").is_null()), 4, lambda row: row["tags"] is None),
    "newest": (lw.last(4), 4, lambda row: True),
    "early": (lw.last(6, where=lw.col("event_ts") < SPAN // 2), 6, lambda row: row["us"] < SPAN // 2),
    "nothing": (lw.last(0), 0, lambda row: True),
}


class Made:
    """A store with late events, half of it compacted, and examples that saw some of it as recent events."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(3)
        ts = np.sort(rng.integers(1, SPAN, 900))
        ingest = ts + np.where(rng.random(900) < 0.1, rng.integers(1, 500, 900), 1)
        order = np.argsort(ingest, kind="stable")
        nulls = lambda array, share=0.1: [None if rng.random() < share else value for value in array.tolist()]  # noqa: E731
        number = rng.integers(0, 9, 900)
        self.events = pa.table(
            {
                "user_id": rng.integers(1, USERS, 900),
                "event_ts": ts,
                "ingest_ts": ingest,
                "number": pa.array(nulls(number)),
                "action": pa.array([ACTIONS[i] for i in rng.integers(0, 4, 900)]),
                "sparse": pa.array(nulls(10**12 + number), pa.int64()).dictionary_encode(),
                "tags": pa.array(
                    [None if n < 2 else [f"t{n}"] * (n % 3) for n in number.tolist()], pa.list_(pa.string())
                ),
                "pair": pa.array([None if n == 4 else [n, n + 1] for n in number.tolist()], pa.list_(pa.int16(), 2)),
                "score": pa.array(nulls(rng.random(900)), pa.float32()),
            }
        ).take(pa.array(order))
        clock = ManualClock(1)
        self.store = lw.Store.create(folder / "store", SCHEMA, shards=2, clock=clock)
        self.parts: list[pa.Table] = []
        for start in range(0, 900, 100):
            part = self.events.slice(start, 100)
            clock.advance(max(0, int(part["ingest_ts"][-1].as_py()) + 1 - clock.now()))
            self.store.append(part)
            users = pa.array(np.arange(1, USERS + 1))
            self.parts.append(
                self.store.capture(pa.table({"user_id": users, "request_ts": [clock.now()] * USERS})).columns
            )
            if start == 500:
                self.store.compact()
        self.examples = pa.concat_tables(self.parts)

    def histories(self, projection: lw.Projection) -> list[list[Row]]:
        """Of every example, all that it saw, by the oracle: the newest `scan` of it."""
        full = lw.Projection(max_len=projection.scan, traits=["event_ts", *(trait.name for trait in SCHEMA)])
        rows = Oracle(self.events).fat_rows(self.examples.select(["user_id", "request_ts", "cutoff"]), full)["history"]
        found = []
        for row in rows.to_pylist():
            columns = {name: list(values) for name, values in row.items()}
            columns["us"] = pa.array(columns["event_ts"], pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()
            found.append([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)])
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Made(tmp_path_factory.mktemp("streams"))
    yield made
    made.store.close()


def by_hand(history: list[Row], names: list[str], max_len: int | None) -> list[Row]:
    """The events that some stream holds, each with the bits of those."""
    bits = [0] * len(history)
    for i, name in enumerate(names):
        _, count, meets = KINDS[name]
        places = [place for place, row in enumerate(history) if meets(row)]
        for place in places[len(places) - min(count, len(places)) :]:
            bits[place] |= 1 << i
    kept = [{**row, "stream": bit} for row, bit in zip(history, bits, strict=True) if bit]
    return kept if max_len is None else kept[len(kept) - min(max_len, len(kept)) :]


@pytest.mark.parametrize("names", [list(KINDS), ["likes"], ["nothing"], ["plays", "likes"], ["early"]], ids=" ".join)
@pytest.mark.parametrize(("scan", "max_len"), [(None, None), (20, None), (None, 7), (50, 5), (0, None)])
def test_streams_hold_the_newest_events_of_their_kind(
    made: Made, names: list[str], scan: int | None, max_len: int | None
) -> None:
    traits = ["action", "tags", "event_ts", "pair", "sparse"]
    kinds = {name: KINDS[name][0] for name in names}
    projection = lw.Projection(max_len=max_len, traits=traits, streams=kinds, scan=scan)
    materializer = lw.Materializer(made.store, projection)
    batch = materializer(made.examples)
    expected = [by_hand(history, names, max_len) for history in made.histories(projection)]
    found = batch.to_arrow()["history"].to_pylist()
    assert batch.lengths.tolist() == [len(rows) for rows in expected]
    for row, rows in zip(found, expected, strict=True):
        assert list(row) == [*traits, "stream"]
        for name, values in row.items():
            assert values == [of[name] for of in rows], name
    stats = materializer.stats
    assert (stats.batches, stats.examples, stats.events) == (1, len(batch), batch.offsets[-1])
    for i, name in enumerate(names):
        alone = batch.stream(name)
        assert alone.to_arrow()["history"].to_pylist() == [
            {trait: [of[trait] for of in rows if of["stream"] >> i & 1] for trait in traits} for rows in expected
        ]
        assert alone.streams == ()


def test_ids_are_wanted_and_codes_looked_at(made: Made) -> None:
    streams = {"few": KINDS["few"][0]}
    codes = lw.Projection(traits=["sparse"], streams=streams)
    ids = lw.Projection(traits=["sparse"], streams=streams, ids=["sparse"])
    one, other = (lw.Materializer(made.store, projection)(made.examples) for projection in (codes, ids))
    assert one.dictionaries["sparse"].take(pa.array(one.values["sparse"])).to_pylist() != []
    expected = [value or 0 for row in one.to_arrow()["history"].to_pylist() for value in row["sparse"]]
    assert other.values["sparse"].tolist() == expected


def test_a_loader_gives_streams(made: Made) -> None:
    projection = lw.Projection(traits=["number"], streams={"likes": KINDS["likes"][0], "plays": KINDS["plays"][0]})
    whole = lw.Materializer(made.store, projection)(made.examples)
    batches = list(lw.Loader(made.store, made.examples, projection, batch_size=7, order="user"))
    found = [row for batch in batches for row in batch.to_arrow()["history"].to_pylist()]
    assert found == whole.to_arrow()["history"].to_pylist()
    assert {batch.streams for batch in batches} == {("likes", "plays")}
    assert batches[0].to_torch().values["stream"].tolist() == batches[0].values["stream"].tolist()


def test_what_makes_no_sense_is_refused(made: Made) -> None:
    for arguments, message in [
        ({"streams": {"a": 5}}, "make it with lw.last"),
        ({"streams": 5}, "streams= maps names"),
        ({"streams": [("a", lw.last(1)), ("a", lw.last(2))]}, "repeat a name"),
        ({"streams": {f"{i}": lw.last(1) for i in range(64)}}, "64 streams"),
        ({"scan": 5}, "there are none: is max_len meant"),
        ({"scan": -1, "streams": {"a": lw.last(1)}}, "scan is -1"),
    ]:
        with pytest.raises(lw.SchemaError, match=message):
            lw.Projection(**arguments)
    for count, where in ((-1, None), (1.5, None), (3, "action == 'like'")):
        with pytest.raises(lw.SchemaError, match=r"the count of a stream|where is a condition"):
            lw.last(count, where)
    for where in (lw.col("nothing") == 1, lw.col("tags") == "t"):
        with pytest.raises(lw.SchemaError, match=r"nothing|tags"):
            lw.Materializer(made.store, lw.Projection(streams={"a": lw.last(1, where)}))
    projection = lw.Projection(streams={"a": lw.last(1)})
    with pytest.raises(lw.SchemaError, match="no streams"):
        lw.Materializer(made.store, projection).shared(made.examples)
    batch = lw.Materializer(made.store, projection)(made.examples)
    with pytest.raises(lw.SchemaError, match="no stream 'b'; it has: a"):
        batch.stream("b")
    assert hash(projection) == hash(lw.Projection(streams={"a": lw.last(1)}))


def test_values_that_a_newer_generation_brings_are_known_by_all_columns(tmp_path: Path) -> None:
    """Also by those that no condition looks at, and that are decoded after the others."""
    clock = ManualClock(1_000)
    with lw.Store.create(tmp_path / "store", SCHEMA, clock=clock) as store:

        def capture_after(action: str, tag: str) -> pa.Table:
            event = {"user_id": [1], "event_ts": [clock.advance(10)], "action": [action], "tags": [[tag]]}
            nulls = {name: pa.nulls(1) for name in ("number", "sparse", "pair", "score")}
            store.append(pa.table({**event, **nulls}))
            store.compact()
            return store.capture(pa.table({"user_id": [1], "request_ts": [clock.advance(10)]})).columns

        first = capture_after("like", "a")
        with lw.Store.open(tmp_path / "store", read_only=True) as trainer:
            for where in (None, lw.col("action") == "like"):
                projection = lw.Projection(traits=["tags"], streams={"kind": lw.last(9, where)})
                materializer = lw.Materializer(trainer, projection)
                assert materializer(first).to_arrow()["history"].to_pylist()[0]["tags"][0] == ["a"]
                later = capture_after("like", f"{where}")
                assert materializer(later).to_arrow()["history"].to_pylist()[0]["tags"][-1] == [f"{where}"]


def three_actions(folder: Path, clock: ManualClock) -> lw.Store:
    """One user, three stored events, each of another action."""
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("number", pa.int64()), ("action", pa.string())]))
    store = lw.Store.create(folder / "store", schema, clock=clock)
    actions = {"number": [1, 2, 3], "action": ["play", "like", "skip"]}
    store.append(pa.table({"user_id": [1, 1, 1], "event_ts": [10, 20, 30], **actions}))
    store.compact()
    return store


def lose_the_last_word(store: lw.Store) -> None:
    """Write the values of `action` anew, whole and sealed, without the last of them."""
    trait = store.schema["action"]
    key, place = keys.vocabulary_chunk(trait.id, 0), Place(store.epoch, trait.id, 0, 0)
    values = decode_chunk(store.storage.read(key), key, place, pa.string())
    assert len(values) == 3
    store.storage.write(key, encode_chunk(values.slice(0, 2), place))


@pytest.mark.parametrize(
    "where",
    [
        lw.col("action") == "play",
        lw.col("action") != "like",
        lw.col("action") == "skip",  # which has no code any more: perhaps it is the one without a value
        lw.col("action").is_in(["never seen"]),
        ~(lw.col("action") == "like") & (lw.col("number") > 0),
    ],
    ids=str,
)
def test_a_code_without_a_value_is_damage(tmp_path: Path, where: Any) -> None:
    clock = ManualClock(1_000)
    with three_actions(tmp_path, clock) as store:
        examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.advance(10)]})).columns
        lose_the_last_word(store)
        with lw.Store.open(tmp_path / "store", read_only=True) as trainer:
            projection = lw.Projection(traits=["number"], streams={"kind": lw.last(5, where)})
            for _ in range(2):
                with pytest.raises(lw.CorruptionError, match="trait 'action' has a code beyond its 2 values"):
                    lw.Materializer(trainer, projection, on_missing="mask")(examples)
            nulls = lw.Projection(traits=["number"], streams={"kind": lw.last(5, lw.col("action").is_null())})
            assert lw.Materializer(trainer, nulls)(examples).lengths.tolist() == [0]


def test_a_trait_by_two_names_is_looked_at_as_one(tmp_path: Path) -> None:
    clock = ManualClock(1_000)
    with three_actions(tmp_path, clock) as store:
        store.alter(rename={"action": "deed"})
        store.compact()
        examples = store.capture(pa.table({"user_id": [1], "request_ts": [clock.advance(10)]})).columns
        streams = {"old": lw.last(5, lw.col("action") == "play"), "new": lw.last(5, lw.col("deed") != "play")}
        projection = lw.Projection(traits=["number"], streams=streams)
        batch = lw.Materializer(store, projection)(examples)
        assert batch.values["number"].tolist() == [1, 2, 3]
        assert batch.values["stream"].tolist() == [1, 2, 2]
        lose_the_last_word(store)
        with (
            lw.Store.open(tmp_path / "store", read_only=True) as trainer,
            pytest.raises(lw.CorruptionError, match="has a code beyond its 2 values"),
        ):
            lw.Materializer(trainer, projection)(examples)
