"""Items against looking each of them up."""

from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from item_world import DAY, make_store, one_history, rows

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


def test_items_are_added_to_what_examples_share(tmp_path: Path) -> None:
    items = lw.Items(ITEMS, key="item")
    with make_store(tmp_path / "store", rows(200, seed=8)) as store:
        requests = pa.table({"user_id": [1, 1, 2, 9], "request_ts": pa.array([30 * DAY, 20 * DAY, 30 * DAY, 30 * DAY])})
        examples = lw.backfill(store, requests, complete=True, allow_empty=True)
        view = lw.Projection(traits=["item"])
        apart = items.add_to(lw.Materializer(store, view)(examples), ["color", "price", "place"])
        loader = lw.Loader(
            store, examples, view, order="user", shared=True,
            transform=lambda batch: items.add_to(batch, ["color", "price", "place"]),
        )  # fmt: skip
        (shared,) = loader
    assert apart.lengths.all() != apart.lengths.any()
    assert shared.expand().to_arrow()["history"].to_pylist() == apart.to_arrow()["history"].to_pylist()


def test_lists_of_no_items_are_added_too() -> None:
    table = pa.table({"item": [1, 2], "none": pa.array([[], None], pa.list_(pa.int64(), 0))})
    assert lw.Items(table, key="item").add_to(one_history([2, 1], pa.int64())).values["none"].shape == (2, 0)


def test_bad_items_are_refused() -> None:
    with pytest.raises(lw.SchemaError, match="no column 'sku'"):
        lw.Items(ITEMS, key="sku")
    with pytest.raises(lw.SchemaError, match="'color' has a null or a value twice"):
        lw.Items(ITEMS, key="color")
    with pytest.raises(lw.SchemaError, match="no trait 'weight'"):
        lw.Items(ITEMS, key="item").look_up([1], traits=["weight"])


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
