"""Examples as capture writes them, read at once, against the readers that take any table."""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from latewood.errors import SchemaError
from latewood.materialize import regular
from latewood.materialize.logged import Logged, read_heads
from latewood.pointer import Pointers
from latewood.schema import TIME_TYPE, Schema
from latewood.storage import open_storage
from latewood.vocabulary import Vocabulary

EPOCH = bytes(range(16))
SCHEMA = Schema(
    user_id=pa.int64(),
    traits=pa.schema([
        ("item", pa.int64()), ("like", pa.bool_()), ("price", pa.float32()), ("tiny", pa.int8()), ("word", pa.string()),
    ]),
)  # fmt: skip
TRAITS = [SCHEMA[name] for name in ("item", "word", "like", "price", "tiny")]
LATE = 2**50
VOCABULARY = Vocabulary(open_storage("memory://test_regular"), SCHEMA)
VOCABULARY.encode(SCHEMA["word"], pa.array([str(i) for i in range(200)]))


def table_of(counts: list[int]) -> pa.Table:
    """Examples with so many recent events, each with other values."""
    n, total = len(counts), sum(counts)
    at, offsets = np.arange(n), pa.array(np.cumsum([0, *counts]), pa.int32())
    pointers = Pointers(
        EPOCH, at + 1, at - 7, at + LATE, (at % 3).astype(np.int32), at + 2, at.astype(np.uint64) << np.uint64(50)
    )
    times = np.arange(total) + 2**40
    lists = {
        "event_ts": pa.array(times).view(TIME_TYPE),
        "ingest_ts": pa.array(times + 5).view(TIME_TYPE),
        "ordinal": pa.array(np.arange(total), pa.int32()),
        "item": pa.array(np.arange(total) * 3 - 1, pa.int64()),
        "word": pa.array([str(i) for i in range(total)], pa.string()),
        "like": pa.array(np.arange(total) % 3 == 0),
        "price": pa.array(np.arange(total) / 7, pa.float32()),
        "tiny": pa.array(np.arange(total) % 100 - 50, pa.int8()),
    }
    fields = [pa.ListArray.from_arrays(offsets, values) for values in lists.values()]
    recent = pa.StructArray.from_arrays(fields, names=list(lists))
    cutoff = pa.array(at + 2**45).view(TIME_TYPE)
    ids = pa.array(at * 1_000_003 - 5, pa.int64())
    return pa.table(
        {"label": pa.array(at), "user_id": ids, "uih": pointers.to_arrow(), "recent": recent, "cutoff": cutoff}
    )


def read(table: pa.Table, *, at_once: bool) -> tuple[Logged, bool]:
    """The examples, and whether their recent events were read on the way."""
    heads = read_heads(table, SCHEMA, EPOCH, TRAITS if at_once else None)
    return heads.read_recents(TRAITS, VOCABULARY), heads.read is not None


def require_same(left: Logged, right: Logged) -> None:
    assert left.user_ids.equals(right.user_ids)
    for mine, theirs in zip(left.keys, right.keys, strict=True):
        assert mine.tolist() == theirs.tolist()
    for name in ("watermark", "start_ts", "end_ts", "end_ties", "length", "checksum"):
        mine, theirs = getattr(left.pointers, name), getattr(right.pointers, name)
        assert mine.dtype == theirs.dtype
        assert mine.tolist() == theirs.tolist()
    assert left.cutoff.tolist() == right.cutoff.tolist()
    assert left.recents.offsets.tolist() == right.recents.offsets.tolist()
    assert left.recents.order.tolist() == right.recents.order.tolist()
    for trait in TRAITS:
        mine, theirs = left.recents.columns[trait.id], right.recents.columns[trait.id]
        assert mine.dtype == theirs.dtype
        assert mine[0].tobytes() == theirs[0].tobytes()
    assert left.features.equals(right.features)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
def test_regular_examples_are_the_same_read_at_once(counts: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(counts) - 1))
    table = table_of(counts).slice(start, data.draw(st.integers(1, len(counts) - start)))
    mine, was_read = read(table, at_once=True)
    assert was_read
    require_same(mine, read(table, at_once=False)[0])


def test_a_room_that_another_thread_takes_first_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class TakenMeanwhile(list[Any]):
        def __bool__(self) -> bool:
            return True

    monkeypatch.setattr(regular, "_rooms", TakenMeanwhile())
    table = table_of([2, 0, 3])
    require_same(read(table, at_once=True)[0], read(table, at_once=False)[0])


def changed(name: str, change: Callable[[pa.Array], pa.Array]) -> Callable[[pa.Table], pa.Table]:
    """A table with another list in `recent`."""

    def change_table(table: pa.Table) -> pa.Table:
        recent = table["recent"].combine_chunks()
        names = [field.name for field in recent.type]
        fields = [change(recent.field(i)) if names[i] == name else recent.field(i) for i in range(len(names))]
        place = table.column_names.index("recent")
        return table.set_column(place, "recent", pa.StructArray.from_arrays(fields, names=names))

    return change_table


def in_chunks(table: pa.Table) -> pa.Table:
    return pa.concat_tables([table.slice(0, 1), table.slice(1)])


@pytest.mark.parametrize(
    ("change", "at_once"),
    [
        (in_chunks, False),
        (changed("item", lambda column: column.cast(pa.large_list(pa.int64()))), False),
        (changed("tiny", lambda column: column.cast(pa.list_(pa.int16()))), True),
        (changed("event_ts", lambda column: column.cast(pa.list_(pa.timestamp("ns", "UTC")))), False),
    ],
)
def test_any_other_table_is_read_all_the_same(change: Callable[[pa.Table], pa.Table], at_once: bool) -> None:
    table = table_of([2, 0, 3])
    mine, was_read = read(change(table), at_once=True)
    assert was_read == at_once
    require_same(mine, read(table, at_once=False)[0])


def test_recents_out_of_order_are_sorted() -> None:
    def turn_around(column: pa.Array) -> pa.Array:
        return pa.array([row[::-1] for row in column.to_pylist()], column.type)

    table = table_of([4, 1])
    for name in ("event_ts", "ingest_ts", "ordinal", "item", "word", "like", "price", "tiny"):
        table = changed(name, turn_around)(table)
    mine, was_read = read(table, at_once=True)
    assert was_read
    require_same(mine, read(table_of([4, 1]), at_once=False)[0])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("event_ts", lambda column: pa.array([[1, None], [], [1, 2, 3]], column.type), "has a null in row 1"),
        ("price", lambda column: pa.array([[1.0], [], [1, 2, 3]], column.type), "differ in length"),
        ("ordinal", lambda column: pa.array([[1, 2], None, [1, 2, 3]], column.type), "has a null in row 1"),
        ("ingest_ts", lambda column: pa.array([[2**62, 0], [], [1, 2, 3]], column.type), "outside the years"),
    ],
)
def test_what_is_wrong_is_said_by_the_others(name: str, change: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        read(changed(name, change)(table_of([2, 0, 3])), at_once=True)


def forged(table: pa.Table, old: list[int], new: list[int]) -> pa.Table:
    """A table out of a file in which other offsets stand."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    data, was = sink.getvalue().to_pybytes(), np.array(old, np.int32).tobytes()
    assert data.count(was) == table.schema.field("recent").type.num_fields
    return pa.ipc.open_stream(data.replace(was, np.array(new, np.int32).tobytes())).read_all()


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("offsets", [[0, 5, 2, 6], [0, 2, 3, 2**20], [-4, 2, 3, 6], [3, 2, 1, 0]])
def test_lists_that_lie_outside_their_values_are_refused(offsets: list[int], at_once: bool) -> None:
    table = forged(table_of([2, 1, 3]), [0, 2, 3, 6], offsets)
    with pytest.raises(SchemaError, match="column 'recent' is not as Arrow has it"):
        read(table, at_once=at_once)


@pytest.mark.parametrize("at_once", [True, False])
def test_user_ids_that_are_no_text_are_refused(at_once: bool) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32))
    ids = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xff")])
    table = table_of([1, 1])
    table = table.set_column(table.column_names.index("user_id"), "user_id", ids)
    schema = Schema(user_id=pa.string(), traits=pa.schema([("item", pa.int64())]))
    with pytest.raises(SchemaError, match="column 'user_id' is not as Arrow has it"):
        read_heads(table, schema, EPOCH, list(schema) if at_once else None)


def test_codes_beyond_their_dictionary_are_refused() -> None:
    def coded(column: pa.Array) -> pa.Array:
        codes = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["0", "1"]), safe=False)
        return pa.ListArray.from_arrays(column.offsets, codes)

    heads = read_heads(changed("word", coded)(table_of([1, 1])), SCHEMA, EPOCH)
    vocabulary: Any = None  # never asked
    with pytest.raises(SchemaError, match="column 'recent' is not as Arrow has it"):
        heads.read_recents([SCHEMA["word"]], vocabulary)


@pytest.mark.parametrize("regular", [True, False])
def test_what_was_read_is_let_go(regular: bool) -> None:
    """Reading borrows a table's memory by its address, and gives it back also where it finds something irregular."""
    ids = np.arange(4)
    held, table = weakref.ref(ids), table_of([2, 0, 1, 3])
    table = table.set_column(1, "user_id", pa.array(ids))
    if not regular:
        nothing = pa.array([None] * 4, table["cutoff"].type)
        table = table.set_column(table.column_names.index("cutoff"), "cutoff", nothing)
    with nullcontext() if regular else pytest.raises(SchemaError, match="column 'cutoff' has a null"):
        assert read(table, at_once=True)[1]
    del ids, table
    assert held() is None
