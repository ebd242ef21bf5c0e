"""Vocabs against counting by hand."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import latewood as lw
from item_world import DAY, make_store, rows
from latewood.testing import ManualClock


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
    for counts in (pa.nulls(len(vocab.values), pa.int64()), vocab.values):
        with pytest.raises(lw.SchemaError, match="counts of a vocab's table are integers"):
            lw.Vocab.from_arrow(vocab.to_arrow().set_column(2, "count", counts))


def test_bad_vocabs_are_refused(tmp_path: Path) -> None:
    with make_store(tmp_path / "store", rows(50, seed=9)) as store:
        with pytest.raises(lw.SchemaError, match="nothing"):
            store.vocab("nothing")
        for min_count in (0, None, 1.5):
            with pytest.raises(lw.SchemaError, match=f"min_count is {min_count}"):
                store.vocab("item", min_count=min_count)
        with pytest.raises(lw.SchemaError, match="'item' is int64, not string"):
            store.vocab("item").encode(["x"])
