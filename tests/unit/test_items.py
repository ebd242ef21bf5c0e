"""Vocabs against counting by hand, and items against looking each of them up."""

from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from latewood.batch import Batch
from latewood.testing import ManualClock
from latewood.vocab import Vocab

SCHEMA = lw.Schema(
    user_id=pa.int64(),
    traits=pa.schema(
        [
            ("item", pa.int64()),
            ("word", pa.string()),
            ("sparse", pa.dictionary(pa.int32(), pa.int64())),
            ("tags", pa.list_(pa.string())),
            ("pair", pa.list_(pa.int64(), 2)),
        ]
    ),
)
DAY = 86_400_000_000


def rows(count: int, seed: int) -> dict[str, list[object]]:
    """Events of three users over ten days; a quarter of them are known days late."""
    rng = np.random.default_rng(seed)
    day, late = rng.integers(0, 10, count), np.where(rng.random(count) < 0.25, rng.integers(1, 5, count), 0)
    item = rng.geometric(0.3, count).tolist()
    null = rng.random(count) < 0.1
    return {
        "user_id": rng.integers(1, 4, count).tolist(),
        "event_ts": (day * DAY + rng.integers(0, DAY, count)).tolist(),
        "late": (late * DAY).tolist(),
        "item": [None if hole else i for hole, i in zip(null, item, strict=True)],
        "word": [f"w{i}" for i in item],
        "sparse": [10**12 + i for i in item],
        "tags": [[f"t{i}", f"t{i % 3}"][: i % 3] for i in item],
        "pair": [[i, i + 1] for i in item],
    }


def make_store(folder: Path, columns: dict[str, list[object]]) -> lw.Store:
    """Half of it compacted."""
    ingest = [ts + late + 1 for ts, late in zip(columns["event_ts"], columns["late"], strict=True)]
    order = np.argsort(ingest, kind="stable")
    table = pa.table({name: pa.array(column) for name, column in columns.items() if name != "late"})
    table = table.append_column("ingest_ts", pa.array(ingest)).take(pa.array(order))
    store = lw.Store.create(folder, SCHEMA, shards=2, clock=lambda: 40 * DAY)
    half = len(table) // 2
    store.append(table.slice(0, half))
    store.compact()
    store.append(table.slice(half))
    return store


@pytest.mark.parametrize("name", ["item", "word", "sparse", "tags", "pair"])
@pytest.mark.parametrize(("until", "min_count"), [(None, 1), (6 * DAY, 1), (6 * DAY, 3), (0, 1)])
def test_a_vocab_counts_what_was_known(tmp_path: Path, name: str, until: int | None, min_count: int) -> None:
    columns = rows(200, seed=7)
    seen: Counter[object] = Counter()
    for value, ts, late in zip(columns[name], columns["event_ts"], columns["late"], strict=True):
        if until is None or ts + late + 1 < until:
            seen.update(value if isinstance(value, list) else [value])
    expected = sorted(((-n, v) for v, n in seen.items() if v is not None and n >= min_count))
    with make_store(tmp_path / "store", columns) as store:
        vocab = store.vocab(name, until=until, min_count=min_count)
    assert vocab.values.to_pylist() == [value for _, value in expected]
    assert vocab.counts.tolist() == [-n for n, _ in expected]
    assert len(vocab) == len(expected) + 2
    ids = {value: i + 2 for i, (_, value) in enumerate(expected)}
    asked = [*seen, None]
    assert vocab.encode(pa.array(asked, vocab.values.type)).tolist() == [ids.get(value, 1) for value in asked]


@pytest.mark.parametrize("is_compacted", [False, True])
def test_what_was_superseded_by_then_does_not_count(tmp_path: Path, is_compacted: bool) -> None:
    schema = lw.Schema(user_id=pa.int64(), traits=pa.schema([("item", pa.int64())]))
    with lw.Store.create(tmp_path / "store", schema, clock=ManualClock(DAY)) as store:
        first = {"user_id": [1], "event_ts": [5], "ingest_ts": pa.array([10]), "item": [7], "event_id": ["a"]}
        store.append(pa.table(first))
        second = first | {"ingest_ts": pa.array([20]), "item": [8], "event_id": ["b"], "supersedes": ["a"]}
        store.append(pa.table(second))
        if is_compacted:
            store.compact()
        assert [store.vocab("item", until=until).values.to_pylist() for until in (10, 20, 21, None)] == [
            [],
            [7],
            [8],
            [8],
        ]


@pytest.mark.parametrize("name", ["item", "word", "sparse", "tags", "pair"])
def test_histories_get_the_ids_of_their_values(tmp_path: Path, name: str) -> None:
    columns = rows(200, seed=8)
    with make_store(tmp_path / "store", columns) as store:
        vocab = store.vocab(name, min_count=5)
        requests = pa.table({"user_id": [1, 2, 9], "request_ts": pa.array([30 * DAY] * 3)})
        batch = lw.Materializer(store, lw.Projection(traits=[name]))(
            lw.backfill(store, requests, complete=True, allow_empty=True)
        )
    ids = {value: i + 2 for i, value in enumerate(vocab.values.to_pylist())}
    history = (
        pa.concat_arrays([chunk.field(name) for chunk in batch.to_arrow()["history"].chunks]).flatten().to_pylist()
    )
    flat = [v for value in history for v in value] if isinstance(history[0], list) else history
    assert vocab.encode_history(batch).tolist() == [ids.get(value, 1) for value in flat]


def test_a_vocab_survives_a_file(tmp_path: Path) -> None:
    with make_store(tmp_path / "store", rows(50, seed=9)) as store:
        vocab = store.vocab("word")
    pq.write_table(vocab.to_arrow(), tmp_path / "vocab.parquet")
    read = lw.Vocab.from_arrow(pq.read_table(tmp_path / "vocab.parquet"))
    assert (read.name, read.values, read.counts.tolist()) == (vocab.name, vocab.values, vocab.counts.tolist())
    with pytest.raises(lw.SchemaError, match="not a vocab's table"):
        lw.Vocab.from_arrow(pa.table({"id": [2]}))
    with pytest.raises(lw.SchemaError, match="in order"):
        lw.Vocab.from_arrow(vocab.to_arrow().slice(1))


def test_bad_vocabs_are_refused(tmp_path: Path) -> None:
    with make_store(tmp_path / "store", rows(50, seed=9)) as store:
        with pytest.raises(lw.SchemaError, match="nothing"):
            store.vocab("nothing")
        with pytest.raises(lw.SchemaError, match="min_count is 0"):
            store.vocab("item", min_count=0)
        with pytest.raises(lw.SchemaError, match="'item' is int64, not string"):
            store.vocab("item").encode(["x"])


ITEMS = pa.table(
    {
        "item": pa.array([3, 1, 2, 5], pa.int64()),
        "color": ["red", "blue", "red", None],
        "price": pa.array([30.0, None, 20.0, 50.0], pa.float32()),
        "place": pa.array([[3, 4], [1, 2], None, [5, 6]], pa.list_(pa.int16(), 2)),
        "loose": [[1], [], [2, 3], None],
    }
)


def known(name: str) -> dict[object, object]:
    return dict(zip(ITEMS["item"].to_pylist(), ITEMS[name].to_pylist(), strict=True))


def test_items_are_looked_up_for_candidates(tmp_path: Path) -> None:
    pq.write_table(ITEMS, tmp_path / "items.parquet")
    asked = [2, 9, None, 3]
    for items in (lw.Items(ITEMS, key="item"), lw.Items(tmp_path / "items.parquet", key="item")):
        found = items.look_up(asked)
        assert found.column_names == ["color", "price", "place", "loose"]
        for name in found.column_names:
            assert found[name].to_pylist() == [known(name).get(value) for value in asked]
        prices = items.look_up(pa.chunked_array([[2], [9]]), traits=["price"])
        assert prices.to_pylist() == [{"price": 20.0}, {"price": None}]


def test_items_are_added_to_histories(tmp_path: Path) -> None:
    with make_store(tmp_path / "store", rows(200, seed=8)) as store:
        requests = pa.table({"user_id": [1, 2, 9], "request_ts": pa.array([30 * DAY] * 3)})
        examples = lw.backfill(store, requests, complete=True, allow_empty=True)
        items = lw.Items(ITEMS, key="item")
        plain = lw.Materializer(store, lw.Projection(traits=["item"]))(examples)
        batch = items.add_to(plain, traits=["color", "price", "place"])
        loader = lw.Loader(
            store, examples, lw.Projection(traits=["item"]), transform=lambda b: items.add_to(b, ["color"])
        )
        assert [list(b.values) for b in loader] == [["item", "color"]]
    for row in batch.to_arrow()["history"].to_pylist():
        for name in ("color", "price", "place"):
            assert row[name] == [known(name).get(item) for item in row["item"]]
    assert not plain.masks["item"].all()
    with pytest.raises(lw.SchemaError, match="no trait 'item'"):
        items.add_to(plain, traits=["item"])
    with pytest.raises(lw.SchemaError, match="'color' already"):
        items.add_to(batch, traits=["color"])
    with pytest.raises(lw.SchemaError, match="'loose' has lists of any length"):
        items.add_to(plain)


def test_bad_items_are_refused() -> None:
    with pytest.raises(lw.SchemaError, match="no column 'sku'"):
        lw.Items(ITEMS, key="sku")
    with pytest.raises(lw.SchemaError, match="'color' has a null or a value twice"):
        lw.Items(ITEMS, key="color")
    with pytest.raises(lw.SchemaError, match="no trait 'weight'"):
        lw.Items(ITEMS, key="item").look_up([1], traits=["weight"])


def one_history(
    column: list[object], type_: pa.DataType, dictionary: pa.Array | None = None, mask: list[bool] | None = None
) -> Batch:
    """A batch of one history with the column `item`."""
    dtype = np.int32 if dictionary is not None else type_.to_pandas_dtype()
    masks = {} if mask is None else {"item": np.array(mask, np.bool_)}
    words = {} if dictionary is None else {"item": dictionary}
    features, ones = pa.table({"user_id": [1]}), np.ones(1, np.float32)
    return Batch(
        np.array([0, len(column)]), {"item": np.array(column, dtype)}, masks, words, ones, features, {"item": type_}
    )


def test_what_a_narrower_type_cannot_hold_is_unknown() -> None:
    vocab = Vocab("item", pa.array([5, 7], pa.int8()), np.array([2, 1]))
    for type_ in (pa.int16(), pa.int64(), pa.uint64()):
        assert vocab.encode(pa.array([7, None, 300, 5], type_)).tolist() == [3, 1, 1, 2]
    assert vocab.encode_history(one_history([-300, 5], pa.int64())).tolist() == [1, 2]
    items = lw.Items(pa.table({"item": pa.array([1, 2**63], pa.uint64()), "price": [1, 2]}), key="item")
    assert items.look_up([-(2**63), 1])["price"].to_pylist() == [None, 1]


def test_values_of_another_kind_are_refused() -> None:
    numbers = Vocab("item", pa.array([1, 5]), np.array([2, 1]))
    words = Vocab("item", pa.array(["1", "5"]), np.array([2, 1]))
    for vocab, values in ((numbers, ["5"]), (numbers, [True]), (numbers, [1, "a"]), (words, [5]), (words, [object()])):
        with pytest.raises(lw.SchemaError, match="'item'"):
            vocab.encode(values)


def test_histories_of_nothing_but_nulls_are_unknown() -> None:
    """Also where no value was ever stored, so that the dictionary has none; and where no event is left."""
    vocab, nothing = Vocab("item", pa.array(["a"]), np.array([1])), pa.array([], pa.string())
    assert vocab.encode_history(one_history([0, 0], pa.string(), nothing, [True, True])).tolist() == [1, 1]
    assert vocab.encode_history(one_history([], pa.string(), nothing, [])).tolist() == []


def test_two_threads_with_dictionaries_of_their_own_share_an_index() -> None:
    """Before each look at what the index keeps, the other thread has been there."""
    items = lw.Items(pa.table({"item": ["a", "b"], "price": [1, 2]}), key="item")
    first, second = (one_history([0], pa.string(), pa.array([word])) for word in "ab")
    index, others = items._index, [second]

    class Interrupted(type(index)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> object:
            if others:
                batch = others.pop()
                items.add_to(batch)
                others.append(batch)
            return object.__getattribute__(self, name)

    index.__class__ = Interrupted
    assert items.add_to(first).values["price"].tolist() == [1]


def test_items_come_in_any_layout() -> None:
    keys, words = ["a", "b", "c"], ["x", None, "y"]
    text = [pa.array(words, type_) for type_ in (pa.string(), pa.large_string(), pa.string_view())]
    for key, word in [*zip((pa.array(keys, t.type) for t in text), text, strict=True)]:
        for column in (word, word.cast(pa.string()).dictionary_encode()):
            table = pa.table({"item": key, "word": column, "tags": pa.array([["t"]] * 3, pa.list_(key.type))})
            for source in (table, pa.concat_tables([table.slice(0, 1), table.slice(1)])):
                items = lw.Items(source, key="item")
                assert items.look_up(["c", "z", "a"], ["word"])["word"].to_pylist() == ["y", None, "x"]
                added = items.add_to(one_history([1, 0, 2], pa.string(), pa.array(["b", "c", "z"])), ["word"])
                assert added.column_to_arrow("word").to_pylist() == ["y", None, None]
    table = Vocab("item", pa.array(["a"]), np.array([1])).to_arrow()
    for values in (pa.array(["a"], pa.string_view()), pa.array(["a"]).dictionary_encode()):
        assert lw.Vocab.from_arrow(table.set_column(1, "value", values)).encode(["b", "a"]).tolist() == [1, 2]


def test_times_of_items_are_microseconds() -> None:
    for unit, there in (("s", 3), ("ns", 3_000_000_000)):
        table = pa.table({"item": [1], "since": pa.array([there], pa.timestamp(unit, "UTC"))})
        added = lw.Items(table, key="item").add_to(one_history([1, 2], pa.int64()))
        assert added.values["since"].tolist() == [3_000_000, 0]
        assert added.types["since"] == pa.timestamp("us", "UTC")


def test_items_that_no_batch_can_hold_are_refused(tmp_path: Path) -> None:
    batch = one_history([1], pa.int64())
    for column in (
        pa.array([date(2020, 1, 1)]),
        pa.array([b"a"]),
        pa.array([{"a": 1}]),
        pa.nulls(1),
        pa.array([["a"]], pa.list_(pa.string(), 1)),
        pa.array([[None]], pa.list_(pa.int64(), 1)),
    ):
        with pytest.raises(lw.SchemaError, match="'odd'"):
            lw.Items(pa.table({"item": [1], "odd": column}), key="item").add_to(batch)
    with pytest.raises(lw.SchemaError, match=r"'item' is list<.*>; items are known by"):
        lw.Items(pa.table({"item": [[1]]}), key="item")
    with pytest.raises(lw.SchemaError, match="two columns 'odd'"):
        lw.Items(pa.table([[1], [2], [3]], ["item", "odd", "odd"]), key="item")
    (tmp_path / "items.parquet").write_bytes(b"no Parquet")
    with pytest.raises(lw.CorruptionError, match="cannot be read as Parquet"):
        lw.Items(tmp_path / "items.parquet", key="item")
