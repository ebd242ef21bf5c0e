"""What comes in is refused with the column and the row named, before anything is coded, and stays what it was."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from latewood.clock import EARLIEST_TS, LATEST_TS
from latewood.columns import Column, column_from_arrow
from latewood.errors import SchemaError
from latewood.intake import Intake, read_events, read_user_ids
from latewood.mutable import hash_ids
from latewood.schema import Schema, Trait
from latewood.storage import open_storage
from latewood.vocabulary import Vocabulary

SCHEMA = Schema(
    user_id=pa.int64(),
    traits=pa.schema(
        [
            pa.field("item", pa.int32(), nullable=False),
            ("action", pa.string()),
            ("score", pa.float64()),
            ("like", pa.bool_()),
        ]
    ),
)
GOOD: dict[str, Any] = {
    "user_id": pa.array([1, -2], pa.int64()),
    "event_ts": pa.array([10, 20], pa.int64()),
    "item": pa.array([5, 6], pa.int32()),
    "action": pa.array(["view", None]),
    "score": pa.array([0.5, None], pa.float64()),
    "like": pa.array([True, False]),
}


class Coder:
    """Codes strings in order of their appearance, and remembers that it was asked."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def __call__(self, trait: Trait, values: pa.Array) -> Column:
        if not trait.coded:
            return column_from_arrow(values)
        self.words += [word for word in values.to_pylist() if word is not None and word not in self.words]
        codes = [0 if word is None else self.words.index(word) for word in values.to_pylist()]
        return Column(np.array(codes, np.int32), np.array([word is None for word in values.to_pylist()]))


def read(data: Any, schema: Schema = SCHEMA) -> Intake:
    return read_events(data, schema, Coder())


def without(name: str) -> dict[str, Any]:
    return {key: column for key, column in GOOD.items() if key != name}


def test_columns_become_events() -> None:
    intake = read(GOOD)
    events = intake.events
    assert not intake.explicit
    assert intake.ids is None
    assert events.user_ids.to_pylist() == [1, -2]
    assert events.event_ts.tolist() == [10, 20]
    assert events.traits[0].values.tolist() == [5, 6]
    assert events.traits[1].mask is not None
    assert events.traits[1].mask.tolist() == [False, True]
    assert events.traits[2].values.tolist() == [0.5, 0.0]
    assert events.traits[3].values.tolist() == [True, False]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (without("item"), "lacks column 'item'"),
        (without("user_id"), "lacks column 'user_id'"),
        (GOOD | {"other": [1, 2]}, "no trait 'other'"),
        (GOOD | {"user_id": [1, None]}, "'user_id' has a null in row 1"),
        (GOOD | {"user_id": ["a", "b"]}, "'user_id' is string; the store has int64"),
        (GOOD | {"user_id": [1.0, 2.0]}, "'user_id' is double"),
        (GOOD | {"user_id": pa.array([1, 2**64 - 1], pa.uint64())}, "'user_id' does not fit int64"),
        (GOOD | {"event_ts": [1, None]}, "'event_ts' has a null in row 1"),
        (GOOD | {"event_ts": ["a", "b"]}, "'event_ts' is string"),
        (GOOD | {"event_ts": [1, LATEST_TS + 1]}, "'event_ts', row 1: .* outside the years"),
        (GOOD | {"event_ts": [EARLIEST_TS - 1, 1]}, "'event_ts', row 0: .* outside the years"),
        (GOOD | {"event_ts": pa.array([1, 1500], pa.timestamp("ns"))}, "'event_ts' cannot be kept in µs"),
        (GOOD | {"ingest_ts": [1, None]}, "'ingest_ts' has a null in row 1"),
        (GOOD | {"item": [1, None]}, "'item' has a null in row 1; it is not nullable"),
        (GOOD | {"item": [1, 2**40]}, "'item' does not fit int32"),
        (GOOD | {"item": [1.0, 2.0]}, "'item' is double; the store has int32"),
        (GOOD | {"action": [1, 2]}, "'action' is int64; the store has string"),
        (GOOD | {"like": [1, 0]}, "'like' is int64; the store has bool"),
        (GOOD | {"score": pa.array([1, 2])}, "'score' is int64; the store has double"),
        (GOOD | {"event_id": [1.0, 2.0]}, "event_id"),
        (GOOD | {"supersedes": [1.0, 2.0]}, "column 'supersedes' is double"),
        (GOOD | {"event_ts": [1, None], "supersedes": [1, None]}, "'event_ts' has a null in row 1"),
        (GOOD | {"event_ts": [1, None], "supersedes": [1, 2]}, "'item', row 1: .* a deletion"),
        (GOOD | {"item": pa.array([None, 1], pa.int32()), "supersedes": [1, 2]}, "'item' has a null in row 0"),
        (GOOD | {"supersedes": [{"event_ts": 1, "ingest_ts": 2}, None]}, "'supersedes' is struct.*by its place"),
        (
            GOOD | {"supersedes": [None, {"event_ts": 1, "ingest_ts": None, "ordinal": 0}]},
            "row 1: its ingest_ts is null",
        ),
        (
            GOOD | {"supersedes": [None, {"event_ts": 1, "ingest_ts": 2, "ordinal": -1}]},
            "row 1: ordinal -1 is no event",
        ),
        (
            GOOD | {"supersedes": [None, {"event_ts": 1, "ingest_ts": 2, "ordinal": 2**40}]},
            "ordinal does not fit int32",
        ),
        (GOOD | {"supersedes": [None, {"event_ts": 1, "ingest_ts": 2, "ordinal": 0.5}]}, "ordinal is double"),
        (GOOD | {"supersedes": [None, {"event_ts": "1", "ingest_ts": 2, "ordinal": 0}]}, "event_ts is string"),
        (GOOD | {"supersedes": [None, {"event_ts": 1, "ingest_ts": True, "ordinal": 0}]}, "ingest_ts is bool"),
        (GOOD | {"event_ts": ["1", None], "supersedes": [None, 7]}, "'event_ts' is string"),
        (
            GOOD | {"supersedes": [None, {"event_ts": 2**63 - 1, "ingest_ts": 2, "ordinal": 0}]},
            "event_ts', row 1: .*years",
        ),
        ({"user_id": [1, 2], "supersedes": [7, None]}, "row 1 has no event_ts and supersedes nothing"),
        ({"user_id": [1, 2], "supersedes": [7, 8], "item": [1, 2]}, "lacks column 'event_ts'"),
        (GOOD | {"action": ["view", 3]}, "^column 'action' is not of one type that Arrow has"),
        (GOOD | {"like": [True]}, "not a table that Arrow can hold: .*like"),
        (pd.DataFrame({"user_id": [1, 2], "action": ["view", 3]}), "^column 'action' is not of one type"),
        (pd.DataFrame({"user_id": [1, 2], "score": [0.5, "high"]}), "^column 'score' is not of one type"),
        ([1, 2], "expected a table"),
        (None, "expected a table"),
    ],
)
def test_bad_tables_are_refused_by_name(changed: Any, message: str) -> None:
    coder = Coder()
    with pytest.raises(SchemaError, match=message):
        read_events(changed, SCHEMA, coder)
    assert coder.words == []  # nothing reached the vocabulary


def test_a_repeated_column_is_refused() -> None:
    table = pa.table(GOOD).append_column("item", pa.array([1, 2], pa.int32()))
    with pytest.raises(SchemaError, match="two columns 'item'"):
        read(table)


@pytest.mark.parametrize("name", ["user_id", "action"])
def test_text_that_is_not_utf8_is_refused(name: str) -> None:
    schema = Schema(user_id=pa.string(), traits=[pa.field("action", pa.string())])
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff\xfe"], pa.binary()).buffers())
    table = {"user_id": ["a", "b"], "event_ts": [1, 2], "action": ["x", "y"]} | {name: broken}
    vocabulary = Vocabulary(open_storage(f"memory://intake-{name}"), schema)
    with pytest.raises(SchemaError, match=f"'{name}' holds text that is not UTF-8"):
        read_events(table, schema, vocabulary.encode)


TIMES: list[tuple[pa.Array, list[int]]] = [
    (pa.array([1, -1], pa.int64()), [1, -1]),
    (pa.array([1, -1], pa.timestamp("s")), [1_000_000, -1_000_000]),
    (pa.array([1, -1], pa.timestamp("ms", "UTC")), [1000, -1000]),
    (pa.array([1, -1], pa.timestamp("us", "Europe/Berlin")), [1, -1]),
    (pa.array([1000, -1000], pa.timestamp("ns")), [1, -1]),
    (
        pa.array([datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(1969, 12, 31, tzinfo=UTC)]),
        [10**6, -86_400 * 10**6],
    ),
    (pa.array([EARLIEST_TS, LATEST_TS]), [EARLIEST_TS, LATEST_TS]),
]


@pytest.mark.parametrize(("times", "expected"), TIMES)
def test_times_in_many_forms(times: pa.Array, expected: list[int]) -> None:
    intake = read(GOOD | {"event_ts": times, "ingest_ts": times})
    assert intake.explicit
    assert intake.events.event_ts.tolist() == intake.events.ingest_ts.tolist() == expected


@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.dictionary(pa.int8(), pa.int64())]
)
def test_integer_users_of_any_width(type_: pa.DataType) -> None:
    users = (
        pa.array([1, 2], pa.int64()).cast(type_)
        if not pa.types.is_dictionary(type_)
        else pa.array([1, 2]).dictionary_encode()
    )
    assert read(GOOD | {"user_id": users}).events.user_ids == pa.array([1, 2], pa.int64())


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_users_of_any_kind(type_: pa.DataType) -> None:
    schema = Schema(user_id=pa.string(), traits=[])
    users = pa.array(["", "ü"]).cast(type_)
    assert read_user_ids(users, schema) == pa.array(["", "ü"])


LIBRARIES: list[Callable[[pa.Table], Any]] = [
    lambda table: table,
    lambda table: table.to_batches()[0],
    lambda table: table.to_reader(),
    pl.from_arrow,
    lambda table: pd.DataFrame(
        {name: table[name].to_pandas(types_mapper=pd.ArrowDtype) for name in table.column_names}
    ),
    lambda table: {name: table[name].combine_chunks() for name in table.column_names},
]


@pytest.mark.parametrize("convert", LIBRARIES)
def test_tables_of_any_library(convert: Callable[[pa.Table], Any]) -> None:
    intake = read(convert(pa.table(GOOD)))
    assert intake.events.user_ids.to_pylist() == [1, -2]
    assert intake.events.traits[0].values.tolist() == [5, 6]


def test_an_empty_table_is_fine() -> None:
    assert len(read(pa.table(GOOD).slice(0, 0)).events) == 0
    assert (
        len(
            read(
                {name: pa.array([], pa.null()) for name in ("user_id", "item", "action", "score", "like")}
                | {"event_ts": pa.array([], pa.int64())}
            ).events
        )
        == 0
    )


def test_event_ids_are_hashed_with_what_the_event_says() -> None:
    def ids(**changed: Any) -> Intake:
        return read(GOOD | {"event_id": ["a", None]} | changed)

    one, same, other = ids(), ids(ingest_ts=[1, 2]), ids(item=pa.array([5, 7], pa.int32()))
    assert one.ids is not None
    assert one.content is not None
    assert same.content is not None
    assert other.content is not None
    assert one.ids[0].any()
    assert not one.ids[1].any()
    assert one.content.tolist() == same.content.tolist()  # when it was learned of is not part of it
    assert one.content[0] == other.content[0]
    assert one.content[1] != other.content[1]


RENAMED = SCHEMA.altered(rename={"item": "product"}, add=[("late", pa.string())])


def test_corrections_and_deletions_in_one_table() -> None:
    changed = {name: column.filter(pa.array([True, False])) for name, column in GOOD.items()}
    table = {name: pa.concat_arrays([column, pa.nulls(1, column.type)]) for name, column in changed.items()}
    supersedes = pa.array(["a", "b"])
    intake = read(table | {"user_id": pa.array([1, 2]), "event_id": ["a", "c"], "supersedes": supersedes})
    assert intake.supersedes is not None
    assert intake.supersedes.chosen.tolist() == [True, True]
    assert intake.supersedes.deletions.tolist() == [False, True]
    assert intake.supersedes.ids is not None
    assert intake.supersedes.ids.tolist() == hash_ids(supersedes).tolist()
    assert intake.events.event_ts.tolist() == [10, 0]
    assert intake.events.traits[0].mask is not None
    assert intake.events.traits[0].mask.tolist() == [False, True]


@pytest.mark.parametrize("type_", [pa.timestamp("us", "UTC"), pa.timestamp("s"), pa.int64(), pa.int32(), pa.uint64()])
@pytest.mark.parametrize("ordinal", [pa.int32(), pa.uint8(), pa.int64()])
def test_places_in_many_forms(type_: pa.DataType, ordinal: pa.DataType) -> None:
    place = pa.StructArray.from_arrays(
        [pa.array([1, None], ordinal), pa.array([5, None], type_), pa.array([7, None], type_)],
        ["ordinal", "event_ts", "ingest_ts"],
        mask=pa.array([False, True]),
    )
    intake = read(GOOD | {"supersedes": place})
    assert intake.supersedes is not None
    assert intake.supersedes.places is not None
    factor = 1_000_000 if type_ == pa.timestamp("s") else 1
    assert intake.supersedes.chosen.tolist() == [True, False]
    assert intake.supersedes.deletions.tolist() == [False, False]
    assert intake.supersedes.places.event_ts.tolist() == [5 * factor, 0]
    assert intake.supersedes.places.ingest_ts.tolist() == [7 * factor, 0]
    assert intake.supersedes.places.ordinal.tolist() == [1, 0]


def test_a_table_of_deletions_needs_no_events() -> None:
    intake = read({"user_id": [1, 2], "supersedes": [7, 8], "ingest_ts": [3, 4]})
    assert intake.supersedes is not None
    assert intake.supersedes.deletions.all()
    assert intake.explicit
    assert intake.events.traits == {}
    assert len(read({"user_id": pa.array([], pa.int64()), "supersedes": pa.array([], pa.int64())}).events) == 0
    times = pa.array([None, None], pa.timestamp("us"))
    empty = {name: pa.nulls(2, column.type) for name, column in GOOD.items() if name not in ("user_id", "event_ts")}
    for event_ts in (times, pa.nulls(2)):
        whole = read(empty | {"user_id": [1, 2], "event_ts": event_ts, "supersedes": [7, 8]})
        assert whole.supersedes is not None
        assert whole.supersedes.deletions.all()


def test_a_table_whose_rows_supersede_nothing_is_an_ordinary_one() -> None:
    plain = read(GOOD | {"event_id": [1, 2]})
    for type_ in (pa.null(), pa.int64(), pa.struct([(n, pa.int64()) for n in ("event_ts", "ingest_ts", "ordinal")])):
        intake = read(GOOD | {"event_id": [1, 2], "supersedes": pa.nulls(2, type_)})
        assert intake.supersedes is None
        assert plain.content is not None
        assert intake.content is not None
        assert intake.content.tolist() == plain.content.tolist()


def test_what_a_row_supersedes_is_part_of_what_it_says() -> None:
    place = {"event_ts": 1, "ingest_ts": 2, "ordinal": 0}
    said = []
    for supersedes in ([None, None], [8, None], [9, None], [place, None], [place | {"ordinal": 1}, None]):
        content = read(GOOD | {"event_id": [1, 2], "supersedes": supersedes}).content
        assert content is not None
        said.append(content.tolist())
    assert len({first for first, _ in said}) == 5
    assert len({second for _, second in said}) == 1


def test_a_load_in_bulk_takes_no_corrections() -> None:
    with pytest.raises(SchemaError, match="'supersedes': corrections and deletions go through append"):
        read_events(GOOD | {"supersedes": [1, 2]}, SCHEMA, Coder(), corrections=False)


def test_a_trait_goes_by_a_former_name() -> None:
    table = without("item") | {"product": GOOD["item"]}
    for given in (GOOD, table):
        intake = read(given, RENAMED)
        assert intake.events.traits[0].values.tolist() == [5, 6]
        assert intake.events.traits[4].mask is not None  # added later, left out: null
        assert intake.events.traits[4].mask.all()
    assert read(table | {"late": ["x", None]}, RENAMED).events.traits[4].mask is not None
    with pytest.raises(SchemaError, match="'item' and 'product' are the same trait, 'product'"):
        read(GOOD | table, RENAMED)
    twice = RENAMED.altered(rename={"score": "other"}).altered(rename={"other": "third", "late": "other"})
    twice = twice.altered(rename={"other": "fourth"})
    with pytest.raises(SchemaError, match="'other' could be one of several"):
        read(without("score") | {"other": GOOD["score"]}, twice)


def test_words_of_rows_that_are_left_out_are_not_coded() -> None:
    table = GOOD | {"action": pa.array(["secret", "view"]).dictionary_encode()}
    coder = Coder()
    intake = read_events(table, SCHEMA, coder, leave_out=lambda intake: intake.events.event_ts < 20)
    assert coder.words == ["view"]
    action = next(trait.id for trait in SCHEMA if trait.name == "action")
    assert intake.events.traits[action].mask.tolist() == [True, False]  # type: ignore[union-attr]
    assert intake.events.event_ts.tolist() == [10, 20]
